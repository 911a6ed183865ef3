"""The processes that always run on a node: the keeper, the supervisor, and the processes that they start."""
