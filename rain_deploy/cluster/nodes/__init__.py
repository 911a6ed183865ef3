"""The nodes of a cluster: what their hosts are, and what each of them gets."""
