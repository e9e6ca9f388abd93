"""Searching a real, tiny super-net: every search by its name, from a command line to a front."""

import inspect
import math
import os
import re
import signal
import statistics
import typing
from dataclasses import fields, replace

import pytest
import torch

from hf_nasbert import cli, records
from hf_nasbert.data import DataArguments
from hf_nasbert.modeling import SupernetConfig, SupernetForMaskedLM
from hf_nasbert.pipeline import (
    ProxyScorer,
    ScoreChildrenArguments,
    SearchChildrenArguments,
    score_children,
    search_children,
)
from hf_nasbert.pipeline import scores as scores_room
from hf_nasbert.pipeline.scores import as_front_table, as_search_report
from hf_nasbert.pipeline.scoring_arguments import SearchName
from hf_nasbert.recipe_arguments import parse_recipe_arguments
from hf_nasbert.scored import scored_children
from hf_nasbert.searching import SEARCHES, SETTINGS, pareto_front
from hf_nasbert.space import SearchSpace
from hf_nasbert.stopping import StopRequest
from hf_nasbert.training.arguments import ChildRecipe

SPACE = SearchSpace.chain(3, ("attention", "ffn", "conv3"))


class StandInTrainings:
    """Says of a child that is trained for any number of steps what it inherits."""

    def __init__(self, scorer):
        self.scorer = scorer

    def adapt(self, children, num_steps):
        return self.scorer(children)

    def recipe(self, num_steps):
        return ChildRecipe(num_steps=num_steps, learning_rate=1e-3)


class StandIn:
    """A scorer of an untrained super-net on random tokens: the text is not what is tested here."""

    def __init__(self, arguments, data):
        torch.manual_seed(0)
        config = SupernetConfig(search_space=SPACE, hidden_size=32, vocab_size=60, max_position_embeddings=16)
        self.supernet = SupernetForMaskedLM(config).eval()
        self.config = config
        self.space = scores_room.children_space(config, native_only=arguments.native_only)
        ids = torch.randint(60, (arguments.num_dev_batches, 2, 8), generator=torch.Generator().manual_seed(1))
        self._batches = [{"input_ids": batch, "labels": batch} for batch in ids]
        self.cost = scores_room.cost_function(config, sequence_length=8)
        self.settings = {"supernet": "stand-in", "dev_data": "random"}
        self.against_largest = None
        self.further = {}
        self.predict = None
        self.trainings = StandInTrainings(self)
        self.stop = StopRequest()

    __call__ = ProxyScorer.__call__
    budget = ProxyScorer.budget
    scored = ProxyScorer.scored
    by_batch = ProxyScorer.by_batch
    controls = ProxyScorer.controls
    _batch_losses = {}
    add_dev_sets = ProxyScorer.add_dev_sets
    dev_losses = ProxyScorer.dev_losses


@pytest.fixture
def search(tmp_path, monkeypatch):
    monkeypatch.setattr(scores_room, "ProxyScorer", StandIn)
    truth = StandIn(SearchChildrenArguments(supernet="", output=""), None)

    def run(name, num_evaluations=27, **settings):
        arguments = SearchChildrenArguments(
            supernet="",
            output=str(tmp_path / name / "h.jsonl"),
            search=name,
            num_evaluations=num_evaluations,
            **settings,
        )
        return arguments, search_children(arguments, DataArguments(packaged="imdb"))

    children = list(SPACE.enumerate())
    run.truth = dict(zip(children, truth(children), strict=True))
    run.cost = truth.cost
    return run


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.slow] * (name != "evolution")) for name in SEARCHES]
)
def test_every_search_by_its_name(name, search, tmp_path):
    cap = sorted(search.cost(child)["num_parameters"] for child in search.truth)[13]
    arguments, scored = search(name, max_parameters=str(cap))
    affordable = {c: loss for c, loss in search.truth.items() if search.cost(c)["num_parameters"] <= cap}
    assert scored[0].architecture in affordable
    if "halving" not in name:  # its few dev batches may have misled it
        assert {child.architecture for child in scored} == affordable.keys()
        assert scored[0].loss == pytest.approx(min(affordable.values()), abs=1e-6)
    assert all(child.loss == pytest.approx(search.truth[child.architecture], abs=1e-6) for child in scored)
    report = as_search_report(scored, arguments)
    assert str(scored[0].architecture) in report
    assert "the front of loss against num_parameters" in report
    assert (tmp_path / name / "h.operators.md").exists() == (name == "gbdt")
    assert (tmp_path / name / "h.jsonl.db").exists() == (name == "nsga2")
    again = search(name, max_parameters=str(cap))[1]
    assert again == scored
    assert len(records.read(arguments.output)) == len(set(map(str, records.read(arguments.output))))


def test_the_history_says_how_sure_losses_are_and_what_children_are_held_against(search, tmp_path):
    search("random", num_evaluations=6, max_parameters="0.9x")
    history = tmp_path / "random" / "h.jsonl"
    found = records.read(history)
    children = [record for record in found if record["record"] == "child"]
    assert len(children) == 6
    for record in children:
        assert len(record["batch_losses"]) == SearchChildrenArguments(supernet="", output="").num_dev_batches
        assert statistics.fmean(record["batch_losses"]) == pytest.approx(record["proxy_loss"], abs=1e-5)
    controls = {record["name"]: record for record in found if record["record"] == "control"}
    largest = controls["largest child"]["cost"]["num_parameters"]
    assert all(record["cost"]["num_parameters"] <= 0.9 * largest for record in children)
    assert [child.num_batches for child in scored_children(found, "h")] == [None] * 6, "controls are no candidates"
    before = history.read_bytes()
    search("random", num_evaluations=6, max_parameters="0.9x")
    assert history.read_bytes() == before, "nothing is scored twice"
    assert all(len(record["batch_losses"]) == len(children[0]["batch_losses"]) for record in controls.values())


def test_the_names_on_the_command_line_are_those_of_the_searches():
    assert typing.get_args(SearchName) == tuple(SEARCHES)


def test_the_front_is_printed_and_nothing_else(search):
    arguments, scored = search("random", objectives=["flops"])
    lines = as_front_table(scored, arguments.objectives).splitlines()
    points = [(child.loss, child.cost["flops"]) for child in scored]
    front = [str(scored[place].architecture) for place in pareto_front(points)]
    assert lines[0] == f"the front of loss against flops, {len(front)} children:"
    assert [line.split()[-1] for line in lines[1:]] == front
    head, line = as_front_table(scored[:1], ["flops"]).splitlines()
    assert head == "the front of loss against flops, 1 child:"
    assert line.split()[-1] == str(scored[0].architecture)
    broken = [replace(scored[0], proxy_loss=None)]
    assert as_front_table(broken, ["flops"]) == "the front of loss against flops, 0 children:"


@pytest.mark.parametrize("name", ["random", "halving"])
def test_every_dev_set_has_its_own_losses_and_front(name, search, monkeypatch):
    """Every child is scored once on every set, also by a search that is killed and goes on."""
    seen = []

    def load_dev_batches(config, folder, data, *, num_batches, batch_size):
        (file,) = data.train_files
        seen.append(file)
        ids = torch.randint(60, (num_batches, 2, 8), generator=torch.Generator().manual_seed(len(file)))
        return [{"input_ids": batch, "labels": batch} for batch in ids], {"dev_data": file}

    monkeypatch.setattr(scores_room, "load_dev_batches", load_dev_batches)
    calls = []
    scored_once = scores_room.ProxyScorer.dev_losses
    monkeypatch.setattr(StandIn, "dev_losses", lambda self, found: calls.extend(found) or scored_once(self, found))
    settings = {"dev_files": ["one=a.txt", "two=long.txt"], "num_dev_batches": 3}
    search(name, 12, **settings)
    arguments, scored = search(name, 20, **settings)
    assert set(seen) == {"a.txt", "long.txt"}
    full = [child for child in scored if child.num_batches is None]
    assert len(calls) == len(set(calls)) >= len(scored)
    assert all(len({child.loss, *child.dev_losses.values()}) == 3 for child in full)
    on_file = [record for record in records.read(arguments.output) if "dev_losses" in record]
    assert {record["architecture"]: record["dev_losses"] for record in on_file} == {
        str(child.architecture): child.dev_losses for child in full
    }
    report = as_search_report(scored, arguments)
    tables = report.split("the front of ")[1:]
    assert [table.split(" against")[0] for table in tables] == ["loss", "loss on one", "loss on two"]
    for key, table in zip(("one", "two"), tables[1:], strict=True):
        front = pareto_front([(child.dev_losses[key], child.cost["num_parameters"]) for child in full])
        assert [line.split()[-1] for line in table.strip().splitlines()[1:]] == [
            str(full[i].architecture) for i in front
        ]
        assert float(table.splitlines()[1].split()[0]) == pytest.approx(full[front[0]].dev_losses[key], abs=1e-4)
    with pytest.raises(ValueError, match="differs in about"):
        search(name, 20, **settings | {"dev_files": ["one=a.txt"]})


@pytest.mark.parametrize(
    "settings",
    [
        {"dev_files": ["a.txt"]},
        {"dev_files": ["a=b.txt", "a=c.txt"]},
        {"dev_files": ["=b.txt"]},
        {"dev_files": ["a=b.txt"], "adapt_steps": 3},
        {"dev_files": ["a=b.txt"], "compute_budget": "5x"},
        {"dev_files": ["a=b.txt"], "search": "trained_halving"},
    ],
    ids=str,
)
def test_dev_files_that_say_nothing_are_refused(settings):
    with pytest.raises(ValueError, match="dev_files"):
        SearchChildrenArguments(supernet="", output="", **settings)


def test_a_scorer_uses_the_first_batches_when_asked_for_few(search):
    arguments = SearchChildrenArguments(supernet="", output="", num_dev_batches=4)
    scorer = StandIn(arguments, None)
    children = list(SPACE.enumerate())[:3]
    one, all_four = scorer(children, num_batches=1), scorer(children)
    per_batch = [
        scores_room.score_with_report(scorer.supernet, children, scorer._batches[i : i + 1]).losses for i in range(4)
    ]
    assert one == pytest.approx(per_batch[0])
    assert all_four == pytest.approx([sum(losses) / 4 for losses in zip(*per_batch, strict=True)])
    assert not math.isclose(one[0], all_four[0], abs_tol=1e-4)


def test_operators_that_give_nan_never_win_and_the_front_is_drawn(search, tmp_path, monkeypatch):
    broken = StandIn.__init__

    def poisoned(self, arguments, data):
        broken(self, arguments, data)
        with torch.no_grad():
            for block in self.supernet.nasbert.encoder.blocks:
                next(block.operators["ffn"].parameters()).fill_(math.nan)

    monkeypatch.setattr(StandIn, "__init__", poisoned)
    page = tmp_path / "made" / "page.html"
    arguments, scored = search("evolution", report=str(page))
    finite = [child for child in scored if child.proxy_loss is not None]
    assert {"ffn" in child.architecture for child in finite} == {False}
    assert len(finite) == 8 < len(scored) == 27
    assert scored[:8] == finite
    assert "27 children scored, 19 without a finite loss" in as_search_report(scored, arguments)
    text = page.read_text(encoding="utf-8")
    assert f"--architecture {finite[0].architecture} " in text
    assert "19, not shown" in text


@pytest.mark.parametrize("name", ["random", "gbdt"])
def test_without_a_finite_loss_the_table_is_shown_and_the_report_refused(name, search, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(StandIn, "__call__", lambda self, children, **_: [math.nan] * len(children))
    _, scored = search(name, num_evaluations=5)
    assert len(scored) == 5
    assert not (tmp_path / name / "h.operators.md").exists()
    with pytest.raises(ValueError, match="none of 5 scored children has a finite loss"):
        search(name, num_evaluations=5, report=str(tmp_path / "page.html"))
    assert "5 children scored, 5 without a finite loss" in capsys.readouterr().out


def test_what_cannot_be_done_is_refused_before_anything_is_scored(search, tmp_path):
    with pytest.raises(ValueError, match="objectives: weight is none of the costs of a child: num_parameters, flops"):
        search("random", objectives=["weight"])
    with pytest.raises(ValueError, match=r"no child is within the budget.*smallest child"):
        search("evolution", max_parameters="1K")
    with pytest.raises(ValueError, match="num_dev_batches=1: there is nothing to save; the search halving"):
        SearchChildrenArguments(supernet="", output="", search="halving", num_dev_batches=1)
    with pytest.raises(ValueError, match="storage and worker are of the search nsga2, not of random"):
        SearchChildrenArguments(supernet="", output="", search="random", storage="sqlite:///x.db")
    with pytest.raises(ValueError, match="objectives"):
        SearchChildrenArguments(supernet="", output="", objectives=[])
    assert not (tmp_path / "random").exists()
    assert not (tmp_path / "evolution").exists()


def test_halving_with_few_evaluations_begins_with_so_few_that_some_are_scored_on_all(search):
    _, scored = search("halving", num_evaluations=5)
    assert scored
    _, extended = search("halving", num_evaluations=9)
    assert {child.architecture for child in scored} < {child.architecture for child in extended}
    with pytest.raises(ValueError, match=r"no child on all 4 dev batches within 1 evaluations.*costs 1\.25"):
        search("halving", num_evaluations=1)


def test_a_search_for_stock_berts_only(search, monkeypatch, tmp_path):
    with pytest.raises(ValueError, match=r"no child of this space is a plain BERT: .* up to an ffn"):
        search("evolution", native_only=True)  # three blocks, none of which can be left out
    assert not (tmp_path / "evolution").exists()
    monkeypatch.setattr("test_search_children.SPACE", SearchSpace.chain(5, ("conv3", "ffn", "attention", "skip")))
    page = tmp_path / "page.html"
    _, scored = search("evolution", native_only=True, report=str(page))
    assert "children in the space</dt><dd>2<" in page.read_text(encoding="utf-8")
    berts = {"attention-ffn-skip-skip-skip", "attention-ffn-attention-ffn-skip"}
    assert {str(child.architecture) for child in scored} == berts
    with pytest.raises(ValueError, match=r"differs in .*space|another search"):
        search("evolution")  # the same file, all children


def test_scoring_stock_berts_only(monkeypatch, tmp_path):
    monkeypatch.setattr(scores_room, "ProxyScorer", StandIn)
    monkeypatch.setattr("test_search_children.SPACE", SearchSpace.chain(4, ("conv3", "ffn", "attention", "skip")))

    def score(**choice):
        arguments = ScoreChildrenArguments(supernet="", output=str(tmp_path / "s"), native_only=True, **choice)
        return [str(child.architecture) for child in score_children(arguments, DataArguments(packaged="imdb"))]

    assert sorted(score(all_children=True)) == ["attention-ffn-attention-ffn", "attention-ffn-skip-skip"]
    with pytest.raises(ValueError, match="none of the 2 children"):
        score(architectures=["conv3-ffn-skip-skip"])


def test_the_command_says_what_it_found(search, tmp_path, capsys):
    output = tmp_path / "c.jsonl"
    argv = ["search", "--supernet", "x", "--packaged", "imdb", "--output", str(output), "--num_evaluations", "5"]
    assert cli.main(argv) == 0
    printed = capsys.readouterr().out
    assert printed.startswith("5 children scored")
    assert "the front of loss against num_parameters" in printed


def test_a_missing_extra_ends_the_command_in_one_line(search, tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "lightgbm", None)
    argv = ["search", "--supernet", "x", "--packaged", "imdb", "--output", str(tmp_path / "o"), "--search", "gbdt"]
    with pytest.raises(SystemExit, match=r'hf-nasbert search: .* pip install "hf_nasbert\[search\]"'):
        cli.main(argv)
    assert not (tmp_path / "o").exists()


def test_asked_to_stop_a_search_keeps_what_it_has_and_goes_on(search, monkeypatch, tmp_path, capsys):
    evolution = SEARCHES["evolution"]

    def in_fives(task, **options):
        return evolution(replace(task, batch_size=5), **options)

    in_fives.check_installed = evolution.check_installed
    monkeypatch.setitem(SEARCHES, "evolution", in_fives)
    _, straight = search("evolution", seed=1)
    history = tmp_path / "evolution" / "h.jsonl"
    expected = history.read_bytes()
    history.unlink()
    score = scores_room._score

    def asked(*args, **kwargs):
        os.kill(os.getpid(), signal.SIGTERM)
        return score(*args, **kwargs)

    monkeypatch.setattr(scores_room, "_score", asked)
    with pytest.raises(SystemExit) as stopped:
        search("evolution", seed=1)
    assert stopped.value.code == 0
    assert len(records.read(history)) - 1 == 5
    assert "has 5 of 27 children; the same command goes on" in capsys.readouterr().err
    monkeypatch.setattr(scores_room, "_score", score)
    assert search("evolution", seed=1)[1] == straight
    assert history.read_bytes() == expected


@pytest.mark.parametrize("name", SETTINGS)
def test_hyper_parameters_are_arguments_of_their_search_and_decide(name, search):
    """Each is written into the history, so a search of others does not go on from it."""
    kind = SETTINGS[name]
    names = {field.name for field in fields(kind)}
    assert names <= set(inspect.signature(SEARCHES[name]).parameters)
    assert not names & {field.name for other in (SearchChildrenArguments, DataArguments) for field in fields(other)}
    if name == "nsga2":
        return
    whole = {field.name: field.default for field in fields(kind)}
    search(name, num_evaluations=4, search_settings=whole)
    search(name, num_evaluations=4)
    for field in fields(kind):
        if type(field.default) is int:
            with pytest.raises(ValueError, match=f"it differs in .*{field.name}"):
                search(name, num_evaluations=4, search_settings={field.name: field.default + 1})


def test_hyper_parameters_are_flags_where_their_search_is_chosen(tmp_path, capsys):
    argv = ["--supernet", "x", "--output", "y", "--search", "evolution", "--tournament_size", "3"]
    (arguments,) = parse_recipe_arguments([SearchChildrenArguments], argv)
    assert vars(arguments.search_settings) == {"population_size": 50, "tournament_size": 3}
    for wrong in (["--search", "random"], ["--search=halving"]):
        with pytest.raises(SystemExit):
            parse_recipe_arguments([SearchChildrenArguments], [*argv, *wrong])
        assert "--tournament_size belongs to search evolution, and search is" in capsys.readouterr().err
    with pytest.raises(
        ValueError, match="reduction is a setting of halving and trained_halving, and search=evolution"
    ):
        SearchChildrenArguments(supernet="x", output="y", search_settings={"reduction": 2})
    with pytest.raises(ValueError, match=r"num_dev_batches=4: .* needs 5 at least"):
        SearchChildrenArguments(supernet="x", output="y", search="halving", search_settings={"min_batches": 4})


OUT_OF_RANGE = [
    *(("evolution", name, 0) for name in ("population_size", "tournament_size")),
    *(("nsga2", name, value) for name, value in (("population_size", 1), ("max_changes", 0))),
    *(("nsga2", "crossover_share", value) for value in (-0.5, 1.5, float("nan"))),
    *(("halving", name, value) for name, value in (("min_batches", 0), ("reduction", 1))),
    *(("gbdt", name, -1) for name in ("num_initial", "num_candidates", "num_parents")),
    *(("shrinking", name, 0) for name in ("round_size", "pool_size", "num_bins", "num_kept", "run_length")),
    *(("learned", name, value) for name, value in (("num_drawn", 3), ("softness", 0), ("step_size", -1))),
    *(("trained_halving", name, value) for name, value in (("min_steps", 0), ("max_steps", 1), ("reduction", 1))),
    ("pnas", "beam_size", 0),
    *(("linas", name, value) for name, value in (("population_size", 1), ("num_generations", 0))),
    *(("knapsack", name, 0) for name in ("num_initial", "num_solved")),
    *(("gradient_mixture", name, -1) for name in ("mixture_steps", "mixture_rate")),
    ("size_matched", "num_draws", 0),
    ("size_matched", "size", "weight"),
]


@pytest.mark.parametrize(("search", "name", "value"), OUT_OF_RANGE)
def test_hyper_parameters_out_of_range_are_refused_before_anything_is_loaded(search, name, value, capsys):
    with pytest.raises(ValueError, match=rf"^{name}\b.*(expected|is none of the costs)"):
        SearchChildrenArguments(supernet="x", output="y", search=search, search_settings={name: value})
    argv = ["--supernet", "x", "--output", "y", "--search", search, f"--{name}", str(value)]
    with pytest.raises(SystemExit):
        parse_recipe_arguments([SearchChildrenArguments], argv)
    assert name in capsys.readouterr().err.splitlines()[-1]


def test_every_hyper_parameter_has_a_range():
    tried = {(search, name) for search, name, _ in OUT_OF_RANGE}
    assert tried == {(search, name) for search, kind in SEARCHES.items() for name in kind.hyperparameters()}


FLAGS = {field.name for kind in (SearchChildrenArguments, DataArguments) for field in fields(kind)}
UNSUITABLE = {
    "halving": [{"num_dev_batches": 1}, {"num_evaluations": 1}],
    "nsga2": [{"objectives": ["weight"]}, {"storage": "sqlite:y"}],
    "evolution": [{"max_parameters": 0}, {"max_flops": "2 apples"}, {"max_memory": "-1"}, {"max_parameters": "1K"}],
    "random": [{"max_latency": 3.0}, {"num_evaluations": 0}, {"worker": 1}, {"objectives": []}],
    "size_matched": [{"dev_batch_size": 0}, {"objectives": ["loss"]}],
    "gbdt": [{"max_flops": 1}, {"objectives": ["latency_ms"]}],
    "learned": [{"max_flops": 1}, {"num_dev_batches": 0}],
    "shrinking": [{"max_memory": 1}, {"num_dev_batches": 0}, {"adapt_steps": -1}, {"compute_budget": "0"}],
    "trained_halving": [{"adapt_steps": 3}, {"compute_budget": "5x"}, {"num_evaluations": 1}],
    "gradient_mixture": [{"max_parameters": "1K"}, {"compute_budget": "5x"}],
    "pnas": [{"max_parameters": "1K"}, {"num_evaluations": 0}],
    "linas": [{"objectives": ["weight"]}, {"worker": 1}],
    "knapsack": [{"max_flops": 1}, {"storage": "sqlite:y"}],
}


@pytest.mark.parametrize(
    ("name", "settings"), [(name, settings) for name, many in UNSUITABLE.items() for settings in many], ids=str
)
def test_what_does_not_suit_a_search_is_told_by_flags_that_exist(name, settings, search):
    """No parameter of a class's that no flag has: names with an underscore are flags, searches or costs."""
    with pytest.raises((ValueError, OSError)) as raised:
        search(name, **settings)
    message = str(raised.value)
    named = set(re.findall(r"\b[a-z]+(?:_[a-z]+)+\b", message))
    costs = {
        "num_parameters",
        "peak_activation_bytes",
        "latency_ms",
        "size_matched",
        "trained_halving",
        "gradient_mixture",
    }
    assert named <= FLAGS | costs, message
    told = {"objectives": "objective"}
    given = next(iter(settings))
    is_cap = given.startswith("max_")
    assert is_cap or told.get(given, given) in message or given in message, message
    assert "\n" not in message


def test_every_search_is_tried_with_unsuitable_settings():
    assert set(UNSUITABLE) == set(SEARCHES)


@pytest.mark.slow
def test_each_output_has_a_database_of_its_own(search, tmp_path):
    """`front.0` and `front.1` are two outputs, and `?` or `%` is no part of an address."""
    for seed, output in enumerate(("front.0", "front.1", "a?b.jsonl", "a%20b#.jsonl")):
        arguments = SearchChildrenArguments(
            supernet="", output=str(tmp_path / output), search="nsga2", num_evaluations=6, seed=seed
        )
        search_children(arguments, DataArguments(packaged="imdb"))
        assert (tmp_path / f"{output}.db").is_file()
    assert len(list(tmp_path.iterdir())) == 8


def test_each_output_has_a_report_on_operators_of_its_own(search, tmp_path):
    for output in ("front.0", "front.1"):
        arguments = SearchChildrenArguments(
            supernet="", output=str(tmp_path / output), search="gbdt", num_evaluations=4
        )
        search_children(arguments, DataArguments(packaged="imdb"))
    assert {path.name for path in tmp_path.glob("*.md")} == {"front.0.operators.md", "front.1.operators.md"}


def test_more_children_than_can_be_held_are_refused_at_once():
    space = SearchSpace.chain(24, ("attention", "ffn", "conv3", "conv5", "conv7"))
    arguments = ScoreChildrenArguments(supernet="", output="", num_random=100_000_000)
    with pytest.raises(ValueError, match="num_random=100000000: at most 1,000,000 children are scored at once"):
        scores_room.choose_children(arguments, space)
    few = SearchSpace.chain(2, ("attention", "ffn"))
    assert len(scores_room.choose_children(arguments, few)) == few.num_children
