"""Every notebook runs from top to bottom, and none carries outputs into the repository."""

import nbformat
import pytest
from nbclient import NotebookClient

from tests.conftest import CACHE
from tests.harness import ROOT, child_environment

NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.name)
def test_outputs_are_stripped(path):
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    for cell in notebook.cells:
        if cell.cell_type == "code":
            assert not cell.outputs and cell.execution_count is None
    assert set(notebook.metadata) <= {"kernelspec", "language_info"}


# Raised by the event loop of Jupyter's client, not by us.
@pytest.mark.filterwarnings(
    "ignore::DeprecationWarning", "ignore::pytest.PytestUnraisableExceptionWarning"
)
@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_inspect_model(monkeypatch, tmp_path):
    monkeypatch.setenv("PYTHONPATH", child_environment()["PYTHONPATH"])
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", CACHE)
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path))
    notebook = nbformat.read(ROOT / "notebooks" / "inspect_model.ipynb", as_version=4)
    resources = {"metadata": {"path": str(tmp_path)}}
    NotebookClient(notebook, timeout=600, kernel_name="python3", resources=resources).execute()
    outputs = [
        output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs
    ]
    said = "".join(
        output.get("text") or output.get("data", {}).get("text/plain", "") for output in outputs
    )
    for told in (
        "running statistics",
        "GMAC",
        "extent",
        "default boxes match",
        "recall",
        "% zero",
    ):
        assert told in said, told
    images = [output for output in outputs if "image/png" in output.get("data", {})]
    assert len(images) == 4  # influence, matches, two levels of activations
