"""Machines that the user already has."""
