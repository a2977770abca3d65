"""Room 6, evidence: what recurs, what it means, and whether it survives the controls."""
