"""Starting from another run: what is taken, what is said of it, what is refused."""

import functools
import json
import re

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jdet import build
from jdet.data.sources.voc_files import VOC_CLASSES
from jdet.parallel import mesh as mesh_lib
from jdet.train import state
from jdet.train.checkpoints.checkpoint import FOLDER, CheckpointError, Checkpoints
from jdet.train.init import init_from, transforms
from jdet.train.init import plan as init_plan
from jdet.types import ConfigError, TrainState
from tests.tiny_backbone import TINY
from tests.train import fake
from tests.train.init.test_class_map import COCO_CLASSES, COCO_OF_VOC

SIDE = 48
SMALL = ("car", "cell", "person")


def settings(names, head_norm="batch", norm="batch", **overrides):
    config = fake.config(class_names=tuple(names), **overrides)
    config.input_size = SIDE
    config.model = build.group(
        "detector",
        "ssd",
        backbone=build.group("backbone", TINY, stages=("c3", "c4"), channels=16),
        neck=build.group("neck", "residual_extras", width=0.0625),
        norm=norm,
        head_norm=head_norm,
        first_ratio=0.3,
        min_ratio=0.4,
    )
    return config


def detector_of(config):
    return build.detector(config, config.class_names)


def randomised(tree, seed):
    """As after a training: nothing is at its initial value; variances stay positive."""
    rng = np.random.default_rng(seed)

    def fill(path, x):
        kernel = jax.tree_util.keystr(path[-1:], simple=True) == "kernel"
        values = rng.normal(0, 0.1, x.shape) if kernel else rng.uniform(0.5, 1.5, x.shape)
        return values.astype(np.float32)

    return jax.tree_util.tree_map_with_path(fill, tree)


def one_per_output(kernel):
    """The largest number of every output alone: no compiler can add it up in another order."""
    values = kernel.reshape(-1, kernel.shape[-1])
    return np.where(np.arange(len(values))[:, None] == values.argmax(0), values, 0).reshape(
        kernel.shape
    )


def save_run(folder, config, variables, ema=None, steps=(7,), metrics=()):
    folder.mkdir(exist_ok=True, parents=True)
    (folder / "config.json").write_text(config.to_json())
    params, stats = variables
    begun = TrainState(jnp.int32(0), params, stats, {}, ema)
    with Checkpoints(folder / FOLDER, keep=9) as checkpoints:
        for step in steps:
            checkpoints.save(step, begun._replace(step=jnp.int32(step)), dict(metrics).get(step))
    return folder


@functools.cache
def coco_variables(head_norm):
    config = settings(COCO_CLASSES, head_norm)
    return randomised(state.abstract_variables(detector_of(config), config), 1)


@pytest.fixture(scope="module")
def coco(tmp_path_factory):
    """Runs of a small SSD with COCO's classes, with and without a norm in the head."""
    return {
        head_norm: save_run(
            tmp_path_factory.mktemp(head_norm),
            settings(COCO_CLASSES, head_norm),
            coco_variables(head_norm),
        )
        for head_norm in ("batch", "none")
    }


def prepare(config, workdir, said=None):
    detector = detector_of(config)
    params, stats = state.abstract_variables(detector, config)
    notify = print if said is None else said.append
    return init_from.prepare(config, workdir, detector, params, stats, detector_of, notify)


def start(config, plan):
    """The state a run would begin with."""
    mesh = mesh_lib.make_mesh(config)
    transforms = [plan] if plan else []
    return state.create_state(detector_of(config), optax.sgd(0.1, 0.9), mesh, config, transforms)


@functools.cache
def small_start():
    """Where a model of three classes, one of them unknown to COCO, starts without a source."""
    return start(settings(SMALL), None)


def loaded(plan):
    """The parameters and statistics this model starts with instead."""
    params, stats = plan(small_start().params, small_start().stats)
    return small_start()._replace(params=params, stats=stats)


def network(config):
    """From parameters and statistics to offsets and logits of two images."""
    detector = detector_of(config)
    images = np.random.default_rng(0).integers(0, 256, (2, SIDE, SIDE, 3), np.uint8)

    @jax.jit
    def run(params, stats):
        variables = {"params": params, "batch_stats": stats}
        return detector.apply(variables, images, train=False)[:2]

    return lambda *variables: map(np.asarray, run(*variables))


@pytest.mark.parametrize("head_norm", ["batch", "none"])
def test_voc_detector_starts_with_the_outputs_of_the_coco_detector(coco, tmp_path, head_norm):
    """Parameters and boxes bit for bit, the logits of background and VOC's classes but for rounding.

    How XLA adds the products of a convolution up depends on how many outputs it has. Where there is
    one product an output, the logits agree bit for bit too.
    """
    config = settings(VOC_CLASSES, head_norm, init_from__path=str(coco[head_norm]))
    plan = prepare(config, tmp_path)
    begun = start(config, plan)
    kept = [0, *COCO_OF_VOC]
    old = dict(flat(*coco_variables(head_norm)))
    layers = {}
    for path, x in flat(begun.params, begun.stats):
        if path.startswith("head/cls"):
            layers[path] = slots = x.shape[-1] // 21
            entries = old[path].reshape(*x.shape[:-1], slots, 81)[..., kept]
            np.testing.assert_array_equal(x, entries.reshape(x.shape))
        else:
            np.testing.assert_array_equal(x, old[path])

    here, there = network(config), network(settings(COCO_CLASSES, head_norm))
    offsets, logits = here(begun.params, begun.stats)
    offsets80, logits80 = there(*coco_variables(head_norm))
    np.testing.assert_array_equal(offsets, offsets80)
    rounding = 2e-6 * np.abs(logits80).max()
    np.testing.assert_allclose(logits, logits80[..., kept], rtol=0, atol=rounding)
    assert len(np.unique(logits[0, :, 1:])) > 20  # they differ, so that an order can be wrong

    kernels = {path for path in layers if re.fullmatch(r"head/cls\d/kernel", path)}
    arrays = {p: one_per_output(x) if p in kernels else x for p, x in plan.stored.arrays.items()}
    alone = plan._replace(stored=plan.stored._replace(arrays=arrays))
    _, logits = here(*alone(begun.params, begun.stats))
    params, stats = coco_variables(head_norm)
    _, logits80 = there(
        jax.tree_util.tree_map_with_path(
            lambda path, x: arrays[jax.tree_util.keystr(path, simple=True, separator="/")], params
        ),
        stats,
    )
    np.testing.assert_array_equal(logits, logits80[..., kept])
    assert len(np.unique(logits[0, :, 1:])) > 20
    assert int(begun.step) == 0 and not any(x.any() for x in jax.tree.leaves(begun.opt_state))
    assert plan.warnings == []

    record = json.loads(json.dumps(plan.record()))
    total = state.count_parameters(begun.params)
    assert record["parameters"] == [total, total] and record["step"] == 7
    assert record["statistics"] == [state.count_parameters(begun.stats)] * 2
    assert record["classes"]["tvmonitor"] == "tv" and record["classes"]["cat"] == "cat"
    levels = len(detector_of(config).anchor_levels())
    tensors = levels * (5 if head_norm == "batch" else 2)  # kernel and a norm's four; or a bias
    head = record["modules"]["head"]
    assert head["mapped"][0] == head["loaded"][0] == tensors
    assert head["left"] == head["other"] == [0, 0]
    text = plan.describe()
    assert "tvmonitor (tv)" in text and "as initialised: none" in text


def flat(*trees):
    for tree in trees:
        for path, x in jax.tree_util.tree_leaves_with_path(tree):
            yield jax.tree_util.keystr(path, simple=True, separator="/"), x


def changed(begun):
    """Paths of parameters and statistics that are not what this model starts with alone."""
    fresh = dict(flat(small_start().params, small_start().stats))
    here = flat(begun.params, begun.stats)
    return {path for path, x in here if not np.array_equal(x, fresh[path])}


def all_paths():
    return {path for path, _ in flat(small_start().params, small_start().stats)}


@pytest.mark.parametrize(
    "include, exclude, begins",
    [
        (("backbone/.*",), (), "backbone/"),
        ((".*",), ("head/.*",), ("backbone/", "neck/")),
        (("backbone/.*", "neck/.*"), ("neck/.*",), "backbone/"),
        (("head/cls0/kernel",), (), "head/cls0/kernel"),
    ],
)
def test_any_part_by_pattern(coco, tmp_path, include, exclude, begins):
    config = settings(
        SMALL,
        init_from__path=str(coco["batch"]),
        init_from__include=include,
        init_from__exclude=exclude,
    )
    plan = prepare(config, tmp_path)
    begun = loaded(plan)
    assert changed(begun) == {path for path in all_paths() if path.startswith(begins)}
    record = plan.record()
    taken = sum(e.taken for e in plan.entries.values())
    assert record["parameters"][0] + record["statistics"][0] == taken > 0
    assert {path for path, entry in plan.entries.items() if entry.taken} == changed(begun)
    assert init_plan.summary(record) in transforms.announce([plan], 0)
    assert plan.warnings == [] and record["absent"] == [] and record["other_shape"] == {}


def test_class_without_counterpart_keeps_its_initial_values(coco, tmp_path):
    config = settings(SMALL, init_from__path=str(coco["batch"]))
    plan = prepare(config, tmp_path)
    begun, fresh = jax.device_get((loaded(plan), small_start()))
    old = coco_variables("batch")[0]["head"]["cls1"]["kernel"]
    new, initial = begun.params["head"]["cls1"]["kernel"], fresh.params["head"]["cls1"]["kernel"]
    slots = detector_of(config).anchor_levels()[1].boxes_per_location
    new, initial = (x.reshape(3, 3, -1, slots, 4) for x in (new, initial))
    old = old.reshape(3, 3, -1, slots, 81)
    np.testing.assert_array_equal(new[..., [0, 1, 3]], old[..., [0, 3, 1]])  # car, person
    np.testing.assert_array_equal(new[..., 2], initial[..., 2])
    assert plan.record()["classes"] == {"car": "car", "cell": None, "person": "person"}
    head = plan.modules()["head"]
    assert head["mapped"][1] == 3 * head["left"][1] and head["left"][0] == 0
    assert "without counterpart, as initialised: cell" in plan.describe()


def test_moving_average_is_preferred_and_begins_anew(tmp_path):
    """Copies of its own for the new average: a step donates both."""
    config = settings(SMALL)
    variables = randomised(state.abstract_variables(detector_of(config), config), 2)
    average = randomised(state.abstract_variables(detector_of(config), config), 3)
    save_run(tmp_path / "run", config, variables, dict(zip(("params", "stats"), average)))
    for weights, (params, stats) in (("ema", average), ("raw", variables)):
        new = settings(
            SMALL,
            init_from__path=str(tmp_path / "run"),
            init_from__weights=weights,
            train__ema=0.9,
        )
        plan = prepare(new, tmp_path / "new")
        begun = start(new, plan)
        for tree in (begun, begun._replace(params=begun.ema["params"], stats=begun.ema["stats"])):
            jax.tree.map(np.testing.assert_array_equal, tree.params, params)
            jax.tree.map(np.testing.assert_array_equal, tree.stats, stats)
        buffers = {x.unsafe_buffer_pointer() for x in jax.tree.leaves(begun)}
        assert len(buffers) == len(jax.tree.leaves(begun))
        assert plan.record()["weights"] == weights and plan.classes == ()


def test_which_checkpoint(tmp_path):
    config = settings(SMALL)
    variables = randomised(state.abstract_variables(detector_of(config), config), 2)
    metrics = {2: {"a": 0.9}, 4: {"a": 0.5}}.items()
    run = save_run(tmp_path / "run", config, variables, steps=(2, 4, 5), metrics=metrics)

    def step(path, step):
        return prepare(
            settings(SMALL, init_from__path=str(path), init_from__step=step), tmp_path
        ).stored.step

    assert [step(run, s) for s in ("latest", "best", "4")] == [5, 2, 4]
    assert step(run / FOLDER / "4", "latest") == step(run / FOLDER / "4", "4") == 4
    with pytest.raises(ConfigError, match="is the checkpoint of step 4, but init_from.step='best'"):
        step(run / FOLDER / "4", "best")
    with pytest.raises(CheckpointError, match=r"no checkpoint of step 3; it has \[2, 4, 5\]"):
        step(run, "3")
    with pytest.raises(ConfigError, match="give a number, 'best' or 'latest'"):
        step(run, "last")


def test_trained_norm_becomes_a_frozen_one(coco, tmp_path):
    """All four vectors are statistics then, and come from parameters and statistics."""
    config = settings(COCO_CLASSES, norm="frozen_batch", init_from__path=str(coco["batch"]))
    plan = prepare(config, tmp_path)
    assert plan.record()["absent"] == [] and plan.unused == {}
    initial = jax.device_put(
        jax.tree.map(
            lambda x: np.zeros(x.shape, x.dtype),
            state.abstract_variables(detector_of(config), config),
        )
    )
    _, stats = plan(*initial)
    params, old_stats = (dict(flat(tree)) for tree in coco_variables("batch"))
    here = dict(flat(stats))
    scales = [path for path in here if path.endswith("scale")]
    assert scales and all(path.startswith(("backbone/", "neck/")) for path in scales)
    for path, x in here.items():
        np.testing.assert_array_equal(x, (params if path in params else old_stats)[path])


@pytest.mark.parametrize(
    "overrides, message",
    [
        (
            dict(init_from__include=("backbon/.*",)),
            r"include: 'backbon/\.\*' matches no parameter .* as in 'backbone/\.\*'",
        ),
        (dict(init_from__exclude=("cls0/kernel",)), r"'cls0/kernel' matches no .*'head/cls0/"),
        (dict(init_from__include=("(",)), r"include: '\(' is no regular expression"),
        (dict(init_from__exclude=(".*",)), "leave nothing to load"),
        (
            dict(class_names=("red", "white")),
            r"none of the classes red, white is one of person, bic",
        ),
        (dict(model__head_norm="none"), r"6 parameters are not in .*head/cls0/bias: absent in"),
        (
            dict(model__neck__width=0.125),
            r"neck/.*: float32\[3,3,\d+,8\] in the source, float32\[3,3,\d+,16\] here",
        ),
    ],
)
def test_what_cannot_be_loaded_is_refused_with_a_remedy(coco, tmp_path, overrides, message):
    config = settings(COCO_CLASSES, init_from__path=str(coco["batch"]))
    for key, value in overrides.items():
        *groups, last = key.split("__")
        functools.reduce(lambda node, group: node[group], groups, config)[last] = value
    with pytest.raises(ConfigError) as error:
        prepare(config, tmp_path)
    assert re.search(message, str(error.value), re.DOTALL), error.value


def test_other_default_boxes_are_warned_of_where_box_layers_are_loaded(coco, tmp_path):
    def warnings(**overrides):
        config = settings(COCO_CLASSES, init_from__path=str(coco["batch"]), **overrides)
        config.model.first_ratio = 0.2
        return prepare(config, tmp_path).warnings

    (warning,) = warnings()
    assert "default-box sizes ((14, 19), " in warning and "there, ((9, 19), " in warning
    assert "ratios" not in warning and "steps" not in warning
    assert warnings(init_from__exclude=("head/loc.*",)) == []


def test_class_layers_by_position(coco, tmp_path):
    def plan(names):
        path, class_map = str(coco["batch"]), "none"
        config = settings(names, init_from__path=path, init_from__class_map=class_map)
        return prepare(config, tmp_path)

    other = plan(SMALL)  # other shapes are left, whatever `strict` says
    assert sorted(other.record()["other_shape"]) == [p for p in sorted(all_paths()) if "cls" in p]
    assert "head/cls0/kernel: float32[3,3,16,324] in the source" in other.describe()
    assert other.warnings == [] and other.classes == ()
    same = plan(COCO_CLASSES[::-1])
    assert same.unused == {} and "loaded by position" in same.warnings[0]


def test_leaving_what_does_not_fit(coco, tmp_path):
    config = settings(
        COCO_CLASSES, "none", init_from__path=str(coco["batch"]), init_from__strict=False
    )
    config.model.neck.width = 0.125
    plan = prepare(config, tmp_path)
    record = plan.record()
    modules = record["modules"]
    assert modules["backbone"]["left"] == modules["backbone"]["other"] == [0, 0]
    assert modules["neck"]["loaded"] == [0, 0] != modules["neck"]["other"]
    assert [p for p in record["absent"] if not p.endswith("bias")] == []
    assert any(path.startswith("head/loc0_norm/") for path in record["unused"])
    total = sum(sum(cells[c][1] for c in cells if c != "unused") for cells in modules.values())
    assert total == sum(entry.size for entry in plan.entries.values())
    text = plan.describe()
    assert "of other shape, as initialised:\n  " in text and "in the source, float32[" in text
