"""SSD with Root-ResNet-18 or VGG-16 in plain PyTorch: layer for layer the networks of the experiments.

Images are uint8 [B, 3, H, W] (channels last in memory), default boxes float32 [A, 4], cx cy w h in
pixels, ground truth x1 y1 x2 y2 in pixels, labels 0 … K-1; background is logit 0.
"""

import functools
import itertools
import math

import torch
import torch.nn.functional as F
from torch import nn

MEAN = (123.0, 117.0, 104.0)
CENTRE, SIZE = 0.1, 0.2  # variances of the box coding
IOU, NEGATIVES = 0.5, 3
SCORE, NMS, TOP, KEEP = 0.01, 0.45, 400, 200


def plain_conv(inputs, outputs, size, norm, **settings):
    """A convolution with bias, or one without and a BatchNorm."""
    conv = nn.Conv2d(inputs, outputs, size, bias=not norm, **settings)
    bound = math.sqrt(3 / (inputs * size * size))
    nn.init.uniform_(conv.weight, -bound, bound)
    if norm:
        return [conv, nn.BatchNorm2d(outputs)]
    nn.init.zeros_(conv.bias)
    return [conv]


def unit(inputs, outputs, size=3, norm=True, **settings):
    """Convolution, norm, ReLU; of the same size unless the settings say otherwise."""
    settings.setdefault("padding", size // 2)
    layers = plain_conv(inputs, outputs, size, norm, **settings)
    return nn.Sequential(*layers, nn.ReLU(inplace=True))


class Residual(nn.Module):
    """Basic block, post-activation."""

    def __init__(self, inputs, outputs, stride):
        super().__init__()
        second = plain_conv(outputs, outputs, 3, True, padding=1)
        self.body = nn.Sequential(unit(inputs, outputs, stride=stride), *second)
        self.shortcut = nn.Identity()
        if stride > 1 or inputs != outputs:
            self.shortcut = nn.Sequential(*plain_conv(inputs, outputs, 1, True, stride=stride))

    def forward(self, x):
        """Map to map."""
        return F.relu(self.body(x) + self.shortcut(x), inplace=True)


class RootResNet18(nn.Module):
    """Three 3×3 convolutions at full resolution, a 2×2 pool, four stages of two blocks."""

    channels, norm, l2norm = (256, 512), True, False

    def __init__(self):
        super().__init__()
        root = [unit(3, 64), unit(64, 64), unit(64, 64), nn.MaxPool2d(2, 2, ceil_mode=True)]
        widths, stages = (64, 64, 128, 256, 512), []
        for stage, (inputs, outputs) in enumerate(itertools.pairwise(widths)):
            first = Residual(inputs, outputs, 2 if stage else 1)
            stages.append(nn.Sequential(first, Residual(outputs, outputs, 1)))
        self.lower, self.upper = nn.Sequential(*root, *stages[:3]), stages[3]

    def forward(self, x):
        """Images to maps of stride 8 and 16."""
        fine = self.lower(x)
        return [fine, self.upper(fine)]


class Vgg16(nn.Module):
    """VGG-16 to conv4_3, and on to fc7 with the dilated fc6."""

    channels, norm, l2norm = (512, 1024), False, True

    def __init__(self):
        super().__init__()
        pool = functools.partial(nn.MaxPool2d, 2, 2, ceil_mode=True)
        lower, upper, inputs = [], [pool()], 3
        for i, (outputs, depth) in enumerate(((64, 2), (128, 2), (256, 3), (512, 3), (512, 3))):
            lower += [pool()] if 0 < i < 4 else []
            for _ in range(depth):
                (lower if i < 4 else upper).append(unit(inputs, outputs, norm=False))
                inputs = outputs
        upper += [nn.MaxPool2d(3, 1, 1), unit(512, 1024, norm=False, padding=6, dilation=6)]
        self.lower = nn.Sequential(*lower)
        self.upper = nn.Sequential(*upper, unit(1024, 1024, 1, norm=False))

    def forward(self, x):
        """Images to maps of stride 8 and 16."""
        fine = self.lower(x)
        return [fine, self.upper(fine)]


class L2Norm(nn.Module):
    """Channel vectors of learned length, 20 at first."""

    def __init__(self, channels):
        super().__init__()
        self.scale = nn.Parameter(torch.full((channels, 1, 1), 20.0))

    def forward(self, x):
        """Map to map."""
        return (F.normalize(x.float(), eps=1e-5) * self.scale).to(x.dtype)


BACKBONES = {"root_resnet18": RootResNet18, "ssd300_vgg16": Vgg16}


class SSD(nn.Module):
    """Backbone, extra levels, predictions.

    Args:
        name: of ``BACKBONES``.
        classes: K.
        cells: cells a side of each level.
        per_cell: default boxes of a cell of each level.
    """

    def __init__(self, name, classes, cells, per_cell):
        super().__init__()
        self.backbone = BACKBONES[name]()
        self.logits = classes + 1
        channels, norm = list(self.backbone.channels), self.backbone.norm
        self.l2norm = L2Norm(channels[0]) if self.backbone.l2norm else nn.Identity()
        extras = []
        for below in cells[1:-1]:
            outputs = 256 if extras else 512
            shape = dict(size=3, stride=2, padding=1)
            if below in (5, 3):
                shape |= dict(stride=1, padding=0)
            elif below == 2:
                shape |= dict(size=4, stride=1)
            narrow = unit(channels[-1], outputs // 2, 1, norm)
            extras.append(nn.Sequential(narrow, unit(outputs // 2, outputs, norm=norm, **shape)))
            channels.append(outputs)
        self.extras = nn.ModuleList(extras)

        def head(numbers):
            return nn.ModuleList(
                nn.Sequential(*plain_conv(inputs, count * numbers, 3, norm, padding=1))
                for inputs, count in zip(channels, per_cell, strict=True)
            )

        self.boxes, self.scores = head(4), head(self.logits)
        self.register_buffer("mean", torch.tensor(MEAN).reshape(1, 3, 1, 1))

    def forward(self, images):
        """Offsets [B, A, 4] and logits [B, A, K + 1], float32."""
        levels = self.backbone(images.float() - self.mean)
        for extra in self.extras:
            levels.append(extra(levels[-1]))
        levels[0] = self.l2norm(levels[0])

        def predict(head, numbers):
            maps = [layer(x).permute(0, 2, 3, 1) for layer, x in zip(head, levels)]
            return torch.cat([x.reshape(len(images), -1, numbers) for x in maps], 1).float()

        return predict(self.boxes, 4), predict(self.scores, self.logits)


def corners(boxes):
    """Cx cy w h to x1 y1 x2 y2."""
    centre, half = boxes[..., :2], boxes[..., 2:] / 2
    return torch.cat([centre - half, centre + half], -1)


def area(boxes):
    return (boxes[..., 2:] - boxes[..., :2]).clamp(min=0).prod(-1)


def overlaps(a, b):
    """IoU of boxes [..., N, 4] and [M, 4]."""
    low = torch.maximum(a[..., None, :2], b[:, :2])
    high = torch.minimum(a[..., None, 2:], b[:, 2:])
    common = (high - low).clamp(min=0).prod(-1)
    return common / (area(a)[..., None] + area(b) - common).clamp(min=1e-9)


def loss(offsets, logits, priors, ground_truth, labels):
    """SSD's loss; ``ground_truth`` [B, N, 4] and ``labels`` [B, N] hold objects only."""
    iou = overlaps(ground_truth, corners(priors))
    # The best default box of an object is matched to it, whatever its overlap with other objects.
    iou = iou.scatter(2, iou.argmax(2, keepdim=True), 2.0)
    best, index = iou.max(1)
    matched = best >= IOU
    mine = ground_truth.gather(1, index[..., None].expand(-1, -1, 4))
    shift = ((mine[..., :2] + mine[..., 2:]) / 2 - priors[:, :2]) / priors[:, 2:] / CENTRE
    scale = ((mine[..., 2:] - mine[..., :2]) / priors[:, 2:]).log() / SIZE
    target = torch.cat([shift, scale], -1)
    box_loss = F.smooth_l1_loss(offsets, target, reduction="none").sum(-1)
    classes = torch.where(matched, labels.gather(1, index) + 1, 0)
    class_loss = F.cross_entropy(logits.transpose(1, 2), classes, reduction="none")
    hardness = class_loss.detach().masked_fill(matched, 0)
    rank = hardness.argsort(1, descending=True).argsort(1)
    used = matched | (rank < NEGATIVES * matched.sum(1, keepdim=True))
    return ((box_loss * matched).sum() + (class_loss * used).sum()) / matched.sum()


def greedy(boxes, scores, classes, threshold):
    """Class-wise NMS where torchvision has none: rows of the best ``KEEP``."""
    shifted = boxes + classes[:, None] * (boxes.max() - boxes.min() + 1)
    order, kept = scores.argsort(descending=True), []
    while len(order) and len(kept) < KEEP:
        kept.append(order[0])
        overlap = overlaps(shifted[order[:1]], shifted[order[1:]])[0]
        order = order[1:][overlap <= threshold]
    return torch.stack(kept) if kept else order


def detect(offsets, logits, priors, nms):
    """Boxes, scores and labels of each image."""
    centre = priors[:, :2] + offsets[..., :2] * CENTRE * priors[:, 2:]
    boxes = corners(torch.cat([centre, priors[:, 2:] * (offsets[..., 2:] * SIZE).exp()], -1))
    scores, rows = logits.softmax(-1)[..., 1:].topk(min(TOP, logits.shape[1]), 1)
    found = []
    for box, score, row in zip(boxes, scores, rows):
        chosen = score > SCORE
        candidates, label = box[row[chosen]], chosen.nonzero()[:, 1]
        kept = nms(candidates, score[chosen], label, NMS)[:KEEP]
        found.append((candidates[kept], score[chosen][kept], label[kept]))
    return found
