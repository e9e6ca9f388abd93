"""Tables of the evidence are made from records alone, say what is missing, and the page holds them."""

import dataclasses
import json
import random
from types import SimpleNamespace

import numpy as np
import pytest
from tiny.minilm import BENCHMARKS, SPACE, benchmark

from hf_nasbert import records

PAGE = BENCHMARKS.parent / "docs" / "evidence.md"
BANDS = (0.25, 0.5)


@pytest.fixture(scope="module")
def bench():
    with benchmark("evidence") as module:
        yield module


def worth(child):
    """A loss that is a sum over blocks, and a bit."""
    parts = {"attention": 0.0, "attention6": 0.1, "skip": 0.5, "ffn": 0.0, "ffn8": 0.2, "norm": 0.7}
    return 0.3 + sum(parts[name] / (1 + block) for block, name in enumerate(child))


@pytest.fixture
def folder(tmp_path):
    """Records of 80 children, of which a seed of `uniform` knows the order and one of `fair` nothing."""
    rng = random.Random(0)
    children = rng.sample(list(SPACE.enumerate()), 80)
    kinds = ("near", "screened", "whole", "whole")
    design = [
        {"architecture": str(child), "band": BANDS[place % 2], "kind": kinds[place // 2 % 4], "is_pilot": place < 6,
         "num_seeds": 1}
        for place, child in enumerate(children)
    ]  # fmt: skip
    screened = [[name for name in names if name != "norm"] for names in SPACE.blocks]
    (tmp_path / "minilm-design.json").write_text(json.dumps({"children": design, "screened": screened}))
    for child in children:
        loss = worth(child)
        row = {
            "architecture": str(child), "seed": 0, "dev_loss": loss, "stsb_validation": 1 - loss / 10, "passes": 196.0,
            "teacher_passes": 60, "num_encoder_parameters": 100 - len(str(child)), "flops": 5,
            "curve": [[step, loss + (60 - step) / 100] for step in (0, 15, 30, 45, 60)],
            "recipe": {"space": SPACE.to_dict(), "max_steps": 60}, "timing": {"cpu_seconds": 1.0},
        }  # fmt: skip
        records.append(tmp_path / "table-minilm-x1.jsonl", row)
    about = {"study": "about", "children": list(map(str, children))}
    records.append(tmp_path / "minilm-supernets.jsonl", about)
    inside = [all(name in names for name, names in zip(child, screened, strict=True)) for child in children]

    def add(study, variant, space, seed, scores, **more):
        told = {"study": study, "variant": variant, "space": space, "seed": seed, "scores": scores, **more}
        common = {"scored_batches": 6, "cpu_seconds": 9.0, "cosines": [[1, 0.9, 4], [3, 0.1, 4]]}
        records.append(tmp_path / "minilm-supernets.jsonl", common | told)

    add("untrained", "inherited weights", "whole", 0, [worth(child) + rng.gauss(0, 0.2) for child in children])
    add(
        "untrained",
        "replace-one sums",
        "whole",
        0,
        [worth(child) + rng.gauss(0, 0.3) for child in children],
        passes=200,
    )
    for seed in (100, 101, 102):
        known = [worth(child) + rng.gauss(0, 0.02) if within else None
                 for child, within in zip(children, inside, strict=True)]  # fmt: skip
        nothing = [rng.random() if within else None for within in inside]
        trained = {"passes": 600.0, "teacher_passes": 200}
        add("run", "uniform", "screened", seed, known, **trained)
        add("run", "fair", "screened", seed, nothing, **trained)
        few = [worth(child) if within and place % 3 else None
               for place, (child, within) in enumerate(zip(children, inside, strict=True))]  # fmt: skip
        add("adapt", "uniform", "screened", seed, few, passes_of_each=51, **trained)
    return tmp_path


def rows(text):
    lines = [line for line in text.splitlines() if line.startswith("|")]
    return {line.split("|")[1].strip(): [cell.strip() for cell in line.split("|")[2:-1]] for line in lines}


def test_every_measure_of_a_ranking(bench, folder):
    import minilm_orders as orders

    evidence = bench.evidence_of(folder)
    truth = evidence.truth
    assert evidence.factor == 1
    perfect = orders.measured(dict(zip(truth.names, truth.losses, strict=True)), truth)
    assert perfect == pytest.approx(
        {"tau": 1, "within bands": 1, "best third": 1, "P@10": 1, "best of 10": 1, "regret, %": 0}
    )
    turned = orders.measured(dict(zip(truth.names, -truth.losses, strict=True)), truth)
    assert [turned[name] for name in ("tau", "within bands", "best third", "P@10")] == pytest.approx([-1, -1, -1, 0])
    worst = [truth.losses[truth.bands == band].max() / truth.losses[truth.bands == band].min() for band in BANDS]
    assert turned["regret, %"] == pytest.approx(100 * (np.mean(worst) - 1))


@pytest.mark.parametrize(
    ("numbers", "counted"), [((3, 60, 60), (1, 2)), ((5, 60), (1,)), ((6, 60), (0, 1)), ((3, 3), (0, 1)), ((1, 1), ())]
)
def test_a_band_of_few_children_is_not_looked_into(bench, numbers, counted):
    import minilm_orders as orders

    bands = np.repeat(np.arange(len(numbers)), numbers)
    assert set(bands[orders.in_large_bands(bands)]) == set(counted)
    rng = np.random.default_rng(0)
    losses = rng.random(len(bands))
    names = list(map(str, range(len(bands))))
    truth = orders.Truth(names, bands, losses, [{}] * len(bands))
    scores = np.where(np.isin(bands, counted), losses, -losses)
    found = orders.measured(dict(zip(names, scores, strict=True)), truth)
    assert found["within bands"] == pytest.approx(1) or not counted
    assert len(orders.intervals([dict(zip(names, scores, strict=True))], truth)) == 2


def test_the_tables_tell_who_ranks_and_the_tests_say_so(bench, folder):
    evidence = bench.evidence_of(folder)
    made = bench.sections(evidence, {})
    table = rows(made["evidence ranking"])
    tau = {name: float(cells[2].split(" ")[0]) for name, cells in table.items() if len(cells) > 2 and "±" in cells[2]}
    assert tau["uniform (screened)"] > 0.9 > 0.3 > abs(tau["fair (screened)"])
    assert "replace-one sums" in table
    assert "additive, fitted on 30" not in table, "few of these children are left of the screened space"
    tests = made["evidence tests"].splitlines()
    fair = next(line for line in tests if line.startswith("| fair (screened) | uniform |"))
    assert float(fair.split("|")[4].split("[")[0]) < -0.5
    assert "| uniform (screened) | inherited weights | 3 |" in made["evidence tests"]
    cosines = rows(made["evidence interference"])["uniform (screened)"]
    assert [cell.split(" ")[0] for cell in cosines] == ["3", "0.500", "0.900", "0.100"]
    assert "`python benchmarks/minilm_ranking.py sweep`" in made["evidence sweep"]
    assert "has not been run yet" in made["evidence pilot"]
    assert "bar of 0.96 and 0.88" in made["evidence lines"]
    assert "MAGIC's order, uniform below magic_t below magic_at, is not seen" in made["evidence lines"]
    assert "a cosine of 0.500 after uniform; over 6 super-nets" in made["evidence lines"]
    assert (
        "On `minilm` nothing can be said yet of what to do with compute: it has 80 children." in made["evidence lines"]
    )


def test_magics_order_is_told_where_it_is_seen(bench, folder):
    rows = records.read(folder / "minilm-supernets.jsonl")
    for variant, noise in (("magic_t", 0.01), ("magic_at", 0.0)):
        for row in [one for one in rows if one["study"] == "run" and one["variant"] == "uniform"]:
            pairs = enumerate(zip(rows[0]["children"], row["scores"], strict=True))
            scores = [None if score is None else worth(child.split("-")) + noise * (place % 7)
                      for place, (child, score) in pairs]  # fmt: skip
            records.append(folder / "minilm-supernets.jsonl", row | {"variant": variant, "scores": scores})
    told = list(bench.lines(bench.evidence_of(folder), {}, []))
    assert any("is seen; by tau within bands: uniform 0.9" in line for line in told)


def test_what_follows_the_sums_is_told_without_the_children_near_them_too(bench, folder):
    evidence = bench.evidence_of(folder)
    drawn = evidence.truth_of(bench.DRAWN)
    assert 10 < len(drawn.names) < len(evidence.screened)
    assert not {*drawn.names} & evidence.near
    found = bench.sections(evidence, {})
    numbers = {name: found[f"evidence ranking{name}"].split(" ")[1] for name in ("", ", drawn children")}
    assert numbers == {"": str(len(evidence.screened)), ", drawn children": str(len(drawn.names))}
    uniform = bench.mean_of(evidence, "uniform (screened)", "tau", bench.DRAWN)
    assert f"| {uniform:.2f} " in next(
        line for line in found["evidence ranking, drawn children"].splitlines() if "uniform (screened)" in line
    )

    import regret

    whole, part = (regret.minilm_cases(evidence, with_near=asked)["25 %"] for asked in (True, False))
    assert {*part.seen} == {child for child in whole.seen if str(child) not in evidence.near}
    assert part.rankings["super-net, uniform"].price < whole.rankings["super-net, uniform"].price, "fewer are scored"
    replays = regret.replays_of({"25 %": part}, 2, regret.is_untrained)
    assert "first few by super-net, uniform" in replays
    assert not [name for name in replays if "additive" in name or "calibrated" in name]


def test_what_won_the_sweep_is_told_on_its_own_seeds(bench, folder):
    rows = records.read(folder / "minilm-supernets.jsonl")
    truth = {child: worth(child.split("-")) for child in rows[0]["children"]}
    for row in rows:
        if row["study"] == "run":
            known = [
                truth[c] if s is not None else None for c, s in zip(rows[0]["children"], row["scores"], strict=True)
            ]
            scores = known if row["variant"] == "fair" else row["scores"]
            records.append(folder / "minilm-supernets.jsonl", row | {"study": "confirm", "scores": scores})
    evidence = bench.evidence_of(folder)
    made = bench.sections(evidence, {})
    assert "fair 1.000 (1.000 within bands). The bar of 0.96 and 0.88 is reached." in made["evidence lines"]
    assert "| fair (screened) | uniform | 3 | +" in made["evidence confirm"]


def test_what_was_tried_at_the_bar_is_told_with_its_price(bench, folder):
    import minilm_orders as orders

    found_rows, rng = records.read(folder / "minilm-supernets.jsonl"), random.Random(1)
    wrong = [worth(child.split("-")) + 0.15 * child.split("-").count("ffn8") for child in found_rows[0]["children"]]
    for row in [one for one in found_rows if one["study"] == "run" and one["variant"] == "uniform"]:
        scores = [None if known is None else loss + rng.gauss(0, 0.1)
                  for loss, known in zip(wrong, row["scores"], strict=True)]  # fmt: skip
        records.append(folder / "minilm-supernets.jsonl", row | {"study": "confirm", "scores": scores})
    evidence = bench.evidence_of(folder)
    truth, found = evidence.truth_of(bench.SCREENED), orders.tried(evidence)
    assert list(found) == [f"uniform{way}{few}" for way in ("", ", mean of 3") for few in ("", ", calibrated by 8")], (
        "so few children calibrate no more"
    )
    tau = {name: np.mean([orders.measured(scores, truth)["tau"] for scores in way.rankings.values()])
           for name, way in found.items()}  # fmt: skip
    assert tau["uniform, mean of 3"] > tau["uniform"] + 0.02, "noise is taken out"
    assert tau["uniform, calibrated by 8"] > tau["uniform"] + 0.02, "what is wrong of an operator is mended"
    assert all(len(scores) == len(truth.names) - 8 for scores in found["uniform, calibrated by 8"].rankings.values())
    passes = 600 + 6 * len(truth.names)
    once = 200 + 200  # the base model's forwards, and the lone replacements that screen
    assert found["uniform"].passes == passes + once
    assert found["uniform, mean of 3"].passes == 3 * passes + once
    assert found["uniform, calibrated by 8"].passes == passes + once + 8 * 196
    made = bench.sections(evidence, {})
    best = max(tau, key=tau.get)
    assert f"Nearest to the bar of what was tried since: {best}, {tau[best]:.3f} (" in made["evidence lines"]
    assert f"for {found[best].passes / 256:.0f} child-trainings." in made["evidence lines"]
    assert {*rows(made["evidence tried"])} >= {*found}


def test_the_advantage_of_the_searched_child_is_told_at_every_number_of_tokens(bench, tmp_path):
    import minilm_recovery

    assert bench.advantage_line(tmp_path) is None

    def recovered(way, factor, seed, value):
        job = minilm_recovery.Job(way, 0.5, factor, seed)
        row = {"kind": "recovery", **job._asdict(), "judged": {"spearman": value}, "base_model": {"spearman": 0.8}}
        records.append(tmp_path / bench.RECOVERY, row)
        return job.model

    by_way = {"searched": (0.80, 0.82), "best layers": (0.76, 0.81), "uniform width": (0.70, 0.70)}
    for way, values in by_way.items():
        for factor, value in zip((1, 4), values, strict=True):
            tuned = {"kind": "finetune", "task": "brown", "metrics": {"test": {"accuracy": value}}}
            tuned["model"] = f"runs/{recovered(way, factor, 0, value)}"
            records.append(tmp_path / bench.RECOVERY, tuned)
    told = bench.advantage_line(tmp_path)
    assert (
        "with 50% of the parameters +5.0 points at 1 times the tokens, +1.2 points at 4 times the tokens "
        "(fine-tuned at 4: +1.0 on brown)." in told
    )
    assert "*12 of 162 jobs are done: `python benchmarks/minilm_recovery.py run` goes on.*" in told
    recovered("searched", 1, 1, 0.78)  # of this seed there is no other: it is not counted
    assert "+5.0 points at 1 times" in bench.advantage_line(tmp_path)
    recovered("best layers", 1, 1, 0.78)
    recovered("uniform width", 1, 1, 0.79)
    assert "+2.5 ± 3.5 points at 1 times" in bench.advantage_line(tmp_path)


def test_fresh_seeds_of_imdb_are_told_with_their_bar(bench, folder):
    rows = [
        bench.Fresh("uniform", "the end", 5, False, 0.6, ("0.600 ± 0.010", "0.0"), 5.6),
        bench.Fresh("adapted", "half time", 5, False, 0.5, ("0.500 ± 0.020", "0.1"), 3.2),
        bench.Fresh("worse", "half time", 5, False, 0.2, ("0.200 ± 0.020", "0.1"), 2.0),
        bench.Fresh("uniform + 30", "the end", 5, True, 0.7, ("0.700 ± 0.030", "0.2"), 35.6),
    ]
    *_, told = bench.lines(bench.evidence_of(folder), {}, rows)
    assert "the best of 2 rankings at no more than 5 child-trainings is adapted, of super-nets at half time" in told
    assert "tau 0.500 ± 0.020 for 3.2. The bar of 0.45 is reached." in told
    assert told.endswith("With any compute it is uniform + 30, of super-nets at the end: tau 0.700 ± 0.030 for 35.6.")
    few, many = (bench.Fresh(f"{n} trained, additive", "the end", 9, False, 0.1, (f"0.{n}", ""), n) for n in (8, 30))
    *_, told = bench.lines(bench.evidence_of(folder), {}, [many, few, rows[0], *rows[2:]])
    assert "The bar of 0.45 is not reached." in told
    assert told.endswith("for 35.6; 8 trained, additive: tau 0.8 for 8.0.")
    assert "| adapted | half time | 5 | 3.2 | 0.500 ± 0.020 | 0.1 |" in bench.fresh_text(rows)


def test_a_fresh_ranking_costs_its_super_net_and_what_it_scores_or_trains(bench):
    recipe = {"max_steps": 1200, "num_dev_batches": 120, "dev_batch_size": 32, "train_batch_size": 64}
    truth = SimpleNamespace(recipe=recipe, architectures=["child"] * 100)
    training = 3 * 1200 + 60
    assert bench.fresh_price(truth, 0.5, None) == pytest.approx((3600 + 100 * 8) / training)
    assert bench.fresh_price(truth, 1.0, {"children": 30, "steps": 25}) == pytest.approx((7200 + 30 * 83) / training)


@pytest.mark.slow
def test_replays_of_policies_spend_what_they_say_and_find_what_they_can(bench, folder):
    import regret

    cases = regret.minilm_cases(bench.evidence_of(folder))
    assert list(cases) == ["25 %", "50 %"]
    case = cases["25 %"]
    one = (196 + 60) / 256
    assert case.price(1) == pytest.approx(one)
    assert case.price(3) == pytest.approx(1 + 2 * 196 / 256)
    for name, policy in regret.policies_of(case).items():
        steps = list(policy(case, random.Random(1)))
        assert steps, name
        assert all(spent >= one - 1e-9 and child in case.seen for spent, child in steps), name
    at_random = list(regret.at_random("whole")(case, random.Random(2)))
    assert [spent for spent, _ in at_random] == pytest.approx([case.price(n + 1) for n in range(len(at_random))])
    regrets = [case.regret(child) for _, child in at_random]
    assert regrets == sorted(regrets, reverse=True)
    (spent, _), *_ = regret.ranked("super-net, uniform")(case, random.Random(0))
    (spent_adapted, child), *_ = regret.adapting("15 steps from a super-net, uniform", 15)(case, random.Random(0))
    screening = 200
    adapted = case.drawable(case.adapted["15 steps from a super-net, uniform"].scores[0])
    assert 8 < len(adapted) < 15, "the table has few, and those near the sums are not drawn"
    assert spent_adapted == pytest.approx((600 + 200 + screening + len(adapted) * 51) / 256 + 1)
    assert str(child) in bench.evidence_of(folder).screened
    known = len(case.rankings["super-net, uniform"].scores[0])
    assert spent == pytest.approx((600 + 200 + screening + 6 * known) / 256 + 1)
    assert min(case.reached.values()) == case.reached[list(regret.active(case, random.Random(0)))[-1][1]]
    replays = regret.replays_of(cases, 8)
    names = dict(regret.winners(replays, (1, 30)))
    assert next(iter(names)).startswith(("random", "first few by")), "one training pays for nothing else"
    table = rows("\n".join(regret.regret_lines(replays)))
    assert float(table["additive model, active"][3].split(" ")[0]) == 0
    few, many = (float(table["random choice from the whole space"][place].split(" ")[0]) for place in (0, 2))
    assert few > many


def test_of_equal_policies_the_one_wins_that_gets_there_for_less(bench):
    import regret

    def replays(*steps):
        return [[regret.Replay([spent for spent, _ in steps], [left for _, left in steps], [0.0] * len(steps))]]

    found = {"a": replays((1, 9), (30, 0)), "b": replays((5, 3), (10, 0), (20, 0)), "c": replays((2, 1), (90, 0))}
    assert [name for name, _ in regret.winners(found, (1, 3, 10, 100))] == ["a", "c", "b", "b"]


def test_the_first_sentence_names_the_cheapest_policy_and_the_table_its_regret_and_ties(bench, folder):
    import regret

    def replays(*steps):
        return [[regret.Replay([s for s, *_ in steps], [left for _, left, _ in steps], [q for *_, q in steps])]]

    sums, default, search = "sums", bench.DEFAULTS[0][2], bench.DEFAULTS[1][2]
    replayed = {
        "minilm": {
            "layers": replays((1, 9.0, 0.7)),
            sums: replays((2, 3.0, 0.6), (8, 0.0, 0.8)),
            default: replays((9, 0.0, 0.9)),
        },
        "imdb": {
            "random": replays((1, 5.0, 0.0)),
            "within noise": replays((5, 3.4, 0.0)),
            search: replays((9, 3.0, 0.0)),
        },
    }
    evidence = bench.evidence_of(folder)
    first, second, *_ = bench.lines(evidence, replayed, [])
    assert first == (
        "**What to do with compute, in child-trainings:** on `minilm` with 1 *layers*, with 3, 10 and 100 *sums*; on "
        "`imdb` with 1 and 3 *random*, with 10 and 100 *within noise*."
    )
    assert "`minilm` has 80 children, each distilled alone with 1 times the pilot's tokens, 0 of them twice" in second
    table = rows("\n".join(bench.answer_lines(evidence, replayed)))
    assert table["`minilm`: regret"] == [
        "layers, 9.0 %",
        "sums, 3.0 %",
        "sums, 0.0 % (1 more)",
        "sums, 0.0 % (1 more)",
    ]
    assert table["`minilm`: best by STS-B"] == [
        "layers, 0.700",
        "layers, 0.700 (above: 0.600)",
        *[f"{default}, 0.900 (above: 0.800)"] * 2,
    ]
    assert table["`imdb`: regret"][2] == "within noise, 3.4 % (1 more)"
    compress, of_search = bench.default_lines(evidence, replayed)
    assert compress == (
        f"- `compress`, on `minilm` *{default}*: regret with 10 0.0 % (0.0 above the best, within the noise), with "
        "100 0.0 % (0.0 above the best, within the noise)."
    )
    replayed["imdb"]["better"] = replays((9, 1.0, 0.0))
    *_, of_search = bench.default_lines(evidence, replayed)
    assert "regret with 10 3.0 % (2.0 above the best), with 100 3.0 % (2.0 above the best)." in of_search


def test_ways_pay_for_what_they_train_score_and_screen(bench):
    """On the committed records."""
    evidence = bench.evidence_of(bench.RECORDS)
    truth, found = evidence.truth_of(bench.SCREENED), bench.ways(evidence, bench.SCREENED)
    sums, inherited, number = found["replace-one sums"], found["inherited weights"], len(truth.names)
    alone = np.mean([row["passes"] for row in truth.rows])
    assert inherited.passes == 6 * number
    assert found["additive, fitted on 30"].passes == pytest.approx(sums.passes + 30 * alone + 60)
    row = evidence.supernets_of("run", "screened")["uniform"][100]
    assert found["uniform (screened)"].passes == row["passes"] + row["teacher_passes"] + 6 * number + sums.passes
    assert found["uniform (whole)"].passes == row["passes"] + row["teacher_passes"] + 6 * number
    assert found["uniform + inherited weights"].passes == found["uniform (screened)"].passes + inherited.passes


def test_what_learns_from_children_sees_the_text_that_chooses_alone(bench, folder):
    """And what it chooses is judged by the mean over seeds on the text that judges."""
    import minilm_orders as orders
    import regret

    path = folder / "table-minilm-x1.jsonl"
    first = records.read(path)[0]
    records.append(path, first | {"seed": 1, "dev_loss": first["dev_loss"] + 0.5})
    evidence = bench.evidence_of(folder)
    chosen = {row["architecture"]: row["curve"][-1][1] + 1.0 for row in evidence.truth.rows}
    for row in evidence.truth.rows:
        row["curve"][-1][1] += 1.0
    case = next(one for one in regret.minilm_cases(evidence).values() if first["architecture"] in map(str, one.seen))
    assert {str(child): loss for child, loss in case.seen.items()} == {str(c): chosen[str(c)] for c in case.seen}
    reached = {str(child): loss for child, loss in case.reached.items()}
    assert reached[first["architecture"]] == pytest.approx(first["dev_loss"] + 0.25)
    seen = []
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(
            orders, "calibrated", lambda blocks, few, *_: seen.append(few) or (lambda asked: [0] * len(asked))
        )
        names = dict.fromkeys(evidence.truth.names, 0.0)
        orders._by_few(evidence.truth, names, 5, 0)
    assert {str(child): loss for child, loss in seen[0].items()} == {str(c): chosen[str(c)] for c in seen[0]}


@pytest.mark.parametrize(("tau", "within", "said"), [(0.97, 0.89, "reached"), (0.97, 0.8, "not"), (0.9, 0.9, "not")])
def test_a_bar_of_two_measures_is_reached_by_both(bench, monkeypatch, tau, within, said):
    monkeypatch.setattr(bench, "mean_of", lambda _, name, measure, **more: tau if measure == "tau" else within)
    assert bench.bar_of(None, "uniform", "run").startswith(f"The bar of 0.96 and 0.88 is {said}")


def test_halving_pays_for_what_it_trains(bench, folder):
    import regret

    case = regret.minilm_cases(bench.evidence_of(folder))["25 %"]
    spent, child = next(iter(regret.halving("whole")(case, random.Random(0))))
    drawn = random.Random(0).sample(list(case.pools["whole"]), 4)
    assert child == case.best(drawn), "curves keep the order here"
    assert spent == pytest.approx(60 / 256 + (4 + 2 + 1 + 1) / 4 * 196 / 256)


def test_calibration_trains_all_screened_children_of_a_small_band(bench, folder):
    import regret

    case = regret.minilm_cases(bench.evidence_of(folder))["25 %"]
    whole = case.rankings["super-net, uniform"]
    few = dict(list(whole.scores[0].items())[:3])
    small = dataclasses.replace(case, rankings={"super-net": regret.Ranking([few], whole.price)})
    steps = list(regret.modelled("screened", "super-net")(small, random.Random(0)))
    assert steps == [(pytest.approx(whole.price + case.price(3)), case.best(list(few)))]


def test_a_policy_is_judged_by_what_its_compute_pays_for(bench):
    import regret

    replay = regret.Replay([1.0, 2.0, 1.5], [9.0, 1.0, 5.0], [0.1, 0.9, 0.5])
    assert replay.at(0.9) is None
    assert [replay.at(compute) for compute in (1, 1.7, 3)] == [(9.0, 0.1), (5.0, 0.5), (1.0, 0.9)]
    assert regret.at_compute([[replay, replay]], 0.5) is None
    assert regret.at_compute([[replay, replay]], 2).mean == 1.0


def assert_page_holds(sections):
    page = PAGE.read_text(encoding="utf-8")
    for name, text in sections.items():
        assert f"<!-- table: {name} -->\n{text}\n<!-- end -->" in page, "run: python benchmarks/evidence.py"


@pytest.mark.slow
def test_the_page_holds_what_the_records_say(bench):
    assert_page_holds(bench.sections_of_records(bench.evidence_of(bench.RECORDS)))


@pytest.mark.slow
def test_the_page_holds_what_replays_of_the_records_say(bench):
    evidence = bench.evidence_of(bench.RECORDS)
    assert_page_holds(bench.sections_of_replays(evidence, bench.replays(evidence)))


def test_the_page_opens_with_ten_lines_at_most():
    told = PAGE.read_text(encoding="utf-8").split("<!-- table: evidence lines -->")[1].split("<!-- end -->")[0]
    assert 3 <= len(told.split("\n- ")) - 1 <= 10
