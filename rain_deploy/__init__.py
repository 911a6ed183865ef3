"""Run a Rain script on N machines, without editing it.

This is the Python API.  Its functions do the same as the commands of that name.

    import rain_deploy

    rain_deploy.up(provider="local", nodes=2)
    result = rain_deploy.run("hsearch.py")
    print(result.results_dir, rain_deploy.points().rows)
    rain_deploy.down()
"""

from __future__ import annotations

__version__ = "0.1.0"
# fmt: off
__all__ = [
    "CancelResult", "CredentialsError", "DownIncomplete", "DownResult", "EndedEarly", "EngineError",
    "InputError", "Locked", "PartlyUp", "PlanResult", "PointsFailed", "PointsResult", "PullFailed",
    "PullResult", "RainDeployError", "RunResult", "ScaleResult", "ScriptFailed", "StatusResult",
    "SweepResult", "Unreachable", "UpResult", "UsageError", "attach", "cancel", "down", "errors", "events",
    "plan", "points", "pull", "run", "scale", "status", "sweep", "up",
]
# fmt: on
TYPE_CHECKING = False  # as in typing, whose import is half of ours
if TYPE_CHECKING:
    from rain_deploy import errors
    from rain_deploy.api.calls import attach, cancel, down, plan, points, pull, run, scale, status, sweep, up
    from rain_deploy.cluster.install import PlanResult
    from rain_deploy.core import events
    from rain_deploy.errors import (
        CredentialsError,
        DownIncomplete,
        EndedEarly,
        EngineError,
        InputError,
        Locked,
        PartlyUp,
        PointsFailed,
        PullFailed,
        RainDeployError,
        ScriptFailed,
        Unreachable,
        UsageError,
    )
    from rain_deploy.runs.finish import RunResult
    from rain_deploy.verbs.down import DownResult
    from rain_deploy.verbs.results.points import PointsResult
    from rain_deploy.verbs.runs import CancelResult, PullResult
    from rain_deploy.verbs.scale import ScaleResult
    from rain_deploy.verbs.status import StatusResult
    from rain_deploy.verbs.sweep import SweepResult
    from rain_deploy.verbs.up import UpResult
else:

    def __getattr__(name: str) -> object:
        """Return a name of the API, and import what it needs (PEP 562)."""
        if name not in __all__:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        from importlib import import_module  # noqa: PLC0415 - `import rain_deploy` stays quick

        if name in {"errors", "events"}:
            return import_module("rain_deploy.errors" if name == "errors" else "rain_deploy.core.events")
        errors = import_module("rain_deploy.errors")
        return getattr(errors if hasattr(errors, name) else import_module("rain_deploy.api.calls"), name)

    def __dir__() -> list[str]:
        return [*globals(), *__all__]
