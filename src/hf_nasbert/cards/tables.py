"""The card of a ground-truth table of children trained alone: a dataset's."""

from typing import TYPE_CHECKING

from hf_nasbert.cards.markdown import Markdown, one_line, python_string, render
from hf_nasbert.cards.metadata import TAGS

if TYPE_CHECKING:
    from hf_nasbert.ranking import GroundTruth


def render_table_card(name: str, truth: "GroundTruth", hub_id: str | None = None) -> str:
    """The README.md of a ground-truth table: a dataset card, every number of it from the table.

    Args:
        name: The table's name, as `ranking.load_table` takes it.
        truth: The table.
        hub_id: The dataset repository that it is loaded from without this package; by default the file is.
    """
    from huggingface_hub import DatasetCardData

    recipe = truth.recipe
    num_seeds, num_repeated = truth.best_repeats.shape
    metadata = DatasetCardData(
        language="en",
        license="apache-2.0",
        pretty_name=f"{name}: BERT children trained alone",
        size_categories="n<1K",
        tags=[*TAGS, "tabular-benchmark"],
        configs=[{"config_name": "default", "data_files": f"table-{name}.jsonl.gz"}],
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
        location=Markdown(python_string(hub_id) if hub_id else f'"json", data_files="table-{name}.jsonl.gz"'),
        truth=truth,
        recipe=recipe,
        metadata=Markdown(str(metadata)),
        num_seeds=num_seeds,
        truth_seeds=Markdown(", ".join(map(str, truth.seeds))),
        num_repeated=num_repeated,
        num_dev_sequences=recipe["num_dev_batches"] * recipe["dev_batch_size"],
        blocks=Markdown(" | ".join(f"`{','.join(names)}`" for names in truth.space.blocks)),
        warmup=f"{100 * recipe['warmup_ratio']:.0f}",
        masked=f"{100 * recipe['mlm_probability']:.0f}",
        learning_rate=Markdown(f"{recipe['learning_rate']:g}"),
        rows=[
            ("lowest dev loss", _four_digits(truth.loss.min())),
            ("highest dev loss", _four_digits(truth.loss.max())),
            ("standard deviation between children", _four_digits(truth.spread)),
            ("the same within buckets of similar size", _four_digits(truth.spread_within_buckets)),
            ("seed noise: standard deviation of one training around its child's mean", _four_digits(truth.seed_noise)),
            ("noise of the truth, a mean over its seeds", _four_digits(truth.noise)),
        ],
        ceiling=Markdown(
            f"Kendall's tau-b between one more training of the children and the truth: {ceiling} (90 % bootstrap "
            "interval over children). A ranking by what children reach on average over seeds would do better."
            if ceiling
            else ""
        ),
    )


def _four_digits(number: float) -> "Markdown":
    return Markdown(f"{number:.4f}")
