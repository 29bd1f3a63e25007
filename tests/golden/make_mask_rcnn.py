"""Writes mask_rcnn_r50.npz from torchvision: losses, proposals and detections of two small images.

    python tests/golden/make_mask_rcnn.py tests/golden/mask_rcnn_r50.npz

Weights are drawn by their names, as in ``tests/interop/test_torchvision.py``. Norms use their running
statistics in training too. So many anchors and RoIs are sampled that all are taken, and all objects are 40
pixels wide and high, at whole pixels, so that bitmaps of 40² cells are their masks exactly.
"""

import sys
import zlib

import numpy as np
import torch
from torchvision.models.detection import maskrcnn_resnet50_fpn
from torchvision.models.detection.roi_heads import maskrcnn_inference

CLASSES, SIDE, SIZE = 5, 40, (96, 128)
CORNERS = np.array([[[10, 8], [60, 40], [75, 20]], [[30, 30], [4, 50], [0, 0]]])
LABELS = np.array([[0, 3, 4], [2, 1, 0]])
AXES = ((20, 20), (20, 12), (9, 20)), ((20, 16), (14, 20), (1, 1))
COUNTS = (3, 2)


def weight(name, shape):
    rng = np.random.default_rng(zlib.crc32(name.encode()))
    if len(shape) > 1:
        return rng.standard_normal(shape, np.float32) / np.float32(np.sqrt(np.prod(shape[1:])))
    if name.endswith(("weight", "running_var")):
        return rng.random(shape, np.float32) + np.float32(0.5)
    return rng.standard_normal(shape, np.float32) * np.float32(0.2)


def make_network():
    """The detector, and names and shapes of its weights."""
    net = maskrcnn_resnet50_fpn(
        weights=None,
        weights_backbone=None,
        num_classes=CLASSES + 1,
        min_size=SIZE[0],
        max_size=SIZE[1],
        _skip_resize=True,
        rpn_batch_size_per_image=8192,
        rpn_pre_nms_top_n_train=300,
        rpn_pre_nms_top_n_test=300,
        rpn_post_nms_top_n_train=60,
        rpn_post_nms_top_n_test=60,
        box_batch_size_per_image=512,
        box_detections_per_img=20,
    )
    state = net.state_dict()
    names = [name for name in state if not name.endswith("num_batches_tracked")]
    shapes = [tuple(state[name].shape) for name in names]
    for name, shape in zip(names, shapes):
        state[name] = torch.from_numpy(weight(name, shape))
    net.load_state_dict(state)
    filled = np.array([shape + (0,) * (4 - len(shape)) for shape in shapes], np.int16)
    return net, dict(names=np.array(names), shapes=filled)


def make_inputs():
    """Arrays of the file, and torchvision's images and targets."""
    rng = np.random.default_rng(0)
    noise = rng.integers(0, 64, (2, *SIZE, 3))
    blocks = np.kron(
        rng.integers(0, 192, (2, SIZE[0] // 8, SIZE[1] // 8, 3)), np.ones((1, 8, 8, 1), int)
    )
    images = (noise + blocks).astype(np.uint8)
    boxes = np.concatenate([CORNERS, CORNERS + SIDE], -1).astype(np.float32)
    y, x = np.mgrid[:SIDE, :SIDE] + 0.5 - SIDE / 2
    masks = np.array([[(x / a) ** 2 + (y / b) ** 2 < 1 for a, b in row] for row in AXES], np.uint8)
    targets = []
    for i, count in enumerate(COUNTS):
        whole = np.zeros((count, *SIZE), np.uint8)
        for j, (left, top) in enumerate(CORNERS[i, :count]):
            whole[j, top : top + SIDE, left : left + SIDE] = masks[i, j]
        target = dict(boxes=boxes[i, :count], labels=LABELS[i, :count] + 1, masks=whole)
        targets.append({key: torch.from_numpy(value) for key, value in target.items()})
    arrays = dict(images=images, boxes=boxes, labels=LABELS, count=np.array(COUNTS), masks=masks)
    return arrays, [torch.from_numpy(x).permute(2, 0, 1) / 255 for x in images], targets


@torch.no_grad()
def main():
    net, arrays = make_network()
    more, images, targets = make_inputs()
    arrays |= more
    net.train()
    for module in net.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.eval()
    arrays |= {name: loss.numpy() for name, loss in net(images, targets).items()}
    net.eval()
    seen = []
    net.rpn.register_forward_hook(lambda module, args, result: seen.append(result[0]))
    found = net(images)
    for i, one in enumerate(found):
        arrays |= {f"proposals{i}": seen[0][i].numpy(), f"scores{i}": one["scores"].numpy()}
        arrays |= {f"found_boxes{i}": one["boxes"].numpy()}
        arrays |= {f"found_labels{i}": one["labels"].numpy() - 1}
    heads = net.roi_heads
    features = net.backbone(net.transform(images)[0].tensors)
    rois = heads.mask_roi_pool(features, [one["boxes"] for one in found], [SIZE] * 2)
    logits = heads.mask_predictor(heads.mask_head(rois))
    probabilities = maskrcnn_inference(logits, [one["labels"] for one in found])
    arrays["found_masks"] = probabilities[0][:, 0].numpy()  # of the first image, before pasting
    np.savez_compressed(sys.argv[1], **arrays)
    print({key: value.shape or float(value) for key, value in arrays.items()})


if __name__ == "__main__":
    main()
