"""What comes home from a run: unpacking, manifest, points."""
