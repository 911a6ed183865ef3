"""What a login shell prints or does is never taken for the command's: on a real sshd, and in every shell."""

from __future__ import annotations

import contextlib
import dataclasses
import getpass
import os
import pwd
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from rain_deploy.core.machine import Host
from rain_deploy.core.step import Command
from rain_deploy.errors import Unreachable
from rain_deploy.providers.keys import public_key
from rain_deploy.transport.frame import Frame
from rain_deploy.transport.ssh import SshTransport
from tests.contract.servers import ADDRESS
from tests.support.sshd import SSHD, OpenSshd

HARD = (
    "'",
    '"',
    "!",
    "!!",
    "a\nb",
    "\\",
    "\\n",
    "\\'",
    "é✓Á",
    "$HOME",
    "`id`",
    "*",
    "~",
    "\t",
    "%s",
    "#",
    "",
)
SHELLS = ("bash", "dash", "tcsh", "bsd-csh", "fish", "zsh")

Machine = Callable[..., Host]


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[Machine]:
    """Starts a real SSH server whose users have this home, with more settings where they are given."""
    if not SSHD.exists():
        pytest.skip(f"no {SSHD}: install openssh-server")
    key, host_key = tmp_path / "id_ed25519", tmp_path / "host_ed25519"
    public, pinned = public_key(key), public_key(host_key)
    with contextlib.ExitStack() as servers:

        def start(bashrc: str = "", *settings: str) -> Host:
            (tmp_path / ".bashrc").write_text(bashrc)
            if bashrc and not pwd.getpwuid(os.getuid()).pw_shell.endswith("bash"):
                pytest.skip("the login shell of this user is not bash")
            server = OpenSshd(tmp_path, ADDRESS, public, [host_key], {"HOME": tmp_path}, *settings)
            servers.callback(server.close)
            keys = (pinned,)
            return Host("node-1", ADDRESS, server.port, getpass.getuser(), keys, identity_files=(key,))

        yield start


def command(*argv: str, stdin: bytes | None = None, deadline_s: float = 20.0) -> Command:
    return Command(argv, stdin=stdin, deadline_s=deadline_s)


# A real SSH server


@pytest.mark.parametrize(
    "bashrc",
    [
        "echo hi; echo oops >&2",
        "printf 'no end of line'; printf 'none here' >&2",
        "set -x",
        "printf '\\036a\\t1\\n\\035x\\ty\\n'",  # as our stages report
        "head -c 100000 /dev/zero",
        "trap 'echo bye' EXIT",
    ],
)
def test_what_a_start_up_file_prints_is_not_output(
    machine: Machine, transport: SshTransport, bashrc: str
) -> None:
    result = transport.run(machine(bashrc), command("sh", "-c", "cat; echo err >&2; exit 3", stdin=b"in"))
    assert (result.exit_status, result.stdout, result.stderr) == (3, b"in", b"err\n")


def test_a_start_up_file_that_leaves_a_process_does_not_hold_the_command(
    machine: Machine, transport: SshTransport
) -> None:
    assert transport.run(machine("sleep 60 &"), command("echo", "done", deadline_s=50)).stdout == b"done\n"


@pytest.mark.parametrize("line", ["exit", "exit 4", "exec true"])
def test_a_start_up_file_that_ends_the_shell_is_an_error(
    machine: Machine, transport: SshTransport, line: str, tmp_path: Path
) -> None:
    host = machine(f"echo maintenance until noon; {line}")
    with pytest.raises(Unreachable, match=r"did not run the command.*maintenance until noon") as caught:
        transport.run(host, command("touch", str(tmp_path / "ran")))
    assert (caught.value.exit_code, caught.value.node) == (30, "node-1")
    assert f"ssh -p {host.port} {host.user}@{ADDRESS} echo ok" in (caught.value.next_step or "")
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("forced", "words"),
    [
        ("echo only backups here", r"\(exit 0\); it printed: only backups here"),
        ("/usr/sbin/nologin", r"\(exit 1\); it printed: .*not available"),
        ("true", r"\(exit 0\); it printed nothing"),
    ],
)
def test_what_a_forced_command_prints_is_in_the_error(
    machine: Machine, transport: SshTransport, forced: str, words: str
) -> None:
    with pytest.raises(Unreachable, match=words):
        transport.run(machine("", f"ForceCommand {forced}"), command("true"))


def test_a_forced_command_that_never_ends_is_named_at_the_deadline(
    machine: Machine, transport: SshTransport
) -> None:
    host = machine("", "ForceCommand echo choose a number; sleep 30")
    with pytest.raises(Unreachable, match="choose a number"):
        transport.run(host, command("true", deadline_s=1))


def test_a_forced_command_that_runs_the_command_may_print_around_it(
    machine: Machine, transport: SshTransport
) -> None:
    wrapper = 'ForceCommand echo begin; sh -c "$SSH_ORIGINAL_COMMAND"; echo end'
    result = transport.run(machine("", wrapper), command("sh", "-c", "echo inside; exit 5"))
    assert (result.exit_status, result.stdout) == (5, b"inside\n")


# Every shell that is here


@pytest.fixture(params=SHELLS)
def shell(request: pytest.FixtureRequest) -> str:
    found = shutil.which(request.param)
    if not found:
        pytest.skip(f"no {request.param} here")
    return str(found)


@pytest.mark.parametrize("size", [0, 900, 20_000, 80_000])
def test_every_login_shell_hands_the_command_on_unchanged(shell: str, size: int, tmp_path: Path) -> None:
    words = (*HARD, "x" * size)
    line = Command(("sh", "-c", 'cat; for w; do printf "%s\\0" "$w"; done; exit 9', "sh", *words)).line()
    out, err = bytearray(), bytearray()
    frame = Frame(line, out.extend, err.extend)
    home = {"HOME": str(tmp_path), "PATH": os.environ["PATH"]}
    done = subprocess.run([shell, "-c", frame.line], input=b"in,", capture_output=True, env=home, check=False)
    for data in (done.stdout[i : i + 7] for i in range(0, len(done.stdout), 7)):
        frame.out(data)
    frame.err(done.stderr)
    assert frame.ended
    assert frame.exit_status(Host("node-1", "", 22, "", ()), done.returncode) == 9
    assert out == b"in," + b"".join(word.encode() + b"\0" for word in words)
    assert err == b""


def test_output_that_looks_like_the_frame_arrives_as_it_comes() -> None:
    seen: list[bytes] = []
    frame = Frame("true", seen.append, seen.append)
    token = frame.line.split()[-2].encode()
    frame.out(b"noise\036" + token)
    frame.out(b"\n1\036")
    assert seen == [b"1"]
    frame.out(b"2\n")
    assert seen == [b"1", b"\0362\n"]
    frame.out(b"3\036" + token + b" 12")
    assert (seen[-1], frame.out.status) == (b"3", None)
    frame.out(b"7\nlater")
    assert (seen, frame.out.status, frame.ended) == ([b"1", b"\0362\n", b"3"], 127, False)


def test_a_host_is_named_in_the_way_the_user_reaches_it(transport: SshTransport, machine: Machine) -> None:
    host = dataclasses.replace(machine("", "ForceCommand echo no"), label="oak")
    with pytest.raises(Unreachable, match=r"node-1 \(oak\): the login of") as caught:
        transport.run(host, command("true"))
    assert "`ssh oak echo ok` must print ok" in (caught.value.next_step or "")
