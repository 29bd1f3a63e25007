"""The birth certificate of a run: the data, code and config that its weights came from."""
