"""Operators that scored children do worse with are dropped from a space, and the recipe of the smaller one is read."""

import random

import pytest
import yaml

from hf_nasbert import cli, records
from hf_nasbert.modeling import SupernetConfig
from hf_nasbert.pipeline import ShrinkSpaceArguments, shrink_space
from hf_nasbert.ranking.pruning import judge_operators, smaller_space
from hf_nasbert.recipe_arguments import parse_recipe_arguments
from hf_nasbert.scored import ScoredChild, begin_scores
from hf_nasbert.searching import GradientBoostedSearch
from hf_nasbert.space import SearchSpace
from hf_nasbert.training import SupernetArguments

pytest.importorskip("lightgbm")
SPACE = SearchSpace.chain(4, ("attention", "ffn", "conv3"))
FEW = {"num_resamples": 60}


def children_and_losses(space=SPACE, count=60, noise=0.01):
    """Block 2 does badly with ffn; nothing else matters."""
    rng = random.Random(0)
    children = [space.child_at(rng.randrange(space.num_children)) for _ in range(count)]
    children = list(dict.fromkeys(children))
    return children, [5 + 0.2 * (child[2] == "ffn") + rng.gauss(0, noise) for child in children]


def test_what_is_bad_in_one_block_is_dropped_there_and_nowhere_else():
    children, losses = children_and_losses()
    verdicts = judge_operators(SPACE, children, losses, **FEW)
    worst = verdicts[0]
    assert (worst.block, worst.operator, worst.is_dropped) == (2, "ffn", True)
    assert len(verdicts) == 12
    smaller = smaller_space(SPACE, verdicts)
    assert smaller.blocks[2] == ("attention", "conv3")
    kept = [one for one in verdicts if not one.is_dropped]
    assert all(one.worth.low <= 0 or one.shap <= 0 or one.block == 2 for one in kept)


def test_without_a_difference_hardly_anything_is_dropped_and_trees_have_a_say(monkeypatch):
    children, _ = children_and_losses()
    rng = random.Random(1)
    noise = [rng.gauss(0, 1) for _ in children]
    assert sum(one.is_dropped for one in judge_operators(SPACE, children, noise, **FEW)) <= 1
    children, losses = children_and_losses()
    turned = GradientBoostedSearch.operator_effects
    monkeypatch.setattr(
        GradientBoostedSearch, "operator_effects", lambda self: [e._replace(effect=-e.effect) for e in turned(self)]
    )
    assert not judge_operators(SPACE, children, losses, **FEW)[0].is_dropped


def test_a_block_keeps_its_least_and_no_more_are_dropped_than_allowed():
    children, losses = children_and_losses()
    losses = [
        loss + 0.1 * (child[2] == "conv3") + 0.3 * (child[0] == "ffn")
        for child, loss in zip(children, losses, strict=True)
    ]
    dropped = [(one.block, one.operator) for one in judge_operators(SPACE, children, losses, **FEW) if one.is_dropped]
    assert dropped[:2] == [(0, "ffn"), (2, "ffn")]
    assert len({block for block, _ in dropped}) == len(dropped)
    alone = judge_operators(SPACE, children, losses, max_dropped=1, **FEW)
    assert [(one.block, one.operator) for one in alone if one.is_dropped] == [(0, "ffn")]
    none = judge_operators(SPACE, children, losses, min_candidates=3, **FEW)
    assert not any(one.is_dropped for one in none)


def test_a_skip_at_the_end_stays_and_one_anywhere_may_go():
    for skip, is_dropped in (("end", False), ("anywhere", True)):
        space = SearchSpace.chain(3, ("ffn", "conv3", "skip"), skip)
        children = list(space.enumerate())
        losses = [5 + 0.3 * (child[2] == "skip") for child in children]
        found = {(o.block, o.operator): o.is_dropped for o in judge_operators(space, children, losses, **FEW)}
        assert found[2, "skip"] == is_dropped
    space = SearchSpace.chain(3, ("ffn", "conv3", "skip"), "anywhere")
    losses = [5 - 0.3 * (child[2] == "skip") + 0.1 * (child[2] == "ffn") for child in space.enumerate()]
    verdicts = judge_operators(space, list(space.enumerate()), losses, min_candidates=1, **FEW)
    assert smaller_space(space, verdicts).blocks[2] == ("conv3", "skip")  # a block that always skips is none


def write(folder, space, children, losses):
    SupernetConfig(search_space=space, hidden_size=32, vocab_size=50, ffn_ratio=2).save_pretrained(folder / "net")
    scored = [ScoredChild(architecture=c, proxy_loss=x, cost={}) for c, x in zip(children, losses, strict=True)]
    records.extend(folder / "s.jsonl", [begin_scores({}), *(one.to_record() for one in scored)])
    return [
        "--supernet",
        str(folder / "net"),
        "--records",
        str(folder / "s.jsonl"),
        "--output",
        str(folder / "o.yaml"),
    ]


def test_the_command_writes_a_recipe_of_the_smaller_space(tmp_path, capsys):
    argv = write(tmp_path, SPACE, *children_and_losses())
    assert cli.main(["shrink-space", *argv, "--num_resamples", "60", "--max_dropped", "1"]) == 0
    assert "1 operators dropped, 81 children before, 54 now" in capsys.readouterr().out
    (read,) = parse_recipe_arguments([SupernetArguments], ["--config", str(tmp_path / "o.yaml")])
    config = read.build_config(vocab_size=50)
    assert config.space.blocks == (*SPACE.blocks[:2], ("attention", "conv3"), SPACE.blocks[3])
    assert (config.hidden_size, config.ffn_ratio) == (32, 2)


def test_skips_anywhere_are_said_and_a_base_model_keeps_its_sizes(tmp_path):
    space = SearchSpace.chain(3, ("ffn", "conv3", "skip"), "anywhere")
    children = list(space.enumerate())
    argv = write(tmp_path, space, children, [5 + 0.3 * (child[1] == "ffn") for child in children])
    (arguments,) = parse_recipe_arguments([ShrinkSpaceArguments], [*argv, "--num_resamples", "60"])
    shrink_space(arguments)
    (read,) = parse_recipe_arguments([SupernetArguments], ["--config", arguments.output])
    assert read.build_config(vocab_size=50).space.blocks[1] == ("conv3", "skip")
    SupernetConfig(search_space=space, hidden_size=32, weight_layout="nested").save_pretrained(tmp_path / "net")
    shrink_space(arguments)
    recipe = yaml.safe_load((tmp_path / "o.yaml").read_text(encoding="utf-8"))
    assert recipe == {"blocks": ["ffn,conv3,skip", "conv3,skip", "ffn,conv3,skip"]}


def test_what_cannot_be_made_smaller_is_refused(tmp_path):
    argv = write(tmp_path, SPACE, *children_and_losses(count=3))
    (arguments,) = parse_recipe_arguments([ShrinkSpaceArguments], argv)
    with pytest.raises(ValueError, match="too few, or too similar"):
        shrink_space(arguments)
    SupernetConfig(search_space=SearchSpace.chain(4, ("ffn",)), hidden_size=32).save_pretrained(tmp_path / "net")
    with pytest.raises(ValueError, match=r"s.jsonl is not of .*no child of it"):
        shrink_space(arguments)
    (tmp_path / "table.jsonl").write_text("trained for hours")
    for what in ("records", "table"):
        given = {what: str(tmp_path / "table.jsonl"), "output": str(tmp_path / "table.jsonl")}
        with pytest.raises(ValueError, match=rf"output and {what} are one file"):
            shrink_space(ShrinkSpaceArguments(supernet=str(tmp_path / "net"), **given))
    assert (tmp_path / "table.jsonl").read_text() == "trained for hours"
    staged = SearchSpace.staged(2, 1, ("ffn", "conv3"), widths=(32,))
    with pytest.raises(ValueError, match="only a space of one stage without widths"):
        smaller_space(staged, [])
    with pytest.raises(ValueError, match="exactly one of records and table"):
        ShrinkSpaceArguments(supernet="x", output="y")
    with pytest.raises(ValueError, match="min_candidates=0"):
        ShrinkSpaceArguments(supernet="x", output="y", table="imdb", min_candidates=0)


@pytest.mark.slow
def test_children_trained_alone_may_judge_too(tmp_path):
    from hf_nasbert.ranking import GroundTruth, load_table

    truth = GroundTruth(load_table("imdb"))
    SupernetConfig(search_space=truth.space, hidden_size=64).save_pretrained(tmp_path / "net")
    shrunk = shrink_space(
        ShrinkSpaceArguments(
            supernet=str(tmp_path / "net"), output=str(tmp_path / "o.yaml"), table="imdb", num_resamples=60
        )
    )
    dropped = [one for one in shrunk.verdicts if one.is_dropped]
    assert dropped
    assert shrunk.num_children[1] < shrunk.num_children[0]
    assert "conv3" not in {one.operator for one in dropped if one.block == 0}  # worth 32 of a thousand there
