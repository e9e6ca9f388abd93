"""Every tutorial is run as it stands, cell by cell, and says what it promises."""

import sys
from pathlib import Path

import nbformat
import pytest
from jupyter_client.kernelspec import KernelSpecManager
from nbclient import NotebookClient

TUTORIALS = sorted((Path(__file__).parents[1] / "docs" / "tutorials").glob("*.ipynb"))


@pytest.mark.slow
@pytest.mark.timeout(2400)  # minutes of computing, many times that where cores are shared
@pytest.mark.parametrize("tutorial", TUTORIALS, ids=lambda tutorial: tutorial.stem)
def test_a_tutorial_runs_from_its_first_cell_to_its_last(tutorial, tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONWARNINGS", "ignore")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")  # other tests use the other cores
    notebook = nbformat.read(tutorial, as_version=4)
    client = NotebookClient(notebook, timeout=1800, resources={"metadata": {"path": str(tmp_path)}})
    client.create_kernel_manager()
    assert isinstance(client.km.kernel_spec_manager, KernelSpecManager)
    client.km.kernel_spec.argv = [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"]
    client.execute()
    told = "".join(
        output.get("text", "") + str(output.get("data", ""))
        for cell in notebook.cells
        if cell.cell_type == "code"
        for output in cell.outputs
    )
    assert len(told) > 200
    written = nbformat.read(tutorial, as_version=4)
    for cell, ran in zip(written.cells, notebook.cells, strict=True):
        if cell.cell_type == "code":  # what readers see was made by these cells
            assert bool(cell.outputs) or not any(o.output_type == "execute_result" for o in ran.outputs), cell.source
