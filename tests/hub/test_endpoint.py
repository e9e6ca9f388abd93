"""HF_ENDPOINT, HF_TOKEN and HF_HOME mean to our commands what they mean to every tool: a mirror of the Hub, say."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from hub_helpers import files_of
from hub_server import TOKEN

import hf_nasbert

PUSH_AND_PULL = """
import sys
from hf_nasbert.cli import main

table = ["--repo_id", "user/table"]
sys.exit(
    main(["push", "--source", "imdb", *table])
    or main(["pull", *table, "--repo_type", "dataset", "--output_dir", "pulled"])
)
"""


@pytest.mark.slow
def test_a_fresh_process_pushes_to_and_pulls_from_the_hub_of_the_environment(hub, tmp_path):
    """huggingface_hub reads them when it is imported: other tests set what it read."""
    settings = {"HF_ENDPOINT": hub.url, "HF_TOKEN": TOKEN, "HF_HOME": str(tmp_path / "home")}
    settings |= {"HF_HUB_OFFLINE": "0", "HF_HUB_DISABLE_XET": "1", "PYTHONWARNINGS": "ignore"}
    settings["PYTHONPATH"] = str(Path(hf_nasbert.__file__).parents[1])
    done = subprocess.run(
        [sys.executable, "-c", PUSH_AND_PULL], env=os.environ | settings, cwd=tmp_path, capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert hub.url in done.stdout
    assert TOKEN not in done.stdout + done.stderr
    pulled = {file.name: file.read_bytes() for file in (tmp_path / "pulled").iterdir()}
    assert "README.md" in pulled
    assert pulled.items() <= files_of(hub, "datasets/user/table").items()
