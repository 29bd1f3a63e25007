"""The search for side and batch: monotone, below the limit, and the paper's setting from its memories."""

import functools
import json
from types import SimpleNamespace

import pytest

from jdet import search_batch
from jdet.config import get_defaults, split_phases
from jdet.preflight import batch_search
from jdet.preflight.batch_search import Model, Point, fit, parse_memory
from jdet.train import schedule
from jdet.types import ConfigError

# Mask R-CNN as the paper has it: 8.06 GB at 448 pixels and 8 images, 4.4 GB at 800×1344 and 2.
CARD = Model(fixed=0.73e9, per_pixel=1.7e3, per_image=0.57e9)


def counted(memory):
    asked = []

    def ask(side, batch):
        asked.append((side, batch))
        return memory(side, batch)

    return ask, asked


def test_an_11_gb_card_gets_the_papers_setting():
    ask, asked = counted(CARD)
    assert CARD(448, 8) == pytest.approx(8.06e9, rel=0.02)
    found = batch_search.search(ask, 11e9)
    best = found.frontier[0]
    assert (best.side, best.batch) == batch_search.ANCHOR == (448, 8)
    assert len(set(asked)) == len(asked) < 16  # of 28 points
    assert found.model(640, 4) == pytest.approx(CARD(640, 4), rel=1e-6)


@pytest.mark.parametrize("limit", [3e9, 6e9, 11e9, 24e9, 80e9])
def test_what_is_found_fits_and_is_the_largest_that_does(limit):
    found = batch_search.search(CARD, limit)
    usable = batch_search.USABLE * limit
    assert all(point.memory <= usable for point in found.frontier)
    largest = {
        side: max((b for b in batch_search.BATCHES if CARD(side, b) <= usable), default=0)
        for side in batch_search.SIDES
    }
    for point in found.frontier:
        assert largest[point.side] == point.batch
    for side, batch in largest.items():  # whatever is left out is exceeded by one that is not
        assert not batch or any(p.side >= side and p.batch >= batch for p in found.frontier)
    ranks = [point.rank for point in found.frontier]
    assert ranks == sorted(ranks, reverse=True)


def test_more_memory_is_never_worse():
    ranks = [batch_search.search(CARD, gb * 1e9).frontier[0].rank for gb in range(2, 81, 3)]
    assert ranks == sorted(ranks) and len(set(ranks)) > 4


def test_what_cannot_be_compiled_does_not_fit():
    def memory(side, batch):
        return float("inf") if side * batch > 2000 else CARD(side, batch)

    found = batch_search.search(memory, 80e9)
    assert max(point.side * point.batch for point in found.frontier) <= 2000


def test_recomputing_counts_less_and_reaches_further():
    kept = batch_search.search(CARD, 6e9)
    again = batch_search.search(lambda s, b: 0.4 * CARD(s, b), 6e9, remat="full")
    assert batch_search.best_of([kept, again]).remat == "full"
    same = batch_search.search(CARD, 6e9, remat="full")
    assert batch_search.best_of([kept, same]).remat == "none"


def test_the_fitted_model_has_no_negative_part():
    points = {(side, batch): 1e9 + 5e3 * batch * side**2 for side in (224, 448) for batch in (1, 4)}
    model = fit(points | {(640, 9): float("inf")})
    assert min(model) >= 0 and model(320, 2) == pytest.approx(1e9 + 1e4 * 320**2, rel=1e-6)
    assert Point(448, 8, 1.0, True).rank == 1.0


@pytest.mark.parametrize(
    "text, size",
    [("11GB", 11e9), ("0.5 GiB", 2.0**29), ("900MB", 9e8), ("auto", 0.0)],
)
def test_memory_by_name(text, size):
    assert parse_memory(text) == size


@pytest.mark.parametrize(
    "call, message",
    [
        (functools.partial(parse_memory, "11"), "--memory='11'; give"),
        (functools.partial(parse_memory, "-1GB"), "--memory='-1GB'; give"),
        (functools.partial(batch_search.search, CARD, 1e9), "--memory=1GB: a step of 1 image"),
        (functools.partial(batch_search.search, CARD, 1e9, sides=(450,)), "--sizes=450 .*take 448"),
        (functools.partial(batch_search.search, CARD, 1e9, batches=()), "--batches"),
    ],
)
def test_bad_input_is_refused(call, message):
    with pytest.raises(ConfigError, match=message):
        call()


def test_settings_say_rate_steps_and_passes():
    config = get_defaults()
    config.optimizer.lr, config.optimizer.reference_batch = 0.01, 16
    config.optimizer.schedule, config.train.steps = "constant", 88_000
    row = search_batch.facts(config, Point(448, 8, 8e9, True), 8, 117_266)
    assert row["lr"] == pytest.approx(0.04) and row["batch_size"] == 64
    assert row["steps"] == 88_000 and round(row["data_passes"]) == 48
    json.dumps(row)
    config.resize.name = "keep_ratio"
    with pytest.raises(ConfigError, match="makes inputs of other sizes than config.input_size"):
        search_batch.resized(config, (448, 8), 1, "none")


def test_norms_measure_the_images_of_a_device():
    config = get_defaults()
    assert search_batch.resized(config, (320, 4), 1, "none").parallel.bn_group_size == 0
    config.parallel.bn_group_size, config.train.steps = 8, 10
    assert search_batch.resized(config, (320, 4), 1, "none").parallel.bn_group_size == 4
    assert search_batch.facts(config, Point(320, 4, 8e9, True), 1, None)["bn_group_size"] == 4


def test_one_rematerialisation_that_does_not_fit_leaves_the_other(monkeypatch):
    def measure(config, mode, devices):
        share = {"none": 100.0, "full": 1.0}[config.train.remat]
        needed = share * CARD(config.input_size, config.train.batch_size)
        return SimpleNamespace(needed=needed, fits=True)

    monkeypatch.setattr(search_batch.compile_lib, "measure", measure)
    search = functools.partial(
        search_batch.search, get_defaults(), ["device"], 11e9, say=lambda line: None
    )
    [(remat, found)] = search(remats=("none", "full"))
    assert remat == "full" and found.frontier[0].remat == "full"
    with pytest.raises(ConfigError, match="a step of 1 image"):
        search(remats=("none",))


@pytest.mark.parametrize("best, value", [("map", 0.0), ("loss", 3.0), ("gone", 3.0)])
def test_a_short_training_has_the_settings_and_the_metric_of_its_phases(monkeypatch, best, value):
    seen = []

    def train(config, workdir):
        seen.extend(split_phases(config))
        return SimpleNamespace(status="completed", metrics={"loss": 3.0, "map": 0.0})

    monkeypatch.setattr(search_batch.run, "train", train)
    config = get_defaults()
    config.phases = ("low", "high")
    rates = dict(warmup=30, warmup_epochs=0.2, hold=5, boundaries=(0.5, 80))
    low = dict(parallel=dict(bn_group_size=8), train=dict(steps=100), optimizer=rates)
    config.phase.low = low
    config.phase.high = dict(train=dict(steps=50, best_metric=best))
    point = Point(320, 4, 8e9, True)
    assert search_batch.proxy(config, "low", point, 2, 0.1) == value
    low, high = (each.config for each in seen)
    assert (low.train.steps, low.train.batch_size, low.input_size) == (10, 8, 320)
    assert (low.parallel.bn_group_size, high.parallel.bn_group_size) == (4, 0)
    assert high.train.steps == 5
    found = [low.optimizer[key] for key in rates]
    assert found == [3, pytest.approx(0.02), 0, (0.5, 8)]
    short = schedule.resolve(low, 1000, devices=2)
    assert (short.steps, short.warmup, short.boundaries) == (10, 3, (5, 8))
    assert high.optimizer.warmup == 0


@pytest.mark.parametrize(
    "settings, images, steps",
    [
        (dict(schedule="normal"), 1000, 69),  # 11 epochs of 125 steps
        (dict(epochs=10.0, warmup=3), 80, 5),
        (dict(epochs=10.0, warmup=3), 8, 2),
        (dict(steps=999, boundaries=(990,)), 80, 49),
        (dict(steps=20, length="fixed_samples", reference_batch=2), 80, 2),
    ],
)
def test_every_way_to_give_a_length_is_shortened(settings, images, steps):
    """Of 8 images a step, to a twentieth; two steps at least, so that a warm-up fits in."""
    config = get_defaults()
    config.train.update(steps=0, batch_size=8)
    for key, value in settings.items():
        (config.train if key in config.train else config.optimizer)[key] = value
    short = search_batch.short_length(config, 0.05, 8, images)
    config.optimizer.update(search_batch.shortened(config, 0.05))
    config.train.update(short)
    assert schedule.resolve(config, images, devices=1).steps == steps
