"""How the store's tables came to be what they are, one step a file, run at the hub's start."""
