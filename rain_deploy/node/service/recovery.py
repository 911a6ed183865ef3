"""Conducts a run through its attempts: after a loss, the next starts from clean files on what is there."""

import contextlib
import platform
import shutil
import time
from dataclasses import dataclass, replace
from functools import partial
from importlib.metadata import distributions

from ..files import installed, load, member_name, write_json
from ..lives import SUSPECT_FROM, Broken
from ..points.recorder import Recorder
from ..run import Run, Script
from ..wire import ClusterConfig, Outcome, RunState
from . import engine
from .attempt import Attempt, Ending, Host, Loss
from .deaths import deaths_of, deaths_on, label
from .limits import Limits
from .outputs import LEFT, bring_back, clean_files, copy_tree, set_aside
from .process import end, scan

_SHOWN = {"rain-python": "rain", "tensorflow": "tensorflow", "tensorflow-cpu": "tensorflow"}
"""Names of distributions whose versions a run records, and how it calls them."""
_PAUSES_S = (0.0, 1.0, 3.0, 8.0, 20.0)
_POLL_S = 0.02
_MOST_PER_TASK = SUSPECT_FROM + 1  # attempts that are made because of one task: it may die alone as well


@dataclass(frozen=True, slots=True)
class Lost:
    """lost.json in an attempt's epoch: that it is lost is decided; the rest follows, whoever does it."""

    why: str
    pause_s: float


class Conduct:
    """Brings one run to its end.  Each step first checks what exists: a supervisor may have been killed."""

    def __init__(self, supervisor: Host, run: Run) -> None:
        self._supervisor, self._config, self._run = supervisor, supervisor.config, run
        self._limits = Limits(run)
        self._members = installed(self._config.server_dir / "cluster.json", ClusterConfig).nodes
        self._node_name = partial(member_name, self._members)

    def conduct(self) -> None:
        """Start attempts until one ends the run.  Raises OSError, such as for a full disk."""
        run = self._run
        if run.status().state == RunState.QUEUED:
            self._keep_clean()
            epoch = engine.next_epoch(self._config.server_dir)
            run.update(state=RunState.STARTING, epoch=epoch, versions=self._versions())
        while not self._attempt():
            pass

    def _attempt(self) -> bool:
        """Bring an attempt to its end; return whether the run ended with it."""
        run, recorder = self._run, Recorder(self._run, self._node_name)
        attempt = Attempt(self._supervisor, run, self._over)
        found = load(run.attempt_dir / "lost.json", Lost) or attempt.live(recorder)
        if isinstance(found, Loss):
            found = self._decide(found, recorder)
        elif isinstance(found, tuple) and found[0] == Outcome.FAILED:
            found = self._without(found, recorder)
        ending = self._again(found, recorder) if isinstance(found, Lost) else found
        if ending is None:
            return False
        outcome, message = ending
        recorder.points.run_end = "the run was cancelled" if outcome == Outcome.CANCELLED else message
        attempt.settle(recorder)
        recorder.close(recorder.points.run_end or "the script ended")
        engine.end_servers(self._config)
        if run.status().attempt > 1 and not (run.path / "job.json").exists():
            bring_back(run)
        script = run.script_end or Script()
        started_s, ended_s = run.status().started_s or script.started_s, script.ended_s or time.time()
        run.finish(outcome, message, exit_code=script.exit_code, started_s=started_s, ended_s=ended_s)
        shutil.rmtree(clean_files(run), ignore_errors=True)
        return True

    def _versions(self) -> dict[str, str]:
        """Return the versions of Python and of what the environment has."""
        places = [str(path) for path in (self._config.env / "lib").glob("python3*/site-packages")]
        versions = {"python": platform.python_version()}
        for name, shown in _SHOWN.items():
            for one in distributions(name=name, path=places):  # nothing is imported
                versions[shown] = one.version
        return versions

    def _over(self) -> Ending | None:
        """Return how the run ends if somebody wants its end now."""
        run = self._run
        if run.cancelled:
            before = "" if run.lives.begun_s else " before the script was started"
            return Outcome.CANCELLED, f"cancelled{before}"
        return self._limits.reached()

    def _decide(self, loss: Loss, recorder: Recorder) -> Lost | Ending:
        """Record that the attempt is lost, if another may follow it; else return how the run ends."""
        run, attempt = self._run, self._run.status().attempt
        with contextlib.suppress(OSError):
            recorder.step()
        deaths = deaths_on(run, recorder.points, loss.nodes, self._members)
        before = () if recorder.points.progressed else deaths.lives.losses
        counts = not deaths.alone  # or the next attempt is made for that task
        if (counts and len(before) >= run.about.restarts) or not clean_files(run).exists():
            tried = f"; {attempt} attempts were lost" if attempt > 1 else ""
            return loss.outcome, f"{loss.why}{tried}"
        run.keep_lives(replace(deaths.lives, losses=(*before, attempt) if counts else before))
        kept, points = recorder.points.kept()
        rest = f"; {kept} of {points} points are kept" if kept else ""
        run.report(f"{loss.seen or loss.why}{deaths.words}; attempt {attempt + 1} starts{rest}")
        lost = Lost(loss.why, _PAUSES_S[min(len(before), len(_PAUSES_S) - 1)])
        write_json(run.attempt_dir / "lost.json", lost)
        return lost

    def _without(self, ending: Ending, recorder: Recorder) -> Lost | Ending:
        """Record that another attempt follows if tasks have ended the session of this one.

        There, the script gets the failures of those that failed at once, and all others finish; those whose
        process died run again, the last time alone, until they are given up.  It does not count as a restart.
        """
        with contextlib.suppress(OSError):
            recorder.step()  # the helper may have noted the task's end when the engine was gone already
        run, points, attempt = self._run, recorder.points, self._run.status().attempt
        deaths = deaths_of(run, points, self._members)
        before = deaths.lives.broken
        tried = [one.task for one in before]
        names = [f"{session}/{task}" for session, task in points.broken | points.died]
        new = [Broken(name, attempt) for name in names if tried.count(name) < _MOST_PER_TASK]
        if not new or run.about.fail_fast or not clean_files(run).exists():
            return ending
        said = (points.broken, "failed", ""), (points.died, "died with its process", deaths.words)
        for rows, what, follows in said:
            if rows:
                named = ", ".join(sorted(map(label, rows.values())))
                ended = f"{named} {what} and ended the session{follows}"
                run.report(f"{ended}; attempt {attempt + 1} goes on with the rest")
        run.keep_lives(replace(deaths.lives, broken=(*before, *new)))
        lost = Lost(ending[1], 0.0)
        write_json(run.attempt_dir / "lost.json", lost)
        return lost

    def _again(self, lost: Lost, recorder: Recorder) -> Ending | None:
        """End what is left of a lost attempt and prepare the next; return an ending if that is the end."""
        run, config = self._run, self._config
        run.update(state=RunState.STARTING)
        left = end(partial(scan, config.service, "job", run.path), grace_s=2.0, deadline_s=10.0)
        left += engine.end_servers(config)
        if left:
            pids = ", ".join(str(process.pid) for process in left)
            return Outcome.ENGINE, f"{lost.why}; processes of it cannot be ended: {pids}"
        until = time.monotonic() + lost.pause_s
        while not (ended := self._over()) and time.monotonic() < until:
            self._supervisor.meanwhile()
            time.sleep(_POLL_S)
        if ended:
            return ended
        recorder.requeue()
        attempt = run.status().attempt
        if not_kept := set_aside(run):
            what = f"{len(not_kept)} of the files that attempt {attempt} wrote are not kept"
            run.update(warnings=(*run.status().warnings, f"{what}; attempts/{attempt}/{LEFT} names them"))
        epoch = engine.next_epoch(config.server_dir)
        run.update(attempt=attempt + 1, epoch=epoch, nodes=(), missing=())
        return None

    def _keep_clean(self) -> None:
        """Copy the files as they were shipped, if an attempt may need them; without room, none will."""
        run = self._run
        if not run.about.restarts or clean_files(run).exists():
            return
        try:
            copy_tree(run.path / "files", clean_files(run))
        except OSError as error:
            what = f"the shipped files cannot be copied ({error.strerror or error})"
            run.update(warnings=(*run.status().warnings, f"{what}; the run ends if Rain's engine is lost"))
