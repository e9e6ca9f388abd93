"""The table of children that are distilled alone, on a tiny base model: its design, its records, a killed farm."""

import dataclasses
import json
import re
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from datasets import Dataset
from tiny.minilm import benchmark, prepare_tiny

from hf_nasbert import records
from hf_nasbert.cards import read_table_facts, render_table_card
from hf_nasbert.locking import locked
from hf_nasbert.ranking import GroundTruth, find_table, load_table
from hf_nasbert.space import Architecture
from hf_nasbert.training.farm import compress_table

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
PAGE = Path(__file__).parents[1] / "docs" / "appendix" / "compress.md"


@pytest.fixture(scope="module")
def bench():
    with benchmark("minilm_table") as module:
        yield module


@pytest.fixture(scope="module")
def prepared(bench, tmp_path_factory):
    return prepare_tiny(tmp_path_factory.mktemp("minilm"))


def test_the_design_is_written_once_and_holds_what_was_asked_for(bench, prepared, tmp_path):
    file = tmp_path / "design.json"
    design = bench.make_design(prepared, file)
    written = file.read_bytes()
    assert bench.make_design(prepared, file) == design
    assert file.read_bytes() == written
    children = design["children"]
    names = [one["architecture"] for one in children]
    assert len(set(names)) == len(names) == 12
    assert Counter((one["band"], one["kind"]) for one in children) == {
        (band, kind): 2 for band in (0.5, 0.75) for kind in bench.KINDS
    }
    supernet = prepared.materials.supernet
    whole = prepared.materials.cost(supernet.largest_architecture)["num_parameters"]
    for one in children:
        share = prepared.materials.cost(Architecture.parse(one["architecture"]))["num_parameters"] / whole
        assert share == pytest.approx(one["share"], abs=1e-4)
        assert abs(share - one["band"]) <= 0.12
    pilot = bench.jobs_of(design, is_pilot=True)
    jobs = bench.jobs_of(design)
    assert len(pilot) == 6
    assert len(jobs) == len(set(jobs)) == 12 + 6
    assert Counter(job.seed for job in jobs) == {0: 12, 1: 6}
    assert set(pilot) <= set(jobs[:6])


def test_a_command_begun_beside_another_waits_for_what_both_stand_on(bench, prepared, tmp_path):
    with ThreadPoolExecutor(1) as pool:
        with locked(tmp_path / "work"):
            second = pool.submit(prepare_tiny, tmp_path)
            with pytest.raises(TimeoutError):
                second.result(2)
        assert second.result(60).trainer.space == prepared.trainer.space


def test_a_design_of_other_settings_is_refused(bench, prepared, tmp_path):
    file = tmp_path / "design.json"
    design = bench.make_design(prepared, file)
    file.write_text(json.dumps(design | {"settings": design["settings"] | {"num_steps": 9}}))
    with pytest.raises(ValueError, match="other settings"):
        bench.make_design(prepared, file)


def test_the_same_child_and_seed_give_the_same_record_and_training_helps(bench, prepared):
    trainer = prepared.trainer
    child = Architecture(("attention1", "ffn32") * 3)
    first, again, other = (trainer.train(child, seed) for seed in (0, 0, 1))
    timing = first.pop("timing"), again.pop("timing")
    assert all(one["cpu_seconds"] >= one["training_cpu_seconds"] > 0 for one in timing)
    assert first == again
    assert other["dev_loss"] != first["dev_loss"]
    assert other["recipe_hash"] == first["recipe_hash"]
    assert [step for step, _ in first["curve"]] == [0, 2, 4, 6, 8]
    assert first["curve"][-1][1] < first["curve"][0][1]
    inherited = prepared.materials.scorer([child])  # its one batch chooses
    assert first["curve"][0][1] == pytest.approx(inherited[0], rel=1e-5)
    assert -1 <= first["stsb_validation"] <= 1
    assert first["passes"] > 24
    assert first["num_encoder_parameters"] == prepared.materials.cost(child)["num_parameters"]


def test_what_judges_is_of_other_documents_than_what_chooses_and_trains(prepared):
    parts = prepared.trainer.batches
    seen = {part: {tuple(row.tolist()) for one in own for row in one["input_ids"]} for part, own in parts.items()}
    assert all(seen.values())
    assert not seen["judging"] & (seen["train"] | seen["choosing"])


def test_the_more_tokens_are_another_recipe(prepared):
    more = dataclasses.replace(prepared.trainer, factor=4)
    assert more.recipe["max_steps"] == 4 * prepared.trainer.recipe["max_steps"]
    assert more.recipe_hash != prepared.trainer.recipe_hash


def test_an_exception_before_a_step_ends_a_training(prepared):
    def stop(step):
        if step == 3:
            raise SystemExit("the farm is gone")

    with pytest.raises(SystemExit):
        prepared.trainer.train(("attention1", "ffn32") * 3, 0, on_step=stop)


def test_the_plan_tells_hours_of_every_part(bench, tmp_path):
    lines = list(bench.plan_lines(bench.Settings(), tmp_path))
    assert len(lines) == 1 + len(bench.FACTORS) + 2
    assert [line.partition(":")[0] for line in lines[-2:]] == ["rank, the pilot", "rank, all children"]
    assert "(360)" in lines[1]
    path = bench.table_of(4, tmp_path)
    records.append(path, {"timing": {"cpu_seconds": 3600.0}})
    assert "360.0" in list(bench.plan_lines(bench.Settings(), tmp_path))[2]


@pytest.mark.parametrize(("turned", "chosen"), [((), 1), ((1,), 4), ((1, 4), 16)])
def test_the_rule_takes_the_fewest_tokens_that_keep_the_order(bench, tmp_path, turned, chosen):
    names = [f"child{number}" for number in range(12)]
    children = [{"architecture": name, "band": number % 2, "is_pilot": True} for number, name in enumerate(names)]
    for factor in bench.FACTORS:
        sign = -1 if factor in turned else 1
        for number, name in enumerate(names):
            row = {"architecture": name, "seed": 0, "dev_loss": sign * number + 20}
            records.append(bench.table_of(factor, tmp_path), row)
    assert list(bench.pilot_lines({"children": children}, tmp_path))[-1] == f"By the rule: {chosen} times the tokens."


def test_the_page_shows_how_well_children_are_ranked_as_the_records_say(bench):
    design = json.loads((bench.RECORDS / "minilm-design.json").read_text(encoding="utf-8"))
    table = "\n".join(bench.report_lines(design, 1, bench.RECORDS))
    assert "super-net, uniform, seed 0" in table
    assert table in PAGE.read_text(encoding="utf-8")


@pytest.mark.slow
def test_the_farm_makes_a_table_that_loads_and_ranks(bench, prepared, tmp_path):
    design = bench.make_design(prepared, tmp_path / "design.json")
    pilot = bench.train(prepared, design, tmp_path, is_pilot=True, num_workers=2)
    assert set(pilot) == set(bench.jobs_of(design, is_pilot=True))
    first = bench.table_of(1, tmp_path).read_bytes()
    table = bench.train(prepared, design, tmp_path, is_pilot=False, num_workers=2)
    assert set(table) == set(bench.jobs_of(design))
    assert bench.table_of(1, tmp_path).read_bytes().startswith(first)
    truth = GroundTruth(load_table(f"{bench.table_of(1, tmp_path)}.gz"))
    assert len(truth.architectures) == 12
    assert truth.seed_noise > 0
    own = bench.losses_of(bench.table_of(1, tmp_path))
    assert [one.estimate for one in bench.taus(design, own, own)] == pytest.approx([1.0, 1.0])


@pytest.mark.slow
def test_the_pilot_alone_is_scored_and_super_nets_rank_their_screened_space(bench, prepared, tmp_path, monkeypatch):
    made, trainer = prepared.materials, prepared.trainer
    design = bench.make_design(prepared, tmp_path / "design.json")
    short = {"supernet_steps": 12, "learning_rate": 2e-3, "max_replace_one_loss": 0.1}
    monkeypatch.setattr(made, "arguments", dataclasses.replace(made.arguments, **short))
    # Convolutions leave the space, all else stays.
    losses = [1.0 if "conv3" in one.operators else 0.05 for one in made.table]
    monkeypatch.setattr(
        made, "table", [dataclasses.replace(one, loss=loss) for one, loss in zip(made.table, losses, strict=True)]
    )
    pilot = [Architecture.parse(one["architecture"]) for one in design["children"] if one["is_pilot"]]
    within = [str(child) for child in pilot if "conv3" not in child]
    assert 1 < len(within) < len(pilot)
    with pytest.raises(ValueError, match="0 children: train those of the pilot"):
        bench.score(prepared, design, tmp_path)
    for place, child in enumerate(pilot):
        row = {"architecture": str(child), "seed": 0, "dev_loss": 1.0 + place, "recipe_hash": trainer.recipe_hash}
        told = {"num_encoder_parameters": 9 - place, "recipe": trainer.recipe, "timing": {"cpu_seconds": 1.0}}
        records.append(bench.table_of(1, tmp_path), row | told)
    bench.score(prepared, design, tmp_path, num_drawn=4)
    file = bench.ranks_of(1, tmp_path)
    made_then = json.loads(file.read_text())["made"]
    inherited = made_then["inherited weights"]["scores"]
    assert inherited == dict(zip(map(str, pilot), made.scorer(pilot), strict=True))
    nets = [made_then[f"super-net, {method}, seed {seed}"] for method, seed in bench.SUPERNETS]
    assert [one["supernet"]["method"] for one in nets] == ["uniform", "uniform", "magic_t"]
    for one in nets:
        assert list(one["scores"]) == within
        assert one["supernet"]["num_steps"] == 12
        assert one["supernet"]["after"] < one["supernet"]["before"]
        assert one["cpu_seconds"] > 0
        assert all(one["scores"][name] != pytest.approx(inherited[name], rel=1e-3) for name in within)
    assert len({json.dumps(one["scores"]) for one in nets}) == 3
    assert len(made_then["additivity"]["spaces"]["screened space"]["sums"]) == 4
    written = file.read_bytes()
    bench.score(prepared, design, tmp_path, num_drawn=4)
    assert file.read_bytes() == written  # nothing is made twice
    text = "\n".join(bench.report_lines(design, 1, tmp_path))
    assert "| parameters | 0 | 6 | 1.00 (1.00 to 1.00) | 1.00 (1.00 to 1.00) | 5 |" in text
    for method, seed in bench.SUPERNETS:
        assert f"| super-net, {method}, seed {seed} | " in text
    assert text.count("random children") == 2


def test_a_report_tells_all_children_from_those_of_the_screened_space(bench, tmp_path):
    """Scores that turn the order of the screened space round, and keep it elsewhere."""
    names = [
        f"{attention}-{ffn}" for attention in ("attention", "attention6") for ffn in ("ffn", "ffn8", "norm", "skip")
    ]
    space = bench.SearchSpace.of_blocks(["attention,attention6", "ffn,ffn8,norm,skip"], skip="anywhere")
    children = [{"architecture": name, "band": number % 2} for number, name in enumerate(names)]
    design, screened = {"children": children}, [["attention"], ["ffn", "ffn8", "norm", "skip"]]
    for number, name in enumerate(names):
        row = {"architecture": name, "seed": 0, "dev_loss": 1.0 + number, "num_encoder_parameters": number}
        told = {"recipe": {"space": space.to_dict()}, "timing": {"cpu_seconds": 2.0}}
        records.append(bench.table_of(4, tmp_path), row | told)
    inherited = dict(zip(names, [3.0, 2.0, 1.0, 0.0, 4.0, 5.0, 6.0, 7.0], strict=True))
    made = {
        "inherited weights": {"cpu_seconds": 7.4, "scores": inherited},
        "super-net, uniform, seed 0": {"cpu_seconds": 8.0, "scores": dict.fromkeys(names[:4], 1.0), "supernet": {}},
    }
    made["super-net, uniform, seed 0"]["scores"] = {name: float(place) for place, name in enumerate(names[:4])}
    asked = {"screened": screened, "children": names}
    bench.ranks_of(4, tmp_path).write_text(json.dumps({"asked": asked, "made": made}))
    later = {"architecture": "skip-ffn", "seed": 0, "dev_loss": 0.0, "num_encoder_parameters": -9}  # was not scored
    records.append(bench.table_of(4, tmp_path), later | told)
    lines = {line.split("|")[1].strip(): line for line in bench.report_lines(design, 4, tmp_path)}
    by_weights = [cell.strip().split(" ")[0] for cell in lines["inherited weights"].split("|")[2:-1]]
    assert by_weights == [
        "7",
        "8",
        "0.57",
        "0.67",
        "4",
        "-1.00",
        "-1.00",
    ]  # 22 pairs of 28 agree; within bands 10 of 12
    supernet = [cell.strip().split(" ")[0] for cell in lines["super-net, uniform, seed 0"].split("|")[2:-1]]
    assert supernet == ["8", "", "", "", "4", "1.00", "1.00"]
    assert lines["parameters"].split("|")[4].strip().startswith("-1.00 (-1.00 to -1.00)")
    assert lines["additive, fitted on 4"].split("|")[2].strip() == "8"  # CPU-seconds of the four trainings


def test_the_package_has_the_table_that_the_pilots_rule_chose_and_what_is_known_of_it(bench):
    """Its rows are the bytes of the records, and every figure beside them is made of the records anew."""
    design = json.loads((bench.RECORDS / bench.DESIGN).read_text(encoding="utf-8"))
    file, factor = find_table("minilm"), bench.chosen_factor(design, bench.RECORDS)
    again = "other rows or figures: python benchmarks/minilm_table.py card --factor"
    recorded = bench.table_of(factor, bench.RECORDS)
    assert file.read_bytes() == recorded.with_name(f"{recorded.name}.gz").read_bytes(), again
    assert read_table_facts(file) == bench.facts_of(design, bench.RECORDS), again
    rows = bench.rows_of(recorded)
    table = load_table("minilm")
    assert list(table) == rows
    truth = GroundTruth(table)
    assert len(truth.architectures) == len(design["children"]) == 300
    assert len(table) == 360
    bands = {one["architecture"]: one["band"] for one in design["children"]}
    pairs = {(bands[str(child)], int(at)) for child, at in zip(truth.architectures, truth.bucket_of, strict=True)}
    assert len(pairs) == 3, "buckets of similar size are the three sizes of the design"
    card = (bench.CARDS / "table-minilm.md").read_text(encoding="utf-8")
    for column in table.column_names:
        assert re.search(rf"^\|.*`{column}`.* \|", card, re.MULTILINE), f"the card does not say what {column} is"


def test_records_become_the_packages_table_if_the_rule_chose_them(bench, prepared, tmp_path):
    children = [
        {"architecture": str(job.architecture), "band": 0.5, "kind": kind, "is_pilot": True}
        for job, kind in zip(draw(bench, prepared), bench.KINDS, strict=True)
    ]
    design = {"settings": dataclasses.asdict(prepared.trainer.settings), "children": children}
    rows = [prepared.trainer.train(job.architecture, job.seed) for job in draw(bench, prepared)]
    for factor in bench.FACTORS:
        path = bench.table_of(factor, tmp_path)
        records.extend(path, rows)
        compress_table(path)
    places = {"tables": tmp_path / "tables", "cards": tmp_path / "cards"}
    for folder in places.values():
        folder.mkdir()
    with pytest.raises(ValueError, match="the table has 1 times the tokens: give --factor 1"):
        bench.package(design, 4, tmp_path, **places)
    assert not list(places["tables"].iterdir())
    bench.package(design, 1, tmp_path, **places)
    file = places["tables"] / "table-minilm.jsonl.gz"
    assert list(load_table(str(file))) == rows
    facts = read_table_facts(file)
    judged = sum(len(batch["input_ids"]) for batch in prepared.trainer.batches["judging"])
    assert facts.num_dev_sequences == judged
    assert "1 are near the best sums" in facts.drawn
    card = (places["cards"] / "table-minilm.md").read_text(encoding="utf-8")
    assert 'load_table("minilm")' in card
    assert f"on {judged} held-out sequences" in card
    assert "a Kendall's tau of 1.00 over all, and of 1.00 within" in card
    assert "3 rows: each is one training" in card


def test_the_card_says_that_children_were_distilled(bench, prepared):
    rows = [prepared.trainer.train(job.architecture, job.seed) for job in draw(bench, prepared)]
    card = render_table_card("minilm", GroundTruth(Dataset.from_list(rows)))
    assert "8 steps of 16 sequences" in card
    assert "distance from the base model" in card
    assert f"on {prepared.trainer.recipe['num_pairs']} pairs of STS-B's validation split" in card
    for words in (
        "8 steps of 16 sequences of at most 12", "warm-up over 10 % of the steps",
        "gradients clipped\n  to a norm of 1;",
        "1 times the squared error of the last states", "5 times (1 - cosine", "(pooled by `mean`)",
        "10 times the mean squared error of inner states", "after the choice blocks 1, 3, counted from 0",
        "under seed 0 (the training that is a child's truth)", "3 times `attention", "| noise of the ground truth |",
        "one base model. The dev set",
    ):  # fmt: skip
        assert words in card, words
    assert not any(words in card for words in ("from scratch", "nats", "masks"))


def draw(bench, prepared):
    """Jobs of three children."""
    return [bench.Job(Architecture.parse(one["architecture"]), 0) for one in bench.draw_children(prepared)[:3]]
