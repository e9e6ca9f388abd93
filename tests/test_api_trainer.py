"""The trainer at the top: the bits of the command, the callbacks of transformers, the names of TrainingArguments."""

import random
from dataclasses import replace

import pytest
import torch
from accelerate.state import AcceleratorState
from datasets import Dataset
from tiny.models import assert_equal_states
from tiny.texts import tiny_tokenizer
from tiny.trainings import save_tiny_recipe
from transformers import EarlyStoppingCallback, TrainerCallback

from hf_nasbert import SearchSpace, SupernetConfig, SupernetForMaskedLM, SupernetTrainer, SupernetTrainingArguments
from hf_nasbert.cli import main
from hf_nasbert.data import DataArguments
from hf_nasbert.training import SupernetArguments, find_checkpoint, read_log

pytestmark = pytest.mark.usefixtures("quiet_trainer")
SPACE = SearchSpace.chain(3, ("attention", "ffn", "conv3"))


@pytest.fixture(autouse=True)
def alone():
    AcceleratorState._reset_state(reset_partial_state=True)
    yield
    AcceleratorState._reset_state(reset_partial_state=True)


def texts(num_texts=120, seed=0):
    words, rng = "the film was good bad long short and not very a plot".split(), random.Random(seed)
    return [" ".join(rng.choices(words, k=40)) for _ in range(num_texts)]


def arguments(output_dir, **settings):
    usual = {
        "max_steps": 4, "per_device_train_batch_size": 4, "learning_rate": 1e-2, "num_eval_batches": 1,
        "num_eval_children": 2, "save_steps": 2, "logging_steps": 1, "use_cpu": True, "disable_tqdm": True,
        "report_to": "none",
    }  # fmt: skip
    return SupernetTrainingArguments(output_dir=str(output_dir), **usual | settings)


def make(tmp_path, *, name="run", callbacks=(), text=None, method="uniform", model=None, given=None, **settings):
    return SupernetTrainer(
        model=SupernetConfig(search_space=SPACE, hidden_size=32) if model is None else model,
        args=arguments(tmp_path / name, **settings),
        train_dataset=texts() if given is None else given,
        method=method,
        callbacks=callbacks,
        **{"max_seq_length": 16, "vocab_size": 60, "cache_dir": str(tmp_path / "cache")} | (text or {}),
    )


class Witness(TrainerCallback):
    """Writes down what it is told, and asks for what it was made to ask for."""

    def __init__(self, **asks):
        self.told, self.asks = [], asks

    def on_init_end(self, args, state, control, **given):
        self._note("init_end", state, given)

    def on_train_begin(self, args, state, control, **given):
        self.args = args
        self._note("train_begin", state, given)

    def on_step_begin(self, args, state, control, **given):
        self._note("step_begin", state, given)

    def on_step_end(self, args, state, control, **given):
        self._note("step_end", state, given)
        for what, step in self.asks.items():
            if state.global_step == step:
                setattr(control, what, True)

    def on_log(self, args, state, control, logs, **given):
        self._note("log", state, given, *(name for name in ("loss", "eval_loss") if name in logs))

    def on_evaluate(self, args, state, control, metrics, **given):
        self._note("evaluate", state, given, *metrics)

    def on_save(self, args, state, control, **given):
        self._note("save", state, given)

    def on_train_end(self, args, state, control, **given):
        self._note("train_end", state, given)

    def _note(self, event, state, given, *more):
        assert isinstance(given["model"], SupernetForMaskedLM)
        assert given["processing_class"].mask_token == "[MASK]"
        self.told.append((event, state.global_step, *more))

    def steps_of(self, event):
        return [step for name, step, *_ in self.told if name == event]


@pytest.mark.parametrize("method", ["uniform", "magic_at"])
def test_the_same_seed_gives_the_bits_of_the_command(tmp_path, method, own_cache):
    config = save_tiny_recipe(tmp_path)
    main(["pretrain", "--config", str(config), "--method", method, "--seed", "3"])
    by_command = SupernetForMaskedLM.from_pretrained(tmp_path / "run")
    AcceleratorState._reset_state(reset_partial_state=True)
    lines = Dataset.from_dict({"text": (tmp_path / "text.txt").read_text().splitlines()})
    usual = {"num_eval_batches": 2, "num_eval_children": 8}
    trainer = make(tmp_path, name="mine", given=lines, method=method, seed=3, **usual)
    done = trainer.train()
    assert_equal_states(trainer.model, by_command)
    assert done.global_step == 4
    mine, its = (
        [{key: value for key, value in record.items() if key in ("event", "step", "loss")} for record in read_log(run)]
        for run in (tmp_path / "mine", tmp_path / "run")
    )
    assert mine == its
    assert_equal_states(SupernetForMaskedLM.from_pretrained(tmp_path / "mine"), by_command)
    assert done.metrics["eval_loss"] == read_log(tmp_path / "run")[-2]["loss"]


def test_callbacks_are_told_what_a_trainers_are_told(tmp_path):
    witness = Witness()
    trainer = make(tmp_path, callbacks=[witness], max_steps=3, eval_steps=2)
    trainer.train()
    step = [("step_begin", 0), ("step_end", 1), ("log", 1, "loss")]
    evaluated = [("log", 2, "eval_loss"), ("evaluate", 2, "eval_loss", "eval_loss_best", "epoch")]
    assert witness.told == [
        ("init_end", 0),
        ("train_begin", 0),
        *step,
        *[("step_begin", 1), ("step_end", 2), ("log", 2, "loss"), *evaluated, ("save", 2)],
        *[("step_begin", 2), ("step_end", 3), ("log", 3, "loss"), ("save", 3)],
        *[(name, 3, *rest) for name, _, *rest in evaluated],
        ("train_end", 3),
    ]
    assert (witness.args.max_steps, witness.args.learning_rate, witness.args.eval_steps) == (3, 1e-2, 2)
    history = trainer.state.log_history
    assert [line["step"] for line in history] == [1, 2, 2, 3, 3]
    assert history[0].keys() >= {"loss", "learning_rate", "grad_norm", "epoch"}
    assert trainer.state.epoch == 3 * 4 / trainer.loop.batches.num_sequences
    assert trainer.state.best_metric == min(line["eval_loss"] for line in history if "eval_loss" in line)


class TestStopping:
    def test_a_callback_stops_behind_its_step_and_the_run_goes_on_to_the_same_bits(self, tmp_path):
        whole = make(tmp_path, name="whole", max_steps=5, save_steps=100)
        whole.train()
        stopping = Witness(should_training_stop=3)
        first = make(tmp_path, callbacks=[stopping], max_steps=5, save_steps=100)
        done = first.train()
        assert (done.global_step, stopping.steps_of("save"), stopping.steps_of("train_end")) == (3, [3], [3])
        assert "eval_loss" not in done.metrics
        with pytest.raises(ValueError, match="has trained 3 steps: go on with resume_from_checkpoint=True"):
            first.train()
        going_on = make(tmp_path, callbacks=[Witness()], max_steps=5, save_steps=100)
        assert going_on.train(resume_from_checkpoint=True).global_step == 5
        assert_equal_states(going_on.model, whole.model)
        losses = [[line.get("loss") for line in one.state.log_history] for one in (whole, going_on)]
        assert losses[0] == losses[1]

    def test_the_same_trainer_goes_on(self, tmp_path):
        whole = make(tmp_path, name="whole")
        whole.train()
        trainer = make(tmp_path, callbacks=[Witness(should_training_stop=1)])
        assert trainer.train().global_step == 1
        assert trainer.train(find_checkpoint(tmp_path / "run", "latest")).global_step == 4
        assert_equal_states(trainer.model, whole.model)
        with pytest.raises(ValueError, match="has trained 4 steps: go on with resume_from_checkpoint=True"):
            trainer.train()

    def test_transformers_own_early_stopping(self, tmp_path, monkeypatch, caplog):
        trainer = make(
            tmp_path, callbacks=[EarlyStoppingCallback(early_stopping_patience=2)], max_steps=9, eval_steps=1
        )
        losses = iter([3.0, 2.0, 2.5, 2.5, 2.5, 2.5])
        monkeypatch.setattr(trainer.loop, "eval_losses", lambda: [(SPACE.child_at(0), next(losses))])
        assert trainer.train().global_step == 4
        assert (trainer.state.best_metric, trainer.state.best_global_step) == (2.0, 2)


def test_a_callback_may_ask_for_a_line_an_evaluation_and_a_checkpoint(tmp_path):
    witness = Witness(should_log=2, should_evaluate=3, should_save=1)
    trainer = make(tmp_path, max_steps=4, logging_steps=100, save_steps=100)
    trainer.add_callback(witness)
    trainer.train()
    assert [step for name, step, *more in witness.told if (name, more) == ("log", ["loss"])] == [2, 4]
    assert witness.steps_of("evaluate") == [3, 4]
    assert witness.steps_of("save") == [1, 4]


def test_evaluating_and_saving_by_hand(tmp_path):
    trainer = make(tmp_path)
    before = trainer.evaluate()
    trainer.train()
    after = trainer.evaluate()
    assert after["eval_loss"] < before["eval_loss"]
    assert trainer.state.log_history[-1] == {**after, "epoch": trainer.state.epoch, "step": 4}
    trainer.save_model(tmp_path / "elsewhere")
    assert_equal_states(SupernetForMaskedLM.from_pretrained(tmp_path / "elsewhere"), trainer.model)
    assert (tmp_path / "elsewhere" / "tokenizer.json").is_file()


class TestText:
    def test_a_data_set_texts_and_a_file_are_one_text(self, tmp_path, own_cache):
        (tmp_path / "text.txt").write_text("\n".join(texts()))
        kinds = [texts(), Dataset.from_dict({"text": texts()}), tmp_path / "text.txt"]
        kinds.append(DataArguments(train_files=[str(tmp_path / "text.txt")], vocab_size=7, cache_dir=str(tmp_path)))
        found = [make(tmp_path, given=kind, name=str(number)) for number, kind in enumerate(kinds)]
        for other in found[1:]:
            assert torch.equal(other.loop.batches.batch(0)["input_ids"], found[0].loop.batches.batch(0)["input_ids"])
            assert other.model.config.vocab_size == found[0].model.config.vocab_size

    def test_what_the_settings_of_a_text_say_holds(self, tmp_path):
        (tmp_path / "text.txt").write_text("\n".join(texts()))
        data = DataArguments(
            train_files=[str(tmp_path / "text.txt")],
            max_seq_length=8,
            vocab_size=60,
            cache_dir=str(tmp_path / "cache"),
        )
        args = replace(arguments(tmp_path), output_dir=tmp_path / "run")
        trainer = SupernetTrainer(SupernetConfig(search_space=SPACE, hidden_size=32), args, data)
        assert trainer.loop.batches.sequence_length == 8
        assert trainer.train().global_step == 4

    def test_another_column(self, tmp_path):
        rows = Dataset.from_dict({"body": [*texts(), " ", None], "label": [0] * 122})
        assert make(tmp_path, given=rows, text={"text_column": "body"}).train().global_step == 4
        with pytest.raises(ValueError, match=r"the text given in Python has no column 'text', only 'body', 'label'"):
            make(tmp_path, given=rows)

    def test_held_out_text_of_its_own(self, tmp_path):
        dev = texts(40, seed=1)
        trainer = SupernetTrainer(
            SPACE, arguments(tmp_path / "run"), texts(), dev, max_seq_length=16, vocab_size=60, cache_dir=str(tmp_path)
        )
        other = make(tmp_path, model=SPACE)
        assert trainer.loop.batches.num_sequences > other.loop.batches.num_sequences  # nothing is held out of it
        words = trainer.processing_class(dev, add_special_tokens=False)["input_ids"]
        known = {tuple(ids[start : start + 3]) for ids in words for start in range(len(ids) - 2)}
        for batch in trainer.loop.dev_batches:
            ids = torch.where(batch["labels"] == -100, batch["input_ids"], batch["labels"])
            assert tuple(ids[0, 1:4].tolist()) in known or trainer.processing_class.sep_token_id in ids[0, 1:4]
        trainer.train()
        assert read_log(tmp_path / "run")[0]["text"]["validation_fraction"] == 0.0

    @pytest.mark.parametrize(
        ("given", "reason"),
        [
            ([], "the text given in Python holds no text"),
            (["a", 3], "holds a int, not a string"),
            ({"train": ["a"], "test": ["b"]}, "expected one data set or texts, got train, test: give one of them"),
            (Dataset.from_dict({"text": [1, 2]}), "holds .*int64.*, not strings"),
        ],
    )
    def test_what_is_no_text(self, tmp_path, given, reason):
        with pytest.raises(ValueError, match=reason) as raised:
            make(tmp_path, given=given)
        assert "\n" not in str(raised.value)


class TestModel:
    def test_a_super_net_that_is_there_is_trained_in_place(self, tmp_path):
        tokenizer = tiny_tokenizer()
        config = SupernetConfig(
            search_space=SPACE, hidden_size=32, vocab_size=len(tokenizer), max_position_embeddings=24
        )
        supernet = SupernetForMaskedLM(config)
        before = supernet.nasbert.embeddings.word_embeddings.weight.clone()
        with pytest.raises(ValueError, match="already has a tokenizer: give it as processing_class"):
            SupernetTrainer(supernet, arguments(tmp_path / "run"), texts())
        trainer = SupernetTrainer(supernet, arguments(tmp_path / "run"), texts(), processing_class=tokenizer)
        assert trainer.model is supernet
        assert trainer.loop.batches.sequence_length == 24
        trainer.train()
        assert not torch.equal(supernet.nasbert.embeddings.word_embeddings.weight, before)
        assert trainer.processing_class.get_vocab() == tokenizer.get_vocab()

    def test_a_tokenizer_of_more_words_than_the_super_net_has(self, tmp_path):
        supernet = SupernetForMaskedLM(SupernetConfig(search_space=SPACE, hidden_size=32, vocab_size=9))
        with pytest.raises(ValueError, match="the tokenizer has 19 tokens, the super-net 9 embeddings"):
            SupernetTrainer(supernet, arguments(tmp_path / "run"), texts(), processing_class=tiny_tokenizer())

    def test_by_the_settings_of_the_command(self, tmp_path):
        asked = SupernetArguments(operators=["attention", "ffn", "conv3"], num_choice_blocks=3, hidden_size=32)
        one, other = make(tmp_path, model=asked), make(tmp_path, name="other")
        assert_equal_states(one.model, other.model)
        assert one.model.space == SPACE

    def test_a_misspelt_setting(self, tmp_path):
        with pytest.raises(TypeError, match="max_sequence_length"):
            make(tmp_path, text={"max_sequence_length": 16})
        with pytest.raises(ValueError, match="method='magic' is none of"):
            make(tmp_path, method="magic")


class TestArguments:
    def test_the_method_of_the_trainer_takes_its_own_settings(self, tmp_path):
        assert make(tmp_path, method="magic_t").args.method == "magic_t"
        args = arguments(tmp_path, method="magic_a", num_eval_batches=2, method_settings={"alignment_weight": 0.25})
        trainer = SupernetTrainer(SPACE, args, texts(), method="magic_a", max_seq_length=16)
        assert trainer.args.method_settings.alignment_weight == 0.25

    def test_precision_by_the_names_of_training_arguments(self, tmp_path):
        assert arguments(tmp_path).mixed_precision == "auto"
        assert arguments(tmp_path, bf16=True).mixed_precision == "bf16"
        assert arguments(tmp_path, fp16=True).mixed_precision == "fp16"
        assert arguments(tmp_path, bf16=False).mixed_precision == "no"
        assert arguments(tmp_path, bf16=False, fp16=True).mixed_precision == "fp16"
        for wrong in ({"bf16": True, "fp16": True}, {"bf16": True, "mixed_precision": "no"}):
            with pytest.raises(ValueError, match=r"bf16=True.* give one of them"):
                arguments(tmp_path, **wrong)
