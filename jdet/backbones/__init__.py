"""Backbones: images in, a dict of named stages out (``c3`` has stride 8, ``c4`` stride 16, …)."""
