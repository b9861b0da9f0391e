"""Event: what clients say happened to a resource, as the Kubernetes API has it, under both of its groups."""
