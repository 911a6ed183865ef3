"""One run on a node: its directory, the line it waits in, its job, what is sent home."""
