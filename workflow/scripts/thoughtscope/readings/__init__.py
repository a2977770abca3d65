"""Room 5, readings: what an SAE says of every token of the traces, and how well it fits there."""
