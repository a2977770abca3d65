"""Room 3, traces: what the model writes on each problem."""
