"""The contract of every model, kept by children of all heads and by super-nets, and broken by classes made for it."""

import pytest
import torch
from broken_models import (
    BlindForMaskedLM,
    BlindModel,
    DroppingForMaskedLM,
    ForgetfulModel,
    HalfBlindModel,
    LooseForMaskedLM,
    TornForMaskedLM,
    TornSupernetForMaskedLM,
)
from model_contract import ModelContract
from tiny.models import MODELS, chain_config, chain_supernet_config

from hf_nasbert.modeling import NasBertConfig, SupernetConfig

CHILDREN = {name: pair for name, pair in MODELS.items() if name.startswith("NasBert")}
SUPERNETS = {name: pair for name, pair in MODELS.items() if name.startswith("Supernet")}
FAST = {"NasBertModel-chain", "NasBertForMaskedLM-staged", "SupernetForMaskedLM-nested"}
"""A bare encoder, a tied head over several widths, and slices of shared weights: they stand for all others."""


def every(models):
    """Each of them, the slow set the more."""
    return pytest.mark.parametrize(
        ("model_class", "make_config"),
        [pytest.param(*pair, marks=[pytest.mark.slow] * (name not in FAST), id=name) for name, pair in models.items()],
    )


@every(CHILDREN)
class TestChildren(ModelContract):
    pass


@every(SUPERNETS)
class TestSupernets(ModelContract):
    pass


@pytest.mark.parametrize(
    ("broken", "make_config", "promise"),
    [
        (BlindModel, chain_config, "test_what_stands_at_padding_is_never_seen"),
        (HalfBlindModel, chain_config, "test_what_stands_at_padding_is_never_seen"),
        (BlindForMaskedLM, chain_supernet_config, "test_what_stands_at_padding_is_never_seen"),
        (LooseForMaskedLM, chain_config, "test_tied_weights_are_one_tensor_and_stay_one"),
        (TornForMaskedLM, chain_config, "test_tied_weights_are_one_tensor_and_stay_one"),
        (TornSupernetForMaskedLM, chain_supernet_config, "test_tied_weights_are_one_tensor_and_stay_one"),
        (ForgetfulModel, chain_config, "test_silent_corruption_1_buffers_that_are_not_saved"),
        (ForgetfulModel, chain_config, "test_silent_corruption_2_parameters_missing_from_a_checkpoint"),
        (DroppingForMaskedLM, chain_config, "test_says_the_same_twice"),
    ],
    ids=lambda value: getattr(value, "__name__", value),
)
def test_the_battery_finds_who_breaks_a_promise(broken, make_config, promise, tmp_path, poisoned_memory):
    """Whoever ignores the mask or loses its tie is known to pass transformers' own common tests."""
    fixtures = {"tmp_path": tmp_path, "poisoned_memory": None, "seeded_initialisation": None, "side": "right"}
    test = getattr(ModelContract(), promise)
    wanted = test.__func__.__code__.co_varnames[: test.__func__.__code__.co_argcount]
    with pytest.raises((AssertionError, RuntimeError)):
        test(model_class=broken, make_config=make_config, **{k: v for k, v in fixtures.items() if k in wanted})
    assert torch.utils.deterministic.fill_uninitialized_memory


@pytest.mark.parametrize("size", [-1, "x", 2.5, None, True])
@pytest.mark.parametrize("config_class", [NasBertConfig, SupernetConfig])
def test_a_chunk_that_is_no_number_of_tokens_is_refused(config_class, size):
    with pytest.raises(ValueError, match=f"chunk_size_feed_forward is {size!r}; expected a number of tokens, 0 for"):
        config_class(chunk_size_feed_forward=size)
