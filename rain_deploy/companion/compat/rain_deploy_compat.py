"""Makes Rain 0.4.0 work on Python 3.11, and the way from ``localhost:7210`` to the cluster's server."""

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
    connect, server = client.__init__, os.environ["RAIN_DEPLOY_SERVER"].rpartition(":")[::2]
    here = {("localhost", "7210"), ("127.0.0.1", "7210")}

    def to_server(self: object, address: str, port: int | str) -> None:
        connect(self, *(server if (address, str(port)) in here else (address, port)))

    client.__init__ = to_server


sys.meta_path.insert(0, _RainFinder())
if companion := os.environ.get("RAIN_DEPLOY_COMPANION"):
    sys.path.insert(0, companion)
    try:  # noqa: SIM105 - contextlib would be one more import
        import rain_deploy_companion  # noqa: F401
    except Exception:  # noqa: BLE001, S110 - fail-open: never the end of the user's program
        pass
    sys.path.remove(companion)
