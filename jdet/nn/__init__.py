"""Layers shared by all models: convolution, pooling, normalisation."""
