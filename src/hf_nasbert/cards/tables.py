"""The card of a ground-truth table of children trained alone: a dataset's."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hf_nasbert.cards.fields import check_codes, known_fields
from hf_nasbert.cards.markdown import Markdown, code, escape, number, one_line, python_string, render
from hf_nasbert.cards.metadata import TAGS
from hf_nasbert.records import is_finite_number

if TYPE_CHECKING:
    from hf_nasbert.ranking import GroundTruth

_Phrases = Sequence[tuple[str, str]]  # a setting of the recipe, and the words for it, with what parts them from others
_SIZES: _Phrases = (
    ("hidden_size", "Width {}"),
    ("ffn_ratio", ", `ffn_ratio` {}"),
    ("num_conv_layers", ",\n  {} convolutions in a conv operator"),
)
_TRAINING: _Phrases = (
    ("max_steps", "{} steps"),
    ("train_batch_size", " of {} sequences"),
    ("sequence_length", " of {}\n  tokens"),
    ("learning_rate", ", AdamW at {}"),
    ("warmup_ratio", ", warm-up over {} % of the steps, then linearly down to zero"),
    ("vocab_size", ";\n  vocabulary {}"),
    ("mlm_probability", ", {} % of the tokens masked"),
    ("hidden_dropout_prob", ", {}"),
)
_DISTILLING: _Phrases = (
    ("max_steps", "{} steps"),
    ("train_batch_size", " of {} sequences"),
    ("sequence_length", " of at most {}\n  tokens"),
    ("learning_rate", ", AdamW at {}"),
    ("warmup", ", warm-up over {} % of the steps, then linearly down"),
    ("max_grad_norm", ", gradients clipped\n  to a norm of {}"),
    (
        "inner_weight",
        "; the loss is the distance, and {} times the mean squared error of inner states over their variance",
    ),
    ("inner_blocks", "\n  (after the choice blocks {}, counted from 0)"),
)
_DISTANCE: _Phrases = (
    ("state_weight", "{} times the squared error of the last states over their variance"),
    ("vector_weight", "{} times (1 - cosine of the sentence vectors)"),
    ("logit_weight", "{} times the divergence of the predictions"),
)
_TEXT: _Phrases = (("source", "Text: {}"), ("text", " (digest {})"))


@dataclass(frozen=True, kw_only=True)
class TableFacts:
    """What the card of a table says that no record of it knows; all may be absent.

    `text` are the lines that say what the text is, `children` ends "The children are ...", and `curve` says on how
    many of the dev set's sequences the curve is. `drawn` says how the children were chosen, `num_dev_sequences` how
    long the dev set is, and `limits` are further paragraphs.

    Raises:
        ValueError: If the license or the language is none.
    """

    license: str | None = None
    language: str | None = None
    text: tuple[str, ...] = ()
    children: str | None = None
    curve: str | None = None
    drawn: str | None = None
    num_dev_sequences: int | None = None
    limits: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        check_codes(self.license, self.language)


def read_table_facts(table: str | Path) -> TableFacts:
    """What the JSON file beside a table says, `table-mine.json` for `table-mine.jsonl.gz`; nothing without one.

    Raises:
        ValueError: If the file holds no JSON object, a key that is not a field of `TableFacts`, or a wrong value.
    """
    table = Path(table)
    file = table.with_name(table.name.removesuffix(".gz").removesuffix(".jsonl") + ".json")
    if not file.is_file():
        return TableFacts()
    try:
        facts = json.loads(file.read_text(encoding="utf-8"))
        if not isinstance(facts, dict):
            raise ValueError(f"it holds a {type(facts).__name__}")
        facts = known_fields(TableFacts, facts)
        facts |= {name: tuple(facts.get(name, ())) for name in ("text", "limits")}
        return TableFacts(**facts)
    except (ValueError, RecursionError) as error:  # not UTF-8, not JSON, or ten thousand brackets
        raise ValueError(f"{file} does not say what the card of {table.name} may: {error}") from None


def render_table_card(
    name: str,
    truth: "GroundTruth",
    hub_id: str | None = None,
    *,
    facts: TableFacts | None = None,
    is_packaged: bool = False,
) -> str:
    """The README.md of a ground-truth table: a dataset card, every number of it from the table.

    Args:
        name: The table's name: its file is `table-NAME.jsonl.gz`.
        truth: The table.
        hub_id: The dataset repository that it is loaded from; by default the file is.
        facts: What else there is to say.
        is_packaged: Whether it comes with this package, which then loads it by its name.
    """
    from huggingface_hub import DatasetCardData

    facts = facts or TableFacts()
    recipe = truth.recipe
    num_seeds, num_repeated = truth.best_repeats.shape
    num_rows = sum(map(len, truth.losses))
    base_model = recipe.get("base_model")
    is_mean = len(truth.seeds) > 1
    file = f"table-{name}.jsonl.gz"
    loads_from = name if is_packaged else file
    dev_set = [recipe.get(size) for size in ("num_dev_batches", "dev_batch_size")]
    is_download = hub_id is not None and not is_packaged
    metadata = DatasetCardData(
        language=facts.language,
        license=facts.license,
        pretty_name=f"{name}: BERT children {'distilled' if base_model else 'trained'} alone",
        size_categories=_size_category(num_rows),
        tags=[*TAGS, "tabular-benchmark"],
        configs=[{"config_name": "default", "data_files": file}],
    )
    taus = truth.ceiling(num_resamples=500)
    where = {"kendall_tau": "over all of them", "bucketed_tau": "within buckets of similar size"}
    ceiling = "; ".join(
        f"{where[measure]} {tau.estimate:.2f} [{tau.low:.2f}, {tau.high:.2f}]"
        for measure, tau in taus.items()
        if measure in where
    )
    return render(
        "table.md",
        name=one_line(name),
        location=Markdown(python_string(hub_id) if hub_id else f'"json", data_files="{file}"'),
        download=Markdown(f"{python_string(hub_id or '')}, {python_string(file)}") if is_download else None,
        source=Markdown("file" if is_download else python_string(loads_from)),
        truth=truth,
        facts=facts,
        is_small=num_rows < 1000,
        num_pairs=recipe.get("num_pairs"),
        base_model=Markdown(code(_name_of_base(str(base_model)))) if base_model else None,
        sequence_length=recipe.get("sequence_length"),
        metadata=Markdown(str(metadata)),
        num_rows=num_rows,
        num_seeds=num_seeds,
        truth_seeds=_seeds(truth.seeds),
        num_repeated=num_repeated,
        num_dev_sequences=facts.num_dev_sequences if None in dev_set else math.prod(dev_set),
        blocks=_blocks(truth.space.blocks),
        sizes=_phrases(_SIZES, recipe),
        distance=_distance(recipe.get("distance")),
        training=_phrases(_DISTILLING if base_model else _TRAINING, recipe),
        text=_text(recipe, facts),
        rows=[
            ("lowest dev loss", _four_digits(truth.loss.min())),
            ("highest dev loss", _four_digits(truth.loss.max())),
            ("standard deviation between children", _four_digits(truth.spread)),
            ("the same within buckets of similar size", _four_digits(truth.spread_within_buckets)),
            ("seed noise: standard deviation of one training around its child's mean", _four_digits(truth.seed_noise)),
            ("noise of the ground truth" + (", a mean over its seeds" if is_mean else ""), _four_digits(truth.noise)),
        ],
        ceiling=Markdown(
            f"Kendall's tau-b between one more training of the children and the ground truth: {ceiling} (90 % "
            "bootstrap interval over children). "
            "A ranking by what children reach on average over seeds would do better."
            if ceiling
            else ""
        ),
    )


def _size_category(num_rows: int) -> str:
    """The Hub's word for how many rows there are."""
    bounds = ["1K", "10K", "100K", "1M"]
    above = sum(num_rows >= 10 ** (3 + place) for place in range(len(bounds)))
    if above == 0:
        return f"n<{bounds[0]}"
    return f"{bounds[above - 1]}<n<{bounds[above]}" if above < len(bounds) else f"n>{bounds[-1]}"


def _phrases(phrases: _Phrases, recipe: Mapping[str, Any]) -> Markdown:
    """The words for what a recipe says, in their order; what it does not say is left out."""
    said = [(words, name) for name, words in phrases if recipe.get(name) is not None]
    parts = [words.format(_in_words(name, recipe[name])) for words, name in said]
    if parts and said[0][1] != phrases[0][0]:
        parts[0] = parts[0].lstrip(" ,;\n")
    return Markdown("".join(parts))


def _in_words(name: str, value: Any) -> str:
    if name in ("source", "text"):
        return code(str(value))
    if name == "inner_blocks" and isinstance(value, list):
        return escape(", ".join(map(str, value)))
    if not is_finite_number(value):
        return escape(str(value))
    if name in ("warmup", "warmup_ratio", "mlm_probability"):
        return f"{100 * value:.0f}"
    if name == "hidden_dropout_prob":
        return f"dropout {value:g}" if value else "no dropout"
    return number(value) if isinstance(value, int) else f"{value:g}"


def _name_of_base(base_model: str) -> str:
    """The base model as the Hub calls it, where it came out of a package."""
    from hf_nasbert.data.packaged import PACKAGED_MODELS, PREFIX

    packaged = PACKAGED_MODELS.get(base_model.removeprefix(PREFIX)) if base_model.startswith(PREFIX) else None
    return (packaged and packaged.hub_id) or base_model


def _seeds(seeds: Sequence[int]) -> Markdown:
    """Which seeds all children were trained under, and what that makes of their truth."""
    if len(seeds) == 1:
        return Markdown(f"seed {seeds[0]} (the training that is a child's truth)")
    return Markdown(f"seeds {', '.join(map(str, seeds))} (a child's truth is the mean over these)")


def _blocks(blocks: Sequence[Sequence[str]]) -> Markdown:
    """The operators of every choice block; what repeats is said once."""
    period = next(
        length
        for length in range(1, len(blocks) + 1)
        if len(blocks) % length == 0 and list(blocks) == list(blocks[:length]) * (len(blocks) // length)
    )
    times = f"{len(blocks) // period} times " if period < len(blocks) else ""
    return Markdown(times + " | ".join(f"`{','.join(names)}`" for names in blocks[:period]))


def _distance(weights: Any) -> Markdown:
    """What a distance from the base model is a sum of; empty where the recipe has none."""
    if not isinstance(weights, Mapping):
        return Markdown("")
    parts = [_phrases([(name, words)], weights) for name, words in _DISTANCE if weights.get(name)]
    pooling = weights.get("pooling")
    pooled = f" (pooled by `{pooling}`)" if weights.get("vector_weight") and pooling in ("mean", "cls") else ""
    return Markdown(" + ".join(parts) + pooled)


def _text(recipe: Mapping[str, Any], facts: TableFacts) -> Markdown:
    """What the children were trained on: the recipe's name of it, then what is known of it."""
    lines = "\n  ".join(escape(line) for line in facts.text)
    return Markdown("; ".join(part for part in (_phrases(_TEXT, recipe), lines) if part))


def _four_digits(number: float) -> "Markdown":
    return Markdown(f"{number:.4f}")
