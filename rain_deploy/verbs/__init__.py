"""One straight function for each verb; typed results out; no printing, no SDK, no shell text."""
