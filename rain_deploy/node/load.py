"""How busy the nodes of a run are.  Every governor reports this to Rain's event log every five seconds."""

import contextlib
import json
import sqlite3
import time
from pathlib import Path
from urllib.parse import quote

from .files import load, member_name
from .run import Run
from .wire import ClusterConfig, LoadLine

_NEWEST = "SELECT event FROM events WHERE id > (SELECT MAX(id) FROM events) - ? AND event_type = 'Monitoring'"
_EVENTS = 2000  # how far back reports are looked for


def load_line(run: Run, server_dir: Path) -> LoadLine:
    """Return how busy each node is that reported it lately."""
    members = load(server_dir / "cluster.json", ClusterConfig) or ClusterConfig(nodes=())
    busy = {}
    database = run.attempt_dir / "log" / "events.db"
    # Read without a lock, as points/events.py explains.  What is half written is not shown.
    uri = f"file:{quote(str(database))}?mode=ro&immutable=1"
    with contextlib.suppress(sqlite3.Error, ValueError, TypeError, KeyError, AttributeError):
        with contextlib.closing(sqlite3.connect(uri, uri=True)) as connection:
            rows = connection.execute(_NEWEST, (_EVENTS,)).fetchall()
        for (text,) in rows:
            report = json.loads(text)
            if cores := report["cpu_usage"]:  # the first report of a governor has none
                busy[member_name(members.nodes, report["governor"])] = round(sum(cores) / len(cores))
    return LoadLine(now_s=time.time(), busy=busy)
