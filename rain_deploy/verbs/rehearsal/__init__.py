"""Rehearsals: a script's plan, tried on this machine before machines cost money."""
