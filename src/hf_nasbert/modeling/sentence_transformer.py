"""What makes a SentenceTransformer of an encoder: pooling, a layer, normalisation, longest text, prompts."""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedTokenizerBase
from transformers.utils.hub import cached_file

from hf_nasbert.foreign import ForeignFileError, printable, read_json, read_object
from hf_nasbert.modeling.sentence_dense import Dense
from hf_nasbert.writing import whole_folder, write_bytes, write_text

POOLINGS = {
    "cls": "pooling_mode_cls_token",
    "max": "pooling_mode_max_tokens",
    "mean": "pooling_mode_mean_tokens",
    "mean_sqrt_len_tokens": "pooling_mode_mean_sqrt_len_tokens",
    "weightedmean": "pooling_mode_weightedmean_tokens",
    "lasttoken": "pooling_mode_lasttoken",
}
"""How token states become one vector, and the fields that say so in the files of sentence-transformers before 6.

Those files join the vectors of several in this order, those of version 6 in the order that they say.
"""
_FIRST_POOLINGS = tuple(POOLINGS)[:4]  # which version 2 knew; it refuses fields that it does not know

MODULE_FOLDER = r"[0-9]_(Pooling|Normalize|Dense|LayerNorm|Dropout)"
"""The folder of a module that sentence-transformers writes after the encoder, as a regular expression."""
SUPERNET_FOLDER = "sentence_transformer"
"""In a folder of a super-net: what makes a SentenceTransformer of its children."""
MODULE_FILES = ("modules.json", "sentence_bert_config.json", "config_sentence_transformers.json")
"""What lies beside the encoder's own files in the folder of a SentenceTransformer."""

# Of that library's own: other modules, a Router say, name further classes in files of theirs.
_OWN_MODULE = re.compile(
    r"sentence_transformers(\.\w+)*\.(Transformer|Pooling|Normalize|Dense|LayerNorm|Dropout)", re.ASCII
)

_TEXT_FILES = tuple(
    f"sentence_{kind}_config.json"
    for kind in ("bert", "roberta", "distilbert", "camembert", "albert", "xlm-roberta", "xlnet")
)
"""Where the longest text stands: old versions of sentence-transformers named the file after the encoder."""

_SIMILARITIES = ("cosine", "dot", "euclidean", "manhattan")

# What sentence_bert_config.json may hand on to transformers, and of that what changes no vector (but by rounding).
_HANDED_ON = ("model_args", "model_kwargs", "tokenizer_args", "processor_kwargs", "config_args", "config_kwargs")
_HARMLESS = {"add_pooling_layer", "dtype", "torch_dtype", "trust_remote_code", "use_safetensors"}
# How version 6 says that texts go in and the last states come out; what is not said is so.
_PLAIN = {
    "transformer_task": "feature-extraction",
    "module_output_name": "token_embeddings",
    "text": {"method": "forward", "method_output_name": "last_hidden_state"},
}
_ENCODER_FILES = (
    "config.json", "tokenizer_config.json", "tokenizer.json", "vocab.txt", "vocab.json", "merges.txt",
    "sentencepiece.bpe.model", "special_tokens_map.json", "added_tokens.json",
)  # fmt: skip
_WEIGHTS = ("model.safetensors", "pytorch_model.bin")
_PART = re.compile(r"[\w-][\w.-]*", re.ASCII)  # the name of a file of weights that an index may have fetched
_VECTOR = "sentence_embedding"
_BEHIND: tuple[list[str], ...] = ([], ["Dense"], ["Normalize"], ["Dense", "Normalize"])  # what may follow the pooling
_ACTIVATION = re.compile(r"torch\.nn\.modules\.(activation|linear)\.[A-Za-z]+", re.ASCII)


@dataclass(frozen=True)
class SentenceModules:
    """What stands around the encoder in a SentenceTransformer.

    Args:
        pooling: Names of `POOLINGS`; the vectors of several are joined in this order.
        normalize: Whether vectors are divided by their length.
        max_seq_length: Tokens after which a text is cut; `None` leaves that to the tokenizer.
        do_lower_case: Whether texts are lower-cased in front of the tokenizer.
        prompts: Texts that are put before the user's, by name.
        default_prompt_name: The one that is used where none is named.
        similarity: How two vectors are compared; `None` says nothing.
        include_prompt: Whether the tokens of a prompt are pooled too, by that library; `pool` learns it from its mask.
        truncate_dim: Numbers of a vector that are kept, after all else; `None` keeps all.
        dense: A layer between pooling and normalisation; `None` is none.
    """

    pooling: tuple[str, ...] = ("mean",)
    normalize: bool = False
    max_seq_length: int | None = None
    do_lower_case: bool = False
    prompts: dict[str, str] = field(default_factory=dict)
    default_prompt_name: str | None = None
    similarity: str | None = None
    include_prompt: bool = True
    truncate_dim: int | None = None
    dense: Dense | None = None

    @property
    def default_prompt(self) -> str:
        """What is put before every text where nobody names a prompt, as the tokenizer gets it."""
        prompt = self.prompts.get(self.default_prompt_name or "", "")
        return prompt.lower() if self.do_lower_case else prompt

    def num_prompt_tokens(self, tokenizer: PreTrainedTokenizerBase) -> int:
        """Tokens at the beginning of a text that are the default prompt's, where those are not pooled; else 0."""
        if self.include_prompt or not self.default_prompt:
            return 0
        tokens = tokenizer(self.default_prompt)["input_ids"]
        return len(tokens) - (tokens[-1] in tokenizer.all_special_ids)

    def similarities(self, first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
        """How similar vectors (B, D) and (B, D) are, (B,), in the way that is theirs; by cosine where none is said."""
        if self.similarity == "dot":
            return (first * second).sum(-1)
        if self.similarity in ("euclidean", "manhattan"):
            return -torch.linalg.vector_norm(first - second, ord=2 if self.similarity == "euclidean" else 1, dim=-1)
        return torch.nn.functional.cosine_similarity(first, second, dim=-1)

    def pool(self, states: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        """The sentence vectors of states (B, T, W) and their mask (B, T).

        (B, W) times the number of poolings; of a layer after them as many numbers as it gives.
        """
        real = attention_mask.unsqueeze(-1).to(states.dtype)
        count = real.sum(1).clamp(min=1e-9)
        total = (states * real).sum(1)
        row, first = torch.arange(len(states)), attention_mask.argmax(1)
        place = torch.arange(states.shape[1], device=states.device)
        weight = real * (place + 1 - first[:, None]).unsqueeze(-1)
        found = {
            "cls": lambda: states[row, first],
            "max": lambda: states.masked_fill(real == 0, float("-inf")).amax(1),
            "mean": lambda: total / count,
            "mean_sqrt_len_tokens": lambda: total / count.sqrt(),
            "weightedmean": lambda: (states * weight).sum(1) / weight.sum(1).clamp(min=1e-9),
            "lasttoken": lambda: states[row, (attention_mask * place).argmax(1)],
        }
        vectors = torch.cat([found[name]() for name in self.pooling], dim=-1)
        if self.dense is not None:
            vectors = self.dense(vectors)
        if self.normalize:
            vectors = torch.nn.functional.normalize(vectors, dim=-1)
        return vectors[:, : self.truncate_dim]

    def check_width(self, hidden_size: int) -> None:
        """Refuse a layer after the pooling that takes other vectors than an encoder's states of this width make.

        Raises:
            ForeignFileError: If it does.
        """
        width = hidden_size * len(self.pooling)
        if self.dense is not None and self.dense.in_features != width:
            raise ForeignFileError(
                f"the Dense layer takes vectors of {self.dense.in_features} numbers (in_features of its config.json), "
                f"and the pooling makes {width}"
            )

    def write(self, folder: str | Path, hidden_size: int) -> None:
        """Make a SentenceTransformer of the folder of an encoder, in the form that its versions 2 to 6 read.

        Args:
            folder: With the encoder and its tokenizer.
            hidden_size: Width of the encoder's states.

        Raises:
            WriteError: If a file cannot be written.
        """
        parts = ["Transformer", "Pooling", *["Dense"] * (self.dense is not None), *["Normalize"] * self.normalize]
        modules = [
            {
                "idx": index,
                "name": str(index),
                "path": f"{index}_{part}" if index else "",
                "type": f"sentence_transformers.models.{part}",
            }
            for index, part in enumerate(parts)
        ]
        pooling: dict[str, Any] = {"word_embedding_dimension": hidden_size}
        if self.pooling == tuple(name for name in POOLINGS if name in self.pooling):
            pooling |= {
                key: name in self.pooling
                for name, key in POOLINGS.items()
                if name in (*_FIRST_POOLINGS, *self.pooling)
            }
        else:  # an order that only version 6 has
            pooling = {"embedding_dimension": hidden_size, "pooling_mode": list(self.pooling)}
        if not self.include_prompt:  # a field that the first of these versions do not know
            pooling["include_prompt"] = False
        texts: dict[str, Any] = {"do_lower_case": self.do_lower_case}
        if self.max_seq_length is not None:
            texts["max_seq_length"] = self.max_seq_length
        whole: dict[str, Any] = {
            "prompts": self.prompts,
            "default_prompt_name": self.default_prompt_name,
            "similarity_fn_name": self.similarity,
        }
        if self.truncate_dim is not None:
            whole["truncate_dim"] = self.truncate_dim
        folder = Path(folder)
        with whole_folder(folder / str(modules[1]["path"])) as place:
            write_text(place / "config.json", json.dumps(pooling, indent=2) + "\n")
        if self.dense is not None:
            with whole_folder(folder / str(modules[2]["path"])) as place:
                write_text(place / "config.json", json.dumps(self.dense.config(), indent=2) + "\n")
                write_bytes(place / "model.safetensors", self.dense.weights)
        for name, content in (
            ("modules.json", modules),
            ("sentence_bert_config.json", texts),
            ("config_sentence_transformers.json", {"__version__": {}, **whole}),
        ):
            write_text(folder / name, json.dumps(content, indent=2) + "\n")


def read_sentence_modules(model: str | Path, *, revision: str | None = None) -> SentenceModules | None:
    """What stands around the encoder in a folder or Hub model; `None` where it is no SentenceTransformer.

    Raises:
        ValueError: If it has a module, a pooling or a setting that is not kept here, naming it, or a file of it is
            damaged.
    """
    modules = _read(model, "modules.json", revision)
    if modules is None:
        return None
    shown = printable(model, 200)
    entries = module_entries(modules, f"modules.json of {shown}")
    kinds = [kind.rpartition(".")[2] if _is_own(kind) else kind for kind, _ in entries]
    paths = [path for _, path in entries]
    if kinds[:2] != ["Transformer", "Pooling"] or kinds[2:] not in _BEHIND:
        raise ValueError(
            f"the SentenceTransformer {shown} is made of {printable(', '.join(kinds), 200)}; expected Transformer, "
            "Pooling, perhaps Dense and perhaps Normalize, all of sentence_transformers itself: give a model without "
            "the others, or the encoder alone, from a folder without modules.json"
        )
    path_of = dict(zip(kinds, paths, strict=True))
    pooling = _read(model, f"{paths[1]}/config.json", revision) or {}
    beside = [f"{paths[0]}/{name}" if paths[0] else name for name in _TEXT_FILES]
    texts: Any = next(filter(None, (_read(model, name, revision) for name in beside)), {})
    whole = _read(model, "config_sentence_transformers.json", revision) or {}
    of_normalize: Any = {}
    if "Normalize" in path_of:
        of_normalize = _read(model, f"{path_of['Normalize']}/config.json", revision) or {}
    dense = None
    if "Dense" in path_of:
        place = path_of["Dense"]
        weights = _find(model, f"{place}/model.safetensors", revision)
        dense = Dense.of(
            _read(model, f"{place}/config.json", revision) or {},
            None if weights is None else weights.read_bytes(),
            shown,
        )
    _check_settings(texts, whole, of_normalize, shown)
    length, prompts, similarity = texts.get("max_seq_length"), whole.get("prompts"), whole.get("similarity_fn_name")
    default, width = whole.get("default_prompt_name"), whole.get("truncate_dim")
    for name, number in (("max_seq_length", length), ("truncate_dim", width)):
        if number is not None and not (isinstance(number, int) and not isinstance(number, bool) and number > 0):
            expected = "tokens" if name == "max_seq_length" else "numbers of a vector"
            raise ForeignFileError(f"{name} of {shown} is {printable(number, 100)}; expected a number of {expected}")
    is_prompts = isinstance(prompts, dict) and all(text is None or isinstance(text, str) for text in prompts.values())
    if prompts is not None and not is_prompts:
        raise ForeignFileError(f"the prompts of {shown} are no texts by name")
    prompts = {name: text for name, text in (prompts or {}).items() if text is not None}
    return SentenceModules(
        pooling=_poolings(pooling, shown),
        normalize="Normalize" in kinds,
        max_seq_length=length,
        do_lower_case=texts.get("do_lower_case") is True,
        prompts=prompts,
        default_prompt_name=default if isinstance(default, str) and default in prompts else None,
        similarity=similarity if similarity in _SIMILARITIES else None,
        include_prompt=pooling.get("include_prompt") is not False,
        truncate_dim=width,
        dense=dense,
    )


def encoder_place(model: str | Path, *, revision: str | None = None) -> tuple[str, str | None]:
    """Where a model's encoder and tokenizer lie, and the revision to load them with.

    A SentenceTransformer of old has them in a folder of its own within, `0_Transformer` say, which is fetched from the
    Hub; all others have them in the model's own folder.

    Raises:
        ForeignFileError: If its modules.json is damaged.
    """
    modules = _read(model, "modules.json", revision)
    path = "" if modules is None else module_entries(modules, f"modules.json of {printable(model, 200)}")[0][1]
    if not path:
        return str(model), revision
    if Path(model).is_dir():
        return str(Path(model, path)), None
    there = [file for name in _ENCODER_FILES if (file := _find(model, f"{path}/{name}", revision)) is not None]
    weights = next((file for name in _WEIGHTS for file in _weights(model, f"{path}/{name}", revision)), None)
    if not there or weights is None:
        raise ForeignFileError(
            f"the SentenceTransformer {printable(model, 200)} has no {printable(path, 100)}/config.json, or no "
            f"{' or '.join(_WEIGHTS)} beside it, whole or in parts"
        )
    return str(weights.parent), None


def _weights(model: str | Path, name: str, revision: str | None) -> list[Path]:
    """A file of weights of a Hub model, or its index and all the parts that it names; nothing where there is neither.

    Raises:
        ForeignFileError: If the index is damaged, or a part is missing.
    """
    whole = _find(model, name, revision)
    if whole is not None:
        return [whole]
    name = f"{name}.index.json"
    index = _find(model, name, revision)
    if index is None:
        return []
    where = f"{name} of {printable(model, 200)}"
    parts = read_object(index, where).get("weight_map")
    names = list(parts.values()) if isinstance(parts, dict) else []
    if not names or not all(isinstance(one, str) and _PART.fullmatch(one) for one in names):
        raise ForeignFileError(f"{where} names no files of weights that lie beside it")
    found = [index]
    for part in sorted(set(names)):
        file = _find(model, f"{name.rpartition('/')[0]}/{part}", revision)
        if file is None:
            raise ForeignFileError(f"{where} names the file {printable(part, 100)}, which is not there")
        found.append(file)
    return found


def foreign_modules(files: Mapping[str, Path | bytes], name: str) -> list[str]:
    """What in a SentenceTransformer's files leads to code that is not that library's, in words.

    Args:
        files: Paths in the folder, and what lies there.
        name: What messages call the folder.

    Raises:
        ForeignFileError: If one of them is damaged.
    """
    if "modules.json" not in files:
        return []
    where = f"{name}/modules.json"
    entries = module_entries(read_json(files["modules.json"], where), where)
    found = [f"the module {printable(kind, 100)} of modules.json" for kind, _ in entries if not _is_own(kind)]
    for file in (*_TEXT_FILES, *(f"{path}/config.json" for _, path in entries if path)):
        settings = read_object(files[file], f"{name}/{file}") if file in files else {}
        found += [f"what {file} hands on in {key}" for key in _HANDED_ON if _odd(settings.get(key))]
        activation = settings.get("activation_function")
        if activation is not None and not (isinstance(activation, str) and _ACTIVATION.fullmatch(activation)):
            found.append(f"the activation_function of {file}")
    return found


def module_entries(modules: Any, where: str) -> list[tuple[str, str]]:
    """The type and the path of every module that a modules.json names.

    Args:
        modules: What stands there.
        where: What messages call it.

    Raises:
        ForeignFileError: If it is no list of modules, or a path leads out of the folder.
    """
    found = []
    for entry in modules if isinstance(modules, list) and modules else [None]:
        fields = entry if isinstance(entry, dict) else {}
        kind, path = fields.get("type"), fields.get("path", "")
        is_path = isinstance(path, str) and ".." not in path and not path.startswith("/")
        if not isinstance(kind, str) or not is_path:
            raise ForeignFileError(f"{where} is no list of modules, each with a type and a path")
        found.append((kind, path))
    return found


def _is_own(kind: str) -> bool:
    return _OWN_MODULE.fullmatch(kind) is not None


def _odd(handed_on: Any) -> list[str]:
    """What of that which is handed on to transformers may change what is computed, or lead to code."""
    if handed_on is None:
        return []
    return sorted(map(str, handed_on.keys() - _HARMLESS)) if isinstance(handed_on, dict) else [str(handed_on)]


def _check_settings(texts: dict[str, Any], whole: dict[str, Any], of_normalize: dict[str, Any], shown: str) -> None:
    """Refuse settings that make other vectors than `SentenceModules` does."""
    kind = whole.get("model_type", "SentenceTransformer")
    if kind != "SentenceTransformer":
        raise ValueError(
            f"{shown} is a {printable(kind, 100)} of sentence_transformers; expected a SentenceTransformer"
        )
    modality = texts.get("modality_config")
    said = texts | {"text": modality.get("text") if isinstance(modality, dict) else None}
    for name, expected in _PLAIN.items():
        if said.get(name) not in (None, expected):
            raise ValueError(
                f"the SentenceTransformer {shown} has {name} {printable(said[name], 200)}; expected {expected}"
            )
    for name in _HANDED_ON:
        if odd := _odd(texts.get(name)):
            raise ValueError(
                f"the SentenceTransformer {shown} hands {printable(', '.join(odd), 200)} on to transformers "
                f"(in {name}): this is not kept"
            )
    if any(of_normalize.get(f"module_{end}_name", _VECTOR) != _VECTOR for end in ("input", "output")):
        raise ValueError(f"the SentenceTransformer {shown} normalises something else than its vectors")


def _poolings(config: dict[str, Any], shown: str) -> tuple[str, ...]:
    asked = config.get("pooling_mode")
    if asked is None:  # as before version 6
        names = {key: name for name, key in POOLINGS.items()}
        found = [names.get(key, key) for key, value in config.items() if key.startswith("pooling_mode_") and value]
    else:
        found = list(asked) if isinstance(asked, list) else [asked]
    odd = next((name for name in found if name not in tuple(POOLINGS)), None)
    if not found or odd is not None:
        raise ValueError(
            f"the SentenceTransformer {shown} pools by {printable(odd, 100)}; expected {', '.join(POOLINGS)}"
        )
    return tuple(found) if asked is not None else tuple(name for name in POOLINGS if name in found)


def _read(model: str | Path, name: str, revision: str | None) -> Any:
    """A JSON file of a folder or Hub model; `None` where there is none."""
    file = _find(model, name, revision)
    if file is None:
        return None
    where = f"{name} of {printable(model, 200)}"
    return read_json(file, where) if name == "modules.json" else read_object(file, where)


def _find(model: str | Path, name: str, revision: str | None) -> Path | None:
    """A file of a folder or Hub model; `None` where there is none."""
    file = cached_file(
        str(model), name, revision=revision,
        _raise_exceptions_for_missing_entries=False, _raise_exceptions_for_gated_repo=False,
    )  # fmt: skip
    return None if file is None else Path(str(file))
