"""What makes a SentenceTransformer of an encoder: pooling, normalisation, longest text, prompts; read and written."""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from transformers.utils.hub import cached_file

from hf_nasbert.foreign import ForeignFileError, printable, read_json, read_object
from hf_nasbert.writing import whole_folder, write_text

POOLINGS = {
    "cls": "pooling_mode_cls_token",
    "max": "pooling_mode_max_tokens",
    "mean": "pooling_mode_mean_tokens",
    "mean_sqrt_len_tokens": "pooling_mode_mean_sqrt_len_tokens",
}
"""How token states become one vector, and the fields that say so in the files of sentence-transformers before 6."""

_TEXT_FILES = tuple(
    f"sentence_{kind}_config.json"
    for kind in ("bert", "roberta", "distilbert", "camembert", "albert", "xlm-roberta", "xlnet")
)
"""Where the longest text stands: old versions of sentence-transformers named the file after the encoder."""

_SIMILARITIES = ("cosine", "dot", "euclidean", "manhattan")


@dataclass(frozen=True)
class SentenceModules:
    """What stands around the encoder in a SentenceTransformer.

    Args:
        pooling: Names of `POOLINGS`; the vectors of several are joined.
        normalize: Whether vectors are divided by their length.
        max_seq_length: Tokens after which a text is cut; `None` leaves that to the tokenizer.
        do_lower_case: Whether texts are lower-cased in front of the tokenizer.
        prompts: Texts that are put before the user's, by name.
        default_prompt_name: The one that is used where none is named.
        similarity: How two vectors are compared; `None` says nothing.
        include_prompt: Whether the tokens of a prompt are pooled too, by that library; `pool` is told by its mask.
    """

    pooling: tuple[str, ...] = ("mean",)
    normalize: bool = False
    max_seq_length: int | None = None
    do_lower_case: bool = False
    prompts: dict[str, str] = field(default_factory=dict)
    default_prompt_name: str | None = None
    similarity: str | None = None
    include_prompt: bool = True

    def pool(self, states: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        """The sentence vectors, (B, W) times the number of poolings, of states (B, T, W) and their mask (B, T)."""
        real = attention_mask.unsqueeze(-1).to(states.dtype)
        count = real.sum(1).clamp(min=1e-9)
        total = (states * real).sum(1)
        found = {
            "cls": lambda: states[torch.arange(len(states)), attention_mask.argmax(1)],
            "max": lambda: states.masked_fill(real == 0, float("-inf")).amax(1),
            "mean": lambda: total / count,
            "mean_sqrt_len_tokens": lambda: total / count.sqrt(),
        }
        vectors = torch.cat([found[name]() for name in self.pooling], dim=-1)
        return torch.nn.functional.normalize(vectors, dim=-1) if self.normalize else vectors

    def write(self, folder: str | Path, hidden_size: int) -> None:
        """Make a SentenceTransformer of the folder of an encoder, in the form that its versions 2 to 6 read.

        Args:
            folder: With the encoder and its tokenizer.
            hidden_size: Width of the encoder's states.

        Raises:
            WriteError: If a file cannot be written.
        """
        parts = ["Transformer", "Pooling", *["Normalize"] * self.normalize]
        modules = [
            {
                "idx": index,
                "name": str(index),
                "path": f"{index}_{part}" if index else "",
                "type": f"sentence_transformers.models.{part}",
            }
            for index, part in enumerate(parts)
        ]
        pooling = {"word_embedding_dimension": hidden_size} | {
            key: name in self.pooling for name, key in POOLINGS.items()
        }
        if not self.include_prompt:  # a field that the first of these versions do not know
            pooling["include_prompt"] = False
        texts: dict[str, Any] = {"do_lower_case": self.do_lower_case}
        if self.max_seq_length is not None:
            texts["max_seq_length"] = self.max_seq_length
        whole = {
            "prompts": self.prompts,
            "default_prompt_name": self.default_prompt_name,
            "similarity_fn_name": self.similarity,
        }
        folder = Path(folder)
        with whole_folder(folder / str(modules[1]["path"])) as place:
            write_text(place / "config.json", json.dumps(pooling, indent=2) + "\n")
        for name, content in (
            ("modules.json", modules),
            ("sentence_bert_config.json", texts),
            ("config_sentence_transformers.json", {"__version__": {}, **whole}),
        ):
            write_text(folder / name, json.dumps(content, indent=2) + "\n")


def read_sentence_modules(model: str | Path, *, revision: str | None = None) -> SentenceModules | None:
    """What stands around the encoder in a folder or Hub model; `None` where it is no SentenceTransformer.

    Raises:
        ValueError: If it has a module or a pooling that is not kept here, naming it, or a file of it is damaged.
    """
    modules = _read(model, "modules.json", revision)
    if modules is None:
        return None
    shown = printable(model, 200)
    entries = modules if isinstance(modules, list) else [None]
    kinds, paths = [], []
    for entry in entries:
        fields = entry if isinstance(entry, dict) else {}
        kind, path = fields.get("type"), fields.get("path", "")
        if not isinstance(kind, str) or not isinstance(path, str) or ".." in path or path.startswith("/"):
            raise ForeignFileError(f"modules.json of {shown} is no list of modules, each with a type and a path")
        kinds.append(kind.rpartition(".")[2])
        paths.append(path)
    if kinds not in (["Transformer", "Pooling"], ["Transformer", "Pooling", "Normalize"]) or paths[0]:
        raise ValueError(
            f"the SentenceTransformer {shown} is made of {printable(', '.join(kinds), 200)}; expected Transformer, "
            "Pooling and perhaps Normalize, the first in the model's own folder"
        )
    pooling = _read(model, f"{paths[1]}/config.json", revision) or {}
    texts: Any = next(filter(None, (_read(model, name, revision) for name in _TEXT_FILES)), {})
    whole = _read(model, "config_sentence_transformers.json", revision) or {}
    for found, name in ((pooling, "its pooling's config"), (texts, "sentence_bert_config.json")):
        if not isinstance(found, dict):
            raise ForeignFileError(f"{name} of {shown} is no JSON object")
    length, prompts, similarity = texts.get("max_seq_length"), whole.get("prompts"), whole.get("similarity_fn_name")
    default = whole.get("default_prompt_name")
    is_length = isinstance(length, int) and not isinstance(length, bool) and length > 0
    if length is not None and not is_length:
        raise ForeignFileError(f"max_seq_length of {shown} is {printable(length, 100)}; expected a number of tokens")
    is_prompts = isinstance(prompts, dict) and all(isinstance(text, str) for text in prompts.values())
    if prompts is not None and not is_prompts:
        raise ForeignFileError(f"the prompts of {shown} are no texts by name")
    return SentenceModules(
        pooling=_poolings(pooling, shown),
        normalize="Normalize" in kinds,
        max_seq_length=length,
        do_lower_case=texts.get("do_lower_case") is True,
        prompts=dict(prompts or {}),
        default_prompt_name=default if isinstance(default, str) and default in (prompts or {}) else None,
        similarity=similarity if similarity in _SIMILARITIES else None,
        include_prompt=pooling.get("include_prompt") is not False,
    )


def _poolings(config: dict[str, Any], shown: str) -> tuple[str, ...]:
    asked = config.get("pooling_mode")
    if asked is None:  # as before version 6
        names = {key: name for name, key in POOLINGS.items()}
        found = [names.get(key, key) for key, value in config.items() if key.startswith("pooling_mode_") and value]
    else:
        found = list(asked) if isinstance(asked, list) else [asked]
    odd = next((name for name in found if name not in POOLINGS), None)
    if not found or odd is not None:
        raise ValueError(
            f"the SentenceTransformer {shown} pools by {printable(odd, 100)}; expected {', '.join(POOLINGS)}"
        )
    return tuple(name for name in POOLINGS if name in found)


def _read(model: str | Path, name: str, revision: str | None) -> Any:
    """A JSON file of a folder or Hub model; `None` where there is none."""
    file = cached_file(
        str(model), name, revision=revision,
        _raise_exceptions_for_missing_entries=False, _raise_exceptions_for_gated_repo=False,
    )  # fmt: skip
    if file is None:
        return None
    where = f"{name} of {printable(model, 200)}"
    return read_json(Path(str(file)), where) if name == "modules.json" else read_object(Path(str(file)), where)
