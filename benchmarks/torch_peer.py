"""The PyTorch side of a comparison; the benchmarks start it with ``--peer-python``.

    python -m benchmarks.torch_peer INPUTS.npz --model ssd300_vgg16 --work train --precision float32

INPUTS.npz holds jdet's inputs: images, boxes, labels, default boxes. One JSON line: the samples of the
training step, or of the network and of whole detections. Memory is channels-last, bfloat16 is autocast. If
torchvision can be imported, its ``ssd300_vgg16`` is used for that model at 300 pixels, unless ``--plain``
asks for the layers of ``benchmarks.torch_ssd``, and its NMS is used for all models. Dense and two-stage
detectors exist in torchvision only.
"""

import argparse
import json
from importlib.util import find_spec

import numpy as np
import torch

from benchmarks import clock, torch_atss, torch_ssd

try:
    if find_spec("tvcpu"):  # makes a CUDA build of torchvision load beside a CPU build of torch
        import tvcpu  # noqa: F401
    import torchvision
    from torchvision.ops import batched_nms
except (ImportError, RuntimeError, OSError):  # none, or one that does not fit this torch
    torchvision, batched_nms = None, torch_ssd.greedy

DENSE = ("retinanet_r50", "fcos_r50", "atss_r50")
TWO_STAGES = ("faster_rcnn_r50", "mask_rcnn_r50")
BUILDERS = {}
if torchvision:
    detection = torchvision.models.detection
    BUILDERS = {
        "ssd300_vgg16": detection.ssd300_vgg16,
        "retinanet_r50": detection.retinanet_resnet50_fpn,
        "fcos_r50": detection.fcos_resnet50_fpn,
        "atss_r50": detection.fcos_resnet50_fpn,
        "faster_rcnn_r50": detection.fasterrcnn_resnet50_fpn,
        "mask_rcnn_r50": detection.maskrcnn_resnet50_fpn,
    }


class Plain:
    """The networks of ``torch_ssd``."""

    def __init__(self, model, inputs, device, compiled):
        cells, per_cell = inputs["cells"].tolist(), inputs["per_cell"].tolist()
        net = torch_ssd.SSD(model, int(inputs["classes"]), cells, per_cell)
        self.net = net.to(device, memory_format=torch.channels_last)
        self.forward = torch.compile(self.net) if compiled else self.net
        self.objective = torch.compile(torch_ssd.loss) if compiled else torch_ssd.loss
        self.priors = torch.from_numpy(inputs["priors"]).to(device)
        # NHWC in memory is what torch calls channels_last.
        self.images = torch.from_numpy(inputs["images"]).to(device).permute(0, 3, 1, 2)
        objects = int(inputs["objects"])
        self.ground_truth = torch.from_numpy(inputs["boxes"][:, :objects]).to(device)
        self.labels = torch.from_numpy(inputs["labels"][:, :objects]).long().to(device)
        self.name = f"PyTorch {torch.__version__}"

    def network(self):
        """Offsets and logits."""
        return self.forward(self.images)

    def loss(self, autocast):
        """Of the batch, network included."""
        with autocast:
            outputs = self.network()
        return self.objective(*outputs, self.priors, self.ground_truth, self.labels)

    def detect(self):
        """Boxes, scores and labels of each image."""
        return torch_ssd.detect(*self.network(), self.priors, batched_nms)


def filled(boxes, size):
    """Masks [n, size, size] of objects that fill their boxes [n, 4], x1 y1 x2 y2 in pixels."""
    x1, y1, x2, y2 = (corner[:, None] for corner in boxes.unbind(1))
    centers = torch.arange(size, device=boxes.device) + 0.5
    rows, columns = (centers > y1) & (centers < y2), (centers > x1) & (centers < x2)
    return (rows[:, :, None] & columns[:, None]).to(torch.uint8)


def count_parameters(net, classes):
    """Without the boxes and masks of the background, which only torchvision predicts."""
    count = sum(p.numel() for p in net.parameters())
    if not hasattr(net, "roi_heads"):
        return count
    layers = [net.roi_heads.box_predictor.bbox_pred]
    if net.roi_heads.mask_predictor is not None:
        layers.append(net.roi_heads.mask_predictor.mask_fcn_logits)
    unused = sum(p.numel() for layer in layers for p in layer.parameters())
    return count - unused // (classes + 1)


class Torchvision:
    """torchvision's detectors, which normalise, match and sum their losses inside."""

    def __init__(self, model, inputs, device, compiled):
        size, classes = inputs["images"].shape[1], int(inputs["classes"])
        settings = dict(weights=None, weights_backbone=None)
        self.background = int(model not in DENSE)
        if model != "ssd300_vgg16":
            of_boxes = "box_" if model in TWO_STAGES else ""
            limits = dict(score_thresh=0.0, detections_per_img=100, nms_thresh=0.5)
            settings |= {of_boxes + name: value for name, value in limits.items()}
            # Images have their size already.
            settings |= dict(min_size=size, max_size=size, size_divisible=1, _skip_resize=True)
            if model == "atss_r50":
                settings |= torch_atss.settings()
        net = BUILDERS[model](num_classes=classes + self.background, **settings)
        if model == "atss_r50":
            torch_atss.install(net)
        self.net = net.to(device, memory_format=torch.channels_last)
        if compiled:
            self.net.backbone = torch.compile(self.net.backbone)
            if model not in TWO_STAGES:
                self.net.head.forward = torch.compile(self.net.head.forward)
        images = torch.from_numpy(inputs["images"]).to(device).permute(0, 3, 1, 2)
        self.images = list((images.float() / 255).unbind())
        if model not in DENSE:
            self.network = None  # not to be had apart from what follows it
        else:
            self.batch = self.net.transform(self.images)[0].tensors
            self.batch = self.batch.contiguous(memory_format=torch.channels_last)
        objects = int(inputs["objects"])
        boxes = torch.from_numpy(inputs["boxes"][:, :objects]).to(device)
        labels = torch.from_numpy(inputs["labels"][:, :objects]).long().to(device) + self.background
        self.targets = [dict(boxes=b, labels=c) for b, c in zip(boxes, labels)]
        if model == "mask_rcnn_r50":
            for target in self.targets:
                target["masks"] = filled(target["boxes"], size)
        self.name = f"torchvision {torchvision.__version__}"
        if model == "atss_r50":
            self.name += ", FCOS with ATSS's assignment"

    def network(self):
        """Predictions of dense detectors, of images that are a batch and normalised."""
        return self.net.head(list(self.net.backbone(self.batch).values()))

    def loss(self, autocast):
        """Of the batch, network included."""
        with autocast:
            return sum(self.net(self.images, self.targets).values())

    def detect(self):
        """Boxes, scores and labels of each image."""
        return [list(found.values()) for found in self.net(self.images)]


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("inputs")
    parser.add_argument(
        "--model", required=True, choices=sorted({*torch_ssd.BACKBONES, *DENSE, *TWO_STAGES})
    )
    parser.add_argument("--work", required=True, choices=("train", "detect"))
    parser.add_argument("--precision", default="float32", choices=("float32", "bfloat16"))
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--samples", type=int, default=7)
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--plain", action="store_true")
    args = parser.parse_args()

    cuda = args.device == "cuda"
    torch.manual_seed(0)
    if cuda:
        torch.backends.cudnn.benchmark = True
        # What XLA does with float32 on such a device unless told otherwise.
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
    inputs = np.load(args.inputs)
    size = inputs["images"].shape[1]
    pyramids = args.model in DENSE or args.model in TWO_STAGES
    if pyramids and not torchvision:
        parser.error(f"--model {args.model} needs torchvision")
    ssd = args.model == "ssd300_vgg16" and size == 300 and not args.plain
    if torchvision and (ssd or pyramids):
        peer = Torchvision(args.model, inputs, args.device, args.compile)
    else:
        peer = Plain(args.model, inputs, args.device, args.compile)
    finish = torch.cuda.synchronize if cuda else lambda: None
    parameters = count_parameters(peer.net, int(inputs["classes"]))
    result = {"name": peer.name + (", compiled" if args.compile else ""), "parameters": parameters}
    half = args.precision == "bfloat16"
    autocast = torch.autocast(args.device, dtype=torch.bfloat16, enabled=half)
    warmup = 5 if cuda else 2
    if args.work == "train":
        optimizer = torch.optim.SGD(peer.net.parameters(), lr=1e-4, momentum=0.9, weight_decay=5e-4)

        def step():
            optimizer.zero_grad(set_to_none=True)
            value = peer.loss(autocast)
            value.backward()
            optimizer.step()
            return value

        result["train"] = clock.samples(step, finish, args.samples, warmup)
        result["loss"] = float(step().detach())
    else:
        peer.net.eval()

        def finished(call):
            def timed():
                call()
                finish()

            return timed

        with torch.no_grad(), autocast:
            if peer.network:
                call = finished(peer.network)
                result["network"] = clock.samples(call, finish, args.samples, warmup)
            result["detect"] = clock.samples(finished(peer.detect), finish, args.samples, warmup)
            found = peer.detect()
        result["found"] = round(sum(len(image[0]) for image in found) / len(found), 1)
    peak = torch.cuda.max_memory_allocated() // 2**20 if cuda else clock.peak_rss_mib()
    print(json.dumps(result | {"peak_mib": peak, "torch": torch.__version__}), flush=True)


if __name__ == "__main__":
    main()
