"""Clusters for real on one machine: network namespaces as machines, Debian's Slurm, deploy/."""
