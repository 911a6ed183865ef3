"""One run from the line to its end.

Every step looks first at what is there, so a supervisor that was killed is followed by one that goes on
where the run stands.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ..config import Member, NodeConfig, member_name, members, versions
from ..files import read_json, tail, write_json
from ..points.recorder import Recorder
from ..service.engine import (
    EngineFailed,
    clients_registered,
    end_servers,
    next_epoch,
    server_fault,
    start_server,
)
from ..service.probe import WarmProbe
from ..service.process import Process, end, leader, scan, spawn
from .directory import FINISHED, Run

_POLL_S = 0.02
_POINTS_EVERY_S = 0.3
_TERM_GRACE_S = 5.0
_ENGINE_GRACE_S = 5.0
"""For a script whose engine died to print its own traceback and end."""
_ENGINE_NOTICE_S = 0.3
"""A script that failed because of the engine may be seen to end a little before it."""
_GOVERNORS_DEADLINE_S = 30.0
_LOG_SETTLES_S = 1.5
"""Rain writes its event log once a second."""


@dataclass(frozen=True, slots=True)
class Ending:
    """How a run ended."""

    outcome: str
    message: str = ""


class Attempt:
    """Conducts one run.

    ``probe`` gives the process to ask for governors, if they are to be asked for; ``meanwhile`` is called
    at every poll.
    """

    def __init__(
        self, config: NodeConfig, run: Run, probe: Callable[[], WarmProbe], meanwhile: Callable[[], None]
    ) -> None:
        self._config = config
        self._run = run
        self._probe = probe
        self._meanwhile = meanwhile
        self._nodes: tuple[Member, ...] = members(config)
        # A node that joined after the run was shipped does not know it.
        known = [node for node in self._nodes if node.name in run.nodes]
        self._expected = tuple(known) or self._nodes

    def conduct(self) -> None:
        """Bring the run to its end.  Raises OSError when the disk refuses."""
        run = self._run
        if run.state()["state"] == "queued":
            epoch = next_epoch(self._config.server_dir)
            run.update(state="starting", epoch=epoch, versions=versions(self._config.env))
        try:
            ending = None if self._job_began() else self._start()
        except EngineFailed as error:
            ending = Ending("engine", str(error))
        recorder = Recorder(run, self._node_name)
        ending = ending or self._follow(recorder)
        self._settle(recorder)
        end_servers(self._config)
        self._finish(ending)

    def _job_began(self) -> bool:
        return (self._run.path / "job.json").exists() or self._job() is not None

    def _job(self) -> Process | None:
        found = leader(self._config.service, "job", self._run.path)
        return found.process if found else None

    def _server(self) -> Process | None:
        found = leader(self._config.service, "server", self._run.attempt_dir)
        return found.process if found else None

    def _start(self) -> Ending | None:
        """Server, governors, job; an ending when it does not come so far.  Raises EngineFailed."""
        run, epoch = self._run, self._run.attempt_dir
        server = self._server()
        if server is None:
            if (epoch / "log").exists():
                raise EngineFailed(f"Rain's server ended: {server_fault(epoch, self._nodes)}")
            end_servers(self._config)
            epoch.mkdir(parents=True, exist_ok=True, mode=0o700)
            server = start_server(self._config, epoch, run.port)
        registered = self._wait_for_governors(server)
        if registered is None:
            return Ending("cancelled", "cancelled before the script was started")
        missing = [node.name for node in self._expected if node.name not in registered]
        run.update(nodes=sorted(registered), missing=missing)
        needed = run.min_nodes or len(self._expected)
        if len(registered) < needed:
            return Ending("engine", f"governors that did not register: {', '.join(missing)}")
        self._start_job()
        return None

    def _wait_for_governors(self, server: Process) -> set[str] | None:
        """Names of the nodes whose governors registered; None when the run was cancelled meanwhile."""
        probe = self._probe()
        try:
            probe.ask(self._config.address, self._run.port, len(self._expected), _GOVERNORS_DEADLINE_S)
            deadline = time.monotonic() + _GOVERNORS_DEADLINE_S + 3
            while not probe.answered() and time.monotonic() < deadline:
                if self._run.cancelled:
                    return None
                if not server.alive():
                    fault = server_fault(self._run.attempt_dir, self._nodes)
                    raise EngineFailed(f"Rain's server ended while governors were awaited: {fault}")
                self._meanwhile()
                time.sleep(_POLL_S)
            return {self._node_name(governor) for governor in probe.governors()}
        finally:
            probe.close()

    def _start_job(self) -> None:
        run = self._run
        before = {"run": run.id, "port": run.port, "clients": clients_registered(run.attempt_dir)}
        write_json(run.attempt_dir / "epoch.json", before)
        figures = run.path / "figures"
        for directory in (figures, run.path / "companion"):
            directory.mkdir(exist_ok=True)
        env = {
            **self._config.environment("job", run.path),
            "PYTHONUNBUFFERED": "1",
            "RAIN_DEPLOY_SERVER": f"{self._config.address}:{run.port}",
            "RAIN_DEPLOY_FIGURES": str(figures),
            "RAIN_DEPLOY_SCRIPT": "1",
            **run.companion_env(self._config.code),
            **run.extra_env(),
        }
        logs = {"log": run.path / "stdout.log", "errors": run.path / "stderr.log"}
        spawn(self._config.verb("job", run.path), env=env, **logs)
        run.update(state="running", started_s=time.time())

    def _follow(self, recorder: Recorder) -> Ending:
        """Wait for the job's end; how it ended."""
        run = self._run
        job, server = self._job(), self._server()
        if run.state()["state"] != "running":  # killed between the job's start and this line
            run.update(state="running", started_s=(read_json(run.path / "job.json") or {}).get("started_s"))
        recorded_s = 0.0
        ended: Ending | None = None
        while job and not (run.path / "exit.json").exists() and job.alive():
            ended = self._reason_to_end(job, server)
            if ended:
                self._end_script(job)
                break
            if time.monotonic() - recorded_s > _POINTS_EVERY_S:
                recorder.step()
                recorded_s = time.monotonic()
            self._meanwhile()
            time.sleep(_POLL_S)
        self._end_leftovers()
        return ended or self._verdict(server)

    def _reason_to_end(self, job: Process, server: Process | None) -> Ending | None:
        if self._run.cancelled:
            return Ending("cancelled", "cancelled")
        if self._run.timeout_s is not None and job.age_s() > self._run.timeout_s:
            return Ending("timeout", f"the script did not end within {self._run.timeout_s:g} s")
        if server is None or not server.alive():
            self._await_end(job, _ENGINE_GRACE_S)
            return self._engine_died()
        return None

    def _await_end(self, job: Process, seconds: float) -> None:
        deadline = time.monotonic() + seconds
        while job.alive() and not self._run.cancelled and time.monotonic() < deadline:
            time.sleep(_POLL_S)

    def _engine_died(self) -> Ending:
        """Rain's server is gone.  It may go after a failed task: then the task ended the script."""
        fault = server_fault(self._run.attempt_dir, self._nodes)
        if (self._run.path / "exit.json").exists() and died_of_task(self._run):
            return Ending(
                "failed", f"a task failed and the script with it; then Rain's server ended: {fault}"
            )
        return Ending("engine", f"Rain's server ended during the run: {fault}")

    def _end_script(self, job: Process) -> None:
        """End what the job started, but not the job: it writes how the script ended."""

        def script() -> list[Process]:
            found = scan(self._config.service, "job", self._run.path)
            return [one.process for one in found if one.process != job]

        end(script, grace_s=_TERM_GRACE_S, deadline_s=_TERM_GRACE_S + 10)
        deadline = time.monotonic() + 2
        while job.alive() and time.monotonic() < deadline:
            time.sleep(_POLL_S)

    def _end_leftovers(self) -> None:
        """The script is over: so is what it left in the background."""
        end(
            lambda: [one.process for one in scan(self._config.service, "job", self._run.path)],
            grace_s=2.0,
            deadline_s=10.0,
        )

    def _verdict(self, server: Process | None) -> Ending:
        ending = read_json(self._run.path / "exit.json")
        if ending is None:
            return Ending("lost", "the script's process vanished without telling how it ended")
        if ending["exit_code"] == 0:
            return Ending("done")
        deadline = time.monotonic() + _ENGINE_NOTICE_S
        while server and server.alive():
            if time.monotonic() > deadline:
                return Ending("failed", f"the script ended with exit code {ending['exit_code']}")
            time.sleep(_POLL_S)
        return self._engine_died()

    def _settle(self, recorder: Recorder) -> None:
        """Read the event log to its end, which Rain may write only now; not when it knew no script."""
        epoch, server = self._run.attempt_dir, self._server()
        clients = clients_registered(epoch)
        if clients == (read_json(epoch / "epoch.json") or {}).get("clients"):
            server = None
        deadline = time.monotonic() + _LOG_SETTLES_S
        recorder.step()
        while not recorder.complete(clients) and server and server.alive():
            if time.monotonic() > deadline:
                break
            time.sleep(_POLL_S)
            recorder.step()

    def _finish(self, ending: Ending) -> None:
        run = self._run
        told: dict[str, Any] = read_json(run.path / "exit.json") or {}
        run.forget_env()
        run.update(
            state=FINISHED,
            outcome=ending.outcome,
            message=ending.message,
            exit_code=told.get("exit_code"),
            started_s=told.get("started_s", run.state().get("started_s")),
            ended_s=told.get("ended_s", time.time()),
        )

    def _node_name(self, governor: str) -> str:
        return member_name(self._nodes, governor)


def died_of_task(run: Run) -> bool:
    """True when the script's last words tell of a task's failure.

    Also with an exception of the connection after it: leaving ``with session`` asks the server once more.
    """
    return "rain.common.errors.TaskException: " in tail(run.path / "stderr.log", 20_000)
