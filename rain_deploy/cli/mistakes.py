"""Say what was probably meant by a command line that is wrong."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

import click

from rain_deploy.options.table import OPTIONS

_OTHER_WORDS = {
    "up": "start create launch deploy init provision",
    "down": "stop destroy delete terminate remove rm teardown",
    "run": "submit execute",
    "cancel": "kill abort",
    "list": "ls clusters",
    "runs": "ps jobs history",
    "status": "info show describe state",
    "pull": "results download get",
    "fetch": "cp scp",
    "push": "upload put rsync",
    "logs": "log tail output",
    "ssh": "shell login connect",
    "scale": "resize grow shrink",
    "types": "prices instances instance-types",
    "zones": "regions",
    "gc": "cleanup",
    "--version": "version",
}
_OTHER_FLAGS = {
    **dict.fromkeys(("-n", "--num-nodes", "--workers", "--count", "--machines"), "--nodes"),
    **dict.fromkeys(("--name", "--cluster-name"), "--cluster"),
    **dict.fromkeys(("--force", "--assume-yes", "--no-confirm"), "--yes"),
    **dict.fromkeys(("--background", "--no-follow"), "--detach"),
    **dict.fromkeys(("--region", "--location"), "--zone"),
    **dict.fromkeys(("--type", "--flavor", "--size"), "--instance-type"),
    "--no-cache": "--fresh",
    "--output": "--out",
    "--tail": "--follow",
}
_MOST_MEANT = 3
_MEANT = {word: verb for verb, words in _OTHER_WORDS.items() for word in words.split()}


def near_verb(word: str, verbs: Iterable[str]) -> str:
    """Return the command that was probably meant, by its spelling or by what other tools call it."""
    close = difflib.get_close_matches(word, verbs, n=1, cutoff=0.75)
    return (close or [_MEANT.get(word, "")])[0] or (difflib.get_close_matches(word, verbs, n=1) or [""])[0]


def explained(error: click.ClickException) -> str:
    """Return the message of click's error, with what was probably meant."""
    if isinstance(error, click.NoSuchOption) and error.ctx is not None:
        return _no_such_option(error.option_name, error.ctx)
    message = error.format_message()
    ctx = error.ctx if isinstance(error, click.UsageError) else None
    if ctx and (verb := ctx.info_name) and message.startswith("Got unexpected extra argument"):
        word = message.partition("(")[2].rstrip(")")
        arguments = [each for each in ctx.command.params if isinstance(each, click.Argument)]
        number = verb == "up" and word.isdecimal()
        meant = f"--nodes {word}" if number else f"-- {word}" if verb == "ssh" else f"-c {word}"
        if arguments and verb != "ssh":  # one too many, and nobody knows what was meant
            takes = " ".join(each.make_metavar(ctx) for each in arguments)
            return f"{verb} takes {takes}, and not {word!r} too."
        guess = "" if " " in word else f" Did you mean {meant}?"
        return f"{verb} takes no argument {word!r}.{guess}"
    return message


def _no_such_option(name: str, ctx: click.Context) -> str:
    verb = ctx.info_name if ctx.parent else ""
    message = f"{verb or 'rain-deploy'} has no option {name}."
    flags = {flag: row for row in OPTIONS.values() for flag in row.flags}
    if name in flags and verb:
        return f"{message} {_listed(flags[name].verbs)}"
    if name in flags:
        return f"{name} is an option of a command: name the command too."
    own = [flag for parameter in ctx.command.params for flag in parameter.opts if flag.startswith("--")]
    near = " or ".join(map(repr, _near_options(name, own)))
    return f"{message} Did you mean {near}?" if near else message


def _near_options(name: str, own: list[str]) -> list[str]:
    """Return the verb's options that were probably meant: by letter, by other tools' words, by spelling."""
    if (meant := _OTHER_FLAGS.get(name)) in own:
        return [str(meant)]
    if not name.startswith("--"):
        return [flag for flag in own if flag[2] == name[1]][:_MOST_MEANT]
    return difflib.get_close_matches(name, own, n=1)


def _listed(verbs: tuple[str, ...]) -> str:
    *others, last = verbs
    return f"{', '.join(others)} and {last} have it." if others else f"Only {last} has it."
