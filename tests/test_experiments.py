"""Every experiment loads, validates, builds and passes abstract evaluation."""

import importlib.util
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest

from jdet import build
from jdet.config import validate
from jdet.types import ConfigError

ROOT = Path(__file__).resolve().parents[1]
DATA = ROOT.parent / "shared" / "data"
FILES = sorted(ROOT.glob("experiments/*.py"))
ARGUMENTS = {
    "scratchdet_bccd": ["", "cpu"],
    "scratchdet_voc": ["", *(f"backbone={b}" for b in ("root_resnet18", "resnet18", "resnet18a"))]
    + ["backbone=resnet18b", "backbone=vgg16,norm=none,head_norm=batch,lr=0.01"],
}


def load(path):
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def check(config):
    validate(config)
    names = tuple("abc")
    detector = build.detector(config, names)
    size = config.input_size
    images = jax.ShapeDtypeStruct((1, size, size, 3), jnp.uint8)
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
        if path.stem != "scratchdet_custom"
        for arg in ARGUMENTS.get(path.stem, [""])
    ],
    ids=lambda value: value.stem if isinstance(value, Path) else value,
)
def test_experiment(path, arg):
    module = load(path)
    assert module.__doc__ and "Expect" in module.__doc__
    check(module.get_config(arg))


@pytest.mark.parametrize("name", ["bccd", "deeppcb", "coco_open", "dsb2018_nuclei"])
@pytest.mark.parametrize("arg", ["", ",cpu"])
def test_custom_experiment_reads_real_folders(name, arg):
    if not (DATA / name).is_dir():
        pytest.skip(f"{DATA / name} is not on this machine")
    module = load(ROOT / "experiments" / "scratchdet_custom.py")
    config = module.get_config(f"root={DATA / name}{arg}")
    check(config)
    train, evaluation = build.sources(config)
    assert train.class_names == evaluation.class_names
    ids = [{source[i].id for i in range(len(source))} for source in (train, evaluation)]
    assert not ids[0] & ids[1]


def test_custom_experiment_says_what_it_needs(tmp_path):
    module = load(ROOT / "experiments" / "scratchdet_custom.py")
    with pytest.raises(ConfigError, match="root=PATH"):
        module.get_config("")
    with pytest.raises(ConfigError, match="neither of VOC shape"):
        module.get_config(f"root={tmp_path}")


def test_voc_recipe_is_the_papers():
    config = load(ROOT / "experiments" / "scratchdet_voc.py").get_config("")
    assert (config.train.batch_size, config.train.steps) == (128, 100_000)
    assert (config.optimizer.lr, config.optimizer.reference_batch) == (0.05, 128)
    assert (config.optimizer.momentum, config.optimizer.weight_decay) == (0.9, 5e-4)
    assert config.optimizer.warmup == 0 and config.optimizer.clip_norm == 0
