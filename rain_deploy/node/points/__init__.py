"""The points of a run: what Rain and the companion note of its tasks becomes rows of points.jsonl."""
