"""Ratios of positive to negative samples: against counts by hand, however the batch is split."""

import collections
import itertools
import re

import jax.numpy as jnp
import numpy as np
import pytest

from jdet.parallel import mesh as mesh_lib
from jdet.types import ConfigError
from tests.train import fake
from tests.train.test_step import build


class Counting(fake.FakeDetector):
    """Positives: objects; negatives: twice as many, or one more; background: the image's index."""

    with_objects: bool = False

    def losses(self, batch, *, train=True):
        if not self.is_initializing():
            positives = batch.valid.sum(1).astype(jnp.float32)
            negatives = jnp.where(positives > 0, 2 * positives + batch.index % 2, 0)
            counts = dict(positives=positives, negatives=negatives, background=1.0 + batch.index)
            if self.with_objects:
                counts["objects"] = batch.valid[:, 0].astype(jnp.float32)
            for name, value in counts.items():
                self.sow("samples", name, value, reduce_fn=lambda _, new: new)
        return fake.FakeDetector.losses(self, batch, train=train)


def make_step(detector, **overrides):
    return build(fake.config(**overrides), detector)


@pytest.mark.parametrize("devices, accumulation", [(1, 1), (4, 1), (2, 2)])
def test_ratios_are_those_of_the_whole_batch(devices, accumulation):
    mesh, now, train_step = make_step(
        Counting(with_objects=devices == 2),
        train__sample_stats=True,
        train__accumulation=accumulation,
        parallel__devices=devices,
    )
    for batch in itertools.islice(fake.stream(0), 2):
        now, metrics = train_step(now, mesh_lib.to_global(batch, mesh))
        positives = batch.valid.sum(1)
        negatives = np.where(positives > 0, 2 * positives + batch.index % 2, 0)
        ratios = np.sort(positives[negatives > 0] / negatives[negatives > 0])
        expected = {
            "positives": positives.mean(),
            "ratio": positives.sum() / negatives.sum(),
            "ratio_mean": ratios.mean(),
            "ratio_p10": ratios[int(np.ceil(0.1 * len(ratios))) - 1],
            "ratio_min": ratios[0],
            "background_ratio": positives.sum() / (1 + batch.index).sum(),
        }
        if devices == 2:
            objects = batch.valid[:, 0].sum()
            expected["ratio_found"] = (positives.sum() - objects) / negatives.sum()
        found = {x[8:]: float(v) for x, v in metrics.items() if x.startswith("samples/")}
        assert found == pytest.approx(expected, rel=1e-6)


def test_a_batch_without_objects():
    mesh, now, train_step = make_step(Counting(), train__sample_stats=True)
    batch = fake.batch(0)
    empty = batch._replace(valid=np.zeros_like(batch.valid))
    _, metrics = train_step(now, mesh_lib.to_global(empty, mesh))
    values = [float(v) for name, v in metrics.items() if name.startswith("samples/")]
    assert values == [0.0] * 6


def test_off_costs_nothing():
    """The program has the instructions of that of a detector that counts nothing."""
    programs = []
    for detector in (Counting(), fake.FakeDetector()):
        mesh, now, train_step = make_step(detector)
        batch = mesh_lib.to_global(fake.batch(0), mesh)
        text = train_step.lower(now, batch).compile().as_text()
        programs.append(collections.Counter(re.findall(r" = \S+ ([\w-]+)\(", text)))
        assert not [name for name in train_step(now, batch)[1] if name.startswith("samples/")]
    assert programs[0] == programs[1] and programs[0].total() > 100


def test_a_detector_that_counts_nothing_is_refused():
    mesh, now, train_step = make_step(fake.FakeDetector(), train__sample_stats=True)
    with pytest.raises(ConfigError, match="train.sample_stats=True, but this detector counts no"):
        train_step(now, mesh_lib.to_global(fake.batch(0), mesh))
