"""One module per verb, or per pair: its options, its call, its text."""
