"""Plans stand on the same homes, caches and machines as the local tests."""

from tests.local.conftest import make_cluster, make_home, session_cluster

__all__ = ["make_cluster", "make_home", "session_cluster"]
