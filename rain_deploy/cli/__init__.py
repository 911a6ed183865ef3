"""click commands and rendering; nothing is decided here that a flow could decide."""
