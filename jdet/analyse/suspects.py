"""Labels that confident detections contradict: worth a second look, the most confident first.

A detection is confident at and above the threshold of its class's best F1, where ``SURE`` of the class's
detections are right from its score on; a class that never reaches this accuses no label. Four
kinds of label are suspected:

* "unlabelled": a confident detection that touches no object at all (IoU below 0.1).
* "wrong_class": a confident detection on an object of another class (IoU 0.5 or more), whose own class
  was not found there, or less confidently.
* "badly_placed": a confident detection that overlaps an object of its class, but too little (IoU 0.1 to
  0.5), where nothing else found that object and the detection found no other.
* "nothing_there": an object that no detection of any class touches (IoU below 0.1), of a class of which
  ``SURE`` of the objects are found at some score. Its score is that share.

0.1 and 0.5 are the bounds between TIDE's error types.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from jdet.analyse.match import Matches, overlaps
from jdet.analyse.records import SUSPECTS, Suspect
from jdet.analyse.scored import Outcomes, ScoredImage
from jdet.analyse.thresholds import choose

SURE = 0.9
MOST = 50
"""Of each kind."""

_TOUCHED, _FOUND = 0.1, 0.5


def suspects(
    images: Sequence[ScoredImage],
    matches: Sequence[Matches],
    found: Outcomes,
    class_names: Sequence[str],
) -> list[Suspect]:
    """The suspected labels of a set.

    Args:
        images: of the set.
        matches: of each image, at IoU 0.50.
        found: the same, flattened.
        class_names: K names.

    Returns:
        At most ``MOST`` of each kind, the most confident first.
    """
    sure, recalled = np.full(len(class_names), np.inf), np.zeros(len(class_names))
    for label in range(len(class_names)):
        scores, right, objects = found.of_class(label)
        chosen = choose(scores, right, objects, SURE)
        if chosen["at_precision"] and chosen["best_f1"]:
            sure[label] = max(chosen["at_precision"]["score"], chosen["best_f1"]["score"])
        recalled[label] = right.sum() / objects if objects else 0.0
    every = [
        one
        for image, match in zip(images, matches, strict=True)
        for one in _of_image(image, match, class_names, sure, recalled)
    ]
    every.sort(key=lambda one: -one["score"])
    kept = {kind: [one for one in every if one["kind"] == kind][:MOST] for kind in SUSPECTS}
    return sorted((one for some in kept.values() for one in some), key=lambda one: -one["score"])


def _of_image(
    image: ScoredImage,
    match: Matches,
    class_names: Sequence[str],
    sure: np.ndarray,
    recalled: np.ndarray,
) -> Iterator[Suspect]:
    labels, scores = np.asarray(image.found.labels), np.asarray(image.found.scores, float)
    objects = image.ground_truth.labels
    over = overlaps(image.found, image.ground_truth)  # [d, g]
    same = labels[:, None] == objects[None]
    right, neither = match.right[0], match.neither[0]
    confident = np.flatnonzero((scores >= sure[labels]) & ~right & ~neither)
    own = np.full(len(objects), -np.inf)  # score at which its own class was found there
    own[match.objects[0][right]] = scores[right]

    def suspect(kind: str, label: int, score: float, box: Any, other: str | None = None) -> Suspect:
        return {
            "image": image.id,
            "file": image.file,
            "box": np.asarray(box, float).tolist(),
            "kind": kind,
            "class": class_names[label],
            "other": other,
            "score": float(score),
        }

    def box_of(row: int) -> np.ndarray:
        corner, sides = image.ground_truth.xywh[row, :2], image.ground_truth.xywh[row, 2:]
        return np.concatenate([corner, corner + sides])

    accused: set[int] = set()  # an object is suspected once, by the best detection
    for row in confident[np.argsort(-scores[confident], kind="stable")]:
        label = int(labels[row])
        if not len(objects) or over[row].max() < _TOUCHED:
            yield suspect("unlabelled", label, scores[row], image.found.boxes[row])
            continue
        open_to = ~image.ground_truth.ignore & (own < scores[row])
        wrong = np.where(open_to & ~same[row], over[row], 0.0)
        near = np.where(open_to & same[row] & np.isinf(own), over[row], 0.0)
        first, kind = (wrong, "wrong_class") if wrong.max() >= _FOUND else (near, "badly_placed")
        object = int(first.argmax())
        if first[object] < _TOUCHED or object in accused:
            continue
        accused.add(object)
        other = class_names[label] if kind == "wrong_class" else None
        yield suspect(kind, int(objects[object]), scores[row], box_of(object), other)
    touched = over.max(0) >= _TOUCHED if len(scores) else np.zeros(len(objects), bool)
    for object in np.flatnonzero(
        ~touched & ~image.ground_truth.ignore & (recalled[objects] >= SURE)
    ):
        label = int(objects[object])
        yield suspect("nothing_there", label, recalled[label], box_of(int(object)))
