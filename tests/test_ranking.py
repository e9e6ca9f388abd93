"""The ranking study: planted truths are found, noise is told from signal, and what does not belong is refused."""

import gzip
import json
import math
import random
import statistics

import numpy as np
import pytest
import yaml
from datasets import Dataset

from hf_nasbert import metrics, records
from hf_nasbert.cards import TableFacts, read_table_facts, render_table_card
from hf_nasbert.methods import METHODS
from hf_nasbert.plots import plot_proxy_against_truth, plot_tau_by_method, plot_tau_over_steps, save_figure
from hf_nasbert.ranking import (
    GroundTruth,
    agreement,
    baselines,
    compare,
    find_table,
    last_steps,
    load_table,
    measures,
    one_training_by_another,
    operator_counts,
    operator_worth,
    proxy_losses,
    rank,
    read_scores,
    report,
)
from hf_nasbert.space import Architecture, SearchSpace

SPACE = SearchSpace.of_blocks(["conv3", *["attention,ffn,conv3"] * 4])
SIZE_OF = {"attention": 16_000, "ffn": 33_000, "conv3": 9_000}
RECIPE = {
    "space": SPACE.to_dict(), "hidden_size": 64, "ffn_ratio": 4, "num_conv_layers": 2, "max_steps": 8,
    "train_batch_size": 16, "sequence_length": 32, "learning_rate": 6e-3, "warmup_ratio": 0.3, "vocab_size": 300,
    "mlm_probability": 0.15, "source": "reviews", "text": "ab12", "num_dev_batches": 8, "dev_batch_size": 64,
}  # fmt: skip
FEW = {"num_resamples": 20}
FEW_DRAWS = 20


@pytest.fixture
def few_draws(monkeypatch):
    """Of the random baselines, which take most of a report's time."""
    monkeypatch.setattr(agreement, "_NUM_DRAWS", FEW_DRAWS)


def child_record(child, loss, seed=0, **others):
    size = 100_000 + sum(SIZE_OF[name] for name in child)
    return {
        "architecture": str(child),
        "seed": seed,
        "dev_loss": loss,
        "curve": [[4, loss + 1], [8, loss]],
        "num_parameters": size,
        "flops": 3 * size - 60_000 * child.count("attention"),  # ordered otherwise than sizes
        "recipe_hash": "abc",
        "recipe": RECIPE,
        "versions": {},
        "timing": {},
    } | others


def make_records(noise=0.01, num_repeated=20, num_seeds=3, seed=0):
    """All 81 children: attention is good, ffn bad, the first free block counts double; and a common shift by seed."""
    rng = random.Random(seed)
    worth = {"attention": -0.1, "ffn": 0.1, "conv3": 0.0}
    rows = []
    for index, child in enumerate(SPACE.enumerate()):
        true_loss = 5 + sum(worth[name] for name in child) + worth[child[1]]
        for repeat in range(num_seeds if index % (81 // num_repeated) == 0 else 1):
            rows.append(child_record(child, true_loss + 0.5 * repeat + rng.gauss(0, noise), repeat))
    return rows


@pytest.fixture(scope="module")
def truth():
    return GroundTruth(Dataset.from_list(make_records()))


def score_record(truth, losses, **others):
    return {
        "method": "uniform",
        "seed": 0,
        "step": 100,
        "max_steps": 100,
        "recipe_hash": truth.recipe_hash,
        "proxy_losses": {str(child): float(loss) for child, loss in zip(truth.architectures, losses, strict=True)},
    } | others


def make_scores(truth, seeds=4):
    """Super-nets whose losses are the truth plus noise: little for magic_t, more for uniform, more still halfway."""
    found = []
    for method, noise in (("uniform", 0.3), ("magic_t", 0.05)):
        for seed in range(seeds):
            rng = np.random.default_rng([seed, int(100 * noise)])
            for step, factor in ((50, 3), (100, 1)):
                losses = truth.loss + 0.4 + factor * noise * rng.standard_normal(len(truth.loss))
                found.append(score_record(truth, losses, method=method, seed=seed, step=step))
    return found


class TestTable:
    def test_a_file_becomes_a_dataset_compressed_or_not(self, tmp_path):
        rows = make_records()[:5]
        records.extend(tmp_path / "t.jsonl", rows)
        (tmp_path / "t.jsonl.gz").write_bytes(gzip.compress((tmp_path / "t.jsonl").read_bytes()))
        for name in ("t.jsonl", "t.jsonl.gz"):
            table = load_table(str(tmp_path / name))
            assert table["dev_loss"][:] == [row["dev_loss"] for row in rows]
            assert SearchSpace.from_dict(table[0]["recipe"]["space"]) == SPACE

    def test_unknown_names_and_foreign_files_are_refused_by_name(self, tmp_path):
        with pytest.raises(FileNotFoundError, match=r"no table 'no-such'.*, or one of imdb, minilm$"):
            load_table("no-such")
        with pytest.raises(FileNotFoundError, match=r"gone\.jsonl"):
            load_table(str(tmp_path / "gone.jsonl"))
        records.append(tmp_path / "other.jsonl", {"architecture": "ffn", "seed": 0})
        with pytest.raises(ValueError, match=r"record 1 is no trained child: it lacks dev_loss"):
            load_table(str(tmp_path / "other.jsonl"))
        whole = json.dumps(make_records()[0])
        (tmp_path / "cut.jsonl").write_text(f"{whole[:80]}\n{whole}\n")
        with pytest.raises(ValueError, match=r"cut\.jsonl, line 1 is not a record"):
            load_table(str(tmp_path / "cut.jsonl"))

    def test_the_truth_is_the_mean_over_seeds_that_all_have(self, truth):
        rows = [row for row in make_records(num_repeated=81) if row["seed"] < 2 or row["architecture"].endswith("ffn")]
        both = GroundTruth(Dataset.from_list(rows))
        assert both.seeds == [0, 1]
        assert both.loss[5] == pytest.approx((both.losses[5][0] + both.losses[5][1]) / 2)
        assert both.noise == pytest.approx(both.seed_noise / 2**0.5)
        assert both.best_repeats.shape == (2, 81)
        with pytest.raises(ValueError, match="no seed is common to all"):
            GroundTruth(
                Dataset.from_list([*rows[:8], rows[0] | {"seed": 7, "architecture": rows[-1]["architecture"]}])
            )

    @pytest.mark.usefixtures("few_draws")
    def test_children_may_be_those_that_hold_an_operator(self, truth):
        some = GroundTruth(Dataset.from_list(make_records()), containing="attention")
        assert len(some.architectures) == 81 - 16
        assert all("attention" in child for child in some.architectures)
        assert set(some.loss) < set(truth.loss)
        assert "65 children that hold `attention`" in report(some, make_scores(truth), **FEW).as_markdown()
        with pytest.raises(ValueError, match="0 children that hold 'conv7'"):
            GroundTruth(Dataset.from_list(make_records()), containing="conv7")

    def test_the_ceiling_holds_one_more_training_against_the_truth(self):
        noisy = [row for row in make_records(0.2, num_repeated=81) if row["seed"] < 2 or hash(row["dev_loss"]) % 2]
        two = GroundTruth(Dataset.from_list([row for row in noisy if row["seed"] < 2]))
        taus = [metrics.kendall_tau(*two.repeats(2)[1])]
        assert two.ceiling(**FEW)["kendall_tau"].estimate == pytest.approx(np.mean(taus))
        three = GroundTruth(Dataset.from_list(noisy))
        places, losses = three.repeats(3)
        assert 20 < len(places) < 60
        expected = np.mean(
            [
                metrics.kendall_tau(losses[one], losses[[other for other in range(3) if other != one]].mean(axis=0))
                for one in range(3)
            ]
        )
        assert three.ceiling(**FEW)["kendall_tau"].estimate == pytest.approx(expected)

    def test_the_ceilings_interval_redraws_children_with_their_buckets(self):
        two = GroundTruth(Dataset.from_list(make_records(0.05, num_repeated=81, num_seeds=2)))
        _, (first, second) = two.repeats(2)
        rng, within = np.random.default_rng(7), []
        for _ in range(30):
            drawn = rng.integers(81, size=81)
            pairs = ((first, second), (second, first))
            within.append(
                np.mean([metrics.mean_bucketed_tau(a[drawn], b[drawn], two.bucket_of[drawn]) for a, b in pairs])
            )
        found = two.ceiling(num_resamples=30, seed=7)["bucketed_tau"]
        assert (found.low, found.high) == pytest.approx(tuple(np.quantile(within, [0.05, 0.95])), abs=1e-12)

    def test_a_table_of_one_seed(self, truth):
        assert len(truth.architectures) == 81
        assert truth.architectures == sorted(truth.architectures, key=str)
        assert truth.seeds == [0]
        assert truth.loss[0] == truth.losses[0][0] != truth.losses[0][1]

    def test_seed_noise_is_the_planted_one_without_the_common_shift(self):
        for noise in (0.01, 0.1):
            many = GroundTruth(Dataset.from_list(make_records(noise, num_repeated=81, num_seeds=4)))
            assert many.seed_noise == pytest.approx(noise, rel=0.15)
        assert np.isnan(GroundTruth(Dataset.from_list(make_records(num_seeds=1))).seed_noise)

    def test_the_ceiling_falls_with_the_noise(self):
        tables = [make_records(noise, num_repeated=81) for noise in (0.001, 0.1, 10.0)]
        ceilings = [GroundTruth(Dataset.from_list(rows)).ceiling(**FEW) for rows in tables]
        taus = [ceiling["kendall_tau"].estimate for ceiling in ceilings]
        assert taus[0] > 0.85 > taus[1] > 0.3 > taus[2]
        assert ceilings[2]["bucketed_tau"].low < 0 < ceilings[2]["bucketed_tau"].high
        assert GroundTruth(Dataset.from_list(make_records(num_seeds=1))).ceiling(**FEW) == {}

    @pytest.mark.parametrize(
        ("change", "words"),
        [
            (lambda rows: rows[3].update(recipe_hash="other"), "share one recipe, but here are abc, other"),
            (lambda rows: rows.append(dict(rows[0])), "at seed 0 twice"),
            (lambda rows: rows[2].update(architecture="conv3-conv5-ffn-ffn-ffn"), "conv5"),
            (lambda rows: rows.__delitem__(slice(2, None)), "2 children|1 children"),
        ],
    )
    def test_what_is_no_table_is_refused(self, change, words):
        rows = make_records()
        change(rows)
        with pytest.raises(ValueError, match=words):
            GroundTruth(Dataset.from_list(rows))


@pytest.mark.usefixtures("few_draws")
def test_scores_of_distilled_children_are_reported_as_those_of_others_are(tmp_path):
    truth = GroundTruth(load_table("minilm").select(range(40)))
    scored = [
        score_record(truth, truth.loss, method="exact"),
        score_record(truth, -truth.num_parameters, method="size"),
    ]
    records.extend(tmp_path / "scores.jsonl", scored)
    outcome = report(truth, read_scores(tmp_path / "scores.jsonl", truth), baseline="size", num_resamples=10)
    taus = {row.name: row.measured["kendall_tau"].mean for row in outcome.methods}
    by_size = rank("number of parameters", [-truth.num_parameters], truth, num_resamples=10)
    assert taus == pytest.approx({"exact": 1.0, "size": by_size.measured["kendall_tau"].mean})
    assert "exact" in outcome.as_markdown()


class TestCard:
    def test_says_what_the_table_says(self, truth):
        card = render_table_card("film-reviews", truth)
        metadata = yaml.safe_load(card.split("---")[1])
        assert metadata["configs"] == [{"config_name": "default", "data_files": "table-film-reviews.jsonl.gz"}]
        for words in (
            f"| lowest dev loss | {truth.loss.min():.4f} |", f"child's mean | {truth.seed_noise:.4f} |",
            "81 of the\n81", "21 under\n3 seeds in all", "`conv3` | `attention,ffn,conv3`",
            "AdamW at 0.006, warm-up over 30 %",
            "512 held-out", 'load_table("table-film-reviews.jsonl.gz")',
        ):  # fmt: skip
            assert words in card, words
        tau = truth.ceiling(num_resamples=500)["kendall_tau"]
        assert f"over all of them {tau.estimate:.2f} [{tau.low:.2f}, {tau.high:.2f}]" in card

    def test_says_which_base_model_by_its_name_on_the_hub(self, truth):
        base = {
            "space": truth.recipe["space"],
            "base_model": "packaged:all-MiniLM-L6-v2",
            "distance": {"state_weight": 2},
        }
        card = self.card_of(base)
        assert "# mine: children of `sentence-transformers/all-MiniLM-L6-v2`, each distilled alone" in card
        assert "The distance is 2 times the squared error of the last states over their variance." in card
        assert "None" not in card
        assert "children of `packaged:gone`" in self.card_of(
            {**base, "base_model": "packaged:gone", "distance": "far"}
        )

    def test_says_how_many_rows_and_seeds(self, truth):
        twice = GroundTruth(Dataset.from_list(make_records(num_repeated=81, num_seeds=2)))
        for table, num_rows, seeds, noise in (
            (truth, 123, "seed 0 (the training that is a child's truth)", "noise of the ground truth |"),
            (twice, 162, "seeds 0, 1 (a child's truth is the mean over these)", "truth, a mean over its seeds |"),
        ):
            card = render_table_card("mine", table)
            assert f"\n{num_rows} rows: each is one training" in card
            assert f"under {seeds}, " in card
            assert noise in card

    def test_says_nothing_that_nobody_said(self, truth):
        card = render_table_card("mine", truth)
        assert yaml.safe_load(card.split("---")[1]).keys().isdisjoint({"license", "language"})
        for words in ("film", "apache", "minutes", 'load_table("mine")'):
            assert words not in card, words
        recipe = {**truth.recipe, "hidden_dropout_prob": 0.25}
        assert ", dropout 0.25." in self.card_of(recipe)
        assert ", no dropout." in self.card_of({**recipe, "hidden_dropout_prob": 0.0})
        del recipe["hidden_dropout_prob"]
        assert "dropout" not in self.card_of(recipe)
        assert "None" not in self.card_of({"space": recipe["space"]})

    @staticmethod
    def card_of(recipe):
        rows = [{**row, "recipe": recipe} for row in make_records(num_seeds=1)]
        return render_table_card("mine", GroundTruth(Dataset.from_list(rows)))

    def test_says_what_the_file_beside_the_table_says(self, truth, tmp_path):
        table = tmp_path / "table-mine.jsonl.gz"
        assert read_table_facts(table) == TableFacts()
        (tmp_path / "table-mine.json").write_text(
            '{"license": "mit", "language": "sw", "text": ["tales", "1. *of* it"], "drawn": "All *there* are.",'
            ' "limits": ["Short.", "Small."], "num_dev_sequences": 7}'
        )
        card = render_table_card("mine", truth, facts=read_table_facts(table))
        metadata = yaml.safe_load(card.split("---")[1])
        assert (metadata["license"], metadata["language"]) == ("mit", "sw")
        assert "; tales\n  1\\. \\*of\\* it." in card
        assert "under one seed.\nAll \\*there\\* are.\n" in card
        assert card.endswith("\n\nShort.\n\nSmall.\n")
        for wrong, message in (
            ('{"licence": "mit"}', r"unknown keys \['licence'\]"),
            ('{"license": "my own"}', "'my own' is not a license"),
            ("[]", "holds a list"),
            ("{", "table-mine.json does not say"),
            ('{"text": "tales"}', "text is 'tales'"),
        ):
            (tmp_path / "table-mine.json").write_text(wrong)
            with pytest.raises(ValueError, match=message):
                read_table_facts(table)

    @pytest.mark.parametrize("hub_id", [None, "user/tables"])
    def test_its_snippet_loads_the_table_that_was_pushed(self, truth, tmp_path, monkeypatch, hub_id):
        records.extend(tmp_path / "table-mine.jsonl", make_records())
        file = tmp_path / "table-mine.jsonl.gz"
        file.write_bytes(gzip.compress((tmp_path / "table-mine.jsonl").read_bytes()))
        asked = []
        monkeypatch.setattr(
            "huggingface_hub.hf_hub_download", lambda *what, **how: asked.append((what, how)) or str(file)
        )
        monkeypatch.chdir(tmp_path if hub_id is None else tmp_path.parent)
        snippet = render_table_card("mine", truth, hub_id).split("```python\n")[1].split("```")[0]
        names = {}
        exec(snippet, names)
        assert names["truth"].architectures == truth.architectures
        downloaded = (("user/tables", "table-mine.jsonl.gz"), {"repo_type": "dataset"})
        assert asked == ([] if hub_id is None else [downloaded])

    def test_the_packages_own_is_loaded_by_its_name(self, truth):
        card = render_table_card("imdb", truth, "user/table", is_packaged=True)
        assert 'load_table("imdb")' in card
        assert "hf_hub_download" not in card
        assert read_table_facts(find_table("imdb")).license == "apache-2.0"

    def test_no_text_of_a_table_becomes_markup(self):
        rows = make_records(num_seeds=1)
        for row in rows:
            row["recipe"] = {**row["recipe"], "source": "<script>`|x"}
        card = render_table_card("x\n# y", GroundTruth(Dataset.from_list(rows)))
        assert "<script>" not in card.replace("`` <script>`|x ``", "")
        assert "\n# y" not in card


class TestRank:
    def test_the_truth_ranks_itself_perfectly(self, truth):
        itself = rank("itself", [truth.loss], truth, is_proxy_loss=True, **FEW).measured
        for measure in ("kendall_tau", "bucketed_tau", "spearman", "pearson", "precision_at_5%", "precision_at_20%"):
            assert itself[measure].mean == pytest.approx(1)
        for k in (1, 5, 10):
            assert itself[f"best_rank_at_{k}"].mean == 1
            assert itself[f"worst_rank_at_{k}"].mean == k
        assert itself["supernet_gap"].mean == 0
        assert itself["relative_improvement"].mean > 0

    def test_intervals_are_over_children_redrawn_with_their_buckets_in_all_rankings_alike(self, truth):
        rng = np.random.default_rng(3)
        scores = [truth.loss + rng.normal(0, noise, 81) for noise in (0.1, 0.2, 0.3)]
        found = rank("x", scores, truth, is_proxy_loss=True, num_resamples=30, seed=5).measured
        functions = {"supernet_gap": lambda redraws, _: redraws.supernet_gap(), **measures(truth)}
        rng, values = np.random.default_rng(5), {measure: [] for measure in functions}
        for _ in range(30):
            drawn = rng.integers(81, size=81)
            for measure, function in functions.items():
                alone = [function(metrics.Redraws(score[drawn], truth.loss[drawn]), drawn) for score in scores]
                values[measure].append(np.mean(alone))
        assert found.keys() == values.keys() > {"sparse_tau", "ceiling_tau", "ceiling_bucketed_tau"}
        for measure, redrawn in values.items():
            assert found[measure][1:3] == pytest.approx(tuple(np.quantile(redrawn, [0.05, 0.95])), rel=1e-11), measure

    def test_every_measure_is_that_of_metrics(self, truth):
        score = truth.loss + np.random.default_rng(0).normal(0, 0.1, 81)
        found = rank("x", [score], truth, is_proxy_loss=True, **FEW).measured
        sizes = truth.num_parameters
        assert found["kendall_tau"].mean == metrics.kendall_tau(score, truth.loss)
        assert found["bucketed_tau"].mean == metrics.mean_bucketed_tau(
            score, truth.loss, metrics.size_buckets(sizes, 3)
        )
        assert found["sparse_tau"].mean == metrics.sparse_kendall_tau(score, truth.loss, truth.seed_noise)
        assert found["precision_at_10%"].mean == metrics.precision_at_top(score, truth.loss, 0.1)
        assert found["best_rank_at_5"].mean == metrics.best_rank_at(score, truth.loss, 5)
        assert found["worst_rank_at_10"].mean == metrics.worst_rank_at(score, truth.loss, 10)
        assert found["relative_improvement"].mean == metrics.relative_improvement(score, truth.loss)
        assert found["supernet_gap"].mean == pytest.approx(np.mean(score - truth.loss))

    def test_a_permuted_proxy_says_nothing(self, truth):
        permuted = rank("x", [np.random.default_rng(1).permutation(truth.loss)], truth, num_resamples=200)
        for measure in ("kendall_tau", "bucketed_tau", "spearman", "pearson", "sparse_tau"):
            assert permuted.measured[measure].low < 0 < permuted.measured[measure].high

    def test_intervals_are_over_children_and_deviations_over_seeds(self, truth):
        rng = np.random.default_rng(0)
        scores = [truth.loss + rng.normal(0, 0.1, 81) for _ in range(3)]
        found = rank("x", scores, truth, num_resamples=200).measured["kendall_tau"]
        taus = [metrics.kendall_tau(score, truth.loss) for score in scores]
        assert found.mean == pytest.approx(np.mean(taus))
        assert found.seed_deviation == pytest.approx(np.std(taus, ddof=1))
        assert found.low < found.mean < found.high
        # The same children are redrawn for all super-nets, so more of them do not make the children more.
        alone = rank("x", scores[:1], truth, num_resamples=200).measured["kendall_tau"]
        assert found.high - found.low > 0.5 * (alone.high - alone.low)
        assert rank("x", scores, truth, **FEW) == rank("x", scores, truth, **FEW)
        assert rank("x", scores[:1], truth, **FEW).measured["kendall_tau"].seed_deviation is None

    def test_a_ranking_of_other_children_is_refused(self, truth):
        with pytest.raises(ValueError, match="81 children"):
            rank("x", [truth.loss[1:]], truth)
        with pytest.raises(ValueError, match="nan"):
            rank("x", [np.full(81, np.nan)], truth)
        with pytest.raises(ValueError, match="x: there is no ranking"):
            rank("x", [], truth)
        with pytest.raises(ValueError, match="chosen goes with rankings whose children are redrawn"):
            rank("x", [truth.loss], truth, chosen=[truth.loss > 5])


class TestBaselines:
    def test_each_does_what_it_says(self, truth):
        found = {row.name: row for row in baselines(truth, [truth.loss], **FEW)}
        assert list(found) == ["random", "size-matched random", "number of parameters", "FLOPs", "operator counts"]
        assert abs(found["random"].measured["kendall_tau"].mean) < 0.03
        by_size = found["number of parameters"].measured["kendall_tau"].mean
        assert by_size == metrics.kendall_tau(-truth.num_parameters, truth.loss)
        by_flops = found["FLOPs"].measured["kendall_tau"].mean
        assert by_flops == metrics.kendall_tau(-truth.flops, truth.loss) != by_size
        # It keeps what the truth owes to size, and nothing inside a bucket.
        matched = found["size-matched random"]
        assert abs(matched.measured["bucketed_tau"].mean) < 0.05
        assert matched.measured["kendall_tau"].mean > 0.1
        # The truth is linear in the counts but for one block that counts double.
        assert found["operator counts"].measured["kendall_tau"].mean > 0.7
        assert found["operator counts"].num_children == 81 - 30

    @pytest.mark.slow
    def test_size_matched_ones_are_dealt_from_all_super_nets(self, truth):
        def matched(*proxies):
            return next(row for row in baselines(truth, proxies, **FEW) if row.name == "size-matched random")

        one, both = matched(truth.loss), matched(truth.loss, -truth.loss)
        assert one.measured["kendall_tau"].mean > 0.1 > abs(both.measured["kendall_tau"].mean)

    def test_the_linear_one_is_not_judged_on_what_it_was_fitted_to(self, truth, monkeypatch):
        rng = np.random.default_rng(0)
        monkeypatch.setattr(
            "hf_nasbert.ranking.agreement.operator_counts", lambda children: rng.normal(size=(len(children), 30))
        )
        fitted = next(row for row in baselines(truth, **FEW) if row.name == "operator counts")
        assert abs(fitted.measured["kendall_tau"].mean) < 0.1  # in sample it would be 1

    def test_operator_counts(self):
        children = list(SPACE.enumerate())[:2]
        assert operator_counts([("ffn", "ffn", "conv3"), ("conv3", "ffn", "attention")]).tolist() == [
            [0, 1, 2], [1, 1, 1],
        ]  # fmt: skip
        assert operator_counts(children).sum(axis=1).tolist() == [5, 5]


class TestScores:
    def test_the_last_step_of_every_run_counts(self, truth):
        found = last_steps(make_scores(truth))
        assert list(found) == ["uniform", "magic_t"]
        assert [(record["seed"], record["step"]) for record in found["magic_t"]] == [(n, 100) for n in range(4)]

    def test_methods_come_in_the_order_of_their_list(self, truth):
        names = [*METHODS, "another one"]
        scored = [score_record(truth, truth.loss, method=name) for name in sorted(names)]
        assert list(last_steps(scored)) == names

    @pytest.mark.usefixtures("few_draws")
    def test_runs_that_say_neither_seed_nor_step_are_runs_of_their_own(self, truth):
        unknown = {"method": "found", "seed": None, "step": None, "max_steps": None}
        scored = [score_record(truth, truth.loss, supernet=name, **unknown) for name in ("b", "a")]
        scored += [score_record(truth, truth.loss, method="found", seed=seed, supernet="c") for seed in (11, 9)]
        assert [record["seed"] for record in last_steps(scored)["found"]] == [9, 11, None, None]
        assert report(truth, scored, **FEW).methods[0].num_rankings == 4
        assert len(plot_tau_over_steps(report(truth, scored, **FEW)).axes[0].lines) == 1

    def test_losses_come_in_the_tables_order(self, truth):
        record = score_record(truth, truth.loss)
        record["proxy_losses"] = dict(reversed(record["proxy_losses"].items()))
        assert proxy_losses(record, truth).tolist() == truth.loss.tolist()

    @pytest.mark.parametrize(
        ("change", "words"),
        [
            ({"recipe_hash": "other"}, "scored for the table other, not for abc"),
            ({"proxy_losses": {}}, "lacks a finite loss of 81 children"),
            ({"method": ...}, "no scored super-net: it lacks method"),
        ],
    )
    def test_records_of_something_else_are_refused(self, truth, tmp_path, change, words):
        record = {
            name: value for name, value in (score_record(truth, truth.loss) | change).items() if value is not ...
        }
        records.append(tmp_path / "s.jsonl", record)
        with pytest.raises(ValueError, match=words):
            read_scores(tmp_path / "s.jsonl", truth)

    @pytest.mark.parametrize("other", [{}, {"step": 200, "max_steps": 200}])
    def test_two_runs_that_would_pass_for_one_are_refused(self, truth, tmp_path, other):
        path = tmp_path / "s.jsonl"
        records.append(path, score_record(truth, truth.loss, supernet="a"))
        records.append(path, score_record(truth, truth.loss, supernet="b", step=50))
        assert len(read_scores(path, truth)) == 2
        records.append(path, score_record(truth, truth.loss, supernet="c", **other))
        with pytest.raises(ValueError, match=r"s.jsonl: super-nets of two runs are both uniform, seed 0, step .00 "):
            read_scores(path, truth)


@pytest.fixture(scope="module")
def outcome(truth):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(agreement, "_NUM_DRAWS", FEW_DRAWS)
        return report(truth, make_scores(truth), **FEW)


@pytest.mark.usefixtures("few_draws")
class TestReport:
    def test_finds_the_better_method_seed_by_seed(self, outcome):
        uniform, magic_t = outcome.methods
        assert magic_t.measured["kendall_tau"].mean > uniform.measured["kendall_tau"].mean + 0.2
        ((overall, within),) = outcome.comparisons
        assert (overall.method, overall.baseline, overall.num_seeds) == ("magic_t", "uniform", 4)
        assert overall.difference.mean == pytest.approx(np.mean(np.array(magic_t.taus) - uniform.taus))
        assert overall.difference.p_value == 2 / 2**4
        assert within.difference.mean != overall.difference.mean
        assert compare(uniform, magic_t).difference.mean == -overall.difference.mean

    def test_the_baseline_may_be_any_method(self, truth, outcome):
        turned = report(truth, make_scores(truth), baseline="magic_t", **FEW)
        ((overall, within),) = turned.comparisons
        assert (overall.method, overall.baseline) == (within.method, within.baseline) == ("uniform", "magic_t")
        assert overall.difference.mean == -outcome.comparisons[0][0].difference.mean
        assert [method.name for method in turned.methods] == ["uniform", "magic_t"]
        # Its losses are those that are dealt anew among children of a size.
        dealt, others = (
            next(row for row in each.baselines if row.name == "size-matched random") for each in (turned, outcome)
        )
        proxies = [proxy_losses(r, truth) for r in make_scores(truth) if r["method"] == "magic_t" and r["step"] == 100]
        assert dealt.taus == baselines(truth, proxies, **FEW)[1].taus != others.taus
        with pytest.raises(
            ValueError, match=r"no super-net ranks as the baseline 'fair': there are uniform; magic_t$"
        ):
            report(truth, make_scores(truth), baseline="fair", **FEW)

    def test_common_seeds_are_compared_and_no_others(self, truth, outcome):
        """As many super-nets, but of other seeds: paired by place they would be strangers."""

        def moved(by):
            return [
                record | {"seed": record["seed"] + by * (record["method"] == "magic_t")}
                for record in make_scores(truth)
            ]

        others = report(truth, moved(1), **FEW)
        uniform, magic_t = others.methods
        assert [uniform.seeds, magic_t.seeds] == [[0, 1, 2, 3], [1, 2, 3, 4]]
        ((overall, within),) = others.comparisons
        assert overall.num_seeds == within.num_seeds == 3
        differences = [magic_t.taus[place] - uniform.taus[place + 1] for place in range(3)]
        assert overall.difference.mean == pytest.approx(np.mean(differences))
        assert report(truth, moved(3), **FEW).comparisons == []
        words = (
            "magic_t ranks under the seeds 3, 4, 5, 6 and uniform under 0, 1, 2, 3: a paired test needs 2 common ones"
        )
        with pytest.raises(ValueError, match=words):
            compare(*reversed(report(truth, moved(3), **FEW).methods))
        unknown = rank("found", [truth.loss] * 4, truth, seeds=[0, 1, 2, None], **FEW)
        with pytest.raises(ValueError, match="found ranks under the seeds unknown and uniform under 0, 1, 2, 3"):
            compare(unknown, outcome.methods[0])

    def test_super_nets_that_rank_nobody_cost_no_report(self, truth):
        """One whose children all have the same loss has no tau; means, deviations and pairs are of the others."""
        scored = [
            record | {"proxy_losses": dict.fromkeys(record["proxy_losses"], 5.0)}
            if (record["method"], record["seed"]) in {("magic_t", 1), ("uniform", 2)}
            else record
            for record in make_scores(truth)
        ]
        outcome = report(truth, scored, **FEW)
        uniform, magic_t = outcome.methods
        assert [math.isnan(tau) for tau in magic_t.taus] == [False, True, False, False]
        known = [magic_t.taus[place] for place in (0, 2, 3)]
        assert magic_t.measured["kendall_tau"].mean == pytest.approx(np.mean(known))
        assert magic_t.measured["kendall_tau"].seed_deviation == pytest.approx(np.std(known, ddof=1))
        ((overall, _),) = outcome.comparisons
        assert overall.num_seeds == 2
        assert overall.difference.mean == pytest.approx(
            np.mean([magic_t.taus[place] - uniform.taus[place] for place in (0, 3)])
        )
        text = outcome.as_markdown()
        assert "| magic_t | 3 of 4 | 0." in text
        assert "nan" not in text
        matched = next(row for row in outcome.baselines if row.name == "size-matched random")
        assert matched.measured["kendall_tau"].mean > 0.05

    @pytest.mark.slow
    def test_what_is_half_trained_ranks_as_such_and_is_not_paired(self, truth):
        scored = [record for record in make_scores(truth) if (record["method"] == "uniform") == (record["step"] == 50)]
        outcome = report(truth, scored, **FEW)
        assert [row.name for row in outcome.methods] == ["uniform, at 50 %", "magic_t"]
        assert outcome.comparisons == []
        text = outcome.as_markdown()
        assert "| uniform, at 50 % | 4 |" in text
        assert "| tau after a share of the training | n | 50 % | 100 % |" in text
        # Within one method too.
        mixed = [record for record in make_scores(truth) if record["step"] == (100 if record["seed"] else 50)]
        assert list(last_steps(mixed)) == ["uniform", "uniform, at 50 %", "magic_t", "magic_t, at 50 %"]
        # Nobody vanishes where two shares are the same to a percent, or are nearly the end.
        near = [
            record | {"step": 49 + record["seed"] % 2, "max_steps": 99}
            for record in make_scores(truth)
            if record["step"] == 50
        ]
        assert {name: len(runs) for name, runs in last_steps(near).items()} == {
            f"{method}, at {share} %": 2 for method in ("uniform", "magic_t") for share in (49, 51)
        }
        near = [record | {"step": 995 + record["seed"], "max_steps": 999} for record in near]
        assert {name: len(runs) for name, runs in last_steps(near).items()} == {
            "uniform, at 99 %": 4, "magic_t, at 99 %": 4,
        }  # fmt: skip
        assert "No paired test: no method has two seeds in common with the baseline, trained as far." in text
        # All of them half trained are, to a percent.
        halves = [record for record in make_scores(truth) if record["step"] == 50]
        uneven = [
            record | ({"step": 401, "max_steps": 800} if record["method"] == "uniform" else {}) for record in halves
        ]
        assert len(report(truth, uneven, **FEW).comparisons) == 1
        halves = report(truth, [record for record in make_scores(truth) if record["step"] == 50], **FEW)
        assert [pair[0].method for pair in halves.comparisons] == ["magic_t, at 50 %"]

    def test_the_ceiling_says_on_whom_and_methods_stand_beside_it(self, truth, outcome):
        """Only 21 of 81 children have a second seed: over all children and among those, a tau is another number."""
        assert truth.ceiling_seeds == 2
        assert truth.in_ceiling.tolist() == [1 in by_seed for by_seed in truth.losses]
        assert truth.in_ceiling.sum() == 21
        text = outcome.as_markdown()
        assert "The ceiling holds one training against one other, on 21 children." in text
        head, _, *rows = next(part for part in text.split("\n\n") if part.startswith("| ranked by")).splitlines()
        place = head.split("|").index(" tau, children of the ceiling ")
        uniform = outcome.methods[0].measured["ceiling_tau"].mean
        inside = truth.in_ceiling
        ends = [record for record in make_scores(truth) if record["method"] == "uniform" and record["step"] == 100]
        expected = [metrics.kendall_tau(proxy_losses(record, truth)[inside], truth.loss[inside]) for record in ends]
        assert uniform == pytest.approx(np.mean(expected))
        assert rows[0].split("|")[place].startswith(f" {uniform:.3f} ")
        assert rows[-1].split("|")[place].startswith(f" {outcome.ceiling['kendall_tau'].estimate:.3f} ")
        whole = GroundTruth(Dataset.from_list(make_records(num_repeated=81, num_seeds=2)))
        assert "ceiling_tau" not in rank("x", [whole.loss], whole, **FEW).measured

    def test_one_training_is_ranked_by_another_on_all_children(self):
        rows = [row for row in make_records(num_repeated=81, num_seeds=3) if row["seed"] < 2]
        whole = GroundTruth(Dataset.from_list(rows))
        found = one_training_by_another(whole, **FEW)
        one, two = np.array([[by_seed[seed] for by_seed in whole.losses] for seed in (0, 1)])
        assert found.num_rankings == 2
        assert found.taus == [metrics.kendall_tau(one, two)] * 2
        expected = [metrics.best_rank_at(one, two, 1), metrics.best_rank_at(two, one, 1)]
        assert found.measured["best_rank_at_1"].mean == np.mean(expected)
        assert "sparse_tau" not in found.measured
        text = report(whole, make_scores(whole), **FEW).as_markdown()
        assert text.count("| one training by another | 2 |") == 2
        single = GroundTruth(Dataset.from_list([row for row in rows if row["seed"] == 0]))
        assert "No child was trained twice, so seed noise is unknown." in report(single, [], **FEW).describe_table()
        assert one_training_by_another(single) is None
        assert "one training by another" not in report(single, [], **FEW).as_markdown()

    def test_the_tables_hold_every_measure_and_every_row(self, outcome):
        text = outcome.as_markdown()
        for words in (
            "Kendall tau-b", "within size buckets", "sparse tau", "Spearman", "Pearson", "P@5 %", "P@20 %", "top 10",
            "improvement", "gap", "uniform", "magic_t", "size-matched random", "number of parameters", "FLOPs",
            "operator counts", "ceiling", "Seed noise of one training 0.01", "81 children",
        ):  # fmt: skip
            assert words in text, words
        worth = text.partition("| losses of |")[2]
        for line in text.partition("| tau after")[0].splitlines():
            if line.startswith("| magic_t | 4 "):
                assert "±" in line
                assert "[" in line
        alone = next(line for line in worth.splitlines() if line.startswith("| children trained alone |"))
        first, *attention = alone.split("|")[5].split()
        assert first == "-"  # the first block is always a conv3
        expected = outcome.worth[0].effects["attention"][1:]
        assert [effect.estimate for effect in expected] == pytest.approx([-0.2, -0.1, -0.1, -0.1], abs=0.015)
        for cell, (estimate, low, high) in zip(attention, expected, strict=True):
            assert cell == f"{1000 * estimate:+.0f}±{500 * (high - low):.0f}"
        last = outcome.worth[-1]
        assert f"| magic_t | 4 | {last.agreement.estimate:.3f} [{last.agreement.low:.2f}, " in worth
        assert f"| {100 * last.explained.estimate:.0f} % [{100 * last.explained.low:.0f}, " in worth

    def test_the_table_over_training_has_every_share(self, truth, outcome):
        scored = make_scores(truth)
        (table,) = (part for part in outcome.as_markdown().split("\n\n") if part.startswith("| tau after"))
        head, _, *rows = table.splitlines()
        assert head == "| tau after a share of the training | n | 50 % | 100 % |"
        expected = []
        for method in ("uniform", "magic_t"):
            for name, measure in (
                (method, metrics.kendall_tau),
                (
                    f"{method}, within size buckets",
                    lambda score, loss: metrics.mean_bucketed_tau(score, loss, truth.bucket_of),
                ),
            ):
                cells = []
                for step in (50, 100):
                    chosen = [record for record in scored if (record["method"], record["step"]) == (method, step)]
                    taus = [measure(proxy_losses(record, truth), truth.loss) for record in chosen]
                    assert len(taus) == 4
                    found = outcome.over_training[method][step / 100].measured[
                        "kendall_tau" if name == method else "bucketed_tau"
                    ]
                    assert found.low < statistics.mean(taus) < found.high
                    interval = f"[{found.low:.2f}, {found.high:.2f}]"
                    cells.append(f"{statistics.mean(taus):.3f} ± {statistics.stdev(taus):.2f} {interval}")
                expected.append(f"| {name} | 4 | {' | '.join(cells)} |")
        assert rows == expected
        ends = [record for record in scored if record["step"] == 100]
        assert "| tau after" not in report(truth, ends, **FEW).as_markdown()

    @pytest.mark.slow
    def test_the_same_records_give_the_same_bytes(self, truth, outcome, tmp_path):
        scored = make_scores(truth)
        assert report(truth, scored, **FEW).as_markdown() == outcome.as_markdown()
        for name, figure in {
            "tau": lambda: plot_tau_by_method(outcome),
            "scatter": lambda: plot_proxy_against_truth(truth, scored),
            "steps": lambda: plot_tau_over_steps(outcome),
        }.items():
            first, again = (save_figure(figure(), tmp_path / f"{name}-{n}")[1].read_bytes() for n in range(2))
            assert first == again

    def test_figures_show_what_the_records_say(self, truth, outcome):
        scored = make_scores(truth)
        taus = plot_tau_by_method(outcome).axes[0]
        dots = [line.get_xdata().tolist() for line in taus.lines if line.get_label() == "a super-net"]
        assert dots == [row.taus for row in outcome.methods]
        scatter = plot_proxy_against_truth(truth, scored).axes
        assert sum(len(line.get_xdata()) for line in scatter[0].lines) == 81
        steps = plot_tau_over_steps(outcome).axes[0]
        assert [line.get_xdata().tolist() for line in steps.lines] == [[50, 100], [50, 100]]
        magic_t = steps.lines[1].get_ydata()
        assert magic_t[1] == pytest.approx(outcome.methods[1].measured["kendall_tau"].mean)
        with pytest.raises(ValueError, match="no super-net has been scored"):
            plot_tau_over_steps(report(truth, [], **FEW))

    def test_a_line_over_steps_is_of_the_same_seeds_everywhere(self, truth):
        whole = [record for record in make_scores(truth) if record["seed"] < 2]
        ends = [record for record in make_scores(truth) if record["seed"] >= 2 and record["step"] == 100]
        outcomes = [report(truth, scored, **FEW) for scored in (whole + ends, whole)]
        axes, expected = (plot_tau_over_steps(outcome).axes[0] for outcome in outcomes)
        for line, same in zip(axes.lines, expected.lines, strict=True):
            assert line.get_ydata().tolist() == same.get_ydata().tolist()
        title = axes.get_title(loc="left")
        assert title == expected.get_title(loc="left")
        assert title.endswith("(mean and range of 2 seeds)")
        mixed, same = (outcome.over_training for outcome in outcomes)
        assert mixed == same
        # As many shares, but other ones.
        moved = [record | {"step": 25} if (record["seed"], record["step"]) == (0, 50) else record for record in whole]
        moved += [record for record in make_scores(truth) if record["seed"] == 2]
        shares = report(truth, moved, **FEW).over_training["uniform"]
        assert {share: ranked.num_rankings for share, ranked in shares.items()} == {0.5: 2, 1.0: 2}


class TestOperatorWorth:
    def test_planted_effects_are_found(self):
        children = list(SPACE.enumerate())
        worth = {"attention": [0.0, -0.3, -0.1, 0.0, 0.2], "ffn": [0.0, 0.1, 0.0, 0.0, 0.0], "conv3": [0.0] * 5}
        losses = np.array([5 + sum(worth[name][block] for block, name in enumerate(child)) for child in children])
        found = operator_worth("planted", [losses, losses], children, **FEW)
        assert (found.num_rankings, *found.agreement) == (2, 1, 1, 1)
        assert found.explained == pytest.approx((1, 1, 1))
        assert math.isnan(found.effects["attention"][0].estimate)  # the first block is always a conv3
        assert found.effects["conv3"][0] == pytest.approx((0, 0, 0), abs=1e-12)
        for block in range(1, 5):
            average = sum(effects[block] for effects in worth.values()) / 3
            for name, effects in worth.items():
                # Without noise, other children say the same.
                assert found.effects[name][block] == pytest.approx([effects[block] - average] * 3, abs=1e-9)

    def test_intervals_cover_what_was_planted_as_often_as_they_say(self):
        children = list(SPACE.enumerate())
        planted = np.array([0.2 * (child[1] == "attention") for child in children])
        covered = []
        for seed in range(40):
            noisy = planted + np.random.default_rng(seed).normal(0, 0.1, len(children))
            effects = operator_worth("noisy", [noisy], children, num_resamples=100, seed=seed).effects
            for name, expected in (("attention", 2 / 15), ("ffn", -1 / 15), ("conv3", -1 / 15)):
                covered.append(effects[name][1].low < expected < effects[name][1].high)
            assert all(effect.high > effect.low for effect in effects["ffn"][1:])
        assert 0.8 < np.mean(covered) < 0.97

    def test_the_agreements_interval_redraws_children_in_all_rankings_alike(self):
        children = list(SPACE.enumerate())
        rng = np.random.default_rng(0)
        rankings = np.arange(81) / 81 + rng.normal(0, 0.5, (3, 81))
        found = operator_worth("noisy", rankings, children, num_resamples=30, seed=5).agreement
        redraws = np.random.default_rng(5).integers(81, size=(30, 81))
        pairs = [(0, 1), (0, 2), (1, 2)]
        taus = [
            np.mean([metrics.kendall_tau(rankings[a][drawn], rankings[b][drawn]) for a, b in pairs])
            for drawn in redraws
        ]
        assert found[1:] == pytest.approx(np.quantile(taus, [0.05, 0.95]))

    def test_other_blocks_are_held_equal(self):
        """Among children that hold an operator somewhere, having it here goes with lacking it there."""
        children = [child for child in SPACE.enumerate() if "ffn" in child]
        losses = np.array([0.1 * (child[1] == "ffn") for child in children])
        found = operator_worth("planted", [losses], children, **FEW)
        assert found.effects["ffn"][1].estimate - found.effects["conv3"][1].estimate == pytest.approx(0.1)
        for block in range(2, 5):
            assert found.effects["ffn"][block] == pytest.approx(found.effects["conv3"][block], abs=1e-9)
        assert math.isnan(found.agreement.estimate)

    def test_nothing_is_said_of_what_is_not_determined(self):
        children = list(SPACE.enumerate())
        losses = np.random.default_rng(0).normal(5, 0.1, size=len(children))
        few = operator_worth("few", [losses[:3]], children[:3], **FEW)
        assert all(math.isnan(effect.estimate) for effects in few.effects.values() for effect in effects)
        assert math.isnan(few.explained.estimate)
        # One child alone tells of an operator: without it a redraw says nothing, and is not taken.
        lone = [child for child in children if "attention" not in child]
        lone.append(Architecture(["conv3", "attention", "conv3", "ffn", "conv3"]))
        found = operator_worth("lone", [losses[: len(lone)]], lone, num_resamples=200)
        for name in ("attention", "ffn"):
            effect = found.effects[name][1]
            assert effect.low < effect.estimate < effect.high
        constant = operator_worth("constant", [np.full(81, 4.6)] * 2, children, **FEW)
        assert math.isnan(constant.explained.estimate)
        assert math.isnan(constant.agreement.estimate)

    def test_losses_that_rank_nobody_do_not_count_for_agreement(self):
        children = list(SPACE.enumerate())
        one, two = np.random.default_rng(0).normal(5, 0.1, size=(2, 81))
        assert operator_worth("x", [one, np.full(81, 4.6), two], children, **FEW).agreement == (
            operator_worth("x", [one, two], children, **FEW).agreement
        )

    def test_noise_is_told_from_a_shared_bias(self):
        children = list(SPACE.enumerate())
        rng = np.random.default_rng(0)
        bias = rng.normal(size=len(children))
        shared = operator_worth("bias", [bias + 0.1 * rng.normal(size=len(bias)) for _ in range(4)], children, **FEW)
        noise = operator_worth("noise", [rng.normal(size=len(bias)) for _ in range(4)], children, **FEW)
        assert shared.agreement.low > 0.8
        assert abs(noise.agreement.estimate) < 0.2
        assert noise.explained.estimate < 0.6
