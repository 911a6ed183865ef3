"""What Rain 0.4.0 needs on Python 3.11, and the way from ``localhost:7210`` to the cluster's server."""
# ruff: noqa: INP001, PLC0415 - it lies in site-packages; imports cost at every start of a Python: sys, os

import os
import sys


class _RainFinder:
    def find_spec(self, name: str, _path: object = None, _target: object = None) -> None:
        if name == "rain":
            import collections.abc
            import time

            for old in collections.abc.__all__:
                vars(collections).setdefault(old, getattr(collections.abc, old))
            # CPU time: by a wall clock Rain refuses a function whose pickling waited for a busy machine.
            vars(time).setdefault("clock", time.process_time)
        if name == "rain.client.program" and "RAIN_DEPLOY_SERVER" in os.environ:
            _redirect()  # what rain/client/__init__.py imports next after rain.client.client


def _redirect() -> None:
    client = sys.modules["rain.client.client"].Client
    connect = client.__init__

    def to_server(self: object, address: str, port: int | str) -> None:
        if address in {"localhost", "127.0.0.1"} and str(port) == "7210":
            address, _, port = os.environ["RAIN_DEPLOY_SERVER"].rpartition(":")
        connect(self, address, port)

    client.__init__ = to_server


sys.meta_path.insert(0, _RainFinder())
if companion := os.environ.get("RAIN_DEPLOY_COMPANION"):
    sys.path.insert(0, companion)
    try:
        import rain_deploy_companion  # noqa: F401
    except Exception:  # noqa: BLE001, S110 - fail-open: whatever fails here never fails the user's program
        pass
    finally:
        sys.path.remove(companion)
