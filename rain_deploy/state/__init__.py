"""The record on the operator's machine."""
