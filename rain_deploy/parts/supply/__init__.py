"""What this machine brings for the nodes: programs that it keeps, and the requirements, resolved."""
