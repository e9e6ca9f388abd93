"""Extraction: a child computes what its architecture computed, BERT is a child, and a folder is whole or not there."""

import importlib
import importlib.util
import json
import random
from pathlib import Path

import pytest
import torch
from helpers import mostly_slow, run_recipe
from huggingface_hub import ModelCard
from tiny.models import (
    HEADS,
    SPACES,
    assert_close,
    chain_config,
    inputs_for,
    logits_of,
    padded_batch,
    random_model,
    randomise_,
    tiny_batch,
    tiny_supernet,
)
from tiny.texts import WORDS, tiny_tokenizer
from transformers import AutoModelForMaskedLM, AutoTokenizer, BertConfig, BertForMaskedLM, BertModel

from hf_nasbert import child_folders, costs, records
from hf_nasbert.child_folders import save_child
from hf_nasbert.extraction import extract_child, load_supernet, prove_equal_logits
from hf_nasbert.modeling import (
    NasBertConfig,
    NasBertForMaskedLM,
    NasBertForQuestionAnswering,
    NasBertForSequenceClassification,
    NasBertModel,
)
from hf_nasbert.modeling.configuration_nasbert import AUTO_MAP
from hf_nasbert.modeling.families import from_bert, native_form, to_bert
from hf_nasbert.native import CODE_FILES
from hf_nasbert.pipeline.scores import ScoreChildrenArguments, choose_children
from hf_nasbert.scored import is_beside, scored_children

ALTERNATING = ("attention", "ffn", "attention", "ffn", "skip")


@pytest.fixture(scope="module", params=mostly_slow(SPACES, 2))
def supernet(request):
    return tiny_supernet(request.param)


@pytest.fixture(scope="module")
def chain():
    return tiny_supernet("chain-with-skip")


@pytest.fixture(scope="module")
def bert_like(chain):
    return extract_child(chain, ALTERNATING)


def children_of(space, count, seed=0):
    rng = random.Random(seed)
    return [space.sample(rng, uniform_over="children") for _ in range(count)]


class TestExtractChild:
    def test_twenty_children_compute_what_their_architectures_computed(self, supernet):
        batch = padded_batch()
        for architecture in children_of(supernet.space, 20):
            child = extract_child(supernet, architecture)
            expected = logits_of(supernet, batch, architecture=architecture)
            # The same kernels on the same data: not close but equal.
            assert torch.equal(logits_of(child, batch), expected), architecture
            assert child.config.operators == list(architecture)
        # Sanity check: a neighbour must not pass, or the test would not see which operators are inherited.
        for neighbour in supernet.space.neighbours(architecture)[:10]:
            assert (logits_of(child, batch) - logits_of(supernet, batch, architecture=neighbour)).abs().max() > 1e-3

    def test_every_hidden_state_is_the_same(self, supernet):
        batch = padded_batch()
        architecture = children_of(supernet.space, 1, seed=3)[0]
        child = extract_child(supernet, architecture)
        with torch.no_grad():
            ours = child(**batch, output_hidden_states=True).hidden_states
            theirs = supernet(**batch, architecture=architecture, output_hidden_states=True).hidden_states
        assert len(ours) == len(theirs) == supernet.space.num_choice_blocks + 1
        assert all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))

    @pytest.mark.parametrize(
        "overrides",
        [
            {"embedding_size": 32},
            {"tie_word_embeddings": False},
            {"attention_head_size": 16, "ffn_ratio": 2, "num_conv_layers": 1, "hidden_act": "relu"},
            {"type_vocab_size": 1, "max_position_embeddings": 3, "layer_norm_eps": 1e-5, "pad_token_id": None},
        ],
        ids=lambda overrides: next(iter(overrides)),
    )
    def test_sizes_and_ties_are_inherited(self, overrides):
        supernet = tiny_supernet("staged", **overrides)
        for architecture in children_of(supernet.space, 3):
            child = extract_child(supernet, architecture)
            assert prove_equal_logits(supernet, architecture, child) == 0
            for name, value in overrides.items():
                assert getattr(child.config, name) == value
            decoder, words = child.lm_head.decoder.weight, child.nasbert.embeddings.word_embeddings.weight
            assert (decoder is words) == child.config.tie_word_embeddings

    def test_owns_its_weights_and_no_more(self, chain):
        architecture = chain.largest_architecture
        child = extract_child(chain, architecture)
        theirs = {parameter.data_ptr() for parameter in chain.parameters()}
        assert theirs.isdisjoint(parameter.data_ptr() for parameter in child.parameters())
        owned = sum(parameter.numel() for parameter in chain.parameters_of(architecture))
        assert sum(parameter.numel() for parameter in child.parameters()) == owned
        before = {name: tensor.clone() for name, tensor in chain.state_dict().items()}
        with torch.no_grad():
            for parameter in child.parameters():
                parameter.add_(1)
        assert all(torch.equal(tensor, before[name]) for name, tensor in chain.state_dict().items())

    def test_leaves_the_supernet_and_the_global_state_alone(self, chain):
        chain.train()
        chain.nasbert.embeddings.eval()
        try:
            modes = [module.training for module in chain.modules()]
            state = torch.get_rng_state()
            child = extract_child(chain, ALTERNATING)
            prove_equal_logits(chain, ALTERNATING, child)
            assert [module.training for module in chain.modules()] == modes
            assert torch.equal(torch.get_rng_state(), state)
            assert not child.training
        finally:
            chain.eval()

    def test_keeps_precision_and_attention_kernels(self):
        supernet = tiny_supernet("chain").to(torch.bfloat16)
        supernet.set_attn_implementation("eager")
        child = extract_child(supernet, "attention-ffn-conv3-attention-ffn")
        assert child.dtype is torch.bfloat16
        assert child.config._attn_implementation == "eager"
        assert prove_equal_logits(supernet, "attention-ffn-conv3-attention-ffn", child) == 0

    def test_a_child_gives_logits_everywhere(self, chain, bert_like):
        batch = padded_batch()
        output = bert_like(**batch, labels=batch["input_ids"])
        assert output.logits.shape == (3, 11, chain.config.vocab_size)

    @pytest.mark.parametrize(
        ("architecture", "message"),
        [
            ("attention-ffn-mixer-ffn-ffn", "mixer"),
            ("attention-skip-ffn-ffn-ffn", "skip"),
            ("attention-ffn", "5"),
            (["skip"] * 5, "skip"),
            ("", "architecture"),
            ("attention--ffn", "operator name"),
        ],
    )
    def test_refuses_what_is_not_in_the_space(self, chain, architecture, message):
        with pytest.raises(ValueError, match=message):
            extract_child(chain, architecture)


class TestProof:
    def test_passes_with_zero(self, chain, bert_like):
        assert prove_equal_logits(chain, ALTERNATING, bert_like) == 0
        assert prove_equal_logits(chain, "attention-ffn-attention-ffn-skip", bert_like, padded_batch()) == 0

    def test_a_neighbour_is_found_out(self, chain, bert_like):
        with pytest.raises(ValueError, match=r"differ .* by up to .* allowed are 1e-06"):
            prove_equal_logits(chain, ("attention", "ffn", "attention", "conv3", "skip"), bert_like)

    @pytest.mark.parametrize("change", [1e-3, float("nan")])
    @pytest.mark.parametrize(
        "name",
        ["nasbert.encoder.blocks.0.operator.self.key.weight", "nasbert.embeddings.token_type_embeddings.weight"],
    )
    def test_one_changed_weight_is_found_out(self, chain, name, change):
        child = extract_child(chain, ALTERNATING)
        child.get_parameter(name).data[1, 0] += change
        with pytest.raises(ValueError, match="differ"):
            prove_equal_logits(chain, ALTERNATING, child)

    def test_sees_a_child_that_ignores_padding(self, chain, monkeypatch):
        child = extract_child(chain, ALTERNATING)
        forward = child.forward
        monkeypatch.setattr(child, "forward", lambda attention_mask=None, **kwargs: forward(**kwargs))
        with pytest.raises(ValueError, match="differ"):
            prove_equal_logits(chain, ALTERNATING, child)

    @pytest.mark.parametrize("side", ["left", "right"])
    def test_sees_a_child_that_ignores_padding_on_one_side(self, chain, monkeypatch, side):
        child = extract_child(chain, ALTERNATING)
        forward = child.forward

        def one_sided(attention_mask, **kwargs):
            ahead = attention_mask if side == "left" else attention_mask.flip(1)
            padding = ahead.cumsum(1) == 0
            padding = padding if side == "left" else padding.flip(1)
            return forward(attention_mask=attention_mask.masked_fill(padding, 1), **kwargs)

        monkeypatch.setattr(child, "forward", one_sided)
        with pytest.raises(ValueError, match="differ"):
            prove_equal_logits(chain, ALTERNATING, child)

    def test_runs_without_dropout_and_labels(self, chain, bert_like):
        chain.train()
        bert_like.train()
        try:
            batch = padded_batch()
            assert prove_equal_logits(chain, ALTERNATING, bert_like, {**batch, "labels": batch["input_ids"]}) == 0
            assert chain.training
            assert bert_like.training
        finally:
            chain.eval()
            bert_like.eval()

    def test_another_vocabulary_is_named(self, chain):
        other = tiny_supernet("chain-with-skip", vocab_size=12)
        with pytest.raises(ValueError, match="logits of shape"):
            prove_equal_logits(
                chain,
                ALTERNATING,
                extract_child(other, ALTERNATING),
                {"input_ids": torch.zeros(1, 2, dtype=torch.long)},
            )


class TestBert:
    def test_an_alternating_child_is_a_stock_bert(self, chain, bert_like):
        bert = to_bert(bert_like)
        assert type(bert) is BertForMaskedLM
        assert bert.config.num_hidden_layers == 2  # the skip is gone
        batch = padded_batch()
        difference = (logits_of(bert, batch) - logits_of(bert_like, batch)).abs().max()
        assert difference <= 1e-6
        assert prove_equal_logits(chain, ALTERNATING, bert) <= 1e-6
        # Sanity check: weights in other places would show.
        randomise_(bert, seed=1)
        assert (logits_of(bert, batch) - logits_of(bert_like, batch)).abs().max() > 1e-2

    def test_there_and_back_is_bit_equal(self, bert_like):
        back = from_bert(to_bert(bert_like))
        without_skip = [name for name in bert_like.config.operators if name != "skip"]
        assert back.config.operators == without_skip
        ours, theirs = bert_like.state_dict(), back.state_dict()
        assert list(ours) == list(theirs)
        assert all(torch.equal(ours[name], theirs[name]) for name in ours)

    @pytest.mark.parametrize(
        "overrides",
        [
            {},
            {"intermediate_size": 100, "num_attention_heads": 6, "hidden_act": "relu", "initializer_range": 0.1},
            {"hidden_dropout_prob": 0.2, "attention_probs_dropout_prob": 0.3, "classifier_dropout": 0.4},
            {"tie_word_embeddings": False, "type_vocab_size": 1, "pad_token_id": 3, "layer_norm_eps": 1e-5},
        ],
        ids=["plain", "shape", "dropout", "untied"],
    )
    def test_any_stock_bert_is_a_child(self, overrides):
        sizes = {"vocab_size": 40, "hidden_size": 48, "num_hidden_layers": 3, "num_attention_heads": 3}
        sizes |= {"intermediate_size": 192, "max_position_embeddings": 20}
        bert = randomise_(BertForMaskedLM(BertConfig(**sizes | overrides)).eval())
        child = from_bert(bert)
        batch = padded_batch(40) if bert.config.type_vocab_size > 1 else {"input_ids": padded_batch(40)["input_ids"]}
        assert (logits_of(child, batch) - logits_of(bert, batch)).abs().max() <= 1e-6
        again = to_bert(child)
        state = bert.state_dict()
        if not bert.config.tie_word_embeddings:
            del state["cls.predictions.bias"]  # read by nothing then
        assert all(torch.equal(again.state_dict()[name], tensor) for name, tensor in state.items())
        ours, theirs = bert.config.to_dict(), again.config.to_dict()
        assert {key: ours[key] for key in ours if ours[key] != theirs.get(key)} == {}
        child.nasbert.embeddings.word_embeddings.weight.data.zero_()
        assert bert.bert.embeddings.word_embeddings.weight.abs().sum() > 0  # copies, not views

    @pytest.mark.parametrize(
        ("config", "message"),
        [
            ({"operators": ["attention", "ffn", "conv3", "ffn"]}, r"block 2 \(conv3\): BERT has no conv3"),
            ({"operators": ["ffn", "attention"]}, r"block 0 \(ffn\): .* attention would have to stand here"),
            ({"operators": ["attention", "attention", "ffn"]}, r"block 1 \(attention\): .* ffn would have"),
            ({"operators": ["attention", "ffn", "attention", "skip"]}, r"block 2 \(attention\): .* last operator"),
            ({"operators": ["skip"]}, "all its blocks are skips"),
            (
                {"operators": ["attention", "ffn", "attention@32", "ffn@32"], "stage_lengths": [2, 2]},
                r"block 2 \(attention@32\): it is 32 wide between states of 64",
            ),
            ({"operators": ["attention", "ffn"], "embedding_size": 32}, "embeddings are as wide"),
            ({"operators": ["attention1", "ffn"]}, r"block 0 \(attention1\): BERT's attention has as many heads"),
            (
                {"operators": ["attention", "ffn", "attention", "ffn9"]},
                r"block 3 \(ffn9\): .* block 1 is another",
            ),
        ],
        ids=lambda value: "-".join(value["operators"]) if isinstance(value, dict) else None,
    )
    def test_refuses_what_is_no_bert(self, config, message):
        child = NasBertForMaskedLM(NasBertConfig(vocab_size=20, hidden_size=64, **config))
        with pytest.raises(ValueError, match=message):
            to_bert(child)

    @pytest.mark.parametrize(
        ("overrides", "message"),
        [({"is_decoder": True}, "decoder"), ({"add_cross_attention": True, "is_decoder": True}, "decoder")],
    )
    def test_refuses_a_bert_that_is_no_child(self, overrides, message):
        sizes = {"vocab_size": 20, "hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 1}
        bert = BertForMaskedLM(BertConfig(**{**sizes, "intermediate_size": 64, **overrides}))
        with pytest.raises(ValueError, match=message):
            from_bert(bert)

    def test_names_the_wrong_class(self):
        config = BertConfig(vocab_size=20, hidden_size=32, num_hidden_layers=1, num_attention_heads=1)
        with pytest.raises(ValueError, match=r"expected a stock BERT \(.*\), got a NasBertForMaskedLM"):
            from_bert(NasBertForMaskedLM(chain_config(["ffn"])))
        with pytest.raises(ValueError, match=r"one of the classes NasBert\.\.\., got a BertModel"):
            to_bert(BertModel(config))

    @pytest.mark.parametrize("head", HEADS.values(), ids=HEADS.keys())
    def test_every_head_becomes_berts_own(self, head, tmp_path):
        """A fine-tuned child too: equal outputs, its labels, and a folder that transformers alone loads."""
        labels = {0: "bad", 1: "fair", 2: "good"}
        config = chain_config(
            ("attention", "ffn", "attention", "ffn", "skip"),
            id2label=labels,
            label2id={word: place for place, word in labels.items()},
            problem_type="single_label_classification",
        )
        child, inputs = random_model(head, config), inputs_for(head, tiny_batch())
        bert = to_bert(child)
        assert type(bert).__name__ == head.__name__.removeprefix("Nas")
        folder = save_child(bert, tiny_tokenizer(), tmp_path / "bert")
        loaded, loading = type(bert).from_pretrained(folder, output_loading_info=True)
        assert not any(loading.values())
        if head is not NasBertForQuestionAnswering:  # two numbers per token, whatever the labels are
            assert (loaded.config.id2label, loaded.config.num_labels) == (labels, 3)
            assert loaded.config.problem_type == "single_label_classification"
        with torch.no_grad():
            for mine, theirs in zip(loaded(**inputs).to_tuple(), child(**inputs).to_tuple(), strict=True):
                assert_close(mine, theirs, 1e-6)

    def test_a_base_model_without_a_pooler_stays_without(self):
        child = random_model(NasBertModel, chain_config(("attention", "ffn")))
        child.pooler = None
        assert to_bert(child).pooler is None

    def test_the_native_form_is_offered_where_there_is_one(self, bert_like):
        assert type(native_form(bert_like)[0]) is BertForMaskedLM
        assert native_form(bert_like)[1] is None
        bert = to_bert(bert_like)
        assert native_form(bert) == (bert, None)
        other = NasBertForMaskedLM(chain_config(("attention", "conv3")))
        assert native_form(other) == (other, "this child is no BERT: block 1 (conv3): BERT has no conv3")
        narrow = NasBertForMaskedLM(chain_config(("attention", "ffn"), embedding_size=16))
        assert native_form(narrow)[0] is narrow


class TestSaveChild:
    def test_the_folder_is_complete(self, bert_like, tmp_path):
        figure = tmp_path / "architecture.png"
        figure.write_bytes(b"png")
        folder = save_child(bert_like, tiny_tokenizer(), tmp_path / "a" / "child", "# A card", attachments=[figure])
        assert {path.name for path in folder.iterdir()} == {
            *CODE_FILES,
            *("config.json", "model.safetensors", "README.md", "tokenizer.json", "tokenizer_config.json"),
            "architecture.png",
        }
        for name in CODE_FILES:
            package = Path(child_folders.modeling_nasbert.__file__).parent
            assert (folder / name).read_bytes() == (package / name).read_bytes()
        assert json.loads((folder / "config.json").read_text())["auto_map"] == AUTO_MAP
        assert list((tmp_path / "a").iterdir()) == [folder]
        assert folder.stat().st_mode & 0o055 == tmp_path.joinpath("a").stat().st_mode & 0o055

    def test_comes_back_equal(self, bert_like, tmp_path):
        folder = save_child(bert_like, tiny_tokenizer(), tmp_path / "child")
        batch = padded_batch()
        assert torch.equal(logits_of(AutoModelForMaskedLM.from_pretrained(folder), batch), logits_of(bert_like, batch))
        assert AutoTokenizer.from_pretrained(folder).mask_token == "[MASK]"

    def test_a_stock_bert_takes_no_code_along(self, bert_like, tmp_path):
        folder = save_child(to_bert(bert_like), tiny_tokenizer(), tmp_path / "native")
        assert not list(folder.glob("*.py"))
        assert "auto_map" not in json.loads((folder / "config.json").read_text())

    def test_a_head_that_nobody_registered_takes_code_along(self, tmp_path):
        class MyHead(NasBertForSequenceClassification):
            _auto_class = None

        head = MyHead(NasBertConfig(vocab_size=20, hidden_size=32, operators=["ffn"]))
        # As it stands in a child that was loaded from the Hub: every head but its own would need the network.
        head.config.auto_map = {name: f"someone/child--{path}" for name, path in AUTO_MAP.items()}
        folder = save_child(head, tiny_tokenizer(), tmp_path / "child")
        assert all((folder / name).is_file() for name in CODE_FILES)
        assert json.loads((folder / "config.json").read_text())["auto_map"] == AUTO_MAP

    def test_nothing_of_a_strangers_folder_is_touched(self, bert_like, tmp_path):
        folder = tmp_path / "thesis"
        folder.mkdir()
        (folder / "chapter.txt").write_text("years of work")
        for overwrite in (False, True):
            with pytest.raises(FileExistsError, match="thesis"):
                save_child(bert_like, tiny_tokenizer(), folder, overwrite=overwrite)
        with pytest.raises(FileExistsError, match="is a file"):
            save_child(bert_like, tiny_tokenizer(), folder / "chapter.txt", overwrite=True)
        assert [path.name for path in tmp_path.rglob("*")] == ["thesis", "chapter.txt"]

    def test_overwriting_replaces_the_model_and_keeps_other_files(self, chain, bert_like, tmp_path):
        folder = tmp_path / "child"
        save_child(bert_like, tiny_tokenizer(), folder, "# Old card")
        (folder / "model-00001-of-00002.safetensors").write_bytes(b"a stale shard")
        (folder / "notes.txt").write_text("mine")
        (folder / "runs").mkdir()
        with pytest.raises(FileExistsError, match="overwrite"):
            save_child(bert_like, tiny_tokenizer(), folder)
        other = extract_child(chain, "conv3-conv5-conv7-ffn-skip")
        save_child(other, tiny_tokenizer(), folder, overwrite=True)
        batch = padded_batch()
        assert torch.equal(logits_of(AutoModelForMaskedLM.from_pretrained(folder), batch), logits_of(other, batch))
        assert (folder / "notes.txt").read_text() == "mine"
        assert (folder / "runs").is_dir()
        assert not (folder / "model-00001-of-00002.safetensors").exists()
        assert not (folder / "README.md").exists()  # it spoke of another child
        assert list(tmp_path.iterdir()) == [folder]

    @pytest.mark.parametrize("step", ["save", "rename"])
    def test_a_failure_leaves_what_was_there(self, bert_like, tmp_path, monkeypatch, step):
        folder = save_child(bert_like, tiny_tokenizer(), tmp_path / "child", "# Old card")
        before = {path.name: path.read_bytes() for path in folder.iterdir()}

        def full_disk(*args, **kwargs):
            raise OSError(28, "No space left on device")

        if step == "save":
            monkeypatch.setattr("transformers.PreTrainedTokenizerBase.save_pretrained", full_disk)
        else:
            rename = type(folder).rename
            monkeypatch.setattr(
                type(folder),
                "rename",
                lambda path, target: full_disk() if path.suffix == ".unfinished" else rename(path, target),
            )
        with pytest.raises(OSError, match="No space left"):
            save_child(bert_like, tiny_tokenizer(), folder, "# New card", overwrite=True)
        assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
        assert list(tmp_path.iterdir()) == [folder]

    def test_writes_through_a_link(self, bert_like, tmp_path):
        real, link = tmp_path / "real", tmp_path / "link"
        real.mkdir()
        link.symlink_to(real)
        save_child(bert_like, tiny_tokenizer(), link)
        assert link.is_symlink()
        assert (real / "config.json").is_file()

    def test_refuses_what_cannot_be_used(self, bert_like, tmp_path):
        tokenizer = tiny_tokenizer()
        tokenizer.add_tokens(["popcorn"])
        with pytest.raises(ValueError, match="20 tokens, the child 19 embeddings"):
            save_child(bert_like, tokenizer, tmp_path / "child")
        with pytest.raises(FileNotFoundError, match=r"missing\.png"):
            save_child(bert_like, tiny_tokenizer(), tmp_path / "child", attachments=[tmp_path / "missing.png"])
        (tmp_path / "config.json").write_text("{}")
        with pytest.raises(ValueError, match="has that name"):
            save_child(bert_like, tiny_tokenizer(), tmp_path / "child", attachments=[tmp_path / "config.json"])
        assert not (tmp_path / "child").exists()


class TestLoadSupernet:
    @pytest.fixture
    def folder(self, chain, tmp_path):
        chain.save_pretrained(tmp_path / "supernet")
        return tmp_path / "supernet"

    def test_loads_what_was_saved(self, chain, folder):
        loaded = load_supernet(folder)
        batch = padded_batch()
        assert torch.equal(
            logits_of(loaded, batch, architecture=ALTERNATING), logits_of(chain, batch, architecture=ALTERNATING)
        )

    def test_a_missing_folder_is_named(self, tmp_path):
        with pytest.raises(FileNotFoundError, match="nowhere"):
            load_supernet(tmp_path / "nowhere")

    @pytest.mark.parametrize(
        ("config", "message"),
        [
            (None, "no config.json"),
            ("{", "not JSON"),
            ("[]", "holds a list"),
            ('{"model_type": "bert"}', "model_type 'bert', expected 'nasbert_supernet'"),
        ],
    )
    def test_a_folder_that_is_none_is_named(self, tmp_path, config, message):
        if config is not None:
            (tmp_path / "config.json").write_text(config)
        with pytest.raises(ValueError, match=message):
            load_supernet(tmp_path)

    @pytest.mark.parametrize("share", [0.0, 0.5, 0.999])
    def test_truncated_weights_are_named(self, folder, share):
        file = folder / "model.safetensors"
        content = file.read_bytes()
        file.write_bytes(content[: int(share * len(content))])
        with pytest.raises(ValueError, match=r"weights of .*supernet are damaged"):
            load_supernet(folder)
        assert file.read_bytes() == content[: int(share * len(content))]

    def test_weights_of_another_space_are_refused(self, folder):
        # transformers would fill the gaps with random weights and return a super-net that was never trained.
        config = json.loads((folder / "config.json").read_text())
        config["search_space"]["stages"][0]["blocks"].append(["attention", "ffn"])
        (folder / "config.json").write_text(json.dumps(config))
        with pytest.raises(ValueError, match="do not belong to its config"):
            load_supernet(folder)

    @pytest.mark.parametrize(
        ("field", "value", "message"),
        [("hidden_size", 32, "do not belong to its config"), ("hidden_size", "x", "expected a whole number")],
    )
    def test_sizes_of_another_super_net_are_refused(self, folder, field, value, message):
        config = json.loads((folder / "config.json").read_text())
        assert config[field] != value
        (folder / "config.json").write_text(json.dumps({**config, field: value}))
        with pytest.raises(ValueError, match=message):
            load_supernet(folder)


class TestRecipes:
    @pytest.fixture
    def supernet_folder(self, chain, tmp_path):
        chain.save_pretrained(tmp_path / "supernet")
        tiny_tokenizer().save_pretrained(tmp_path / "supernet")
        return tmp_path / "supernet"

    @pytest.fixture
    def text(self, tmp_path):
        words, rng = WORDS[5:], random.Random(0)
        lines = [" ".join(rng.choices(words, k=40)) for _ in range(120)]
        (tmp_path / "text.txt").write_text("\n".join(lines))
        return tmp_path / "text.txt"

    @pytest.mark.slow
    def test_extract_child_proves_and_writes(self, chain, supernet_folder, tmp_path, capsys):
        (tmp_path / "facts.json").write_text(json.dumps({"license": "mit", "supernet": {"method": "fair", "seed": 3}}))
        arguments = ["--supernet", supernet_folder, "--architecture", "attention-ffn-attention-ffn-skip"]
        arguments += ["--output_dir", tmp_path / "child", "--card", tmp_path / "facts.json", "--native", "never"]
        run_recipe("extract_child", *arguments)
        said = capsys.readouterr().out
        assert "largest difference 0)" in said
        assert "loads with trust_remote_code=True, for its own class was asked for" in said
        child = AutoModelForMaskedLM.from_pretrained(tmp_path / "child")
        assert f"{sum(parameter.numel() for parameter in child.parameters()):,} parameters" in said
        batch = padded_batch()
        assert torch.equal(logits_of(child, batch), logits_of(chain, batch, architecture=ALTERNATING))
        card = ModelCard.load(tmp_path / "child" / "README.md")
        assert card.data.license == "mit"
        assert "FairNAS" in card.text
        assert "![The architecture as a chain of blocks](architecture.png)" in card.text
        assert (tmp_path / "child" / "architecture.png").is_file()
        assert "BERT of the same width" not in card.text, "it is that BERT"
        assert "latency" not in card.text
        # By default the same child is the stock BERT that it is.
        for name, flags in {"bert": [], "asked": ["--native", "always"]}.items():
            run_recipe("extract_child", *arguments[:5], tmp_path / name, *flags)
            assert "a plain BertForMaskedLM: loads anywhere without trust_remote_code" in capsys.readouterr().out
            assert type(AutoModelForMaskedLM.from_pretrained(tmp_path / name)) is BertForMaskedLM
            assert "trust_remote_code" not in (tmp_path / name / "README.md").read_text()
            assert not list((tmp_path / name).glob("*.py"))
        # A child that is none keeps its class, and it is said why.
        arguments[3], arguments[5] = "attention-conv3-skip-skip-skip", tmp_path / "own"
        run_recipe("extract_child", *arguments[:6])
        said = capsys.readouterr().out
        assert "trust_remote_code=True, for this child is no BERT: block 1 (conv3): BERT has no conv3" in said
        assert (tmp_path / "own" / "modeling_nasbert.py").is_file()
        assert "trust_remote_code=True" in (tmp_path / "own" / "README.md").read_text()

    def test_a_card_tells_what_was_proven_and_counted(self, supernet_folder, tmp_path, monkeypatch):
        module = importlib.import_module("hf_nasbert.pipeline.extraction")
        monkeypatch.setattr(module, "prove_equal_logits", lambda *_, **__: 1.25e-7)
        arguments = ["--supernet", supernet_folder, "--architecture", "attention-conv3-skip-skip-skip"]
        run_recipe("extract_child", *arguments, "--output_dir", tmp_path / "child")
        card = (tmp_path / "child" / "README.md").read_text()
        assert "by at most 1.25e-07." in card.replace("\n", " ")
        num_parameters = AutoModelForMaskedLM.from_pretrained(tmp_path / "child").num_parameters()
        assert f"| parameters | {num_parameters:,} |" in card

    def test_a_card_tells_how_the_super_net_was_trained(self, supernet_folder, tmp_path):
        start = {"event": "start", "step": 0, "arguments": {"method": "magic_t", "seed": 7, "max_steps": 900}}
        records.extend(supernet_folder / "train_log.jsonl", [start, {"event": "finish", "step": 900}])
        arguments = ["--supernet", supernet_folder, "--architecture", "attention-ffn-attention-ffn-skip"]
        run_recipe("extract_child", *arguments, "--output_dir", tmp_path / "child")
        card = (tmp_path / "child" / "README.md").read_text()
        for row in ("| method | `magic_t` |", "| optimizer steps | 900 |", "| seed | 7 |"):
            assert row in card
        assert "2108.12821> (how the super-net was trained)" in card

    def test_a_card_tells_latencies_where_a_table_was_measured(self, chain, supernet_folder, tmp_path):
        table = {
            "record": "latency_table",
            "operators_ms": {"attention@64": 2.0, "ffn@64": 0.5, "skip": 0.0},
            "adapters_ms": {},
            "outside_ms": 1.25,
            "setting": {
                "device": "clock",
                "batch_size": 8,
                "sequence_length": 32,
                "dtype": "float32",
                "num_threads": 1,
            },
            "sizes": costs.latency_sizes(chain.config),
        }
        records.append(tmp_path / "latency.jsonl", table)
        arguments = ["--supernet", supernet_folder, "--architecture", "attention-attention-attention-ffn-skip"]
        arguments += ["--output_dir", tmp_path / "child", "--latency_table", tmp_path / "latency.jsonl"]
        run_recipe("extract_child", *arguments)
        card = (tmp_path / "child" / "README.md").read_text()
        assert "| Cost | This model | BERT of the same width, 2 layers |" in card
        assert "| latency (ms) | 7.75 | 6.25 |" in card
        assert "Latency: 8x32 tokens, float32, 1 thread\\(s\\), clock." in card

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"--architecture": "attention-ffn-skip-ffn-ffn"}, "skip"),
            ({"--architecture": "attention-mixer-ffn-ffn-ffn"}, "mixer"),
            ({"--supernet": "nowhere"}, "nowhere: no such folder"),
            ({"--tokenizer_name": "nowhere"}, "nowhere holds no tokenizer"),
            ({"--native": "always", "--architecture": "conv3-ffn-attention-ffn-skip"}, r"block 0 \(conv3\)"),
            ({"--card": "nowhere.json"}, r"nowhere\.json"),
            ({"--card": "BROKEN"}, r"broken\.json is not JSON"),
            ({"--tolerance": "-1"}, "differ"),
        ],
        ids=lambda value: "-".join(value.values()) if isinstance(value, dict) else None,
    )
    def test_extract_child_names_what_is_wrong_and_writes_nothing(self, supernet_folder, tmp_path, change, message):
        flags = {"--supernet": supernet_folder, "--output_dir": tmp_path / "child"}
        flags |= {"--architecture": "attention-ffn-attention-ffn-skip", **change}
        if flags.get("--card") == "BROKEN":
            flags["--card"] = tmp_path / "broken.json"
        (tmp_path / "broken.json").write_text("{")
        before = sorted(tmp_path.rglob("*"))
        with pytest.raises(SystemExit, match=message):
            run_recipe("extract_child", *(part for flag in flags.items() for part in flag))
        assert sorted(tmp_path.rglob("*")) == before

    def test_score_children_scores_each_once(self, chain, supernet_folder, text, tmp_path, capsys):
        def run(*flags):
            common = ["--supernet", supernet_folder, "--output", tmp_path / "scores.jsonl", "--train_files", text]
            common += ["--max_seq_length", 16, "--num_dev_batches", 2, "--dev_batch_size", 4]
            common += ["--validation_fraction", 0.5, "--cache_dir", tmp_path / "cache"]
            run_recipe("score_children", *common, *flags)
            return capsys.readouterr().out

        run("--num_random", 12)

        def scored():
            return scored_children(records.read(tmp_path / "scores.jsonl"), "scores.jsonl")

        found = scored()
        assert len({child.architecture for child in found}) == len(found) == 12
        best = min(found, key=lambda child: child.loss)
        assert len({child.loss for child in found}) == 12
        said = run("--architectures", best.architecture, "attention-ffn-attention-ffn-skip")
        assert "2 children scored" in said
        again = scored()
        assert again[:12] == found
        assert len(again) == 13
        child = extract_child(chain, ALTERNATING)
        assert again[12].cost["num_parameters"] == sum(parameter.numel() for parameter in child.parameters())
        with pytest.raises(SystemExit, match="scores of another num_dev_batches"):
            run("--num_random", 12, "--num_dev_batches", 3)
        with pytest.raises(SystemExit, match="built for 32 tokens"):
            run("--num_random", 12, "--max_seq_length", 33)
        assert scored() == again

    def test_a_tokenizer_of_another_size_is_refused(self, supernet_folder, text, tmp_path):
        small = tiny_tokenizer(WORDS[:-1])
        small.save_pretrained(tmp_path / "small")
        flags = ["--supernet", str(supernet_folder), "--architecture", "attention-ffn-attention-ffn-skip"]
        flags += ["--output_dir", str(tmp_path / "child"), "--tokenizer_name", str(tmp_path / "small")]
        with pytest.raises(SystemExit, match=f"has {len(WORDS) - 1} tokens, the super-net {len(WORDS)} embeddings"):
            run_recipe("extract_child", *flags)
        assert not (tmp_path / "child").exists()

    def test_scores_under_other_masks_are_not_mixed(self, supernet_folder, text, tmp_path):
        flags = ["--supernet", supernet_folder, "--output", tmp_path / "scores.jsonl", "--train_files", text]
        flags += ["--max_seq_length", 16, "--num_dev_batches", 1, "--dev_batch_size", 4, "--num_random", 3]
        flags += ["--validation_fraction", 0.5, "--cache_dir", tmp_path / "cache"]
        run_recipe("score_children", *flags)
        with pytest.raises(SystemExit, match="scores of another dev_data"):
            run_recipe("score_children", *flags, "--mlm_probability", 0.6)

    def test_score_children_needs_one_choice(self, supernet_folder, tmp_path, capsys):
        flags = ["--supernet", str(supernet_folder), "--output", str(tmp_path / "scores.jsonl"), "--packaged", "imdb"]
        for choice in ([], ["--num_random", "3", "--all_children"], ["--num_random", "0"]):
            with pytest.raises(SystemExit):
                run_recipe("score_children", *flags, *choice)
            assert "num_random" in capsys.readouterr().err

    def test_every_child_is_chosen_once(self):
        def chosen_by(**flags):
            return choose_children(ScoreChildrenArguments(supernet="s", output="o", **flags), space)

        space = SPACES["staged"]
        for flags in ({"all_children": True}, {"num_random": 10**9}):
            chosen = chosen_by(**flags)
            assert len(set(chosen)) == len(chosen) == space.num_children
        some = [chosen_by(num_random=20, seed=seed) for seed in (0, 0, 1)]
        assert some[0] == some[1] != some[2]
        assert len(set(some[0])) == 20
        assert all(child in space for child in some[0])

    @pytest.mark.slow
    def test_search_children_finds_the_best_within_the_budget_and_resumes(
        self, supernet_folder, text, tmp_path, capsys
    ):
        def run(name, *flags):
            common = ["--supernet", supernet_folder, "--output", tmp_path / f"{name}.jsonl", "--train_files", text]
            common += ["--max_seq_length", 16, "--num_dev_batches", 1, "--dev_batch_size", 4]
            common += ["--validation_fraction", 0.5, "--cache_dir", tmp_path / "cache", *flags]
            run_recipe(name.split("-")[0], *common)
            return capsys.readouterr().out

        run("score_children", "--all_children")
        scores = scored_children(records.read(tmp_path / "score_children.jsonl"), "scores")
        cap = sorted(child.cost["num_parameters"] for child in scores)[len(scores) // 10]
        within = [child for child in scores if child.cost["num_parameters"] <= cap]
        best = min(within, key=lambda child: child.loss)
        said = run("search_children", "--max_parameters", cap, "--num_evaluations", len(within))
        assert said.splitlines()[1].endswith(f"  {best.architecture}")
        history = records.read(tmp_path / "search_children.jsonl")
        # The settings, then every child within the budget, once; what they are held against comes beside.
        assert len([record for record in history if not is_beside(record)]) == len(within) + 1
        run("search_children", "--max_parameters", cap, "--num_evaluations", len(within))
        assert records.read(tmp_path / "search_children.jsonl") == history
        with pytest.raises(SystemExit, match="no child is within the budget"):
            run("search_children-2", "--max_parameters", "1K")
        with pytest.raises(SystemExit, match="another search"):
            run("search_children", "--max_parameters", cap, "--seed", 5)
