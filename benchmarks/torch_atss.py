"""ATSS in PyTorch: torchvision's FCOS with square anchors and the assignment of Zhang et al. 2020.

The network is the same, and so are the focal, GIoU and centre-ness losses. torchvision has no ATSS; this
is the published rule, image by image, with the matrix of all anchors and objects.
"""

import types

import torch

SIDE, NEAREST, MARGIN = 8, 9, 0.01
STRIDES = (8, 16, 32, 64, 128)


def settings():
    """Arguments of torchvision's builder of FCOS."""
    from torchvision.models.detection.anchor_utils import AnchorGenerator

    sides = tuple((SIDE * stride,) for stride in STRIDES)
    return dict(anchor_generator=AnchorGenerator(sides, ((1.0,),) * len(STRIDES)))


def install(net):
    """Replaces the assignment of FCOS."""
    net.compute_loss = types.MethodType(compute_loss, net)


def compute_loss(self, targets, outputs, anchors, num_anchors_per_level):
    """Losses of a batch, as in ``torchvision.models.detection.FCOS``."""
    matched = [
        assign(image, target["boxes"], num_anchors_per_level)
        for image, target in zip(anchors, targets)
    ]
    return self.head.compute_loss(targets, outputs, anchors, matched)


def assign(anchors, boxes, per_level):
    """The object of every anchor, -1 for none.

    Args:
        anchors: float32 [A, 4], x1 y1 x2 y2, levels one after the other.
        boxes: float32 [N, 4].
        per_level: number of anchors of each level.
    """
    from torchvision.ops import box_iou

    if not len(boxes):
        return torch.full((len(anchors),), -1, device=anchors.device)
    centre = (anchors[:, :2] + anchors[:, 2:]) / 2
    middle = (boxes[:, :2] + boxes[:, 2:]) / 2
    iou, distance = box_iou(anchors, boxes), torch.cdist(centre, middle)  # [A, N]
    candidates, first = [], 0
    for count in per_level:
        near = distance[first : first + count].topk(min(NEAREST, count), dim=0, largest=False)
        candidates.append(first + near.indices)
        first += count
    candidates = torch.cat(candidates)  # [n, N]
    overlap = iou.gather(0, candidates)
    threshold = overlap.mean(0) + overlap.std(0)
    x, y = centre[candidates].unbind(-1)
    x1, y1, x2, y2 = boxes.unbind(-1)
    inside = torch.stack([x - x1, y - y1, x2 - x, y2 - y]).amin(0) > MARGIN
    positive = (overlap >= threshold) & inside
    claimed = torch.full_like(iou, -1.0).scatter(
        0, candidates, torch.where(positive, overlap, -1.0)
    )
    best, index = claimed.max(1)
    return torch.where(best >= 0, index, -1)
