"""One attempt of a run, from the line to its end.

Each step first checks what exists, so after a kill the next supervisor continues where the run stands.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial

from ..files import load, member_name, members, tail, versions, write_json
from ..points import Recorder
from ..service.engine import (
    EngineFailed,
    Epoch,
    WarmProbe,
    clients_registered,
    end_servers,
    next_epoch,
    server_fault,
    start_server,
)
from ..service.process import Process, end, environment, leader, node_argv, processes, spawn, wait_until
from ..wire import NodeConfig, Outcome, RunState
from .directory import Run, Script

_POLL_S = 0.02
_POINTS_EVERY_S = 0.3
_TERM_GRACE_S = 5.0
_ENGINE_GRACE_S = 5.0
"""How long a script may take to end by itself after Rain's server died."""
_ENGINE_NOTICE_S = 0.3
"""How long to wait for the server's end after a failed script: it may be the reason."""
_GOVERNORS_DEADLINE_S = 30.0
_TASK_FAILED = "rain.common.errors.TaskException: "
_LOG_SETTLES_S = 1.5
"""Rain writes its event log once a second."""
Ending = tuple[Outcome, str]
"""How a run ended, with a message."""


class Attempt:
    """Brings one run to its end.

    ``probe`` returns the process that asks for governors; ``meanwhile`` is called at every poll.
    """

    def __init__(
        self, config: NodeConfig, run: Run, probe: Callable[[], WarmProbe], meanwhile: Callable[[], None]
    ) -> None:
        self._config = config
        self._run = run
        self._probe = probe
        self._meanwhile = meanwhile
        self._nodes = members(config)
        self._node_name = partial(member_name, self._nodes)
        # A node that joined after the run was shipped does not know it.
        known = [node for node in self._nodes if node.name in run.about.nodes]
        self._expected = tuple(known) or self._nodes

    def conduct(self) -> None:
        """Bring the run to its end.  Raises OSError, such as for a full disk."""
        run = self._run
        if run.status().state == RunState.QUEUED:
            epoch = next_epoch(self._config.server_dir)
            run.update(state=RunState.STARTING, epoch=epoch, versions=versions(self._config.env))
        try:
            began = (run.path / "job.json").exists() or self._leader("job")
            ending = None if began else self._start()
        except EngineFailed as error:
            ending = Outcome.ENGINE, str(error)
        recorder = Recorder(run, self._node_name)
        outcome, message = ending or self._follow(recorder)
        self._settle(recorder)
        end_servers(self._config)
        script = run.script_end or Script()
        started_s, ended_s = script.started_s or run.status().started_s, script.ended_s or time.time()
        run.finish(outcome, message, exit_code=script.exit_code, started_s=started_s, ended_s=ended_s)

    def _leader(self, role: str) -> Process | None:
        """Return the run's living job, or the server of this attempt."""
        place = self._run.path if role == "job" else self._run.attempt_dir
        found = leader(self._config.service, role, place)
        return found.process if found else None

    def _script(self) -> list[Process]:
        """Return the job and everything that the script started."""
        return processes(self._config.service, "job", self._run.path)

    def _start(self) -> Ending | None:
        """Start server and job, and wait for governors; return an ending if that fails.

        Raises EngineFailed.
        """
        run, epoch = self._run, self._run.attempt_dir
        server = self._leader("server")
        if server is None:
            if (epoch / "log").exists():
                raise EngineFailed(f"Rain's server ended: {server_fault(epoch, self._nodes)}")
            end_servers(self._config)
            epoch.mkdir(parents=True, exist_ok=True, mode=0o700)
            server = start_server(self._config, epoch, run.about.port)
        registered = self._wait_for_governors(server)
        if registered is None:
            return Outcome.CANCELLED, "cancelled before the script was started"
        missing = tuple(node.name for node in self._expected if node.name not in registered)
        run.update(nodes=tuple(sorted(registered)), missing=missing)
        if len(registered) < (run.about.min_nodes or len(self._expected)):
            return Outcome.ENGINE, f"governors that did not register: {', '.join(missing)}"
        self._start_job()
        return None

    def _wait_for_governors(self, server: Process) -> set[str] | None:
        """Return the nodes whose governors registered; None if the run was cancelled meanwhile."""
        probe = self._probe()
        try:
            probe.ask(self._config.address, self._run.about.port, len(self._expected), _GOVERNORS_DEADLINE_S)
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
        run, epoch = self._run, self._run.attempt_dir
        write_json(epoch / "epoch.json", Epoch(run.id, run.about.port, clients_registered(epoch)))
        for name in ("figures", "companion"):
            (run.path / name).mkdir(exist_ok=True)
        env = {
            **environment(self._config, "job", run.path),
            "PYTHONUNBUFFERED": "1",
            "RAIN_DEPLOY_SERVER": f"{self._config.address}:{run.about.port}",
            "RAIN_DEPLOY_FIGURES": str(run.path / "figures"),
            "RAIN_DEPLOY_SCRIPT": "1",
            **run.companion_env(self._config.code),
            **run.extra_env(),
        }
        argv = node_argv(self._config, "job", run.path)
        spawn(argv, env=env, log=run.path / "stdout.log", errors=run.path / "stderr.log")
        run.update(state=RunState.RUNNING, started_s=time.time())

    def _follow(self, recorder: Recorder) -> Ending:
        """Wait for the job's end; return how it ended."""
        run = self._run
        job, server = self._leader("job"), self._leader("server")
        if run.status().state != RunState.RUNNING:  # killed between the job's start and this line
            start = load(run.path / "job.json", Script) or Script()
            run.update(state=RunState.RUNNING, started_s=start.started_s)
        recorded_s = 0.0
        ended: Ending | None = None
        while job and not run.script_end and job.alive():
            if ended := self._reason_to_end(job, server):
                # What the job started, but not the job, which records how the script ended.
                end(
                    lambda: [process for process in self._script() if process != job],
                    grace_s=_TERM_GRACE_S,
                    deadline_s=_TERM_GRACE_S + 10,
                )
                wait_until(lambda: not job.alive(), 2.0)
                break
            if time.monotonic() - recorded_s > _POINTS_EVERY_S:
                recorder.step()
                recorded_s = time.monotonic()
            self._meanwhile()
            time.sleep(_POLL_S)
        end(self._script, grace_s=2.0, deadline_s=10.0)  # nothing that it left in the background stays
        if ended:
            return ended
        script = run.script_end
        if script is None:
            return Outcome.LOST, "the script's process vanished without a trace"
        if script.exit_code == 0:
            return Outcome.DONE, ""
        if server is None or wait_until(lambda: not server.alive(), _ENGINE_NOTICE_S):
            return self._engine_died()
        return Outcome.FAILED, f"the script ended with exit code {script.exit_code}"

    def _reason_to_end(self, job: Process, server: Process | None) -> Ending | None:
        if self._run.cancelled:
            return Outcome.CANCELLED, "cancelled"
        if self._run.about.timeout_s is not None and job.age_s() > self._run.about.timeout_s:
            return Outcome.TIMEOUT, f"the script did not end within {self._run.about.timeout_s:g} s"
        if server is None or not server.alive():
            wait_until(lambda: not job.alive() or self._run.cancelled, _ENGINE_GRACE_S)
            return self._engine_died()
        return None

    def _engine_died(self) -> Ending:
        """Return how a run ended whose server is gone; a failed task may have ended the script before.

        Then the script's last words name the task's failure.  An exception of the connection may follow:
        leaving ``with session`` asks the server once more.
        """
        fault = server_fault(self._run.attempt_dir, self._nodes)
        if self._run.script_end and _TASK_FAILED in tail(self._run.path / "stderr.log", 20_000):
            return Outcome.FAILED, f"a task failed and the script with it; then Rain's server ended: {fault}"
        return Outcome.ENGINE, f"Rain's server ended during the run: {fault}"

    def _settle(self, recorder: Recorder) -> None:
        """Read the event log to its end, which Rain may write a second later; not if no script connected."""
        epoch, server = self._run.attempt_dir, self._leader("server")
        clients = clients_registered(epoch)
        record = load(epoch / "epoch.json", Epoch)
        if record and record.clients == clients:
            server = None
        deadline = time.monotonic() + _LOG_SETTLES_S
        recorder.step()
        while not recorder.complete(clients) and server and server.alive() and time.monotonic() <= deadline:
            time.sleep(_POLL_S)
            recorder.step()
