"""Data flows one way: no module imports from a layer above its own, and nothing heavy slips in."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1] / "jdet"

# Parts of a part that stand below it.
EVALUATORS = ("evaluation.voc_ap", "evaluation.coco_ap")

# What each part may import, besides `EVERYWHERE` and itself; the longest prefix of a module counts.
BELOW = {
    "types": set(),
    "atomic_files": set(),
    "config.ranges": set(),
    "config": {"data"},
    "ops": set(),
    "nn": {"config.ranges", "ops"},
    "backbones": {"ops", "nn"},
    "necks": {"ops", "nn"},
    "detectors": {"config.ranges", "ops", "nn"},
    "parallel": set(),
    "data": set(),
    "build": {"config", "nn", "backbones", "necks", "detectors", "data", *EVALUATORS},
    "train": {"config", "ops", "nn", "parallel"},
    "evaluation.masks": {"data.segmentation"},
    "evaluation.official": {"data"},
    "evaluation.voc_ap": {"config.ranges", "data", "evaluation.official"},
    "evaluation.coco_ap": {
        "config.ranges",
        "data.segmentation",
        "evaluation.masks",
        "evaluation.official",
    },
    "evaluation.ensemble": {"cli", "config", "build", "data", "evaluation", "ops", "train"},
    "evaluation": {"config", "build", "nn.fold", "ops", "data", "parallel", "train"},
    "analysis": {
        "ops",
        "nn",
        "data",
        "detectors",
        "train",
        "config",
        "build",
        "cli",
        "evaluation",
        "parallel",
    },
    "analyse.records": {"train.folders"},
    "analyse": {"cli", "config", "build", "data", "evaluation", "html_report", "train"},
    "compare": {"analyse", "analysis.curves", "cli", "data"},
    "interop": {"config", "train"},
    "cli": {"config", "build", "train"},
    "cpu_allocator": set(),
    "html_report": {
        *("analyse.evaluated", "analyse.records", "analysis.curves", "cli", "config", "build"),
        *("data", "evaluation", "train"),
    },
    "run": {
        *("config", "build", "phases", "analyse", "analysis", "data", "evaluation", "parallel"),
        *("html_report", "train"),
    },
    "preflight": {"cli", "config", "build", "data", "describe", "evaluation", "parallel", "train"},
    "profile": {
        *("analysis.curves", "cli", "config", "cpu_allocator", "build", "data", "describe"),
        *("evaluation", "parallel", "preflight", "train"),
    },
    "browse": {"cli", "config", "build", "data", "evaluation"},
    "doctor": {
        "analyse.evaluated",
        "analyse.records",
        "analysis",
        "cli",
        "config",
        "build",
        "data",
        "evaluation",
        "train",
    },
    "describe": {"cli", "config", "build", "data", "parallel", "preflight", "train"},
    "phases": {"analysis.curves", "config", "build", "parallel", "train"},
    "certify": {"cli", "config", "build", "data", "train"},
    "verify": {"certify", "cli", "config", "run", "train"},
    "convert": {"cli", "build", "data"},
    "export": {"analyse", "cli", "config", "build", "data", "evaluation", "train"},
    "predict": {"analyse", "cli", "config", "data", "evaluation", "train"},
    "search_batch": {
        *("cli", "config", "build", "data", "describe", "parallel", "preflight", "run", "train"),
    },
    "main": {"cli", "cpu_allocator", "parallel", "run", "train"},
}
EVERYWHERE = {"types", "atomic_files", "__version__"}
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
    module = ".".join(path.relative_to(ROOT).with_suffix("").parts)
    if module == "__init__":
        return
    part = max((p for p in BELOW if f"{module}.".startswith(f"{p}.")), key=len)
    allowed = BELOW[part] | EVERYWHERE | {part}
    for name in imports(path):
        pieces = name.split(".")
        if pieces[0] == "jdet" and len(pieces) > 1:
            inner = name.removeprefix("jdet.")
            below = any(f"{inner}.".startswith(f"{p}.") for p in allowed)
            parent = any(p.startswith(f"{inner}.") for p in allowed)  # `from jdet.x import y`
            assert below or parent, f"{part} imports {name}"
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
    folders = [ROOT / "data" / name for name in ("layouts", "sources", "transforms")]
    names = [path.relative_to(ROOT.parent) for folder in folders for path in folder.rglob("*.py")]
    modules = [".".join(name.with_suffix("").parts) for name in names]
    code = "import sys\n" + "".join(f"import {module}\n" for module in modules)
    code += "assert 'jax' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
