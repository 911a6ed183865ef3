"""Every setting of rain-deploy, declared once, and what flags, environment and rain-deploy.toml make of it.

A flag goes before the environment, the environment before TOML; ``with``, ``files`` and ``env`` add up.
"""
