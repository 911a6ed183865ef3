"""A cluster's machines and what is on them: what exists, what is wanted, how one becomes the other."""
