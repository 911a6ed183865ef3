"""Output of several commands: text, tables, progress, JSON."""
