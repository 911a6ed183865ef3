"""Providers: where machines come from, behind the protocol in ``base``."""
