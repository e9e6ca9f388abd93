"""Scoring and searching without files: an untrained super-net of 27 children, and random tokens."""

import pytest
import torch

from hf_nasbert.data import DataArguments
from hf_nasbert.modeling import SupernetConfig, SupernetForMaskedLM
from hf_nasbert.pipeline import scores as scores_room
from hf_nasbert.space import SearchSpace

SPACE = SearchSpace.chain(3, ("attention", "ffn", "conv3"))
CONFIG = SupernetConfig(search_space=SPACE, hidden_size=32, vocab_size=60, max_position_embeddings=16)
DATA = DataArguments(packaged="imdb", max_seq_length=8)


def stub_files(monkeypatch: pytest.MonkeyPatch) -> None:
    """An untrained super-net and random tokens: folders and text are not what is tested here."""

    def load_supernet(*_):
        torch.manual_seed(0)
        return SupernetForMaskedLM(CONFIG)

    def load_dev_batches(*_, num_batches, batch_size):
        ids = torch.randint(60, (num_batches, batch_size, 8), generator=torch.Generator().manual_seed(1))
        return [{"input_ids": batch, "labels": batch} for batch in ids], {"dev_data": "random"}

    monkeypatch.setattr(scores_room, "load_supernet", load_supernet)
    monkeypatch.setattr(scores_room, "load_dev_batches", load_dev_batches)
    monkeypatch.setattr(scores_room, "supernet_digest", lambda _: "stub")
