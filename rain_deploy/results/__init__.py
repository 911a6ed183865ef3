"""Pulls the results of a run, unpacks them, and writes the tables of points."""
