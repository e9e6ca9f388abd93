"""What of a folder belongs to a child, a super-net or a table, and which one it is; no network here."""

import gzip
import hashlib
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from hf_nasbert import records
from hf_nasbert.cards import (
    metadata_problems,
    quoted_texts,
    read_card,
    read_table_facts,
    render_child_card,
    render_supernet_card,
    render_table_card,
    unsaid_of,
    with_metadata,
)
from hf_nasbert.configs import read_model_config
from hf_nasbert.foreign import ForeignFileError, printable, read_json, read_object
from hf_nasbert.hub.private import Content, bytes_of, refuse_tokens, without_texts
from hf_nasbert.modeling import modeling_nasbert
from hf_nasbert.modeling.configuration_nasbert import AUTO_MAP
from hf_nasbert.modeling.modeling_supernet import SUPERNETS, SupernetForMaskedLM
from hf_nasbert.modeling.sentence_transformer import (
    MODULE_FILES,
    MODULE_FOLDER,
    SUPERNET_FOLDER,
    foreign_modules,
    module_entries,
)
from hf_nasbert.native import CODE_FILES, is_our_code
from hf_nasbert.ranking import GroundTruth, find_table, load_table
from hf_nasbert.space import SearchSpace

Kind = Literal["child", "super-net", "table"]
KINDS: dict[str, Kind] = {"nasbert": "child", "bert": "child", "nasbert_supernet": "super-net"}

MODEL_FILE = re.compile(
    r"(config|generation_config|tokenizer|tokenizer_config|special_tokens_map|added_tokens)\.json|vocab\.txt"
    r"|model(-\d+-of-\d+)?\.safetensors|model\.safetensors\.index\.json|(geometry|operators|configuration|modeling)_nasbert\.py"
    rf"|({SUPERNET_FOLDER}/)?({'|'.join(map(re.escape, MODULE_FILES))}"
    rf"|{MODULE_FOLDER}/(config\.json|model\.safetensors))"
    r"|onnx/model(_\w+)?\.onnx",
    re.ASCII,
)
"""What makes a model, a SentenceTransformer of it or of a super-net's children, and its ONNX files; a push replaces
all of it, so that no weight or code of an earlier one stays behind."""
BESIDE = re.compile(
    r"README\.md|LICENSE(\.md|\.txt)?|card\.json|(figures/)?\w[\w.-]*\.(png|svg|jpg)|\w[\w.-]*\.jsonl(\.gz)?", re.ASCII
)
"""What may stand beside it: the card and its record, figures, records of searches and evaluations."""
_NEEDED = {"Pooling": ("config.json",)} | dict.fromkeys(("Dense", "LayerNorm"), ("config.json", "model.safetensors"))
_FOLDER = re.compile(rf"figures|onnx|{MODULE_FOLDER}", re.ASCII)
TABLE_FILE = re.compile(r"table-[\w.-]+\.jsonl\.gz", re.ASCII)

_PICKLE = re.compile(r".*\.(bin|pt|pth|pkl|pickle|ckpt|joblib|h5|msgpack)")
_TRAINING_STATE = re.compile(r"(training_args|optimizer|scheduler|scaler|rng_state|random_states|custom_checkpoint).*")
_CARD_PLACE = '"path/to/this/folder"'  # what a card that knows no repository loads from

# The fields of a config.json that say which network it is. Dropout, dtype and versions change while it stays the same.
_SHAPE = (
    "model_type architectures operators stage_lengths search_space vocab_size hidden_size embedding_size ffn_ratio "
    "attention_head_size num_conv_layers weight_layout copies num_hidden_layers num_attention_heads intermediate_size "
    "hidden_act max_position_embeddings type_vocab_size tie_word_embeddings id2label"
).split()


@dataclass(frozen=True)
class Contents:
    """Everything that a push would put into a repository.

    `files` maps the path in the repository to a local file or to bytes; `identity` says which model or table it is;
    `left_out` names what lies in the folder and does not go. `has_bare_card`: there was no card, and one was made.
    `num_unquoted` texts of the user's own stood in the card and do not go.
    """

    kind: Kind
    name: str
    files: Mapping[str, Content]
    identity: Mapping[str, Any]
    left_out: tuple[str, ...] = ()
    has_bare_card: bool = False
    num_unquoted: int = 0

    @property
    def quoted(self) -> list[str]:
        """The texts of the user's own that the card quotes."""
        card = self.files.get("README.md")
        return [] if card is None else quoted_texts(read_card(card, "README.md"))

    @property
    def unsaid(self) -> list[str]:
        """License and language, if the card does not say them: only the owner of a model knows."""
        card = self.files.get("README.md")
        return [] if card is None else unsaid_of(read_card(card, "README.md"))

    @property
    def repo_type(self) -> str:
        """`dataset` for a table, `model` for the others."""
        return "dataset" if self.kind == "table" else "model"


def gather(
    source: str | Path,
    repo_id: str,
    attachments: Iterable[str | Path] = (),
    *,
    license: str | None = None,
    language: str | None = None,
    trust_remote_code: bool = False,
    quote_text: bool = False,
) -> Contents:
    """Collect what belongs to a child, a super-net or a table; nothing else of its folder goes.

    A SentenceTransformer goes whole, with the folders of its modules. A child's config is completed, in memory, with
    the classes of all heads, and its code files, where they are missing, with this package's: transformers forgets
    both when it saves a child that was loaded from the Hub (huggingface/transformers#29714). A card that loads from
    "path/to/this/folder" loads from the repository instead; a super-net or a masked-LM child without a card gets one.
    A table's card says, beside what its records say, what a JSON file beside it does: fields of `cards.TableFacts`,
    such as its license.

    Code files are compared, byte by byte, with all versions of this package's own: what is published under one's name,
    and is run to prove it, is somebody else's code only where that was said.

    Args:
        source: Folder of a child or super-net; file of a table, or the name of one that comes with the package.
        repo_id: The repository that it is for.
        attachments: Figures and records to put beside it.
        license: What the card's metadata are to say, in place of what they say themselves.
        language: Likewise.
        trust_remote_code: Whether code files that are not this package's, and fields that name other classes, may go.
        quote_text: Whether a text of the user's own that the card quotes, and its record card.json, may go; plain
            sentences take its place otherwise.

    Raises:
        FileNotFoundError: If there is no such folder, table or attachment.
        ValueError: If the folder holds no model of ours, no tokenizer or only pickled weights, code of somebody else,
            a link that leads out of it, a file with a token of the Hub in it, or a card that the Hub would refuse; or
            if there is no card to say license and language in.
    """
    path = Path(source)
    contents = (
        _gather_model(path, repo_id, trust_remote_code) if path.is_dir() else _gather_table(str(source), repo_id)
    )
    files = {**contents.files, **_attached(attachments, contents.files)}
    contents = replace(contents, files=dict(sorted(files.items())))
    if not quote_text:
        num_unquoted = len(contents.quoted)
        contents = replace(contents, files=without_texts(contents.files, str(source)), num_unquoted=num_unquoted)
    refuse_tokens(contents.files)
    given = {"license": license, "language": language}
    if any(given.values()):
        if "README.md" not in contents.files:
            raise ValueError(f"{source} has no README.md, whose metadata say license and language: write one first")
        card = with_metadata(read_card(contents.files["README.md"], f"{source}: README.md"), **given)
        contents = replace(contents, files={**contents.files, "README.md": card.encode()})
    if "README.md" in contents.files:
        problems = metadata_problems(read_card(contents.files["README.md"], f"{source}: README.md"))
        if problems:
            raise ValueError(f"the Hub would refuse the card of {source}, README.md: {'; '.join(problems)}")
    return contents


def identity_of_model(config: Mapping[str, Any], tokenizer: Mapping[str, Any] | None) -> dict[str, Any]:
    """What two versions of one model agree in: what shapes the network, and the vocabulary.

    Args:
        config: The fields of its config.json, checked.
        tokenizer: What `read_tokenizer` found.
    """
    identity = {name: config[name] for name in _SHAPE if name in config}
    vocabulary = None if tokenizer is None else tokenizer["model"].get("vocab")
    if vocabulary is not None:
        text = json.dumps(vocabulary, sort_keys=True)
        identity["vocabulary"] = hashlib.sha256(text.encode()).hexdigest()[:12]
    return identity


def name_of_supernet(config: Mapping[str, Any]) -> str:
    """The class that a super-net loads by."""
    name = next(iter(config.get("architectures") or ()), "")
    return name if name in SUPERNETS else SupernetForMaskedLM.__name__


def name_of_model(config: Mapping[str, Any]) -> str:
    """A child's architecture, or the size of a super-net's space."""
    if "search_space" in config:
        return f"of {SearchSpace.from_dict(config['search_space']).num_children:,} children"
    return "-".join(config.get("operators") or [str(config["model_type"])])


def identity_of_table(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """What two states of one table agree in: the recipe its children were trained by."""
    return {"recipe_hash": rows[0].get("recipe_hash") if rows else None}


def name_of_table(path: Path) -> str:
    """`imdb` for `table-imdb.jsonl.gz`."""
    return path.name.removesuffix(".gz").removesuffix(".jsonl").removeprefix("table-")


def describe(folder: Path, name: str | None = None) -> tuple[Kind, dict[str, Any]]:
    """What kind of model lies in a folder, and its config.

    Args:
        folder: The folder.
        name: What messages call it.

    Raises:
        ValueError: If it holds no model of ours; names those that lie in folders of it.
    """
    name = name or str(folder)
    if not (folder / "config.json").is_file():
        models = sorted(path.parent.name for path in folder.glob("*/config.json"))
        advice = f"; name one of the models in it: {printable(', '.join(models), 500)}" if models else ""
        raise ValueError(f"{name} holds no child and no super-net: it has no config.json{advice}")
    config = read_model_config(folder / "config.json", f"{name}/config.json")
    return kind_of(config, name), config


def kind_of(config: Mapping[str, Any], name: str) -> Kind:
    """What kind of model a checked config is of.

    Raises:
        ValueError: If it is none of ours.
    """
    kind = KINDS.get(str(config.get("model_type")))
    if kind is None:
        expected = ", ".join(map(repr, KINDS))
        raise ValueError(f"{name} holds a model of type {config.get('model_type')!r}; expected one of {expected}")
    return kind


def foreign_code(files: Mapping[str, Content], name: str) -> list[str]:
    """What in a model's files is, or leads to, code that is not this package's: names of files and fields.

    Args:
        files: What a push sends or a pull fetched, by name; nothing else of a folder is ever run.
        name: What messages call the folder.

    Raises:
        ForeignFileError: If config.json, tokenizer_config.json or a file of a SentenceTransformer is damaged.
    """
    found = [
        file for file, content in files.items() if file.endswith(".py") and not is_our_code(file, bytes_of(content))
    ]
    config = read_model_config(files["config.json"], f"{name}/config.json")
    # Saved from a child of the Hub it says "owner/child--modeling_nasbert.NasBertModel"; a push puts ours there.
    ours = AUTO_MAP if config.get("model_type") == "nasbert" else {}
    for auto_class, entry in (config.get("auto_map") or {}).items():
        if str(entry).rpartition("--")[2] != ours.get(auto_class):
            found.append(f"the {auto_class} that config.json names in auto_map")
    if config.get("custom_pipelines"):
        found.append("what config.json names in custom_pipelines")
    settings = files.get("tokenizer_config.json")
    if settings is not None and read_object(settings, f"{name}/tokenizer_config.json").get("auto_map"):
        found.append("what tokenizer_config.json names in auto_map")
    return found + foreign_modules(files, name) + foreign_modules(_of_children(files), f"{name}/{SUPERNET_FOLDER}")


def _of_children(files: Mapping[str, Content]) -> dict[str, Content]:
    """What makes SentenceTransformers of a super-net's children."""
    prefix = f"{SUPERNET_FOLDER}/"
    return {file.removeprefix(prefix): content for file, content in files.items() if file.startswith(prefix)}


def check_modules(files: Mapping[str, Content], name: str) -> None:
    """Refuse half a SentenceTransformer: one that names a module whose files are not among those that go along.

    Args:
        files: As for `foreign_code`.
        name: What messages call the folder.

    Raises:
        ValueError: If files of a module are missing, or its folder has no name that they go by.
    """
    if own := _of_children(files):
        check_modules(own, f"{name}/{SUPERNET_FOLDER}")
    where = f"{name}/modules.json"
    entries = module_entries(read_json(files["modules.json"], where), where) if "modules.json" in files else []
    for kind, path in entries:
        needed = _NEEDED.get(kind.rpartition(".")[2], ())
        is_whole = re.fullmatch(MODULE_FOLDER, path, re.ASCII) and all(f"{path}/{file}" in files for file in needed)
        if path and not is_whole:
            raise ValueError(
                f"{where} names a module in {printable(path, 100)}, where there is none that could go along: expected "
                "a folder such as 1_Pooling with a config.json and, where it has weights, a model.safetensors"
            )


def read_tokenizer(content: Content, name: str) -> dict[str, Any]:
    """What a tokenizer.json holds, of which no more is believed than that its model is an object.

    Raises:
        ForeignFileError: If it is none.
    """
    tokenizer = read_object(content, name)
    if not isinstance(tokenizer.get("model"), dict):
        raise ForeignFileError(f"{name}: model is {printable(repr(tokenizer.get('model')), 100)}; expected an object")
    return tokenizer


def is_ours(name: str) -> bool:
    """Whether a path in a repository belongs to a model or table of ours."""
    return bool(MODEL_FILE.fullmatch(name) or BESIDE.fullmatch(name))


def size_of(content: Content) -> int:
    """Its number of bytes."""
    return len(content) if isinstance(content, bytes) else content.stat().st_size


def _gather_model(folder: Path, repo_id: str, trust_remote_code: bool) -> Contents:
    kind, config = describe(folder)
    files: dict[str, Content] = {}
    left_out = []
    within = [path for path in folder.iterdir() if _FOLDER.fullmatch(path.name)]
    if kind == "super-net" and (folder / SUPERNET_FOLDER).is_dir():
        within += [folder / SUPERNET_FOLDER, *(path for path in (folder / SUPERNET_FOLDER).iterdir() if path.is_dir())]
    for path in sorted([*folder.iterdir(), *(file for one in within for file in one.glob("*"))]):
        name = path.relative_to(folder).as_posix()
        if path.is_dir():
            if path not in within:
                left_out.append(f"{name}/")
        elif not is_ours(name):
            if _PICKLE.fullmatch(name) and not _TRAINING_STATE.fullmatch(path.name):
                raise ValueError(
                    f"{folder}/{name} may be a pickle, which runs code when it is loaded: save the weights as "
                    "safetensors (save_pretrained does) and remove it"
                )
            left_out.append(name)
        elif not path.resolve().is_relative_to(folder.resolve()):
            raise ValueError(f"{folder}/{name} is a link that leads out of the folder: put the file itself there")
        elif not path.is_file():
            raise ValueError(f"{folder}/{name} is no regular file")
        elif name.endswith((".py", "config.json")) or path.name in MODULE_FILES:
            files[name] = path.read_bytes()  # what is run are the very bytes that were looked at
            as_in_git = path.read_bytes().replace(b"\r\n", b"\n")  # a checkout on Windows has other line ends
            if is_our_code(name, as_in_git):
                files[name] = as_in_git
        else:
            files[name] = path
    if not any(name.endswith(".safetensors") and "/" not in name for name in files):
        raise ValueError(f"{folder} holds no safetensors weights: save the model with save_pretrained")
    if "tokenizer_config.json" not in files:
        raise ValueError(f"{folder} holds no tokenizer: save there the one that the model was trained with")
    foreign = [] if trust_remote_code else foreign_code(files, str(folder))
    if foreign:
        raise ValueError(
            f"{folder} brings code that is not hf_nasbert's ({', '.join(foreign)}), and a push would run and publish "
            "it: read it, and if it is what you want, say --trust_remote_code true"
        )
    check_modules(files, str(folder))
    if config["model_type"] == "nasbert":
        package = Path(modeling_nasbert.__file__).parent
        files |= {name: package / name for name in CODE_FILES if name not in files}
        if config.get("auto_map") != AUTO_MAP:
            files["config.json"] = (json.dumps({**config, "auto_map": AUTO_MAP}, indent=2) + "\n").encode()
    has_card = "README.md" in files
    if not has_card:
        card = _bare_card(kind, config, files, repo_id)
        files |= {} if card is None else {"README.md": card.encode()}
    else:
        card = read_card(files["README.md"], f"{folder}/README.md")
        if _CARD_PLACE in card:
            files["README.md"] = card.replace(_CARD_PLACE, json.dumps(repo_id)).encode()
    words = files.get("tokenizer.json")
    tokenizer = None if words is None else read_tokenizer(words, f"{folder}/tokenizer.json")
    identity = identity_of_model(config, tokenizer)
    return Contents(kind, name_of_model(config), files, identity, tuple(left_out), not has_card)


def _bare_card(kind: Kind, config: Mapping[str, Any], files: Mapping[str, Content], repo_id: str) -> str | None:
    """The card of a model that has none: what its config says. A head of another task than masked LM goes without."""
    sizes = {size: config[size] for size in ("hidden_size", "vocab_size") if size in config}
    facts: dict[str, Any] = {"name": repo_id.split("/")[-1], "hub_id": repo_id, "model": sizes}
    if kind == "super-net":
        facts |= {"supernet_class": name_of_supernet(config), "search_space": config["search_space"]}
        return render_supernet_card(facts)
    if not str((config.get("architectures") or [""])[0]).endswith("ForMaskedLM"):
        return None
    operators = config.get("operators") or ("attention", "ffn") * (config.get("num_hidden_layers") or 0)
    mask = read_object(files["tokenizer_config.json"], "tokenizer_config.json").get("mask_token")
    facts |= {"architecture": "-".join(operators), "stage_lengths": config.get("stage_lengths")}
    facts |= {"native": config["model_type"] == "bert"} | ({"mask_token": mask} if isinstance(mask, str) else {})
    return render_child_card(facts)


def _gather_table(source: str, repo_id: str) -> Contents:
    try:
        path = find_table(source)
    except FileNotFoundError as error:
        raise FileNotFoundError(f"{source}: no such folder of a child or super-net, and {error}") from None
    name = name_of_table(path)
    table = load_table(str(path))
    rows = records.read(path)
    lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    files: dict[str, Content] = {
        # The same bytes for the same rows, hence no clock in the header.
        f"table-{name}.jsonl.gz": path.read_bytes()
        if path.suffix == ".gz"
        else gzip.compress(lines.encode(), mtime=0),
        "README.md": render_table_card(
            name,
            GroundTruth(table),
            hub_id=repo_id,
            facts=read_table_facts(path),
            is_packaged=not source.endswith((".jsonl", ".jsonl.gz")),
        ).encode(),
    }
    return Contents("table", name, files, identity_of_table(rows))


def _attached(attachments: Iterable[str | Path], files: Mapping[str, Content]) -> dict[str, Content]:
    found: dict[str, Content] = {}
    for path in map(Path, attachments):
        if not path.is_file():
            raise FileNotFoundError(f"no such file to put beside the model: {path}")
        if not BESIDE.fullmatch(path.name):
            raise ValueError(f"cannot attach {path}: expected a figure (png, svg, jpg) or records (jsonl, jsonl.gz)")
        if path.name in found or path.name in files:
            raise ValueError(f"cannot attach {path}: another file there has that name")
        found[path.name] = path
    return found
