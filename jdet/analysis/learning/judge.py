"""Does the run learn, and if not, why not: from numbers to sentences.

What images and labels show by themselves is said at once. Everything else needs a symptom, that nothing is
found, and a cause that is on record beside it; the symptom alone is said at the last look. The thresholds
are far from what runs that learn have shown (docs/learning.md).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from jdet.analysis.learning.curve import Curve
from jdet.analysis.learning.evidence import Evidence
from jdet.analysis.learning.found import Found

NOTHING = 0.05
"""AP50 of all classes as one below which a network finds next to nothing."""

CHANCE = 3.0
"""Standard deviations from which something is no chance; edges are held to half of it."""

FLAT, CONTRADICTING, POOR = 0.5, 0.25, 0.2
"""Shares of images and of objects from which on images and labels are at fault, and the AP50 of all classes
as one below which objects out of reach are."""


class Settings(NamedTuple):
    """What remedies are told by.

    Attributes:
        lr: ``optimizer.lr``.
        side: ``input_size``, pixels.
        workdir: of the run.
        out_of_reach: what the detector warned of at the start, objects that no anchor reaches; "" without.
    """

    lr: float
    side: int
    workdir: str
    out_of_reach: str = ""


class Finding(NamedTuple):
    """One thing that keeps a run from learning.

    Attributes:
        cause: "images", "labels", "reach", "rate", "boxes", "classes" or "unknown".
        text: what was found, and what to do.
    """

    cause: str
    text: str


def judge(
    found: Found, evidence: Evidence, curve: Curve, settings: Settings, *, last: bool
) -> list[Finding]:
    """What keeps the run from learning; empty where it learns, or it is too early to tell.

    Args:
        found: in some training images.
        evidence: of the same images.
        curve: of the loss so far.
        settings: of the run.
        last: it is the last look: the symptom alone is worth a word.
    """
    certain = [*_images(evidence), *_labels(evidence, settings)]
    blind = found.agnostic < NOTHING and found.near < CHANCE
    causes = [
        *_reach(found, settings),
        *_rate(found, evidence, curve, settings, blind),
        *_boxes(found, evidence, settings, blind),
    ]
    if not (certain or causes):
        causes += _classes(found, evidence, settings)
    if not (certain or causes) and blind and last:
        causes = [
            Finding(
                "unknown",
                f"in {found.images} training images the detections are no nearer to the objects than to "
                f"those of other images (AP50 {found.agnostic:.3f}, all classes as one), and no cause is "
                "in sight: look at what the network is fed, python -m jdet.browse with the same --config, "
                f"and train longer if that is right, or with another rate than "
                f"--config.optimizer.lr={settings.lr:g}",
            )
        ]
    return [*certain, *causes]


def not_finite(settings: Settings) -> str:
    """What to do about a loss that was not finite."""
    return (
        f"the rate is too high, or single gradients are: {_calmer(settings)}. "
        "python -m jdet.analysis.lr_range with the same --config shows which rates the loss bears"
    )


def _calmer(settings: Settings) -> str:
    return f"set --config.optimizer.lr={settings.lr / 10:g} or --config.optimizer.clip_norm=1"


def _doctor(settings: Settings) -> str:
    return f"python -m jdet.doctor --run={settings.workdir} shows them"


def _images(evidence: Evidence) -> Iterator[Finding]:
    if evidence.flat >= FLAT:
        yield Finding(
            "images",
            f"{evidence.flat:.0%} of the training images looked at are constant as the network sees them, "
            "so that nothing can be found in them: take files that show something, all bits and bands of "
            "them (docs/images.md); python -m jdet.browse with the same --config shows what is fed",
        )


def _labels(evidence: Evidence, settings: Settings) -> Iterator[Finding]:
    if evidence.contradicting >= CONTRADICTING:
        yield Finding(
            "labels",
            f"{evidence.contradicting:.0%} of the objects looked at carry boxes of two classes, which "
            "contradict each other: keep the right one, or make them one class; "
            + _doctor(settings),
        )


def _reach(found: Found, settings: Settings) -> Iterator[Finding]:
    if settings.out_of_reach and found.agnostic < POOR:
        yield Finding("reach", f"objects are out of reach: {settings.out_of_reach}")


def _rate(
    found: Found, evidence: Evidence, curve: Curve, settings: Settings, blind: bool
) -> Iterator[Finding]:
    if curve.low and found.agnostic < POOR:
        yield Finding(
            "rate",
            f"the rate is too low: at most {min(curve.reach, 1):.1%} of what would change anything can "
            f"happen before the end; set --config.optimizer.lr={settings.lr * 100:g}, or let "
            "python -m jdet.analysis.lr_range with the same --config propose one",
        )
    elif curve.high and blind:
        yield Finding(
            "rate",
            f"the loss has risen to {max(curve.last, curve.most):.1f} times that of the first step and "
            f"nothing is found: the rate is too high, or single gradients are: {_calmer(settings)}",
        )
    elif found.same and blind and evidence.flat < FLAT:
        yield Finding(
            "rate",
            "the network gives every image the same detections: it has gone dead, as at too high a rate: "
            + _calmer(settings),
        )


def _boxes(found: Found, evidence: Evidence, settings: Settings, blind: bool) -> Iterator[Finding]:
    displaced = evidence.edges <= -CHANCE / 2 and found.agnostic < POOR
    if evidence.flat < FLAT and (displaced or (blind and evidence.edges < CHANCE / 2)):
        yield Finding(
            "boxes",
            "there is no more of an edge along the boxes than beside them "
            f"({evidence.edges:+.1f} standard errors): the labels belong to other images, another size or "
            "another order of corners; compare them with the images, "
            f"python -m jdet.browse with the same --config, and correct them ({_doctor(settings)})",
        )


def _classes(found: Found, evidence: Evidence, settings: Settings) -> Iterator[Finding]:
    if not evidence.alike < CHANCE or found.classes >= CHANCE:
        return
    confused = (
        f" (AP50 {found.ap:.2f}, all classes as one {found.agnostic:.2f})"
        if found.agnostic > 2 * NOTHING
        else ""
    )
    pixels = f"give them more pixels, --config.input_size={2 * settings.side}"
    if evidence.alike_fine >= 1.5 * CHANCE:
        text = f"objects of different classes look alike at this size, in the files they do not: {pixels}"
    else:
        text = (
            "objects of one class look no more alike than those of different ones: correct labels that "
            f"were mixed up ({_doctor(settings)}), or, if classes differ in details, {pixels}"
        )
    yield Finding("classes", f"classes are not told apart{confused}; {text}")
