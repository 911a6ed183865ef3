"""An attempt: one life of Rain's engine and of the script that a run starts with it."""

import contextlib
import platform
import time
from functools import partial
from importlib.metadata import distributions
from typing import Protocol

from ..files import installed, load, member_name, tail, write_json
from ..points.recorder import Recorder
from ..run import Run, Script
from ..wire import ClusterConfig, NodeConfig, Outcome, RunState
from . import engine
from .engine import EngineFailed, WarmProbe
from .process import Process, end, environment, leader, node_argv, scan, spawn, wait_until

_SHOWN = {"rain-python": "rain", "tensorflow": "tensorflow", "tensorflow-cpu": "tensorflow"}
"""Names of distributions whose versions a run records, and how it calls them."""
_POLL_S = 0.02
_POINTS_EVERY_S = 0.3
_TERM_GRACE_S = 5.0
_ENGINE_GRACE_S = 5.0  # how long a script may take to end by itself after Rain's server died
_ENGINE_NOTICE_S = 0.3  # how long to wait for the server's end after a failed script: it may be the reason
_GOVERNORS_DEADLINE_S = 30.0
_TASK_FAILED = "rain.common.errors.TaskException: "
_LOG_SETTLES_S = 1.5  # Rain writes its event log once a second
Ending = tuple[Outcome, str]  # how a run ended, with a message


class Host(Protocol):
    """What an attempt needs of the supervisor that makes it."""

    config: NodeConfig
    probe: WarmProbe | None

    def meanwhile(self) -> None:
        """Do what must not wait for the run's end."""


class Attempt:
    """Brings one run to its end.  Each step first checks what exists: a supervisor may have been killed."""

    def __init__(self, supervisor: Host, run: Run) -> None:
        self._supervisor, self._config, self._run = supervisor, supervisor.config, run
        self._nodes = installed(self._config.server_dir / "cluster.json", ClusterConfig).nodes
        self._node_name = partial(member_name, self._nodes)
        # A node that joined after the run was shipped does not know it.
        known = [node for node in self._nodes if node.name in run.about.nodes]
        self._expected = tuple(known) or self._nodes

    def conduct(self) -> None:
        """Bring the run to its end.  Raises OSError, such as for a full disk."""
        run = self._run
        if run.status().state == RunState.QUEUED:
            places = [str(path) for path in (self._config.env / "lib").glob("python3*/site-packages")]
            versions = {"python": platform.python_version()}
            for name, label in _SHOWN.items():
                for one in distributions(name=name, path=places):  # nothing is imported
                    versions[label] = one.version
            epoch = engine.next_epoch(self._config.server_dir)
            run.update(state=RunState.STARTING, epoch=epoch, versions=versions)
        try:
            began = (run.path / "job.json").exists() or leader(self._config.service, "job", run.path)
            ending = None if began else self._start()
        except EngineFailed as error:
            ending = Outcome.ENGINE, str(error)
        recorder = Recorder(run, self._node_name)
        outcome, message = ending or self._follow(recorder)
        recorder.points.run_end = "the run was cancelled" if outcome == Outcome.CANCELLED else message
        self._settle(recorder)
        recorder.close(recorder.points.run_end or "the script ended")
        engine.end_servers(self._config)
        script = run.script_end or Script()
        started_s, ended_s = script.started_s or run.status().started_s, script.ended_s or time.time()
        run.finish(outcome, message, exit_code=script.exit_code, started_s=started_s, ended_s=ended_s)

    def _start(self) -> Ending | None:
        """Start server and job; return an ending if too few governors register.  Raises EngineFailed."""
        run, epoch = self._run, self._run.attempt_dir
        if damage := engine.environment_damage(self._config):
            fault = f"the Python environment of the server node cannot be used ({damage})"
            raise EngineFailed(f"{fault}; `rain-deploy up` builds it again")
        server = leader(self._config.service, "server", epoch)
        if server is None:
            if (epoch / "log").exists():
                raise EngineFailed(f"Rain's server ended: {engine.server_fault(epoch, self._nodes)}")
            engine.end_servers(self._config)
            epoch.mkdir(parents=True, exist_ok=True, mode=0o700)
            server = engine.start_server(self._config, epoch, run.about.port)
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
        probe, self._supervisor.probe = self._supervisor.probe or WarmProbe(self._config), None
        with contextlib.closing(probe):
            probe.ask(self._config.address, self._run.about.port, len(self._expected), _GOVERNORS_DEADLINE_S)
            deadline = time.monotonic() + _GOVERNORS_DEADLINE_S + 3
            while probe.poll() is None and time.monotonic() < deadline:
                if self._run.cancelled:
                    return None
                if not server.alive():
                    fault = engine.server_fault(self._run.attempt_dir, self._nodes)
                    raise EngineFailed(f"Rain's server ended while governors were awaited: {fault}")
                self._supervisor.meanwhile()
                time.sleep(_POLL_S)
            return {self._node_name(governor) for governor in probe.governors()}

    def _start_job(self) -> None:
        run, epoch = self._run, self._run.attempt_dir
        write_json(epoch / "epoch.json", engine.Epoch(run.id, engine.clients_registered(epoch)))
        for name in ("figures", "companion"):
            (run.path / name).mkdir(exist_ok=True)
        env = {
            **environment(self._config, "job", run.path),
            **engine.ONE_THREAD,
            "PYTHONUNBUFFERED": "1",
            "RAIN_DEPLOY_SERVER": f"{self._config.address}:{run.about.port}",
            "RAIN_DEPLOY_FIGURES": str(run.path / "figures"),
            "RAIN_DEPLOY_SCRIPT": "1",
            **run.env(self._config.code),
        }
        argv = node_argv(self._config, "job", run.path)
        spawn(argv, env=env, log=run.path / "stdout.log", errors=run.path / "stderr.log")
        run.update(state=RunState.RUNNING, started_s=time.time())

    def _follow(self, recorder: Recorder) -> Ending:
        """Wait for the job's end; return how it ended."""
        run, service = self._run, self._config.service
        job, server = leader(service, "job", run.path), leader(service, "server", run.attempt_dir)
        script = partial(scan, service, "job", run.path)  # the job and all that it started
        if run.status().state != RunState.RUNNING:  # killed between the job's start and this line
            start = load(run.path / "job.json", Script) or Script()
            run.update(state=RunState.RUNNING, started_s=start.started_s)
        recorded_s = 0.0
        ended: Ending | None = None
        while job and not run.script_end and job.alive():
            if ended := self._reason_to_end(job, server):
                # Not the job: it records how the script ended.
                end(lambda: [one for one in script() if one != job], grace_s=_TERM_GRACE_S, deadline_s=15.0)
                wait_until(lambda: not job.alive(), 2.0)
                break
            if time.monotonic() - recorded_s > _POINTS_EVERY_S:
                recorder.step()
                recorded_s = time.monotonic()
            self._supervisor.meanwhile()
            time.sleep(_POLL_S)
        end(script, grace_s=2.0, deadline_s=10.0)  # nothing that it left in the background stays
        if ended:
            return ended
        if run.script_end is None:
            return Outcome.LOST, "the script's process vanished without a trace"
        exit_code = run.script_end.exit_code
        if exit_code == 0:
            return Outcome.DONE, ""
        if server is None or wait_until(lambda: not server.alive(), _ENGINE_NOTICE_S):
            return self._engine_died()
        return Outcome.FAILED, f"the script ended with exit code {exit_code}"

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
        fault = engine.server_fault(self._run.attempt_dir, self._nodes)
        if self._run.script_end and _TASK_FAILED in tail(self._run.path / "stderr.log", 20_000):
            return Outcome.FAILED, f"a task failed and the script with it; then Rain's server ended: {fault}"
        return Outcome.ENGINE, f"Rain's server ended during the run: {fault}"

    def _settle(self, recorder: Recorder) -> None:
        """Read the event log to its end, which Rain may write a second later; not if no script connected."""
        epoch = self._run.attempt_dir
        server = leader(self._config.service, "server", epoch)
        clients, record = engine.clients_registered(epoch), load(epoch / "epoch.json", engine.Epoch)
        if record and record.clients == clients:
            server = None
        deadline = time.monotonic() + _LOG_SETTLES_S
        recorder.step()
        while server and server.alive() and time.monotonic() <= deadline:
            if recorder.points.complete(clients):
                return
            time.sleep(_POLL_S)
            recorder.step()
