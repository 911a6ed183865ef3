"""What runs all the time on a node: the keeper, the supervisor, and the processes that they start."""
