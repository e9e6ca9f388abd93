"""What transformers' common model tests ask of any model class, as a contract to subclass; and what they miss."""

import copy
import re

import pytest
import torch
from helpers import mostly_slow
from tiny.models import (
    CHECKPOINTING,
    SIZES,
    VOCAB_SIZE,
    assert_close,
    assert_equal_states,
    gradients,
    inputs_for,
    random_model,
    randomise_,
    tiny_batch,
    trainable_scalar,
    with_labels,
)
from torch import nn
from transformers import initialization

from hf_nasbert.modeling import NasBertForMultipleChoice
from hf_nasbert.modeling.operators_nasbert import NasBertIntermediate
from hf_nasbert.testing import check_model


def load(model_class, folder, **kwargs):
    """Load, and insist that nothing was missing, left over or of another shape."""
    model, info = model_class.from_pretrained(folder, output_loading_info=True, **kwargs)
    assert not any(info.values()), info
    return model


def at_tokens(result: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """The rows of real tokens of what a model says per token; of what it says per sequence, everything."""
    return result[mask.bool()] if result.shape[:2] == mask.shape else result


def mixing_child(config) -> dict:
    """Of a super-net, whose largest child may be all ffn, one with attention and a convolution, as a keyword."""
    if not hasattr(config, "search_space"):
        return {}
    kinds = ("attention", "conv")
    return {"architecture": next(c for c in config.space.enumerate() if all(kind in str(c) for kind in kinds))}


class ModelContract:
    """What any model promises, child or super-net, whatever its head.

    Subclass it with `model_class` and `make_config` (a function of config fields) as parameters; `poisoned_memory` is
    a fixture of conftest.py. Every test can be called with a class and a config, by which `test_model_battery.py`
    shows that it finds the class which breaks its promise.
    """

    def test_keeps_what_anybodys_model_promises(self, model_class, make_config):
        """Saving and loading, initialising, padding, embedded tokens, tied weights, gradients."""
        check_model(model_class, make_config())

    # Saving, loading, initialising

    def test_silent_corruption_1_buffers_that_are_not_saved(self, model_class, make_config, tmp_path, poisoned_memory):
        """Loading is on the meta device: a non-persistent buffer is raw memory unless `_init_weights` fills it."""
        model_class(make_config()).save_pretrained(tmp_path)
        buffers = dict(model_class.from_pretrained(tmp_path).named_buffers())
        name = (
            "embeddings.position_ids" if model_class.__name__.endswith("Model") else "nasbert.embeddings.position_ids"
        )
        assert buffers.keys() == {name}
        assert torch.equal(buffers[name], torch.arange(SIZES["max_position_embeddings"])[None])
        assert name not in model_class(make_config()).state_dict()

    @pytest.fixture
    def seeded_initialisation(self, monkeypatch):
        """Random initial weights depend on their shape only, not on how much torch's own constructors drew before."""

        def normal_(tensor, mean=0.0, std=1.0, generator=None):
            with torch.no_grad():
                drawn = torch.randn(tensor.shape, generator=torch.Generator().manual_seed(tensor.numel()))
                return tensor.copy_(mean + std * drawn)

        monkeypatch.setitem(initialization.TORCH_INIT_FUNCTIONS, "normal_", normal_)

    def test_silent_corruption_2_parameters_missing_from_a_checkpoint(
        self, model_class, make_config, poisoned_memory, seeded_initialisation
    ):
        """With nothing to load, all is what a fresh model has: transformers' can_init_all_missing_weights."""
        loaded = model_class.from_pretrained(None, config=make_config(), state_dict={})
        assert_equal_states(loaded, model_class(make_config()))

    def test_buffers_can_be_initialised(self, model_class, make_config):
        """transformers' init_weights_can_init_buffers: what `_init_weights` writes is what `__init__` wrote."""
        model = model_class(make_config())
        before = {name: buffer.clone() for name, buffer in model.named_buffers()}
        for buffer in model.buffers():
            buffer.fill_(-1)
        model.apply(model._init_weights)
        for name, buffer in model.named_buffers():
            assert torch.equal(buffer, before[name]), name

    def test_deepcopy_shares_nothing(self, model_class, make_config):
        model, inputs = random_model(model_class, make_config()), inputs_for(model_class, tiny_batch())
        duplicate = copy.deepcopy(model)
        assert torch.equal(duplicate(**inputs)[0], model(**inputs)[0])
        randomise_(duplicate, seed=1)
        duplicate.set_attn_implementation("eager")
        assert model.config._attn_implementation == "sdpa"
        assert not torch.equal(duplicate(**inputs)[0], model(**inputs)[0])
        assert_equal_states(model, random_model(model_class, make_config()))

    def test_bfloat16(self, model_class, make_config, tmp_path):
        model, inputs = random_model(model_class, make_config()), with_labels(model_class, tiny_batch())
        model.save_pretrained(tmp_path)
        half = load(model_class, tmp_path, dtype=torch.bfloat16)
        assert {parameter.dtype for parameter in half.parameters()} == {torch.bfloat16}
        assert half.config.dtype == torch.bfloat16
        for implementation in ("sdpa", "eager"):
            half.set_attn_implementation(implementation)
            output = half(**inputs)
            assert output[-1].isfinite().all()
            expected, actual = model(**inputs)[-1], output[-1].float()
            assert nn.functional.cosine_similarity(actual.flatten(), expected.flatten(), dim=0) > 0.98

    def test_autocast(self, model_class, make_config):
        model = random_model(model_class, make_config()).train()
        inputs = with_labels(model_class, tiny_batch())
        exact = trainable_scalar(model(**inputs))
        with torch.autocast("cpu", dtype=torch.bfloat16):
            rounded = trainable_scalar(model(**inputs))
        rounded.backward()
        assert rounded.item() == pytest.approx(exact.item(), rel=0.1)
        assert all(gradient.isfinite().all() for gradient in gradients(model).values())

    def test_input_and_output_embeddings(self, model_class, make_config):
        model = model_class(make_config())
        embeddings = model.get_input_embeddings()
        encoder = model if model_class.__name__.endswith("Model") else model.nasbert
        assert embeddings is encoder.embeddings.word_embeddings
        if model_class.__name__.endswith("ForMaskedLM"):
            assert model.get_output_embeddings() is model.lm_head.decoder
            decoder = nn.Linear(embeddings.embedding_dim, VOCAB_SIZE)
            model.set_output_embeddings(decoder)
            assert model.lm_head.decoder is decoder
            assert model.lm_head.bias is decoder.bias
        other = nn.Embedding(VOCAB_SIZE, embeddings.embedding_dim)
        model.set_input_embeddings(other)
        assert model.get_input_embeddings() is other

    def test_a_full_mask_is_no_mask(self, model_class, make_config):
        model, batch = random_model(model_class, make_config()), tiny_batch((12, 12, 12))
        inputs = inputs_for(model_class, batch)
        masks = [
            torch.ones_like(inputs["attention_mask"], dtype=dtype) for dtype in (torch.long, torch.float, torch.bool)
        ]
        expected = model(**(inputs | {"attention_mask": None}))[0]
        for mask in masks:
            assert_close(model(**(inputs | {"attention_mask": mask}))[0], expected, 1e-6)

    def test_a_sequence_too_long_is_refused(self, model_class, make_config):
        model, batch = model_class(make_config()), tiny_batch((24, 20, 3))
        model(**inputs_for(model_class, batch))
        with pytest.raises(ValueError, match="25 tokens exceeds max_position_embeddings=24: truncate"):
            model(**inputs_for(model_class, tiny_batch((25, 20, 3))))

    def test_one_short_sequence(self, model_class, make_config):
        """Nothing is squeezed away where the batch, or the sequence, is one."""
        model, batch = random_model(model_class, make_config()), tiny_batch()
        many = model(**inputs_for(model_class, batch))[0]
        one = {name: tensor[:1] for name, tensor in inputs_for(model_class, batch).items()}
        assert_close(model(**one)[0], many[:1], 1e-5)
        token = {name: tensor[..., :1] for name, tensor in one.items()}
        assert model(**token)[0].shape[0] == 1
        assert model(**token)[0].isfinite().all()

    def test_hidden_states(self, model_class, make_config):
        config = make_config()
        model, inputs = random_model(model_class, config), inputs_for(model_class, tiny_batch())
        encoder = model if model_class.__name__.endswith("Model") else model.nasbert
        output = model(**inputs, output_hidden_states=True)
        num_rows = 6 if model_class is NasBertForMultipleChoice else 3
        states = output.hidden_states
        assert len(states) == config.num_hidden_layers + 1
        assert {state.shape[:2] for state in states} == {(num_rows, 12)}
        flat = {name: tensor.reshape(num_rows, 12) for name, tensor in inputs.items()}
        assert torch.equal(states[0], encoder.embed(**flat)[0])
        assert torch.equal(states[-1], encoder(**flat).last_hidden_state)
        assert output.attentions is None
        assert model(**inputs).hidden_states is None
        model.config.output_hidden_states = True
        assert all(map(torch.equal, model(**inputs).hidden_states, states))
        assert model(**inputs, output_hidden_states=False).hidden_states is None

    def test_attentions(self, model_class, make_config):
        config = make_config()
        model, inputs = random_model(model_class, config), inputs_for(model_class, tiny_batch())
        model.set_attn_implementation("eager")
        attentions = model(**inputs, output_attentions=True).attentions
        modules = [module for name, module in model.named_modules() if name.endswith(".self")]
        if model_class.__name__.startswith("NasBert"):
            assert len(attentions) == len(modules) > 0
        for weights in attentions:
            assert weights.shape[2:] == (12, 12)
            mask = inputs["attention_mask"].reshape(-1, 1, 1, 12).bool().expand_as(weights)
            assert (weights[~mask] == 0).all()
            assert_close(weights.sum(-1), torch.ones(weights.shape[:-1]), 1e-6)
        assert model(**inputs).attentions is None
        model.config.output_attentions = True
        assert all(map(torch.equal, model(**inputs).attentions, attentions))

    def test_tuples_hold_what_dictionaries_hold(self, model_class, make_config):
        model = random_model(model_class, make_config())
        model.set_attn_implementation("eager")
        inputs = with_labels(model_class, tiny_batch())
        for flags in ({}, {"output_hidden_states": True}, {"output_hidden_states": True, "output_attentions": True}):
            as_dict = model(**inputs, **flags)
            as_tuple = model(**inputs, **flags, return_dict=False)
            assert type(as_tuple) is tuple
            assert len(as_tuple) == len(as_dict.to_tuple())
            for actual, expected in zip(as_tuple, as_dict.to_tuple(), strict=True):
                pairs = zip(actual, expected, strict=True) if type(expected) is tuple else [(actual, expected)]
                assert all(torch.equal(mine, theirs) for mine, theirs in pairs)
        model.config.return_dict = False
        assert type(model(**inputs)) is tuple
        assert type(model(**inputs, return_dict=True)) is not tuple

    def test_eager_is_sdpa(self, model_class, make_config):
        model = random_model(model_class, make_config(attn_implementation="eager"))
        inputs = with_labels(model_class, tiny_batch())
        assert model.config._attn_implementation == "eager"
        eager = trainable_scalar(model(**inputs)), model(**inputs)[-1]
        eager[0].backward()
        eager_gradients = gradients(model)
        model.set_attn_implementation("sdpa")
        model.zero_grad()
        called = []
        attention = nn.functional.scaled_dot_product_attention
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(
                nn.functional, "scaled_dot_product_attention", lambda *a, **k: called.append(1) or attention(*a, **k)
            )
            sdpa = trainable_scalar(model(**inputs)), model(**inputs)[-1]
        assert bool(called) == any(name.endswith(".self.query.weight") for name in eager_gradients)
        sdpa[0].backward()
        assert_close(sdpa[0], eager[0], 1e-5)
        assert_close(sdpa[1], eager[1], 1e-5)
        assert_close(gradients(model), eager_gradients, 1e-5)

    @pytest.mark.parametrize("chunk", mostly_slow([4, 1, 5, 100], every=4))
    def test_feed_forward_chunking(self, model_class, make_config, chunk, tmp_path):
        """transformers' feed_forward_chunking, by chunks too that do not divide the length; gradients as well."""
        whole = random_model(model_class, make_config())
        whole.save_pretrained(tmp_path)
        chunked = load(model_class, tmp_path, chunk_size_feed_forward=chunk)
        inputs, lengths = with_labels(model_class, tiny_batch()), []
        for module in chunked.modules():
            if isinstance(module, NasBertIntermediate):
                module.register_forward_hook(lambda module, args, output: lengths.append(args[0].shape[-2]))
        expected, actual = whole(**inputs), chunked(**inputs)
        assert_close(actual[0], expected[0], 1e-6)
        assert_close(actual[-1], expected[-1], 1e-5)
        trainable_scalar(expected).backward()
        trainable_scalar(actual).backward()
        assert_close(gradients(chunked), gradients(whole), 1e-5)
        has_ffn = any("intermediate" in name or "chunks.ffn" in name for name in gradients(whole))
        assert bool(lengths) == has_ffn
        assert all(length <= chunk for length in lengths)

    @pytest.mark.parametrize("use_reentrant", [False, True])
    def test_activation_checkpointing_changes_nothing(self, model_class, make_config, use_reentrant):
        model = random_model(model_class, make_config()).train()
        inputs = with_labels(model_class, tiny_batch())
        found = []
        for is_checkpointing in (False, True):
            if is_checkpointing:
                getattr(model, f"{CHECKPOINTING}_enable")({"use_reentrant": use_reentrant})
                assert getattr(model, f"is_{CHECKPOINTING}")
            model.zero_grad()
            loss = trainable_scalar(model(**inputs, output_hidden_states=True))
            loss.backward()
            found.append({"loss": loss.detach(), **gradients(model)})
        assert found[0].keys() == found[1].keys()
        for name, tensor in found[0].items():
            assert torch.equal(found[1][name], tensor), name

    # In the spirit of the common tests, and what they are known to miss

    @pytest.mark.parametrize("side", ["right", "left"])
    def test_what_stands_at_padding_is_never_seen(self, model_class, make_config, side):
        """A model that ignores `attention_mask` passes every test of shapes; not this one."""
        model, batch = random_model(model_class, make_config()), tiny_batch(padding_side=side)
        mask = batch["attention_mask"]
        garbage = batch | {"input_ids": torch.where(mask.bool(), batch["input_ids"], 17)}
        child = mixing_child(model.config)
        clean, dirty = (model(**inputs_for(model_class, inputs), **child)[0] for inputs in (batch, garbage))
        if side == "left" and clean.shape[:2] != mask.shape:
            return  # BERT's pooler reads the first place of a row, padding or not
        assert torch.equal(at_tokens(dirty, mask), at_tokens(clean, mask))
        # And the batch is long enough to tell: without the mask the same garbage would be seen.
        blind = {"attention_mask": torch.ones_like(mask)}
        clean, dirty = (model(**inputs_for(model_class, inputs | blind), **child)[0] for inputs in (batch, garbage))
        assert not torch.equal(at_tokens(dirty, mask), at_tokens(clean, mask))

    def test_tied_weights_are_one_tensor_and_stay_one(self, model_class, make_config, tmp_path):
        """After building, copying, loading and resizing; and only one of them is in the file."""
        model = random_model(model_class, make_config())
        if model.get_output_embeddings() is None:
            assert not model.all_tied_weights_keys
            return
        model.save_pretrained(tmp_path)
        resized = copy.deepcopy(model)
        resized.resize_token_embeddings(VOCAB_SIZE + 3)
        for one in (model_class(make_config()), model, copy.deepcopy(model), load(model_class, tmp_path), resized):
            words, decoder = one.get_input_embeddings(), one.get_output_embeddings()
            assert decoder.weight is words.weight
            assert decoder.bias is one.lm_head.bias
            assert decoder.bias.shape == words.weight.shape[:1]
        saved = {name for name, _ in model.named_parameters()}
        assert model.state_dict().keys() - saved == {"lm_head.decoder.weight", "lm_head.decoder.bias"}

    def test_untied_weights_are_two_tensors_and_stay_two(self, model_class, make_config, tmp_path):
        """transformers' load_save_without_tied_weights."""
        model = random_model(model_class, make_config(tie_word_embeddings=False))
        model.save_pretrained(tmp_path)
        loaded = load(model_class, tmp_path)
        assert_equal_states(loaded, model)
        if loaded.get_output_embeddings() is not None:
            assert not torch.equal(loaded.get_output_embeddings().weight, loaded.get_input_embeddings().weight)

    def test_the_base_model_and_the_head_load_each_other(self, model_class, make_config, tmp_path, poisoned_memory):
        """A head's folder holds the encoder, an encoder's folder all but the head; only what lacks is drawn."""
        model = random_model(model_class, make_config())
        base = model.base_model
        if base is model:
            return
        model.save_pretrained(tmp_path / "head")
        encoder, loading = type(base).from_pretrained(tmp_path / "head", output_loading_info=True)
        pooler = set() if base.pooler else {"pooler.dense.weight", "pooler.dense.bias"}
        assert loading["missing_keys"] == pooler
        base.save_pretrained(tmp_path / "base")
        whole = model_class.from_pretrained(tmp_path / "base")
        for found in (encoder, whole.base_model):
            assert all(torch.equal(found.state_dict()[name], tensor) for name, tensor in base.state_dict().items())
        assert all(parameter.isfinite().all() for one in (encoder, whole) for parameter in one.parameters())

    def test_says_the_same_twice(self, model_class, make_config):
        inputs = inputs_for(model_class, tiny_batch())
        model = random_model(model_class, make_config(hidden_dropout_prob=0.3, classifier_dropout=0.0))
        assert torch.equal(model(**inputs)[0], model(**inputs)[0])
        model.train()
        assert not torch.equal(model(**inputs)[0], model(**inputs)[0])  # dropout is there, in training alone

    def test_another_vocabulary_is_refused_unless_it_is_asked_for(self, model_class, make_config, tmp_path):
        """transformers' load_with_mismatched_shapes."""
        model_class(make_config()).save_pretrained(tmp_path)
        with pytest.raises(RuntimeError, match="ignore_mismatched_sizes"):
            model_class.from_pretrained(tmp_path, vocab_size=VOCAB_SIZE + 1)
        model = model_class.from_pretrained(tmp_path, vocab_size=VOCAB_SIZE + 1, ignore_mismatched_sizes=True)
        assert model(**inputs_for(model_class, tiny_batch()))[0].isfinite().all()

    def test_resizing_keeps_what_is_computed(self, model_class, make_config):
        model, inputs = random_model(model_class, make_config()), inputs_for(model_class, tiny_batch())
        before = model(**inputs)[0]
        model.resize_token_embeddings(VOCAB_SIZE + 3)
        assert model.config.vocab_size == model.get_input_embeddings().num_embeddings == VOCAB_SIZE + 3
        after = model(**inputs)[0]
        assert_close(after[..., : before.shape[-1]] if model.get_output_embeddings() else after, before, 1e-6)

    @pytest.mark.slow
    def test_a_model_too_large_for_the_memory_runs_from_disk(self, model_class, make_config, tmp_path):
        """accelerate's big-model loading: with `device_map="auto"` whole blocks that do not fit stay on disk."""
        model, inputs = random_model(model_class, make_config()), inputs_for(model_class, tiny_batch())
        model.save_pretrained(tmp_path / "model", max_shard_size="30KB")
        whole = load(model_class, tmp_path / "model", device_map={"": "cpu"})
        size = sum(parameter.nbytes for parameter in model.parameters())
        split = model_class.from_pretrained(
            tmp_path / "model",
            device_map="auto",
            max_memory={"cpu": size * 9 // 10},
            offload_folder=tmp_path / "offload",
        )
        places = split.hf_device_map
        assert set(places.values()) == {"cpu", "disk"}
        assert any(re.search(r"blocks\.\d+$", name) for name in places)
        assert not any(re.search(r"blocks\.\d+\.|embeddings\.", name) for name in places)
        for loaded in (whole, split):
            assert_close(loaded(**inputs)[0], model(**inputs)[0], 1e-6)
