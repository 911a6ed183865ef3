"""``python -m tests.lab``: the lab in the foreground until it is interrupted; scripts/lab calls it."""

from __future__ import annotations

import argparse
import contextlib
import shlex
import signal
import sys
import tempfile
import threading
from pathlib import Path

from rain_deploy.providers.local.server import PORT
from tests.lab.lab import Lab
from tests.lab.light import LightMachines

LEFT = 3  # exit code where something was not deleted


def main() -> int:
    """Serve until SIGINT or SIGTERM; returns the exit code."""
    parser = argparse.ArgumentParser(prog="scripts/lab", description="An Exoscale account on this machine.")
    parser.add_argument("--machines", choices=("light", "real"), default="light")
    parser.add_argument("--env", type=Path, required=True, help="written when ready: shell exports")
    parser.add_argument("--ssh-port", type=int, default=PORT, help="of the machines")
    options = parser.parse_args()
    if options.machines == "real":
        parser.error("the lab has no real machines yet; use --machines light")
    ended = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: ended.set())
    key = _key_of_an_earlier_lab(options.env)
    options.env.unlink(missing_ok=True)
    directory = tempfile.TemporaryDirectory(prefix="rain-lab-")
    with directory as path, contextlib.closing(LightMachines(Path(path), port=options.ssh_port)) as machines:
        return _serve(Lab(machines, ssh_port=options.ssh_port, latency_s=0.5, key=key), options, ended)


def _serve(lab: Lab, options: argparse.Namespace, ended: threading.Event) -> int:
    with lab:
        _write_exports(options.env, lab.environ())
        print(
            f"The lab serves {lab.url}; in another shell: . {shlex.quote(str(options.env.absolute()))}",
            flush=True,
        )
        ended.wait()
    left = lab.left()
    for each in left:
        print(f"not deleted: {each}")
    print(f"{len(left)} left undeleted, {len(lab.log)} requests served")
    return LEFT if left else 0


def _key_of_an_earlier_lab(path: Path) -> tuple[str, str] | None:
    """Return the API key and the secret in the file, so that a lab that starts again is the same account."""
    if not path.exists():
        return None
    words = shlex.split(path.read_text("utf-8"))
    values = dict(word.split("=", 1) for word in words if "=" in word)
    key, secret = values.get("EXOSCALE_API_KEY"), values.get("EXOSCALE_API_SECRET")
    return (key, secret) if key and secret else None


def _write_exports(path: Path, environ: dict[str, str]) -> None:
    """Write the file whole, for its owner alone: there is a secret in it."""
    text = "".join(f"export {name}={shlex.quote(value)}\n" for name, value in environ.items())
    unfinished = path.with_name(f".{path.name}.unfinished")
    unfinished.touch(mode=0o600)
    unfinished.write_text(text, encoding="utf-8")
    unfinished.replace(path)


if __name__ == "__main__":
    sys.exit(main())
