"""``inventory``: the living clusters as a dynamic inventory of Ansible."""

import shlex
from typing import Any

from rain_deploy.cluster.context import Context
from rain_deploy.core.cluster import Cluster, Node
from rain_deploy.parts.access import host_key_alias, quoted
from rain_deploy.verbs.nodes import write_ssh_config

EVERYTHING = "rain"  # the group that the playbooks are for
SERVERS, GOVERNORS = "rain_servers", "rain_governors"  # a server node has a governor too


def inventory(ctx: Context) -> dict[str, Any]:
    """Return what Ansible expects of ``--list``: groups by cluster and role, and the variables of each host.

    It contains the clusters that are recorded as up.  It asks neither nodes nor a cloud.  ``_meta`` has all
    variables, so Ansible does not call ``--host``.
    """
    clusters = [cluster for cluster in ctx.store.clusters() if cluster.up]
    hostvars = {name: values for cluster in clusters for name, values in _hosts(ctx, cluster).items()}
    groups: dict[str, Any] = {
        EVERYTHING: {"children": [group_name(cluster.name) for cluster in clusters]},
        SERVERS: {"hosts": [host_name(cluster, cluster.server) for cluster in clusters]},
        GOVERNORS: {"hosts": [host_name(cluster, node) for cluster in clusters for node in cluster.nodes]},
    }
    for cluster in clusters:
        groups[group_name(cluster.name)] = {"hosts": [host_name(cluster, node) for node in cluster.nodes]}
    return {"_meta": {"hostvars": hostvars}, **groups}


def host_name(cluster: Cluster, node: Node) -> str:
    """Return a node's name in the inventory, which has all clusters: ``default-node-1``."""
    return f"{cluster.name}-{node.name}"


def group_name(cluster: str) -> str:
    """Return the group of a cluster.  Ansible takes no dashes there, and names of clusters no underscores."""
    return f"cluster_{cluster.replace('-', '_')}"


def _hosts(ctx: Context, cluster: Cluster) -> dict[str, dict[str, Any]]:
    """Return the variables of each node; host keys are checked against the pinned ones alone."""
    config, known_hosts = write_ssh_config(ctx, cluster)
    found = {}
    for node in cluster.nodes:
        host = node.host
        options = [f"HostKeyAlias={host_key_alias(cluster.id, host)}"]
        options.append(f"UserKnownHostsFile={quoted(known_hosts)}")
        options += ["GlobalKnownHostsFile=/dev/null", "StrictHostKeyChecking=yes", "ForwardAgent=no"]
        options += ["IdentityAgent=none"] if not host.use_agent else []
        options += ["IdentitiesOnly=yes"] if host.identities_only or not host.use_agent else []
        options += [f"CertificateFile={quoted(path)}" for path in host.certificate_files]
        options += [f"IdentityFile={quoted(path)}" for path in host.identity_files[1:]]
        if host.jumps:  # the last hop's own entry leads through those before it
            file, hop = shlex.quote(str(config)).replace("%", "%%"), f"{host.name}-jump-{len(host.jumps)}"
            options.append(f"ProxyCommand=ssh -F {file} -W '[%h]:%p' {hop}")
        found[host_name(cluster, node)] = {
            "ansible_host": host.address,
            "ansible_port": host.port,
            "ansible_user": host.user,
            **({"ansible_ssh_private_key_file": str(key[0])} if (key := host.identity_files) else {}),
            # Nothing in ~/.ssh/config counts, as for rain-deploy itself once a host is recorded.
            "ansible_ssh_common_args": " ".join(("-F /dev/null", *(f"-o {shlex.quote(o)}" for o in options))),
            # By default machines at the same address behind different jump hosts would share a connection.
            "ansible_control_path": f"%(directory)s/rain-{cluster.id}-{node.name}",
            **({"ansible_python_interpreter": node.facts.python} if node.facts and node.facts.python else {}),
            "rain_node_cluster": cluster.name,
            "rain_node_name": node.name,
        }
    return found
