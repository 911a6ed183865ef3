"""Verbs that show what a run computed."""
