"""What the tests of fine-tuning share: a tokenizer, a stock BERT and a child of ours, all tiny."""

from pathlib import Path

import pytest
import torch
from transformers import BertConfig, BertForMaskedLM

from hf_nasbert.data import DataArguments, MaskedBatches, load_corpus, train_tokenizer
from hf_nasbert.finetuning import pretraining
from hf_nasbert.finetuning.distillation import Guide
from hf_nasbert.modeling import NasBertConfig, NasBertForMaskedLM


def save_models(home: Path, text: str, vocab_size: int = 200) -> None:
    """Write `bert` and `child`, each with a tokenizer trained on the text, into a folder."""
    torch.manual_seed(0)
    tokenizer = train_tokenizer([text] * 3, vocab_size)
    sizes = {"vocab_size": len(tokenizer), "hidden_size": 32, "max_position_embeddings": 64}
    bert = BertConfig(num_hidden_layers=1, num_attention_heads=1, intermediate_size=64, **sizes)
    child = NasBertConfig(operators=["attention", "conv3", "ffn"], **sizes)
    for name, model in (("bert", BertForMaskedLM(bert)), ("child", NasBertForMaskedLM(child))):
        model.save_pretrained(home / name)
        tokenizer.save_pretrained(home / name)


def distillation_arguments(home: Path, output_dir: Path, **changes) -> pretraining.PretrainChildArguments:
    """Four steps of `child`, taught by `teacher`, both in a folder."""
    settings = {
        "model": str(home / "child"), "teacher": str(home / "teacher"), "output_dir": str(output_dir),
        "max_steps": 4, "save_steps": 2, "batch_size": 4, "learning_rate": 1e-2, "num_dev_batches": 1,
        "dev_batch_size": 2, "logging_steps": 1, "disable_tqdm": True, "warmup_steps": 0.0,
    }  # fmt: skip
    return pretraining.PretrainChildArguments(**settings | changes)


def first_batch(home: Path, data: DataArguments) -> dict[str, torch.Tensor]:
    """What the first step of that is made on."""
    corpus = load_corpus(DataArguments(**vars(data) | {"tokenizer_name": str(home / "child")}))
    return MaskedBatches(corpus.train, corpus.tokenizer, batch_size=4, seed=0).batch(0)


def watch_projections(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, torch.Tensor]]:
    """The weights of every projection onto a teacher's width as it is made, which no saved model keeps."""
    projections = []
    add_module = torch.nn.Module.add_module

    def spy(self, name, module):
        if name == "distillation_projection":
            projections.append({key: value.detach().clone() for key, value in module.state_dict().items()})
        add_module(self, name, module)

    monkeypatch.setattr(torch.nn.Module, "add_module", spy)
    return projections


class WatchedTeachers:
    """The teachers of a test's runs, each with its weights as they were when it was loaded."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.seen: list[tuple[Guide, dict[str, torch.Tensor]]] = []
        load = pretraining.load_teacher

        def spy(arguments, tokenizer):
            teacher = load(arguments, tokenizer)
            weights = {name: tensor.clone() for name, tensor in teacher.model.state_dict().items()}
            self.seen.append((teacher, weights))
            return teacher

        monkeypatch.setattr(pretraining, "load_teacher", spy)

    def assert_unmoved(self) -> None:
        """There was one teacher; it has no gradient, no dropout and the weights it came with."""
        ((teacher, before),) = self.seen
        assert all(torch.equal(tensor, before[name]) for name, tensor in teacher.model.state_dict().items())
        assert not teacher.model.training
        assert all(p.grad is None and not p.requires_grad for p in teacher.model.parameters())
