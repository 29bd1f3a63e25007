"""THE table: from the names in a config to the classes of jdet.

``{"name": "root_resnet", "depth": 34}`` becomes ``ResNet(depth=34)``: ``name`` picks the row, every
other key is a field of the class. ``"my_package.my_module:MyClass"`` is taken as well, so a class of
your own needs no registration.
"""

from __future__ import annotations

import functools
import importlib
from collections.abc import Callable
from typing import Any

from jdet.backbones.dsod import DSOD
from jdet.backbones.hybrid import Hybrid
from jdet.backbones.resnet import ResNet
from jdet.backbones.vgg import VGG16
from jdet.config import nearest
from jdet.data.layouts.cvat import CvatSource
from jdet.data.layouts.dota import DotaSource
from jdet.data.layouts.labelme import LabelMeSource
from jdet.data.layouts.open_images import OpenImagesSource
from jdet.data.layouts.tables import CsvSource
from jdet.data.layouts.unlabelled import ImagesSource
from jdet.data.layouts.via import ViaSource
from jdet.data.layouts.yolo import YoloSource
from jdet.data.sources.coco import CocoSource
from jdet.data.sources.shapes import ShapesSource
from jdet.data.sources.tfds import TfdsSource
from jdet.data.sources.voc import VocSource
from jdet.data.transforms.augment import Augment
from jdet.data.transforms.detr import DETRAugment
from jdet.data.transforms.fit_crop import FitCrop
from jdet.data.transforms.intensity_augment import IntensityAugment
from jdet.data.transforms.keep_ratio import KeepRatio
from jdet.data.transforms.large_scale_jitter import LargeScaleJitter
from jdet.data.transforms.ssd import SSDAugment
from jdet.data.transforms.warp import Warp
from jdet.detectors.atss import ATSS
from jdet.detectors.fcos import FCOS
from jdet.detectors.mask_head import MaskHead
from jdet.detectors.mask_rcnn import MaskRCNN
from jdet.detectors.rcnn import RCNN
from jdet.detectors.reppoints import RepPointsV2
from jdet.detectors.retinanet import RetinaNet
from jdet.detectors.roi_heads import BoxHead
from jdet.detectors.rpn import RPN
from jdet.detectors.sparse_rcnn import SparseRCNN
from jdet.detectors.ssd import SSD
from jdet.evaluation.coco_ap import CocoEvaluator, CocoInstancesEvaluator
from jdet.evaluation.voc_ap import VocEvaluator
from jdet.necks.bifpn import BiFPN
from jdet.necks.dense_half import DenseHalf
from jdet.necks.dense_prediction import DensePrediction
from jdet.necks.fpn import FPN
from jdet.necks.ssd_extras import BottleneckExtras, ResidualExtras, SSDExtras
from jdet.types import ConfigError

HYBRIDS = {
    "swin_t": ("T2-T2-T6-T2", 96, 0.2),
    "swin_s": ("T2-T2-T18-T2", 96, 0.2),
    "swin_b": ("T2-T2-T18-T2", 128, 0.3),
    "swin_l": ("T2-T2-T18-T2", 192, 0.3),
    "c2c2t6t2": ("C2-C2-T6-T2", 96, 0.2),
    "c2c2t12t4": ("C2-C2-T12-T4", 96, 0.2),
    "c2t2t8t3": ("C2-T2-T8-T3", 96, 0.2),
    "c2c2c14t5": ("C2-C2-C14-T5", 96, 0.2),
    "c2c2c16c6": ("C2-C2-C16-C6", 96, 0.2),
    "c2c2t36t4": ("C2-C2-T36-T4", 96, 0.2),
    "c2c2t36t4_128": ("C2-C2-T36-T4", 128, 0.3),
    "c2c2t36t4_192": ("C2-C2-T36-T4", 192, 0.3),
}
"""Pattern, width of stage 1 and drop-path of the named rows of ``Hybrid``: Swin (Liu et al. 2021, Table 7)
and the patterns of "Training Object Detectors from Scratch" (2022), of which the wide ones drop more."""

CASCADE: dict[str, Any] = {
    "stage_ious": (0.5, 0.6, 0.7),
    "stage_weights": (1.0, 0.5, 0.25),
    "center_stds": (0.1, 0.05, 0.033),
    "size_stds": (0.2, 0.1, 0.067),
    "box_loss": "smooth_l1",
}
"""The three stages of Cascade R-CNN (Cai & Vasconcelos 2018; MMDetection)."""

TABLE: dict[str, dict[str, Callable[..., Any]]] = {
    "backbone": {
        "vgg16": VGG16,
        "resnet": functools.partial(ResNet, root=0, stem_stride=2, pool=3),
        "root_resnet": ResNet,
        "dsod": DSOD,
        "hybrid": Hybrid,
        **{
            name: functools.partial(Hybrid, spec=spec, channels=channels, drop_path=drop_path)
            for name, (spec, channels, drop_path) in HYBRIDS.items()
        },
        "swin_t_dsod": functools.partial(
            Hybrid, spec=HYBRIDS["swin_t"][0], stem="dsod", dense_links=True
        ),
    },
    "neck": {
        "ssd_extras": SSDExtras,
        "residual_extras": ResidualExtras,
        "bottleneck_extras": BottleneckExtras,
        "dense_prediction": DensePrediction,
        "fpn": FPN,
        "dense_half": DenseHalf,
        "bifpn": BiFPN,
    },
    "rpn": {
        "rpn": RPN,
        "cascade_rpn": functools.partial(
            RPN, border=0.0, box_loss="smooth_l1", proposals_train=2000
        ),
        "torchvision_rpn": functools.partial(
            RPN,
            torchvision_anchors=True,
            padding_anchors=True,
            low_quality="anchor",
            min_pos_iou=0.0,
            box_loss="smooth_l1",
            proposals_train=2000,
            clamp_below=False,
            min_side=1e-3,
        ),
    },
    "box_head": {
        "2fc": BoxHead,
        "4conv1fc": functools.partial(BoxHead, convs=4, fcs=1),
    },
    "mask_head": {"fcn": MaskHead},
    "detector": {
        "ssd": SSD,
        "retinanet": RetinaNet,
        "fcos": FCOS,
        "atss": ATSS,
        "reppoints_v2": RepPointsV2,
        "swin_reppoints_v2": functools.partial(
            RepPointsV2,
            cls_loss="quality",
            box_loss="giou",
            giou_extent=1.0,
            initial_weight=1.0,
            box_weight=2.0,
        ),
        "faster_rcnn": RCNN,
        "cascade_rcnn": functools.partial(RCNN, **CASCADE),
        "mask_rcnn": functools.partial(MaskRCNN, low_quality="object"),
        "cascade_mask_rcnn": functools.partial(MaskRCNN, **CASCADE),
        "sparse_rcnn": SparseRCNN,
    },
    "source": {
        "voc": VocSource,
        "coco": CocoSource,
        "yolo": YoloSource,
        "cvat": CvatSource,
        "labelme": LabelMeSource,
        "via": ViaSource,
        "open_images": OpenImagesSource,
        "csv": CsvSource,
        "dota": DotaSource,
        "images": ImagesSource,
        "tfds": TfdsSource,
        "shapes": ShapesSource,
    },
    "resize": {"warp": Warp, "keep_ratio": KeepRatio, "fit_crop": FitCrop},
    "augment": {
        "ssd": SSDAugment,
        "intensity": IntensityAugment,
        "detr": DETRAugment,
        "lsj": LargeScaleJitter,
        "none": Augment,
    },
    "evaluator": {
        "voc": VocEvaluator,
        "coco": CocoEvaluator,
        "coco_segm": functools.partial(CocoEvaluator, iou_type="segm"),
        "coco_bbox_segm": CocoInstancesEvaluator,
    },
}


def resolve(kind: str, name: str) -> Callable[..., Any]:
    """The class (or partial of it) behind a name.

    Raises:
        ConfigError: no such name; the message lists what exists and the nearest.
    """
    table = TABLE.get(kind, {})  # a part of a detector may be of a kind of its own
    if name in table:
        return table[name]
    if ":" in name:
        module, _, attribute = name.partition(":")
        try:
            return getattr(importlib.import_module(module), attribute)
        except (ImportError, AttributeError) as error:
            raise ConfigError(
                f"{kind} {name!r} cannot be imported: {error}; its module must lie beside the experiment "
                "or in a folder on PYTHONPATH"
            ) from error
    there = f"there are {', '.join(sorted(table))}, or" if table else "there are none of jdet's;"
    raise ConfigError(
        f"{kind} {name!r} does not exist{nearest(name, table)}; {there} give your own as 'module:Class'"
    )
