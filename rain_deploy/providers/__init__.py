"""Providers: each yields hosts reachable by SSH, behind the protocol in ``base``."""
