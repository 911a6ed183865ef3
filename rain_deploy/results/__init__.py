"""Pulls the results of a run: unpacking, landing, points."""
