"""Executes steps on many hosts at once; knows steps, not what they do."""
