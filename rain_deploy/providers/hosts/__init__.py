"""Machines that the user has."""
