"""Our processes on nodes.  Standard library and the node environment only; imports no other room."""
