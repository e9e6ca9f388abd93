"""Bad input to everything that reads: every kind generated a few hundred times, results and errors counted.

    python benchmarks/inputs.py --page docs/inputs.md --json benchmarks/records/inputs.json

Valid input of every kind is damaged (bytes flipped, cut, doubled, encoded otherwise; values of JSON and YAML replaced
by odd ones, keys dropped, misspelt or doubled) or made up from nothing, by hypothesis, always in the same way.
Whatever comes must give a result that is checked, or one error of an expected type in one line of at most 1,500
characters that names the file, within five seconds, and leave no file behind or changed. Anything else ends the
program with the smallest input that does it.
"""

import argparse
import contextlib
import copy
import functools
import gzip
import io
import json
import math
import os
import signal
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple
from unittest.mock import patch

import pyarrow as pa
import pyarrow.parquet
import torch
from datasets import disable_progress_bars
from huggingface_hub.errors import StrictDataclassError
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from hypothesis.internal.conjecture.providers import HypothesisProvider
from tokenizers import ByteLevelBPETokenizer
from transformers import PreTrainedTokenizerFast, TrainerCallback, TrainerState

from hf_nasbert import checkpoint_folders, records
from hf_nasbert.cards import fill_page, render_child_card
from hf_nasbert.costs import Budget, LatencyTable
from hf_nasbert.data import DataArguments, cache, load_corpus, load_text, train_tokenizer
from hf_nasbert.data.foreign_tokenizers import open_tokenizer
from hf_nasbert.data.vocabulary import save_tokenizer, vocabulary_size
from hf_nasbert.extraction import load_supernet
from hf_nasbert.finetuning import FinetuneArguments, PretrainChildArguments, runs
from hf_nasbert.finetuning.checkpoints import SealingTrainer, read_state
from hf_nasbert.finetuning.question_answering_data import load_squad_files
from hf_nasbert.finetuning.sequence_classification_data import load_files
from hf_nasbert.finetuning.token_classification_data import load_tagged_files
from hf_nasbert.foreign import ForeignFileError
from hf_nasbert.modeling import NasBertConfig, NasBertForMaskedLM, SupernetConfig, SupernetForMaskedLM
from hf_nasbert.pipeline import ExtractionArguments, ScoreChildrenArguments, SearchChildrenArguments
from hf_nasbert.pipeline.extraction import read_facts
from hf_nasbert.ranking import GroundTruth, load_table, proxy_losses, read_scores
from hf_nasbert.recipe_arguments import parse_recipe_arguments, read_config
from hf_nasbert.report import read_findings, render_search_report
from hf_nasbert.searching import RandomSearch, SearchTask, run_search
from hf_nasbert.space import Architecture, SearchSpace
from hf_nasbert.training import SupernetArguments, SupernetTrainingArguments, checkpoints
from hf_nasbert.training.farm import FarmArguments, read_table
from hf_nasbert.training.standalone import StandaloneArguments
from hf_nasbert.writing import WriteError

SECONDS = 5  # for one input; the slowest valid one takes a tenth
LONGEST_MESSAGE = 1500
SPACE = SearchSpace.chain(2, ("attention", "ffn", "conv3", "skip"))
CHILDREN = ("attention-ffn", "ffn-conv3", "conv3-skip", "attention-attention")

ODD = [
    None, True, False, 0, -1, 3, 2**63, 10**30, -(10**400), 0.5, 1e308, math.nan, math.inf, -math.inf, "", "x",
    "é\u202e", "../../etc/passwd", "/dev/zero", "a\0b", "\ud800", "<script>alert(1)</script>", "x" * 20_000, "no",
    "1e3", "-", [], {}, [[]], [None], ["attention"], {"a": 1}, [1, "a", {}], [[[[[[]]]]]],
]  # fmt: skip
SNIPPETS = [
    b"\xff", b"\0", b"\xef\xbb\xbf", b"\r", b"\n", b'"', b"'", b"\\", b"{", b"}", b"[", b"]", b",", b":", b"\t",
    b"&a ", b"*a", b"!!python/object/apply:os.system [id]", b"!!int x", b"!!timestamp x", b"NaN", b"-Infinity",
    b"1e999", b"9" * 5000, b"[" * 5000, b'{"a":' * 5000, b"\\ud800", b"---\n", b"<<: *a", b"0o7", b"1_000",
    b"\x1b[31m", b"x" * 300_000,
]  # fmt: skip


class Kind(NamedTuple):
    """One kind of input: how it is made, what reads it (and checks what came out), and the errors it may give."""

    inputs: st.SearchStrategy[Any]
    read: Callable[[Any, Path], object]
    num_inputs: int
    errors: tuple[type[BaseException], ...] = (ValueError,)


@st.composite
def damaged(draw: st.DrawFn, valid: bytes) -> bytes:
    """Bytes that were a file."""
    content = valid
    for _ in range(draw(st.integers(1, 3))):
        place = draw(st.integers(0, len(content)))
        match draw(st.sampled_from("cut insert replace flip drop double utf16 crlf random empty".split())):
            case "cut":
                content = content[:place]
            case "insert":
                content = content[:place] + draw(st.sampled_from(SNIPPETS)) + content[place:]
            case "replace":
                content = content[:place] + draw(st.sampled_from(SNIPPETS)) + content[place + 1 :]
            case "flip":
                content = content[:place] + draw(st.binary(min_size=1, max_size=2)) + content[place + 1 :]
            case "drop":
                content = b"\n".join(line for n, line in enumerate(content.split(b"\n")) if n != place % 4)
            case "double":
                content = content.split(b"\n")[0] + b"\n" + content
            case "utf16":
                content = content.decode("utf-8", "replace").encode("utf-16")
            case "crlf":
                content = content.replace(b"\n", draw(st.sampled_from([b"\r\n", b"\r", b"\n\n"])))
            case "random":
                content = draw(st.binary(max_size=60))
            case _:
                content = b"" if draw(st.integers(0, 5)) == 0 else content + b"\n"
    return content


@st.composite
def altered(draw: st.DrawFn, valid: Any) -> Any:
    """Plain JSON types in which something is odd."""
    content = copy.deepcopy(valid)
    for _ in range(draw(st.integers(1, 2))):
        place = content
        while True:
            keys = list(place) if isinstance(place, dict) else list(range(len(place)))
            if not keys:
                break
            key = draw(st.sampled_from(keys))
            if isinstance(place[key], dict | list) and place[key] and draw(st.booleans()):
                place = place[key]
                continue
            match draw(st.sampled_from(("odd", "odd", "odd", "drop", "misspell", "nest"))):
                case "odd":
                    place[key] = copy.deepcopy(draw(st.sampled_from(ODD)))
                case "drop":
                    del place[key]
                case "misspell" if isinstance(place, dict):
                    place[str(key) + draw(st.sampled_from(["s", " ", "\u202e", "<b>"]))] = place.pop(key)
                case _:
                    place[key] = [place[key]]
            break
    return content


def lines(rows: Any) -> bytes:
    """JSON lines."""
    return b"".join(json.dumps(row).encode() + b"\n" for row in rows)


def of_files(name: str, valid: list[dict[str, Any]]) -> st.SearchStrategy[tuple[str, bytes]]:
    """Damaged or altered files of records, some of them compressed."""
    content = st.one_of(damaged(lines(valid)), altered(valid).map(lambda rows: lines(rows)))
    return st.tuples(st.sampled_from((name, name, name + ".gz", name + ".gz!")), content)


def put(folder: Path, named: tuple[str, bytes]) -> Path:
    """Write a generated file; `.gz!` is gzip cut short."""
    name, content = named
    if ".gz" in name:
        content = gzip.compress(content, mtime=0)
    if name.endswith("!"):
        content = content[: len(content) * 2 // 3]
    path = folder / name.removesuffix("!")
    path.write_bytes(content)
    return path


RECORDS = [{"step": 1, "loss": 0.5}, {"text": "ï", "list": [1, None]}, {}]
RECIPE = {"space": SPACE.to_dict(), "hidden_size": 8, "max_steps": 5, "mlm_probability": 0.15, "warmup_ratio": 0.1}
TABLE = [
    {
        "architecture": child, "seed": 0, "dev_loss": 5.0 + number, "curve": [[1, 6.0]], "num_parameters": 10 + number,
        "flops": 100, "recipe_hash": "r", "recipe": RECIPE, "versions": {"torch": "2"}, "timing": {"seconds": 1.5},
    }
    for number, child in enumerate(CHILDREN)
]  # fmt: skip
SCORES = [
    {
        "supernet": str(seed), "method": "uniform", "seed": seed, "step": 10, "recipe_hash": "r",
        "proxy_losses": {child: 6.0 + number for number, child in enumerate(CHILDREN)},
    }
    for seed in (0, 1)
]  # fmt: skip
HISTORY = [
    {"record": "search", "settings": {}, "versions": {}},
    *(
        {"record": "child", "architecture": child, "proxy_loss": 5.0, "cost": {"num_parameters": 10, "flops": 3}}
        for child in CHILDREN
    ),
]
SCORED = [{"record": "scores", "settings": {"about": {"supernet": "s"}}}, *HISTORY[1:]]
LATENCY = [
    {
        "record": "latency_table", "operators_ms": {"attention@8": 1.0, "ffn@8": 2.0, "conv3@8": 1.5, "skip": 0.0},
        "adapters_ms": {}, "outside_ms": 0.5, "sizes": {"hidden_size": 8},
        "setting": {"device": "cpu", "batch_size": 1, "sequence_length": 8, "dtype": "float32", "num_threads": 1},
    }
]  # fmt: skip
CARD = {
    "name": "n", "architecture": "attention-ffn", "hub_id": "me/n", "datasets": ["d"], "license": "mit", "tags": ["t"],
    "cost": {"num_parameters": 10, "flops": 1.5}, "bert_cost": {"name": "BERT", "flops": 2},
    "supernet": {"method": "fair"}, "search": {"num_scored": 3}, "training": {"num_steps": 1}, "limits": ["l"],
    "model": {"hidden_size": 8},
    "figures": {"front": "front.png"}, "max_logit_difference": 0.0, "versions": {"torch": "2"},
    "evaluations": [{"task": "text-classification", "dataset": "d", "metric": "m", "values": [0.5, 0.6]}],
}  # fmt: skip
CONFIG = {
    "hidden_size": 32, "vocab_size": 20, "max_position_embeddings": 16, "ffn_ratio": 2, "num_conv_layers": 1,
    "hidden_act": "gelu", "hidden_dropout_prob": 0.1, "layer_norm_eps": 1e-12, "pad_token_id": 0, "embedding_size": 8,
    "attention_head_size": 16, "tie_word_embeddings": True, "initializer_range": 0.02,
}  # fmt: skip
SUPERNET_CONFIG = {**CONFIG, "search_space": SPACE.to_dict()}
CHILD_CONFIG = {**CONFIG, "operators": ["attention", "ffn", "conv3@32", "skip"], "stage_lengths": [2, 2]}
SETTINGS = {
    "run": (
        b"output_dir: runs/x\ntrain_files: [a.txt, b.txt]\npreset: quickstart\nmax_steps: 20\nlearning_rate: 1e-3\n"
        b"method: magic_at\nmlm_probability: 0.15\nuse_cpu: true\nalignment_weight: 0.2\nseed: 3 # why\n",
        (SupernetArguments, DataArguments, SupernetTrainingArguments),
    ),
    "table": (
        b"table: t.jsonl\nnum_children: 3\nblocks: ['attention,ffn', 'attention']\nhidden_size: 8\npackaged: imdb\n"
        b"learning_rate: 0.002\nwarmup_ratio: .1\n",
        (FarmArguments, StandaloneArguments, DataArguments),
    ),
    "child": (
        b"model: runs/child\noutput_dir: runs/y\nmax_steps: 10\nlearning_rate: 5e-4\ndataset_name: a/b\n"
        b"weight_decay: 0.01\nwarmup_steps: 0.06\n",
        (PretrainChildArguments, DataArguments),
    ),
    "search": (
        b"supernet: runs/x\noutput: out.jsonl\ntrain_files: [a.txt]\nsearch: evolution\nnum_evaluations: 5\n"
        b"max_parameters: 2M\n",
        (SearchChildrenArguments, DataArguments),
    ),
    "score": (
        b"supernet: s\noutput: o.jsonl\nnum_random: 4\npackaged: imdb\n",
        (ScoreChildrenArguments, DataArguments),
    ),
    "extract": (b"supernet: s\narchitecture: attention-ffn\noutput_dir: c\ntolerance: 1e-6\n", (ExtractionArguments,)),
    "finetune": (
        b"model: m\noutput_dir: o\ntask: mrpc\nlearning_rates: [1e-4, 5e-5]\nseeds: [0, 1]\n",
        (FinetuneArguments,),
    ),
}


def read_architecture(text: object, folder: Path) -> None:
    """The text form, or a list of names."""
    parse = Architecture.parse if isinstance(text, str) else Architecture
    architecture = parse(text)  # type: ignore[arg-type]
    assert Architecture.parse(str(architecture)) == architecture
    assert (SPACE.why_not(architecture) is None) == (architecture in set(SPACE.enumerate()))
    SPACE.validate(architecture)


def read_space(data: Any, folder: Path) -> None:
    """The JSON form of a space."""
    space = SearchSpace.from_dict(data)
    assert SearchSpace.from_dict(json.loads(json.dumps(space.to_dict()))) == space
    assert space.index_of(space.child_at(space.num_children - 1)) == space.num_children - 1


def read_model_config(kind: type, data: dict[str, Any], folder: Path) -> None:
    """A configuration: what is accepted is what is saved and loaded."""
    config = kind(**{str(key): value for key, value in data.items()})
    config.save_pretrained(folder)
    assert kind.from_pretrained(folder).to_dict() == config.to_dict()
    for name, value in config.to_dict().items():
        assert not isinstance(value, float) or math.isfinite(value), f"{name} is {value}"
    for file in folder.glob("*.json"):
        file.unlink()


_SUPERNET: dict[str, bytes] = {}


def supernet_files() -> dict[str, bytes]:
    """A tiny super-net's folder."""
    if not _SUPERNET:
        torch.manual_seed(0)
        with tempfile.TemporaryDirectory() as folder:
            SupernetForMaskedLM(SupernetConfig(**SUPERNET_CONFIG)).save_pretrained(folder)
            _SUPERNET.update({file.name: file.read_bytes() for file in Path(folder).iterdir()})
    return _SUPERNET


def read_supernet(changed: tuple[str, bytes], folder: Path) -> None:
    """A super-net's folder, one file of it damaged."""
    for name, content in {**supernet_files(), changed[0]: changed[1]}.items():
        (folder / name).write_bytes(content)
    supernet = load_supernet(folder)
    assert all(parameter.isfinite().all() for parameter in supernet.parameters()) or changed[0] != "config.json"


def read_records(named: tuple[str, bytes], folder: Path) -> None:
    """Records: read, and added to; what was whole stays, and a foreign file is left as it was."""
    path = put(folder, named)
    content = path.read_bytes()
    with quiet():
        if not path.name.endswith(".gz"):
            try:
                records.append(path, {"new": 1})
            except ValueError:
                assert path.read_bytes() == content
                raise
            assert records.read(path)[-1] == {"new": 1}
            path.write_bytes(content)
        for record in records.read(path):
            assert isinstance(record, dict)


def read_settings(named: tuple[str, bytes], folder: Path) -> None:
    """A YAML file, and the dataclasses that are filled from it."""
    path = folder / "config.yaml"
    path.write_bytes(named[1])
    kinds = SETTINGS[named[0]][1]
    found = read_config(path, kinds)
    names = {kind: {field for field in kind.__dataclass_fields__ if field in found} for kind in kinds}
    try:
        filled = [kind(**{name: found[name] for name in own}) for kind, own in names.items()]
    except TypeError as error:
        if "missing" not in str(error):  # argparse says so first
            raise
        raise ValueError(f"config.yaml: {error}") from None
    for arguments in filled:
        for name, value in vars(arguments).items():
            for number in value if isinstance(value, list) else [value]:
                assert not isinstance(number, float) or math.isfinite(number), f"{name} is {number}"


def read_flags(named: tuple[str, list[str]], folder: Path) -> None:
    """A command line."""
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said), contextlib.redirect_stdout(said):
            parse_recipe_arguments(SETTINGS[named[0]][1], named[1])
    except SystemExit as error:
        if error.code not in (None, 0, 2):
            raise
        if error.code == 2:
            raise ValueError(" ".join(said.getvalue().rpartition("error: ")[2].split())) from None


def read_truth(named: tuple[str, bytes], folder: Path) -> None:
    """A table of children trained alone."""
    with quiet():
        truth = GroundTruth(load_table(str(put(folder, named))))
    assert all(map(math.isfinite, truth.loss))


@functools.cache
def scored_table() -> GroundTruth:
    """The table that scores are of."""
    with tempfile.TemporaryDirectory() as folder:
        return GroundTruth(load_table(str(put(Path(folder), ("table.jsonl", lines(TABLE))))))


def read_scored(named: tuple[str, bytes], folder: Path) -> None:
    """Proxy scores of a table's children."""
    truth = scored_table()
    with quiet():
        for record in read_scores(put(folder, named), truth):
            assert len(proxy_losses(record, truth)) == len(CHILDREN)


def read_latency(named: tuple[str, bytes], folder: Path) -> None:
    """A latency table."""
    with quiet():
        table = LatencyTable.read(put(folder, named), batch_size=1)
    assert table.described
    latency = table.latency_ms(
        SupernetConfig(search_space=SPACE, hidden_size=8, attention_head_size=8), ("attention", "skip")
    )
    assert math.isfinite(latency)
    assert latency >= 0


def read_history(named: tuple[str, bytes], folder: Path) -> None:
    """The history of a search, to go on with."""
    path = put(folder, named)
    content = path.read_bytes()
    search = RandomSearch(SearchTask(SPACE, seed=0))
    with quiet():
        try:
            run_search(search, lambda children: [1.0] * len(children), num_evaluations=5, history_path=path)
        except ValueError:
            assert path.read_bytes() == content
            raise


def read_report(named: tuple[str, bytes], folder: Path) -> None:
    """The history of a search, or scored children, to report on."""
    path = put(folder, named)
    with quiet():
        found = records.read(path)
    read_findings(found, path.name)
    page = render_search_report(found, supernet="s", source=path.name)
    assert "<script>alert" not in page


def read_farm(named: tuple[str, bytes], folder: Path) -> None:
    """A farm's table, to go on with."""
    with quiet():
        read_table(put(folder, named), "r", SPACE)


def read_text(named: tuple[str, bytes], folder: Path) -> None:
    """A file of text."""
    path = folder / named[0]
    path.write_bytes(named[1])
    sample_by = "line" if len(named[1]) % 2 else "paragraph"
    found = load_text(DataArguments(train_files=[str(path)], sample_by=sample_by, cache_dir=str(folder / "cache")))
    texts = found["text"][:]
    assert texts
    assert not any(text.isspace() or "\0" in text for text in texts)


def read_labels(named: tuple[str, bytes], folder: Path) -> None:
    """A file of labelled rows, beside a good one."""
    path, other = folder / named[0], folder / "other.jsonl"
    path.write_bytes(named[1])
    other.write_bytes(lines([{"text": "a", "label": "x"}, {"text": "b", "label": "y"}]))
    task = load_files(str(path), str(other), cache_dir=str(folder / "cache"))
    assert all(isinstance(text, str) for text in task.train["text"])
    other.unlink()


def read_tags(named: tuple[str, bytes], folder: Path) -> None:
    """A file of tagged words, beside a good one."""
    path, other = folder / named[0], folder / "other.jsonl"
    path.write_bytes(named[1])
    other.write_bytes(lines(TAGS))
    words = load_tagged_files(str(path), str(other), tokens="tokens", tags="tags", cache_dir=str(folder / "cache"))
    for row in words.splits["train"]:
        assert len(row["tokens"]) == len(row["tags"]) > 0
        assert all(0 <= tag < len(words.label_names) for tag in row["tags"])


def read_questions(named: tuple[str, bytes], folder: Path) -> None:
    """A file of questions, beside a good one."""
    path, other = folder / named[0], folder / "other.jsonl"
    path.write_bytes(named[1])
    other.write_bytes(lines(FLAT_QUESTIONS))
    for row in load_squad_files(str(path), str(other)).splits["train"]:
        for text, start in zip(row["answers"]["text"], row["answers"]["answer_start"], strict=True):
            assert row["context"][start : start + len(text)] == text


def read_card(record: Any, folder: Path) -> None:
    """The record of a child's card."""
    assert render_child_card(record).startswith("---\n")  # that nothing in it is markup, tests/test_cards.py shows


def read_card_file(content: bytes, folder: Path) -> None:
    """The JSON file of what a card shall say."""
    path = folder / "card.json"
    path.write_bytes(content)
    assert isinstance(read_facts(path), dict)


def read_quantity(text: str, folder: Path) -> None:
    """The caps of a budget as people write them."""
    cap = Budget.parse(max_parameters=text).max_parameters
    assert cap is not None
    assert 0 < cap < math.inf


def read_manifest(content: bytes, folder: Path) -> None:
    """The manifest of a checkpoint."""
    checkpoint = folder / "checkpoint-1"
    checkpoint.mkdir(exist_ok=True)
    for name in MANIFEST["files"]:
        (checkpoint / name).write_bytes(b"{}")
    (checkpoint / "manifest.json").write_bytes(content)
    checkpoints.verify_checkpoint(checkpoint)


@functools.cache
def cached_corpus() -> tuple[dict[str, bytes], list[Any]]:
    """The files of the cache of a small corpus by their places, and the corpus."""
    with tempfile.TemporaryDirectory() as place:
        loaded = load_cached(Path(place))
        files = {str(path.relative_to(place)): path.read_bytes() for path in sorted(Path(place).rglob("*.*"))}
        return files, loaded


def load_cached(folder: Path) -> list[Any]:
    """A small corpus, read with a cache in a folder: tokens of train and dev sequences, vocabulary."""
    text = folder / "text.txt"
    text.write_text("\n".join(f"Document {n} says {'one two three four five'.split()[n % 5]}." for n in range(300)))
    data = DataArguments(
        train_files=[str(text)], sample_by="line", vocab_size=100, max_seq_length=8, cache_dir=str(folder / "cache")
    )
    corpus = load_corpus(data)
    text.unlink()
    return [corpus.train["input_ids"][:], corpus.dev["input_ids"][:], corpus.tokenizer.get_vocab()]


def read_cache(damage: tuple[int, str, float, int], folder: Path) -> None:
    """One damaged file of a cache: the corpus is the very same, and a warning names the file."""
    files, loaded = cached_corpus()
    number, what, share, bit = damage
    damaged_place = list(files)[number % len(files)]
    for place, content in files.items():
        at = int(share * len(content))
        if place == damaged_place:
            match what:
                case "cut":
                    content = content[:at]
                case "flip":
                    content = content[:at] + bytes([content[at] ^ 1 << bit]) + content[at + 1 :]
                case "zeros":
                    content = content[:at] + bytes(512) + content[at + 512 :]
                case "tail of zeros":
                    content = content[:at] + bytes(len(content) - at)
                case "longer":
                    content = content + bytes([bit]) * (1 + at)
                case "another":
                    content = list(files.values())[(number + 1 + bit) % len(files)]
                case _:
                    content = content[: -8 * (1 + bit)]  # the end, where sizes and sums lie
        path = folder / place
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    is_damaged = (folder / damaged_place).read_bytes() != files[damaged_place]
    with patch.object(cache.logger, "warning") as warning:
        assert load_cached(folder) == loaded, "other data, without a word"
    said = [call.args[0] % call.args[1:] for call in warning.call_args_list]
    assert len(said) == is_damaged, said
    assert all(str(folder / damaged_place) in words for words in said), said


DAMAGES = st.tuples(
    st.integers(0, 5),
    st.sampled_from(["cut", "flip", "zeros", "tail of zeros", "longer", "another", "end"]),
    st.floats(0, 1, exclude_max=True),
    st.integers(0, 7),
)
FINETUNED: dict[str, Any] = {"learning_rate": 0.01, "seeds": [0], "model": "a1b2", "max_steps": 4}
_INTERRUPTED: dict[str, bytes] = {}


def interrupted_files() -> dict[str, bytes]:
    """The folder of a fine-tuning run that was stopped behind its step 3, with checkpoints of steps 1 and 2."""
    if not _INTERRUPTED:
        with tempfile.TemporaryDirectory() as place:
            root = Path(place)
            torch.manual_seed(0)
            config = NasBertConfig(**CONFIG | {"operators": ["ffn"]})
            arguments = FinetuneArguments(
                model="m", output_dir=place, train_file="t", validation_file="v", disable_tqdm=True, batch_size=1
            )
            options = {"max_steps": 4, "save_strategy": "steps", "save_steps": 1}
            rows = [{"input_ids": [5, 6], "labels": [5, 6]}] * 4
            with patch.dict(os.environ, {"CUDA_VISIBLE_DEVICES": ""}):
                trainer = SealingTrainer(
                    NasBertForMaskedLM(config),
                    runs.trainer_arguments(arguments, root, 0, **options),
                    train_dataset=rows,
                )
            runs.open_run(root, FINETUNED)
            trainer.add_callback(_StopBehind(3))
            with contextlib.suppress(KeyboardInterrupt):
                runs.train(trainer, None)
            _INTERRUPTED.update({path: (root / path).read_bytes() for path in checkpoint_folders.files_in(root)})
    return _INTERRUPTED


class _StopBehind(TrainerCallback):
    def __init__(self, step: int) -> None:
        self.step = step

    def on_step_end(self, args: Any, state: TrainerState, control: Any, **kwargs: Any) -> None:
        if state.global_step == self.step:
            raise KeyboardInterrupt


@st.composite
def interrupted_runs(draw: st.DrawFn) -> dict[str, bytes | None]:
    """One to three things that are wrong in that folder: other contents of files, None for those that are missing."""
    files = dict(interrupted_files())
    newest = "run/checkpoint-2/"
    for _ in range(draw(st.integers(1, 3))):
        names = sorted(files)
        names += [name for name in names if name.startswith(newest)] * 3 + ["run/run.json"] * 15
        name = draw(st.sampled_from(names)) if names else "run/x"
        match draw(st.sampled_from("damage damage damage alter alter remove add move seal empty".split())):
            case "alter" if name.endswith(".json"):
                with contextlib.suppress(ValueError):
                    found = json.loads(files[name])
                    if isinstance(found, dict | list):
                        files[name] = json.dumps(draw(altered(found))).encode()
            case "damage" | "alter" if name in files:
                files[name] = draw(damaged(files[name]))
            case "remove" if name in files:
                del files[name]
            case "add":
                other = draw(st.sampled_from("abc 007 9 -1 9.replaced \u0662 2.partial".split()))
                files[f"run/checkpoint-{other}/{draw(st.sampled_from(['x', 'manifest.json']))}"] = b"{}"
            case "move":  # all of a checkpoint under another number
                other = draw(st.sampled_from(("1", "3", "12")))
                of_it = {path: files.pop(path) for path in names if path.startswith(newest) and path in files}
                files |= {path.replace("checkpoint-2", f"checkpoint-{other}"): of_it[path] for path in of_it}
            case "seal":  # as whoever can write the folder can write the sums too
                state = draw(altered(json.loads(interrupted_files()[newest + "trainer_state.json"])))
                files[newest + "trainer_state.json"] = json.dumps(state).encode()
                files[newest + "SEAL"] = b""
            case _:
                files = {path: b"" if path.startswith(newest) else content for path, content in files.items()}
    valid = interrupted_files()
    return {path: files.get(path) for path in sorted({*files, *valid}) if files.get(path) != valid.get(path)}


def read_finetuning(changes: dict[str, bytes | None], folder: Path) -> None:
    """An interrupted fine-tuning run: from where it goes on."""
    root = folder / "out"
    files = {path: content for path, content in {**interrupted_files(), **changes}.items() if content is not None}
    for name, content in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(content)
    seals = [root / name for name in files if name.endswith("/SEAL")]
    for seal in seals:
        seal.unlink()
        checkpoint_folders.seal(seal.parent)
    before = {path: path.read_bytes() for path in root.rglob("*") if path.is_file()}
    checkpoint_folders.logger.disabled = True
    try:
        found = runs.open_run(root, FINETUNED)
    except ValueError:
        assert {path: path.read_bytes() for path in root.rglob("*") if path.is_file()} == before
        raise
    finally:
        checkpoint_folders.logger.disabled = False
    if found is None:
        assert not checkpoint_folders.list_checkpoints(root / "run")
        return
    step = int(found.name.removeprefix("checkpoint-"))
    for file in found.iterdir():  # sealed anew or not, what is read is what was written
        original = files.get(f"run/checkpoint-{step}/{file.name}")
        written = interrupted_files().get(f"run/checkpoint-{step}/{file.name}")
        assert seals or original == written or file.name == checkpoint_folders.MANIFEST, file.name
    assert read_state(found).global_step == step


_TOKENIZERS: dict[str, dict[str, bytes]] = {}


def tokenizer_files() -> dict[str, dict[str, bytes]]:
    """The files of three small tokenizers: BERT's, one of all scripts, and a byte-level BPE."""
    if not _TOKENIZERS:
        text = ["the grey book", "a naïve word, ein Wort", "ภาษาไทย"] * 3
        special = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
        bpe = ByteLevelBPETokenizer()
        bpe.train_from_iterator(text, vocab_size=300, special_tokens=special, show_progress=False)
        roles = dict(zip(("cls_token", "pad_token", "sep_token", "unk_token", "mask_token"), special, strict=True))
        made = {
            "bert": train_tokenizer(text[:2], 60),
            "scripts": train_tokenizer(text, 80),
            "bpe": PreTrainedTokenizerFast(tokenizer_object=bpe._tokenizer, **roles),
        }
        for name, tokenizer in made.items():
            with tempfile.TemporaryDirectory() as folder:
                tokenizer.save_pretrained(folder)
                _TOKENIZERS[name] = {file.name: file.read_bytes() for file in sorted(Path(folder).iterdir())}
    return _TOKENIZERS


@st.composite
def changed_tokenizers(draw: st.DrawFn) -> tuple[str, str, bytes]:
    """The name of a tokenizer, and one of its files, damaged or altered."""
    name = draw(st.sampled_from(sorted(tokenizer_files())))
    file = draw(st.sampled_from(sorted(tokenizer_files()[name])))
    content = tokenizer_files()[name][file]
    if draw(st.integers(0, 2)) == 0:
        return name, file, draw(damaged(content))
    return name, file, json.dumps(draw(altered(json.loads(content)))).encode()


def read_tokenizer(changed: tuple[str, str, bytes], folder: Path) -> None:
    """A tokenizer's folder, one file of it changed: what is accepted cuts text into ids of its vocabulary."""
    place = folder / "tokenizer"
    place.mkdir()
    name, file, content = changed
    for other, whole in {**tokenizer_files()[name], file: content}.items():
        (place / other).write_bytes(whole)
    tokenizer = open_tokenizer(place)
    size = vocabulary_size(tokenizer)
    assert all(0 <= number < size for number in tokenizer("the grey word, 🙂")["input_ids"])
    save_tokenizer(tokenizer, folder / "saved", 16)


MANIFEST: dict[str, Any] = {
    "format": checkpoint_folders.FORMAT,
    "files": {
        name: {"size": 2, "xxh3_128": "dc7048f8f8747f561349cde127705c16"}
        for name in (checkpoints.MODEL, checkpoints.OPTIMIZER, checkpoints.STATE)
    },
}
TEXTS = {
    "a.txt": "One line.\nAnother, naïve one.\n\nA third.\n".encode(),
    "a.jsonl": lines({"text": text, "n": 1} for text in ("one", "two", "zwölf")),
    "a.json": json.dumps([{"text": "one"}, {"text": "two"}]).encode(),
    "a.csv": b'text,n\none,1\n"two, three",2\n',
}
LABELS = {
    "b.csv": b"text,label\none,x\ntwo,y\nthree,x\n",
    "b.tsv": b"text\tlabel\none\tx\ntwo\ty\n",
    "b.jsonl": lines([{"text": "one", "label": "x"}, {"text": "two", "label": "y"}]),
    "b.json": json.dumps([{"text": "one", "label": 0.5}, {"text": "two", "label": 2}]).encode(),
}
PARQUET = [{"text": "one", "n": 1}, {"text": "two", "n": 2}]
TAGS = [{"tokens": ["Ada", "went"], "tags": ["B-PER", "O"]}, {"tokens": ["home"], "tags": ["O"]}]
FLAT_QUESTIONS = [
    {"id": f"{n}", "context": "in Rome", "question": "where?", "answers": {"text": ["Rome"], "answer_start": [3]}}
    for n in range(2)
]
SQUAD = {
    "version": "1.1",
    "data": [
        {"paragraphs": [{"context": "in Rome", "qas": [
            {"id": f"{n}", "question": "where?", "answers": [{"text": "Rome", "answer_start": 3}]}
        ]}]}
        for n in range(2)
    ],
}  # fmt: skip


def parquet(rows: list[dict[str, Any]]) -> bytes:
    """A small Parquet file."""
    sink = io.BytesIO()
    pa.parquet.write_table(pa.Table.from_pylist(rows), sink)
    return sink.getvalue()


def files_of_rows(name: str, rows: list[dict[str, Any]], whole: Any) -> st.SearchStrategy[tuple[str, bytes]]:
    """Files that hold rows with lists in them, damaged or altered."""
    contents = {
        f"{name}.jsonl": lines(rows),
        f"{name}.json": json.dumps(whole, indent=1).encode(),
        f"{name}.jsonl.gz": gzip.compress(lines(rows), mtime=0),
        f"{name}.parquet": parquet(rows),
    }
    return st.one_of(
        named_files(contents),
        altered(rows).map(lambda found: (f"{name}.jsonl", lines(found))),
        altered(whole).map(lambda found: (f"{name}.json", json.dumps(found).encode())),
    )


def named_files(files: dict[str, bytes]) -> st.SearchStrategy[tuple[str, bytes]]:
    """One of several files, damaged."""
    return st.one_of([st.tuples(st.just(name), damaged(content)) for name, content in files.items()])


@st.composite
def settings_files(draw: st.DrawFn) -> tuple[str, bytes]:
    """A YAML file with damaged bytes, or with odd values."""
    name = draw(st.sampled_from(sorted(SETTINGS)))
    content = SETTINGS[name][0]
    if draw(st.booleans()):
        return name, draw(damaged(content))
    rows = content.decode().splitlines()
    place = draw(st.integers(0, len(rows) - 1))
    key = rows[place].partition(":")[0]
    odd = st.one_of(
        st.sampled_from(
            [
                "[1, [2]]",
                ".inf",
                "-.inf",
                ".nan",
                "-1",
                "0",
                "1e400",
                "010",
                "9" * 400,
                "~",
                "yes",
                "{a: b}",
                "'",
                "0.5",
            ]
        ),
        st.text(st.characters(codec="utf-8", exclude_characters="\r\n"), max_size=12),
    )
    rows[place] = f"{key}: {draw(odd)}"
    return name, "\n".join(rows).encode()


@st.composite
def command_lines(draw: st.DrawFn) -> tuple[str, list[str]]:
    """Flags of a command, one of them odd."""
    name = draw(st.sampled_from(sorted(SETTINGS)))
    rows = (row.partition(" #")[0].partition(": ") for row in SETTINGS[name][0].decode().splitlines())
    words = [word for key, _, value in rows for word in (f"--{key}", *value.strip("[]'").split(", "))]
    flags = [field for kind in SETTINGS[name][1] for field in kind.__dataclass_fields__]
    values = st.sampled_from(["-1", "0", "x", "", "1e999", "nan", "0.5", "--", "9" * 99, "\0", "3"])
    strange = ["--sed", "-x", "y", "--seed=", "--config", "/", "--max_stepz=3", "--seed=2"]
    match draw(st.integers(0, 2)):
        case 0:
            words += [f"--{draw(st.sampled_from(flags))}", draw(values)]
        case 1:
            words.insert(
                draw(st.integers(0, len(words))), draw(st.one_of(st.sampled_from(strange), st.text(max_size=5)))
            )
        case _:
            del words[draw(st.integers(0, len(words) - 1))]
    return name, words


ARCHITECTURES = st.one_of(
    st.text(max_size=30),
    damaged(b"attention-ffn").map(lambda content: content.decode("utf-8", "replace")),
    st.lists(
        st.one_of(st.sampled_from(["attention", "ffn", "conv3", "skip", "conv5@64", "conv5@0"]), st.text(max_size=5)),
        max_size=4,
    ),
    st.lists(st.sampled_from(["attention", "ffn", "conv3", "skip", "conv7"]), min_size=1, max_size=3).map("-".join),
    st.sampled_from(ODD),
)
QUANTITIES = st.one_of(
    st.text(max_size=12),
    st.from_regex(r"[-+]?[0-9]{0,5}[.,_]?[0-9]{0,5} ?[kKmMgGtTbBe]{0,2}", fullmatch=True),
    st.sampled_from(["9" * 5000, "1e5", "0", "0.0M", "inf", "nan", "٣", "1" + "0" * 400 + "T", ".", "1__0"]),
)

KINDS = {
    "architectures": Kind(ARCHITECTURES, read_architecture, 400),
    "search spaces": Kind(altered(SPACE.to_dict()), read_space, 250),
    "super-net configs": Kind(
        altered(SUPERNET_CONFIG), lambda data, folder: read_model_config(SupernetConfig, data, folder), 200,
        (ValueError, StrictDataclassError),
    ),
    "child configs": Kind(
        altered(CHILD_CONFIG), lambda data, folder: read_model_config(NasBertConfig, data, folder), 200,
        (ValueError, StrictDataclassError),
    ),
    "super-net folders": Kind(
        st.one_of(
            st.deferred(lambda: st.tuples(st.just("config.json"), damaged(supernet_files()["config.json"]))),
            altered(SUPERNET_CONFIG | {"model_type": "nasbert_supernet"}).map(
                lambda data: ("config.json", json.dumps(data).encode())
            ),
            st.deferred(lambda: damaged(supernet_files()["model.safetensors"])).map(
                lambda content: ("model.safetensors", content)
            ),
        ),
        read_supernet, 100,
    ),
    "records": Kind(of_files("a.jsonl", RECORDS), read_records, 400),
    "YAML configs": Kind(settings_files(), read_settings, 500),
    "command lines": Kind(command_lines(), read_flags, 150),
    "tables": Kind(of_files("t.jsonl", TABLE), read_truth, 250),
    "score files": Kind(of_files("s.jsonl", SCORES), read_scored, 200),
    "latency tables": Kind(of_files("l.jsonl", LATENCY), read_latency, 200),
    "search histories": Kind(of_files("h.jsonl", HISTORY), read_history, 200, (ValueError, WriteError)),
    "reports": Kind(st.one_of(of_files("h.jsonl", HISTORY), of_files("h.jsonl", SCORED)), read_report, 200),
    "farm tables": Kind(of_files("t.jsonl", TABLE), read_farm, 200),
    "text files": Kind(
        st.one_of(named_files(TEXTS), named_files({"a.parquet": parquet(PARQUET)})), read_text, 500,
    ),
    "label files": Kind(named_files(LABELS), read_labels, 400),
    "card records": Kind(altered(CARD), read_card, 250),
    "card files": Kind(damaged(json.dumps(CARD).encode()), read_card_file, 150),
    "quantities": Kind(QUANTITIES, read_quantity, 200),
    "manifests": Kind(
        st.one_of(damaged(json.dumps(MANIFEST).encode()), altered(MANIFEST).map(json.dumps).map(str.encode)),
        read_manifest, 200, (checkpoints.DamagedCheckpointError,),
    ),
    "tagged files": Kind(files_of_rows("g", TAGS, {"data": TAGS}), read_tags, 100),
    "question files": Kind(files_of_rows("q", FLAT_QUESTIONS, SQUAD), read_questions, 100),
    "text caches": Kind(DAMAGES, read_cache, 150, (ValueError, OSError)),
    "fine-tuning checkpoints": Kind(interrupted_runs(), read_finetuning, 200),
    "tokenizer files": Kind(changed_tokenizers(), read_tokenizer, 250, (ForeignFileError,)),
}  # fmt: skip
MADE_AGAIN = {"text caches"}  # what is damaged is not refused
NAMED = {  # the file, or, of whole tables, what is wrong with them
    "records": ("a.jsonl",),
    "tables": ("t.jsonl", "table", "children"),
    "score files": ("s.jsonl",),
    "latency tables": ("l.jsonl", "latency table"),
    "search histories": ("h.jsonl",),
    "reports": ("h.jsonl",),
    "farm tables": ("t.jsonl",),
    "text files": ("a.",),
    "label files": ("b.", "b: ", "other: "),
    "tagged files": ("g.", "g: ", "other: "),
    "question files": ("q.", "q: ", "other: "),
    "card files": ("card.json",),
    "text caches": ("/cache/hf_nasbert/",),
    "fine-tuning checkpoints": ("run.json", "checkpoint-"),
    "tokenizer files": ("/tokenizer",),
}


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Without the warnings that half-written lines rightly give."""
    records.logger.disabled = True
    try:
        yield
    finally:
        records.logger.disabled = False


@contextlib.contextmanager
def within(seconds: float) -> Iterator[None]:
    """An error after so many seconds."""

    def stop(*_: object) -> None:
        raise AssertionError(f"not done after {seconds} s")

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def try_one(name: str, value: Any) -> str:
    """Read one input in a folder of its own; returns `result` or the name of the error."""
    kind = KINDS[name]
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        try:
            with within(SECONDS):
                kind.read(value, folder)
            outcome = "result"
        except kind.errors as error:
            message, outcome = str(error), type(error).__name__
            assert message.strip(), "an error without words"
            if not isinstance(error, StrictDataclassError):  # whose words are huggingface_hub's
                assert len(message) <= LONGEST_MESSAGE, f"a message of {len(message)} characters: {message[:300]}"
                assert "\n" not in message.strip(), f"not one line: {message}"
            if name in NAMED:
                assert any(word in message for word in NAMED[name]), f"the file is not named: {message}"
        assert not list(folder.rglob("*.unfinished")), "a partial file was left"
        assert not list(folder.rglob("*.tmp")), "a partial file was left"
    return outcome


def run(name: str, scale: float = 1.0) -> Counter[str]:
    """Generate one kind; returns how often each outcome came."""
    outcomes: Counter[str] = Counter()

    @settings(
        max_examples=max(1, int(KINDS[name].num_inputs * scale)),
        derandomize=True,
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
        phases=(Phase.generate, Phase.shrink),
    )
    @given(KINDS[name].inputs)
    def one(value: Any) -> None:
        outcomes[try_one(name, value)] += 1

    # Hypothesis also draws constants out of the code that is loaded: then every change of the code changes the inputs.
    with patch.object(HypothesisProvider, "_maybe_draw_constant", lambda *_, **__: None, create=True):
        one()
    return outcomes


def as_table(counts: dict[str, dict[str, int]]) -> str:
    """The counts as Markdown."""
    rows = ["| kind | generated | read | refused by one error |", "| --- | --- | --- | --- |"]
    total = Counter[str]()
    for name, found in counts.items():
        refused = sum(count for outcome, count in found.items() if outcome != "result")
        total.update(read=found.get("result", 0), refused=refused)
        rows.append(f"| {name} | {sum(found.values())} | {found.get('result', 0)} | {refused} |")
    rows.append(f"| all | {total.total()} | {total['read']} | {total['refused']} |")
    return "\n".join(rows)


def main() -> None:
    """Run all kinds."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kinds", nargs="*", default=list(KINDS), choices=list(KINDS))
    parser.add_argument("--scale", type=float, default=1.0, help="times as many inputs")
    parser.add_argument("--json", help="file to write the counts to")
    parser.add_argument("--page", help="page whose table is made anew")
    arguments = parser.parse_args()
    disable_progress_bars()
    counts = {}
    for name in arguments.kinds:
        counts[name] = dict(sorted(run(name, arguments.scale).items()))
        print(f"{name}: {counts[name]}", flush=True)
    print(as_table(counts))
    if arguments.json:
        record = {"kinds": counts, "versions": records.versions()}
        Path(arguments.json).write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    if arguments.page:
        fill_page(arguments.page, {"inputs": as_table(counts)})


if __name__ == "__main__":
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    main()
