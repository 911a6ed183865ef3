"""``tf.keras.datasets.mnist.load_data`` without the network: arrays of MNIST's shapes that a model can learn.

A ``.pth`` line imports it at interpreter start; it acts when Keras imports its MNIST module, in the executors
of Rain as in the script.
"""

import sys
from importlib.machinery import ModuleSpec, PathFinder
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import ModuleType

    import numpy as np

MNIST = "keras.src.datasets.mnist"


class MnistFinder:
    """Lets Keras's module be found as ever and replaces its ``load_data`` when it has been loaded."""

    def find_spec(
        self, name: str, path: "Sequence[str] | None" = None, _target: "ModuleType | None" = None
    ) -> ModuleSpec | None:
        spec = PathFinder.find_spec(name, path) if name == MNIST else None
        if spec is not None:
            loader: Any = spec.loader
            run = loader.exec_module

            def exec_module(module: Any) -> None:
                run(module)
                module.load_data = load_data

            loader.exec_module = exec_module
        return spec


def load_data(path: str = "mnist.npz") -> "tuple[tuple[Any, Any], tuple[Any, Any]]":
    """Images of 28 by 28 bytes to train and to test with, and their labels; always the same.

    A tenth of MNIST's 60,000 and 10,000, or as many tenths as OFFLINE_MNIST_TENTHS says.
    """
    import os  # noqa: PLC0415 - not at the start of every Python

    import numpy as np  # noqa: PLC0415

    tenths = int(os.environ.get("OFFLINE_MNIST_TENTHS", "1"))
    rng = np.random.default_rng(0)
    patterns = rng.random((10, 28, 28)) < 0.01  # so few that not all images tell their class
    return _images(rng, patterns, 6_000 * tenths), _images(rng, patterns, 1_000 * tenths)


def _images(rng: "np.random.Generator", patterns: "np.ndarray", count: int) -> tuple[Any, Any]:
    labels = rng.integers(0, 10, count, dtype="uint8")
    light = rng.integers(0, 256, (count, 28, 28), dtype="uint8")
    return light * (patterns[labels] | (light > 235)), labels


sys.meta_path.insert(0, MnistFinder())
