"""Every tutorial is run cell by cell, with less text and fewer steps than it asks for, and says what it promises."""

import sys
from pathlib import Path

import nbformat
import pytest
from jupyter_client.kernelspec import KernelSpecManager
from nbclient import NotebookClient

TUTORIALS = sorted((Path(__file__).parents[1] / "docs" / "tutorials").glob("*.ipynb"))
# What is written in a tutorial, once each, and what the test runs instead: the same calls take minutes less.
LESS = {
    "classifier": {
        '("train", 1000), ("validation", 200), ("test", 400)': '("train", 64), ("validation", 48), ("test", 64)',
        "num_train_epochs=2": "num_train_epochs=1",
        "num_rescored=8": "num_rescored=3",
        "recovery_steps=40": "recovery_steps=2",
        'latency_shape="8x24"': 'latency_shape="1x24"',
    },
    "sentence_encoder": {
        "range(300)": "range(40)",
        "num_sentences=400": "num_sentences=64",
        "num_rescored=8": "num_rescored=3",
        "recovery_steps=12": "recovery_steps=2",
        'latency_shape="8x32"': 'latency_shape="1x32", max_seq_length=12',
    },
    "supernet": {
        "range(1500)": "range(300)",
        "max_steps=120": "max_steps=40",
        "num_evaluations=60": "num_evaluations=15",
    },
}


@pytest.mark.slow
@pytest.mark.timeout(2400)  # a minute of computing, many times that where cores are shared
@pytest.mark.parametrize("tutorial", TUTORIALS, ids=lambda tutorial: tutorial.stem)
def test_a_tutorial_runs_from_its_first_cell_to_its_last(tutorial, tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONWARNINGS", "ignore")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")  # other tests use the other cores
    notebook = nbformat.read(tutorial, as_version=4)
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    for asked, less in LESS[tutorial.stem].items():
        (cell,) = (cell for cell in cells if asked in cell.source)
        cell.source = cell.source.replace(asked, less)
    client = NotebookClient(notebook, timeout=1800, resources={"metadata": {"path": str(tmp_path)}})
    client.create_kernel_manager()
    assert isinstance(client.km.kernel_spec_manager, KernelSpecManager)
    client.km.kernel_spec.argv = [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"]
    client.execute()
    told = "".join(output.get("text", "") + str(output.get("data", "")) for cell in cells for output in cell.outputs)
    assert len(told) > 200
    written = nbformat.read(tutorial, as_version=4)
    for cell, ran in zip(written.cells, notebook.cells, strict=True):
        if cell.cell_type == "code":  # what readers see was made by these cells
            assert bool(cell.outputs) or not any(o.output_type == "execute_result" for o in ran.outputs), cell.source
