"""Shell text: templates, the steps that several parts use, and a stage as one command."""

import functools
import gzip
import io
import json
import os
import shlex
import tarfile
from pathlib import Path
from typing import TYPE_CHECKING

from rain_deploy.core.layout import STAGING
from rain_deploy.core.step import Command, PayloadFile, Stage, Step

if TYPE_CHECKING:
    import jinja2

PACKAGE = Path(__file__).resolve().parent.parent  # the directory of this installation's package
MARK = "\x1e"  # starts a line that reports on a step: index, tab, outcome
DATA = "\x1d"  # starts a line that reports a value: name, tab, value


def templates_directory() -> Path:
    """Return where the templates are: top level of a checkout, ``rain_deploy/templates`` in a wheel."""
    inside = PACKAGE / "templates"
    return inside if inside.is_dir() else PACKAGE.parent / "templates"


@functools.cache
def _environment() -> "jinja2.Environment":
    import jinja2  # noqa: PLC0415  heavy: only what renders pays for it

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(templates_directory()),
        undefined=jinja2.StrictUndefined,
        autoescape=False,  # noqa: S701  shell and configuration text; ``q`` quotes for the shell
        keep_trailing_newline=True,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals["staging"] = f'"$B/{STAGING}"'
    environment.filters["q"] = lambda value: shlex.quote(str(value))
    return environment


def render(name: str, **values: object) -> str:
    """Return the text of template ``name``.  A missing value is an error."""
    return _environment().get_template(name).render(**values)


def step(
    name: str, template: str, *, parallel: bool = False, makes: str = "", sha256: str = "", **values: object
) -> Step:
    """Return the step whose shell text is in the template's blocks ``check``, ``act`` and ``verify``.

    A block ``done`` is check and verify in one; without any block, the whole template is the act.
    """
    loaded = _environment().get_template(template)
    context = loaded.new_context({**values, "makes": makes, "sha256": sha256})
    blocks = loaded.blocks or {"act": loaded.root_render_func}
    texts = {part: "".join(block(context)).strip("\n") for part, block in blocks.items()}
    if done := texts.pop("done", ""):
        texts |= {"check": done, "verify": done}
    return Step(name, **texts, parallel=parallel, makes=makes, sha256=sha256)


def json_file(path: str, value: object, mode: int = 0o644) -> PayloadFile:
    """Return a file of ASCII text, one key a line: shell text on the nodes reads it too."""
    return PayloadFile(path, json.dumps(value, indent=1, sort_keys=True).encode("ascii"), mode)


def pack(files: tuple[PayloadFile, ...]) -> bytes:
    """Return a gzipped tar of the files; the same files give the same bytes."""
    buffer = io.BytesIO()  # only what is compressed: the files may be large
    with (
        gzip.GzipFile(fileobj=buffer, mode="wb", compresslevel=1, mtime=0) as zipped,
        tarfile.open(fileobj=zipped, mode="w", format=tarfile.PAX_FORMAT) as archive,
    ):
        for file in files:
            member = tarfile.TarInfo(file.path)
            member.size, member.mode = len(file.data), file.mode
            archive.addfile(member, io.BytesIO(file.data))
    return buffer.getvalue()


def checks_command(stage: Stage, base: str) -> Command:
    """Return what prints a line for each step of the stage that has something to do; it changes nothing."""
    script = render("checks.sh.j2", stage=stage, base=base)
    return Command(argv=("sh", "-c", script), deadline_s=stage.deadline_s)


def stage_command(stage: Stage, base: str, exports: tuple[tuple[str, str], ...] = ()) -> Command:
    """Return the stage as a command for one exec channel: POSIX sh text, with the payload on its stdin.

    ``base`` is what its steps call ``$B``.  ``exports`` is environment for this script alone.  It may hold
    secrets, so it is a file of the payload and never an argument.
    """
    lines = "".join(f"export {name}={shlex.quote(value)}\n" for name, value in exports)
    exported = (PayloadFile("exports", os.fsencode(lines), 0o600),) if exports else ()
    payload = (*exported, *stage.payload)
    script = render("stage.sh.j2", stage=stage, base=base, exports=exports, payload=payload)
    stdin = pack(payload) if payload else None
    return Command(argv=("sh", "-c", script), stdin=stdin, deadline_s=stage.deadline_s)
