"""Examines a data set before a step is paid for: what is wrong with it, what follows, what to do."""
