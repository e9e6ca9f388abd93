"""A device whose clock only operators advance: what a latency table of it must say is known exactly."""

import itertools

import pytest
from torch import nn

from hf_nasbert.measuring import Device
from hf_nasbert.modeling import modeling_nasbert, operators_nasbert

# Seconds of a fake second hand, binary fractions so that sums are exact.
OUTSIDE = 2.0 + 0.5
ADAPTERS = {(32, 64): 0.125, (64, 32): 0.0625}


def seconds_of(name: str, width: int) -> float:
    return {"attention": 4.0, "ffn": 8.0, "conv3": 1.0, "conv5": 1.5, "skip": 0.25}[name] * (width / 32 + 1)


@pytest.fixture
def fake_time(monkeypatch):
    """A device whose clock stands still but for what operators, adapters, embeddings and pooler put on it."""
    hand = [0.0]
    calls = itertools.count()

    def advancing(owner, seconds):
        forward = owner.forward

        def advance(module, *args, **kwargs):
            # Now and then something else happens on the machine: medians do not care.
            spent = seconds(module, args[0])
            hand[0] += spent + (1000.0 if spent and next(calls) % 197 == 0 else 0.0)
            return forward(module, *args, **kwargs)

        monkeypatch.setattr(owner, "forward", advance)

    advancing(operators_nasbert.NasBertAttention, lambda _, x: seconds_of("attention", x.shape[-1]))
    advancing(operators_nasbert.NasBertFeedForward, lambda _, x: seconds_of("ffn", x.shape[-1]))
    advancing(
        operators_nasbert.NasBertConvolution,
        lambda module, x: seconds_of(f"conv{module.layers[0].depthwise.kernel_size[1]}", x.shape[-1]),
    )
    advancing(operators_nasbert.NasBertSkip, lambda _, x: seconds_of("skip", 32))
    advancing(modeling_nasbert.NasBertEmbeddings, lambda *_: 2.0)
    advancing(modeling_nasbert.NasBertPooler, lambda *_: 0.5)
    advancing(nn.Linear, lambda module, _: ADAPTERS.get((module.in_features, module.out_features), 0.0))
    device = Device(batch_size=2, sequence_length=8)
    device.now = lambda: hand[0]
    return device
