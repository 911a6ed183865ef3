"""A run, from the laptop's side."""
