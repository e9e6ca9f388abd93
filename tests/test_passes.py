"""What a method says that a step costs, held against the passes that its steps make."""

import pytest
import torch
from tiny.trainings import VOCAB_SIZE, make_trainer

from hf_nasbert.methods import METHODS
from hf_nasbert.modeling import SupernetConfig, SupernetForMaskedLM
from hf_nasbert.modeling.layouts import SeparateWeights
from hf_nasbert.space import SearchSpace

SPACE = SearchSpace.chain(3, ("attention", "conv3", "conv5"))
STEPS = 24
OFTEN = {
    "learned_distribution": {"distribution_interval": 4, "distribution_rate": 0.0},
    "board": {"board_interval": 4, "board_size": 1, "board_classes": 2},
    "mixture": {"mixture_interval": 4},
    "few_shot": {"split": "gradients", "split_settings": 1},
    "attentive": {"num_size_bins": 3},
    "magic_a": {"alignment_rows": 1.0},  # calls are counted, not rows
    "magic_at": {"alignment_rows": 1.0},
    "magic_at_guarded": {"alignment_rows": 1.0},
}
LESS = {"magic_a", "magic_at", "learned_distribution", "board"}
"""Methods whose teacher begins where it differs from the child or is the child itself, or whose draws come twice."""


@pytest.mark.slow
@pytest.mark.parametrize("name", METHODS)
def test_a_step_costs_what_it_says(tmp_path, monkeypatch, name):
    """A call of a block is a forward pass of it, and with a gradient three."""
    torch.manual_seed(0)
    sizes = {"vocab_size": VOCAB_SIZE, "hidden_size": 32, "max_position_embeddings": 16}
    supernet = SupernetForMaskedLM(SupernetConfig(search_space=SPACE, **sizes))
    trainer = make_trainer(
        tmp_path, supernet=supernet, method=name, max_steps=STEPS, save_steps=1000, num_eval_children=0,
        **OFTEN.get(name, {}),
    )  # fmt: skip
    calls, forward = [], SeparateWeights.forward

    def counted(self, *given, **options):
        made = forward(self, *given, **options)
        calls.append(3 if made.requires_grad else 1)
        return made

    monkeypatch.setattr(SeparateWeights, "forward", counted)
    trainer.train()
    found, said = sum(calls) / SPACE.num_choice_blocks / STEPS, trainer.method.passes_per_step
    assert found <= 1.02 * said
    assert found >= (0.75 if name in LESS else 0.93) * said
