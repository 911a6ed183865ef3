"""The journal: results of finished tasks, kept on the server node outside of Rain's engine."""
