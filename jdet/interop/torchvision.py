"""Loads weights of torchvision's backbones, pyramid and detectors into jdet, to compare the two.

With torch installed, save the state dict of a model as arrays::

    model = torchvision.models.detection.retinanet_resnet50_fpn(weights=None, weights_backbone=None)
    numpy.savez("retinanet.npz", **{k: v.numpy() for k, v in model.state_dict().items()})

jdet reads them without torch::

    variables = detector.init(jax.random.key(0), images, image_sizes, method="detect")
    variables = from_torchvision(variables, load("retinanet.npz"))

That model is ``build.group("detector", "retinanet", head_norm="none", torchvision_anchors=True, …)`` on
backbone ``resnet`` of depth 50 and neck ``fpn`` with ``extra="conv_p5", extra_relu=True``;
``fcos_resnet50_fpn`` is ``"fcos"`` with ``head_norm="group"`` on the same. The docstrings of the classes
list the settings of torchvision's losses and detections. torchvision counts COCO's 91 category ids as
classes; logits keep that order.

``fasterrcnn_resnet50_fpn`` is ``"faster_rcnn"`` with neck ``fpn`` of ``extra="pool"``, ``rpn``
``"torchvision_rpn"``, ``box_head`` ``"2fc"`` and ``head_norm="none"``; ``maskrcnn_resnet50_fpn`` is
``"mask_rcnn"`` with ``mask_head`` ``"fcn"`` on top. There torchvision has boxes and masks of the
background too, which are left out.

``swin_t``, ``swin_s`` and ``swin_b`` are the backbones of these names. The classifier has a norm after the
last stage alone; the output norms of the others get scale 1 and shift 0.
"""

from __future__ import annotations

import difflib
import os
import re
import zipfile
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jdet.types import ConfigError

LEAVES = {
    "kernel": "weight",
    "scale": "weight",
    "bias": "bias",
    "mean": "running_mean",
    "var": "running_var",
}
"""Names of parameters and statistics in jdet and in torch."""

UNUSED = re.compile(r"(fc\..*|head\.(weight|bias)|.*num_batches_tracked|.*relative_position_index)")
"""Entries of a state dict that a detector does not need."""

ADDED = re.compile(r"(backbone/)?norm_c[234]/(scale|bias)")
"""Variables of a Swin in a detector that the classifier lacks."""


def load(path: str | os.PathLike[str]) -> dict[str, np.ndarray]:
    """Reads a state dict from an .npz file: arrays by torch's names.

    Raises:
        ConfigError: the file does not exist, or is not an .npz of plain arrays.
    """
    try:
        with np.load(path) as arrays:
            return dict(arrays)
    except FileNotFoundError:
        raise ConfigError(
            f"{path} does not exist; save a state dict there by numpy.savez"
        ) from None
    except (ValueError, OSError, zipfile.BadZipFile, AttributeError, TypeError) as error:
        raise ConfigError(f"{path} is no .npz of plain arrays: {error}") from error


def from_torchvision(
    variables: Mapping[str, Any], weights: Mapping[str, np.ndarray]
) -> dict[str, Any]:
    """The variables of a module with torchvision's values.

    Args:
        variables: of a ``RetinaNet``, ``FCOS``, ``RCNN`` or ``MaskRCNN``, or of a ``ResNet``, ``FPN`` or
            Swin (``Hybrid``) alone, as ``init`` makes them; arrays or their shapes.
        weights: a state dict as numpy arrays, by torchvision's names: of the whole detector, of its
            backbone with the pyramid, or of the part alone.

    Returns:
        A tree like ``variables``, float32.

    Raises:
        ConfigError: a variable has no counterpart or one of another shape, such as a first layer for other
            channels than red, green and blue, or the state dict has entries
            that the module lacks.
    """
    leaves, structure = jax.tree_util.tree_flatten_with_path(variables)
    paths = ["/".join(str(key.key) for key in path[1:]) for path, _ in leaves]
    taps = sorted({m[1] for path in paths if (m := re.search(r"lateral_(c\d+)/", path))})
    used, values = set(), []
    for path, (_, leaf) in zip(paths, leaves):
        if ADDED.fullmatch(path):
            values.append(jnp.full(leaf.shape, float(path.endswith("scale")), jnp.float32))
            continue
        name = _find(path, taps, weights)
        value = np.asarray(weights[name], np.float32)
        value = _in_order(path, value)
        if value.ndim == 4 and value.shape[2] == 3 != leaf.shape[2]:
            if (*value.shape[:2], *value.shape[3:]) == (*leaf.shape[:2], *leaf.shape[3:]):
                raise ConfigError(
                    f"{name} of the state dict is for RGB, {path} for {leaf.shape[2]} channels, and "
                    "nothing says what a weight of red means for them: compare with a model of "
                    "config.data.image.channels='rgb'"
                )
        if value.shape != leaf.shape:
            raise ConfigError(
                f"{name} of the state dict has shape {value.shape} in jdet's order, {path} has "
                f"{leaf.shape}; the two models differ"
            )
        used.add(name)
        values.append(jnp.asarray(value))
    left = [name for name in weights if name not in used and not UNUSED.fullmatch(name)]
    if left:
        raise ConfigError(
            f"the module has no place for {len(left)} arrays of the state dict, {left[0]!r} first; it "
            "is another model"
        )
    return jax.tree_util.tree_unflatten(structure, values)


def _in_order(path: str, value: np.ndarray) -> np.ndarray:
    """An array of torch's with its axes and entries as the variable of a path has them."""
    if re.match("box_head/box/|mask_head/mask/", path):  # of the background first
        value = value[4 if path.startswith("box") else 1 :]
    if path == "mask_head/mask/kernel":
        value = value[:, :, 0, 0]
    if path == "box_head/fc1/kernel":  # RoIs of 7×7 cells, channels first
        value = value.reshape(len(value), -1, 7, 7).transpose(0, 2, 3, 1).reshape(value.shape)
    if path == "mask_head/deconv/kernel":
        return value.transpose(2, 3, 0, 1)  # IOHW to HWIO
    if value.ndim == 4:
        return value.transpose(2, 3, 1, 0)  # OIHW to HWIO
    return value.T if path.endswith("kernel") else value


def _find(path: str, taps: list[str], weights: Mapping[str, np.ndarray]) -> str:
    """The state dict's name for a path."""
    names = _translate(path, taps)
    if not names:
        raise ConfigError(f"torchvision has no counterpart of {path}; leave it out of the model")
    for name in names:
        if name in weights:
            return name
    near = difflib.get_close_matches(names[0], list(weights), 1)
    raise ConfigError(
        f"the state dict has no {names[0]!r}, which is {path}"
        + (f"; the nearest is {near[0]!r}" if near else "")
    )


def _translate(path: str, taps: list[str]) -> list[str]:
    """Torchvision's names for a path: of the part alone, or within the module that contains it."""
    path = re.sub("^(backbone|neck|head)/", "", path)
    layer, _, leaf = path.rpartition("/")
    leaf = LEAVES.get(leaf, leaf)

    def within(prefixes: tuple[str, ...], *names: str) -> list[str]:
        return [f"{prefix}{name}.{leaf}" for prefix in prefixes for name in names]

    body, pyramid = ("backbone.body.", "body.", ""), ("backbone.fpn.", "fpn.", "")
    branches = {"cls": "classification_head", "box": "regression_head"}
    if match := re.fullmatch(r"stem/conv1/(conv|norm)", layer):
        return within(body, "conv1" if match[1] == "conv" else "bn1")
    if match := re.fullmatch(r"stage(\d)_block(\d+)/conv(\d)/(conv|norm)", layer):
        kind = "conv" if match[4] == "conv" else "bn"
        return within(body, f"layer{match[1]}.{int(match[2]) - 1}.{kind}{match[3]}")
    if match := re.fullmatch(r"stage(\d)_block(\d+)/projection/(conv|norm)", layer):
        part = int(match[3] == "norm")
        return within(body, f"layer{match[1]}.{int(match[2]) - 1}.downsample.{part}")
    if swin := _translate_swin(layer, leaf):
        return [f"{prefix}{swin}" for prefix in body]
    if match := re.fullmatch(r"(lateral|output)_(c\d+)/(conv|norm)", layer):
        blocks = "inner_blocks" if match[1] == "lateral" else "layer_blocks"
        return within(pyramid, f"{blocks}.{taps.index(match[2])}.{int(match[3] == 'norm')}")
    if match := re.fullmatch(r"extra(\d)/conv", layer):
        return within(pyramid, f"extra_blocks.p{int(match[1]) + 5}")
    if match := re.fullmatch(r"(cls|box)_(conv|norm)(\d+)", layer):
        depth, part = int(match[3]) - 1, int(match[2] == "norm")
        # RetinaNet nests convolution, norm and ReLU; FCOS has them in one row.
        places = (f"conv.{depth}.{part}", f"conv.{3 * depth + part}")
        return within(("head.", ""), *(f"{branches[match[1]]}.{place}" for place in places))
    if layer in RCNN:
        return within(("",), RCNN[layer])
    if match := re.fullmatch(r"mask_head/conv(\d)", layer):
        return within(("",), f"roi_heads.mask_head.{int(match[1]) - 1}.0")
    last = {"cls": "cls_logits", "box": "bbox_reg", "centerness": "bbox_ctrness"}
    if layer in last:
        branch = branches["cls" if layer == "cls" else "box"]
        return within(("head.", ""), f"{branch}.{last[layer]}")
    return []


RCNN = {
    "rpn/conv1": "rpn.head.conv.0.0",
    "rpn/cls": "rpn.head.cls_logits",
    "rpn/box": "rpn.head.bbox_pred",
    "box_head/fc1": "roi_heads.box_head.fc6",
    "box_head/fc2": "roi_heads.box_head.fc7",
    "box_head/cls": "roi_heads.box_predictor.cls_score",
    "box_head/box": "roi_heads.box_predictor.bbox_pred",
    "mask_head/deconv": "roi_heads.mask_predictor.conv5_mask",
    "mask_head/mask": "roi_heads.mask_predictor.mask_fcn_logits",
}
"""Layers of two-stage detectors in jdet and in torchvision."""

SWIN = {
    "norm1": "norm1",
    "norm2": "norm2",
    "attention/qkv": "attn.qkv",
    "attention/proj": "attn.proj",
    "fc1": "mlp.0",
    "fc2": "mlp.3",
}
"""Layers of a Swin block in jdet and in torchvision."""


def _translate_swin(layer: str, leaf: str) -> str:
    """Torchvision's name in a Swin; "" where the layer is none of one."""
    if layer in ("stem/proj", "stem/norm"):
        return f"features.0.{0 if layer == 'stem/proj' else 2}.{leaf}"
    if layer == "norm_c5":
        return f"norm.{leaf}"
    if match := re.fullmatch(r"stage(\d)_merge/(norm|reduction)", layer):
        return f"features.{2 * int(match[1]) - 2}.{match[2]}.{leaf}"
    if not (match := re.fullmatch(r"stage(\d)_block(\d+)/(.*)", layer)):
        return ""
    block = f"features.{2 * int(match[1]) - 1}.{int(match[2]) - 1}"
    if match[3] == "attention" and leaf == "position_bias":
        return f"{block}.attn.relative_position_bias_table"
    return f"{block}.{SWIN[match[3]]}.{leaf}" if match[3] in SWIN else ""
