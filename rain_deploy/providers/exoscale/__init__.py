"""Machines of an Exoscale account."""
