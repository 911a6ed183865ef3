"""Puts a command into a frame, so that nothing else is taken for its output.

An SSH server hands every command to the user's login shell.  Its start-up files may print something or exit,
it may be csh or fish, and a ForceCommand may run something else.  So the line that is sent reads alike in
all shells: it becomes /bin/sh, prints a mark on both streams, runs the command, and prints a mark again.
"""

import re
import secrets

from rain_deploy.core.machine import Host
from rain_deploy.errors import Unreachable
from rain_deploy.transport.base import Chunk

MARK = b"\036"
# The line spells the mark in another way, so a shell that prints the line does not print the mark.
_SCRIPT = (
    r'f="\036%s\n"; printf "$f" "$0"; printf "$f" "$0" >&2; (eval "$(printf %b "$@")"); '
    r's=$?; printf "$f" "$0 $s"; printf "$f" "$0 $s" >&2; exit $s'
)
_UNSAFE = re.compile(rb"[^ -~]|['\\!]")  # what a shell changes between single quotes
_WORDS = re.compile(rb"(?:\\0[0-7]{3}|[^\\]){1,1000}")  # csh takes no longer words than a few thousand bytes
_NOISE_BYTES = 4000


class Frame:
    """One command: ``line`` is what to send; ``out`` and ``err`` are fed with what comes back."""

    def __init__(self, line: str, on_stdout: Chunk, on_stderr: Chunk) -> None:
        token = secrets.token_hex(8).encode()
        text = line.encode("utf-8", "surrogateescape")
        escaped = _UNSAFE.sub(lambda match: b"\\0%03o" % ord(match[0]), text)
        words = b" ".join(b"'%b'" % word for word in _WORDS.findall(escaped)).decode()
        self.line = f"exec /bin/sh -c '{_SCRIPT}' {token.decode()} {words}"
        self.out, self.err = Stream(token, on_stdout), Stream(token, on_stderr)

    @property
    def ended(self) -> bool:
        """Return whether the command has ended and all its output has come."""
        return self.out.status is not None and self.err.status is not None

    @property
    def refused(self) -> bool:
        """Return whether the login printed something, and the command was not started yet."""
        return not self.out.started and bool(self.out.noise or self.err.noise)

    def exit_status(self, host: Host, status: int | None) -> int:
        """Return the command's exit status; ``status`` is the login's, None for none.

        Raises Unreachable if the login did not run the command, or not to its end.
        """
        if self.out.status is not None:
            return self.out.status
        if self.refused or (status is not None and not self.out.started):
            raise self.not_run(host, status)
        problem = "has no exit status: it was killed or the connection was lost"
        raise Unreachable(f"{host.title}: the command {problem}", node=host.name)

    def not_run(self, host: Host, status: int | None = None) -> Unreachable:
        """Return the error for a login that does not run commands, with what it printed instead."""
        noise = b"\n".join((self.err.noise, self.out.noise)).decode(errors="replace")
        lines = [line.strip() for line in noise.splitlines() if line.strip()]
        code = "" if status is None else f" (exit {status})"
        printed = f"it printed: {' / '.join(lines[-3:])[:300]}" if lines else "it printed nothing"
        return Unreachable(
            f"{host.title}: the login of {host.user} did not run the command{code}; {printed}",
            node=host.name,
            next_step=f"`{ssh_words(host)} echo ok` must print ok: look at its login shell, the files that "
            "the shell reads first (such as .bashrc) and ForceCommand",
            details="\n".join(lines) if len(lines) > 3 else None,  # noqa: PLR2004 - the message shows three
        )


class Stream:
    """One stream of a framed command; hands on what the command itself wrote."""

    def __init__(self, token: bytes, receive: Chunk) -> None:
        self._start, self._end, self._receive = MARK + token + b"\n", MARK + token + b" ", receive
        self._held = b""
        self.started = False
        self.status: int | None = None

    @property
    def noise(self) -> bytes:
        """Return the end of what was printed before the command; empty once it has started."""
        return b"" if self.started else self._held

    def __call__(self, data: bytes) -> None:
        data, self._held = self._held + data, b""
        if not self.started:
            _, mark, rest = data.partition(self._start)
            if not mark:
                self._held = data[-_NOISE_BYTES:]
                return
            self.started, data = True, rest
        if self.status is not None:
            return
        output, mark, rest = data.partition(self._end)
        if mark:
            number, newline, _ = rest.partition(b"\n")
            if newline:
                self.status = int(number)
            else:
                self._held = mark + rest
        elif (at := output.rfind(MARK, -len(self._end))) >= 0 and self._end.startswith(output[at:]):
            output, self._held = output[:at], output[at:]
        if output:
            self._receive(output)


def ssh_words(host: Host) -> str:
    """Return the ``ssh`` command by which the user reaches the host."""
    port = "" if host.port == 22 else f"-p {host.port} "  # noqa: PLR2004 - the default of ssh
    return f"ssh {host.label or f'{port}{host.user}@{host.address}'}"
