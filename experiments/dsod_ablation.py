"""What makes DSOD work? Every row of its ablation.

    python -m jdet.main --config=experiments/dsod_ablation.py:row=9 --workdir=runs/dsod_row9
    python -m jdet.main --config=experiments/dsod_ablation.py:row=9,mini,root=BCCD --workdir=runs/row9_mini

Recipe and further arguments as in ``dsod_voc.py``. "trans." is the transition without pooling (a fourth
block); parameters include running statistics, as the paper counts.

    row   trans.  stem  backbone          head    parameters  reported mAP
    1     no      no    DS/32-12-16-0.5   plain    4,110,440  59.9
    2     yes     no    DS/32-12-16-0.5   plain    4,188,800  61.6
    3     yes     no    DS/32-12-16-1     plain    5,440,952  64.5
    4     yes     no    DS/32-64-16-1     plain    6,083,672  68.6
    5     yes     no    DS/64-64-16-1     plain    6,320,696  69.7
    6     yes     no    DS/64-192-48-1    plain   17,976,760  74.5
    7     yes     yes   DS/64-12-16-1     plain    5,748,376  70.7 (the paper prints 5.2M)
    8     yes     yes   DS/64-36-48-1     plain   12,521,304  76.0
    9     yes     yes   DS/64-192-48-1    plain   18,178,488  77.3
    10    yes     yes   DS/64-64-16-1     dense    5,872,280  73.6
    11    yes     yes   DS/64-192-48-1    dense   14,795,736  77.7
    12    as 11, after COCO (coco=RUN of dsod_coco.py)        81.7
    lite  yes     yes   DS/64-144-36-1    dense   10,600,800  76.7 with 10.4M; the real one is unpublished

Rows 7 to 9 count 64 channels for the stem where it has 128, as the published sizes do (``base=0``: the
wider transitions that the stem calls for).

Source: Shen et al. 2017, Tables 2 and 3
Paper: VOC07 mAP 59.9 (row 1), 61.6, 64.5, 68.6, 69.7, 74.5, 70.7, 76.0, 77.3 (row 9), 73.6, 77.7,
    81.7 (row 12)
Ours: not run by us
Cost: about 773 epochs of 16,551 images a row, 0.7 (row 1) to 15.7 (row 9) GMAC an image
"""

from experiments.common import pick
from experiments.common_dsod import DSOD_ARGUMENTS, dsod_on_voc
from jdet.config import parse_arg
from jdet.types import ConfigError

NO_STEM = dict(stem=False)
ROWS = {
    "1": ("32-12-16-0.5", "plain", NO_STEM | dict(blocks=(6, 8, 8))),
    "2": ("32-12-16-0.5", "plain", NO_STEM),
    "3": ("32-12-16-1", "plain", NO_STEM),
    "4": ("32-64-16-1", "plain", NO_STEM),
    "5": ("64-64-16-1", "plain", NO_STEM),
    "6": ("64-192-48-1", "plain", NO_STEM),
    "7": ("64-12-16-1", "plain", {}),
    "8": ("64-36-48-1", "plain", {}),
    "9": ("64-192-48-1", "plain", {}),
    "10": ("64-64-16-1", "dense", {}),
    "11": ("64-192-48-1", "dense", {}),
    "12": ("64-192-48-1", "dense", {}),
    "lite": ("64-144-36-1", "dense", {}),
}


def get_config(arg=""):
    arg = parse_arg(arg, row="11", base=64, **DSOD_ARGUMENTS)
    pick("row", arg.row, ROWS)
    if (arg.row == "12") != bool(arg.coco):
        raise ConfigError(
            f"row={arg.row} with coco={arg.coco!r}: row 12, and no other, starts from a run of "
            "dsod_coco.py: row=12,coco=runs/dsod_coco"
        )
    name, head, body = ROWS[arg.row]
    if arg.base != 64 and arg.row not in ("7", "8", "9"):
        raise ConfigError(f"row={arg.row} with base={arg.base}: base is for rows 7, 8 and 9")
    if arg.row in ("7", "8", "9"):
        body = dict(transition_base=arg.base)
    return dsod_on_voc(arg, name, head, body)
