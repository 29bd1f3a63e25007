"""Curves of real runs from random weights: AP at IoU 0.5 of the evaluation set over the share of the run.

All are of docs/results.md, or of the runs that it describes: learning rates that fall to nothing or nearly
so, by half a cosine or in steps, on two CPU cores or an accelerator. What was evaluated is VOC07's mAP or
COCO's AP50, which are a few points apart. The last evaluation of a curve is that of its last step.
"""

from __future__ import annotations

from typing import NamedTuple


class Recorded(NamedTuple):
    """One run.

    Attributes:
        set: of the images; curves of one set are left out together.
        what: run and metric.
        curve: share of the steps and AP of each evaluation, the last at 1.
    """

    set: str
    what: str
    curve: tuple[tuple[float, float], ...]


def _quarters(*values: float) -> tuple[tuple[float, float], ...]:
    """Evaluations at equal distances, the last at the end."""
    return tuple(((i + 1) / len(values), value) for i, value in enumerate(values))


RECORDED = (
    Recorded("BCCD", "scratchdet_bccd:cpu, mAP", _quarters(0.855, 0.868, 0.870, 0.873)),
    Recorded("BCCD", "scratchdet_bccd, mAP", _quarters(0.864, 0.877, 0.878, 0.876)),
    Recorded(
        "BCCD",
        "scratchdet_custom:cpu, 96 pixels, 200 steps of 4, AP50",
        _quarters(0.0, 0.004, 0.078, 0.076, 0.111, 0.117, 0.131, 0.177, 0.196, 0.204),
    ),
    Recorded("DeepPCB", "scratchdet_deeppcb, mAP", _quarters(0.166, 0.530, 0.759, 0.798)),
    Recorded("DeepPCB", "scratchdet_deeppcb:cpu, AP50", _quarters(0.600, 0.812, 0.855, 0.865)),
    Recorded("DeepPCB", "RetinaNet, AP50", _quarters(0.607, 0.773, 0.819, 0.826)),
    Recorded("DeepPCB", "FCOS, AP50", _quarters(0.559, 0.759, 0.805, 0.816)),
    Recorded("DeepPCB", "ATSS, AP50", _quarters(0.551, 0.763, 0.812, 0.822)),
    Recorded("DeepPCB", "sixteen_bits, seed 0, AP50", _quarters(0.356, 0.689, 0.781, 0.807)),
    Recorded("DeepPCB", "sixteen_bits, seed 1, AP50", _quarters(0.439, 0.719, 0.794, 0.818)),
    Recorded("shapes", "quickstart, mAP", _quarters(0.368, 0.797, 0.880, 0.892)),
    Recorded("shapes", "quickstart, 128 pixels, mAP", _quarters(0.255, 0.643, 0.849, 0.869)),
    Recorded(
        "Open Images", "scratchdet_openimages5, mAP", ((0.5, 0.042), (0.75, 0.055), (1, 0.088))
    ),
    Recorded("worms", "both channels, seed 0, AP50", _quarters(0.382, 0.526)),
    Recorded("worms", "both channels, seed 1, AP50", _quarters(0.400, 0.545)),
    Recorded("worms", "w1, seed 0, AP50", _quarters(0.272, 0.338)),
    Recorded("worms", "w1, seed 1, AP50", _quarters(0.229, 0.323)),
    Recorded("worms", "w1 by its high byte, seed 0, AP50", _quarters(0.249, 0.301)),
    Recorded("worms", "w1 by its high byte, seed 1, AP50", _quarters(0.254, 0.310)),
    Recorded("worms", "w2, seed 0, AP50", _quarters(0.217, 0.343)),
    Recorded("worms", "w2, seed 1, AP50", _quarters(0.331, 0.520)),
    Recorded("cells", "AP50", _quarters(0.351, 0.401)),
    Recorded("embryos", "AP50", _quarters(0.529, 0.526)),
    Recorded("axons", "AP50", _quarters(0.717, 0.752)),
    Recorded("ships", "five bands, seed 0, AP50", _quarters(0.067, 0.072)),
    Recorded("ships", "five bands, seed 1, AP50", _quarters(0.066, 0.090)),
    Recorded("ships", "visible bands, seed 0, AP50", _quarters(0.046, 0.072)),
    Recorded("ships", "visible bands, seed 1, AP50", _quarters(0.040, 0.067)),
)
