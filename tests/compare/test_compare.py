from pathlib import Path

import numpy as np
import pytest

from jdet.analyse.evaluated import EvaluatedRun
from jdet.compare import __main__ as command
from jdet.compare import bootstrap
from jdet.compare.compare import compare
from jdet.config import get_defaults
from jdet.evaluation.coco_ap import CocoEvaluator
from jdet.types import ConfigError
from tests.analyse.random_set import NAMES, evaluated, random_set
from tests.analyse.test_command import save


def run(name, images, names=NAMES):
    return EvaluatedRun(
        path=Path(name),
        class_names=names,
        images=tuple(images),
        step=1,
        config=get_defaults(),
        annotation_file=None,
    )


def drawn_out(images, weights):
    """The set in which every image is as often as it was drawn."""
    made = []
    for image, times in zip(images, weights, strict=True):
        for _ in range(times):
            number = len(made) + 1
            found = image.found._replace(id=str(number))
            ground_truth = image.ground_truth._replace(rank=number)
            made.append(
                image._replace(id=number, name=str(number), found=found, ground_truth=ground_truth)
            )
    return made


def test_weights_do_what_drawing_an_image_again_does():
    images = random_set(0, images=12, crowds=0.3, ties=False)
    ranked = bootstrap.rank(images, len(NAMES))
    weights = np.concatenate([np.ones((1, 12), int), bootstrap.draws(12, 3, seed=0)])
    assert (weights.sum(1) == 12).all() and weights[1:].max() > 1
    found = bootstrap.average_precisions(ranked, weights)
    for row, ours in zip(weights, found, strict=True):
        theirs = evaluated(drawn_out(images, row), CocoEvaluator(NAMES, engine="pycocotools"))
        metrics, curves = theirs.result(), theirs.curves()
        for label, name in enumerate(NAMES):
            np.testing.assert_allclose(ours[label].mean(), metrics[f"coco/AP/{name}"], atol=1e-9)
            curve = curves.get(f"coco/precision_recall/{name}", {"y": [np.nan]})
            np.testing.assert_allclose(ours[label, 0], np.mean(curve["y"]), atol=1e-9)


def test_the_value_of_each_run_is_that_of_pycocotools_to_the_last_digits():
    runs = [run(f"r{i}", random_set(i, images=20, ground_truth=5)) for i in range(2)]
    found = compare([[one] for one in runs], samples=100)
    for one, rows in zip(runs, found.rows, strict=True):
        metrics = evaluated(one.images, CocoEvaluator(NAMES, engine="pycocotools")).result()
        held = {(row.metric, row.class_name): row.value for row in rows}
        for metric in ("AP", "AP50", "AP75"):
            assert held[metric, None] == pytest.approx(metrics[f"coco/{metric}"], abs=1e-12)
        assert held["AP", "ant"] == pytest.approx(metrics["coco/AP/ant"], abs=1e-12)
        assert held["AP", "dog"] is None  # without objects
    first, second = (rows[0] for rows in found.rows)
    assert first.difference is None and second.difference == second.value - first.value
    assert second.low < second.difference < second.high


def test_chance_is_not_significant_and_a_better_detector_is():
    significant = []
    for seed in range(6):
        runs = [
            run(f"r{i}", random_set(10 * seed + i, images=40, ground_truth=seed)) for i in range(2)
        ]
        significant.append(compare([[one] for one in runs], samples=200).rows[1][0].significant)
    assert sum(significant) <= 1
    better = [run(str(s), random_set(7, images=40, ground_truth=9, noise=s)) for s in (0.1, 0.04)]
    row = compare([[one] for one in better], samples=200).rows[1][0]
    assert row.significant and row.low > 0 and row.p_value < 0.02
    again = compare([[one] for one in better[::-1]], samples=200).rows[1][0]
    assert again.significant and again.difference == -row.difference and again.high < 0


def test_seeds_of_a_recipe_count_by_their_mean_and_widen_the_interval():
    images = random_set(20, images=30, ground_truth=3)
    good, bad = (
        random_set(s, images=30, ground_truth=3, noise=n) for s, n in ((21, 0.03), (22, 0.2))
    )
    apart = [run("good", good), run("bad", bad)]
    alone = [compare([[run("a", images)], [one]], samples=200).rows[1][0] for one in apart]
    row = compare([[run("a", images)], apart], samples=200).rows[1][0]
    assert row.value == pytest.approx(np.mean([one.value for one in alone]))
    assert alone[0].significant and not row.significant
    assert row.high - row.low > max(one.high - one.low for one in alone)


def other_objects(images):
    ground_truth = images[0].ground_truth
    return [
        images[0]._replace(ground_truth=ground_truth._replace(xywh=ground_truth.xywh + 1)),
        *images[1:],
    ]


@pytest.mark.parametrize(
    "change, said",
    [
        (lambda images: images[1:], r"1 that b lacks \(1\)"),
        (
            lambda images: random_set(3, images=12),
            r"evaluated on 9 images and b on 12.*3 that a lacks",
        ),
        (other_objects, "the objects of 1 images are not the same"),
    ],
)
def test_runs_on_different_images_are_refused_with_the_difference(change, said):
    images = random_set(3, images=9)
    with pytest.raises(ConfigError, match=said):
        compare([[run("a", images)], [run("b", change(images))]])


def test_what_else_cannot_be_compared():
    images = random_set(3, images=3)
    with pytest.raises(ConfigError, match="nothing to be compared with"):
        compare([[run("a", images), run("b", images)]])
    with pytest.raises(ConfigError, match="only runs of the same classes"):
        compare([[run("a", images)], [run("b", images, NAMES[::-1])]])


def test_the_command_prints_a_table_and_writes_a_figure(tmp_path, capsys):
    for i in range(2):
        save(tmp_path / f"run{i}", random_set(i, images=6, ground_truth=0), data=tmp_path / "set")
    runs, out = [str(tmp_path / f"run{i}") for i in range(2)], tmp_path / "out"
    assert command.main([*runs, f"--out={out}", "--samples=100"]) == 0
    said = capsys.readouterr().out
    assert "AP50" in said and "AP of ant" in said and "6 images, 100 draws" in said
    assert (out / "comparison.png").read_bytes().startswith(b"\x89PNG")
    assert '"p_value"' in (out / "comparison.json").read_text()
    assert command.main([runs[0], ",".join(runs), "--samples=100"]) == 0
    assert "run0 + run1" in capsys.readouterr().out
    for wrong in ("--samples=3", "--seed=-1"):
        assert command.main([*runs, wrong]) == 2
    assert command.main(runs[:1]) == 2
    assert "name two or more" in capsys.readouterr().err
