"""Composition roots: the processes there are, each put together from the parts of the other rooms."""
