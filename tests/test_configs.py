"""Configs: what they refuse and how, what they keep, the presets, and what a saved child says about its code."""

import dataclasses
import json
import logging
import re
from functools import partial

import pytest
import torch
from huggingface_hub.errors import StrictDataclassFieldValidationError
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tiny.models import (
    HEADS,
    KINDS,
    SIZES,
    chain_config,
    chain_supernet_config,
    every_head,
    staged_config,
    staged_supernet_config,
)
from transformers import AutoConfig, AutoModelForMaskedLM, BertConfig, PreTrainedConfig

from hf_nasbert import modeling
from hf_nasbert.configs import load_config
from hf_nasbert.modeling import NasBertConfig, NasBertForMaskedLM, SupernetConfig, SupernetForMaskedLM
from hf_nasbert.modeling.configuration_nasbert import AUTO_MAP, NasBertShapeConfig
from hf_nasbert.modeling.layouts import LAYOUTS
from hf_nasbert.space import Architecture, SearchSpace

CONFIGS = {"child": NasBertConfig, "supernet": SupernetConfig}
every_config = pytest.mark.parametrize("config_class", CONFIGS.values(), ids=CONFIGS.keys())

# Every field with a value that is not its default: a field that is not written or not read back cannot pass.
OTHER_VALUES = {
    "vocab_size": 77,
    "hidden_size": 96,
    "embedding_size": 24,
    "ffn_ratio": 3,
    "attention_head_size": 16,
    "num_conv_layers": 3,
    "max_position_embeddings": 40,
    "type_vocab_size": 5,
    "hidden_act": "relu",
    "pooler_act": "gelu",
    "hidden_dropout_prob": 0.25,
    "attention_probs_dropout_prob": 0,
    "classifier_dropout": 0.5,
    "layer_norm_eps": 1e-6,
    "initializer_range": 0.1,
    "pad_token_id": 7,
    "tie_word_embeddings": False,
}
OTHER_CHILD = {
    **OTHER_VALUES,
    "sparse_prediction": True,
    "operators": ["attention@48", "skip", "conv7@32"],
    "stage_lengths": [2, 1],
}
OTHER_SUPERNET = {
    **OTHER_VALUES,
    "sparse_prediction": False,
    "search_space": SearchSpace.staged(2, 3, ("ffn", "conv5", "skip"), widths=(48, 96)).to_dict(),
    "weight_layout": "another",  # registered where it is tried
    "copies": {
        "number": 2,
        "owners": [0, 0, 1, 1],
        "block": 0,
        "operators": ["ffn@48", "conv5@48", "ffn@96", "conv5@96"],
    },
}


def own_fields(config_class) -> set[str]:
    return set(config_class.__dataclass_fields__) - set(PreTrainedConfig.__dataclass_fields__)


# What is refused


@every_config
@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("hidden_size", "64"),
        ("hidden_size", 64.0),
        ("hidden_size", None),
        ("embedding_size", "wide"),
        ("tie_word_embeddings", "yes"),
        ("hidden_dropout_prob", "0.1"),
        ("hidden_act", 3),
        ("layer_norm_eps", None),
    ],
)
def test_a_wrong_type_is_refused(config_class, name, value):
    with pytest.raises(StrictDataclassFieldValidationError, match=name):
        config_class(**{name: value})
    with pytest.raises(StrictDataclassFieldValidationError, match=name):
        setattr(config_class(), name, value)


@every_config
def test_an_unknown_activation_is_refused_with_the_nearest_one(config_class):
    for name in ("hidden_act", "pooler_act"):
        with pytest.raises(ValueError, match=rf"{name} is 'gelo'; expected an activation .* 'gelu'"):
            config_class(**{name: "gelo"})


@pytest.mark.parametrize(
    ("config_class", "name", "value"),
    [
        (NasBertConfig, "operators", "attention-ffn"),
        (NasBertConfig, "operators", None),
        (NasBertConfig, "operators", [1, 2]),
        (NasBertConfig, "stage_lengths", 6),
        (NasBertConfig, "stage_lengths", ["6"]),
        (SupernetConfig, "search_space", ["attention"]),
        (SupernetConfig, "search_space", "attention"),
    ],
)
def test_a_wrong_type_of_the_architecture_is_refused(config_class, name, value):
    with pytest.raises(StrictDataclassFieldValidationError, match=name):
        config_class(**{name: value})


@every_config
@pytest.mark.parametrize(
    ("misspelt", "near"),
    [("hiden_size", "hidden_size"), ("vocabsize", "vocab_size"), ("hidden_activation", "hidden_act")],
)
def test_a_misspelt_field_is_refused_with_the_near_name(config_class, misspelt, near):
    with pytest.raises(
        ValueError, match=rf"{config_class.__name__} has no field '{misspelt}'; did you mean '{near}'\?"
    ):
        config_class(**{misspelt: 3})


def test_the_near_name_is_one_of_the_same_config():
    with pytest.raises(ValueError, match="did you mean 'operators'"):
        NasBertConfig(operator=["ffn"])
    with pytest.raises(ValueError, match="did you mean 'search_space'"):
        SupernetConfig(searchspace=None)


@every_config
def test_an_unknown_field_is_refused_without_a_guess(config_class):
    with pytest.raises(ValueError, match=r"has no field 'qqq'$"):
        config_class(qqq=1)


# What a file may hold besides: transformers, its tools and the hands of users write there


def written(config, tmp_path, **fields):
    """A folder with the config and these fields in its file."""
    config.save_pretrained(tmp_path)
    file = tmp_path / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | fields))
    return tmp_path


LOADERS = {
    "from_pretrained": lambda kind, folder: kind.from_pretrained(folder),
    "AutoConfig": lambda kind, folder: AutoConfig.from_pretrained(folder),
    "from_dict": lambda kind, folder: kind.from_dict(json.loads((folder / "config.json").read_text())),
    "from_json_file": lambda kind, folder: kind.from_json_file(folder / "config.json"),
}


@every_config
@pytest.mark.parametrize("load", LOADERS.values(), ids=LOADERS.keys())
def test_an_unknown_field_of_a_file_is_kept_and_named_in_one_warning(config_class, load, tmp_path, caplog):
    fields = {"hiden_size": 3, "brand_new": {"a": [1, None]}, "sep_token_id": 2}
    config = load(config_class, written(config_class(), tmp_path, **fields))
    (record,) = caplog.records
    assert record.levelname == "WARNING"
    assert f"{config_class.__name__} has no field 'hiden_size'; did you mean 'hidden_size'?" in record.message
    assert "has no field 'brand_new'" in record.message
    assert "sep_token_id" not in record.message
    assert (config.hiden_size, config.brand_new, config.sep_token_id) == (3, {"a": [1, None]}, 2)
    assert config.hidden_size == config_class().hidden_size
    before = (tmp_path / "config.json").read_text()
    config.save_pretrained(tmp_path)
    assert json.loads((tmp_path / "config.json").read_text()) == json.loads(before)


@every_config
def test_a_file_without_unknown_fields_loads_without_a_word(config_class, tmp_path, caplog):
    config_class.from_pretrained(written(config_class(), tmp_path))
    assert not caplog.records


def test_a_thousand_unknown_fields_are_one_short_warning(caplog):
    config = NasBertConfig.from_dict({f"field_{number}" + "x" * 500: number for number in range(1000)})
    (record,) = caplog.records
    assert "995 more such fields" in record.message
    assert len(record.message) < 1000
    assert sum(name.startswith("field_") for name in config.to_dict()) == 1000


@every_config
@pytest.mark.parametrize("name", ["num_hidden_layers", "word_embedding_size", "head_size", "to_dict"])
def test_a_name_that_is_taken_is_left_out(config_class, name, tmp_path, caplog):
    config = config_class.from_pretrained(written(config_class(), tmp_path, **{name: 3}))
    assert f"has no field '{name}': that name is taken" in caplog.text
    assert config.to_dict() == config_class.from_pretrained(written(config_class(), tmp_path)).to_dict()
    with pytest.raises(ValueError, match=f"has no field '{name}': that name is taken"):
        config_class(**{name: 3})


@every_config
@pytest.mark.parametrize(
    ("name", "value"), [("hidden_size", 0), ("hidden_act", "gelo"), ("layer_norm_eps", 0.0), ("pad_token_id", -1)]
)
def test_a_bad_value_in_a_file_is_refused(config_class, name, value, tmp_path):
    with pytest.raises(ValueError, match=f"{name} is "):
        config_class.from_pretrained(written(config_class(), tmp_path, **{name: value}))


@every_config
def test_a_file_of_another_family_is_refused(config_class, tmp_path):
    BertConfig().save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=f"{config_class.__name__} is of model_type '.*', this config of 'bert'"):
        config_class.from_pretrained(tmp_path)


@every_config
def test_what_the_caller_of_from_pretrained_misspells_is_refused(config_class, tmp_path):
    folder = written(config_class(), tmp_path)
    assert config_class.from_pretrained(folder, ffn_ratio=3).ffn_ratio == 3
    for load in (config_class.from_pretrained, AutoConfig.from_pretrained):
        with pytest.raises(ValueError, match="has no field 'hiden_size'; did you mean 'hidden_size'"):
            load(folder, hiden_size=3)
    # What is meant for a tokenizer comes along, and whoever asks for what was not used gets it.
    assert type(AutoConfig.from_pretrained(folder, pad_token="<pad>", use_fast=True)) is config_class
    assert config_class.from_pretrained(folder, hiden_size=3, return_unused_kwargs=True)[1] == {"hiden_size": 3}
    # A field that only the file knows may be replaced.
    assert config_class.from_pretrained(written(config_class(), folder, hiden_size=3), hiden_size=4).hiden_size == 4


def test_a_model_is_not_loaded_by_a_misspelt_field(tmp_path):
    NasBertForMaskedLM(chain_config()).save_pretrained(tmp_path)
    for load in (NasBertForMaskedLM.from_pretrained, AutoModelForMaskedLM.from_pretrained):
        with pytest.raises(TypeError, match="hiden_size"):
            load(tmp_path, hiden_size=3)


@every_config
@pytest.mark.parametrize(
    ("name", "value"),
    [("is_decoder", True), ("add_cross_attention", True), ("position_embedding_type", "relative_key")],
)
def test_what_would_be_another_network_is_told(config_class, name, value, tmp_path, caplog):
    with pytest.raises(ValueError, match=f"{name} can only be .* in a {config_class.__name__}"):
        config_class(**{name: value})
    config = config_class.from_pretrained(written(config_class(), tmp_path, **{name: value}))
    assert f"{name} can only be" in caplog.text
    assert getattr(config, name) == value


@every_config
@pytest.mark.parametrize(
    "fields",
    [
        {"num_labels": 5},
        {"id2label": {0: "bad", 1: "good", 2: "fine"}},
        {"problem_type": "regression"},
        {"output_hidden_states": True},
        {"attn_implementation": "eager"},
        {"torch_dtype": "bfloat16"},
        {"dtype": "bfloat16"},
        {"sentence_transformers": {"version": "5"}},  # what its CrossEncoder leaves in config.json
        {"architectures": ["X"], "transformers_version": "5.0.0"},
        {f"{name}_token_id": 3 for name in ("bos", "eos", "sep", "cls", "mask", "unk")},
        {"model_max_length": 512, "is_decoder": False, "pruned_heads": {}, "add_cross_attention": False},
        {"torchscript": False, "position_embedding_type": "absolute", "transformers.js_config": {"dtype": "q8"}},
    ],
    ids=lambda fields: next(iter(fields)),
)
def test_fields_of_transformers_and_its_friends_are_taken(config_class, fields, tmp_path, caplog):
    config = config_class(**fields)
    config.save_pretrained(tmp_path)
    assert config_class.from_pretrained(tmp_path).to_dict() == config.to_dict()
    assert not caplog.records


@every_config
@pytest.mark.parametrize(
    ("name", "value"),
    [
        *[(name, 0) for name in ("vocab_size", "hidden_size", "embedding_size", "ffn_ratio", "attention_head_size")],
        *[(name, -1) for name in ("num_conv_layers", "max_position_embeddings", "type_vocab_size")],
        *[(name, 1.0) for name in ("hidden_dropout_prob", "attention_probs_dropout_prob", "classifier_dropout")],
        *[(name, -0.1) for name in ("hidden_dropout_prob", "attention_probs_dropout_prob", "classifier_dropout")],
        ("pad_token_id", -1),
        ("pad_token_id", 30522),
    ],
)
def test_an_impossible_size_is_refused(config_class, name, value):
    with pytest.raises(ValueError, match=rf"{name} is {value}; expected"):
        config_class(**{name: value})


@pytest.mark.parametrize("name", ["conv9", "lstm", "Attention", "conv35"])
def test_an_unknown_operator_names_block_operator_and_candidates(name):
    with pytest.raises(ValueError, match=rf"block 1: unknown operator '{name}'") as caught:
        NasBertConfig(operators=["ffn", name])
    assert all(kind in str(caught.value) for kind in KINDS)


def test_an_unknown_operator_of_a_space_names_block_operator_and_candidates():
    with pytest.raises(ValueError, match="choice block 0: unknown operator 'lstm@32'") as caught:
        SupernetConfig(search_space=SearchSpace.staged(1, 2, ("ffn", "lstm"), widths=(32,)))
    assert all(kind in str(caught.value) for kind in KINDS)


@pytest.mark.parametrize("width", ["", "0", "-1", "1.5", "wide"])
def test_a_malformed_width_is_refused(width):
    with pytest.raises(ValueError, match=rf"block 0: 'conv5@{width}' is not an operator name"):
        NasBertConfig(operators=[f"conv5@{width}"])


def test_attention_that_does_not_divide_into_heads_is_refused():
    with pytest.raises(ValueError, match="block 1: attention of width 40 does not divide into heads of 32"):
        NasBertConfig(operators=["ffn", "attention"], hidden_size=40)
    with pytest.raises(ValueError, match="choice block 0: attention of width 100 does not divide into heads of 32"):
        SupernetConfig(search_space=SearchSpace.staged(1, 1, ("attention",), widths=(64, 100)))
    NasBertConfig(operators=["ffn", "attention"], hidden_size=40, attention_head_size=20)
    NasBertConfig(operators=["ffn", "conv3"], hidden_size=40)


@pytest.mark.parametrize("lengths", [[], [1], [2, 2], [3, 0], [4, -1]])
def test_stages_that_do_not_add_up_are_refused(lengths):
    with pytest.raises(ValueError, match=r"stage_lengths .* there are 3 operators"):
        NasBertConfig(operators=["ffn"] * 3, stage_lengths=lengths)


def test_two_widths_in_a_stage_are_refused():
    with pytest.raises(ValueError, match=r"stage 1 holds operators of widths \[32, 64\]"):
        NasBertConfig(operators=["ffn", "ffn@64", "conv3@32"], stage_lengths=[1, 2])
    with pytest.raises(ValueError, match=r"stage 0 holds operators of widths \[64, 256\]"):
        NasBertConfig(operators=["ffn", "ffn@64"])  # no width means hidden_size
    with pytest.raises(ValueError, match="operators is empty"):
        NasBertConfig(operators=[])


# What is computed from the fields


@pytest.mark.parametrize(
    ("width", "head_size"), [(32, 32), (64, 32), (96, 32), (128, 64), (160, 32), (192, 64), (256, 64), (768, 64)]
)
def test_head_size(width, head_size):
    assert NasBertConfig().head_size(width) == head_size
    assert NasBertConfig(attention_head_size=16).head_size(width) == 16


def widths(config):
    return [(block.input_width, block.width, block.output_width) for block in config.geometry()]


def test_widths_of_blocks():
    assert widths(chain_config()) == [(32, 32, 32)] * 4
    assert widths(staged_config()) == [
        *[(32, 64, 64), (64, 64, 32)],
        *[(32, 32, 32), (32, 32, 32)],  # a stage of the model's own width has no projections
        *[(32, 96, 96), (96, 96, 32)],  # what a skip passes on keeps its stage's width
    ]
    assert widths(chain_config(["ffn@48"])) == [(32, 48, 32)]


def test_num_hidden_layers_counts_every_block():
    assert chain_config().num_hidden_layers == 4
    assert staged_config().num_hidden_layers == 6
    assert chain_supernet_config().num_hidden_layers == 3
    assert staged_supernet_config().num_hidden_layers == 4


@pytest.mark.parametrize(
    ("config", "heads", "inner"),
    [
        (chain_config(), 1, 128),
        (chain_config(("conv3", "ffn@64", "attention@96"), stage_lengths=(1, 1, 1)), 3, 256),
        (chain_config(("conv3",), hidden_size=40), 1, 160),
        (NasBertConfig(), 4, 1024),
        (staged_config(attention_head_size=16), 4, 384),
        (chain_supernet_config(), 1, 128),
        (staged_supernet_config(), 1, 128),
    ],
)
def test_sizes_that_tools_ask_for(config, heads, inner, tmp_path, caplog):
    """Heads of the first attention, inner width of the first ffn: to be read, in `to_dict` too, and in no file."""
    expected = {
        "num_attention_heads": heads,
        "intermediate_size": inner,
        "num_hidden_layers": config.num_hidden_layers,
    }
    assert {name: getattr(config, name) for name in expected} == expected
    assert config.to_dict().items() >= expected.items()
    config.save_pretrained(tmp_path)
    assert not json.loads((tmp_path / "config.json").read_text()).keys() & expected.keys()
    assert type(config)(**config.to_dict()).to_dict() == config.to_dict()
    assert type(config).from_dict(config.to_dict()).to_dict() == config.to_dict()
    assert not caplog.records
    for name, value in expected.items():
        for make in (
            lambda: type(config)(**config.to_dict() | {name: value + 1}),  # noqa: B023
            lambda: type(config).from_pretrained(tmp_path, **{name: value + 1}),  # noqa: B023
        ):
            with pytest.raises(ValueError, match=rf"no field '{name}': that name is taken \(computed: set "):
                make()
        with pytest.raises(AttributeError):
            setattr(config, name, value)


@every_config
@pytest.mark.parametrize("eps", [1.0, 5.0, 1])
def test_a_large_epsilon_is_loaded_again(config_class, eps, tmp_path):
    """transformers' own suite sets 1.0, by attribute."""
    config = config_class()
    config.layer_norm_eps = eps
    config.save_pretrained(tmp_path)
    assert config_class.from_pretrained(tmp_path).layer_norm_eps == config_class(layer_norm_eps=eps).layer_norm_eps


@every_config
@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("layer_norm_eps", float("nan")),
        ("hidden_act", "gelo"),
        ("pad_token_id", 10**6),
        ("hidden_size", 0),
        ("attention_head_size", 0),
    ],
)
def test_what_was_set_to_what_cannot_be_loaded_is_neither_saved_nor_built(config_class, name, value, tmp_path):
    config = config_class()
    setattr(config, name, value)
    model_class = {NasBertConfig: NasBertForMaskedLM, SupernetConfig: SupernetForMaskedLM}[config_class]
    with pytest.raises(ValueError, match=f"{name} is "):
        config.save_pretrained(tmp_path)
    assert not [*tmp_path.iterdir()]
    with torch.device("meta"), pytest.raises(ValueError, match=f"{name} is "):
        model_class(config)


# What is kept


@pytest.mark.parametrize(("config_class", "fields"), [(NasBertConfig, OTHER_CHILD), (SupernetConfig, OTHER_SUPERNET)])
def test_round_trip_keeps_every_field(config_class, fields, tmp_path, monkeypatch):
    monkeypatch.setitem(LAYOUTS, "another", LAYOUTS["separate"])
    assert fields.keys() == own_fields(config_class)
    config = config_class(**fields)
    assert all(getattr(config_class(), name) != value for name, value in fields.items())
    config.save_pretrained(tmp_path)
    for loaded in (
        config_class.from_pretrained(tmp_path),
        AutoConfig.from_pretrained(tmp_path),
        config_class.from_dict(json.loads(config.to_json_string(use_diff=False))),
        config_class.from_dict(json.loads(config.to_json_string())),
    ):
        assert type(loaded) is config_class
        assert {name: getattr(loaded, name) for name in fields} == fields
        assert loaded.to_dict() | {"_name_or_path": None} == config.to_dict() | {"_name_or_path": None}
    loaded.save_pretrained(tmp_path / "again")
    assert (tmp_path / "again" / "config.json").read_text() == (tmp_path / "config.json").read_text()


def test_every_field_is_documented():
    documented = f"{NasBertShapeConfig.__doc__}{NasBertConfig.__doc__}{SupernetConfig.__doc__}"
    for config_class in CONFIGS.values():
        for name in own_fields(config_class):
            assert re.search(rf"^ +{name}: ", documented, re.MULTILINE), name


def test_an_architecture_is_taken_as_it_is():
    architecture = Architecture.parse("attention-ffn-skip")
    config = chain_config(architecture)
    assert config.operators == ["attention", "ffn", "skip"]
    assert type(config.operators) is list


def test_configs_share_nothing():
    operators, space = ["ffn"], SearchSpace.chain(2, ("ffn", "conv3")).to_dict()
    first, second = NasBertConfig(operators=operators), NasBertConfig(operators=operators)
    supernet = SupernetConfig(search_space=space)
    operators.append("conv3")
    space["stages"][0]["blocks"].pop()
    first.auto_map.clear()
    assert first.operators == second.operators == ["ffn"]
    assert second.auto_map == AUTO_MAP
    assert supernet.space.num_choice_blocks == 2


def test_a_space_is_stored_as_plain_json():
    space = SearchSpace.staged(2, 3, ("ffn", "skip", "conv3"), widths=(32, 64))
    from_space, from_dict = SupernetConfig(search_space=space), SupernetConfig(search_space=space.to_dict())
    assert from_space.search_space == from_dict.search_space == json.loads(json.dumps(space.to_dict()))
    assert type(from_space.search_space) is dict
    assert from_space.space == from_dict.space == space
    # One space, one stored form: `skip` has its place whatever the order it was given in.
    reordered = {"stages": [{"blocks": [["skip", "ffn", "conv3"]] * 3, "widths": [32, 64]}] * 2}
    assert SupernetConfig(search_space=reordered).search_space == from_space.search_space


def test_a_space_that_is_none_is_refused():
    with pytest.raises(ValueError, match=r"unknown .*depth"):
        SupernetConfig(search_space={"stages": [{"blocks": [["ffn"]], "depth": 3}]})
    with pytest.raises(ValueError, match=r"missing .*stages"):
        SupernetConfig(search_space={})


# Presets


def test_preset_quickstart():
    config = SupernetConfig.preset("quickstart")
    assert (config.space.num_children, config.hidden_size, config.vocab_size) == (4**6, 128, 8192)
    assert SupernetConfig().space == config.space


def test_preset_magic_base():
    config = SupernetConfig.preset("magic-base")
    assert (config.space.num_choice_blocks, config.space.num_stages, config.hidden_size) == (24, 1, 768)
    assert config.vocab_size == 30522


def test_preset_nasbert():
    config = SupernetConfig.preset("nasbert")
    assert config.space.num_children == 97_650**4
    assert [len(candidates) for candidates in config.space.blocks] == [26] * 24
    assert config.space.num_stages == 4


@pytest.mark.parametrize("name", ["magic-base", "nasbert"])
def test_presets_can_be_built(name):
    config = SupernetConfig.preset(name)
    with torch.device("meta"):
        supernet = SupernetForMaskedLM(config)
    assert [set(block.operators) for block in supernet.nasbert.encoder.blocks] == [set(b) for b in config.space.blocks]
    # ffn is the widest operator; where widths are chosen, the widest stage is the largest.
    assert set(supernet.largest_architecture) == {"ffn@512" if name == "nasbert" else "ffn"}


def test_preset_fields_can_be_replaced():
    config = SupernetConfig.preset("nasbert", vocab_size=1000, sparse_prediction=False)
    assert (config.vocab_size, config.sparse_prediction, config.embedding_size) == (1000, False, 128)
    assert SupernetConfig.preset("nasbert").vocab_size == 30522


def test_an_unknown_preset_is_refused_with_the_known_ones():
    with pytest.raises(ValueError, match="unknown preset 'huge': expected one of quickstart, magic-base, nasbert"):
        SupernetConfig.preset("huge")


# The code that travels


def test_auto_map_names_every_class():
    tasks = {name.removeprefix("NasBert") for name in HEADS} - {"Model"}
    assert set(AUTO_MAP) == {"AutoConfig", "AutoModel"} | {f"AutoModel{task}" for task in tasks}
    for place in AUTO_MAP.values():
        module, name = place.split(".")
        assert getattr(modeling, name).__module__ == f"hf_nasbert.modeling.{module}"


@every_head
def test_auto_map_is_full_whichever_head_is_saved(head, tmp_path):
    head(chain_config()).save_pretrained(tmp_path)
    saved = json.loads((tmp_path / "config.json").read_text())
    assert saved["auto_map"] == AUTO_MAP
    assert saved["architectures"] == [head.__name__]
    assert sorted(file.name for file in tmp_path.glob("*.py")) == [
        "configuration_nasbert.py",
        "geometry_nasbert.py",
        "modeling_nasbert.py",
        "operators_nasbert.py",
    ]


def test_a_saved_supernet_carries_no_code(tmp_path):
    SupernetForMaskedLM(chain_supernet_config()).save_pretrained(tmp_path)
    assert "auto_map" not in json.loads((tmp_path / "config.json").read_text())
    assert list(tmp_path.glob("*.py")) == []


def test_sizes_of_these_tests_are_fields():
    assert own_fields(NasBertConfig) >= SIZES.keys()


# Whatever a config accepts it can load again

ODD_TEXT = st.text(max_size=8)
NUMBERS = st.one_of(st.integers(-3, 300), st.floats(), st.none(), st.booleans(), ODD_TEXT)
LABELS = st.dictionaries(st.one_of(st.integers(-2, 9), ODD_TEXT), ODD_TEXT, max_size=3)
OPERATOR_NAMES = st.sampled_from(["attention", "ffn", "conv3", "skip", "ffn@64", "attention@48", "conv9", "ffn@x"])
SPACES = [
    SearchSpace.chain(2, ("attention", "ffn")),
    SearchSpace.staged(2, 2, ("ffn", "skip"), widths=(32, 64)).to_dict(),
    {"stages": []},
    {},
]
VALUES = {
    **dict.fromkeys(own_fields(NasBertConfig) | own_fields(SupernetConfig), NUMBERS),
    "hidden_act": st.sampled_from(["gelu", "relu", "gelo", ""]),
    "operators": st.one_of(
        st.lists(OPERATOR_NAMES, max_size=4), st.lists(OPERATOR_NAMES, max_size=4).map(tuple), NUMBERS
    ),
    "stage_lengths": st.one_of(st.lists(st.integers(-1, 3), max_size=3), NUMBERS),
    "search_space": st.one_of(st.sampled_from(SPACES), NUMBERS),
    "weight_layout": st.one_of(st.sampled_from(["separate", "woven"]), NUMBERS),
    # transformers' own
    "architectures": st.one_of(st.lists(ODD_TEXT, max_size=2), NUMBERS),
    "chunk_size_feed_forward": NUMBERS,
    "dtype": st.sampled_from(["float16", "bfloat16", torch.float32, torch.int8, "auto", "nn", "", None, 16]),
    "id2label": st.one_of(LABELS, NUMBERS),
    "is_encoder_decoder": NUMBERS,
    "label2id": st.one_of(st.dictionaries(ODD_TEXT, st.one_of(st.integers(), ODD_TEXT), max_size=3), NUMBERS),
    "output_hidden_states": NUMBERS,
    "problem_type": st.sampled_from(["regression", "single_label_classification", "multi", None]),
    "return_dict": NUMBERS,
    # and what tools set (`use_cache` and other fields of generation are dropped by transformers on loading)
    "num_labels": st.integers(0, 3),
    "is_decoder": st.booleans(),
    "bos_token_id": st.one_of(st.integers(-1, 60), st.none(), ODD_TEXT),
    "per_layer_config": st.sampled_from([None, {0: {"ffn_ratio": 2}}]),
}
WRITTEN_BY_TRANSFORMERS = {"transformers_version"}


def test_every_field_is_tried():
    for config_class in CONFIGS.values():
        assert {field.name for field in dataclasses.fields(config_class)} <= VALUES.keys() | WRITTEN_BY_TRANSFORMERS


def refuses(action) -> bool:
    """Whether an action is refused with an error of a user's mistake."""
    try:
        action()
    except (ValueError, TypeError, AttributeError, StrictDataclassFieldValidationError):
        return True
    return False


@every_config
@pytest.mark.filterwarnings("ignore")
@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_whatever_is_accepted_and_saved_is_loaded_again(config_class, tmp_path, data):
    fields = {field.name for field in dataclasses.fields(config_class)} | {
        "num_labels",
        "is_decoder",
        "bos_token_id",
    }
    fields = sorted((fields | {"per_layer_config"}) - WRITTEN_BY_TRANSFORMERS)
    chosen = data.draw(st.lists(st.sampled_from(fields), max_size=2, unique=True))
    given_values = {name: data.draw(VALUES[name], label=name) for name in chosen}
    sizes = {"vocab_size": 50, "hidden_size": 96}
    configs = []
    refuses(lambda: configs.append(config_class(**{**sizes, **given_values})))
    later = config_class(**sizes)
    if not any(refuses(partial(setattr, later, name, value)) for name, value in given_values.items()):
        configs.append(later)
    for config in configs:
        if not refuses(partial(config.save_pretrained, tmp_path)):
            loaded = config_class.from_pretrained(tmp_path)
            as_saved, as_loaded = config.to_dict(), loaded.to_dict()
            for found in (as_saved, as_loaded):
                found.pop("_name_or_path", None)
            assert as_loaded == as_saved
            for name in given_values.keys() - {"per_layer_config"}:
                assert getattr(loaded, name) == getattr(config, name)


def test_requests_that_are_tried_again_are_not_told(monkeypatch, caplog):
    """Where the Hub cannot be reached, huggingface_hub says so six times before the one line that is ours."""
    logger = logging.getLogger("huggingface_hub.utils._http")
    logger.addHandler(caplog.handler)

    def unreachable(*_, **__):
        logger.warning("thrown while requesting HEAD")
        raise OSError("no connection")

    monkeypatch.setattr("hf_nasbert.configs.cached_file", unreachable)
    try:
        with pytest.raises(OSError, match="the model nobody/nothing cannot be loaded: no connection"):
            load_config("nobody/nothing")
        assert caplog.messages == []
        logger.warning("of somebody else's request")
        assert set(caplog.messages) == {"of somebody else's request"}
    finally:
        logger.removeHandler(caplog.handler)
