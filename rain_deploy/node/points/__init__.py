"""A run's points, from Rain's event log and the companion's notes to points.jsonl."""
