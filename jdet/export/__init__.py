"""Trained runs as files that find objects without jdet: StableHLO for JAX, ONNX for everything else."""
