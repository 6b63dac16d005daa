"""Every notebook runs from top to bottom in an empty folder, and is stored without output."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

import nbformat
import pytest
from jupyter_client.manager import KernelManager
from nbclient import NotebookClient

NOTEBOOKS = sorted((Path(__file__).resolve().parents[1] / "notebooks").glob("*.ipynb"))
EPOCHS = re.compile(r"(?<![.\w])epochs=\d+")
"""What is changed in the cells: how long the student is trained."""


@pytest.fixture(scope="module")
def kernel() -> Iterator[KernelManager]:
    """One for all notebooks, whose imports take longer than what most of them do."""
    settings = {k: v for k, v in os.environ.items() if not k.startswith(("ENSEMBLE_KD_", "HYDRA_"))}
    manager = KernelManager()
    manager.start_kernel(env=settings)
    yield manager
    manager.shutdown_kernel(now=True)


@pytest.mark.slow
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_every_cell_runs(path: Path, own_folder: Path, kernel: KernelManager) -> None:
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    assert any(EPOCHS.search(cell.source) for cell in notebook.cells)
    for cell in notebook.cells:
        cell.source = EPOCHS.sub("epochs=2", cell.source)
    # Nothing of the notebook before is left.
    notebook.cells.insert(0, nbformat.v4.new_code_cell(f"%reset -f\n%cd -q {own_folder}"))
    client = NotebookClient(notebook, km=kernel, timeout=300)
    try:
        client.execute()
    finally:
        if client.kc is not None:
            client.kc.stop_channels()
    said = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    assert any("image/png" in output.get("data", {}) for output in said)
    assert [output["text"] for output in said if output.get("name") == "stderr"] == []


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_no_output_is_stored(path: Path) -> None:
    notebook = nbformat.read(path, as_version=4)
    for cell in notebook.cells:
        assert not cell.get("outputs")
        assert cell.get("execution_count") is None
