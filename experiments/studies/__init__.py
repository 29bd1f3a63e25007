"""Questions that take many runs to answer, and the table of all experiments."""
