"""One run on a node: its directory, the line it waits in, its attempt, what is sent home."""
