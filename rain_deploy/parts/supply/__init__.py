"""Supplies of this machine for the nodes: programs that it keeps, and the requirements, resolved."""
