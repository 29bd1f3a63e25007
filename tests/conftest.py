"""Every test sees four CPU devices, quick compilations and a cache of them that outlives the session."""

import gc
import os
from importlib.metadata import version
from pathlib import Path

os.environ["JAX_PLATFORMS"] = "cpu"
# Compiling is most of what the suite takes, and few programs run long enough to repay optimising them:
# those of tests marked ``trains``, for which `make test` sets another level.
# Programs that tests start inherit this; flags that are there already come last, and win.
QUICK = "--xla_backend_optimization_level=0 --xla_cpu_parallel_codegen_split_count=1"
# A flag that jaxlib does not know ends the process, and this one left it.
PLAIN = "--xla_cpu_use_fusion_emitters=false" * version("jaxlib").startswith("0.10.")
given = os.environ.get("XLA_FLAGS", "").removeprefix(QUICK)
if "optimization_level" not in given and PLAIN not in given:
    given = f"{PLAIN} {given}"
os.environ["XLA_FLAGS"] = f"{QUICK} {given.strip()}".strip()

import jax  # noqa: E402
import pytest  # noqa: E402
from absl import flags  # noqa: E402
from hypothesis import settings  # noqa: E402

ROOT = Path(__file__).resolve().parents[1]
CACHE = os.environ.get("JAX_COMPILATION_CACHE_DIR", str(ROOT / ".cache" / "jax"))

os.environ["JAX_COMPILATION_CACHE_DIR"] = CACHE  # of programs that tests start
jax.config.update("jax_num_cpu_devices", 4)
jax.config.update("jax_compilation_cache_dir", CACHE)
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.5)
# Input workers read absl flags, which nothing parses under pytest.
flags.FLAGS.mark_as_parsed()

# The first example of a test compiles; and a suite that decides over a merge must not roll dice.
settings.register_profile("jdet", deadline=None, derandomize=True, max_examples=50)
settings.load_profile("jdet")


ENOUGH = 1.5e9
"""Bytes in memory above which a worker drops its compiled programs, which can come to 4 GB."""

LONGEST = (
    "train/test_splits.py",
    "detectors/test_ssd.py",
    "detectors/test_retinanet.py",
    "detectors/test_dense_detector.py",
    "nn/test_remat.py",
    "backbones/test_battery.py",
    "parallel/test_supervisor.py",
    "test_describe.py",
    "test_experiments.py",
    "test_resume.py",
    "train/test_processes.py",
)
"""Files under tests/ that take longest, which begin first: at the end every worker has short ones left."""


def pytest_ignore_collect(collection_path, config):
    """Spares the part of tests that train for long the import of the files that have none."""
    if config.getoption("markexpr").startswith("trains") and collection_path.suffix == ".py":
        return "mark.trains" not in collection_path.read_text() or None


def pytest_collection_modifyitems(items):
    """Workers take whole files in the order of the items."""
    first = {ROOT / "tests" / name for name in LONGEST}
    items.sort(key=lambda item: item.path not in first)


def pytest_collection_finish():
    """Spares the garbage collector what lives as long as the session, and looks less often.

    Tracing makes millions of small objects that live long: a fifth of its time is the collector's.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 100)


@pytest.fixture(scope="module", autouse=True)
def _programs_do_not_pile_up():
    """Drops the compiled programs of earlier files where they take much memory."""
    yield
    held = Path("/proc/self/statm")
    pages = int(held.read_text().split()[1]) if held.exists() else 0
    if pages * os.sysconf("SC_PAGE_SIZE") > ENOUGH:
        jax.clear_caches()
        gc.collect()
