"""Detectors: ``losses(batch)`` for training and ``detect(images, image_sizes)`` for use."""
