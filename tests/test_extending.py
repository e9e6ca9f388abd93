"""docs/extending.md is run: its space, its training method, and its operator in a patched copy of the package.

Its mean teacher is run by test_averages.py.
"""

import json
import os
import runpy
import shutil
import subprocess
import sys

import pytest
import yaml
from tiny.pages import ROOT, blocks, python_of
from tiny.processes import forked

from hf_nasbert.training import SupernetArguments, read_log

TINY = [
    "--train_files", str(ROOT / "tests" / "data" / "tiny.txt"), "--sample_by", "paragraph", "--vocab_size", "300",
    "--max_seq_length", "16", "--validation_fraction", "0.3",
]  # fmt: skip
TRAINING = [
    "--hidden_size", "32", "--max_steps", "4", "--per_device_train_batch_size", "4", "--save_steps", "2",
    "--num_eval_batches", "1", "--use_cpu", "true", "--report_to", "none", "--disable_tqdm", "true",
]  # fmt: skip


def run(*command, cwd, path=()):
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(map(str, path)), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, *map(str, command)], cwd=cwd, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
    return done.stdout


def run_script(script, *argv):
    """Run a script as its user does, in a forked process: what it registers is nobody else's."""

    def as_main():
        sys.argv = [str(script), *map(str, argv)]
        sys.path.insert(0, str(script.parent))
        runpy.run_path(str(script), run_name="__main__")

    process = forked(as_main)
    process.join(250)
    assert process.exitcode == 0


def test_spaces():
    (settings,) = blocks("yaml")
    config = SupernetArguments(**yaml.safe_load(settings)).build_config()
    names: dict[str, object] = {}
    exec(compile(blocks("python")[0], "docs/extending.md", "exec"), names)
    assert config.space == names["space"]
    assert config.hidden_size == 96


@pytest.fixture(scope="module")
def script(tmp_path_factory):
    """The page's script, and the checks that it shows."""
    folder = tmp_path_factory.mktemp("method")
    checks = blocks("python")[-1]
    (folder / "neighbour.py").write_text(python_of("Neighbour"))
    (folder / "checks.py").write_text(checks)
    return folder / "neighbour.py"


@pytest.mark.slow
class TestMethod:
    def test_trains_and_goes_on_to_the_same_bits(self, script, tmp_path):
        space = "--operators attention ffn conv3 --num_choice_blocks 3 --method neighbour --second_weight 0.5".split()
        train = [script, "pretrain", *TINY, *TRAINING, *space, "--cache_dir", tmp_path / "cache"]
        run_script(*train, "--output_dir", tmp_path / "whole")
        (begun,) = [record["arguments"] for record in read_log(tmp_path / "whole") if "arguments" in record]
        assert (begun["method"], begun["second_weight"]) == ("neighbour", 0.5)
        shutil.copytree(tmp_path / "whole" / "checkpoint-2", tmp_path / "again" / "checkpoint-2")
        run_script(*train, "--output_dir", tmp_path / "again", "--resume_from_checkpoint", "latest")
        whole, again = ((tmp_path / name / "model.safetensors").read_bytes() for name in ("whole", "again"))
        assert whole == again

    def test_it_keeps_its_promises(self, script):
        run_script(script.parent / "checks.py")

    def test_one_step_trains_neighbours(self, script):
        one_step = script.parent / "one_step.py"
        one_step.write_text(
            "from neighbour import NeighbourSampler; from hf_nasbert.space import SearchSpace, hamming\n"
            "sampler = NeighbourSampler(SearchSpace.chain(4, ('attention', 'ffn', 'conv3')), seed=0)\n"
            "assert all(hamming(*sampler.next_step()) == 1 for _ in range(50))"
        )
        run_script(one_step)


@pytest.fixture(scope="module")
def fork(tmp_path_factory):
    """A copy of package and tests with the patch that the page names."""
    folder = tmp_path_factory.mktemp("fork")
    ignored = shutil.ignore_patterns("__pycache__")
    for name in ("src/hf_nasbert", "tests", "recipes"):
        shutil.copytree(ROOT / name, folder / name, ignore=ignored)
    shutil.copy(ROOT / "pyproject.toml", folder)
    patch = (ROOT / "docs" / "glu.patch").read_text()
    done = subprocess.run(
        ["git", "apply", "-"], input=patch, cwd=folder, capture_output=True, text=True, check=False,
        env=os.environ | {"GIT_CEILING_DIRECTORIES": str(folder.parent)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return folder


@pytest.mark.slow
class TestOperator:
    def test_its_tests_find_it_and_pass(self, fork):
        out = run(
            "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests/test_operators.py", "tests/test_costs.py", "-k",
            "glu or built_child or another_function", cwd=fork, path=[fork / "src", fork / "tests"],
        )  # fmt: skip
        assert " passed" in out

    def test_is_trained_extracted_and_loaded_elsewhere(self, fork, tmp_path):
        space = "--operators attention glu conv3 --num_choice_blocks 4".split()
        train = [*space, "--cache_dir", tmp_path / "cache"]
        commands = [
            ["pretrain", *TINY, *TRAINING, *train, "--output_dir", "glu"],
            ["extract", "--supernet", "glu", "--architecture", "glu-conv3-glu-attention", "--output_dir", "my-child"],
        ]
        code = "import json, sys; from hf_nasbert.cli import main; sys.exit(any(map(main, json.loads(sys.argv[1]))))"
        run(
            "-c",
            code,
            json.dumps([list(map(str, command)) for command in commands]),
            cwd=tmp_path,
            path=[fork / "src"],
        )
        code = (
            "import sys; sys.modules['hf_nasbert'] = None\n"
            "from transformers import AutoModelForMaskedLM\n"
            "child = AutoModelForMaskedLM.from_pretrained('my-child', trust_remote_code=True)\n"
            "print(child.config.operators, type(child.nasbert.encoder.blocks[0].operator).__name__)"
        )
        said = run("-c", code, cwd=tmp_path)
        assert "['glu', 'conv3', 'glu', 'attention'] NasBertGatedFeedForward" in said
