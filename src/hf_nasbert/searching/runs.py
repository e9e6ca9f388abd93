"""Running a search to its end, with a history on the disk from which it resumes when it was killed."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from tqdm import tqdm

from hf_nasbert import records
from hf_nasbert.scored import ScoredChild, is_beside
from hf_nasbert.searching.base import Scored, Search, finite_or_none, refuse_other_settings
from hf_nasbert.space import Architecture
from hf_nasbert.writing import check_writable

Score = Callable[..., Sequence[float]]
"""Scores children, lower is better: what a search minimises.

Called with a sequence of children, and, by a search that asks for it, with `num_batches`, the number of dev batches,
counted from the first, to score them on.
"""

_Known = dict[tuple[Architecture, int | None], float]


def run_search(
    search: Search,
    score: Score,
    *,
    num_evaluations: int,
    history_path: str | Path | None = None,
    about: Mapping[str, Any] | None = None,
    progress: bool = False,
    should_stop: Callable[[], bool] = lambda: False,
    further: Callable[[Sequence[Architecture]], Sequence[Mapping[str, float]]] | None = None,
    by_batch: Callable[[Architecture], Sequence[float]] | None = None,
) -> list[Scored]:
    """Ask, score and tell until enough children are scored or none is left; returns all, best first.

    With a history, every score is on the disk before the search learns of it. A search that was killed is started
    again with the same settings and the same file: it is told what it had been told, scores nothing twice, and ends
    as it would have without the interruption.

    Args:
        search: A search that has not been asked yet, or, without a history, any.
        score: Scores children, lower is better. Called with one batch at a time.
        num_evaluations: How many children to have scored in the end, those of the history included; where children
            are scored on a part of the dev batches, each counts as that part.
        history_path: A file of records, made if missing.
        about: What the scores depend on (super-net, dev set), as plain JSON: it is written into the history, and a
            history of something else is refused.
        progress: Whether to show a bar with the best score so far.
        further: Called once with children that were scored on all dev batches, for their losses on further dev sets,
            by name: the search never learns of them, and the history keeps them.
        by_batch: Called with a child that was just scored on all dev batches, for its loss on each: the history keeps
            them, to say how sure a difference is. Nothing where they are not known.
        should_stop: Asked before children are chosen; True ends the search early, with what it has found.

    Raises:
        ValueError: If the history is that of another search, or `score` returns the wrong number of scores.
        WriteError: If the history cannot be written, as on a full disk. What it held is whole; the same call goes on.
    """
    known = {} if history_path is None else _open_history(Path(history_path), search, about)
    if history_path is not None:  # a study may know more than the file, as where that was lost
        lost = [scored for scored in search.history if (scored.architecture, None) not in known]
        records.extend(history_path, _records(search, dict(lost), further))
    with tqdm(total=num_evaluations, unit=" children", disable=not progress, leave=False) as bar:
        bar.update(search.num_evaluations)
        while (done := search.num_evaluations) < num_evaluations and not should_stop():
            children = search.ask()
            num_batches = search.num_batches
            # 1 - 0.9 is a little less than 0.1, and still pays for it.
            children = children[: int((num_evaluations - done) / search.cost_of_one + 1e-9)]
            if not children:
                break
            new = [child for child in children if (child, num_batches) not in known]
            if new and history_path is not None:
                check_writable(history_path, is_appended=True)  # else what they cost would be lost
            values = _scored(score, new, num_batches)
            if history_path is not None:
                hooks = (further, by_batch) if num_batches is None else ()
                records.extend(history_path, _records(search, values, *hooks))
            known |= {(child, num_batches): value for child, value in values.items()}
            search.tell(children, [known[child, num_batches] for child in children], num_batches=num_batches)
            best = search.best()
            bar.update(search.num_evaluations - done)
            bar.set_postfix(best="none" if best is None else f"{best.score:.4f}")
    return search.ranking()


def _scored(score: Score, children: Sequence[Architecture], num_batches: int | None) -> dict[Architecture, float]:
    if not children:
        return {}
    scores = list(score(children) if num_batches is None else score(children, num_batches=num_batches))
    if len(scores) != len(children):
        raise ValueError(f"score returned {len(scores)} scores for {len(children)} architectures")
    return dict(zip(children, map(float, scores), strict=True))


def _records(
    search: Search,
    scores: Mapping[Architecture, float],
    further: Callable[[Sequence[Architecture]], Sequence[Mapping[str, float]]] | None = None,
    by_batch: Callable[[Architecture], Sequence[float]] | None = None,
) -> list[records.Record]:
    others = further(list(scores)) if further is not None and scores else [{}] * len(scores)
    return [
        ScoredChild(
            architecture=child,
            proxy_loss=finite_or_none(score),
            cost={} if search.task.cost is None else search.task.cost(child),
            num_batches=search.num_batches,
            dev_losses=losses,
            batch_losses=() if by_batch is None else tuple(by_batch(child)),
        ).to_record()
        for (child, score), losses in zip(scores.items(), others, strict=True)
    ]


def check_history(
    path: Path, found: Sequence[records.Record], settings: Mapping[str, Any], *, but: Sequence[str] = ()
) -> None:
    """Refuse records that are not the history of a search of these settings; none at all are.

    Args:
        path: The file, for messages.
        found: Its records.
        settings: The search's, with what its scores depend on as `about`.
        but: Names of settings that are not known yet.

    Raises:
        ValueError: If they are another file's; names what differs.
    """
    mine = {name: value for name, value in settings.items() if name not in but}
    for number, record in enumerate(found, start=1):
        if number == 1 and record.get("record") != "search":
            raise ValueError(f"{path} is not the history of a search: its first record is {str(record)[:80]}")
        if record.get("record") == "search":  # a second one is of another process that began the file too
            if not isinstance(record.get("settings"), Mapping):
                raise ValueError(f"{path} is not the history of a search: record {number} holds no settings")
            theirs = {name: value for name, value in record["settings"].items() if name not in but}
            refuse_other_settings(mine, theirs, str(path))


def _open_history(path: Path, search: Search, about: Mapping[str, Any] | None) -> _Known:
    """The scores on file; a new file begins with the search's settings, which an old one must agree with."""
    settings = search.settings | {"about": None if about is None else dict(about)}
    head = {"record": "search", "settings": settings, "versions": records.versions()}
    found = records.read(path) if path.exists() else []
    if not found:  # nor may there be when it is written: another process may begin the file at this moment
        found = records.update(path, lambda earlier: [] if earlier else [head])
    check_history(path, found, settings)
    known = {}
    for number, record in enumerate(found, start=1):
        if record.get("record") != "search" and not is_beside(record):
            child = ScoredChild.from_record(record, f"{path}, record {number}")
            known[child.architecture, child.num_batches] = child.loss
    return known
