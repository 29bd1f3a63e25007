"""What the experiments with transformers share: models and recipes of "Training Object Detectors from Scratch"."""
