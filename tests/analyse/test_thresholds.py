import numpy as np
import pytest

from jdet.analyse import records, thresholds
from jdet.analyse.scored import outcomes
from jdet.types import ConfigError
from tests.analyse.random_set import NAMES, random_set
from tests.analyse.test_records import EMPTY


def counted(scores, right, objects, threshold):
    """Precision, recall and F1 of what is at or above a score."""
    kept = scores >= threshold
    found = int(right[kept].sum())
    return found / max(kept.sum(), 1), found / objects, 2 * found / (kept.sum() + objects)


@pytest.mark.parametrize("seed", range(4))
def test_no_other_threshold_is_better(seed):
    found = outcomes(random_set(seed, images=20), len(NAMES))
    for label in range(3):
        scores, right, objects = found.of_class(label)
        chosen = thresholds.choose(scores, right, objects, 0.6)
        every = [counted(scores, right, objects, score) for score in scores]
        best, at = chosen["best_f1"], chosen["at_precision"]
        assert best["f1"] == pytest.approx(max(f1 for _, _, f1 in every))
        assert counted(scores, right, objects, best["score"]) == pytest.approx(
            (best["precision"], best["recall"], best["f1"])
        )
        reached = [recall for precision, recall, _ in every if precision >= 0.6]
        assert at["recall"] == pytest.approx(max(reached)) and at["wanted"] == 0.6
        assert counted(scores, right, objects, at["score"])[:2] == pytest.approx(
            (at["precision"], at["recall"])
        )


def random_detector(rng, objects):
    """Scores of 80 % of the objects and of three times as many false positives, best first."""
    found = int(0.8 * objects)
    scores = np.concatenate([rng.beta(4, 2, found), rng.beta(1.5, 5, 3 * objects)])
    order = np.argsort(-scores)
    return scores[order], (np.arange(len(scores)) < found)[order], objects


@pytest.mark.parametrize("seed", range(5))
def test_the_threshold_holds_on_images_that_it_was_not_chosen_on(seed):
    rng = np.random.default_rng(seed)
    chosen_on, held_out = random_detector(rng, 1500), random_detector(rng, 1500)
    score = thresholds.choose(*chosen_on, 0.9)["best_f1"]["score"]
    best = thresholds.choose(*held_out, 0.9)["best_f1"]["f1"]
    assert best - 0.01 < counted(*held_out, score)[2] <= best


@pytest.mark.parametrize("right, objects", [([1, 0], 0), ([0, 0], 5), ([], 5)])
def test_no_threshold_is_made_up(right, objects):
    right = np.array(right, bool)
    scores = np.linspace(0.9, 0.1, len(right))
    found = thresholds.choose(scores, right, objects, 0.9)
    assert found == {"best_f1": None, "at_precision": None}


def test_a_precision_that_is_never_reached_has_no_threshold():
    scores, right = np.array([0.9, 0.8, 0.7]), np.array([False, True, False])
    found = thresholds.choose(scores, right, 4, 0.9)
    assert found["at_precision"] is None
    assert found["best_f1"]["score"] == pytest.approx(0.75)


def of_class(name, best, at, objects=5):
    threshold = {"best_f1": best and {"score": best}, "at_precision": at and {"score": at}}
    return {"class": name, "objects": objects, "threshold": threshold}


def test_predictions_take_what_the_run_has(tmp_path):
    names = ("ant", "bee", "cat")
    scores, said = thresholds.of_run(tmp_path, names, "auto")
    assert scores.tolist() == [0.3] * 3 and "no thresholds" in said
    with pytest.raises(ConfigError, match="python -m jdet.analyse"):
        thresholds.of_run(tmp_path, names, "precision")
    classes = [of_class("ant", 0.4, 0.6), of_class("bee", 0.2, None)]
    classes.append(of_class("cat", None, None, objects=0))
    records.write(tmp_path, EMPTY._replace(classes=list(names), per_class=classes, step=7))
    scores, said = thresholds.of_run(tmp_path, names, "auto")
    assert scores.tolist() == [0.4, 0.2, 0.3] and "cat 0.3 (not measured)" in said
    scores, said = thresholds.of_run(tmp_path, names, "precision")
    assert scores.tolist() == [0.6, np.inf, 0.3] and "bee none" in said
    assert thresholds.of_run(tmp_path, names, 0.7)[0].tolist() == [0.7] * 3
    with pytest.raises(ConfigError, match="is of the classes ant, bee, cat"):
        thresholds.of_run(tmp_path, ("ant",), "auto")
    assert "measured at step 7: ant" in thresholds.of_run(tmp_path, names, "auto", 9)[1]
    assert "measured at" not in thresholds.of_run(tmp_path, names, "auto", 7)[1]


def test_a_class_whose_detections_are_all_wrong_reaches_no_precision(tmp_path):
    classes = [of_class("worm", None, None)]
    records.write(tmp_path, EMPTY._replace(per_class=classes))
    scores, said = thresholds.of_run(tmp_path, ("worm",), "precision")
    assert scores.tolist() == [np.inf] and "worm none" in said
    scores, said = thresholds.of_run(tmp_path, ("worm",), "auto")
    assert scores.tolist() == [0.3] and "worm 0.3 (no detection was right)" in said
