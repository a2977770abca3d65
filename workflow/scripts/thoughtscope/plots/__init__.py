"""Room 7, plots: the tables as pictures."""
