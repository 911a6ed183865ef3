"""The record on the operator's machine."""

from rain_deploy.state.store import Store

__all__ = ["Store"]
