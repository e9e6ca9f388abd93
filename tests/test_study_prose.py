"""What the pages of the two studies say in words is what their tables say, or follows from their records."""

import re
import statistics
from pathlib import Path

import pytest

from hf_nasbert import metrics, records
from hf_nasbert.interference import mean_similarity, measurements, pair_rows
from hf_nasbert.ranking import GroundTruth, by_share, load_table, proxy_losses, read_scores

ROOT = Path(__file__).parents[1]
_NUMBER = re.compile(r"(?<![\w.])-?\d\.\d{3}(?!\d)")


def prose_and_tables(page):
    """A page without its quoted paper, code and tables; and its tables."""
    text = (ROOT / "docs" / page).read_text(encoding="utf-8")
    tables = "\n".join(line for line in text.splitlines() if line.startswith("|"))
    generated = "\n".join(re.findall(r"<!-- table: .*?<!-- end -->", text, flags=re.S))
    prose = re.sub(r"<!-- table: .*?<!-- end -->|```.*?```", "", text, flags=re.S)
    return " ".join(prose.split()), tables + generated


def read(name):
    return records.read(ROOT / "benchmarks" / "records" / f"{name}.jsonl.gz")


@pytest.fixture(scope="module")
def truth():
    return GroundTruth(load_table("imdb"), containing="conv3")


@pytest.fixture(scope="module")
def study(truth):
    """Tau and range of losses by method, share of training and seed."""
    scored = read_scores(ROOT / "benchmarks" / "records" / "ranking.jsonl.gz", truth)
    found = {}
    for method, shares in by_share(scored).items():
        for share, runs in shares.items():
            for record in runs:
                losses = proxy_losses(record, truth)
                tau = metrics.kendall_tau(losses, truth.loss)
                found.setdefault((method, share), {})[record["seed"]] = (tau, losses.max() - losses.min())
    return found


@pytest.fixture(scope="module")
def sweep(truth):
    scored = read_scores(ROOT / "benchmarks" / "records" / "ranking-sweep.jsonl.gz", truth)
    found = {}
    for record in scored:
        losses = proxy_losses(record, truth)
        tau = metrics.kendall_tau(losses, truth.loss)
        found.setdefault(record["method"], {})[record["seed"]] = (tau, losses.max() - losses.min())
    return found


def test_every_number_of_the_ranking_page_stands_in_its_tables_or_follows_from_its_records(study):
    prose, tables = prose_and_tables("ranking.md")
    collapsed = {seed for seed, (_, span) in study["magic_a", 1.0].items() if span < 1e-3}
    others = [
        f"{statistics.mean(tau for seed, (tau, _) in study[method, 1.0].items() if seed not in collapsed):.3f}"
        for method in ("magic_a", "uniform")
    ]
    assert (
        f"Without the collapsed run MAGIC-A has {others[0]} on four seeds (uniform {others[1]} on the same)" in prose
    )
    known = {number.lstrip("-") for number in _NUMBER.findall(tables)} | set(others)
    assert {number.lstrip("-") for number in _NUMBER.findall(prose)} <= known


def test_uniform_ranks_better_midway_on_every_seed(study):
    middle, end = study["uniform", 0.5], study["uniform", 1.0]
    assert len(middle) == 5
    assert all(middle[seed][0] > end[seed][0] for seed in end)
    ahead = [
        (method, share)
        for (method, share), taus in study.items()
        if statistics.mean(tau for tau, _ in taus.values())
        > statistics.mean(tau for tau, _ in study["uniform", share].values()) + 0.0035
    ]
    assert ahead == [("fair", 0.25)]


def cells_of(table, row):
    """Column names to the figures, without spread, of a row of the first table of the ranking page under this mark."""
    text = (ROOT / "docs" / "ranking.md").read_text(encoding="utf-8")
    lines = text.partition(f"<!-- table: {table} -->")[2].splitlines()
    head = next(line for line in lines if line.startswith("| ranked by"))
    found = next(line for line in lines if line.startswith(f"| {row} |"))
    names, values = ([cell.strip() for cell in line.strip("|").split("|")] for line in (head, found))
    return {name: value.split(" ")[0] for name, value in zip(names, values, strict=True) if value}


def test_what_the_first_table_is_said_to_say():
    prose, _ = prose_and_tables("ranking.md")
    methods = ("uniform", "fair", "magic_t", "magic_a", "magic_at")
    cells = {name: cells_of("ranking, conv3", name) for name in (*methods, "operator counts", "size-matched random")}
    taus = [cells[name]["Kendall tau-b"] for name in methods]
    words = "a tau of {} (uniform), {} (fair), {} (MAGIC-T), {} (MAGIC-A) and {} (MAGIC-AT)"
    assert words.format(*taus) in prose
    counts = cells["operator counts"]
    assert f"reaches {counts['Kendall tau-b']} ({counts['tau within size buckets']} within buckets)" in prose
    assert f"(MAGIC-A, at {cells['magic_a']['tau within size buckets']}, does worse)" in prose
    assert f"(size-matched random, {cells['size-matched random']['Kendall tau-b']})" in prose
    ceiling = cells_of("ranking, conv3", "*training them again (ceiling)*")["tau, children of the ceiling"]
    own = cells["uniform"]["tau, children of the ceiling"]
    assert f"uniform has {own}, where training them once more reaches {ceiling}" in prose


def test_so_many_runs_collapse(study, sweep):
    """Losses of all children within 0.0001 nats, as the page says."""
    number = {
        method: sum(span <= 1e-4 for _, span in study[method, 1.0].values())
        for method in ("uniform", "fair", "magic_t", "magic_a", "magic_at")
    }
    assert number == {"uniform": 0, "fair": 0, "magic_t": 0, "magic_a": 1, "magic_at": 3}
    number = {method: sum(span <= 1e-4 for _, span in runs.values()) for method, runs in sweep.items()}
    assert {method: count for method, count in number.items() if count} == {
        "magic_at, lambda 2": 3,
        "magic_at, states normalised": 1,
    }


def test_what_the_sweep_is_said_to_show(sweep):
    held, uniform = sweep["uniform, learning rate held"], sweep["uniform"]
    assert sum(held[seed][0] > uniform[seed][0] for seed in uniform) == 2
    mean_of = {name: statistics.mean(tau for tau, _ in runs.values()) for name, runs in sweep.items()}
    assert all(len(runs) == 3 for runs in sweep.values())
    assert max(mean_of, key=mean_of.get) == "uniform, learning rate held"
    assert max(mean for name, mean in mean_of.items() if name.startswith("magic_at")) < mean_of["uniform"]
    prose, _ = prose_and_tables("ranking.md")
    assert "**Not run yet**" not in prose
    said = {
        "uniform has 0.164, MAGIC-T 0.148 and MAGIC-AT 0.031": ("uniform", "magic_t", "magic_at"),
        "fair at 0.175, MAGIC-T at 0.192, MAGIC-A at 0.202, MAGIC-AT at 0.044": [
            f"{method}, learning rate held" for method in ("fair", "magic_t", "magic_a", "magic_at")
        ],
        "Twice as much takes uniform to 0.223 and MAGIC-AT to 0.098, half takes uniform to 0.119": (
            "uniform, twice the compute", "magic_at, twice the compute", "uniform, half the compute",
        ),
        "Uniform has 0.068 at half of it and 0.145 at twice, MAGIC-T 0.062 and MAGIC-AT 0.019 at half, uniform with "
        "batch 32 0.107": (
            "uniform, learning rate 3e-3", "uniform, learning rate 1.2e-2", "magic_t, learning rate 3e-3",
            "magic_at, learning rate 3e-3", "uniform, batch 32",
        ),
        "(`alignment_start: 0.3`) has 0.091, with a lambda of 0.1 0.082, an anchor that is moved too 0.096, states "
        "normalised 0.076, an anchor judged every 100 steps 0.059, the last block aligned alone 0.024": [
            f"magic_at, {change}"
            for change in (
                "aligned after the warm-up", "lambda 0.1", "anchor moved too", "states normalised",
                "anchor judged every 100 steps", "last block aligned only",
            )
        ],
    }  # fmt: skip
    for words, names in said.items():
        assert words in prose
        assert _NUMBER.findall(words) == [f"{mean_of[name]:.3f}" for name in names], words


def test_every_number_of_the_interference_page_stands_in_its_tables_or_follows_from_its_records():
    prose, tables = prose_and_tables("interference.md")
    computed = []
    for group in measurements(read("interference")):
        if group.stage == 1.0 and group.method in ("uniform", "magic_at"):
            for record in group.records:
                rows = pair_rows([record])
                computed.append(f"{mean_similarity(rows, rows['distance'] > 0).estimate:.3f}")
    known = {number.lstrip("-") for number in _NUMBER.findall(tables)} | set(computed)
    assert {number.lstrip("-") for number in _NUMBER.findall(prose)} <= known


def test_what_methods_are_said_to_do_to_interference():
    by_method = {
        group.method: {record["seed"]: pair_rows([record]) for record in group.records}
        for group in measurements(read("interference"))
        if group.stage == 1.0
    }
    means = {
        method: {seed: mean_similarity(rows, rows["distance"] > 0).estimate for seed, rows in runs.items()}
        for method, runs in by_method.items()
    }
    gain = {
        method: [round(means[method][seed] - means["uniform"][seed], 3) for seed in range(100, 105)]
        for method in ("magic_t", "magic_a")
    }
    prose, _ = prose_and_tables("interference.md")
    assert "lower on all five seeds (by 0.022 to 0.035)" in prose
    assert (max(gain["magic_t"]), min(gain["magic_t"])) == (-0.022, -0.035)
    assert "on all five seeds, but by no more than 0.051 on the four that did not collapse" in prose
    assert min(gain["magic_a"]) > 0
    assert (max(gain["magic_a"][:4]), gain["magic_a"][4]) == (0.051, 0.081)  # seed 104 collapsed
    assert "The two that did not have 0.656 and 0.472" in prose
    assert [f"{means['magic_at'][seed]:.3f}" for seed in (102, 104)] == ["0.656", "0.472"]
    assert "uniform has 0.697 and 0.736 on the same seeds" in prose
    assert [f"{means['uniform'][seed]:.3f}" for seed in (102, 104)] == ["0.697", "0.736"]
