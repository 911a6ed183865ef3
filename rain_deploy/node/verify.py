"""Compares a Python environment with the list of files in its ``.ok``; fails where a file differs.

The environment's own Python runs it, in the environment's directory, so it also shows that this Python
starts.  An environment that an older version made has an empty list.
"""

import os

with open(".ok", "rb") as listed:
    for line in listed:
        size, _, path = line.rstrip(b"\n").partition(b" ")
        if os.stat(path).st_size != int(size) or not os.access(path, os.R_OK):
            raise SystemExit(f"{os.fsdecode(path)} is damaged")
