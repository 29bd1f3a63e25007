"""Runs that are killed at random moments and go on: not a part of the suite, for it takes hours."""
