"""Fine-tuning and continued pre-training: a tokenizer, a stock BERT, a child of ours, and runs of some steps."""

from pathlib import Path

import pytest
import torch
from transformers import BertConfig, BertForMaskedLM

from hf_nasbert.data import DataArguments, MaskedBatches, load_corpus, train_tokenizer
from hf_nasbert.finetuning import FinetuneArguments, PretrainChildArguments, finetune, pretrain_child, pretraining
from hf_nasbert.finetuning.distillation import Guide
from hf_nasbert.modeling import NasBertConfig, NasBertForMaskedLM

WORDS = "the film was good and long but the actors play well why not bad"


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


def distillation_arguments(home: Path, output_dir: Path, **changes) -> PretrainChildArguments:
    """Four steps of `child`, taught by `teacher`, both in a folder."""
    settings = {
        "model": str(home / "child"), "teacher": str(home / "teacher"), "output_dir": str(output_dir),
        "max_steps": 4, "save_steps": 2, "batch_size": 4, "learning_rate": 1e-2, "num_dev_batches": 1,
        "dev_batch_size": 2, "logging_steps": 1, "disable_tqdm": True, "warmup_steps": 0.0,
    }  # fmt: skip
    return PretrainChildArguments(**settings | changes)


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


class Home:
    """A tiny model, its text and labels, and runs of eight steps with a checkpoint every two."""

    def __init__(self, folder: Path) -> None:
        torch.set_num_threads(1)
        self.folder = folder
        save_models(folder, WORDS, 64)
        (folder / "corpus.txt").write_text("\n".join(f"{WORDS} {number}" for number in range(60)))
        rows = [f'"{word} film {n}",{label}' for n in range(8) for word, label in (("good", "yes"), ("bad", "no"))]
        for name in ("train", "validation"):
            (folder / f"{name}.csv").write_text("\n".join(["text,label", *rows]))

    def pretrain(self, output_dir: Path, callbacks=(), **changes):
        settings = {
            "max_steps": 8, "save_steps": 2, "batch_size": 4, "num_dev_batches": 1, "dev_batch_size": 2,
            "learning_rate": 1e-2, "disable_tqdm": True, "logging_steps": 1,
        }  # fmt: skip
        arguments = PretrainChildArguments(
            model=str(self.folder / "child"), output_dir=str(output_dir), **settings | changes
        )
        return pretrain_child(arguments, self.data(), callbacks=list(callbacks))

    def data(self) -> DataArguments:
        return DataArguments(
            train_files=[str(self.folder / "corpus.txt")], max_seq_length=16, validation_fraction=0.2,
            cache_dir=str(self.folder / "cache"),
        )  # fmt: skip

    def finetune(self, output_dir: Path, callbacks=(), **changes):
        files = {f"{name}_file": str(self.folder / f"{name}.csv") for name in ("train", "validation")}
        settings = {
            "max_steps": 8, "eval_steps": 2, "batch_size": 4, "max_seq_length": 16, "disable_tqdm": True,
            "early_stopping_patience": 9, "cache_dir": str(self.folder / "cache"),
        }  # fmt: skip
        arguments = FinetuneArguments(
            model=str(self.folder / "bert"), output_dir=str(output_dir), **files | settings | changes
        )
        return finetune(arguments, callbacks=list(callbacks)).records[0]
