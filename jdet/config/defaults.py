"""The complete default config: every key the program reads, with its meaning."""

from __future__ import annotations

import dataclasses

from ml_collections import ConfigDict, config_dict

from jdet.data.transforms.ssd import SSDAugment


def get_defaults() -> ConfigDict:
    """The complete default config; experiments start from it and assign."""
    c = ConfigDict()
    c.seed = 0
    c.class_names = ()  # filled in from the training data; given: the data must have these
    c.category_ids = ()  # the data set's own id of each class, filled in likewise; else 1 … K
    c.precision = "float32"  # activations: "float32" | "bfloat16"
    c.input_size = 300  # pixels, side of the square network input

    # How images become network inputs: "warp", to the square | "keep_ratio" | "fit_crop", small parts
    # of them; docs/input_sizes.md.
    c.resize = ConfigDict({"name": "warp"})

    c.data = data = ConfigDict()
    data.root = "data"  # folder of the data set, handed to the sources below by experiments
    data.train = ConfigDict({"name": "shapes"})
    data.eval = ConfigDict({"name": "shapes"})
    data.holdout = 0  # n: evaluate on about every n-th image of data.train, not on data.eval
    data.share = 1.0  # of the training images that are used, chosen by their names
    # Images with a class that fewer than this share of images show come more often (LVIS: 0.001); 0: off;
    # docs/adapting.md.
    data.repeat_threshold = 0.0
    # Training sees one random tile of an image at a time (docs/adapting.md).
    data.tile = tile = ConfigDict()
    tile.side = 0  # pixels of the image; 0: whole images
    tile.share = 0.5  # of its area that an object must have in the tile to stay
    tile.objects = 0.5  # probability of a tile around an object; else anywhere
    # Other images that come into an image of training (docs/adapting.md).
    data.mix = mix = ConfigDict()
    mix.mosaic = 0.0  # probability of an image of four; 0: off
    mix.mixup = 0.0  # probability of mixing with another one in equal shares
    mix.copy_paste = 0.0  # probability of pasting objects of another one
    mix.low = 0.5  # least zoom of a mosaic, and size of the other image, in sizes that fit
    mix.high = 1.5  # the largest
    mix.share = 0.2  # of its area that an object must have left to stay
    mix.side = 2.0  # shortest width and height of an object that is cut, pixels
    mix.stop = 0  # optimiser step from which nothing is mixed; 0: never
    data.max_boxes = 64  # objects an image can carry; more is counted and warned about
    data.mask_size = 112  # side of each object's mask, in cells, for detectors that need masks
    data.on_error = "raise"  # unreadable image: "raise" | "skip" (counted and listed)
    data.min_usable = 0.5  # least share of a data set's images that must be usable with "skip"
    # What images are and what becomes of them; docs/images.md, jdet.data.readers.settings.
    data.image = image = ConfigDict()
    image.channels = "rgb"  # "rgb" (grey images get three equal channels) | "gray" | "auto" (as the
    # files have them) | a number
    image.dtype = "auto"  # "auto" (as the files have it) | "uint8" | "uint16" | "float32"
    image.high_byte = False  # 16-bit files become 8-bit ones and lose their low byte
    image.value_range = ()  # lowest and highest value that means something; (): from the data
    image.bands = ()  # channels of the files to take, in this order, from 0; (): all
    image.palette = "colours"  # "colours" | "indices" of files with a palette
    image.alpha = "drop"  # "drop" | "refuse" an alpha channel that is not opaque
    image.files = (
        ""  # files of an image, "{stem}_rgb.png + {stem}_depth.png"; "": one, or the label
    )
    # file's list
    image.invalid = config_dict.placeholder(
        float
    )  # value that stands for "nothing measured", besides
    # NaN and infinity; None: there is none
    image.found = found = (
        ConfigDict()
    )  # filled in from the training data, which all others must match
    found.channels = 0
    found.colour = ""
    found.dtype = ""
    found.value_range = ()
    found.reached = ()  # lowest and highest usual value, where they leave data.image.value_range
    found.least_span = 0.0  # smallest difference of two values of an image
    found.files = ""
    # What values are normalised by; docs/normalisation.md.
    data.normalise = normalise = ConfigDict()
    normalise.by = "constants"  # "constants" (model.mean, model.std) | "data" (measured) | "range"
    normalise.range = ()  # of "range": (low, high), which becomes -1 … 1
    normalise.low = ()  # filled in by "data" and "range" with model.mean and model.std: the lower and
    normalise.high = ()  # upper end of nearly all values, by channel
    data.workers = 0  # grain worker processes; 0 decodes in threads of this process
    data.threads = 2  # reader threads per process
    data.prefetch = 4  # batches made ahead of the step

    # What training does to images: "ssd" | "detr" | "lsj" | "intensity" (images of any kind,
    # docs/normalisation.md) | "none"; jdet.data.transforms.ssd says what its keys mean.
    augment = {field.name: field.default for field in dataclasses.fields(SSDAugment)}
    c.augment = ConfigDict({"name": "ssd", **augment})

    c.model = ConfigDict({"name": "ssd"})

    # Several trainings in one workdir, each starting from the one before (docs/direct_pretraining.md):
    c.phases = ()  # their names, in order; empty: one training
    c.phase = ConfigDict()  # by name the keys that each of them sets over all others

    c.init_from = init_from = ConfigDict()
    init_from.path = ""  # run folder or checkpoint whose weights to start from; "": random weights
    init_from.step = "latest"  # its checkpoint: "latest", "best" or a number
    init_from.weights = "ema"  # "ema" (where the run has one) | "raw"
    init_from.include = (".*",)  # regexes of whole parameter paths to load, such as "backbone/.*"
    init_from.exclude = ()  # regexes of paths to leave at their initial values after all
    init_from.class_map = "names"  # class layers: "names" (by class name) | "none" (by position)
    init_from.parts = ()  # only these parts of the model, such as ("backbone", "neck"); empty: all
    init_from.strict = True  # parameters must be there in this shape; False: left, reported
    init_from.random_frozen = "refuse"  # what is frozen and not loaded: "refuse" | "allow"

    # Gradient calibration: initial kernels are scaled towards gradients of equal size in all layers.
    c.calibration = calibration = ConfigDict()  # docs/transformers.md
    calibration.iterations = 0  # passes; 0: off, 1: as published
    calibration.alpha = 0.25  # kernel · (its gradient's mean square / their geometric mean)^alpha
    calibration.scope = (
        "backbone"  # "backbone" | "all" (but predictions) | "scale_invariant" (layers
    )
    # whose output is normalised at once: nothing that the network computes changes)
    calibration.statistic = (
        "batch_grad"  # of the gradient: "batch_grad" | "per_example" | "positionwise"
    )
    calibration.normalize_by_weight = False  # divide it by the mean square of the kernel
    calibration.reference_signal = (
        "loss"  # what is differentiated: "loss" | "gaussian" (random signals)
    )
    calibration.guard = (
        True  # several passes end, and the last is undone, once the spread does not fall
    )

    c.train = train = ConfigDict()
    train.batch_size = 32  # images per optimiser step, over all devices
    train.steps = 0  # optimiser steps; 0: from epochs
    train.epochs = 0.0
    train.length = "fixed_iters"  # what train.steps fixes: "fixed_iters", the steps whatever the
    # batch | "fixed_samples", the images: as many as in so many steps of optimizer.reference_batch
    # The length of a run by time: its first steps are timed on this machine, and train.steps, any number
    # until then, becomes as many as fit (docs/small_data.md).
    train.budget = budget = ConfigDict()
    budget.minutes = 0.0  # of training; 0: train.steps or train.epochs say how long
    budget.counts = "steps"  # what counts: "steps" alone | "all" (timing them and compiling, too);
    # evaluations never do
    budget.evaluations = 0  # train.eval_every becomes what gives so many; 0: it stays
    budget.step_seconds = 0.0  # filled in; given with train.steps: nothing is timed
    train.accumulation = 1  # micro-batches per optimiser step
    # Weights of classes in the classification loss (docs/adapting.md).
    train.class_weights = weights = ConfigDict()
    weights.by = "none"  # "none" | "given" | "inverse_frequency" | "effective_number"
    weights.factors = ()  # of "given", one per class; otherwise filled in from the training data
    weights.beta = 0.999  # of "effective_number"
    train.loss_norm = "global"  # "global" | "per_device"
    train.remat = "none"  # what the backward pass computes again, to save memory: "none" | "convs"
    # (norms, ReLUs, pools) | "full" (blocks) | "stages" (whole stages); docs/large_batches.md
    train.remat_parts = ()  # where, such as ("stem", "c2", "neck"); empty: everywhere
    train.sample_stats = False  # log ratios of positive to negative samples (docs/large_batches.md)
    train.ema = 0.0  # decay of the moving average of weights and statistics; 0: off
    train.log_every = 20  # steps
    train.eval_every = 0  # steps; 0: only at the end
    train.save_every = 0  # steps; 0: a tenth of the run
    train.keep = 2  # checkpoints kept besides the best
    train.best_metric = ""  # metric that picks the best checkpoint; "": the first of the evaluation
    train.best_mode = "max"  # "max" | "min": which of its values is the best
    train.eval_at_start = False
    train.loggers = ()  # trackers told everything: "wandb" | "mlflow" | "trackio" (docs/runs.md)
    train.project = (
        ""  # the runs' project there; "": as the tracker's environment says, else "jdet"
    )
    # Reduces the learning rate and then ends the run when best_metric saturates.
    train.saturation = saturation = ConfigDict()
    saturation.patience = 0  # evaluations without improvement before either; 0: off
    saturation.minimum = 0  # evaluations before the first reduction, at least
    saturation.delta = 0.0  # an improvement is more than this above the best so far
    saturation.reductions = 1  # of the learning rate before the run ends
    saturation.factor = 0.1  # of each reduction

    # Ends the run when best_metric has not improved, and leaves the rate to its schedule.
    train.early_stop = early_stop = ConfigDict()
    early_stop.patience = 0  # evaluations without improvement before the end; 0: off
    early_stop.minimum = 0  # evaluations before the end, at least
    early_stop.min_delta = 0.0  # an improvement is more than this beyond the best so far

    # Looks at some training images and says what keeps a run from learning (docs/learning.md).
    train.learning = learning = ConfigDict()
    learning.images = 32  # training images of a look; 0: off
    learning.at = (0.05, 0.1, 0.25)  # shares of the run at which it looks; none under 100 steps

    c.optimizer = optimizer = ConfigDict()
    optimizer.name = "sgd"  # "sgd" (momentum in Caffe's order) | "adamw"
    optimizer.lr = 0.05  # at ``reference_batch`` images per step
    optimizer.reference_batch = 128  # peak lr = lr · batch_size / reference_batch; 0: lr as it is
    optimizer.momentum = 0.9  # of sgd alone
    optimizer.nesterov = False  # of sgd alone
    optimizer.beta1 = 0.9  # of adamw alone: decay of the mean of gradients
    optimizer.beta2 = 0.999  # of adamw alone: of their squares
    optimizer.epsilon = 1e-8  # of adamw alone, beside the root of the squares
    optimizer.weight_decay = 5e-4  # adamw: decoupled, times the learning rate; recipes have 0.05
    optimizer.decay_mask = "caffe"  # "caffe": none on biases and head norms | "all" | "kernels" |
    # "no_norm_decay": all but norms, biases and tables of positions
    optimizer.rules = ()  # (path regex, lr factor, decay factor), tried before those of decay_mask;
    # lr factor 0: frozen
    optimizer.bias_lr = 2.0  # learning-rate multiplier of convolution biases
    optimizer.clip_norm = 0.0  # global gradient norm; 0: none
    optimizer.schedule = "step"  # "step" | "cosine" | "polynomial" | "exponential" | "constant" |
    # "normal" | "long" (MegDet's drops by epochs: 8, 10 of 11 and 11, 14, 17 of 18; train.epochs
    # stretches them, 0: as they are)
    optimizer.boundaries = (0.45, 0.75, 0.95)  # of the run where the lr drops (step), or steps (>1)
    optimizer.decay = 0.1  # factor of each drop
    optimizer.factors = ()  # of each drop its own (step); empty: decay
    optimizer.end_factor = 0.0  # share of the peak at the end (cosine, polynomial, exponential)
    optimizer.power = 1.0  # of polynomial; 1: a straight line
    optimizer.hold = 0  # steps at the peak after the warm-up, before these three fall
    optimizer.from_start = False  # they count from step 0, not from the end of the warm-up
    optimizer.warmup = 0  # steps of linear warm-up
    optimizer.warmup_epochs = 0.0  # the warm-up has at least so many epochs
    optimizer.warmup_start = 0.1  # of the peak, where the warm-up begins
    optimizer.warmup_lr = 0.0  # rate where it begins (MegDet: the small batch's); 0: warmup_start

    c.eval = evaluation = ConfigDict()
    evaluation.batch_size = 32
    evaluation.metrics = ("voc",)  # evaluators: "voc", "coco" (boxes), "coco_segm" (masks),
    # "coco_bbox_segm" (both), or your own as "module:Class", which is made from the class names; the
    # first has the main metric
    evaluation.coco = ConfigDict()  # of the metrics whose names begin with "coco"
    # Per image and class, at which the recalls are measured; AP at the last of them.
    evaluation.coco.max_detections = (1, 10, 100)
    evaluation.coco.recall_levels = 101  # over which precision is averaged
    evaluation.analyse = True  # of the last: analysis.json, errors, thresholds, … (docs/analyse.md)
    evaluation.images = 8  # images drawn beside the ground truth
    evaluation.score_drawn = 0.5  # lowest score drawn
    evaluation.drawn_bands = ()  # channels shown as red, green and blue, or one as grey; (): the first
    evaluation.drawn_percentiles = (
        1.0,
        99.0,
    )  # of an image, shown as black and white; not of 8 bits
    evaluation.use_ema = True  # evaluate the moving average where there is one
    evaluation.max_images = 0  # 0: all
    evaluation.precise_bn = 0  # training batches over which statistics of batch norms are measured
    # again with the weights to evaluate; 0: the running ones

    evaluation.tta = tta = ConfigDict()  # multi-scale testing, after the plain evaluation
    tta.preset = "none"  # "none" | "flip" | "voc" | "coco" (RefineDet's passes) | "custom"
    tta.passes = ()  # custom: (long side, short side, flip, above, below); see jdet.evaluation.tta
    tta.merge = ""  # "voting" | "soft_voting" | "nms"; "": the preset's, custom: voting
    tta.iou_threshold = 0.45  # overlap from which boxes of a class are merged
    tta.pixel_offset = 1.0  # added to widths and heights for it: 1 inclusive pixels, 0 continuous
    tta.score_threshold = 0.01  # soft_voting: lowest score of a box kept beside the vote
    tta.max_detections = 0  # of an image after merging; 0: as many as without

    # Images are shown in tiles at their own resolution, and what is found is merged (docs/adapting.md).
    evaluation.tile = tile = ConfigDict()
    tile.side = 0  # pixels of the image; 0: images are shown whole
    tile.overlap = 64  # of neighbours, pixels, at least: as much as the largest objects have
    tile.iou_threshold = (
        0.5  # overlap from which boxes of a class from different tiles are one object
    )
    tile.max_detections = 0  # of an image after merging; 0: all

    c.landscape = landscape = ConfigDict()  # records of the loss surface (docs/landscape.md)
    landscape.every = 0  # steps between records of loss and gradient norms; 0: none
    landscape.depth = 1  # gradient norms of modules down to this level; 0: of the whole alone
    landscape.probe_every = 0  # steps between probes along the gradient, whole records; 0: none
    landscape.probe_steps = (0.5, 1.0, 2.0, 4.0)  # lengths of a probe's steps, in learning rates

    c.parallel = parallel = ConfigDict()
    parallel.devices = 0  # 0: all
    parallel.cpu_devices = 1  # devices a CPU counts as; small networks run faster on two
    parallel.bn_group_size = 0  # images that share BatchNorm statistics under sync_batch; 0: all
    return c
