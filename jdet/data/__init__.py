"""Data sources and the input pipeline: files on disk in, padded uint8 batches out, without JAX."""
