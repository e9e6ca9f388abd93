"""What the tests of interference share: super-nets and batches, and records of a made-up study."""

import random
from pathlib import Path

import pytest
import torch
from modelling_helpers import randomise_

from hf_nasbert.modeling import SupernetConfig, SupernetForMaskedLM
from hf_nasbert.space import SearchSpace

ROOT = Path(__file__).parents[1]
TEXT = ROOT / "tests" / "data" / "tiny.txt"
SPACES = {
    "chain": SearchSpace.chain(4, ("attention", "ffn", "conv3", "conv5")),
    "skip": SearchSpace.chain(4, ("attention", "ffn", "conv3", "skip")),
    "staged": SearchSpace.staged(2, 2, ("attention", "conv3", "ffn", "skip"), widths=(32, 64)),
    "stem": SearchSpace.of_blocks(["conv3", "attention,ffn,conv3", "attention,ffn,conv3"]),
}
every_space = pytest.mark.parametrize("name", SPACES)


def make_supernet(name="chain", *, dropout=0.0, **overrides):
    sizes = {"vocab_size": 61, "hidden_size": 32, "max_position_embeddings": 24, **overrides}
    config = SupernetConfig(
        search_space=SPACES[name], hidden_dropout_prob=dropout, attention_probs_dropout_prob=dropout, **sizes
    )
    return randomise_(SupernetForMaskedLM(config)).eval()


def make_batch(seed=0, shape=(3, 9)):
    """Padding on either side, labels unevenly spread: none in the second sequence."""
    generator = torch.Generator().manual_seed(seed)
    attention_mask = torch.ones(shape, dtype=torch.long)
    attention_mask[0, 6:] = 0
    attention_mask[-1, :2] = 0
    chosen = (torch.rand(shape, generator=generator) < 0.4) & attention_mask.bool()
    chosen[0, 0], chosen[1] = True, False
    labels = torch.randint(1, 61, shape, generator=generator).where(chosen, -100)
    input_ids = torch.randint(1, 61, shape, generator=generator)
    return {"input_ids": input_ids, "attention_mask": attention_mask, "labels": labels}


BATCHES = [make_batch(0), make_batch(1, (2, 12))]


def columns(rows):
    return {name: [row[name] for row in rows] for name in rows[0]}


def measurement(*, method="uniform", seed=0, step=10, pairs=None, blocks=None, gain=0.0):
    """A record of made-up pairs: gradient similarity falls with distance and rises with that of the inputs."""
    rng = random.Random(seed)
    made = []
    for child in range(8):
        level = random.Random(child).gauss(0, 0.1)  # rows of a child have something in common
        for distance in (1, 2, 3):
            for block in range(3):
                for batch in range(2):
                    inputs = 1.0 if block == 0 else 0.9 - 0.1 * distance + rng.gauss(0, 0.03)
                    value = 0.9 - 0.15 * distance + 0.5 * (inputs - 0.7) + level + gain + rng.gauss(0, 0.01)
                    made.append(
                        {
                            "child": child,
                            "architecture": "a",
                            "other": f"b{distance}",
                            "distance": distance,
                            "block": block,
                            "operator": ("ffn", "attention")[(block + child) % 2],
                            "num_before": min(block, distance),
                            "batch": batch,
                            "gradient_similarity": value,
                            "input_similarity": inputs,
                            "output_similarity": inputs,
                        }
                    )
    compared = [
        {"setting": number, "block": block, "first": "attention", "second": "ffn", "gradient_similarity": 0.5 + gain}
        for number in range(3)
        for block in range(2)
    ]
    return {
        "supernet": f"{method}-{seed}-{step}",
        "method": method,
        "seed": seed,
        "step": step,
        "max_steps": 10,
        "pairs": columns(pairs or made),
        "blocks": columns(blocks or compared),
    }


STUDY = [
    measurement(method=method, seed=seed, step=step, gain=gain)
    for seed in (0, 1)
    for method, step, gain in (("uniform", 0, 0.1), ("uniform", 5, -0.05), ("uniform", 10, 0), ("magic_t", 10, 0.03))
]
