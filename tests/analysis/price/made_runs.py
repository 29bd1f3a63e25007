"""Folders of runs with the files that a forecast reads."""

import json

from jdet.config import get_defaults


def made(folder, curve, *, steps=100, images=100, metric="coco/AP50"):
    """A run of so many training images; ``curve`` has step and AP of each evaluation."""
    folder.mkdir(parents=True)
    config = get_defaults()
    (folder / "config.json").write_text(config.to_json())
    record = {"status": "running", "steps": steps, "train_images": images}
    (folder / "run.json").write_text(json.dumps(record))
    rows = [{"step": 1, "loss": 2.0, "lr": 0.1}]
    rows += [{"step": step, metric: ap} for step, ap in curve]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(folder)
