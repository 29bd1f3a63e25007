import json

import pytest

from jdet import build
from jdet import config as config_lib
from jdet.config import get_defaults, parse_arg, validate
from jdet.types import ConfigError


def good():
    c = get_defaults()
    c.model = build.group(
        "detector",
        "ssd",
        backbone=build.group("backbone", "root_resnet", depth=18, width=0.125),
        neck=build.group("neck", "residual_extras"),
    )
    return c


def test_arguments_take_the_type_of_their_default():
    arg = parse_arg("cpu,lr=1e-3,steps=7,root=a/b", cpu=False, lr=0.1, steps=0, root="")
    assert arg.to_dict() == dict(cpu=True, lr=1e-3, steps=7, root="a/b")
    assert parse_arg("", cpu=False).cpu is False
    assert parse_arg("cpu=no", cpu=True).cpu is False


@pytest.mark.parametrize(
    "text, message",
    [
        ("stesp=3", "'stesp' does not exist, did you mean 'steps'"),
        ("steps=many", "steps takes a whole number"),
        ("cpu=perhaps", "cpu takes true or false"),
    ],
)
def test_wrong_arguments_are_named(text, message):
    with pytest.raises(ConfigError, match=message):
        parse_arg(text, steps=0, cpu=False)


def test_defaults_are_valid():
    validate(good())


@pytest.mark.parametrize(
    "key, value, message",
    [
        ("precision", "float16", "config.precision='float16'.*float32, bfloat16"),
        ("optimizer.schedule", "cosin", "did you mean 'cosine'"),
        ("optimizer.lr", 0.0, "config.optimizer.lr=0.0"),
        ("optimizer.lr", float("nan"), "config.optimizer.lr=nan"),
        ("optimizer.decay", 0.0, "config.optimizer.decay=0.0"),
        ("train.save_every", -1, "config.train.save_every=-1"),
        ("train.batch_size", 0, "config.train.batch_size=0"),
        ("eval.max_images", -1, "config.eval.max_images=-1"),
        ("parallel.devices", -1, "config.parallel.devices=-1"),
        ("parallel.bn_group_size", -1, "config.parallel.bn_group_size=-1"),
    ],
)
def test_wrong_values_are_named(key, value, message):
    c = good()
    *parents, last = key.split(".")
    group = c
    for parent in parents:
        group = group[parent]
    group[last] = value
    with pytest.raises(ConfigError, match=message):
        validate(c)


def test_unknown_and_missing_keys_are_named():
    c = good()
    c.train.epoch = 3
    with pytest.raises(
        ConfigError, match="config.train.epoch does not exist, did you mean 'epochs'"
    ):
        validate(c)
    c = good()
    del c.optimizer.lr
    with pytest.raises(ConfigError, match="config.optimizer.lr is missing"):
        validate(c)


@pytest.mark.parametrize(
    "change, message",
    [
        (dict(name="sdd"), "detector 'sdd' does not exist, did you mean 'ssd'"),
        (dict(nms_iuo=0.5), "config.model.nms_iuo is not a field.*did you mean 'nms_iou'"),
        (dict(norm="bach"), "config.model.norm='bach' is no norm, did you mean 'batch'"),
        (dict(taps=("c9",)), "stage 'c9'.*c1, c2, c3, c4"),
    ],
)
def test_wrong_model_is_refused_before_any_compilation(change, message):
    c = good()
    c.model.update(change)
    with pytest.raises(ConfigError, match=message):
        build.detector(c, ("a",))


def test_wrong_backbone_field_names_its_place():
    c = good()
    c.model.backbone.depth = 20
    with pytest.raises(ConfigError, match="config.model.backbone.*depth=20"):
        build.detector(c, ("a",))


def test_group_refuses_what_the_class_does_not_have():
    with pytest.raises(ConfigError, match="'depht', did you mean 'depth'"):
        build.group("backbone", "resnet", depht=18)


def test_own_class_by_module_path():
    from jdet.backbones.vgg import VGG16

    assert build.resolve("backbone", "jdet.backbones.vgg:VGG16") is VGG16
    with pytest.raises(ConfigError, match="cannot be imported"):
        build.resolve("backbone", "jdet.backbones.vgg:VGG99")


def test_stored_config_comes_back(tmp_path):
    c = good()
    c.class_names = ("a", "b")
    path = tmp_path / "config.json"
    path.write_text(json.dumps(c.to_dict()))
    back = config_lib.load(path)
    assert back.to_dict() == c.to_dict()
    with pytest.raises(ConfigError, match="holds no run"):
        config_lib.load(tmp_path / "nowhere" / "config.json")


def test_configs_of_earlier_versions_are_read_in_todays_words(tmp_path):
    """Flat groups of augmentation and resize, renamed keys and values, and keys that did not exist."""
    ssd = {k: v for k, v in build.group("augment", "ssd").to_dict().items() if k != "rotate"}
    c = good().to_dict()
    stored = {
        **c,
        "augment": {**ssd, "name": "none"},
        "resize": {"mode": "warp", "short": [800], "sampling": "list", "long": 1333},
        "eval": {"pictures": 3, "max_pictures": 40},
        "train": {"remat": True},
        "model": {**c["model"], "normalizer": "picture"},
    }
    path = tmp_path / "config.json"
    path.write_text(json.dumps(stored))
    back = config_lib.load(path)
    assert back.augment == build.group("augment", "none")
    assert back.resize == build.group("resize", "warp")
    assert (back.eval.images, back.eval.max_images, back.eval.batch_size) == (3, 40, 32)
    assert back.train.remat == "full" and back.model.normalizer == "image"

    stored["augment"] = {**ssd, "flip": 0.0}
    stored["resize"] = {"mode": "keep_ratio", "short": [64, 80], "long": 128}
    path.write_text(json.dumps(stored))
    back = config_lib.load(path)
    assert back.augment == build.group("augment", "ssd", flip=0.0)
    assert build.resize(back).short == (64, 80)
    assert config_lib.migrate(config_lib.migrate(stored)) == config_lib.migrate(stored)
