"""What a node sends is laid below one directory, or refused; it is never believed."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import shutil
import stat
import subprocess
import tarfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rain_deploy.errors import PullFailed, UnsafeResults
from rain_deploy.node.wire import Limits, map_of_parts
from rain_deploy.results.archive import SUMS
from rain_deploy.results.names import decode_name, encode_name
from rain_deploy.results.unpack import NO_LIMITS, CutError, Unpacked, receive

Entry = tarfile.TarInfo | tuple[str, bytes]


def entry(name: str, kind: bytes, target: str = "") -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    member.type, member.linkname = kind, target
    return member


def archive(
    entries: Iterable[Entry], sums: dict[str, object] | None = None, fmt: int = tarfile.PAX_FORMAT
) -> bytes:
    """A tar as node verb ``pack`` sends it; ``sums`` replaces the right last member."""
    right: dict[str, object] = {}
    buffer = io.BytesIO()
    with tarfile.open(
        fileobj=buffer, mode="w|", format=fmt, encoding="utf-8", errors="surrogateescape"
    ) as tar:
        for item in entries:
            if isinstance(item, tarfile.TarInfo):
                tar.addfile(item)
                if item.issym():
                    target = os.fsencode(item.linkname)
                    right[item.name] = [len(target), hashlib.sha256(target).hexdigest()]
                continue
            name, data = item
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
            right.setdefault(name, [len(data), hashlib.sha256(data).hexdigest()])
        last = json.dumps(right if sums is None else sums).encode()
        member = tarfile.TarInfo(SUMS)
        member.size = len(last)
        tar.addfile(member, io.BytesIO(last))
    return buffer.getvalue()


def unpack(
    target: Path,
    data: bytes,
    limits: Limits | None = None,
    step: int = 10_000,
    *,
    top: frozenset[str] | None = None,
    sums: bool = True,
) -> Unpacked:
    def send(sink: Callable[[bytes], None]) -> None:
        for start in range(0, len(data), step):
            sink(data[start : start + step])

    return receive(send, target, limits, top=top, sums=sums)


def tree(directory: Path) -> dict[str, bytes]:
    return {
        path.relative_to(directory).as_posix(): path.read_bytes()
        for path in directory.rglob("*")
        if path.is_file() and not path.is_symlink()
    }


@pytest.mark.parametrize("fmt", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT, tarfile.USTAR_FORMAT])
@pytest.mark.parametrize("step", [1, 511, 512, 1 << 20])
def test_files_arrive_byte_for_byte_however_the_stream_is_cut_up(tmp_path: Path, fmt: int, step: int) -> None:
    files = {"files/a": b"", "files/deep/er/b": b"x" * 513, "figures/" + "n" * 90 + ".png": os.urandom(2048)}
    done = unpack(tmp_path / "new", archive(files.items(), fmt=fmt), step=step)
    assert tree(tmp_path / "new") == files
    assert {file.path: file.sha256 for file in done.files} == {
        name: hashlib.sha256(data).hexdigest() for name, data in files.items()
    }
    assert done.refused == {}


HOSTILE: dict[str, Entry] = {
    "path that leads out": ("../outside", b"evil"),
    "hidden path that leads out": ("files/x/../../../outside", b"evil"),
    "absolute path": ("/tmp/rain-deploy-outside", b"evil"),
    "symlink": entry("files/link", tarfile.SYMTYPE, "../.."),
    "hard link": entry("files/hard", tarfile.LNKTYPE, "../../etc/passwd"),
    "device": entry("files/null", tarfile.CHRTYPE),
    "block device": entry("files/disk", tarfile.BLKTYPE),
    "fifo": entry("files/pipe", tarfile.FIFOTYPE),
    "unknown kind": entry("files/odd", b"Z"),
    "directory that leads out": entry("../outside", tarfile.DIRTYPE),
    "sent twice": ("files/./good", b"other"),
    "a file as a directory": ("files/good/inner", b"evil"),
    "longer than any name here": ("files/" + "n" * 300, b"x"),
}


@pytest.mark.parametrize("what", HOSTILE)
def test_what_is_unsafe_is_refused_by_name_and_the_rest_arrives(tmp_path: Path, what: str) -> None:
    target = tmp_path / "in" / "here"
    data = archive([("files/good", b"good"), HOSTILE[what], ("files/after", b"after")])
    done = unpack(target, data)
    assert len(done.refused) == 1
    assert tree(tmp_path) == {"in/here/files/good": b"good", "in/here/files/after": b"after"}
    assert not any(path.is_symlink() or path.is_fifo() for path in tmp_path.rglob("*"))
    assert not Path("/tmp/rain-deploy-outside").exists()


@pytest.mark.parametrize(
    "target", ["ckpt-3", "../stdout.log", "sub/deep", "nowhere", "..", "./ckpt-3", "link"]
)
def test_a_link_that_stays_inside_is_made(tmp_path: Path, target: str) -> None:
    done = unpack(tmp_path, archive([("files/ckpt-3", b"x"), entry("files/link", tarfile.SYMTYPE, target)]))
    assert (done.links, done.refused) == ({"files/link": target}, {})
    assert os.readlink(tmp_path / "files/link") == target  # noqa: PTH115  as it is


@pytest.mark.parametrize(
    "target", ["/etc/passwd", "../../x", "../files/../../x", "sub/../..", "", "a/../b", "../" * 9 + "x"]
)
def test_a_link_that_may_lead_out_is_refused(tmp_path: Path, target: str) -> None:
    done = unpack(tmp_path, archive([entry("files/link", tarfile.SYMTYPE, target), ("files/a", b"x")]))
    assert (done.links, done.refused) == ({}, {"files/link": "link that leads out"})
    assert tree(tmp_path) == {"files/a": b"x"}


def test_no_chain_of_links_leads_out(tmp_path: Path) -> None:
    """Each is inside by itself; a target that goes up behind a name could leave through another link."""
    links = {
        "files/up": "..",
        "files/a/b/c": "../../up",
        "files/out": "a/b/c/../../../x",
        "files/in": "a/b/c/x",
    }
    sent = [entry(name, tarfile.SYMTYPE, target) for name, target in links.items()]
    done = unpack(tmp_path / "in", archive(sent))
    assert list(done.refused) == ["files/out"]
    for name in done.links:
        assert (tmp_path / "in" / name).resolve().is_relative_to(tmp_path / "in")


def test_nothing_is_written_through_a_link(tmp_path: Path) -> None:
    data = archive([("files/d/a", b"a"), entry("files/link", tarfile.SYMTYPE, "d"), ("files/link/b", b"b")])
    done = unpack(tmp_path, data)
    assert tree(tmp_path / "files/d") == {"a": b"a"}
    assert list(done.refused) == ["files/link/b"]


def gnu_tar(directory: Path, *options: str) -> bytes:
    command = ["tar", "-cSf", "-", "-C", str(directory), *options, "files"]
    return subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout


@pytest.mark.parametrize("how", ["gnu", "pax"])
def test_a_file_with_holes_has_them_here_too(tmp_path: Path, how: str) -> None:
    (tmp_path / "from/files").mkdir(parents=True)
    with (tmp_path / "from/files/sparse").open("wb") as file:
        file.write(b"begin")
        for mebibyte in range(1, 40):  # more parts than the first header holds
            file.seek(mebibyte << 20)
            file.write(b"middle")
        file.truncate(1 << 40)  # hashed, it would take an hour
    (tmp_path / "from/files/z").write_bytes(b"after")
    data = gnu_tar(tmp_path / "from", f"--format={how}")
    assert len(data) < 1 << 20
    done = unpack(tmp_path / "in", data, NO_LIMITS, sums=False)
    made = tmp_path / "in/files/sparse"
    assert (done.refused, done.files[0].size_bytes, made.stat().st_size) == ({}, 1 << 40, 1 << 40)
    assert made.stat().st_blocks * 512 < 1 << 22
    with made.open("rb") as file:
        assert file.read(6) == b"begin\0"
        file.seek(39 << 20)
        assert file.read(7) == b"middle\0"
    assert (tmp_path / "in/files/z").read_bytes() == b"after"


@pytest.mark.parametrize("how", ["gnu", "pax"])
def test_a_file_that_is_one_hole_has_no_parts(tmp_path: Path, how: str) -> None:
    (tmp_path / "files").mkdir()
    with (tmp_path / "files/hole").open("wb") as file:
        file.truncate(1 << 41)
    unpack(tmp_path / "in", gnu_tar(tmp_path, f"--format={how}"), NO_LIMITS, sums=False)
    made = (tmp_path / "in/files/hole").stat()
    assert (made.st_size, made.st_blocks) == (1 << 41, 0)


def test_parts_of_a_file_that_overlap_are_damage(tmp_path: Path) -> None:
    for parts in ("2\n0\n512\n100\n512\n", "1\n0\n9999\n", "1\n-5\n512\n", "1\n0\n-512\n"):
        member = tarfile.TarInfo("files/a")
        member.size = 512 + 1024
        pieces = [pax("GNU.sparse.major=1", "GNU.sparse.minor=0", "GNU.sparse.realsize=2000"), member.tobuf()]
        with pytest.raises(PullFailed, match=r"damaged|cut off"):
            unpack(tmp_path, b"".join(pieces) + parts.encode().ljust(512, b"\0") + bytes(4096), sums=False)


def test_the_length_of_a_file_with_holes_is_read_also_where_its_content_needs_a_long_number(
    tmp_path: Path,
) -> None:
    """Content of 8 GB and more: the header has a second size, which tarfile takes for the length."""
    member = tarfile.TarInfo("files/a")
    member.size = 1024
    said = pax("GNU.sparse.major=1", "GNU.sparse.minor=0", "GNU.sparse.realsize=5000000", "size=1024")
    content = b"2\n4096\n512\n5000000\n0\n".ljust(512, b"\0") + b"x" * 512
    done = unpack(tmp_path, said + member.tobuf() + content + bytes(1024), sums=False)
    assert done.files[0].size_bytes == (tmp_path / "files/a").stat().st_size == 5_000_000
    assert (tmp_path / "files/a").read_bytes()[4096:4609] == b"x" * 512 + b"\0"


def test_a_null_byte_in_a_name_is_refused(tmp_path: Path) -> None:
    plain = tarfile.TarInfo("files/a").tobuf()
    done = unpack(tmp_path, pax("path=files/a\0b") + plain + bytes(1024), sums=False)
    assert done.refused == {"files/a\0b": "path that leads out"}


def test_a_file_through_a_link_that_was_sent_first_stays_inside(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    data = archive([entry("files/link", tarfile.SYMTYPE, str(outside)), ("files/link/x", b"x")])
    done = unpack(tmp_path / "in", data)
    assert tree(tmp_path) == {"in/files/link/x": b"x"}
    assert done.refused == {"files/link": "link that leads out"}


def test_links_that_somebody_laid_in_the_target_are_not_followed(tmp_path: Path) -> None:
    (tmp_path / "outside").mkdir()
    (tmp_path / "in").mkdir()
    (tmp_path / "in/files").symlink_to(tmp_path / "outside")
    (tmp_path / "in/stdout.log").symlink_to(tmp_path / "outside/made")
    done = unpack(tmp_path / "in", archive([("files/x", b"x"), ("stdout.log", b"x")]))
    assert tree(tmp_path) == {"in/stdout.log~2": b"x"}
    assert done.refused == {"files/x": "no place for it here: Not a directory"}


def test_what_lies_in_the_target_is_not_written_over(tmp_path: Path) -> None:
    (tmp_path / "mine").write_bytes(b"mine")
    done = unpack(tmp_path, archive([("mine", b"theirs")]))
    assert tree(tmp_path) == {"mine": b"mine", "mine~2": b"theirs"}
    assert [(file.path, file.origin) for file in done.files] == [("mine~2", "mine")]


def test_special_mode_bits_are_dropped(tmp_path: Path) -> None:
    member = tarfile.TarInfo("files/tool")
    member.mode = 0o7777
    done = unpack(tmp_path, member.tobuf() + bytes(1024), sums=False)
    assert [file.path for file in done.files] == ["files/tool"]
    assert stat.S_IMODE((tmp_path / "files/tool").stat().st_mode) & ~0o755 == 0


def test_at_the_top_level_only_known_names_are_taken(tmp_path: Path) -> None:
    done = unpack(tmp_path, archive([("manifest.json", b"{}"), ("files/x", b"x")]), top=frozenset({"files"}))
    assert done.refused == {"manifest.json": "not a part of results"}
    assert tree(tmp_path) == {"files/x": b"x"}


NAMES = st.lists(
    st.binary(min_size=1, max_size=40).filter(lambda b: not {0, 47} & set(b) and b not in {b".", b".."}),
    min_size=1,
    max_size=8,
    unique=True,
)


@settings(deadline=None, max_examples=50)  # the disk's pace is no promise
@given(NAMES)
def test_names_of_any_bytes_arrive_and_read_back_from_print(names: list[bytes]) -> None:
    import tempfile  # noqa: PLC0415  a fixture would outlive one example

    with tempfile.TemporaryDirectory() as place:
        texts = [os.fsdecode(name) for name in names]
        done = unpack(Path(place), archive([(f"files/{text}", b"x") for text in texts]))
        made = [os.fsencode(path.name) for path in Path(place, "files").iterdir()]
        assert sorted(made) == sorted(names)
        shown = [encode_name(file.path) for file in done.files]
        assert all(text.isprintable() for text in shown)
        assert [os.fsencode(decode_name(text)) for text in shown] == [b"files/" + name for name in names]


@pytest.mark.parametrize(
    "name",
    [
        "-rf",
        "--files",
        "new\nline",
        "\x1b[31mred",
        "caf\udce9",
        "100%",
        "%41",
        "a\\b",
        "naïve",
        " ",
        "ü" * 100,
    ],
)
def test_odd_names_are_kept(tmp_path: Path, name: str) -> None:
    unpack(tmp_path, archive([(f"files/{name}", b"x")]))
    assert (tmp_path / "files" / name).read_bytes() == b"x"
    assert decode_name(encode_name(name)) == name


def test_case_twins_both_arrive(tmp_path: Path) -> None:
    done = unpack(tmp_path, archive([("files/A.txt", b"upper"), ("files/a.txt", b"lower")]))
    assert sorted((tmp_path / file.path).read_bytes() for file in done.files) == [b"lower", b"upper"]


def test_a_name_sent_twice_keeps_its_first_content(tmp_path: Path) -> None:
    done = unpack(tmp_path, archive([("files/a", b"first"), ("files/a", b"second")]))
    assert tree(tmp_path) == {"files/a": b"first"}
    assert done.refused == {"files/a": "sent twice"}


@pytest.fixture
def small_names(tmp_path: Path) -> Iterator[Path]:
    """A file system that tells no capitals from small letters and takes no bad UTF-8."""
    image, place = tmp_path / "image", tmp_path / "vfat"
    place.mkdir()
    image.write_bytes(bytes(2 << 20))
    mount = ["mount", "-o", "loop,utf8,shortname=mixed", str(image), str(place)]
    for command in (["mkfs.vfat", str(image)], mount):
        if (
            shutil.which(command[0]) is None
            or subprocess.run(command, capture_output=True, check=False).returncode
        ):
            pytest.skip(f"{command[0]} does not work here")
    yield place
    subprocess.run(["umount", place], check=True)


@pytest.mark.root
def test_case_twins_both_arrive_where_the_file_system_takes_them_for_one(small_names: Path) -> None:
    done = unpack(small_names / "in", archive([("files/A.txt", b"upper"), ("files/a.txt", b"lower")]))
    stored = {
        (file.origin or file.path): (small_names / "in" / file.path).read_bytes() for file in done.files
    }
    assert stored == {"files/A.txt": b"upper", "files/a.txt": b"lower"}
    assert done.refused == {}


def test_memory_does_not_grow_with_what_is_sent(tmp_path: Path) -> None:
    import tracemalloc  # noqa: PLC0415  only this test measures

    size = 64 << 20
    member = tarfile.TarInfo("files/big")
    member.size = size
    chunk = bytes(1 << 15)

    def send(sink: Callable[[bytes], None]) -> None:
        sink(member.tobuf())
        for _ in range(size // len(chunk)):
            sink(chunk)
        sink(bytes(1024))

    tracemalloc.start()
    done = receive(send, tmp_path, sums=False)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert done.files[0].size_bytes == size
    assert peak < 1 << 20


def test_memory_does_not_grow_with_the_number_of_members(tmp_path: Path) -> None:
    import tracemalloc  # noqa: PLC0415  only this test measures

    data = entry("files/link", tarfile.SYMTYPE, "../..").tobuf() * 10_000 + bytes(1024)
    tracemalloc.start()
    done = unpack(tmp_path, data, sums=False)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert done.refused == {"files/link": "link that leads out"}
    assert peak < 1 << 20


def test_a_list_of_hashes_of_any_size_is_not_held_in_memory(tmp_path: Path) -> None:
    member = tarfile.TarInfo(SUMS)
    member.size = 900_000_000
    with pytest.raises(UnsafeResults, match=r"sums\.json of 900000000 bytes"):
        unpack(tmp_path, member.tobuf())


@pytest.mark.parametrize("name", ["left.json", SUMS])
@pytest.mark.parametrize("length", [2000, 10**9, 1 << 40])
def test_what_is_read_at_once_has_no_holes_whatever_its_length(
    tmp_path: Path, name: str, length: int
) -> None:
    head = map_of_parts([(0, 0), (length, 0)]).ljust(512, b"\0")
    member = tarfile.TarInfo(name)
    member.size = len(head)
    member.pax_headers = {
        "GNU.sparse.major": "1",
        "GNU.sparse.minor": "0",
        "GNU.sparse.realsize": str(length),
    }
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w|", format=tarfile.PAX_FORMAT) as tar:
        tar.addfile(member, io.BytesIO(head))
    with pytest.raises(UnsafeResults, match=f"{name} (of|with)"):
        unpack(tmp_path, buffer.getvalue() + archive([]), top=frozenset({"left.json"}))
    assert tree(tmp_path) == {}


def test_a_long_list_of_what_stays_is_refused_before_it_is_read(tmp_path: Path) -> None:
    member = tarfile.TarInfo("left.json")
    member.size = 900_000_000
    with pytest.raises(UnsafeResults, match=r"left\.json of 900000000 bytes"):
        unpack(tmp_path, member.tobuf())


def test_a_file_of_the_user_may_have_such_a_name(tmp_path: Path) -> None:
    data = archive([("left.json", bytes(17_000_000))])
    assert unpack(tmp_path, data, NO_LIMITS, sums=False).refused == {}


def sparse_terabyte() -> bytes:
    member = tarfile.TarInfo("files/sparse")
    member.size = 10**12
    return member.tobuf(tarfile.GNU_FORMAT)


@pytest.mark.parametrize(
    ("data", "named"),
    [
        (archive([(f"files/{n}", b"") for n in range(30)]), "20 files"),
        (archive([("files/a", bytes(600_000)), ("files/b", bytes(600_000))]), "files/b of 600000 bytes"),
        (sparse_terabyte(), "files/sparse of 1000000000000 bytes"),
        (archive([]) + bytes(2 << 20), "more than 1000000 bytes"),
    ],
)
def test_a_limit_that_is_passed_ends_the_pull_and_says_which(tmp_path: Path, data: bytes, named: str) -> None:
    with pytest.raises(UnsafeResults, match=named):
        unpack(tmp_path, data, Limits(files=20, file_bytes=10**6, total_bytes=10**6))


def test_one_file_over_its_limit_is_refused_and_the_rest_arrives(tmp_path: Path) -> None:
    data = archive([("files/a", bytes(2000)), ("files/b", b"b")])
    done = unpack(tmp_path, data, Limits(file_bytes=1000))
    assert done.refused == {"files/a": "2000 bytes"}
    assert tree(tmp_path) == {"files/b": b"b"}


@pytest.mark.parametrize("kind", [tarfile.XHDTYPE, tarfile.GNUTYPE_LONGNAME, tarfile.XGLTYPE])
def test_a_header_of_any_size_is_not_held_in_memory(tmp_path: Path, kind: bytes) -> None:
    bomb = entry("bomb", kind)
    bomb.size = 10**12
    with pytest.raises(PullFailed, match="damaged: a header of more than 1048576 bytes"):
        unpack(tmp_path, bomb.tobuf(tarfile.GNU_FORMAT) + bytes(4 << 20))


def broken_headers() -> dict[str, bytes]:
    plain = archive([("files/a", b"a")])
    negative = tarfile.TarInfo("files/a").tobuf()
    return {
        "checksum": plain[:10] + b"X" + plain[11:],
        "noise": b"this is not a tar" * 100,
        "sparse": entry("s", tarfile.GNUTYPE_SPARSE).tobuf() + bytes(1024),
        "negative size": rechecked(negative[:124] + b"\xff" * 12 + negative[136:]) + bytes(1024),
        "pax size": pax("size=-5") + plain,
        "headers without an end": pax("comment=x") * 5000 + plain,
        "a map of holes without an end": pax("GNU.sparse.major=1", "GNU.sparse.minor=0", "GNU.sparse.name=a")
        + tarfile.TarInfo("a").tobuf()
        + b"999999999\n"
        + b"1\n" * (2 << 20),
        "damaged between two files": damaged_between(),
    }


def damaged_between() -> bytes:
    data = archive([("files/a", b"a"), ("files/b", b"b")])
    return data[:1024] + b"noise" + data[1029:]


def pax(*records: str) -> bytes:
    data = "".join(f"{len(record) + 4} {record}\n" for record in records).encode()
    member = entry("pax", tarfile.XHDTYPE)
    member.size = len(data)
    return member.tobuf() + data.ljust(512, b"\0")


def rechecked(header: bytes) -> bytes:
    summed = sum(header[:148]) + sum(header[156:]) + 8 * 32
    return header[:148] + f"{summed:06o}\0 ".encode() + header[156:]


@pytest.mark.parametrize("what", broken_headers())
def test_a_damaged_stream_is_an_error_that_says_so(tmp_path: Path, what: str) -> None:
    # tarfile of Python 3.11.2 takes a damaged header behind the first for the end.
    with pytest.raises(PullFailed, match=r"damaged|cut off on the way|did not arrive"):
        unpack(tmp_path, broken_headers()[what])


def test_a_stream_cut_anywhere_is_never_taken_for_the_whole(tmp_path: Path) -> None:
    data = archive([("files/a", b"a" * 700), ("files/deep/" + "b" * 120, b"b"), entry("c", tarfile.DIRTYPE)])
    content_end = len(data.rstrip(b"\0"))
    positions = [*range(0, content_end, 97), content_end - 1]
    for number, position in enumerate(positions):
        with pytest.raises(CutError):
            unpack(tmp_path / str(number), data[:position])


@settings(deadline=None, max_examples=200)
@given(st.data())
def test_a_stream_with_a_changed_byte_is_never_taken_for_the_whole(data: st.DataObject) -> None:
    import tempfile  # noqa: PLC0415  a fixture would outlive one example

    files: dict[str, bytes] = {"files/a": b"a" * 700, "files/" + "b" * 120: b"b"}
    sent = archive(files.items())
    position = data.draw(st.integers(0, len(sent.rstrip(b"\0")) - 1))
    changed = bytes([data.draw(st.integers(0, 255).filter(lambda value: value != sent[position]))])
    with tempfile.TemporaryDirectory() as place, contextlib.suppress(PullFailed, UnsafeResults):
        done = unpack(Path(place), sent[:position] + changed + sent[position + 1 :])
        assert done.refused or tree(Path(place)) == files


def test_a_tar_that_ends_without_its_hashes_is_not_the_whole(tmp_path: Path) -> None:
    with pytest.raises(CutError):
        unpack(tmp_path, tarfile.TarInfo("files/a").tobuf() + bytes(1024))


def damaged(change: Callable[[dict[str, list[object]]], object]) -> bytes:
    sums: dict[str, list[object]] = {"files/a": [1, hashlib.sha256(b"a").hexdigest()]}
    change(sums)
    return archive([("files/a", b"a")], dict(sums))


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda sums: sums.update({"files/a": [1, "0" * 64]}), "damaged on the way"),
        (lambda sums: sums.update({"files/a": [2, sums["files/a"][1]]}), "damaged on the way"),
        (lambda sums: sums.update({"files/b": [1, "0" * 64]}), "announced but did not arrive"),
        (lambda sums: sums.pop("files/a"), "without its hash"),
        (lambda sums: sums.update({"files/a": ["many"]}), "cannot be parsed"),
        (lambda sums: sums.update({"files/\ud800": [1, ""]}), "cannot be parsed"),
    ],
)
def test_hashes_that_do_not_agree_fail_the_pull(
    tmp_path: Path, change: Callable[[dict[str, list[object]]], object], says: str
) -> None:
    with pytest.raises(PullFailed, match=says):
        unpack(tmp_path, damaged(change))
