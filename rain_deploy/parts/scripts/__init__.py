"""Programs that are sent to a node as text and run there by themselves."""
