"""The drivers there are: `process` runs real local processes, `null` only says so (for benchmarks)."""
