"""Values: what the user wants, what exists, what is to be done.  No I/O, no clock, no environment."""
