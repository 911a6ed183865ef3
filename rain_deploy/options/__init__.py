"""rain-deploy.toml, the environment and the flags -> ClusterSpec and RunSpec.

Precedence: flag, environment (both arrive here as the flags' Settings), TOML.  ``with`` and ``files``
add up; ``env`` adds up by name.  Every refusal names the file and the key, and says what is expected.
"""

from rain_deploy.options.settings import Settings, merged
from rain_deploy.options.spec import cloud_spec, cluster_spec, owner
from rain_deploy.options.toml import PROVIDERS, load
from rain_deploy.options.values import amount, duration_s, hosts, lifetime_s, network, packages

__all__ = [
    "PROVIDERS",
    "Settings",
    "amount",
    "cloud_spec",
    "cluster_spec",
    "duration_s",
    "hosts",
    "lifetime_s",
    "load",
    "merged",
    "network",
    "owner",
    "packages",
]
