"""jdet: object detectors trained from random initialisation, in JAX."""

__version__ = "0.1.0"
