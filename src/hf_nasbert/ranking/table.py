"""Tables of children trained alone: loading one, and what it says is true."""

import math
import re
from collections import Counter
from collections.abc import Callable, Mapping
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from hf_nasbert import metrics, records
from hf_nasbert.metrics import Interval, Redraws, draw
from hf_nasbert.records import Record, is_finite_number
from hf_nasbert.space import Architecture, SearchSpace

if TYPE_CHECKING:
    from datasets import Dataset

Array = NDArray[np.float64]

NUM_BUCKETS = 3
_TABLES = Path(__file__).parents[1] / "tables"
_COLUMNS = ("architecture", "seed", "dev_loss", "num_parameters", "flops", "recipe_hash", "recipe")


def load_table(name: str) -> "Dataset":
    """A ground-truth table: children trained alone, one row each.

    Args:
        name: The name of a table that comes with the package: `imdb`, of children trained from scratch by masked-LM
            loss, or `minilm`, of children of all-MiniLM-L6-v2 distilled from inherited weights; or a file that
            `hf-nasbert train-children` wrote, `.jsonl` or `.jsonl.gz`.

    Returns:
        Columns `architecture` (text), `seed`, `dev_loss` (nats per masked token; of `minilm` the distance from the
        base model), `curve` (pairs of step and dev loss), `num_parameters`, `flops` (of one sequence), `recipe_hash`,
        `recipe`, `versions`, `timing`; of `minilm` also `cosine` (of sentence vectors with the base model's),
        `stsb_validation` (Spearman's correlation), `num_encoder_parameters` (without embeddings), `num_tokens`
        (trained on), `passes` and `teacher_passes` (over a batch; a backward counts as two).

    Raises:
        FileNotFoundError: If there is no table of that name; names those there are.
        ValueError: If the file holds something else than trained children, or a damaged record.
    """
    from datasets import Dataset
    from pyarrow import ArrowException

    path = find_table(name)
    children = records.read(path)
    for number, child in enumerate(children, start=1):
        _check_child(child, f"{path}, record {number}")
    if not children:
        raise ValueError(f"{path} holds no trained child")
    try:
        return Dataset.from_list(children)
    except (ArrowException, TypeError, ValueError, OverflowError) as error:
        reason = " ".join(str(error).split())[:400]
        raise ValueError(f"{path}: its records do not make one table ({reason})") from None


def _check_child(child: Record, where: str) -> None:
    """Refuse a record that is no trained child."""
    missing = [column for column in _COLUMNS if column not in child]
    if missing:
        raise ValueError(f"{where} is no trained child: it lacks {', '.join(missing)}")
    for name in ("dev_loss", "num_parameters", "flops"):
        if not is_finite_number(child[name]):
            raise ValueError(f"{where} is no trained child: its {name} is no finite number")
    if type(child["seed"]) is not int or not isinstance(child["recipe_hash"], str):
        raise ValueError(f"{where} is no trained child: seeds are whole numbers, a recipe_hash is text")
    recipe = child["recipe"]
    try:
        SearchSpace.from_dict(recipe["space"] if isinstance(recipe, Mapping) and "space" in recipe else {})
        Architecture.parse(child["architecture"])
    except ValueError as error:
        raise ValueError(f"{where} is no trained child: {error}") from None


def find_table(name: str) -> Path:
    """The file of a table, named as `load_table` takes it.

    Raises:
        FileNotFoundError: If there is none; names those that come with the package.
    """
    if name.endswith((".jsonl", ".jsonl.gz")):
        if not Path(name).is_file():
            raise FileNotFoundError(f"no table at {name}")
        return Path(name)
    path = _TABLES / f"table-{name}.jsonl.gz"
    if re.fullmatch(r"[A-Za-z0-9_-]+", name) and path.is_file():  # a name, and no way out of that folder
        return path
    known = sorted(
        path.name.removeprefix("table-").removesuffix(".jsonl.gz") for path in _TABLES.glob("table-*.jsonl.gz")
    )
    raise FileNotFoundError(f"no table {name!r}: expected a .jsonl or .jsonl.gz file, or one of {', '.join(known)}")


class GroundTruth:
    """What training alone says of the children of one space.

    The truth of a child is its mean loss over the seeds that *all* children of the table were trained under: a mean
    over seeds that only some children have would be less noisy for them than for the others. Losses are the table's
    `dev_loss`, in its unit: nats per masked token, or the distance from a base model.

    Args:
        table: A table as `load_table` gives it.
        containing: Keep only the children that hold this operator. Where some operator decides all, such as the only
            one that looks at other tokens, a ranking is of interest among the children that have it.

    Raises:
        ValueError: If the rows come from several recipes, a child stands in it twice, an architecture lies outside the
            table's space, there are fewer than 3 children, or no seed is common to all.
    """

    def __init__(self, table: "Dataset", *, containing: str | None = None) -> None:
        hashes = sorted(set(table["recipe_hash"]))
        if len(hashes) != 1:
            raise ValueError(f"the children of a table share one recipe, but here are {', '.join(hashes)}")
        first: Record = table[0]
        self.recipe: Record = first["recipe"]
        self.recipe_hash: str = hashes[0]
        self.space = SearchSpace.from_dict(self.recipe["space"])
        self.containing = containing
        losses: dict[Architecture, dict[int, float]] = {}
        costs: dict[Architecture, tuple[int, int]] = {}
        columns = ("architecture", "seed", "dev_loss", "num_parameters", "flops")
        for text, seed, loss, size, flops in zip(*(table[column] for column in columns), strict=True):
            child = self.space.validate(text)
            if seed in losses.setdefault(child, {}):
                raise ValueError(f"the table holds {child} at seed {seed} twice")
            losses[child][seed] = loss
            costs[child] = (size, flops)
        self.architectures = sorted((child for child in losses if containing in (None, *child)), key=str)
        """The children, in the order of all arrays here."""
        if len(self.architectures) < 3:
            holding = "" if containing is None else f" that hold {containing!r}"
            raise ValueError(f"the table has {len(self.architectures)} children{holding}: at least 3 are needed")
        self.losses = [losses[child] for child in self.architectures]
        """The dev losses of every child, by seed."""
        self.seeds = sorted(set.intersection(*(set(by_seed) for by_seed in self.losses)))
        """The seeds that all children were trained under."""
        if not self.seeds:
            raise ValueError("no seed is common to all children of the table: train what is missing first")
        self.loss: Array = np.array([np.mean([by_seed[seed] for seed in self.seeds]) for by_seed in self.losses])
        """The truth: one dev loss per child."""
        self.num_parameters: Array = np.array([costs[child][0] for child in self.architectures], dtype=np.float64)
        self.flops: Array = np.array([costs[child][1] for child in self.architectures], dtype=np.float64)

    @cached_property
    def num_buckets(self) -> int:
        """Buckets of similar size: one where no child is a tenth larger than another."""
        return NUM_BUCKETS if self.num_parameters.max() > 1.1 * self.num_parameters.min() else 1

    @cached_property
    def bucket_of(self) -> NDArray[np.int64]:
        """The size bucket of every child, as `metrics.size_buckets` cuts them."""
        return metrics.size_buckets(self.num_parameters, self.num_buckets)

    def repeats(self, num_seeds: int) -> tuple[NDArray[np.int64], Array]:
        """The children trained under the most common `num_seeds` seeds: their places, and losses (seeds, children)."""
        counts = Counter(seed for by_seed in self.losses for seed in by_seed)
        seeds = sorted(counts, key=lambda seed: (-counts[seed], seed))[:num_seeds]
        places = [place for place, by_seed in enumerate(self.losses) if all(seed in by_seed for seed in seeds)]
        if len(seeds) < num_seeds:
            places = []
        losses = [[self.losses[place][seed] for place in places] for seed in seeds]
        return np.array(places, dtype=np.int64), np.array(losses).reshape(len(seeds), len(places))

    @cached_property
    def best_repeats(self) -> Array:
        """The losses (seeds, children) that say most of the seed noise: many children, or many seeds."""
        most = max(len(by_seed) for by_seed in self.losses)
        blocks = [self.repeats(num_seeds)[1] for num_seeds in range(2, most + 1)]
        return max(blocks, key=lambda block: (block.shape[0] - 1) * (block.shape[1] - 1), default=np.zeros((1, 0)))

    @cached_property
    def seed_noise(self) -> float:
        """Standard deviation of one training around its child's mean, in the losses' unit; NaN without repeated ones.

        A shift that all children of a seed share ranks nobody, and does not count.
        """
        num_seeds, num_children = self.best_repeats.shape
        if num_seeds < 2 or num_children < 2:
            return float("nan")
        losses = self.best_repeats
        residual = losses - losses.mean(axis=0) - losses.mean(axis=1, keepdims=True) + losses.mean()
        return float(np.sqrt((residual**2).sum() / ((num_seeds - 1) * (num_children - 1))))

    @property
    def noise(self) -> float:
        """Standard deviation of the truth around what infinitely many seeds would say, in the losses' unit."""
        return self.seed_noise / math.sqrt(len(self.seeds))

    @cached_property
    def spread(self) -> float:
        """Standard deviation between the children, in the losses' unit; the seed noise is part of it."""
        return float(self.loss.std(ddof=1))

    @cached_property
    def spread_within_buckets(self) -> float:
        """Standard deviation of the children around the mean of their size bucket, in the losses' unit."""
        parts = [self.loss[self.bucket_of == bucket] for bucket in np.unique(self.bucket_of)]
        squares = sum(float(((part - part.mean()) ** 2).sum()) for part in parts)
        return float(np.sqrt(squares / max(len(self.loss) - len(parts), 1)))

    @cached_property
    def ceiling_seeds(self) -> int:
        """Trainings of each child that `ceiling` compares: one more than the truth's if 3 children have them; or 0."""
        for num_seeds in (len(self.seeds) + 1, len(self.seeds)):
            if num_seeds > 1 and len(self.repeats(num_seeds)[0]) >= 3:
                return num_seeds
        return 0

    @cached_property
    def in_ceiling(self) -> NDArray[np.bool_]:
        """Which children `ceiling` is measured on; those of a table that has a further seed for some of them only."""
        inside = np.zeros(len(self.loss), dtype=np.bool_)
        inside[self.repeats(self.ceiling_seeds)[0] if self.ceiling_seeds else []] = True
        return inside

    def ceiling(self, *, num_resamples: int = 1000, seed: int = 0) -> dict[str, Interval]:
        """How well one more training of every child would rank them: what a proxy as noisy as a training could reach.

        It is no bound: a predictor of what a child reaches on average over seeds, without any noise of its own, would
        do better.

        Each training of the children that have one seed more than the truth is compared with the mean of their others.
        Where there are none, each training that the truth is made of is compared with its rest, which is noisier.

        Returns:
            The mean over all choices of the one training, with an interval over children: `kendall_tau`,
            `bucketed_tau`, `spearman`, `pearson`. Empty without repeated children.
        """
        num_seeds = self.ceiling_seeds
        if not num_seeds:
            return {}
        places, repeats = self.repeats(num_seeds)
        means = (repeats.sum(axis=0) - repeats) / (num_seeds - 1)

        # Each child once, and then the redraws, the same ones for all measures.
        counts, buckets = draw(len(places), num_resamples, seed), self.bucket_of[places]
        choices = [Redraws(one, others, counts) for one, others in zip(repeats, means, strict=True)]

        def over_choices(measure: Callable[[Redraws], Array]) -> Interval:
            values = np.mean([measure(redraws) for redraws in choices], axis=0)
            return metrics.percentile_interval(float(values[0]), values[1:])

        return {
            "kendall_tau": over_choices(Redraws.kendall_tau),
            "bucketed_tau": over_choices(lambda redraws: redraws.mean_bucketed_tau(buckets)),
            "spearman": over_choices(Redraws.spearman),
            "pearson": over_choices(Redraws.pearson),
        }
