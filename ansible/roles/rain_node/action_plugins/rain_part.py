"""Runs one task of the role in rain-deploy's own code, which also does the work of ``rain-deploy up``."""

from __future__ import annotations

import getpass
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
    from rain_deploy.api import playbook
    from rain_deploy.cli.show.text import clean
    from rain_deploy.core.step import CommandResult
    from rain_deploy.errors import RainDeployError
except ImportError as error:
    MISSING = str(error)

PREFIX = "rain_node_"
OWN = {"name", "cluster", "home", "discard_results", "facts", "group", "address"}
"""Variables of the role that are no setting of ``rain-deploy up``."""
LISTS, NUMBERS, SWITCHES = {"trust_network", "packages", "apt"}, {"cpus_per_node"}, {"upgrade"}
"""Settings that are text where they are given as ``-e NAME=VALUE``."""


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
        notices: list[str] = []
        members = self._members(variables)
        name = self._name(variables, members)
        if self._task.args.get("only") == "server" and variables["inventory_hostname"] != members[0]:
            return {**result, "skipped": True, "skip_reason": "only on the server node"}
        try:
            if self._play_context.become:
                raise AnsibleActionFail(
                    "leave out become: rain-deploy calls sudo itself, where it needs root"
                )
            with playbook.task(
                self._settings(variables, members, notices.append),
                Connection(self._connection),
                name=name,
                known=self._known(variables, members),
                check=self._task.check_mode,
                options={"discard_results": boolean(variables.get("rain_node_discard_results", False))},
            ) as task:
                words = (self._task.args["part"],) if "part" in self._task.args else ()
                done = getattr(task, self._task.args["do"])(*words)
        except RainDeployError as error:
            more = [f"next: {error.next_step}"] if error.next_step else []
            more += [f"still running: {error.still_running}"] if error.still_running else []
            message = "; ".join([error.message, *more])
            return {**result, "failed": True, "msg": message, "details": error.details or ""}
        for notice in notices:
            self._display.v(f"{variables['inventory_hostname']}: {clean(notice)}")
        for line in done.lines:
            self._display.display(clean(line))
        result |= {"changed": bool(done.changed), "lines": [*done.changed, *done.lines]}
        if done.facts:
            result["ansible_facts"] = {"rain_node_facts": done.facts}
        if self._task.diff and done.changed:
            result["diff"] = {"prepared": "".join(f"+ {line}\n" for line in done.changed)}
        return result

    def _members(self, variables: Mapping[str, Any]) -> list[str]:
        """Return the hosts of this host's cluster, in the order of the group: the first is the server."""
        mine, hostvars = variables.get("rain_node_cluster"), variables["hostvars"]
        group = variables.get("rain_node_group", "rain")
        members = variables["groups"].get(group, [])
        return [host for host in members if hostvars[host].get("rain_node_cluster", mine) == mine]

    def _name(self, variables: Mapping[str, Any], members: list[str]) -> str:
        return self._names(variables, members)[variables["inventory_hostname"]]

    def _names(self, variables: Mapping[str, Any], members: list[str]) -> dict[str, str]:
        """Return rain-deploy's name of each member."""
        here = variables["inventory_hostname"]
        if here not in members:
            raise AnsibleActionFail(f"{here} is not in the group {variables.get('rain_node_group', 'rain')}")
        hostvars = variables["hostvars"]
        return {
            host: hostvars[host].get("rain_node_name") or f"node-{index}"
            for index, host in enumerate(members, start=1)
        }

    def _known(self, variables: Mapping[str, Any], members: list[str]) -> dict[str, str]:
        facts = {host: variables["hostvars"][host].get("ansible_facts", {}) for host in members}
        names = self._names(variables, members)
        return {names[host]: str(f["rain_node_facts"]) for host, f in facts.items() if "rain_node_facts" in f}

    def _settings(
        self, variables: Mapping[str, Any], members: list[str], note: Callable[[str], None]
    ) -> dict[str, Any]:
        """Return the role's variables as the keywords of ``rain_deploy.up``."""
        given = {
            name.removeprefix(PREFIX): value for name, value in variables.items() if name.startswith(PREFIX)
        }
        settings = {
            name: _typed(name, self._templar.template(value))
            for name, value in given.items()
            if name not in OWN
        }
        settings = {name: value for name, value in settings.items() if value not in (None, "", [], False)}
        hostvars = variables["hostvars"]
        if not all("rain_node_name" in hostvars[host] for host in members):
            settings["hosts"] = [self._entry(host, hostvars[host]) for host in members]
            settings["provider"] = "hosts"
        return {
            **settings,
            "cluster": variables.get("rain_node_cluster", "default"),
            "home": variables.get("rain_node_home") or None,
            "cwd": variables["playbook_dir"],
            "progress": lambda event: note(getattr(event, "text", "")),
        }

    def _entry(self, host: str, variables: Mapping[str, Any]) -> str:
        """Return a host as ``rain-deploy up --hosts`` takes it."""
        address, port = str(variables.get("ansible_host", host)), variables.get("ansible_port")
        user, inner = variables.get("ansible_user") or self._play_context.remote_user, ""
        if "rain_node_address" in variables:  # where the other nodes reach it
            inner = f" address={variables['rain_node_address']}"
        if not user and not port:
            return address + inner  # as ~/.ssh/config has it
        place = f"[{address}]" if ":" in address else address
        return f"{user or getpass.getuser()}@{place}" + (f":{port}" if port else "") + inner


def _typed(name: str, value: Any) -> Any:
    """Return a value as its type in ``meta/argument_specs.yml`` says."""
    if name in SWITCHES:
        return boolean(value)
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
        del host
        status, out, err = self._connection.exec_command(
            command.line(), in_data=command.stdin, sudoable=False
        )
        kept = []
        for chunk, data in ((on_stdout, bytes(out)), (on_stderr, bytes(err))):
            if chunk is not None:
                chunk(data)
            kept.append(b"" if chunk is not None else data)
        return CommandResult(status, *kept)

    def close(self) -> None:
        """Do nothing: the connection is Ansible's."""
