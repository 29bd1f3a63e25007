"""Necks: a dict of named stages in, a list of pyramid levels out, finest first."""
