"""Keeps the figures that a script or a task shows or saves: ``figures/01.png``, ``01.svg``, and so on.

``plt.show()`` keeps every open figure and then closes them, as if the user had closed the windows of a
blocking show.  A figure that has not changed since it was kept (saved, then shown) is not kept again.
Frames of ``plt.pause`` and of an animation's writer do not count as figures.  What waits for a click or a key
returns at once, because no screen will ever send one.
"""

import atexit
import contextlib
import functools
import hashlib
import io
import itertools
import os
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

import matplotlib as mpl
from matplotlib.backend_bases import CloseEvent
from matplotlib.figure import Figure
from matplotlib.text import Text

from . import FailOpen, reason, warn

FILE_BACKENDS = frozenset({"agg", "cairo", "pdf", "pgf", "ps", "svg", "template"})
"""matplotlib's backends without a window.  Any other becomes Agg, because a node has no screen."""
LOOKS = ("bbox_extra_artists", "bbox_inches", "dpi", "edgecolor", "facecolor", "pad_inches", "transparent")
"""Arguments of the script's savefig that apply to our pictures too; the others are for its own file."""
PLAINER: tuple[tuple[str, dict[str, bool]], ...] = (
    ("as it is", {}),
    ("without LaTeX", {"usetex": False}),
    ("with its formulas as plain text", {"usetex": False, "parse_math": False}),
)
"""Ways to draw a figure, of which the first that works is taken."""

_save = Figure.savefig
_kept: WeakKeyDictionary[Any, bytes] = WeakKeyDictionary()
"""Maps a figure to a digest of how it looked when it was kept."""


def hook_figure(module: Any) -> None:
    """Hook ``matplotlib.figure``, which was just imported."""
    figure = module.Figure
    save, show = figure.savefig, figure.show

    @functools.wraps(save)
    def savefig(self: Any, *args: Any, **kwargs: Any) -> Any:
        frame_of_animation = getattr(self.canvas, "_is_saving", False)
        result = save(self, *args, **kwargs)
        if not frame_of_animation:
            with FailOpen("keeping a saved figure"):
                _keep(self, **{name: value for name, value in kwargs.items() if name in LOOKS})
        return result

    @functools.wraps(show)
    def show_one(self: Any, *args: Any, **kwargs: Any) -> Any:
        if self.canvas.manager is None:
            return show(self, *args, **kwargs)  # raises what matplotlib raises
        with FailOpen("keeping a shown figure"):
            _keep(self)
        return None

    figure.savefig, figure.show = savefig, show_one
    with FailOpen("hooking what waits for a click or a key"):
        _hook_waits(module)


def _hook_waits(module: Any) -> None:
    canvas, blocking = module.FigureCanvasBase, module._blocking_input  # noqa: SLF001 - all such waits call it
    start = canvas.start_event_loop

    @functools.wraps(start)
    def start_event_loop(self: Any, timeout: float = 0) -> None:
        if timeout > 0:
            start(self, timeout)
        else:
            _nobody_clicks(self.figure)

    def blocking_input_loop(figure: Any, *_args: Any, **_kwargs: Any) -> None:
        _nobody_clicks(figure)

    canvas.start_event_loop, blocking.blocking_input_loop = start_event_loop, blocking_input_loop


def _nobody_clicks(figure: Any) -> None:
    with FailOpen("keeping a figure that waits for a click or a key"):
        _keep(figure)
        text = "the script waits for a click or a key in a figure; nodes have no screen, so it does not wait"
        sys.stderr.write(f"rain-deploy: {text}\n")
        warn(text)


def hook_pyplot(pyplot: Any) -> None:
    """Hook ``matplotlib.pyplot``, which was just imported."""
    switch, pause = pyplot.switch_backend, pyplot.pause
    pausing, process = False, os.getpid()

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
            # Send the close events that a window would send; Agg has no windows.
            for figure in _open_figures(pyplot):
                with FailOpen("sending a close event"):
                    figure.canvas.callbacks.process("close_event", CloseEvent("close_event", figure.canvas))
            pyplot.close("all")

    @functools.wraps(pause)
    def pause_without_keeping(*args: Any, **kwargs: Any) -> Any:
        nonlocal pausing
        pausing = True
        try:
            return pause(*args, **kwargs)
        finally:
            pausing = False

    def keep_at_exit() -> None:
        if os.getpid() == process:  # a forked child holds figures of its parent
            _keep_open(pyplot)

    pyplot.switch_backend, pyplot.show, pyplot.pause = switch_backend, show, pause_without_keeping
    atexit.register(keep_at_exit)


def keep_and_close() -> None:
    """Keep every open figure and close it: the next task in this process begins with none."""
    if pyplot := sys.modules.get("matplotlib.pyplot"):
        _keep_open(pyplot)
        pyplot.close("all")


def _open_figures(pyplot: Any) -> list[Figure]:
    with FailOpen("listing the open figures"):
        managers = pyplot._pylab_helpers.Gcf.figs  # noqa: SLF001 - plt.figure(number) would change the current one
        return [managers[number].canvas.figure for number in sorted(managers)]
    return []


def _keep_open(pyplot: Any) -> None:
    for figure in _open_figures(pyplot):
        with FailOpen("keeping an open figure"):
            _keep(figure)


def _keep(figure: Any, **looks: Any) -> None:
    """Keep the figure, drawn as it is or else plainer.  Raises OSError, and what the first drawing raised."""
    first: Exception | None = None
    for how, settings in PLAINER:
        try:
            with _with_texts(figure, settings):
                _keep_drawn(figure, looks)
        except OSError:
            raise
        except Exception as error:  # noqa: BLE001 - drawing runs much code of others
            first = first or error
        else:
            if first:
                warn(f"a figure is kept {how}, because drawing it as it is failed: {reason(first)}")
            return
    if first:
        raise first


@contextlib.contextmanager
def _with_texts(figure: Any, settings: dict[str, bool]) -> Iterator[None]:
    """Change settings of all texts of a figure for a while, also of those that drawing makes."""
    texts: list[Any] = figure.findobj(Text) if settings else []
    before = [(text, name, getattr(text, f"get_{name}")()) for text in texts for name in settings]
    for_new: dict[Any, Any] = {f"text.{name}": value for name, value in settings.items()}
    with mpl.rc_context(for_new):
        try:
            for text, name, _ in before:
                getattr(text, f"set_{name}")(settings[name])
            yield
        finally:
            for text, name, value in before:
                getattr(text, f"set_{name}")(value)


def _keep_drawn(figure: Any, looks: dict[str, Any]) -> None:
    """Save the figure as PNG and SVG under the next number, unless it looks as when it was last saved.

    Processes may share the directory: making the PNG claims its number.  Raises OSError, and whatever
    drawing raises.
    """
    directory = os.environ.get("RAIN_DEPLOY_FIGURES")
    if not directory:  # a task that is not at home
        return
    look = hashlib.sha256(_drawn(figure, "rgba")).digest()
    if _kept.get(figure) == look:
        return
    part = _part(directory, _drawn(figure, "png", **looks))
    numbers = itertools.count(len(list(Path(directory).glob("*.png"))) + 1)
    try:
        while True:
            png = Path(directory, f"{next(numbers):02}.png")
            with contextlib.suppress(FileExistsError):  # a hard link raises it, a rename would not
                png.hardlink_to(part)
                break
    finally:
        part.unlink()
    _kept[figure] = look
    with FailOpen(f"drawing {png.stem}.svg"):
        _part(directory, _drawn(figure, "svg", metadata={"Date": None}, **looks)).replace(
            png.with_suffix(".svg")
        )


def _drawn(figure: Any, kind: str, **looks: Any) -> bytes:
    target = io.BytesIO()
    # The script did not ask for this drawing, so its warnings would only confuse.
    with warnings.catch_warnings(), mpl.rc_context({"svg.hashsalt": "rain-deploy"}):
        warnings.simplefilter("ignore")
        _save(figure, target, format=kind, **looks)
    return target.getvalue()


def _part(directory: str, content: bytes) -> Path:
    """Write a picture to a file of another name, so that no half picture ever has a number."""
    path = Path(directory, f".{os.getpid()}.part")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path
