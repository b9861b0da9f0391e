"""Region: where things run. Declaring one makes the hub open its roads to it."""
