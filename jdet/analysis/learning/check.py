"""The check of a run that says whether it learns (``jdet.train.checks``).

At the shares ``train.learning.at`` of a run the network detects in a few training images, by the program
that evaluates it later; what is found, the images themselves and the logged losses are judged on the host.
Nothing of the run changes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import jax
import numpy as np
from ml_collections import ConfigDict

from jdet import build
from jdet.analysis import box_coverage
from jdet.analysis.learning import curve, evidence, found
from jdet.analysis.learning.judge import Finding, Settings, judge, not_finite
from jdet.data.batching import image_sizes
from jdet.data.readers.decoder import Decoder
from jdet.data.sources.part import Part
from jdet.data.transforms import resample
from jdet.evaluation.evaluate import evaluate
from jdet.evaluation.gather import SampleImages
from jdet.evaluation.tiling import Tiling
from jdet.train import schedule
from jdet.train.checks import Row, Said
from jdet.train.schedule import Resolved
from jdet.train.state import variables
from jdet.types import Example, Source, TrainState

FEWEST_STEPS = 100
"""Steps of a run below which it is not asked whether it learns."""

_SAMPLED, _OBJECTS, _MORE = 16, 160, 4
"""Images whose objects are counted, and times as many images that are looked at where they have few."""

_TILES, _FEWEST_IMAGES = 4, 6
"""Of images that are shown in tiles: so many tiles an image on average, and images all the same."""

_FINE = 1024  # longer side at which images are looked at, pixels, if the network does not see more


class LearningCheck:
    """Says what keeps a run from learning.

    Attributes:
        name: of its events.
        steps: at which it looks.
    """

    name = "learning"

    def __init__(
        self,
        config: ConfigDict,
        resolved: Resolved,
        detector: Any,
        source: Source,
        mesh: Any,
        workdir: Path,
        detect: Any,
    ):
        """Chooses steps and images; reads nothing yet.

        Args:
            config: complete config.
            resolved: its arithmetic.
            detector: of the run.
            source: the training images.
            mesh: of the run.
            workdir: of the run, for what to type.
            detect: ``DetectFn`` of the evaluation, which compiles nothing for this.
        """
        settings = config.train.learning
        self.steps: Sequence[int] = ()
        if resolved.steps >= FEWEST_STEPS:
            self.steps = sorted({max(math.ceil(x * resolved.steps), 1) for x in settings.at})
        tiling = Tiling.of(config.eval.tile)
        count = min(settings.images, len(source))
        some = [len(source[i].labels) for i in range(min(count, _SAMPLED))]
        if sum(some) * count < _OBJECTS * len(some):  # few an image: more of them
            count = min(_MORE * count, len(source))
        if tiling and count:
            tiles = len(tiling.tiles(*image_sizes(source, 1, config.data.on_error)[0]))
            count = min(count, max(_TILES * settings.images // tiles, _FEWEST_IMAGES))
        places = np.unique(np.linspace(0, len(source) - 1, count).round().astype(int))
        self._part = Part(source, _any, places.tolist())
        self._config, self._resolved, self._detector = config, resolved, detector
        self._whole = config.copy_and_resolve_references()
        with self._whole.unlocked():
            self._whole.eval.max_images = 0  # all of the part
        self._source, self._mesh, self._detect = source, mesh, detect
        self._workdir = workdir
        self._evidence: evidence.Evidence | None = None

    def look(self, now: TrainState, step: int, rows: Sequence[Row]) -> Said:
        """Detects in the images and judges, as ``jdet.train.checks.Check.look``."""
        config = self._config
        keep = SampleImages(len(self._part), len(self._part))
        evaluate(
            self._whole,
            self._part,
            self._mesh,
            self._detect,
            self._detect.fold(variables(now.params, now.stats)),
            evaluators=[keep],
            tiling=Tiling.of(config.eval.tile),
        )
        if jax.process_index() != 0:
            return Said()
        names = self._part.class_names
        if self._evidence is None:  # it stays what it is
            decode = Decoder.of(self._part)
            seen = [self._seen(decode(x.image, x.id), x) for _, x in keep.pairs]
            self._evidence = evidence.measure(seen, len(names))
        what, shown = found.measure(keep.pairs, names), self._evidence
        optimizer = config.optimizer
        told = curve.measure(
            rows,
            steps=self._resolved.steps,
            peak=self._resolved.peak_lr,
            momentum=optimizer.momentum if optimizer.name == "sgd" else None,
            clip=optimizer.clip_norm,
        )
        last = bool(self.steps) and step == self.steps[-1]
        findings = judge(what, shown, told, self._settings(reach=True), last=last)
        values = {**what._asdict(), **shown._asdict(), "loss": told.last, "rate": told.reach}
        return Said({**values, **texts(findings)}, lines(findings))

    def diverged(self, step: int, rows: Sequence[Row]) -> list[str]:
        """What to do, as ``jdet.train.checks.Check.diverged``."""
        del step, rows
        return [not_finite(self._settings(reach=False))]

    def _settings(self, *, reach: bool) -> Settings:
        config, warning = self._config, ""
        if reach:
            resize = build.resize(config)
            objects = box_coverage.sampler(self._source, resize, tile=build.train_tile(config))
            warning = self._detector.start_warning(objects, self._part.class_names, resize)
        return Settings(
            lr=config.optimizer.lr,
            side=config.input_size,
            workdir=str(self._workdir),
            out_of_reach=warning,
        )

    def _seen(self, image: np.ndarray, example: Example) -> evidence.Seen:
        """An image in units of the set's spread, no larger than it needs to be."""
        height, width = image.shape[:2]
        resize, side = build.resize(self._config), self._config.eval.tile.side
        # A tile, or the whole image, fills this much of the network input.
        rows, columns = (min(length, side or length) for length in (height, width))
        shape = resize.shapes[resize.shape_of(rows, columns)]
        content = resize.content(rows, columns, shape)
        scale = min(math.sqrt(math.prod(content) / (rows * columns)), 1.0)
        fine = min(1.0, max(_FINE / max(height, width), scale))
        size = max(round(width * fine), 1), max(round(height * fine), 1)
        small = resample.resize(image.reshape(height, width, -1), *size, cv2.INTER_AREA)
        mean = np.asarray(self._detector.mean, np.float32)
        small = (small.astype(np.float32) - mean) / np.asarray(self._detector.std, np.float32)
        kept = ~np.asarray(example.ignore, bool)
        return evidence.Seen(
            image=np.nan_to_num(small),
            boxes=np.asarray(example.boxes, float)[kept] * fine,
            labels=np.asarray(example.labels)[kept],
            scale=scale / fine,
        )


def make_checks(
    config: ConfigDict,
    detector: Any,
    source: Source,
    mesh: Any,
    workdir: Path,
    detect: Any,
    *,
    images: int,
) -> list[LearningCheck]:
    """The check of a run, as ``LearningCheck`` takes it; none where ``train.learning.images`` is 0.

    Args:
        images: of an epoch.
    """
    if not config.train.learning.images:
        return []
    resolved = schedule.resolve(config, images)
    return [LearningCheck(config, resolved, detector, source, mesh, workdir, detect)]


def lines(findings: Sequence[Finding]) -> list[str]:
    """What to show to people."""
    return [f"something keeps this run from learning ({x.cause}): {x.text}" for x in findings]


def texts(findings: Sequence[Finding]) -> dict[str, str]:
    """What to keep in the log: the causes, and the lines."""
    return {"causes": ", ".join(x.cause for x in findings), "said": "\n".join(lines(findings))}


def _any(name: str) -> bool:
    """Every image belongs to the part, as far as its defects are asked for."""
    del name
    return True
