"""What only a GPU can show; skipped where there is none."""

import pytest
import torch

from hf_nasbert import records

if not torch.cuda.is_available():
    pytest.skip("needs a CUDA GPU", allow_module_level=True)

from tiny.farm import RECIPE, without_timing
from tiny.models import BATCHES, gradients, tiny_supernet
from tiny.searches import CHAIN
from tiny.texts import text_arguments
from tiny.trainings import VOCAB_SIZE, KilledBatches, make_supernet, make_trainer, train_log

from hf_nasbert.data import load_corpus
from hf_nasbert.extraction import extract_child
from hf_nasbert.methods import METHODS
from hf_nasbert.modeling import NasBertForMaskedLM
from hf_nasbert.pipeline import LatencyArguments, measure_latency
from hf_nasbert.scoring import score_architectures
from hf_nasbert.training import list_checkpoints
from hf_nasbert.training.farm import run_farm
from hf_nasbert.training.standalone import StandaloneArguments, StandaloneTrainer

CHILD = ("conv3", "attention")


@pytest.fixture(scope="module")
def trainers(tmp_path_factory):
    corpus = load_corpus(text_arguments(tmp_path_factory.mktemp("cache")))
    recipe = StandaloneArguments(**{**RECIPE, "max_steps": 30}, num_dev_batches=3, dev_batch_size=4, eval_steps=5)
    return {device: StandaloneTrainer(recipe, corpus, device=device) for device in ("cpu", "cuda")}


class TestChildrenAlone:
    def test_a_child_learns_what_it_learns_on_a_cpu(self, trainers):
        cpu, gpu = (trainer.train(CHILD, 1) for trainer in trainers.values())
        assert gpu["versions"]["gpu"] == torch.cuda.get_device_name()
        assert gpu["recipe_hash"] == cpu["recipe_hash"]
        for (_, on_cpu), (_, on_gpu) in zip(cpu["curve"], gpu["curve"], strict=True):
            assert on_gpu == pytest.approx(on_cpu, rel=1e-3)
        assert gpu["curve"][-1][1] < gpu["curve"][0][1]

    def test_same_seed_same_record(self, trainers):
        first, again = (without_timing(trainers["cuda"].train(CHILD, 1)) for _ in range(2))
        assert first == again

    def test_farm(self, trainers, tmp_path):
        jobs = [(("conv3", "ffn"), seed) for seed in range(3)]
        table = run_farm(trainers["cuda"], jobs, tmp_path / "table.jsonl", num_workers=2)
        assert len(table) == 3
        assert {record["versions"]["gpu"] for record in table.values()} == {torch.cuda.get_device_name()}


class TestSupernet:
    @pytest.mark.parametrize("precision", ["no", "bf16", "fp16"])
    @pytest.mark.parametrize("method", METHODS)
    def test_trains_and_resumes(self, tmp_path, method, precision):
        settings = {"method": method, "mixed_precision": precision, "use_cpu": False}
        straight = make_trainer(tmp_path / "straight", **settings)
        assert straight.accelerator.device.type == "cuda"
        straight.train()
        losses = [record["loss"] for record in train_log(tmp_path / "straight")]
        assert losses[-1] < losses[0]
        killed = make_trainer(tmp_path / "killed", batches=KilledBatches(4, kill_at=7), **settings)
        with pytest.raises(KeyboardInterrupt):
            killed.train()
        assert [folder.name for folder in list_checkpoints(tmp_path / "killed")] == ["checkpoint-5"]
        make_trainer(tmp_path / "killed", **settings, resume_from_checkpoint="latest").train()
        assert train_log(tmp_path / "killed")[-1]["loss"] == pytest.approx(losses[-1], rel=1e-4)

    def test_one_step_is_that_of_a_cpu(self, tmp_path):
        both = []
        for use_cpu in (True, False):
            trainer = make_trainer(tmp_path / str(use_cpu), method="magic_at", use_cpu=use_cpu)
            trainer.step.backward(0, trainer.method.children(), trainer.batches.batch(0), is_stopping=False)
            both.append(gradients(trainer.supernet))
        on_cpu, on_gpu = both
        assert on_cpu.keys() == on_gpu.keys()
        for name, gradient in on_cpu.items():
            torch.testing.assert_close(on_gpu[name].cpu(), gradient, rtol=1e-3, atol=1e-6)


def test_scores_are_those_of_a_cpu():
    supernet, children = tiny_supernet(CHAIN), list(CHAIN.enumerate())[:100]
    on_cpu = score_architectures(supernet, children, BATCHES)
    batches = [{name: tensor.cuda() for name, tensor in batch.items()} for batch in BATCHES]
    assert score_architectures(supernet.cuda(), children, batches) == pytest.approx(on_cpu, rel=1e-4)


def test_latencies_are_measured(tmp_path):
    supernet = tiny_supernet(CHAIN)
    supernet.save_pretrained(tmp_path / "supernet")
    output = tmp_path / "latency.jsonl"
    arguments = LatencyArguments(
        supernet=str(tmp_path / "supernet"), output=str(output), device="cuda", clock="wall", batch_size=2,
        max_seq_length=8, num_visits=3, num_children=6, num_rounds=3,
    )  # fmt: skip
    measured = measure_latency(arguments)
    assert measured[0]["setting"]["device"] == torch.cuda.get_device_name()
    assert records.read(output) == measured


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_a_child_moves_to_the_gpu(tmp_path, dtype):
    child = extract_child(make_supernet(), ("conv3", "attention", "ffn", "skip"))
    child.save_pretrained(tmp_path)
    placed = NasBertForMaskedLM.from_pretrained(tmp_path, device_map="auto", dtype=getattr(torch, dtype))
    input_ids = torch.randint(5, VOCAB_SIZE, (2, 9))
    with torch.no_grad():
        difference = (placed(input_ids.cuda()).logits.float().cpu() - child(input_ids).logits).abs().max()
    assert placed.device.type == "cuda"
    assert difference < (1e-5 if dtype == "float32" else 2e-2)
