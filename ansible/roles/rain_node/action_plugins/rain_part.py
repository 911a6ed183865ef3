"""Runs one task of the role in rain-deploy's own code, which also does the work of ``rain-deploy up``."""

from __future__ import annotations

import difflib
import importlib.util
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from ansible.errors import AnsibleActionFail
from ansible.module_utils.parsing.convert_bool import boolean
from ansible.plugins.action import ActionBase

if importlib.util.find_spec("rain_deploy") is None:
    sys.path.append(str(Path(__file__).resolve().parents[4]))  # the checkout that the role is in
MISSING = ""
try:
    from rain_deploy.api.playbook import Task, task
    from rain_deploy.api.playbook_down import DownTask
    from rain_deploy.cli.show.text import clean
    from rain_deploy.core.step import CommandResult
    from rain_deploy.errors import RainDeployError
    from rain_deploy.transport.frame import Frame
    from rain_deploy.verbs.inventory import group_name
except ImportError as error:
    MISSING = str(error)

PREFIX = "rain_node_"
LISTS, NUMBERS, SWITCHES = {"trust_network", "packages", "apt"}, {"cpus_per_node"}, {"upgrade"}
TEXTS = {"host_key", "requirements", "setup", "engine_url", "engine_sha256"}
SETTINGS = LISTS | NUMBERS | SWITCHES | TEXTS
"""Variables of the role that are settings of ``rain-deploy up``."""
OWN = {"name", "cluster", "home", "discard_results", "facts", "group", "address"}
"""The other variables."""
WAY_BACK = {"results", "stop", "remove", "forget"}


class ActionModule(ActionBase):
    """The action ``rain_part``."""

    _supports_check_mode = True
    _supports_async = False
    _VALID_ARGS = frozenset({"do", "part", "only"})

    def run(self, tmp: Any = None, task_vars: Mapping[str, Any] | None = None) -> dict[str, Any]:
        result: dict[str, Any] = super().run(tmp, task_vars)
        del tmp
        variables = dict(task_vars or {})
        if MISSING:
            message = f"the role needs rain-deploy in Ansible's own Python ({sys.executable}): {MISSING}"
            raise AnsibleActionFail(f"{message}; next: {sys.executable} -m pip install rain-deploy")
        here, members = variables["inventory_hostname"], self._members(variables)
        self._refuse(variables, members)
        arguments = self._task.args
        if arguments.get("only") == "server" and here != members[0]:
            return {**result, "skipped": True, "skip_reason": "only on the server node"}
        hostvars, notices = variables["hostvars"], list[str]()
        names = {
            host: hostvars[host].get("rain_node_name") or f"node-{index}"
            for index, host in enumerate(members, start=1)
        }
        facts = {
            names[host]: hostvars[host].get("ansible_facts", {}).get("rain_node_facts") for host in members
        }
        try:
            with task(
                self._settings(variables, members, notices.append),
                Connection(self._connection),
                name=names[here],
                names=tuple(names.values()),
                known={name: str(text) for name, text in facts.items() if text},
                check=self._task.check_mode,
                kind=DownTask if arguments["do"] in WAY_BACK else Task,
                discard_results=boolean(self._value(variables, "discard_results", "no")),
            ) as one:
                words = (arguments["part"],) if "part" in arguments else ()
                done = getattr(one, arguments["do"])(*words)
        except RainDeployError as error:
            more = [f"next: {error.next_step}"] if error.next_step else []
            more += [f"still running: {error.still_running}"] if error.still_running else []
            message = "; ".join([error.message, *more])
            return {**result, "failed": True, "msg": message, "details": error.details or ""}
        for notice in notices:
            self._display.v(f"{here}: {clean(notice)}")
        for line in done.lines:
            self._display.display(clean(line))
        result |= {"changed": bool(done.changed), "lines": [*done.changed, *done.lines]}
        if done.facts:
            result["ansible_facts"] = {"rain_node_facts": done.facts}
        if self._task.diff and done.changed:
            result["diff"] = {"prepared": "".join(f"+ {line}\n" for line in done.changed)}
        return result

    def _value(self, variables: Mapping[str, Any], name: str, default: Any) -> Any:
        """Return the value of ``rain_node_NAME``; Ansible hands variables on as they are written."""
        return self._templar.template(variables.get(PREFIX + name, default))

    def _members(self, variables: Mapping[str, Any]) -> list[str]:
        """Return the hosts of this host's cluster, in the order of the group: the first is the server."""
        here, hostvars = variables["inventory_hostname"], variables["hostvars"]
        group, mine = self._value(variables, "group", "rain"), hostvars[here].get("rain_node_cluster")
        members = variables["groups"].get(group, [])
        if here not in members:
            raise AnsibleActionFail(f"{here} is not in the group {group}")
        return [host for host in members if hostvars[host].get("rain_node_cluster") == mine]

    def _refuse(self, variables: Mapping[str, Any], members: list[str]) -> None:
        """Raise AnsibleActionFail for a play that must not go on."""
        hostvars, batch = variables["hostvars"], variables["ansible_play_batch"]
        if self._play_context.become:
            raise AnsibleActionFail("leave out become: rain-deploy calls sudo itself, where it needs root")
        if not self._connection.has_pipelining:
            raise AnsibleActionFail(f"the connection {self._connection.transport} cannot be used; use ssh")
        if absent := [host for host in members if host not in batch]:
            message = f"{', '.join(absent)} of the same cluster failed, or is not in this play"
            raise AnsibleActionFail(f"{message}; next: play for all its hosts, without --limit and serial")
        clusters = sorted({str(hostvars[host].get("rain_node_cluster", "default")) for host in batch})
        if len(clusters) > 1 and self._task.args["do"] in WAY_BACK:
            message = f"this would take down several clusters: {', '.join(clusters)}"
            raise AnsibleActionFail(f"{message}; next: name one, with --limit {group_name(clusters[0])}")
        for name in (name.removeprefix(PREFIX) for name in variables if name.startswith(PREFIX)):
            if name not in SETTINGS | OWN:
                near = difflib.get_close_matches(name, SETTINGS | OWN, n=1)
                hint = f"; did you mean {PREFIX}{near[0]}?" if near else ""
                raise AnsibleActionFail(f"unknown variable {PREFIX}{name}{hint}")
            mine = variables[PREFIX + name]
            if name in SETTINGS and any(hostvars[host].get(PREFIX + name, mine) != mine for host in members):
                raise AnsibleActionFail(f"{PREFIX}{name} is not the same for all hosts of the cluster")

    def _settings(
        self, variables: Mapping[str, Any], members: list[str], note: Callable[[str], None]
    ) -> dict[str, Any]:
        """Return the role's variables as the keywords of ``rain_deploy.up``."""
        given = {name: _typed(name, self._value(variables, name, None)) for name in SETTINGS}
        settings = {
            name: value for name, value in given.items() if value is not None and value not in ("", [])
        }
        if not settings.get("upgrade"):
            settings.pop("upgrade", None)
        hostvars = variables["hostvars"]
        if not all("rain_node_name" in hostvars[host] for host in members):
            settings["hosts"] = [self._entry(host, hostvars[host]) for host in members]
            settings["provider"] = "hosts"
        return {
            **settings,
            "cluster": self._value(variables, "cluster", "default"),
            "home": self._value(variables, "home", None) or None,
            "progress": lambda event: note(getattr(event, "text", "")),
        }

    def _entry(self, host: str, variables: Mapping[str, Any]) -> str:
        """Return a host as ``rain-deploy up --hosts`` takes it."""

        def said(name: str) -> Any:
            return variables.get(f"ansible_ssh_{name}", variables.get(f"ansible_{name}"))

        user, port = said("user") or self._task.remote_user, said("port")
        address = str(said("host") or host)
        if not said("host") and "@" in address:
            user, _, address = address.partition("@")
        place = f"[{address}]" if ":" in address and (user or port) else address
        entry = (f"{user}@" if user else "") + place + (f":{port}" if port else "")
        inner = variables.get("rain_node_address")  # where the other nodes reach it
        return f"{entry} address={inner}" if inner else entry


def _typed(name: str, value: Any) -> Any:
    """Return a value as its type in ``meta/argument_specs.yml`` says."""
    if name in SWITCHES:
        return boolean(value or False)
    if not isinstance(value, str):
        return value
    if name in LISTS:
        return [word.strip() for word in value.split(",") if word.strip()]
    return int(value) if name in NUMBERS and value.isdecimal() else value


class Connection:
    """Ansible's connection to one host, as a transport of rain-deploy (rain_deploy/transport/base.py)."""

    def __init__(self, connection: Any) -> None:
        self._connection = connection

    def connect(self, host: Any) -> None:
        """Do nothing: Ansible connects with the first command."""

    def run(self, host: Any, command: Any, *, on_stdout: Any = None, on_stderr: Any = None) -> Any:
        """Run a command; without a terminal, so that its output arrives as it was written."""
        kept = bytearray(), bytearray()
        frame = Frame(command.line(), on_stdout or kept[0].extend, on_stderr or kept[1].extend)
        status, out, err = self._connection.exec_command(frame.line, in_data=command.stdin, sudoable=False)
        frame.out(bytes(out))
        frame.err(bytes(err))
        return CommandResult(frame.exit_status(host, status), *map(bytes, kept))

    def close(self) -> None:
        """Do nothing: the connection is Ansible's."""
