"""Keeps the figures that the script shows or saves, in order: ``figures/01.png`` and ``01.svg``, and so on.

``plt.show()`` keeps every open figure and then closes them, as if the user had closed the windows of a
blocking show.  A figure that has not changed since it was kept (saved, then shown) is not kept again.
Frames of ``plt.pause`` and of an animation's writer do not count as figures.
"""

import atexit
import functools
import os
from types import ModuleType
from typing import Any

from matplotlib.backend_bases import CloseEvent
from matplotlib.figure import Figure

from .album import Album
from .faults import FailOpen

FILE_BACKENDS = frozenset({"agg", "cairo", "pdf", "pgf", "ps", "svg", "template"})
"""matplotlib's backends without a window.  Any other becomes Agg, because a node has no screen."""

_album = Album(os.environ["RAIN_DEPLOY_FIGURES"], Figure.savefig)


def hook(module: ModuleType) -> None:
    """Hook ``matplotlib.figure`` or ``matplotlib.pyplot``, which was just imported."""
    if module.__name__ == "matplotlib.figure":
        _hook_figure(module.Figure)
    else:
        _hook_pyplot(module)
        atexit.register(_keep_at_exit, module, os.getpid())


def _hook_figure(figure: Any) -> None:
    save, show = figure.savefig, figure.show

    @functools.wraps(save)
    def savefig(self: Any, *args: Any, **kwargs: Any) -> Any:
        frame_of_animation = getattr(self.canvas, "_is_saving", False)
        result = save(self, *args, **kwargs)
        if not frame_of_animation:
            with FailOpen("keeping a saved figure"):
                _album.keep(self, kwargs)
        return result

    @functools.wraps(show)
    def show_one(self: Any, *args: Any, **kwargs: Any) -> Any:
        if self.canvas.manager is None:
            return show(self, *args, **kwargs)  # raises what matplotlib raises
        with FailOpen("keeping a shown figure"):
            _album.keep(self)
        return None

    figure.savefig, figure.show = savefig, show_one


def _hook_pyplot(pyplot: Any) -> None:
    switch, pause = pyplot.switch_backend, pyplot.pause
    pausing = False

    @functools.wraps(switch)
    def switch_backend(newbackend: Any) -> Any:
        return switch(newbackend if str(newbackend).lower() in FILE_BACKENDS else "agg")

    @functools.wraps(pyplot.show)
    def show(*args: Any, **kwargs: Any) -> None:
        if pausing:
            return
        _keep_open(pyplot)
        block = args[0] if args else kwargs.get("block")
        if block or (block is None and not pyplot.isinteractive()):
            _close_all(pyplot)

    @functools.wraps(pause)
    def pause_without_keeping(*args: Any, **kwargs: Any) -> Any:
        nonlocal pausing
        pausing = True
        try:
            return pause(*args, **kwargs)
        finally:
            pausing = False

    pyplot.switch_backend, pyplot.show, pyplot.pause = switch_backend, show, pause_without_keeping


def _keep_open(pyplot: Any) -> None:
    for figure in _open_figures(pyplot):
        with FailOpen("keeping an open figure"):
            _album.keep(figure)


def _open_figures(pyplot: Any) -> list[Figure]:
    with FailOpen("listing the open figures"):
        managers = pyplot._pylab_helpers.Gcf.figs  # noqa: SLF001 - plt.figure(number) would change the current one
        return [managers[number].canvas.figure for number in sorted(managers)]
    return []


def _close_all(pyplot: Any) -> None:
    """Close the figures and send the close events that a window would send; Agg has no windows."""
    for figure in _open_figures(pyplot):
        with FailOpen("sending a close event"):
            figure.canvas.callbacks.process("close_event", CloseEvent("close_event", figure.canvas))
    pyplot.close("all")


def _keep_at_exit(pyplot: Any, process: int) -> None:
    if os.getpid() == process:  # a forked child holds figures of its parent
        _keep_open(pyplot)
