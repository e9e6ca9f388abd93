"""Records to Hugging Face model cards: every number from the record, every name from it inert.

A card says what its record says and nothing else: an absent number is an absent row, an absent group no section.
All text that comes from a record is escaped for YAML, Markdown and HTML, and the same record gives the same bytes.
"""

import builtins
import collections.abc
import dataclasses
import functools
import json
import re
import statistics
import types
import typing
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hf_nasbert.records import is_finite_number
from hf_nasbert.space import SKIP, Architecture, operator_kind, operator_width

if TYPE_CHECKING:
    import jinja2

    from hf_nasbert.ranking import GroundTruth

CODE_FILES = ("operators_nasbert.py", "configuration_nasbert.py", "modeling_nasbert.py")
FIGURES = ("architecture", "front", "training", "operators")
_TAGS = ("nasbert", "neural-architecture-search", "one-shot-nas", "efficient-transformers")
_LABELS = {
    "flops": "FLOPs",
    "latency_ms": "latency (ms)",
    "num_parameters": "parameters",
    "num_children": "children in the space",
    "num_scored": "children scored",
    "num_steps": "optimizer steps",
    "num_tokens": "tokens seen",
    "proxy_loss": "proxy loss of this child (nats per masked token)",
}
_OPERATORS = {
    "attention": "multi-head self-attention",
    "ffn": "feed-forward network",
    "conv3": "depth-wise separable convolution over 3 tokens",
    "conv5": "depth-wise separable convolution over 5 tokens",
    "conv7": "depth-wise separable convolution over 7 tokens",
    SKIP: "no operator",
}
_NAS_BERT = (
    "Xu et al. (2021), NAS-BERT: Task-Agnostic and Adaptive-Size BERT Compression with Neural Architecture Search, "
    "KDD 2021, <https://arxiv.org/abs/2105.14444> (the operators)"
)
_MAGIC = (
    "Xu et al. (2022), Analyzing and Mitigating Interference in Neural Architecture Search, ICML 2022, "
    "<https://arxiv.org/abs/2108.12821> (MAGIC, how the super-net was trained)"
)
_SPOS = (
    "Guo et al. (2020), Single Path One-Shot Neural Architecture Search with Uniform Sampling, ECCV 2020, "
    "<https://arxiv.org/abs/1904.00420> (how the super-net was trained)"
)
_FAIRNAS = (
    "Chu et al. (2021), FairNAS: Rethinking Evaluation Fairness of Weight Sharing Neural Architecture Search, "
    "ICCV 2021, <https://arxiv.org/abs/1907.01845> (how the super-net was trained)"
)
_METHOD_PAPERS = {"uniform": _SPOS, "fair": _FAIRNAS, "magic_t": _MAGIC, "magic_a": _MAGIC, "magic_at": _MAGIC}

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?", re.ASCII)
_SLUG = re.compile(r"[A-Za-z0-9][A-Za-z0-9.+-]*", re.ASCII)
_FILE = re.compile(r"[A-Za-z0-9_][\w-]*(\.[\w-]+)*(/[A-Za-z0-9_][\w-]*(\.[\w-]+)*)*\.(png|svg|jpg)", re.ASCII)


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """One metric on one data set, with one value per seed, and the same of a baseline if there is one.

    `dataset` is a name to read, `dataset_id` the data set's name on the Hub, if it is there, and `task` one of the
    Hub's task names ("text-classification").
    """

    task: str
    dataset: str
    metric: str
    values: tuple[float, ...]
    seeds: tuple[int, ...] = ()
    dataset_id: str | None = None
    dataset_config: str | None = None
    split: str | None = None
    num_examples: int | None = None
    baseline: str | None = None
    baseline_values: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        where = f"evaluation of {self.metric!r} on {self.dataset!r}"
        if not self.values:
            raise ValueError(f"{where}: no value; leave the evaluation out of the record")
        for value in (*self.values, *self.baseline_values):
            _check_number(value, where)
        if self.seeds and len(self.seeds) != len(self.values):
            raise ValueError(f"{where}: {len(self.values)} values for {len(self.seeds)} seeds")
        if (self.baseline is None) != (not self.baseline_values):
            raise ValueError(f"{where}: `baseline` names what `baseline_values` belong to; give both or neither")


@dataclass(frozen=True, kw_only=True)
class ChildRecord:
    """What there is to say about a child. Only a name and an architecture are required.

    `model`, `cost`, `bert_cost`, `supernet`, `search`, `training` and `versions` map a name to a value and are printed
    in their order. `cost` and `bert_cost` are compared row by row; the entry `name` of `bert_cost` says what it is.
    `figures` maps one of `FIGURES` to a file beside the card. The card's snippet loads the child from `hub_id`.
    """

    name: str
    architecture: str
    hub_id: str | None = None
    native: bool = False
    summary: str | None = None
    license: str | None = None
    language: str | None = None
    datasets: tuple[str, ...] = ()
    base_model: str | None = None
    tags: tuple[str, ...] = ()
    mask_token: str = "[MASK]"
    model: Mapping[str, Any] = field(default_factory=dict)
    cost: Mapping[str, Any] = field(default_factory=dict)
    bert_cost: Mapping[str, Any] = field(default_factory=dict)
    cost_conditions: str | None = None
    supernet: Mapping[str, Any] = field(default_factory=dict)
    search: Mapping[str, Any] = field(default_factory=dict)
    training: Mapping[str, Any] = field(default_factory=dict)
    max_logit_difference: float | None = None
    evaluations: tuple[Evaluation, ...] = ()
    figures: Mapping[str, str] = field(default_factory=dict)
    limits: tuple[str, ...] = ()
    versions: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        Architecture.parse(self.architecture)
        if self.max_logit_difference is not None:
            _check_number(self.max_logit_difference, "max_logit_difference")
        for kind, pattern, values in (
            ("a name on the Hub", _HUB_ID, [self.hub_id, self.base_model, *self.datasets]),
            ("a license or language code", _SLUG, [self.license, self.language]),
            ("a figure's relative path", _FILE, list(self.figures.values())),
        ):
            for value in values:
                if value is not None and not pattern.fullmatch(value):
                    raise ValueError(f"{value[:80]!r} is not {kind}")
        unknown = sorted(self.figures.keys() - set(FIGURES))
        if unknown:
            raise ValueError(f"unknown figures {unknown}: expected some of {list(FIGURES)}")

    @classmethod
    def from_dict(cls, record: Mapping[str, Any]) -> "ChildRecord":
        """Read a record as it comes out of JSON; a key that is not a field is refused."""
        record = _known(cls, record)
        for key in ("datasets", "tags", "limits"):
            if key in record:
                record[key] = tuple(record[key])
        evaluations = [_known(Evaluation, evaluation) for evaluation in record.pop("evaluations", ())]
        for evaluation in evaluations:
            for key in ("values", "seeds", "baseline_values"):
                if key in evaluation:
                    evaluation[key] = tuple(evaluation[key])
        return cls(**record, evaluations=tuple(Evaluation(**evaluation) for evaluation in evaluations))


def render_child_card(record: ChildRecord | Mapping[str, Any]) -> str:
    """The README.md of a child: Hub metadata, how to load it, what it is, what it costs, how it was found.

    Raises:
        ValueError: If the record has a key that is not a field of `ChildRecord`, a number that is not finite, or a
            name that is not one (of a repository, a license, a file).
    """
    if not isinstance(record, ChildRecord):
        record = ChildRecord.from_dict(record)
    names = Architecture.parse(record.architecture)
    card = _template("child_card.md").render(
        record=record,
        metadata=_Markdown(_metadata(record)),
        sentence=_sentence(names, record),
        location=_Markdown(_python_string(record.hub_id or "path/to/this/folder")),
        trust=_Markdown("" if record.native else ", trust_remote_code=True"),
        example=_Markdown(_python_string(f"The film was {record.mask_token}.")),
        code_files=_Markdown(", ".join(f"`{name}`" for name in CODE_FILES)),
        operators=_operators(names),
        table=lambda header, rows: _table(header, [(_label(key), _value(value)) for key, value in rows.items()]),
        cost_table=_cost_table(record),
        evaluation_table=_evaluation_table(record.evaluations),
        evaluation_note=_evaluation_note(record.evaluations),
        references=[_Markdown(reference) for reference in _references(record)],
    )
    return re.sub(r"\n{3,}", "\n\n", card)


def render_table_card(name: str, truth: "GroundTruth") -> str:
    """The README.md of a ground-truth table: a dataset card, every number of it from the table.

    Args:
        name: The table's name, as `ranking.load_table` takes it.
        truth: The table.
    """
    from huggingface_hub import DatasetCardData

    recipe = truth.recipe
    num_seeds, num_repeated = truth.best_repeats.shape
    metadata = DatasetCardData(
        language="en",
        license="apache-2.0",
        pretty_name=f"{name}: BERT children trained alone",
        size_categories="n<1K",
        tags=[*_TAGS, "tabular-benchmark"],
        configs=[{"config_name": "default", "data_files": f"table-{name}.jsonl.gz"}],
    )
    taus = truth.ceiling(num_resamples=500)
    where = {"kendall_tau": "over all of them", "bucketed_tau": "within buckets of similar size"}
    ceiling = "; ".join(
        f"{where[measure]} {tau.estimate:.2f} [{tau.low:.2f}, {tau.high:.2f}]"
        for measure, tau in taus.items()
        if measure in where
    )
    return _template("table_card.md").render(
        name=_one_line(name),
        truth=truth,
        recipe=recipe,
        metadata=_Markdown(str(metadata)),
        num_seeds=num_seeds,
        truth_seeds=_Markdown(", ".join(map(str, truth.seeds))),
        num_repeated=num_repeated,
        num_dev_sequences=recipe["num_dev_batches"] * recipe["dev_batch_size"],
        blocks=_Markdown(" | ".join(f"`{','.join(names)}`" for names in truth.space.blocks)),
        warmup=f"{100 * recipe['warmup_ratio']:.0f}",
        masked=f"{100 * recipe['mlm_probability']:.0f}",
        learning_rate=_Markdown(f"{recipe['learning_rate']:g}"),
        rows=[
            ("lowest dev loss", _four_digits(truth.loss.min())),
            ("highest dev loss", _four_digits(truth.loss.max())),
            ("standard deviation between children", _four_digits(truth.spread)),
            ("the same within buckets of similar size", _four_digits(truth.spread_within_buckets)),
            ("seed noise: standard deviation of one training around its child's mean", _four_digits(truth.seed_noise)),
            ("noise of the truth, a mean over its seeds", _four_digits(truth.noise)),
        ],
        ceiling=_Markdown(
            f"Kendall's tau-b between one more training of the children and the truth: {ceiling} (90 % bootstrap "
            "interval over children). No ranking can be expected to do much better."
            if ceiling
            else ""
        ),
    )


def _four_digits(number: float) -> "_Markdown":
    return _Markdown(f"{number:.4f}")


class _Markdown(str):
    """Text that is Markdown already, and safe: never escaped again."""


def fill_page(path: str | Path, tables: Mapping[str, str]) -> None:
    """Put tables made from records into a Markdown page, each between `<!-- table: NAME -->` and `<!-- end -->`.

    Raises:
        FileNotFoundError: If there is no such page.
        ValueError: If the page marks no place for one of the tables.
    """
    path = Path(path)
    page = path.read_text(encoding="utf-8")
    for name, table in tables.items():
        before, mark, rest = page.partition(f"<!-- table: {name} -->\n")
        _, end, after = rest.partition("<!-- end -->")
        page = f"{before}{mark}{table}\n{end}{after}"
        if not end:
            raise ValueError(f"{path} has no place for the table: expected <!-- table: {name} --> and <!-- end -->")
    path.write_text(page, encoding="utf-8")


@functools.cache
def _template(name: str) -> "jinja2.Template":
    import jinja2

    # Safe by default: whatever an expression yields is escaped, unless it was built here as Markdown.
    environment = jinja2.Environment(
        finalize=lambda value: value if isinstance(value, _Markdown) else _escape(str(value)),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        autoescape=False,  # that one is for HTML
    )
    environment.filters.update(
        code=_code, number=_number, file=_Markdown, python=lambda text: _Markdown(_python_string(text))
    )
    return environment.from_string((resources.files("hf_nasbert") / name).read_text(encoding="utf-8"))


def _metadata(record: ChildRecord) -> str:
    """The YAML block, written by huggingface_hub's own dumper, which quotes what YAML would misread."""
    from huggingface_hub import EvalResult, ModelCardData

    data = ModelCardData(
        library_name="transformers",
        pipeline_tag="fill-mask",
        tags=[*(["bert"] if record.native else _TAGS[:1]), *_TAGS[1:], *map(_one_line, record.tags)],
        license=record.license,
        language=record.language,
        datasets=list(record.datasets) or None,
        base_model=record.base_model,
        model_name=_one_line(record.name) if record.evaluations else None,
        eval_results=[
            EvalResult(
                task_type=_one_line(evaluation.task),
                dataset_type=_one_line(evaluation.dataset_id or evaluation.dataset),
                dataset_name=_one_line(evaluation.dataset),
                dataset_config=_one_line(evaluation.dataset_config) if evaluation.dataset_config else None,
                dataset_split=_one_line(evaluation.split) if evaluation.split else None,
                metric_type=_one_line(evaluation.metric),
                metric_name=f"{_one_line(evaluation.metric)} (mean of {len(evaluation.values)} seeds)"
                if len(evaluation.values) > 1
                else None,
                metric_value=round(statistics.fmean(evaluation.values), 6),
            )
            for evaluation in record.evaluations
        ]
        or None,
    )
    return data.to_yaml(line_break="\n")


def _sentence(names: Architecture, record: ChildRecord) -> _Markdown:
    num_real = sum(operator_kind(name) != SKIP for name in names)
    text = f"{num_real} operators, chosen block by block" if num_real > 1 else "one operator"
    if "num_parameters" in record.cost:
        text += f", {_number(record.cost['num_parameters'])} parameters"
    return _Markdown(text + ".")


def _operators(names: Architecture) -> _Markdown:
    """What the names in the architecture mean, in the order in which they first appear."""
    kinds = list(dict.fromkeys(operator_kind(name) for name in names))
    meanings = [f"{_code(kind)} is a {_OPERATORS[kind]}" for kind in kinds if kind in _OPERATORS and kind != SKIP]
    if SKIP in kinds:
        meanings.append(f"{_code(SKIP)} is a block left out")
    text = "Blocks are read from left to right" + (": " + "; ".join(meanings) if meanings else "") + "."
    if any(operator_width(name) for name in names):
        text += " The number after `@` is the block's hidden size."
    return _Markdown(text + " Every block adds its input to its output and normalises the sum, as BERT's do.")


def _cost_table(record: ChildRecord) -> _Markdown:
    other = {key: value for key, value in record.bert_cost.items() if key != "name"}
    if not other:
        return _table(["", "This model"], [(_label(key), _value(value)) for key, value in record.cost.items()])
    rows = [
        (_label(key), _value(value), _value(other[key]) if key in other else "") for key, value in record.cost.items()
    ]
    return _table(["", "This model", _escape(str(record.bert_cost.get("name", "BERT of the same budget")))], rows)


def _evaluation_table(evaluations: Sequence[Evaluation]) -> _Markdown:
    """One row per metric; a column that no evaluation fills is left out."""
    columns: list[tuple[str, Callable[[Evaluation], str]]] = [
        ("Data", lambda one: _code(one.dataset)),
        ("Split", lambda one: _code(one.split) if one.split else ""),
        ("Examples", lambda one: _number(one.num_examples) if one.num_examples is not None else ""),
        ("Metric", lambda one: _code(one.metric)),
        ("This model", lambda one: _mean_and_spread(one.values)),
        ("Baseline", lambda one: _mean_and_spread(one.baseline_values) if one.baseline_values else ""),
        ("Baseline model", lambda one: _escape(one.baseline) if one.baseline else ""),
        ("Seeds", lambda one: _number(len(one.values))),
    ]
    filled = [(head, cell) for head, cell in columns if any(cell(one) for one in evaluations)]
    return _table([head for head, _ in filled], [[cell(one) for _, cell in filled] for one in evaluations])


def _evaluation_note(evaluations: Sequence[Evaluation]) -> _Markdown:
    several = any(len(values) > 1 for one in evaluations for values in (one.values, one.baseline_values))
    single = any(len(one.values) == 1 for one in evaluations)
    parts = ["Mean ± sample standard deviation over seeds."] if several else []
    parts += ["A value of one seed has no spread: small differences from it mean nothing."] if single else []
    return _Markdown(" ".join(parts))


def _references(record: ChildRecord) -> list[str]:
    method = record.supernet.get("method")
    paper = _METHOD_PAPERS.get(method) if isinstance(method, str) else None
    return [_NAS_BERT] + ([paper] if paper else [])


def _table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> _Markdown:
    """A table of cells that are Markdown already; pipes in them would end a cell, even in code."""
    lines = [header, ["---"] * len(header), *rows]
    return _Markdown("\n".join("| " + " | ".join(cell.replace("|", r"\|") for cell in line) + " |" for line in lines))


def _label(key: str) -> str:
    return _LABELS.get(key) or _escape(key.replace("_", " "))


def _value(value: Any) -> str:
    """A table cell: numbers as numbers, names as code, groups item by item."""
    if isinstance(value, bool) or value is None:
        return {True: "yes", False: "no", None: "none"}[value]
    if isinstance(value, int | float):
        return _number(value)
    if isinstance(value, Mapping):
        return ", ".join(f"{_label(str(key))}: {_value(item)}" for key, item in value.items())
    if isinstance(value, Sequence) and not isinstance(value, str):
        return ", ".join(map(_value, value))
    return _code(str(value))


def _number(value: int | float) -> _Markdown:
    """Whole numbers in full, others to four significant digits."""
    _check_number(value, "the record")
    if isinstance(value, int) or (value.is_integer() and abs(value) >= 1e4):
        return _Markdown(f"{int(value):,}")
    return _Markdown(f"{value:.4g}")


def _mean_and_spread(values: Sequence[float]) -> str:
    mean = statistics.fmean(values)
    return f"{mean:.4f}" if len(values) == 1 else f"{mean:.4f} ± {statistics.stdev(values):.4f}"


def _escape(text: str) -> _Markdown:
    """Text in which nothing is Markdown or HTML: one line, every sign that could mean something escaped."""
    text = _one_line(text).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    text = re.sub(r"([\\`*_{}\[\]()#!|~$:@])", r"\\\1", text)
    text = re.sub(r"(?i)\b(www)\.", r"\1\\.", text)  # GitHub's dialect makes a link of it
    text = re.sub(r"^([-+=])", r"\\\1", text)  # at a line's start: a list, a heading's underline
    return _Markdown(re.sub(r"^(\d+)([.)])", r"\1\\\2", text))


def _code(text: str) -> _Markdown:
    """A code span, in which nothing is Markdown or HTML; its fence is longer than any run of backticks in the text."""
    text = _one_line(text)
    if not text:
        return _Markdown("")  # two backticks would open a span
    longest = max((len(run) for run in re.findall("`+", text)), default=0)
    fence, space = "`" * (longest + 1), " " if longest else ""
    return _Markdown(f"{fence}{space}{text}{space}{fence}")


def _python_string(text: str) -> str:
    return json.dumps(text)  # a JSON string of ASCII is a Python string: no line break, no quote gets out


def _one_line(text: str) -> str:
    return " ".join("".join(sign if sign.isprintable() else " " for sign in text).split())


def _check_number(value: Any, where: str) -> None:
    if not is_finite_number(value):
        raise ValueError(f"{where}: {str(value)[:80]!r} is not a finite number; leave it out of the record")


def _known(cls: type, record: Any) -> dict[str, Any]:
    """The record as keyword arguments of a dataclass, or a `ValueError` naming what does not belong or is missing."""
    if not isinstance(record, Mapping):
        raise ValueError(f"not a {cls.__name__}: {str(record)[:80]!r}; expected names and values")
    fields = {one.name: one for one in dataclasses.fields(cls)}
    unknown = sorted(record.keys() - fields.keys())
    required = {name for name, one in fields.items() if one.default is one.default_factory is dataclasses.MISSING}
    missing = sorted(required - record.keys())
    if unknown or missing:
        raise ValueError(
            f"not a {cls.__name__}: unknown keys {unknown}, missing keys {missing}; it has {sorted(fields)}"
        )
    kinds = typing.get_type_hints(cls)
    for name, value in record.items():
        if not _is_of(value, kinds[name]):
            raise ValueError(f"{cls.__name__}: {name} is {str(value)[:80]!r}, expected {fields[name].type}")
    return dict(record)


def _is_of(value: Any, kind: Any) -> bool:
    """Whether a value out of JSON is what a field declares; a list stands for a tuple."""
    parts = typing.get_args(kind)
    match typing.get_origin(kind) or kind:
        case types.UnionType:
            return any(_is_of(value, part) for part in parts)
        case builtins.tuple:
            item = dict if parts[0] is Evaluation else parts[0]
            return isinstance(value, list | tuple) and all(_is_of(one, item) for one in value)
        case collections.abc.Mapping:
            return isinstance(value, Mapping) and all(
                parts[1] is Any or _is_of(one, parts[1]) for one in value.values()
            )
        case builtins.float:
            return isinstance(value, int | float) and not isinstance(value, bool)  # how large is asked later
        case builtins.int:
            return type(value) is int
        case expected:
            return isinstance(value, expected)
