"""Children trained on alone from what they inherit: what that changes, that it is done once, and what ranks by it."""

import json
import re
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from helpers import mostly_slow
from tiny.bases import documents, save_base
from tiny.processes import forked, with_a_fork_server_of_its_own
from tiny.texts import text_arguments

from hf_nasbert import cli, records
from hf_nasbert.data import load_corpus
from hf_nasbert.elastic.encoders import encoder_of
from hf_nasbert.extraction import load_supernet, load_supernet_config
from hf_nasbert.methods.blockwise import stages_of
from hf_nasbert.modeling import SupernetConfig, SupernetForMaskedLM, SupernetModel
from hf_nasbert.modeling.elastic import elastic_space, elastic_supernet, load_full_child
from hf_nasbert.pipeline import (
    ScoreChildrenArguments,
    SearchChildrenArguments,
    score_children,
    search_children,
)
from hf_nasbert.pipeline import trainings as trainings_room
from hf_nasbert.pipeline.inputs import load_dev_batches
from hf_nasbert.pipeline.largest_child import LargestChild
from hf_nasbert.pipeline.ranking import RankChildrenArguments, rank_children
from hf_nasbert.pipeline.trainings import ChildTrainer
from hf_nasbert.scoring import score_architectures
from hf_nasbert.searching import OperatorRidge, SearchTask, random_children, shared_ridge
from hf_nasbert.space import SearchSpace
from hf_nasbert.teachers import StageErrors
from hf_nasbert.training.arguments import ChildRecipe, StandaloneArguments
from hf_nasbert.training.farm import Job, read_table
from hf_nasbert.training.standalone import StandaloneTrainer

SPACE = SearchSpace.of_blocks(["conv3", "attention,ffn,conv3", "attention,ffn,conv3"])
CHILDREN = list(SPACE.enumerate())
DEV = {"num_dev_batches": 2, "dev_batch_size": 4}
RECIPE = ChildRecipe(num_steps=4, learning_rate=1e-2, batch_size=4)
TEXTS = {}  # packed text and dev batches by the super-net's folder


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return text_arguments(tmp_path_factory.mktemp("cache"))


@pytest.fixture(scope="module")
def folder(tmp_path_factory, data):
    """A super-net of nine children that has not learned anything."""
    folder = tmp_path_factory.mktemp("supernet")
    tokenizer = load_corpus(data).tokenizer
    torch.manual_seed(0)
    config = SupernetConfig(
        search_space=SPACE, hidden_size=32, vocab_size=len(tokenizer), max_position_embeddings=16,
        hidden_dropout_prob=0.1,
    )  # fmt: skip
    SupernetForMaskedLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """The super-net of a base model without a head, and text in its language."""
    folder = tmp_path_factory.mktemp("base")
    save_base(folder / "model")
    child = load_full_child(*_loaded(folder / "model"))
    supernet = elastic_supernet(child, elastic_space(child))
    assert isinstance(supernet, SupernetModel)
    supernet.save_pretrained(folder / "supernet")
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (folder / "supernet" / name).write_bytes((folder / "model" / name).read_bytes())
    (folder / "text.txt").write_text("\n".join(documents(200)))
    text = text_arguments(
        folder / "cache", train_files=[str(folder / "text.txt")], sample_by="line", vocab_size=None,
        max_seq_length=20,
    )  # fmt: skip
    return folder / "supernet", text


def _loaded(folder):
    from transformers import BertModel

    from hf_nasbert.modeling import NasBertModel

    return BertModel.from_pretrained(folder), NasBertModel


def make_trainer(folder, data, recipe=RECIPE):
    if folder not in TEXTS:
        dev, _ = load_dev_batches(load_supernet_config(folder), folder, data, num_batches=2, batch_size=4)
        TEXTS[folder] = load_corpus(replace(data, tokenizer_name=str(folder))), dev
    corpus, dev = TEXTS[folder]
    masking = {"mlm_probability": data.mlm_probability, "whole_word_mask": data.whole_word_mask}
    return ChildTrainer(folder, "digest", recipe, corpus, dev, masking)


def losses_of(trainer, children=CHILDREN):
    return [trainer.train(child, 0)["dev_loss"] for child in children]


@pytest.fixture
def in_process(monkeypatch):
    """A farm of this process, of no workers; counts the trainings."""
    trained = []

    def run_farm(trainer, jobs, path, *, num_workers, progress):
        table = read_table(path, trainer.recipe_hash, trainer.space)
        for architecture, seed in jobs:
            if Job(architecture, seed) not in table:
                record = trainer.train(architecture, seed)
                trained.append(record["architecture"])
                records.append(path, record)
                table[Job(architecture, seed)] = record
        return table

    monkeypatch.setattr(trainings_room, "run_farm", run_farm)
    return trained


class TestTrainer:
    def test_without_steps_a_child_is_what_it_inherits_and_with_steps_another_ranking(self, folder, data):
        none = make_trainer(folder, data, replace(RECIPE, num_steps=0))
        inherited = losses_of(none)
        scored = score_architectures(load_supernet(folder), CHILDREN, none.dev_batches)
        assert inherited == pytest.approx(scored, abs=1e-5)
        adapted = losses_of(make_trainer(folder, data, replace(RECIPE, num_steps=8)))
        assert all(after < before for before, after in zip(inherited, adapted, strict=True))
        orders = [sorted(range(9), key=losses.__getitem__) for losses in (inherited, adapted)]
        assert orders[0] != orders[1]

    def test_a_record_says_what_was_done_and_the_same_again_to_the_bit(self, folder, data):
        trainer, state = make_trainer(folder, data), torch.get_rng_state()
        record, again = (make_trainer(folder, data).train(CHILDREN[4], 0) for _ in range(2))
        assert torch.equal(torch.get_rng_state(), state), "a training draws from a generator of its own"
        assert {**record, "timing": 0} == {**again, "timing": 0}
        assert record["architecture"] == str(CHILDREN[4])
        assert record["passes"] == 3 * 4 + 8 / 4
        assert record["recipe_hash"] == trainer.recipe_hash
        assert record["recipe"]["num_steps"] == 4
        json.dumps(record)
        others = [replace(RECIPE, num_steps=5), replace(RECIPE, learning_rate=2e-2), replace(RECIPE, is_taught=True)]
        hashes = {make_trainer(folder, data, recipe).recipe_hash for recipe in (RECIPE, *others)}
        assert len(hashes) == 4
        text = trainer.masking | {"mlm_probability": 0.5}
        for part in ({"digest": "other"}, {"dev_batches": trainer.dev_batches[:1]}, {"masking": text}):
            hashes.add(replace(trainer, **part).recipe_hash)
        assert len(hashes) == 7, "losses of another super-net, or on other text, are not looked up"

    def test_the_learning_rate_rises_and_stays_or_falls(self):
        assert [RECIPE.learning_rate_at(step) for step in (0, 4, 9, 50)] == pytest.approx([1e-3, 5e-3, 1e-2, 1e-2])
        whole = replace(RECIPE, num_steps=20, warmup_steps=2, falls=True)
        assert [whole.learning_rate_at(step) for step in (0, 10, 19)] == pytest.approx([5e-3, 5e-3, 5e-4])

    def test_fresh_weights_forget_what_was_inherited(self, folder, data):
        fresh = make_trainer(folder, data, replace(RECIPE, is_inherited=False, num_steps=0))
        first, same, other = (fresh.train(CHILDREN[4], seed)["dev_loss"] for seed in (0, 0, 1))
        inherited = make_trainer(folder, data, replace(RECIPE, num_steps=0)).train(CHILDREN[4], 0)["dev_loss"]
        assert first == same
        assert len({first, other, inherited}) == 3

    def test_a_child_that_diverges_is_named(self, folder, data):
        trainer = make_trainer(folder, data, replace(RECIPE, learning_rate=float("inf")))
        with pytest.raises(ValueError, match=rf"the dev loss of {CHILDREN[4]} is nan: lower the learning rate, inf"):
            trainer.train(CHILDREN[4], 0)

    @pytest.mark.slow
    def test_in_a_base_models_supernet_the_base_model_teaches_not_the_words(self, base):
        folder, data = base
        taught = ChildRecipe(num_steps=12, learning_rate=2e-3, batch_size=4, is_taught=True)
        trainer = make_trainer(folder, data, taught)
        largest = LargestChild(load_supernet(folder, None), trainer.dev_batches)
        children = random_children(SearchTask(trainer.space, seed=0), 3)
        before = losses_of(make_trainer(folder, data, replace(taught, num_steps=0)), children)
        assert before == pytest.approx(largest.score(children).losses, rel=1e-4)
        after = losses_of(trainer, children)
        assert all(nearer < far for far, nearer in zip(before, after, strict=True))
        largest_child = trainer.supernet.largest_architecture
        assert trainer.train(largest_child, 0)["dev_loss"] < 0.2 * min(after)  # it has nothing to learn
        assert len(trainer._taught) == 12

    def test_a_taught_child_keeps_the_embeddings_that_all_share_and_has_no_dropout(self, base, monkeypatch):
        folder, data = base
        made = []
        monkeypatch.setattr(ChildTrainer, "_dev_loss", lambda self, child: made.append(child) or 1.0)
        taught = ChildRecipe(num_steps=2, learning_rate=1e-2, batch_size=4, is_taught=True, warmup_steps=1)
        trainer = make_trainer(folder, data, taught)
        trainer.train((*trainer.supernet.largest_architecture[:-2], "skip", "skip"), 0)
        (child,) = made
        before = trainer.supernet.embeddings.state_dict()
        for name, tensor in encoder_of(child).embeddings.state_dict().items():
            assert torch.equal(tensor, before[name]), name
        assert not child.training

    def test_the_teacher_says_more_than_words_of_a_masked_lm_too(self, folder, data):
        """Where the largest child teaches, children end nearer to it than where words do."""
        recipes = [replace(RECIPE, num_steps=10, is_taught=is_taught) for is_taught in (False, True)]
        by_words, by_teacher = (make_trainer(folder, data, recipe).train(CHILDREN[4], 0) for recipe in recipes)
        assert by_words["dev_loss"] < by_teacher["dev_loss"]


def commands(folder, tmp_path, **settings):
    return SearchChildrenArguments(
        supernet=str(folder), output=str(tmp_path / "h.jsonl"), **{**DEV, "adapt_batch_size": 4} | settings
    )


class TestCommands:
    def test_a_search_ranks_by_what_adapted_children_say(self, folder, data, tmp_path, in_process):
        arguments = commands(folder, tmp_path, adapt_steps=4, num_adapted=5, num_evaluations=9)
        scored = search_children(arguments, data)
        table = records.read(tmp_path / "h.adapted-4.jsonl")
        assert len(table) == len(set(in_process)) == 5
        adapted = {record["architecture"]: record["dev_loss"] for record in table}
        sample = [child for child in CHILDREN if str(child) in adapted]
        model = OperatorRidge(SPACE.blocks).fit(sample, [adapted[str(child)] for child in sample])
        assert len(scored) == 9
        found = {child.architecture: child.loss for child in scored}
        assert [found[child] for child in CHILDREN] == pytest.approx(model.predict(CHILDREN))
        again = search_children(arguments, data)
        assert again == scored
        assert len(in_process) == 5
        plain = search_children(replace(arguments, adapt_steps=0, output=str(tmp_path / "p.jsonl")), data)
        assert [c.architecture for c in plain] != [c.architecture for c in scored]
        with pytest.raises(ValueError, match="it differs in about"):
            search_children(replace(arguments, adapt_steps=0), data)

    def test_an_output_of_other_settings_is_refused_before_a_child_is_trained(
        self, folder, data, tmp_path, in_process
    ):
        settings = {"supernet": str(folder), "all_children": True, "adapt_batch_size": 4, **DEV}
        plain = ScoreChildrenArguments(output=str(tmp_path / "s.jsonl"), **settings)
        score_children(plain, data)
        with pytest.raises(ValueError, match="holds scores of another adapted"):
            score_children(replace(plain, adapt_steps=3, num_adapted=4), data)
        searched = commands(folder, tmp_path, num_evaluations=3)
        search_children(searched, data)
        with pytest.raises(ValueError, match="it differs in about"):
            search_children(replace(searched, adapt_steps=3, num_adapted=4), data)
        assert in_process == []
        assert not list(tmp_path.glob("*.adapted-*"))

    @pytest.mark.parametrize("kind", mostly_slow(["words", "base model"], 2))
    def test_children_are_scored_by_the_errors_of_their_stages(self, kind, folder, base, data, tmp_path):
        folder, data = (folder, data) if kind == "words" else base
        settings = {"supernet": str(folder), "output": str(tmp_path / "s.jsonl"), "num_random": 6, **DEV}
        arguments = ScoreChildrenArguments(stage_errors=2, **settings)
        scored = score_children(arguments, data)
        supernet = load_supernet(folder, None)
        batches, _ = load_dev_batches(supernet.config, folder, data, num_batches=2, batch_size=4)
        errors = StageErrors(supernet.eval(), batches, stages_of(supernet.space, 2))
        assert [child.loss for child in scored] == pytest.approx(errors([child.architecture for child in scored]))
        assert score_children(arguments, data) == scored
        with pytest.raises(ValueError, match="holds scores of another loss"):
            score_children(ScoreChildrenArguments(**settings), data)
        found = search_children(
            commands(folder, tmp_path, stage_errors=2, search="shrinking", num_evaluations=9), data
        )
        assert [child.loss for child in found] == pytest.approx(errors([child.architecture for child in found]))

    def test_stages_whose_weights_depend_on_the_child_are_refused(self, folder, data, tmp_path):
        config = SupernetConfig.from_pretrained(folder)
        config.weight_layout = "experts"
        SupernetForMaskedLM(config).save_pretrained(tmp_path)
        load_corpus(data).tokenizer.save_pretrained(tmp_path)
        with pytest.raises(
            ValueError, match=r"^stage_errors=2 .*not so with copies of the super-net, or weight_layout"
        ):
            search_children(commands(tmp_path, tmp_path, stage_errors=2), data)

    @pytest.mark.slow
    def test_a_mixture_is_not_learned_where_its_output_is_anothers(self, folder, data, tmp_path, monkeypatch):
        arguments = commands(folder, tmp_path, search="gradient_mixture", num_evaluations=3)
        scored = search_children(arguments, data)
        assert search_children(arguments, data) == scored
        monkeypatch.setattr("hf_nasbert.pipeline.mixture.Mixture.learn", lambda *_: pytest.fail("learned for nothing"))
        with pytest.raises(ValueError, match=r"it differs in about .*, mixture_steps"):
            search_children(replace(arguments, search_settings={"mixture_steps": 7}), data)
        other = replace(commands(folder, tmp_path, num_evaluations=3), output=str(tmp_path / "o.jsonl"))
        search_children(other, data)
        with pytest.raises(ValueError, match=r"it differs in .*search \("):
            search_children(replace(arguments, output=other.output), data)
        (tmp_path / "p.jsonl").write_text('{"record": "scores"}\n')
        with pytest.raises(ValueError, match="is not the history of a search"):
            search_children(replace(arguments, output=str(tmp_path / "p.jsonl")), data)

    @pytest.mark.slow
    def test_scoring_takes_it_too(self, folder, data, tmp_path, in_process):
        arguments = ScoreChildrenArguments(
            supernet=str(folder), output=str(tmp_path / "s.jsonl"), all_children=True, adapt_steps=3, num_adapted=4,
            adapt_batch_size=4, **DEV,
        )  # fmt: skip
        scored = score_children(arguments, data)
        assert (len(scored), len(in_process)) == (9, 4)
        assert score_children(arguments, data) == scored
        with pytest.raises(ValueError, match="holds scores of another adapted"):
            score_children(replace(arguments, num_adapted=5), data)
        with pytest.raises(ValueError, match="holds scores of another adapted"):
            score_children(replace(arguments, adapt_steps=0), data)

    def test_a_base_models_supernet_is_ranked_by_its_teacher(self, base, tmp_path, in_process):
        folder, data = base
        scored = search_children(
            commands(folder, tmp_path, adapt_steps=3, num_adapted=4, num_evaluations=20, max_parameters="0.9x"), data
        )
        assert len(scored) == 20
        assert {r["recipe"]["is_taught"] for r in records.read(tmp_path / "h.adapted-3.jsonl")} == {True}

    @pytest.mark.slow
    def test_halving_over_trainings(self, folder, data, tmp_path, in_process):
        arguments = commands(
            folder, tmp_path, search="trained_halving", num_evaluations=4,
            search_settings={"min_steps": 2, "max_steps": 8, "reduction": 2},
        )  # fmt: skip
        scored = search_children(arguments, data)
        parts = {steps: records.read(tmp_path / f"h.adapted-{steps}.jsonl") for steps in (2, 4, 8)}
        counts = [len(found) for found in parts.values()]
        assert counts[0] > counts[1] > counts[2] == len(scored) > 0
        assert sum(steps * len(found) for steps, found in parts.items()) <= 4 * 8
        assert scored[0].loss == min(record["dev_loss"] for record in parts[8])
        num_trained = len(in_process)
        assert search_children(arguments, data) == scored
        assert len(in_process) == num_trained

    @pytest.mark.slow
    def test_a_compute_budget_from_end_to_end(self, folder, data, tmp_path, in_process, monkeypatch, capsys):
        monkeypatch.setattr("hf_nasbert.searching.compute.LEAST_ADAPTED", 3)
        monkeypatch.setattr("hf_nasbert.searching.compute.NUM_ADAPTED", 5)
        monkeypatch.setattr("hf_nasbert.searching.compute.SHORTEST", 3)
        arguments = commands(
            folder, tmp_path, compute_budget="4x", child_steps=20, num_evaluations=2, report=str(tmp_path / "r.html")
        )
        scored = search_children(arguments, data)
        assert str(scored[0].architecture) in (tmp_path / "r.html").read_text(encoding="utf-8")
        said = capsys.readouterr().err
        plan = re.search(
            r"compute budget: 248 passes \(4\.00 trainings of a child\): adapt 5 children for (\d+) ", said
        )
        adapted = records.read(tmp_path / f"h.adapted-{plan[1]}.jsonl")
        alone = records.read(tmp_path / "h.alone-20.jsonl")
        assert (len(adapted), len(alone)) == (5, len(scored))
        assert len(alone) == 3
        assert sum(record["passes"] for record in [*adapted, *alone]) <= 248
        assert scored[0].loss == min(record["dev_loss"] for record in alone)
        for records_of, expected in ((adapted, (3e-3, False, True)), (alone, (2e-3, True, False))):
            recipes = [record["recipe"] for record in records_of]
            assert {(one["learning_rate"], one["falls"], one["is_inherited"]) for one in recipes} == {expected}
        before = (tmp_path / "h.jsonl").read_bytes()
        assert search_children(arguments, data) == scored
        assert (tmp_path / "h.jsonl").read_bytes() == before
        assert len(in_process) == 8
        with pytest.raises(ValueError, match=r"it differs in .*compute_budget"):
            search_children(replace(arguments, compute_budget="6x"), data)

    @pytest.mark.slow
    def test_killed_in_the_middle_it_ends_as_it_would_have(self, folder, data, tmp_path, in_process, monkeypatch):
        monkeypatch.setattr("hf_nasbert.searching.compute.LEAST_ADAPTED", 3)
        monkeypatch.setattr("hf_nasbert.searching.compute.SHORTEST", 3)
        arguments = commands(folder, tmp_path, compute_budget="4x", child_steps=20, num_evaluations=9)
        straight = search_children(replace(arguments, output=str(tmp_path / "straight.jsonl")), data)
        expected = list(in_process)
        train, left = ChildTrainer.train, [len(expected) // 2]

        def killed(*args, **options):
            left[0] -= 1
            if left[0] < 0:
                raise KeyboardInterrupt
            return train(*args, **options)

        in_process.clear()
        monkeypatch.setattr(ChildTrainer, "train", killed)
        with pytest.raises(KeyboardInterrupt):
            search_children(arguments, data)
        monkeypatch.setattr(ChildTrainer, "train", train)
        assert search_children(arguments, data) == straight
        assert in_process == expected

    def test_a_small_budget_scores(self, folder, data, tmp_path, in_process, capsys):
        scored = search_children(commands(folder, tmp_path, compute_budget="10"), data)
        assert (len(scored), in_process) == (5, [])
        assert "compute budget: 10 passes (0.00 trainings of a child): score 5 children (100 %)" in (
            capsys.readouterr().err
        )

    @pytest.mark.parametrize(
        ("settings", "message"),
        [
            ({"adapt_steps": -1}, "adapt_steps=-1: expected at least 0"),
            ({"num_adapted": 1}, "num_adapted=1: expected at least 2"),
            ({"adapt_learning_rate": 0.0}, "adapt_learning_rate=0.0: expected above 0"),
            ({"adapt_steps": 3, "search": "halving"}, "adapt_steps=3: an additive model predicts no loss on a part"),
            ({"adapt_steps": 3, "search": "trained_halving"}, "as trained_halving asks for it; choose another"),
            ({"stage_errors": 0}, "stage_errors=0: expected at least 1"),
            ({"stage_errors": 2, "adapt_steps": 3}, "stage_errors and adapt_steps are two ways to score children"),
            ({"stage_errors": 2, "search": "halving"}, "stage_errors=2 scores children on all dev batches at once"),
            ({"stage_errors": 2, "search": "trained_halving"}, "stage_errors=2 .* choose another search than"),
            ({"stage_errors": 2, "compute_budget": "5x"}, "stage_errors=2 .* leave compute_budget out"),
            ({"stage_errors": 2, "dev_files": ["a=b"]}, "dev_files scores children by their losses"),
            ({"compute_budget": "5x", "adapt_steps": 3}, "compute_budget decides how long children are adapted"),
            ({"compute_budget": "5x", "search": "nsga2"}, "compute_budget divides its compute itself"),
            ({"compute_budget": "much"}, "compute_budget: 'much' is not a quantity.*, or 5x for five trainings"),
            ({"compute_budget": "0x"}, "compute_budget=0x must be above 0"),
            ({"compute_budget": "5x", "child_steps": 0}, "child_steps=0 must be at least 1"),
            ({"compute_budget": "5x", "child_learning_rate": -1.0}, "child_learning_rate=-1.0 must be a positive"),
        ],
    )  # fmt: skip
    def test_what_does_not_fit_is_refused_before_anything_is_loaded(self, settings, message):
        with pytest.raises(ValueError, match=message):
            SearchChildrenArguments(supernet="x", output="y", **settings)

    def test_under_a_launcher_it_is_refused(self, folder, data, tmp_path, monkeypatch):
        monkeypatch.setenv("WORLD_SIZE", "2")
        with pytest.raises(ValueError, match="training children is work of one process"):
            search_children(commands(folder, tmp_path, adapt_steps=3), data)


@pytest.fixture(scope="module")
def study(tmp_path_factory, data):
    """A table of all nine children, and a super-net of theirs."""
    folder = tmp_path_factory.mktemp("study")
    recipe = StandaloneArguments(
        blocks=["conv3", "attention,ffn,conv3", "attention,ffn,conv3"], hidden_size=32, max_steps=4,
        train_batch_size=4, num_dev_batches=2, dev_batch_size=4, eval_steps=4,
    )  # fmt: skip
    trainer = StandaloneTrainer(recipe, load_corpus(data), source="tiny.txt")
    for child in CHILDREN:
        records.append(folder / "table.jsonl", trainer.train(child, 0))
    torch.manual_seed(0)
    SupernetForMaskedLM(trainer.config).save_pretrained(folder / "supernet")
    trainer.corpus.tokenizer.save_pretrained(folder / "supernet")
    return folder


@pytest.mark.slow
def test_rank_children_adapts_and_calibrates(study, data, tmp_path, in_process, monkeypatch):
    monkeypatch.setattr("hf_nasbert.ranking.study.baselines", lambda *_, **__: [])
    monkeypatch.setattr("hf_nasbert.ranking.calibration._NUM_DRAWS", 3)
    arguments = RankChildrenArguments(
        table=str(study / "table.jsonl"), scores=str(tmp_path / "scores.jsonl"), supernets=[str(study / "supernet")],
        num_dev_batches=2, num_resamples=5, calibrate=4,
    )  # fmt: skip
    plain = rank_children(arguments, data)
    both = rank_children(replace(arguments, adapt_steps=3, num_adapted=4, adapt_batch_size=4), data)
    names = ["supernet", "supernet, 4 children adapted for 3 steps"]
    assert [row.name for row in plain.methods] == names[:1]
    assert [row.name for row in both.methods] == names
    assert [row.name for row in both.calibrated] == [
        "4 trained, additive", *(f"{name}, calibrated by 4" for name in names)
    ]  # fmt: skip
    (file,) = tmp_path.glob("scores.*.adapted-3.jsonl")
    adapted = {record["architecture"]: record["dev_loss"] for record in records.read(file)}
    assert len(adapted) == len(in_process) == 4
    sample = [child for child in CHILDREN if str(child) in adapted]
    model = shared_ridge(SPACE.blocks).fit(sample, [adapted[str(child)] for child in sample])
    written = records.read(arguments.scores)[1]["proxy_losses"]
    # Each is ranked by children that it is none of: also those that were adapted.
    assert [written[str(child)] for child in CHILDREN] == pytest.approx(model.predict_left_out(CHILDREN), abs=1e-5)
    assert model.predict(sample) != pytest.approx(model.predict_left_out(sample), abs=1e-5)
    whole = Path(arguments.scores).read_bytes()
    rank_children(replace(arguments, adapt_steps=3, num_adapted=4, adapt_batch_size=4), data)
    rank_children(arguments, data)
    assert Path(arguments.scores).read_bytes() == whole
    assert len(in_process) == 4
    more = rank_children(replace(arguments, adapt_steps=3, num_adapted=30, adapt_batch_size=4), data)
    assert more.methods[-1].name == "supernet, 9 children adapted for 3 steps", "all that the table has"


def test_a_calibration_that_leaves_nothing_to_rank_is_refused_before_a_super_net_is_scored(
    study, data, tmp_path, in_process
):
    arguments = RankChildrenArguments(
        table=str(study / "table.jsonl"), scores=str(tmp_path / "scores.jsonl"), supernets=[str(study / "supernet")],
        calibrate=7, adapt_steps=3, num_adapted=4,
    )  # fmt: skip
    with pytest.raises(ValueError, match="calibrate=7: of 9 children in the table, 2 would be left to rank"):
        rank_children(arguments, data)
    assert not (tmp_path / "scores.jsonl").exists()
    assert in_process == []


@pytest.mark.slow
def test_the_command_killed_and_run_again_on_its_farm_doubles_nothing(folder, data, tmp_path, capfd):
    output = tmp_path / "h.jsonl"
    argv = [
        "search", "--supernet", folder, "--output", output, "--train_files", data.train_files[0], "--sample_by",
        "paragraph", "--vocab_size", "300", "--max_seq_length", "16", "--validation_fraction", "0.3", "--cache_dir",
        data.cache_dir, "--num_dev_batches", "2", "--dev_batch_size", "4", "--adapt_batch_size", "4",
        "--adapt_steps", "40", "--num_adapted", "6", "--num_evaluations", "9", "--num_workers", "2",
    ]  # fmt: skip
    argv = list(map(str, argv))
    table = tmp_path / "h.adapted-40.jsonl"
    process = forked(with_a_fork_server_of_its_own, cli.main, argv)
    try:
        end = time.monotonic() + 600
        while not (table.exists() and table.read_bytes().count(b"\n")):
            assert time.monotonic() < end
            assert process.is_alive()
            time.sleep(0.05)
    finally:
        process.kill()
        process.join()
    begun = table.read_bytes()
    assert cli.main(argv) == 0
    assert table.read_bytes().startswith(begun[: begun.rfind(b"\n") + 1])
    found = [record["architecture"] for record in records.read(table)]
    assert len(found) == len(set(found)) == 6
    assert len(records.read(output)) == 10
    assert "9 children scored" in capfd.readouterr().out
