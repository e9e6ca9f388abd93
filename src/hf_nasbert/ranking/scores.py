"""Records of scored super-nets: reading them, telling runs apart, and their losses in a table's order."""

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from hf_nasbert import records
from hf_nasbert.methods import METHODS
from hf_nasbert.ranking.table import Array, GroundTruth
from hf_nasbert.records import Record, is_finite_number

_FIELDS = ("method", "seed", "step", "max_steps", "recipe_hash", "proxy_losses")


def read_scores(path: str | Path, truth: GroundTruth) -> list[Record]:
    """The scored super-nets of a file, checked against a table.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If a record is no scored super-net, one of another table, or lacks a child.
    """
    found = records.read(path)
    for number, record in enumerate(found, start=1):
        where = f"{path}, record {number}"
        missing = [name for name in _FIELDS if name not in record]
        if missing:
            raise ValueError(f"{where} is no scored super-net: it lacks {', '.join(missing)}")
        losses = record["proxy_losses"]
        if not isinstance(record["method"], str) or not isinstance(losses, Mapping):
            raise ValueError(f"{where} is no scored super-net: its method is no text or its proxy_losses no mapping")
        for name in ("seed", "step", "max_steps"):
            if not (record[name] is None or type(record[name]) is int):
                raise ValueError(f"{where} is no scored super-net: its {name} is neither a whole number nor null")
        if None not in (record["step"], record["max_steps"]) and not 0 <= record["step"] <= record["max_steps"] > 0:
            raise ValueError(
                f"{where} is no scored super-net: step {record['step']} of {record['max_steps']} there is not"
            )
        if record["recipe_hash"] != truth.recipe_hash:
            raise ValueError(
                f"{where} was scored for the table {str(record['recipe_hash'])[:40]}, not for "
                f"{truth.recipe_hash}: score the super-net again"
            )
        unscored = [str(child) for child in truth.architectures if not is_finite_number(losses.get(str(child)))]
        if unscored:
            raise ValueError(
                f"{where} lacks a finite loss of {len(unscored)} children of the table, such as {unscored[0]}"
            )
    try:
        refuse_duplicates(found)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
    return found


def refuse_duplicates(scored: Sequence[Record]) -> None:
    """Refuse super-nets of two runs that would pass for one.

    Raises:
        ValueError: See `records.refuse_duplicate_runs`.
    """
    records.refuse_duplicate_runs(scored, lambda record: (record["method"], f"step {record['step']}"))


def proxy_losses(record: Mapping[str, Any], truth: GroundTruth) -> Array:
    """The proxy losses of a scored super-net, in the order of the table's children."""
    return np.array([record["proxy_losses"][str(child)] for child in truth.architectures], dtype=np.float64)


def last_steps(scored: Sequence[Record]) -> dict[str, list[Record]]:
    """The scored super-nets as far as they were trained, by what they rank as, seeds in order.

    Those at the end of their training rank as their method, those of which only an earlier step was scored as
    `uniform, at 50 %`. Super-nets that do not say their seed are all taken as runs of their own, those that do not say
    their step as ends.
    """
    last: dict[tuple[str, Any], Record] = {}
    for record in scored:
        key = (record["method"], _run(record))
        if key not in last or share_of(record) > share_of(last[key]):
            last[key] = record
    # A seed that is unknown has a name instead, after the numbers.
    runs = sorted(last.items(), key=lambda item: (isinstance(item[0][1], str), item[0][1]))
    groups: dict[tuple[str, int], list[Record]] = {}
    for (method, _), record in runs:
        groups.setdefault((method, percent_of(record)), []).append(record)
    rank_of = {name: place for place, name in enumerate(METHODS)}
    order = sorted(groups, key=lambda group: (rank_of.get(group[0], len(rank_of)), group[0], -group[1]))
    return {
        method if percent == 100 else f"{method}, at {percent} %": groups[method, percent] for method, percent in order
    }


def by_share(scored: Sequence[Record]) -> dict[str, dict[float, list[Record]]]:
    """The scored super-nets by method and by the share of the training that is done, 1.0 at its end.

    Of the seeds of a method those count that were scored at the same shares, of several such groups the one with the
    most scores: means at two shares over different seeds would differ by the seeds.
    """
    found = {}
    for method in dict.fromkeys(runs[0]["method"] for runs in last_steps(scored).values()):
        shares_of: dict[Any, dict[float, Record]] = {}
        for record in scored:
            if record["method"] == method:
                shares_of.setdefault(_run(record), {})[share_of(record)] = record
        counts = Counter(frozenset(shares) for shares in shares_of.values())
        usual = max(counts, key=lambda shares: (counts[shares] * len(shares), len(shares), sorted(shares)))
        alike = [shares for shares in shares_of.values() if frozenset(shares) == usual]
        found[method] = {share: [shares[share] for shares in alike] for share in sorted(usual)}
    return found


def share_of(record: Mapping[str, Any]) -> float:
    """The share of its training that a scored super-net has behind it; one that does not say is at its end."""
    is_end = record["step"] is None or record["max_steps"] is None
    return 1.0 if is_end else float(record["step"] / record["max_steps"])


def percent_of(record: Mapping[str, Any]) -> int:
    """`share_of` in whole percents, 100 at the end only: super-nets of one percent are as far as each other."""
    share = share_of(record)
    return 100 if share == 1 else min(round(100 * share), 99)


def _run(record: Mapping[str, Any]) -> Any:
    """What tells a method's runs apart: their seeds, or where those are unknown the super-net's name."""
    return record.get("supernet") if record["seed"] is None else record["seed"]
