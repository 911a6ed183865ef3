"""Run an unedited Rain script on N machines."""

__version__ = "0.1.0"
