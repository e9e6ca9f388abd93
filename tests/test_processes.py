"""Several processes: they are those that were asked for, and train, resume and score as one does."""

import json
import os
import runpy
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from accelerate.commands.config.config_args import load_config_from_file
from accelerate.commands.launch import launch_command, launch_command_parser
from accelerate.state import AcceleratorState
from helpers import run_recipe
from safetensors.torch import load_file
from tiny.distilling import supernet_and_teacher
from tiny.processes import (
    GLOBAL_BATCH_SIZE,
    TRAININGS,
    launch,
    train_a_while,
    train_all,
    train_beside_one_that,
    train_in_parts,
)
from tiny.trainings import make_arguments, make_supernet, save_tiny_recipe, train_log

from hf_nasbert import processes
from hf_nasbert.methods import METHODS
from hf_nasbert.space import Architecture
from hf_nasbert.training import make_accelerator, read_log

ROOT = Path(__file__).parents[1]
CONFIGS = ROOT / "recipes" / "configs" / "accelerate"


@pytest.fixture(autouse=True)
def _a_world_of_its_own(monkeypatch):
    for name in ("WORLD_SIZE", "MASTER_ADDR", "ACCELERATE_MIXED_PRECISION", "SLURM_STEP_NUM_TASKS"):
        monkeypatch.delenv(name, raising=False)
    AcceleratorState._reset_state(reset_partial_state=True)
    yield
    AcceleratorState._reset_state(reset_partial_state=True)


def run(*command, timeout=600):
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT / "tests")}
    environment.pop("ACCELERATE_USE_CPU", None)
    command = [sys.executable, *map(str, command)]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=timeout, cwd=ROOT)


class TestTheWorldThatWasAskedFor:
    @pytest.mark.parametrize("name", ["WORLD_SIZE", "PMI_SIZE", "OMPI_COMM_WORLD_SIZE", "MV2_COMM_WORLD_SIZE"])
    def test_another_number_of_processes_is_refused(self, monkeypatch, name):
        processes.check_world(1)
        monkeypatch.setenv(name, "2")
        processes.check_world(2)
        for found in (1, 3):
            with pytest.raises(ValueError, match=rf"{name}=2, but {found} process.*multi_cpu\.yaml"):
                processes.check_world(found)
        with pytest.raises(ValueError, match=rf"a walk is work of one process, and {name}=2"):
            processes.be_alone("a walk")

    def test_one_process_where_accelerate_was_asked_for_two_is_refused(self, monkeypatch):
        # What `accelerate launch --cpu --num_processes 2` leaves: one process, and no word about it.
        monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "no")
        processes.join()
        AcceleratorState._reset_state(reset_partial_state=True)
        monkeypatch.setenv("MASTER_ADDR", "127.0.0.1")
        with pytest.raises(ValueError, match="started one"):
            processes.join()

    def test_tasks_of_srun_that_know_nothing_of_each_other_are_refused(self, monkeypatch):
        monkeypatch.setenv("SLURM_STEP_NUM_TASKS", "1")
        processes.check_world(1)
        monkeypatch.setenv("SLURM_STEP_NUM_TASKS", "4")
        with pytest.raises(ValueError, match=r"srun started 4 tasks.*torchrun"):
            processes.check_world(1)
        monkeypatch.setenv("WORLD_SIZE", "8")  # torchrun, started by srun on four nodes
        processes.check_world(8)

    def test_every_recipe_that_computes_refuses(self, monkeypatch, tmp_path, capsys):
        """Before it reads or writes anything: the text that is named here does not exist."""
        monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "no")
        monkeypatch.setenv("MASTER_ADDR", "127.0.0.1")
        monkeypatch.chdir(tmp_path)
        for recipe, settings in RECIPES.items():
            AcceleratorState._reset_state(reset_partial_state=True)
            with pytest.raises(SystemExit) as ended:
                run_recipe(recipe, *settings.split())
            assert "asked for several processes and started one" in str(ended.value), recipe
        assert list(tmp_path.iterdir()) == []

    def test_no_recipe_is_forgotten(self):
        others = {"report_search", "report_ranking", "report_interference", "shrink_space"}  # read records, write one
        trainers = {"finetune_glue", "finetune_squad", "finetune_tokens", "pretrain_child"}  # see test_trainer_recipes
        found = {recipe.stem for recipe in (ROOT / "recipes").glob("*.py")}
        assert found - others - trainers == set(RECIPES)

    def test_trainer_recipes(self, monkeypatch, tmp_path):
        from hf_nasbert.finetuning import FinetuneArguments
        from hf_nasbert.finetuning.runs import trainer_arguments

        arguments = FinetuneArguments(model="x", task="rte", output_dir=str(tmp_path))
        trainer_arguments(arguments, tmp_path, 0)
        monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "no")
        monkeypatch.setenv("MASTER_ADDR", "127.0.0.1")
        with pytest.raises(ValueError, match="asked for several processes and started one"):
            trainer_arguments(arguments, tmp_path, 0)

    @pytest.mark.parametrize("num_asked", [1, 2])
    def test_the_launcher_that_starts_one_process_for_two(self, tmp_path, monkeypatch, num_asked):
        """The one process that accelerate's launcher would start is run here, in the environment that it would get."""
        recipe = ["recipes/pretrain_supernet.py", *RECIPES["pretrain_supernet"].split()]
        recipe += ["--output_dir", str(tmp_path / "run")]
        asked = ["--cpu", "--num_processes", str(num_asked), "--mixed_precision", "no", "--dynamo_backend", "no"]
        started = []

        def start(command, env):
            started.append((command, env))
            return SimpleNamespace(wait=lambda: None, returncode=0)

        with monkeypatch.context() as patch:
            patch.setattr(subprocess, "Popen", start)
            launch_command(launch_command_parser().parse_args([*asked, *recipe]))
        ((command, environment),) = started
        assert command[1:] == recipe
        for name in environment.keys() - os.environ.keys():
            monkeypatch.setenv(name, environment[name])
        words = {
            1: "no.txt",
            2: "hf-nasbert pretrain: accelerate launch was asked for several processes and started one",
        }
        with pytest.raises(SystemExit, match=words[num_asked]):
            run_recipe(Path(command[1]).stem, *command[2:])
        assert not (tmp_path / "run").exists()

    @pytest.mark.parametrize(
        ("environment", "words"),
        [
            ({"ACCELERATE_USE_DEEPSPEED": "true"}, "not trained by DeepSpeed"),
            ({"ACCELERATE_USE_FSDP": "true"}, "FSDP's version 2"),
            ({"ACCELERATE_USE_FSDP": "true", "FSDP_VERSION": "1"}, "FSDP's version 2"),
            (
                {"ACCELERATE_USE_FSDP": "true", "FSDP_VERSION": "2", "FSDP_OFFLOAD_PARAMS": "true"},
                "without off",
            ),
        ],
    )
    def test_engines_that_cannot_train_a_super_net_are_refused(self, monkeypatch, tmp_path, environment, words):
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        with pytest.raises(ValueError, match=words):
            make_accelerator(make_arguments(tmp_path))


@pytest.mark.parametrize("config", sorted(CONFIGS.glob("*.yaml")), ids=lambda config: config.stem)
def test_the_launchers_settings_exist(config):
    loaded = load_config_from_file(str(config))  # refuses unknown ones
    assert loaded.num_processes == 2
    assert loaded.use_cpu is False  # else `accelerate launch` starts a single process


DATA = "--train_files no.txt"
RECIPES = {
    "pretrain_supernet": f"--preset quickstart --output_dir o {DATA}",
    "score_children": f"--supernet s --num_random 3 --output o.jsonl {DATA}",
    "search_children": f"--supernet s --output o.jsonl {DATA}",
    "train_children": f"--table o.jsonl --blocks ffn,conv3 {DATA}",
    "extract_child": "--supernet s --architecture ffn --output_dir o",
    "measure_latency": "--supernet s --output o.jsonl",
    "measure_interference": f"--supernets s --output o.jsonl {DATA}",
    "export_onnx": "--model m --output_dir o",
    "push_child": "--source s --repo_id user/child",
    "rank_children": f"--table imdb --scores o.jsonl --supernets s {DATA}",
    "compress_encoder": f"--base_model m --max_parameters 0.5x --output_dir o {DATA}",
    "plan_compression": f"--base_model m --max_parameters 0.5x --output_dir o {DATA}",
}


def test_work_of_one_process_is_just_done():
    state = processes.join()
    assert processes.on_main_process(state, lambda: 5) == 5
    with pytest.raises(OSError, match="full"):
        processes.on_main_process(state, lambda: (_ for _ in ()).throw(OSError("full")))
    gradient = torch.ones(3)
    processes.StepGroup(state, 1).add_up([gradient])
    assert gradient.tolist() == [1, 1, 1]


def test_any_number_of_processes_shares_a_global_batch(tmp_path):
    for num_processes in (1, 2, 4):
        arguments = make_arguments(tmp_path, global_batch_size=16, per_device_train_batch_size=4)
        assert arguments.train_batch_size(num_processes) == 16
    with pytest.raises(ValueError, match=r"global_batch_size=16 is no multiple of 3 process\(es\) times .*size=4"):
        arguments.train_batch_size(3)
    with pytest.raises(ValueError, match="give one of them"):
        make_arguments(tmp_path, global_batch_size=16, gradient_accumulation_steps=2)


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """Every training by one process."""
    folder = tmp_path_factory.mktemp("alone")
    AcceleratorState._reset_state(reset_partial_state=True)
    return folder, train_all(folder)


@pytest.fixture(scope="module")
def of_two(tmp_path_factory):
    """Every training, and the recipe, by two processes that `accelerate launch` starts: what each of them saw."""
    folder = tmp_path_factory.mktemp("two")
    (folder / "recipe").mkdir()
    save_tiny_recipe(folder / "recipe")
    launcher = ["-m", "accelerate.commands.launch", "--config_file", CONFIGS / "multi_cpu.yaml"]
    launcher += ["--num_processes", 2, "--main_process_port", 0]
    done = run(*launcher, "--module", "tiny.processes", folder)
    assert done.returncode == 0, done.stderr[-3000:]
    return folder, [json.loads((folder / f"seen-2-{rank}.json").read_text()) for rank in range(2)]


@pytest.fixture(scope="module")
def of_four(tmp_path_factory):
    """Some of them by four processes, forked: what a share of two sequences, or of none, may change."""
    folder = tmp_path_factory.mktemp("four")
    names = ["magic_at", "few_rows", "sandwich", "double", "in_place"]
    return folder, json.loads(json.dumps(launch(train_all, 4, str(folder), names, timeout=120)))


@pytest.mark.slow
@pytest.mark.parametrize("world", ["of_two", "of_four"])
def test_processes_train_as_one_does(alone, world, request):
    many_folder, ranks = request.getfixturevalue(world)
    assert all(isinstance(seen, dict) for seen in ranks), ranks
    folder, expected = alone
    assert {TRAININGS[name]["method"] for name in TRAININGS} == set(METHODS)
    assert world == "of_four" or ranks[0].keys() == TRAININGS.keys()
    for name in ranks[0]:
        one, many = expected[name], [rank[name] for rank in ranks]
        assert all(rank["weights"] == many[0]["weights"] for rank in many), (
            f"{name}: processes ended with other weights"
        )
        assert all(rank["evaluation"] == many[0]["evaluation"] for rank in many)
        assert [rank["num_judged"] for rank in many] == [one["num_judged"]] + [0] * (len(ranks) - 1)
        is_compared = TRAININGS[name].get("anchor") != "base_model"
        judges = TRAININGS[name]["method"].startswith(("magic_a", "learned", "board", "mixture"))
        assert (one["num_judged"] > 0) == (judges and is_compared)
        for rank in many:
            assert [step[0] for step in rank["steps"]] == [step[0] for step in one["steps"]]
        is_double = TRAININGS[name].get("dtype") == torch.float64
        assert_same_training(folder / name, many_folder / name, 1e-12 if is_double else 1e-5)


def assert_same_training(folder, other_folder, tolerance):
    """Log and weights of two runs, equal up to the rounding of sums that are added up in another order.

    float32 carries 1.2e-7 of a number; a gradient is a sum over rows that is cut into other parts, and four steps of
    AdamW divide it by its own size. In float64, where the same code rounds at 1e-16, runs agree to 1e-12: there is
    nothing but rounding between them.

    A divergence alone is a small difference of large numbers, log-probabilities of about -3, whose own rounding is
    1e-7 in float32, however small their difference. Probabilities of groups are made of differences of mean losses.
    """
    rounding = dict.fromkeys(("distillation", "consistency"), 0.01 * tolerance) | {"probabilities": 100 * tolerance}
    for event in ("train", "anchor", "shift", "distribution", "eval"):
        logs = [train_log(path, event) for path in (folder, other_folder)]
        assert len(logs[0]) == len(logs[1])
        for single, several in zip(*logs, strict=True):
            for key, value in single.items():
                if key != "children":
                    bounds = {"rel": tolerance, "abs": rounding.get(key)}
                    found = several[key]
                    if isinstance(value, list):  # of a group that was not seen there is no loss
                        value, found = ([-1.0 if one is None else one for one in many] for many in (value, found))
                    expected = pytest.approx(value, **bounds) if isinstance(value, float | list) else value
                    assert found == expected, (folder.name, event, key)
    one, other = (load_file(path / "model.safetensors") for path in (folder, other_folder))
    for name, parameter in one.items():
        torch.testing.assert_close(other[name], parameter, rtol=0, atol=10 * tolerance, msg=f"{folder.name}: {name}")


@pytest.mark.slow
def test_the_recipe_runs_in_the_processes_of_a_launcher(of_two):
    log = read_log(of_two[0] / "recipe" / "run")
    assert log[0]["num_processes"] == 2
    assert log[-1]["event"] == "finish"
    assert [record["step"] for record in log if record["event"] == "train"] == [1, 2, 3, 4]


@pytest.mark.slow
def test_the_children_are_drawn_without_a_word_and_only_their_gradients_are_sent(of_two):
    """`Spy` fails on any message while children are drawn."""
    _, (seen, other) = of_two
    for name, settings in TRAININGS.items():
        is_elastic = "head" in settings
        supernet = (
            supernet_and_teacher(settings["head"])[0] if is_elastic else make_supernet(settings.get("space", "chain"))
        )
        # What states are taught by moves neither embeddings nor a pooler that nobody reads.
        still = (
            {*supernet.base_model.embeddings.parameters(), *supernet.pooler.parameters()}
            if name in ("taught", "blockwise_taught")
            else set()
        )
        for (children, num_messages, num_numbers), at_other in zip(
            seen[name]["steps"], other[name]["steps"], strict=True
        ):
            assert at_other[1:] == [num_messages, num_numbers]
            is_apart = name == "conflict_projection"
            of_candidates = 2 if name == "attentive" else 0
            assert num_messages == 3 + of_candidates, (
                "token counts, gradients, losses; counts and losses of candidates"
            )
            active = {p for text in children for p in supernet.parameters_of(Architecture.parse(text))} - still
            if name != "few_rows":  # there the anchor's are sent too
                losses = 1 + len(METHODS[settings["method"]].terms)
                beside = losses * len(children) + 7  # and counts, sums and flags of the step
                beside += 4 * of_candidates  # counts, and two candidates
                beside += sum(p.numel() for p in active) if is_apart else 0  # gradients of the first child, and others
                assert num_numbers <= sum(p.numel() for p in active) + beside
                assert num_numbers > 0.8 * sum(p.numel() for p in active)


@pytest.mark.slow
def test_a_run_goes_on_with_another_number_of_processes(tmp_path):
    """Stopped after 5 steps of two processes, and then after 9, it goes on with four and ends with one."""
    straight = tmp_path / "straight"
    assert launch(train_a_while, 1, straight, tmp_path / "straight.txt", 12, False) == [12]
    told = tmp_path / "told.txt"
    assert launch(train_a_while, 2, tmp_path / "run", told, 12, False, 5) == [5, 5]
    assert launch(train_a_while, 4, tmp_path / "run", told, 12, True, 9) == [9] * 4
    assert launch(train_a_while, 1, tmp_path / "run", told, 12, True) == [12]
    assert [log["num_processes"] for log in read_log(tmp_path / "run") if log["event"] in ("start", "resume")] == [
        2,
        4,
        1,
    ]
    assert_same_training(straight, tmp_path / "run", 1e-5)

    # Which sequences were given out, by step, whoever took them: nothing is lost and nothing comes twice.
    by_step = [{}, {}]
    for steps, file in zip(by_step, (tmp_path / "straight.txt", told), strict=True):
        for line in file.read_text().splitlines():
            step, ids = json.loads(line)
            steps.setdefault(step, []).extend(ids)
    assert {step: sorted(ids) for step, ids in by_step[0].items()} == {
        step: sorted(ids) for step, ids in by_step[1].items()
    }
    taken = [number for step in range(12) for number in by_step[0][step]]
    assert len(taken) == 12 * GLOBAL_BATCH_SIZE
    for epoch in range(2):  # of 37 sequences
        assert sorted(taken[37 * epoch : 37 * (epoch + 1)]) == list(range(37))


@pytest.mark.slow
def test_a_super_net_in_parts_trains_as_a_whole_one(tmp_path, alone):
    """FSDP2 over two CPU processes, stopped after its first step and resumed."""
    for seen in launch(train_in_parts, 2, tmp_path, timeout=240):
        assert isinstance(seen, dict), seen
        for name, (global_step, share) in seen.items():
            assert global_step == 4
            assert share > 0.9, "hardly anything is in parts"
            assert_same_training(alone[0] / name, tmp_path / name, 1e-5)


@pytest.mark.slow
class TestAProcessThatFails:
    def test_dead(self, tmp_path):
        (error, message, seconds), code = launch(train_beside_one_that, 2, "dies", str(tmp_path), 60)
        assert code == -9
        assert error == "ConnectionError", message
        assert "another process died, or did not come within" in message
        assert seconds < 30

    def test_stalled(self, tmp_path):
        (error, message, seconds), code = launch(
            train_beside_one_that, 2, "stalls", str(tmp_path), 2, timeout=10, grace=1
        )
        assert code == "hung"
        assert error == "ConnectionError", message
        assert "another process died, or did not come within" in message
        assert seconds < 9

    def test_on_another_path(self, tmp_path):
        for error, message, _ in launch(train_beside_one_that, 2, "draws another child", str(tmp_path), 20):
            assert (error, message) == (
                "RuntimeError",
                "the processes drew different children: their gradients cannot be added up",
            )

    def test_none(self, tmp_path):
        """Sanity check: the same two processes train if neither fails."""
        results = launch(train_beside_one_that, 2, "does not fail", str(tmp_path), 20)
        assert [result[0] for result in results] == ["trained"] * 2


def test_the_table_of_the_page_is_that_of_the_record():
    table = runpy.run_path(str(ROOT / "benchmarks" / "synchronization.py"))["table"]
    record = json.loads((ROOT / "benchmarks" / "records" / "synchronization.json").read_text())
    page = (ROOT / "docs" / "processes.md").read_text(encoding="utf-8")
    assert f"<!-- table: synchronization -->\n{table(record)}\n<!-- end -->" in page
    assert f"medians and quartiles of {record['setting']['rounds']} paired steps" in page.replace("\n", " ")
    assert f"--rounds {record['setting']['rounds']}" in page
    assert all(space["largest_difference_of_gradients"] == 0 for space in record["spaces"].values())


def test_the_farm_is_as_fast_as_the_page_says():
    record = json.loads((ROOT / "benchmarks" / "records" / "farm.json").read_text())
    page = (ROOT / "docs" / "processes.md").read_text(encoding="utf-8").replace("\n", " ")
    median, lowest, highest = (
        record[name] for name in ("two_workers_of_one_thread_against_one_of_two", "lowest", "highest")
    )
    assert f"train {median:.1f} times as many children a second" in page
    assert f"({lowest:.1f} to {highest:.1f} over" in page
    assert (record["num_rounds"], record["num_children"]) == (5, 8)
