"""An attempt: one life of Rain's engine and of the script that a run starts with it."""

import contextlib
import json
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Protocol

from ..files import installed, load, member_name, tail, write_json
from ..points.notes import EXECUTOR_LOST
from ..points.recorder import Recorder
from ..run import Run, Script
from ..sweep import sweep_id, sweep_parts
from ..wire import MOST_HOMES, ClusterConfig, NodeConfig, Outcome, RunState
from . import engine
from .engine import EngineFailed, WarmProbe
from .process import Process, end, environment, leader, node_argv, scan, spawn, wait_until

_POLL_S = 0.02
_POINTS_EVERY_S = 0.3
_TERM_GRACE_S = 5.0
_ENGINE_GRACE_S = 5.0  # how long a script may take to end by itself after Rain's server died
_ENGINE_NOTICE_S = 0.3  # how long to wait for the server's end after a failed script: it may be the reason
_GOVERNORS_DEADLINE_S = 30.0
_AGAIN_DEADLINE_S = 10.0  # the same, in an attempt that follows a loss: the others are used without them
_LAST_WORDS_BYTES = 20_000
_TASK_FAILED = "rain.common.errors.TaskException: "
_DISCONNECTED = "disconnected", "lost its connection to Rain's server"
"""The last words of a script whose server is gone, without and with the companion."""
_SILENCE_S = 45.0
"""After so long without a word a governor is lost: a connection that broke silently stays open for hours."""
_LOG_SETTLES_S = 1.5  # Rain writes its event log once a second
Ending = tuple[Outcome, str]  # how a run ended, with a message


@dataclass(frozen=True, slots=True)
class Loss:
    """An attempt ended by no fault of the script; another may follow."""

    why: str  # how the run ends if no other attempt follows: the message,
    outcome: Outcome = Outcome.ENGINE  # and the outcome
    seen: str = ""  # what was lost, for one who follows the run, if ``why`` does not say it as shortly
    nodes: tuple[str, ...] = ()  # whose engine was lost: a task that was running there may be the reason


class Host(Protocol):
    """What an attempt needs of the supervisor that makes it."""

    config: NodeConfig
    probe: WarmProbe | None

    def meanwhile(self) -> None:
        """Do what must not wait for the run's end."""


class Attempt:
    """Brings an attempt to its end.  Each step checks what exists: a supervisor may have been killed."""

    def __init__(self, supervisor: Host, run: Run, over: Callable[[], Ending | None]) -> None:
        """``over``: return how the run ends if somebody wants its end now."""
        self._over = over
        self._supervisor, self._config, self._run = supervisor, supervisor.config, run
        self._nodes = installed(self._config.server_dir / "cluster.json", ClusterConfig).nodes
        self._node_name = partial(member_name, self._nodes)
        # A node that joined after the run was shipped does not know it.
        known = [node for node in self._nodes if node.name in run.about.nodes]
        self._expected = tuple(known) or self._nodes
        self._again = run.status().attempt > 1

    def live(self, recorder: Recorder) -> Ending | Loss:
        """Bring the attempt to its end.  Raises OSError, such as for a full disk."""
        try:
            began = (self._run.path / "job.json").exists() or leader(
                self._config.service, "job", self._run.path
            )
            return (None if began else self._start()) or self._follow(recorder)
        except EngineFailed as error:
            return Loss(str(error))

    def settle(self, recorder: Recorder) -> None:
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

    def _start(self) -> Ending | None:
        """Start server and job; return an ending if the run ends before that.  Raises EngineFailed."""
        run, epoch = self._run, self._run.attempt_dir
        if damage := engine.environment_damage(self._config):
            fault = f"the Python environment of the server node cannot be used ({damage})"
            return Outcome.ENGINE, f"{fault}; `rain-deploy up` builds it again"
        server = leader(self._config.service, "server", epoch)
        if server is None:
            if (epoch / "log").exists():
                raise EngineFailed(f"Rain's server ended: {engine.server_fault(epoch, self._nodes)}")
            engine.end_servers(self._config)
            epoch.mkdir(parents=True, exist_ok=True, mode=0o700)
            try:
                server = engine.start_server(self._config, epoch, run.about.port)
            except EngineFailed as error:
                if self._again:
                    raise
                return Outcome.ENGINE, str(error)  # it never ran: nothing was lost
        registered = self._wait_for_governors(server)
        if not isinstance(registered, set):
            return registered
        missing = tuple(node.name for node in self._expected if node.name not in registered)
        run.update(nodes=tuple(sorted(registered)), missing=missing)
        least = 1 if self._again else run.about.min_nodes or len(self._expected)
        if len(registered) < least:
            again = "; `rain-deploy up` starts what is missing" if self._again else ""
            return Outcome.ENGINE, f"governors that did not register: {', '.join(missing)}{again}"
        if self._again and missing:
            run.report(f"attempt {run.status().attempt} goes on without {', '.join(missing)}")
        self._start_job()
        return None

    def _wait_for_governors(self, server: Process) -> set[str] | Ending:
        """Return the nodes whose governors registered, or how the run ends if it does meanwhile."""
        deadline_s = _AGAIN_DEADLINE_S if self._again else _GOVERNORS_DEADLINE_S
        probe, self._supervisor.probe = self._supervisor.probe or WarmProbe(self._config), None
        with contextlib.closing(probe):
            probe.ask(self._config.address, self._run.about.port, len(self._expected), deadline_s)
            deadline = time.monotonic() + deadline_s + 3
            while probe.poll() is None and time.monotonic() < deadline:
                if ended := self._over():
                    return ended
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
        sweep = sweep_id(run, self._config) if run.about.companion else ""
        env = {
            **environment(self._config, "job", run.path),
            **engine.ONE_THREAD,
            "PYTHONUNBUFFERED": "1",
            "RAIN_DEPLOY_SERVER": f"{self._config.address}:{run.about.port}",
            "RAIN_DEPLOY_FIGURES": str(run.path / "figures"),
            "RAIN_DEPLOY_SCRIPT": "1",
            "RAIN_DEPLOY_FAIL_FAST": "1" if run.about.fail_fast else "",
            "RAIN_DEPLOY_MOST_HOMES": str(MOST_HOMES),
            "RAIN_DEPLOY_SWEEP": sweep,
            "RAIN_DEPLOY_SWEEP_PARTS": json.dumps(sweep_parts(run, self._config, sweep)),
            **run.env(self._config.code),
        }
        argv = node_argv(self._config, "job", run.path)
        if run.lives.begun_s is None:
            run.keep_lives(replace(run.lives, begun_s=time.clock_gettime(time.CLOCK_BOOTTIME)))
        spawn(argv, env=env, log=run.path / "stdout.log", errors=run.path / "stderr.log")
        run.update(state=RunState.RUNNING, started_s=run.status().started_s or time.time())

    def _follow(self, recorder: Recorder) -> Ending | Loss:
        """Wait for the job's end; return how it ended."""
        run, service = self._run, self._config.service
        job, server = leader(service, "job", run.path), leader(service, "server", run.attempt_dir)
        if run.status().state != RunState.RUNNING:  # killed between the job's start and this line
            start = load(run.path / "job.json", Script) or Script()
            run.update(state=RunState.RUNNING, started_s=run.status().started_s or start.started_s)
        ended = self._watch(job, server, recorder) if job else None
        end(partial(scan, service, "job", run.path), grace_s=2.0, deadline_s=10.0)  # what it left behind too
        return ended or self._how_it_ended(server, recorder)

    def _watch(self, job: Process, server: Process | None, recorder: Recorder) -> Ending | Loss | None:
        """Wait until the script has ended; return a reason if it was ended here."""
        run, recorded_s = self._run, 0.0
        found = partial(scan, self._config.service, "job", run.path)
        while not run.script_end and job.alive():
            if ended := self._reason_to_end(job, server, recorder) or self._silence(recorder):
                # Not the job: it records how the script ended.
                end(lambda: [one for one in found() if one != job], grace_s=_TERM_GRACE_S, deadline_s=15.0)
                wait_until(lambda: not job.alive(), 2.0)
                return ended
            if time.monotonic() - recorded_s > _POINTS_EVERY_S:
                recorder.step()
                recorded_s = time.monotonic()
            self._supervisor.meanwhile()
            time.sleep(_POLL_S)
        return None

    def _how_it_ended(self, server: Process | None, recorder: Recorder) -> Ending | Loss:
        """Return what the end of a script that was not ended here is: its own, or a loss."""
        run = self._run
        if run.script_end is None:
            return Loss("the script's process vanished without a trace", Outcome.LOST)
        exit_code = run.script_end.exit_code
        if exit_code == 0:
            return Outcome.DONE, ""
        said = tail(run.path / "stderr.log", _LAST_WORDS_BYTES)
        # Its connection ends a moment before the server does: a long one on a busy machine.
        notice_s = _ENGINE_GRACE_S if any(words in said for words in _DISCONNECTED) else _ENGINE_NOTICE_S
        if server is None or wait_until(lambda: not server.alive(), notice_s):
            return self._engine_died(recorder)
        if exit_code == -signal.SIGKILL:
            why = "the script was killed (SIGKILL), as the system does when memory is short"
            return Loss(why, Outcome.LOST if run.about.restarts else Outcome.FAILED)
        recorder.step()  # the helper has noted by now which task ended the session
        if self._executor_lost() and not recorder.points.died:  # nobody noted whose
            return Loss("the process of a task died", Outcome.FAILED)
        return Outcome.FAILED, f"the script ended with exit code {exit_code}"

    def _reason_to_end(
        self, job: Process, server: Process | None, recorder: Recorder
    ) -> Ending | Loss | None:
        if ended := self._over():
            return ended
        if server is None or not server.alive():
            wait_until(lambda: not job.alive() or bool(self._over()), _ENGINE_GRACE_S)
            end = self._run.script_end
            return None if end and end.exit_code == 0 else self._engine_died(recorder)
        return None

    def _executor_lost(self) -> bool:
        """Return whether the script ended because the process of a task died."""
        said = tail(self._run.path / "stderr.log", _LAST_WORDS_BYTES)
        return _TASK_FAILED in said and EXECUTOR_LOST in said

    def _silence(self, recorder: Recorder) -> Loss | None:
        """Return a loss if a governor has been silent for too long, though its connection is open."""
        if not (silent := recorder.silent(_SILENCE_S)):
            return None
        recorder.points.lost = True
        nodes = tuple(sorted(map(self._node_name, silent)))
        said = f"nothing was heard from its governor for {_SILENCE_S:.0f} s"
        return Loss(f"{', '.join(nodes)} was lost ({said})", nodes=nodes)

    def _engine_died(self, recorder: Recorder) -> Ending | Loss:
        """Return how a run ended whose server is gone; a failed task may have ended the script before.

        Then the script's last words name the task's failure.  An exception of the connection may follow:
        leaving ``with session`` asks the server once more.
        """
        fault, about = engine.server_fault(self._run.attempt_dir, self._nodes), self._run.about
        said = tail(self._run.path / "stderr.log", _LAST_WORDS_BYTES)
        if self._run.script_end and _TASK_FAILED in said and EXECUTOR_LOST not in said:
            why = f"a task failed and the script with it; then Rain's server ended: {fault}"
            recorder.step()
            points = recorder.points
            # If the server ended before the helper could ask which task failed, the next attempt finds it.
            unknown = about.companion and not about.fail_fast and not (points.broken or points.died)
            return Loss(why, Outcome.FAILED) if unknown else (Outcome.FAILED, why)
        lost = engine.lost_node(self._run.attempt_dir, self._nodes)
        seen = f"{lost} was lost (the connection to its governor closed)" if lost else ""
        nodes = (lost or self._config.name,)
        return Loss(f"Rain's server ended during the run: {fault}", seen=seen, nodes=nodes)
