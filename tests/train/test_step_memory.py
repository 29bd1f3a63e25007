"""The estimate of a step's memory, and when it is told."""

import functools

import jax
import pytest

from jdet.train import step_memory
from tests.train import fake

CONV, DENSE = 27 * 4 + 4, 256 * 6 + 6  # numbers of the two layers
SHAPE = (fake.SIDE, fake.SIDE)


def estimate(images, **settings):
    return step_memory.estimate(fake.config(**settings), fake.FakeDetector("none"), SHAPE, images)


def test_memory_of_the_smallest_detector():
    """Weights, gradient and momentum; for each image its pixels as floats, the map before and after."""
    fixed, kept = estimate(8)
    assert fixed == 3 * 4 * (CONV + DENSE)
    pixels = fake.SIDE**2 * 3 * 4
    assert 8 * pixels < kept < 8 * 3 * pixels
    assert estimate(16)[1] == pytest.approx(2 * kept, rel=0.01) and estimate(16)[0] == fixed
    assert estimate(8, train__ema=0.9)[0] - fixed == 4 * (CONV + DENSE)


def test_what_is_frozen_keeps_nothing():
    fixed, kept = estimate(8, optimizer__rules=(("backbone/.*", 0.0, 0.0),))
    assert fixed == estimate(8)[0] - 2 * 4 * CONV
    assert kept < estimate(8)[1] - 8 * fake.SIDE**2 * 3 * 4 / 2


def test_it_is_told_with_a_batch_that_fits(monkeypatch):
    def told(free):
        monkeypatch.setattr(step_memory.device_memory, "free_memory", lambda _: free)
        config = fake.config(train__batch_size=16)
        make = functools.partial(fake.FakeDetector, "none")
        return step_memory.warning(config, make, SHAPE, jax.devices()[:2])

    fixed, kept = estimate(8)
    assert told(None) == told(10**12) == told(fixed + kept) == ""
    assert "about 4 image(s) on each would, --config.train.batch_size=8" in told(
        fixed + kept // 2 + 9
    )
    assert "not even one image would" in told(fixed)
