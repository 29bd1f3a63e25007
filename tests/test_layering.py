"""Data flows one way: no module imports from a layer above its own, and nothing heavy slips in."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1] / "jdet"

# What each part may import, besides `jdet.types`, `jdet.files` and itself.
BELOW = {
    "ops": set(),
    "nn": {"ops"},
    "backbones": {"ops", "nn"},
    "necks": {"ops", "nn"},
    "detectors": {"ops", "nn"},
    "hosts": set(),
    "data": set(),
    "train": {"config", "ops", "detectors", "hosts"},
    "evaluation": {"ops", "data", "hosts"},
    "analysis": {"ops", "data", "detectors", "train", "config", "build", "command"},
    "files": set(),
    "config": set(),
    "build": {"config", "nn", "backbones", "necks", "detectors", "data"},
}
EVERYWHERE = {"types", "files", "__version__"}
FLAX = {"nn", "backbones", "necks", "detectors"}


def imports(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


@pytest.mark.parametrize("path", sorted(ROOT.rglob("*.py")), ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_point_downwards(path):
    part = path.relative_to(ROOT).parts[0].removesuffix(".py")
    for name in imports(path):
        pieces = name.split(".")
        if pieces[0] == "jdet" and len(pieces) > 1 and part in BELOW:
            assert pieces[1] in BELOW[part] | EVERYWHERE | {part}, f"{part} imports {name}"
        if pieces[0] == "flax":
            assert part in FLAX, f"{part} imports flax"
        if pieces[0] == "orbax":
            assert path.name == "checkpoint.py"
        if pieces[0] == "jax":
            assert part != "data", "input workers must start without JAX"
        assert pieces[0] not in ("tensorflow", "torch")


def test_import_starts_nothing_and_pulls_in_neither_tensorflow_nor_torch():
    code = (
        "import sys, jdet, jdet.run, jdet.build, jdet.predict, jdet.describe\n"
        "from jax._src import xla_bridge\n"
        "assert not xla_bridge._backends, 'importing jdet started a backend'\n"
        "assert not {'tensorflow', 'torch', 'tensorflow_datasets'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_sources_and_transforms_do_without_jax():
    modules = "voc coco shapes tfds_source holdout image_io augmentation geometry photometric"
    code = "import sys\n" + "".join(f"import jdet.data.{name}\n" for name in modules.split())
    code += "assert 'jax' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
