"""The ranking study as a whole: methods, baselines, ceiling and paired tests of some records, as Markdown tables."""

import itertools
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from numpy.typing import ArrayLike

from hf_nasbert.metrics import Interval
from hf_nasbert.ranking.agreement import (
    Comparison,
    Measured,
    Ranked,
    baselines,
    compare,
    one_training_by_another,
    rank,
)
from hf_nasbert.ranking.calibration import calibrations
from hf_nasbert.ranking.scores import by_share, last_steps, percent_of, proxy_losses
from hf_nasbert.ranking.table import GroundTruth
from hf_nasbert.ranking.worth import Worth, operator_worth
from hf_nasbert.records import Record

_WHILE_TRAINING = {"kendall_tau": "", "bucketed_tau": ", within size buckets"}


@dataclass(frozen=True)
class RankingReport:
    """Everything that the ranking study says of some super-nets and one table."""

    truth: GroundTruth
    methods: list[Ranked]
    baselines: list[Ranked]
    one_training_by_another: Ranked | None
    """What a proxy as noisy as one training of the ground truth would reach; None where that has one seed."""
    ceiling: dict[str, Interval]
    comparisons: list[tuple[Comparison, Comparison | None]]
    """Every other method against the baseline among them, where they have 2 seeds in common: over all children, and
    inside size buckets if both have a tau there."""
    over_training: dict[str, dict[float, Ranked]]
    """Every method's Kendall's tau after each share of its training (`scores.by_share`)."""
    worth: list[Worth]
    """What the ground truth and every method's super-nets say of each operator."""
    calibrated: Sequence[Ranked] = ()
    """What a few children trained alone say of all others, without super-nets and with those of every method."""

    def as_markdown(self) -> str:
        """The tables, in Markdown."""
        rows = [*self.methods, *self.calibrated, *self.baselines, *filter(None, [self.one_training_by_another])]
        parts = [self.describe_table(), _as_table(_AGREEMENT, rows, self.ceiling), _as_table(_TOP, rows)]
        if self.comparisons:
            parts.append(self._comparison_table())
        elif len(self.methods) > 1:
            parts.append("No paired test: no method has two seeds in common with the baseline, trained as far.")
        if self.is_over_training:
            parts.append(self._training_table())
        return "\n\n".join([*parts, self._worth_table()])

    @property
    def is_over_training(self) -> bool:
        """Whether some super-net was scored before its end."""
        return any(list(shares) != [1.0] for shares in self.over_training.values())

    def describe_table(self) -> str:
        """What the ground truth is, in a few sentences."""
        truth = self.truth
        holding = "" if truth.containing is None else f" that hold `{truth.containing}`"
        num_seeds, num_repeated = truth.best_repeats.shape
        noise = "No child was trained twice, so seed noise is unknown."
        if not math.isnan(truth.seed_noise):
            noise = (
                f"Seed noise of one training {truth.seed_noise:.4f} ({num_repeated} children, {num_seeds} seeds), of "
                f"the ground truth {truth.noise:.4f}."
            )
        return (
            f"{len(truth.loss)} children{holding}, trained alone (seeds {', '.join(map(str, truth.seeds))}; recipe "
            f"`{truth.recipe_hash}`): dev loss {truth.loss.min():.3f} to {truth.loss.max():.3f}, standard deviation "
            f"{truth.spread:.4f} between children and {truth.spread_within_buckets:.4f} within {truth.num_buckets} "
            f"buckets of similar size. {noise}{self._describe_ceiling()}"
        )

    def _describe_ceiling(self) -> str:
        truth = self.truth
        if not truth.ceiling_seeds:
            return ""
        others = f"the mean of {truth.ceiling_seeds - 1} others" if truth.ceiling_seeds > 2 else "one other"
        return f" The ceiling holds one training against {others}, on {truth.in_ceiling.sum()} children."

    def _comparison_table(self) -> str:
        lines = [
            "| method | against | seeds | difference of tau | p | difference within buckets | p |",
            "| --- " * 7 + "|",
        ]
        for overall, within in self.comparisons:
            cells = [overall.method, overall.baseline, str(overall.num_seeds)]
            for compared in (overall, within):
                if compared is None:
                    cells += ["", ""]
                else:
                    part = compared.difference
                    cells += [f"{part.mean:+.3f} [{part.low:+.3f}, {part.high:+.3f}]", f"{part.p_value:.3f}"]
            lines.append("| " + " | ".join(cells) + " |")
        return "\n".join(lines)

    def _training_table(self) -> str:
        shown = sorted({share for shares in self.over_training.values() for share in shares})
        lines = [
            "| tau after a share of the training | n | "
            + " | ".join(f"{100 * share:.0f} %" for share in shown)
            + " |",
            "| --- " * (len(shown) + 2) + "|",
        ]
        for method, shares in self.over_training.items():
            number = max(ranked.num_rankings for ranked in shares.values())
            for measure, words in _WHILE_TRAINING.items():
                cells = [_cell(measure, shares[share].measured[measure]) if share in shares else "" for share in shown]
                lines.append(f"| {method}{words} | {number} | " + " | ".join(cells) + " |")
        return "\n".join(lines)

    def _worth_table(self) -> str:
        operators = list(self.worth[0].effects)
        lines = [
            "| losses of | n | tau between two of them | variance explained | " + " | ".join(operators) + " |",
            "| --- " * (len(operators) + 4) + "|",
        ]
        for row in self.worth:
            cells = [row.name, str(row.num_rankings), _bounded(row.agreement), _bounded(row.explained, percent=True)]
            for operator in operators:
                cells.append(" ".join(_thousandths(effect) for effect in row.effects[operator]))
            lines.append("| " + " | ".join(cells) + " |")
        return "\n".join(lines)


_AGREEMENT = {
    "kendall_tau": "Kendall tau-b",
    "ceiling_tau": "tau, children of the ceiling",
    "bucketed_tau": "tau within size buckets",
    "ceiling_bucketed_tau": "the same, children of the ceiling",
    "sparse_tau": "sparse tau",
    "spearman": "Spearman",
    "pearson": "Pearson",
    "supernet_gap": "super-net gap",
}
_TOP = {
    "precision_at_5%": "P@5 %",
    "precision_at_10%": "P@10 %",
    "precision_at_20%": "P@20 %",
    "best_rank_at_1": "rank of the top 1",
    "best_rank_at_5": "best, top 5",
    "worst_rank_at_5": "worst, top 5",
    "best_rank_at_10": "best, top 10",
    "worst_rank_at_10": "worst, top 10",
    "relative_improvement": "improvement, %",
}


def _comparisons(
    methods: Sequence[Ranked], percent_at: Mapping[str, int], baseline: str | None
) -> list[tuple[Comparison, Comparison | None]]:
    """Every method against the baseline; one that is half trained is not paired with a finished one."""
    found = []
    for method, compared_with in itertools.product(methods, [each for each in methods if each.name == baseline]):
        if method is not compared_with and percent_at[method.name] == percent_at[compared_with.name]:
            overall = _compare(method, compared_with, within_buckets=False)
            if overall is not None:
                found.append((overall, _compare(method, compared_with, within_buckets=True)))
    return found


def _compare(method: Ranked, baseline: Ranked, *, within_buckets: bool) -> Comparison | None:
    try:
        return compare(method, baseline, within_buckets=within_buckets)
    except ValueError:  # too few seeds in common
        return None


def _as_table(
    columns: Mapping[str, str], rows: Sequence[Ranked], ceiling: Mapping[str, Interval] | None = None
) -> str:
    shown = {key: head for key, head in columns.items() if any(key in row.measured for row in rows)}
    lines = [
        "| ranked by | n | " + " | ".join(shown.values()) + " |",
        "| --- " * (len(shown) + 2) + "|",
    ]
    for row in rows:
        cells = [_cell(key, row.measured.get(key)) for key in shown]
        ranking = sum(not math.isnan(tau) for tau in row.taus)
        number = str(row.num_rankings) if ranking == row.num_rankings else f"{ranking} of {row.num_rankings}"
        lines.append(f"| {row.name} | {number} | " + " | ".join(cells) + " |")
    if ceiling:
        ceiling = {
            **ceiling,
            "ceiling_tau": ceiling["kendall_tau"],
            "ceiling_bucketed_tau": ceiling["bucketed_tau"],
        }
        cells = [_bounded(ceiling[key]) if key in ceiling else "" for key in shown]
        lines.append("| *training them again (ceiling)* | | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _cell(key: str, measured: Measured | None) -> str:
    if measured is None or math.isnan(measured.mean):
        return ""
    digits = 1 if "rank" in key else 2
    deviation = "" if measured.seed_deviation is None else f" ± {measured.seed_deviation:.{digits}f}"
    interval = f"[{measured.low:.{digits}f}, {measured.high:.{digits}f}]"
    return f"{measured.mean:.{digits + 1 if digits == 2 else 1}f}{deviation} {interval}"


def check_baseline(baseline: str | None, names: Iterable[str]) -> None:
    """Refuse a baseline that no super-net ranks as.

    Raises:
        ValueError: If it is none of these names.
    """
    known = list(names)
    if baseline is not None and baseline not in known:
        raise ValueError(f"no super-net ranks as the baseline {baseline!r}: there are {'; '.join(known) or 'none'}")


def _bounded(interval: Interval, *, percent: bool = False) -> str:
    if math.isnan(interval.estimate):
        return ""
    if percent:
        return f"{100 * interval.estimate:.0f} % [{100 * interval.low:.0f}, {100 * interval.high:.0f}]"
    return f"{interval.estimate:.3f} [{interval.low:.2f}, {interval.high:.2f}]"


def _thousandths(effect: Interval) -> str:
    """An effect and half the width of its interval."""
    if math.isnan(effect.estimate):
        return "-"
    return f"{1000 * effect.estimate:+.0f}±{1000 * (effect.high - effect.low) / 2:.0f}"


def report(
    truth: GroundTruth,
    scored: Sequence[Record],
    *,
    baseline: str | None = None,
    calibrate: int = 0,
    num_resamples: int = 1000,
    seed: int = 0,
) -> RankingReport:
    """The whole study: every method of the scored super-nets, the baselines, the ceiling and the paired tests.

    Args:
        truth: The table.
        scored: Records of scored super-nets (`read_scores`); of each the last step counts, but for what is said of the
            agreement while it trains.
        baseline: The method that the others are compared with; by default the first.
        calibrate: How many children are taken as trained, to calibrate every method (`calibrations`); 0: none.
        num_resamples: Redraws of children behind an interval.
        seed: Seed of the redraws and of random baselines.

    Raises:
        ValueError: If no super-net ranks as `baseline`.
    """
    last = last_steps(scored)
    check_baseline(baseline, last)
    proxies = {method: [proxy_losses(record, truth) for record in found] for method, found in last.items()}
    settings: dict[str, Any] = {"num_resamples": num_resamples, "seed": seed}
    methods = [
        rank(name, losses, truth, is_proxy_loss=True, seeds=[record["seed"] for record in last[name]], **settings)
        for name, losses in proxies.items()
    ]
    compared_with = next(iter(last), None) if baseline is None else baseline
    percent_at = {name: percent_of(found[0]) for name, found in last.items()}
    comparisons = _comparisons(methods, percent_at, compared_with)
    dull = baselines(truth, [] if compared_with is None else proxies[compared_with], **settings)
    alone: list[ArrayLike] = [[by_seed[number] for by_seed in truth.losses] for number in truth.seeds]
    worth = [operator_worth("children trained alone", alone, truth.architectures, **settings)]
    worth += [operator_worth(name, losses, truth.architectures, **settings) for name, losses in proxies.items()]
    over_training = {
        name: {
            share: rank(name, [proxy_losses(r, truth) for r in found], truth, only=list(_WHILE_TRAINING), **settings)
            for share, found in shares.items()
        }
        for name, shares in by_share(scored).items()
    }
    return RankingReport(
        truth,
        methods,
        dull,
        one_training_by_another(truth, **settings),
        truth.ceiling(**settings),
        comparisons,
        over_training,
        worth,
        calibrations(truth, calibrate, proxies, seed=seed) if calibrate else (),
    )
