"""The report of a run: one HTML page that works offline, made by a process of its own."""
