"""The analysis of an evaluation: all that ``analysis.json`` holds, from detections and objects."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from jdet.analyse import thresholds
from jdet.analyse.coco import CocoEvaluation
from jdet.analyse.confusion import confusion
from jdet.analyse.match import match
from jdet.analyse.records import Analysis, OfClass, Suspect, number
from jdet.analyse.scored import Outcomes, ScoredImage, outcomes
from jdet.analyse.suspects import suspects
from jdet.evaluation.coco_ap import CocoEvaluator
from jdet.evaluation.official import official_order
from jdet.types import Example

IOU = 0.5


def in_official_order(images: Sequence[ScoredImage]) -> list[ScoredImage]:
    """The images as COCO's protocol takes them, on which it depends which of equal scores comes first."""
    return [images[i] for i in official_order([image.place for image in images])]


def analyse(
    images: Sequence[ScoredImage],
    class_names: Sequence[str],
    *,
    precision: float = thresholds.PRECISION,
    slices: Mapping[str, Sequence[int | str]] | None = None,
    step: int | None = None,
    masks: bool = False,
) -> Analysis:
    """Computes an analysis.

    Args:
        images: all that were evaluated, in any order.
        class_names: K names.
        precision: wanted of the second threshold of each class.
        slices: by name, ids of images (as in ``images.json``) that make a part of the set.
        step: optimiser steps the evaluated weights have taken.
        masks: compute AP of masks too, if every object and detection has one.

    Returns:
        The analysis; numbers without ground truth are None.
    """
    images = in_official_order(images)
    matches = [match(image.found, image.ground_truth, (IOU,)) for image in images]
    found = outcomes(images, len(class_names), matches)
    coco = CocoEvaluation(images, class_names)
    chosen = thresholds.of_classes(found, precision)
    kept, overall = thresholds.scores_to_keep(found, chosen)
    place = {image.id: index for index, image in enumerate(images)}
    parts = {name: [place[id] for id in ids] for name, ids in (slices or {}).items()}
    of_masks = _masks(images, class_names) if masks else {}
    objects = bool(found.objects.sum())
    doubted: list[Suspect] = suspects(images, matches, found, class_names) if objects else []
    return Analysis(
        iou=IOU,
        images=len(images),
        classes=list(class_names),
        per_class=[
            _of_class(label, name, coco, found, chosen[label], of_masks)
            for label, name in enumerate(class_names)
        ],
        by_size=coco.by_size(images),
        pr_curves=coco.curves(),
        tide=coco.tide(),
        confusion=confusion(images, class_names, overall) if overall is not None else None,
        calibration=coco.calibration(),
        slices=coco.slices(images, parts),
        image_list=_image_list(images, found, kept),
        label_suspects=doubted,
        masks={
            name.lower(): number(of_masks[f"coco_segm/{name}"]) for name in ("AP", "AP50", "AP75")
        }
        if of_masks
        else None,
        step=step,
    )


def _of_class(
    label: int,
    name: str,
    coco: CocoEvaluation,
    found: Outcomes,
    threshold: thresholds.Thresholds,
    of_masks: Mapping[str, float],
) -> OfClass:
    objects = found.objects[:, label]
    return {
        "class": name,
        "images": int((objects > 0).sum()),
        "objects": int(objects.sum()),
        "ap": coco.ap(label),
        "ap50": coco.ap(label, iou=0),
        "ap75": coco.ap(label, iou=5),
        "mask_ap": number(of_masks[f"coco_segm/AP/{name}"]) if of_masks else None,
        "threshold": threshold,
    }


def _image_list(
    images: Sequence[ScoredImage], found: Outcomes, kept: np.ndarray
) -> list[dict[str, Any]]:
    """Every image with what is right and wrong in it at the thresholds, worst F1 first.

    Of images alike in F1, that with more errors comes first. F1 is 1 where nothing is to be found and
    nothing is.
    """
    above = found.scores >= kept[found.labels]
    right = np.bincount(found.images[above & found.right], minlength=len(images))
    wrong = np.bincount(found.images[above & ~found.right], minlength=len(images))
    objects = found.objects.sum(1)
    missed = objects - right
    total = 2 * right + wrong + missed
    f1 = np.divide(2 * right, total, out=np.ones(len(images)), where=total > 0)
    return [
        {
            "id": images[i].id,
            "file": images[i].file,
            "objects": int(objects[i]),
            "true_positives": int(right[i]),
            "false_positives": int(wrong[i]),
            "missed": int(missed[i]),
            "f1": float(f1[i]),
        }
        for i in np.lexsort((-(wrong + missed), f1))
    ]


def _masks(images: Sequence[ScoredImage], class_names: Sequence[str]) -> Mapping[str, float]:
    """Metrics of masks, by ``CocoEvaluator``; empty where an object or detection has none."""
    some = False
    for image in images:
        for masks, rows in (
            (image.ground_truth.masks, image.ground_truth.labels),
            (image.found.masks, image.found.scores),
        ):
            if len(rows) and masks is None:
                return {}
            some |= bool(len(rows))
    if not some:
        return {}
    evaluator = CocoEvaluator(class_names, iou_type="segm")
    for image in images:
        ground_truth = image.ground_truth
        whole = Example(
            id=image.name,
            image="",
            boxes=np.zeros((0, 4), np.float32),
            labels=np.zeros(0, np.int32),
            ignore=np.zeros(0, bool),
            areas=np.zeros(0, np.float32),
            official=ground_truth,
        )
        evaluator.add(image.found, whole)
    return evaluator.result()
