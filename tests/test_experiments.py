"""Every experiment loads, validates, builds and passes abstract evaluation."""

import importlib.util
import re
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest

from experiments import (
    cascade_rcnn_coco,
    direct_deeppcb,
    direct_dropblock_coco,
    direct_faster_voc,
    direct_mask_coco,
    direct_retinanet_coco,
    dsod_ablation,
    dsod_voc,
    megdet_bccd,
    megdet_fpn_coco,
    megdet_voc,
    reppoints_v2_coco,
    retinanet_coco,
    scratchdet_landscape,
    scratchdet_table1,
    scratchdet_table2,
    scratchdet_voc,
    transformers_table5,
)
from experiments.common import BACKBONES, STEMS
from experiments.studies import table
from jdet import build
from jdet.config import of_phase, split_phases, validate
from jdet.train import optim, state
from jdet.train.schedule import learning_rate, resolve
from jdet.types import ConfigError, DataError
from tests import harness

ROOT = Path(__file__).resolve().parents[1]
DATA = ROOT.parent / "shared" / "data"
FILES = table.files()
ARGUMENTS = {
    "dsod_ablation": ["row=2,mini"],  # every row is built in test_describe.py
    "dsod_coco": ["", "mini"],
    "dsod_no_bn": ["", "mini"],
    "dsod_voc": ["", "head=plain,mini", "size=512", "last_scale=1x1", "train=07++12", "mini"],
    "ssd300s_vgg_dense": ["", "head=plain", "mini"],
    **{f"scratchdet_{name}": ["", "cpu"] for name in ("bccd", "deeppcb", "openimages5")},
    "scratchdet_voc": [f"backbone={name}" for name in BACKBONES]
    + ["backbone=vgg16,norm=none,head_norm=batch,lr=0.01", "gn", "release=mmdetection"]
    + [f"backbone={name},release=caffe" for name in ("root_resnet18", "root_resnet34")],
    "scratchdet_coco": ["", "gn"],
    "scratchdet512_coco": ["", "release=", "gn"],
    "scratchdet_table1": ["kind=group", *(f"norm={n},mini" for n in scratchdet_table1.PLACES)],
    "scratchdet_table2": [f"stem={stem}" for stem in STEMS]
    + [f"stem={stem},mini" for stem in ("s1_root3", "s1_7x7", "s2_7x7", "s2_root3", "s2_nopool")],
    "megdet_voc": ["", "batch=256,policy=long,norm=none", "mini,batch=8", "mini,norm=none"],
    "megdet_fpn_coco": ["scope=backbone,batch=256,policy=long"],
    "megdet_bccd": ["", "batch=8,policy=long"],
    "retinanet_coco": ["", "norm=sync_batch,schedule=1x,size=448,warp"],
    "fcos_coco": ["", "plain,norm=sync_batch,schedule=2x,size=448"],
    "atss_coco": ["schedule=3x,multiscale"],
    "dense_deeppcb": [
        "cpu",
        *(f"detector={name}{arm}" for name in ("fcos", "atss") for arm in ("", ",cpu")),
        "detector=reppoints_v2,cpu",
    ],
    "faster_rcnn_coco": ["", "norm=sync_batch,schedule=20e,size=448,head=2fc"],
    "mask_rcnn_coco": ["schedule=lsj100,norm=sync_batch"],
    "cascade_rcnn_coco": ["schedule=1x,multiscale,depth=101"],
    "cascade_mask_rcnn_coco": ["", "giou"],
    "rcnn_deeppcb": [
        "cpu",
        *(
            f"{arm}detector={name}"
            for name in ("cascade_rcnn", "sparse_rcnn")
            for arm in ("", "cpu,")
        ),
    ],
    "image_kinds": ["cpu", "cpu,set=axons", "set=ships,view=visible_as_8"],
    "rare_classes": ["arm=both"],
    "sixteen_bits": ["cpu,dtype=float32", "cpu,dtype=uint16_as_8"],
    "mask_nuclei": ["cpu", "norm=none", "cpu,norm=sync_batch"],
    "dense_openimages5": ["cpu", "detector=retinanet", "cpu,detector=fcos"],
    "transformers_table2": ["", "backbone=T1-T1-T1-T1,detector=atss,recipe=sat,init=swin"],
    "transformers_table1": ["roi=pool"],
    "transformers_table3": ["", "backbone=c2c2c16c6"],
    "reppoints_v2_coco": ["", "giou,schedule=2x,multiscale"],
    "transformers_table5": [
        "backbone=resnet50,recipe=sota-swin-aug",
        "detector=cascade_mask_rcnn,backbone=resnet50",
        "detector=sparse_rcnn",
        "detector=swin_reppoints_v2,backbone=swin_t",
    ],
    "sparse_rcnn_coco": ["proposals=300,norm=sync_batch,schedule=3x,size=448"],
    "transformers_figure4": [""],
    "transformers_figure3": ["", "arm=plain,recipe=sat,detector=faster_rcnn"],
    "direct_retinanet_coco": ["", "p=3,ft=2x,ms,form=stitcher,mode=sync_batch", "form=square,lr2"],
    "direct_mask_coco": [
        "load=backbone+neck+rpn+box_head+mask_head,data=0.1",
        "backbone=swin_t,p=3",
        "tenth",
    ],
    "direct_faster_coco": ["load=backbone+neck+rpn"],
    "direct_nuclei": ["", "arm=scratch", "load=backbone+neck+rpn"],
    "direct_deeppcb": ["", "arm=scratch,data=0.1", "mode=affine,load=backbone+neck,pre=100"],
    "ssd300_voc": ["", "size=512", "norm=group,head_norm=group"],
    "ssd300s_resnet101_voc": ["", "ssd321"],
    "scratchdet_landscape": ["", "mini,norm=none"],  # the arms are those of scratchdet_table1
}


def load(path):
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def check(config, detect=True):
    """Building holds the network's maps against the default boxes; ``detect`` traces it once more.

    Of phases each is a config of its own.
    """
    validate(config)
    if not config.phases:
        build.augment(config)
    for phase in split_phases(config) if config.phases else ():
        build.augment(phase.config)
        check(build.with_frozen_stages(phase.config), detect=False)
    names = tuple("abc")
    detector = build.detector(config, names)
    if not detect:
        return
    size = config.input_size
    images = jax.ShapeDtypeStruct((1, size, size, detector.image_kind.channels), jnp.uint8)
    sizes = jax.ShapeDtypeStruct((1, 2), jnp.int32)
    found = jax.eval_shape(
        lambda key, images, sizes: detector.init_with_output(key, images, sizes, method="detect")[
            0
        ],
        jax.random.key(0),
        images,
        sizes,
    )
    assert found.boxes.shape == (1, config.model.max_detections, 4)


@pytest.mark.parametrize(
    "path, arg",
    [
        (path, arg)
        for path in FILES
        if not path.stem.endswith(("_custom", "own_folder"))
        for arg in ARGUMENTS.get(path.stem, [""])
    ],
    ids=lambda value: value.stem if isinstance(value, Path) else value,
)
def test_experiment(path, arg):
    module = load(path)
    assert table.facts(path)["Question"]
    check(module.get_config(arg), detect=arg == ARGUMENTS.get(path.stem, [""])[0])


READ = set()
"""Groups ``data`` whose sources were looked at."""
CUSTOM = ("scratchdet_custom", "dense_custom", "direct_custom")


@pytest.mark.parametrize(
    "experiment, arg, name",
    [(experiment, ",cpu", name) for experiment in CUSTOM for name in ("bccd", "coco_open")]
    + [
        harness.thorough(experiment, ",cpu", name)
        for experiment in CUSTOM
        for name in ("deeppcb", "dsb2018_nuclei")
    ]
    + [
        harness.thorough("scratchdet_custom", "", name)
        for name in ("bccd", "coco_open", "deeppcb", "dsb2018_nuclei")
    ]
    + [("own_folder", ",cpu", "bccd"), ("own_folder", "", "deeppcb")]
    + [("own_folder", ",cpu,detector=atss", "dsb2018_nuclei")]
    + [("swin_custom", ",cpu", "bccd"), ("mask_custom", ",cpu", "dsb2018_nuclei")]
    + [("mask_custom", ",detector=cascade_mask_rcnn", "fly_embryos")],
)
def test_custom_experiment_reads_real_folders(experiment, arg, name):
    if not (DATA / name).is_dir():
        pytest.skip(f"{DATA / name} is not on this machine")
    module = load(ROOT / "experiments" / f"{experiment}.py")
    config = module.get_config(f"root={DATA / name}{arg}")
    check(config, detect=name in ("bccd", "fly_embryos"))
    if (data := config.data.to_json()) not in READ:  # several experiments have the same
        READ.add(data)
        train, evaluation = build.sources(config)
        assert train.class_names == evaluation.class_names
        ids = [{source[i].id for i in range(len(source))} for source in (train, evaluation)]
        assert not ids[0] & ids[1]


@pytest.mark.skipif(not (DATA / "bccd").is_dir(), reason=f"{DATA / 'bccd'} is not here")
def test_small_swin_detectors_have_the_rate_that_is_given():
    module = load(ROOT / "experiments" / "swin_custom.py")
    for arg, rate in (("", 1e-4), (",cpu", 1e-3), (",cpu,lr=0.0005", 5e-4)):
        assert module.get_config(f"root={DATA / 'bccd'}{arg}").optimizer.lr == rate


@pytest.mark.parametrize(
    "experiment", ["scratchdet_custom", "dense_custom", "direct_custom", "swin_custom"]
)
def test_custom_experiment_says_what_it_needs(experiment, tmp_path):
    module = load(ROOT / "experiments" / f"{experiment}.py")
    with pytest.raises(ConfigError, match=f"{experiment}.py:root=PATH"):
        module.get_config("")
    with pytest.raises(DataError, match="no labels of any layout"):
        module.get_config(f"root={tmp_path}")


def test_table_of_experiments_is_up_to_date():
    assert table.README.read_text() == table.table(), "run `make tables` and commit the README"


def test_experiments_are_short_and_take_helpers_from_the_common_files():
    """Of each other they use ``get_config`` alone; a file without one is no experiment."""
    assert not any(path.stem.startswith("common") for path in FILES)
    for path in FILES:
        text = path.read_text()
        assert text.count("\n") <= 80, path.name
        for names in re.findall(r"^from experiments import (.*)$", text, re.M):
            for name in names.split(", "):
                used = set(re.findall(rf"\b{name}\.(\w+)", text)) - {"py"}
                assert used == {"get_config"}, (path.name, name, used)
        assert not re.search(r"^from experiments\.(?!common)", text, re.M), path.name


def test_table_needs_its_facts(tmp_path):
    path = tmp_path / "mine.py"
    path.write_text('"""Why?\n\nSource: a\nPaper: b\n    and c\nOurs: d\n\nCost: e\n"""\n')
    expected = dict(Question="Why?", Source="a", Paper="b and c", Ours="d", Cost="e")
    assert table.facts(path) == expected
    path.write_text('"""Why?\n\nSource: a\nPaper: b\nOurs: d\n"""\n')
    with pytest.raises(ConfigError, match="no line 'Cost: …'"):
        table.facts(path)


def test_arguments_that_cannot_be_are_refused():
    for module, arg, message in (
        (scratchdet_table1, "norm=heads", "norm=heads does not exist, did you mean 'head'"),
        (scratchdet_table1, "lr=0.02", "lr=0.02 does not exist"),
        (scratchdet_table2, "stem=s3", "stem=s3 does not exist"),
        (dsod_ablation, "row=13", "row=13 does not exist"),
        (dsod_ablation, "row=12", "row 12, and no other.*coco=runs/dsod_coco"),
        (dsod_ablation, "row=11,base=0", "base is for rows 7, 8 and 9"),
        (retinanet_coco, "schedule=4x", "schedule=4x does not exist.*6x"),
        (retinanet_coco, "norm=none", "norm=none does not exist.*group"),
        (cascade_rcnn_coco, "head=fc", "head=fc does not exist.*2fc"),
        (dsod_voc, "head=dens", "head=dens does not exist, did you mean 'dense'"),
        (megdet_voc, "policy=longer", "policy=longer does not exist, did you mean 'long'"),
        (megdet_voc, "norm=none,bn=8", "bn=8 is for norm=both"),
        (megdet_voc, "epochs=3,steps=40", "epochs=3 and steps=40: give one"),
        (retinanet_coco, "warp,multiscale", "drop warp"),
        (direct_retinanet_coco, "mode=fixd", "mode=fixd does not exist, did you mean 'fixed'"),
        (direct_retinanet_coco, "p=0", "p=0 counts schedules"),
        (direct_deeppcb, "share=1", "share=1 of the pixels"),
        (scratchdet_voc, "gn,norm=none", "gn names both norms"),
        (scratchdet_voc, "backbone=vgg16,release=caffe", "release=caffe has no backbone=vgg16"),
    ):
        with pytest.raises(ConfigError, match=message):
            module.get_config(arg)


def test_megdet_recipes():
    """Linear rates, a warm-up from the rate of 16 images, the same epochs for every batch."""
    for batch, peak, warmup in ((8, 0.1 / 32, 2069), (128, 0.05, 500), (256, 0.1, 500)):
        config = megdet_voc.get_config(f"batch={batch},bn=8")
        resolved = resolve(config, 16_551, devices=1)
        assert (resolved.peak_lr, resolved.warmup) == (pytest.approx(peak), warmup)
        assert resolved.warmup_lr == pytest.approx(min(peak, 0.05 / 8))
        assert resolved.epochs == pytest.approx(220, abs=0.01) and resolved.bn_group == 8
        epochs = [step / resolved.steps_per_epoch for step in resolved.boundaries]
        assert epochs == pytest.approx([160, 200], abs=0.01)
    config = megdet_voc.get_config("batch=256,policy=long,warmup=false,norm=none")
    resolved = resolve(config, 16_551, devices=8)
    assert (resolved.warmup, resolved.peak_lr) == (0, pytest.approx(0.002))
    assert resolved.epochs == pytest.approx(360, abs=0.01)
    for batch, steps in ((8, 2409), (32, 603), (128, 151)):
        mini = megdet_voc.get_config(f"mini,batch={batch}")
        resolved = resolve(mini, 292, devices=2)
        assert (resolved.steps, resolved.peak_lr) == (steps, pytest.approx(0.02 * batch / 16))
        assert resolved.warmup == pytest.approx(steps / 10, abs=1)
    cells = resolve(megdet_bccd.get_config("batch=256"), 292, devices=4)
    assert (cells.peak_lr, cells.bn_group) == (pytest.approx(1.2), 32)
    for arg, peak, group in (("batch=256,policy=long", 0.32, 32), ("batch=2", 0.0025, 2)):
        config = megdet_fpn_coco.get_config(arg)
        fpn = resolve(config, 118_000, devices=2)
        assert (fpn.peak_lr, fpn.bn_group) == (pytest.approx(peak), group)
        assert fpn.warmup_lr == pytest.approx(min(peak, 0.02)) and config.train.sample_stats
    drops = [step / fpn.steps_per_epoch for step in fpn.boundaries]
    assert drops == pytest.approx([48, 60], abs=0.01)


def test_direct_recipes_are_the_papers():
    """88,000 steps of 64 images at a constant rate; then 1x with fixed norms."""
    config = direct_retinanet_coco.get_config("")
    first, second = (phase.config for phase in split_phases(config))
    pretrain, finetune = (resolve(one, 117_266, devices=8) for one in (first, second))
    assert (pretrain.steps, pretrain.batch_size, pretrain.bn_group) == (88_000, 64, 8)
    assert pretrain.epochs == pytest.approx(48, abs=0.1)
    rate = learning_rate(first.optimizer, pretrain)
    rates = [float(rate(step)) for step in (0, 1000, 87_999)]
    assert rates == pytest.approx([4e-4, 0.04, 0.04])
    assert (finetune.steps, finetune.peak_lr, finetune.warmup) == (87_950, 0.01, 500)
    drops = [drop / finetune.steps_per_epoch for drop in finetune.boundaries]
    assert drops == pytest.approx([8, 11], abs=0.01)
    assert second.model.norm == "fixed" and second.init_from.path == "phase:pretrain"
    samples = direct_retinanet_coco.get_config("length=fixed_samples")
    assert resolve(of_phase(samples, "pretrain"), 117_266, devices=8).steps == 22_000
    wide = of_phase(direct_retinanet_coco.get_config("ms,lr2"), "finetune")
    assert wide.resize.short == (640, 672, 704, 736, 768, 800) and wide.optimizer.lr == 0.02
    for mode in ("fixed", "affine", "sync_batch"):
        modes = split_phases(direct_retinanet_coco.get_config(f"mode={mode}"))
        decays = [bool(phase.config.optimizer.rules) for phase in modes]
        assert decays == [True, False]  # norms decay from the second phase on
    small = direct_deeppcb.get_config("")
    parts, whole = (phase.config for phase in split_phases(small))
    seen = [c.train.steps * c.train.batch_size * c.input_size**2 for c in (parts, whole)]
    assert sum(seen) == pytest.approx(400 * 8 * 192**2, rel=1e-3)
    for one in (parts, whole):
        one = build.with_frozen_stages(one)
        params, _ = state.abstract_variables(build.detector(one, ("a",)), one)
        still = [use for use in optim.parameter_rules(one.optimizer, params) if use.lr == 0]
        assert bool(still) == (one is not parts and one.model.norm == "fixed")


def test_direct_recipes_of_other_backbones_and_little_data():
    """Rates, lengths and what is frozen, of both phases."""

    def of(module, arg, images):
        phases = [phase.config for phase in split_phases(module.get_config(arg))]
        return zip(phases, [resolve(one, images, devices=8) for one in phases], strict=True)

    (one, first), (two, second) = of(direct_mask_coco, "backbone=swin_t", 117_266)
    assert (first.peak_lr, second.peak_lr) == pytest.approx((4e-4, 1e-4))
    assert (first.steps, second.steps, second.warmup) == (88_000, 87_950, 500)
    for each in (one, two):
        assert each.optimizer.name == "adamw" and each.optimizer.weight_decay == 0.05
        assert each.optimizer.decay_mask == "no_norm_decay" and not each.optimizer.rules
        assert each.model.neck.use_norm is False and "freeze_at" not in each.model.backbone
        assert (each.model.backbone.drop_path, each.model.backbone.kernel_init) == (0.2, "swin")
    (one, first), (two, second) = of(direct_mask_coco, "tenth", 11_726)
    assert one.data.share == two.data.share == 0.1
    assert (first.steps, second.steps) == (60_000, 30_000) and second.boundaries == (25_000,)
    assert (first.peak_lr, second.peak_lr, two.optimizer.decay) == (0.08, 0.04, 0.02)
    (one, first), (two, second) = of(direct_faster_voc, "", 16_551)
    assert (first.steps, first.peak_lr, second.peak_lr) == (93_000, 0.08, 0.01)
    assert first.epochs == pytest.approx(360, abs=0.5) and second.steps == 12_414
    assert second.boundaries == (9310,) and second.warmup == 0
    whole = direct_dropblock_coco.get_config("")
    length = resolve(whole, 117_266, devices=8)
    assert (length.steps, length.peak_lr, length.bn_group) == (264_000, 0.08, 64)
    assert build.resize(whole).largest == (640, 640)


def test_sides_of_points_are_those_of_their_authors():
    """Swin's RepPointsV2: 480, 512, … 960, uncut; ResNet's: all of 480 to 960; both are tested at 800."""
    swin = {
        name: transformers_table5.get_config(f"detector={name},recipe=sota-swin-aug")
        for name in ("swin_reppoints_v2", "atss")
    }
    points, others = swin.values()
    assert points.resize.short == tuple(range(480, 961, 32)) and points.augment.name == "ssd"
    assert others.resize.short == tuple(range(480, 801, 32)) and others.augment.name == "detr"
    assert points.train.epochs == others.train.epochs == 36
    scratch = transformers_table5.get_config("detector=swin_reppoints_v2").resize
    assert scratch.short == others.resize.short
    published = reppoints_v2_coco.get_config("multiscale").resize
    assert (published.short, published.sampling, published.long) == ((480, 960), "range", 1333)
    for config in (points, others, reppoints_v2_coco.get_config("multiscale")):
        assert build.resize(config).test_short == 800


def test_landscape_recipe_is_figure_one():
    for norm, lr, drops in (("none", 0.001, (80, 100)), ("head", 0.01, (50, 80, 100))):
        config = scratchdet_landscape.get_config(f"norm={norm},lr={lr}")
        resolved = resolve(config, 16_551, devices=8)
        assert (resolved.batch_size, resolved.steps, resolved.peak_lr) == (128, 120_000, lr)
        assert resolved.boundaries == tuple(1000 * k for k in drops)
        assert (config.landscape.every, config.landscape.probe_every) == (1, 500)
    mini = scratchdet_landscape.get_config("mini=true,norm=both,lr=0.01,steps=40,root=a=b")
    resolved = resolve(mini, 292, devices=1)
    assert (resolved.batch_size, resolved.steps, resolved.peak_lr) == (16, 40, 0.01)
    assert (mini.data.root, mini.input_size, mini.optimizer.schedule) == ("a=b", 96, "constant")
