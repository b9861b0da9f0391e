"""Lease: who leads among the processes of a client, as the Kubernetes API has it."""
