"""Room 8, report: one page, and the summary on a terminal."""
