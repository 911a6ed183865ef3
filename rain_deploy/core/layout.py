"""Paths and ports on a node: the one place that knows them.  Node code reads them from node.json."""

IDLE_PORT = 7210  # Rain's client port between runs; also what the user's script names
HTTP_PORT = 7222  # Rain's dashboard, of the idle server or of the run's
RUN_PORTS = range(7230, 7300)  # client ports of the servers of runs, one per run, used in turn
GOVERNOR_PORT_BASE = 7300  # node-N's governor listens on 7300 + N
MAX_NODES = 1000
ROOT_BASE = "/var/lib/rain-deploy"  # our directory where all nodes have root
USER_BASES = "/var/tmp/rain-deploy-*"  # noqa: S108  as in user_base
"""Our directory on hosts without root, for the shell to expand."""
MACHINE = "/var/lib/rain-deploy-machine"
"""Directory for what our user-data gave a machine; RAIN_DEPLOY_MACHINE of its environment overrides it.

Its file ``mark`` says that our user-data finished, so that the machine obeys its time limit.  Only the mark
at this very path allows to power a machine off or to give it new host keys.
"""
STAGING = "tmp/stage"
"""Prefix of the directories for the files of a stage, below our directory on a node.

The files may be secrets.  The names continue with the process id of the stage's shell and with its start, in
ticks since boot.  One whose process has ended was left by a command that was killed: the next stage, the
keeper and ``down`` remove it.
"""
HOME_DRAFTS = (".state-*", "cache/**/.new-*")
"""Drafts that a killed command can leave in the home directory: state and cache entries."""
TEMPORARY = "rain-deploy-draft-"
"""Prefix of our temporary directories on the operator's machine."""
DRAFT_LIFE_S = 3600.0
"""No command works longer on one of these: uv has 15 minutes.  The next command removes what is older."""
SET_MACHINE = f"M=${{RAIN_DEPLOY_MACHINE:-{MACHINE}}}"  # shell text that sets ``$M`` to that directory


def user_base(uid: int | str) -> str:
    """Return our directory on hosts without root."""
    return f"/var/tmp/rain-deploy-{uid}"  # noqa: S108  made 0700, its owner is checked


def governor_port(index: int) -> int:
    """Return the port of node-``index``'s governor (1 to 1000)."""
    return GOVERNOR_PORT_BASE + index


class Layout:
    """Paths under ``base`` for one cluster."""

    def __init__(self, base: str, cluster_id: str) -> None:
        self.base = base
        self.cluster_id = cluster_id
        self.engines = f"{base}/cache/engine"
        self.environments = f"{base}/cache/envs"
        self.codes = f"{base}/cache/code"
        self.cluster = f"{base}/clusters/{cluster_id}"
        self.server = f"{self.cluster}/server"

    def engine(self, sha256: str) -> str:
        return f"{self.engines}/{sha256}/rain"

    def uv(self, sha256: str) -> str:
        return f"{self.base}/cache/uv/{sha256}/uv"

    def environment(self, digest: str) -> str:
        """Usable only when ``<path>/.ok`` exists."""
        return f"{self.environments}/{digest}"

    def code(self, digest: str) -> str:
        """``python <this directory> VERB …`` runs node code."""
        return f"{self.codes}/{digest}"

    def node(self, index: int) -> str:
        return f"{self.cluster}/nodes/{index}"

    def run(self, run_id: str) -> str:
        return f"{self.cluster}/runs/{run_id}"
