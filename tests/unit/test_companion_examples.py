"""The examples are what they say they are, and the wheel that makes one of them work without a network."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import zipfile
from pathlib import Path

from tests.wheels.build import build_offline_mnist

EXAMPLES = Path(__file__).parents[2] / "examples"
PUBLISHED = "4327343cc2eb03f37e631205167a7c0c2505077aa77201f7c53614f1c98b36a8"
"""SHA-256 of the listing as its author published it."""


def test_hsearch_is_the_published_listing_with_its_one_typo_corrected() -> None:
    corrected = (EXAMPLES / "hsearch.py").read_text()
    published = corrected.replace("dropout, mnist_data,\n", "dropout, mist_data,\n")
    assert published.count("mist_data,\n") == 1
    assert hashlib.sha256(published.encode()).hexdigest() == PUBLISHED


def test_the_program_of_execute_can_be_executed() -> None:
    assert os.access(EXAMPLES / "execute" / "count.sh", os.X_OK)


def test_the_wheel_puts_data_where_keras_would_download(tmp_path: Path) -> None:
    wheel = build_offline_mnist(tmp_path)
    mnist = tmp_path / "keras" / "src" / "datasets" / "mnist.py"
    mnist.parent.mkdir(parents=True)
    mnist.write_text("def load_data(path='mnist.npz'):\n    raise OSError('no network')\n")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path)
    look = (
        "import site; site.addsitedir('.')\n"
        "from keras.src.datasets import mnist\n"
        "(x, y), (v, w) = mnist.load_data()\n"
        "print(x.shape, x.dtype, y.shape, v.shape, w.shape, sorted(set(y.tolist())), x.max())\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", look], cwd=tmp_path, capture_output=True, text=True, check=False, timeout=60
    )
    digits = list(range(10))
    assert done.stdout == f"(6000, 28, 28) uint8 (6000,) (1000, 28, 28) (1000,) {digits} 255\n", done.stderr


def test_the_wheel_is_the_same_bytes_every_time(tmp_path: Path) -> None:
    again = tmp_path / "again"
    again.mkdir()
    wheel = build_offline_mnist(tmp_path)
    assert wheel.name == "offline_mnist-1.0-py3-none-any.whl"
    assert wheel.read_bytes() == build_offline_mnist(again).read_bytes()
