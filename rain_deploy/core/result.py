"""What every verb returns."""

from __future__ import annotations

from rain_deploy.errors import RainDeployError


class Result:
    """Anything that a flow returns."""

    __slots__ = ()

    @property
    def problem(self) -> RainDeployError | None:
        """Why the command's exit code is not 0 although there is a result."""
        return None
