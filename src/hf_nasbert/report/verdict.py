"""What a search has won and how sure that is, in sentences."""

import math
import statistics

from hf_nasbert.report.content import Content, Mark, Measure, Series, format_of

_TRAIN_SOME = (
    "A proxy loss is taken with the weights that a child inherits: children that are trained on their own may come in "
    "another order. Train the best few before you choose."
)


def search_verdict(content: Content) -> tuple[str, tuple[str, ...]]:
    """What a search has won, or which of two is ahead, and how sure that is."""
    if len(content.series) > 1:
        return _two(content)
    series, measure = content.series[0], content.measures[0]
    winner = series.winner
    worth = f"{_loss(measure, winner)}{_within(series)}{_beside(content)}{_rivals(content)}"
    lead = f"The winner has a {measure.name} of {worth}."
    return lead, (*_sure(content, 0), _TRAIN_SOME)


def _two(content: Content) -> tuple[str, tuple[str, ...]]:
    measure = content.measures[0]
    one, two = (series.winner for series in content.series)
    ahead = measure.ahead(one, two)
    doubt = measure.doubt(one, two)
    assert ahead is not None
    best, other = (0, 1) if ahead >= 0 else (1, 0)
    names = [series.name for series in content.series]
    by = f"{abs(ahead):.4f}" if doubt is None else f"{_interval(abs(ahead), doubt)} (95 %)"
    if ahead:
        lead = f"The winner of {names[best]} is ahead of that of {names[other]} by {by} in {measure.name}"
    else:
        lead = f"The winners of {names[0]} and {names[1]} are level in {measure.name}{f', {by}' if doubt else ''}"
    values = [measure.values[content.series[number].winner] for number in (best, other)]
    lead += f": {values[0]:.4f} against {values[1]:.4f}."
    if not ahead and doubt == 0:
        sure = f"Their losses are equal on every one of the {_batches(measure)}."
    elif doubt is None:
        sure = "How much of that is chance cannot be said: the records hold no losses of single dev batches."
    elif abs(ahead) > doubt:
        sure = f"That is more than the noise of the {_batches(measure)}: {_interval(abs(ahead), doubt)} (95 %)."
    else:
        sure = f"That may be chance: on the {_batches(measure)} it is {_interval(abs(ahead), doubt)} (95 %)."
    return lead, (
        sure,
        *(f"{name}: {line}" for at, name in enumerate(names) for line in _sure(content, at)),
        _TRAIN_SOME,
    )


def _sure(content: Content, number: int) -> list[str]:
    """How sure it is that a winner is the best."""
    series, measure = content.series[number], content.measures[0]
    winner, others = series.winner, len(series.ranking) - 1
    told = []
    for mark in content.marks:
        doubt, ahead = measure.doubt(winner, mark.place), measure.ahead(winner, mark.place)
        if mark.series == number and mark.place != winner and doubt is not None and ahead is not None:
            sure = "more than" if abs(ahead) > doubt else "no more than"
            told.append(
                f"Its lead over the {mark.name} is {_interval(ahead, doubt)} (95 %), {sure} the noise of the dev "
                "batches."
            )
    if not others:
        return told
    if not measure.samples:
        told.append(
            "How far the noise of the dev batches reaches cannot be said: the records hold no losses of single dev "
            "batches, as those of earlier versions do not. Score the children again to learn it."
        )
        return told
    tied = sum(measure.is_tied(place, winner) for place in series.ranking if place != winner)
    if tied:
        told.append(
            f"{tied:,} of the {others:,} other {content.noun[1]} cannot be told apart from it on the "
            f"{_batches(measure)}: {'it is' if tied == 1 else 'they are'} marked below."
        )
    else:
        told.append(
            f"It is ahead of all {others:,} other {content.noun[1]} by more than the noise of the dev batches."
        )
    return told


def _beside(content: Content) -> str:
    """How the winner stands beside what it is compared with: the BERT of the budget, or the largest child."""
    measure, winner = content.measures[0], content.series[0].winner
    held = next((mark for kind in ("bert", "base") for mark in content.marks if mark.kind == kind), None)
    if held is None:
        values = [measure.values[place] for place in content.series[0].ranking]
        middle = statistics.median(value for value in values if value is not None)
        value = measure.values[winner]
        assert value is not None
        return f", {middle - value:.4f} below the median of the scored {content.noun[1]}" if len(values) > 2 else ""
    if held.place == winner:
        return f": it is the {held.name}"
    ahead = measure.ahead(winner, held.place)
    assert ahead is not None
    word = "below" if ahead > 0 else "above"
    doubt = measure.doubt(winner, held.place)
    lead = f"{abs(ahead):.4f}" if doubt is None else f"{_interval(abs(ahead), doubt)} (95 %)"
    level = f"{lead} {word} the {held.name}" if ahead else f"level with the {held.name}"
    return f", {level}{_costs(content, winner, held)}"


def _rivals(content: Content) -> str:
    """How many others are as good as the winner, as far as the dev batches say."""
    series, measure = content.series[0], content.measures[0]
    if len(series.ranking) < 2:
        return ""
    if not measure.samples:
        return "; how much of that is noise, the records do not say"
    tied = sum(measure.is_tied(place, series.winner) for place in series.ranking if place != series.winner)
    return f"; {tied:,} other {content.noun[tied > 1]} may be as good" if tied else ""


def _costs(content: Content, winner: int, held: Mark) -> str:
    parts = []
    for key, (few, many) in {
        "num_parameters": ("fewer parameters", "more parameters"),
        "latency_ms": ("less latency", "more latency"),
    }.items():
        cost = next((one for one in content.costs if one.key == key), None)
        if cost is None:
            continue
        own, other = cost.values[winner], cost.values[held.place]
        if own is not None and other:
            change = own / other - 1
            if abs(change) >= 0.0005:
                parts.append(f"{abs(change):.1%} {many if change > 0 else few}".replace("%", " %"))
    return f", with {' and '.join(parts)}" if parts else ""


def _within(series: Series) -> str:
    caps = [f"{format_of(name).text(cap)} {format_of(name).name}" for name, cap in series.caps.items()]
    return f" within {' and '.join(caps)}" if caps else ""


def _loss(measure: Measure, place: int) -> str:
    value = measure.values[place]
    assert value is not None
    is_likelihood = measure.name == "proxy loss" and value < 30
    return f"{value:.4f}" + (f" (perplexity {math.exp(value):,.0f})" if is_likelihood else "")


def _batches(measure: Measure) -> str:
    return f"{len(measure.samples[0])} dev batches" if measure.samples else "dev batches"


def _interval(ahead: float, doubt: float) -> str:
    return f"{ahead:.4f} ± {doubt:.4f}"
