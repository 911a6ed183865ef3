"""click commands and rendering; nothing is decided here that a verb could decide."""
