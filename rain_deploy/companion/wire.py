"""Names that the script's process, the journal's helper and the tasks' processes agree on."""

NAME = "rain-deploy"
"""Key of our entry in ``user`` of a task's spec, and of the infos of tasks and objects."""
MARK = "rain-deploy-failed-83d5b1c2e0f94a67"
"""A failed task's outputs begin with it; of an output directory, it is the name of the first file."""
