"""Transport: run commands on hosts and forward ports, behind the protocol in ``base``."""
