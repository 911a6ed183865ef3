"""One module per verb: its options, its call, its text."""
