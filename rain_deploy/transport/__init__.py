"""Transport: commands to hosts and ports from them, behind the protocol in ``base``."""
