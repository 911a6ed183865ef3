"""Collects figures and points inside the user's processes.  It fails open: no error here fails the script.

compat imports this package at interpreter start if ``RAIN_DEPLOY_COMPANION`` names the directory that holds
it.  It acts only in the script's process (``RAIN_DEPLOY_SCRIPT``).  Until the script imports matplotlib or
Rain, it costs the imports of sys and os.  Thread limits need no code: TensorFlow and BLAS read the
governor's environment.
"""

import os
import sys

from .hooks import ImportHooks

TYPE_CHECKING = False  # mypy reads it as True; importing typing would cost at every start of a Python
if TYPE_CHECKING:
    from collections.abc import Callable
    from types import ModuleType


def _figures(module: "ModuleType") -> None:
    from . import figures

    figures.hook(module)


def _points(module: "ModuleType") -> None:
    from . import points

    points.hook(module)


if os.environ.get("RAIN_DEPLOY_SCRIPT"):
    acts: "dict[str, Callable[[ModuleType], None]]" = {}
    if os.environ.get("RAIN_DEPLOY_FIGURES"):
        acts |= dict.fromkeys(("matplotlib.figure", "matplotlib.pyplot"), _figures)
    if os.environ.get("RAIN_DEPLOY_RUN_DIR"):
        acts |= dict.fromkeys(("rain.client.session", "rain.common.data_instance"), _points)
    sys.meta_path.insert(0, ImportHooks(acts))
