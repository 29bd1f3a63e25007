"""Makes resized_sizes.json with torchvision 0.28: `python tests/golden/make_resized_sizes.py`."""

import json
import random
from pathlib import Path

import torch
from torchvision.models.detection.transform import _resize_image_and_masks

random.seed(1)
rows = []
while len(rows) < 150:
    height, width = random.randint(3, 900), random.randint(3, 900)
    short, long = random.choice([(800, 1333), (320, 640), (300, 500), (33, 77)])
    factor = min(short / min(height, width), long / max(height, width))
    if factor * min(height, width) < 1 or (factor > 1 and random.random() < 0.8):
        continue  # torch refuses an image without rows, and large ones take long
    image, _ = _resize_image_and_masks(torch.zeros(1, height, width), short, long)
    rows.append([height, width, short, long, *image.shape[-2:]])
Path(__file__).with_name("resized_sizes.json").write_text(json.dumps(rows) + "\n")
