"""Runs code right after a module is imported, and only if something imports it."""

import sys

from .faults import FailOpen

TYPE_CHECKING = False  # mypy reads it as True; importing typing would cost at every start of a Python
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from importlib.machinery import ModuleSpec
    from types import ModuleType
    from typing import Any


class ImportHooks:
    """A meta path finder that lets later finders find a module and calls ``act(module)`` after loading."""

    def __init__(self, acts: "dict[str, Callable[[ModuleType], None]]") -> None:
        self._acts = acts

    def find_spec(
        self, name: str, path: "Sequence[str] | None" = None, target: "ModuleType | None" = None
    ) -> "ModuleSpec | None":
        act = self._acts.get(name)
        if act is None:
            return None
        with FailOpen(f"finding {name}"):
            return _with(act, self._find(name, path, target))
        return None

    def _find(
        self, name: str, path: "Sequence[str] | None", target: "ModuleType | None"
    ) -> "ModuleSpec | None":
        for finder in sys.meta_path[sys.meta_path.index(self) + 1 :]:
            spec = finder.find_spec(name, path, target)
            if spec is not None:
                return spec
        return None


def _with(act: "Callable[[ModuleType], None]", spec: "ModuleSpec | None") -> "ModuleSpec | None":
    loader: Any = spec and spec.loader
    if loader is not None:
        run = loader.exec_module

        def exec_module(module: "ModuleType") -> None:
            run(module)
            with FailOpen(f"hooking {module.__name__}"):
                act(module)

        loader.exec_module = exec_module
    return spec
