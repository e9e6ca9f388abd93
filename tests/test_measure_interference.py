"""Measuring the interference of trained super-nets: whole, resumed, the same twice, refused by name; their text."""

import json
import shutil

import pytest
import torch
from tiny.records import STUDY
from tiny.texts import TEXT, text_arguments

from hf_nasbert import records
from hf_nasbert.interference import as_markdown, measure_pairs, measurements
from hf_nasbert.modeling import SupernetConfig, SupernetForMaskedLM
from hf_nasbert.pipeline.inputs import load_dev_batches


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A real run of six steps with its checkpoints, and the weights that it started from."""
    from accelerate.state import AcceleratorState

    from hf_nasbert.training import SupernetArguments, SupernetTrainingArguments, pretrain, pretrain_supernet

    AcceleratorState._reset_state(reset_partial_state=True)
    folder = tmp_path_factory.mktemp("runs") / "uniform"
    start = {}

    def train(supernet, *args, **kwargs):
        start.update({name: tensor.clone() for name, tensor in supernet.state_dict().items()})
        return original(supernet, *args, **kwargs)

    original = pretrain.train_supernet
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pretrain, "train_supernet", train)
        pretrain_supernet(
            SupernetArguments(
                operators=["attention", "ffn"], num_choice_blocks=3, hidden_size=32, max_position_embeddings=16
            ),
            text_arguments(),
            SupernetTrainingArguments(
                output_dir=str(folder),
                method="uniform",
                seed=3,
                max_steps=6,
                save_steps=3,
                per_device_train_batch_size=4,
                num_eval_batches=1,
                num_eval_children=1,
                report_to="none",
                disable_tqdm=True,
                use_cpu=True,
            ),
        )
    AcceleratorState._reset_state(reset_partial_state=True)
    return folder, start


def interference_arguments(output, *supernets, **changes):
    from hf_nasbert.pipeline import InterferenceArguments

    settings = {"num_children": 2, "num_settings": 2, "num_dev_batches": 1, "dev_batch_size": 4, **changes}
    return InterferenceArguments(supernets=[str(folder) for folder in supernets], output=str(output), **settings)


class TestPipeline:
    def test_measures_checkpoints_ends_and_beginnings_once(self, run, tmp_path, monkeypatch):
        from hf_nasbert.pipeline import interference

        folder, _ = run
        output = tmp_path / "interference.jsonl"
        arguments = interference_arguments(output, folder / "checkpoint-3", folder, untrained=True)
        measured = interference.measure_interference(arguments, text_arguments())
        assert [(r["method"], r["seed"], r["step"], r["max_steps"]) for r in measured] == [
            ("uniform", 3, 3, 6),
            (None, 3, 0, 6),
            ("uniform", 3, 6, 6),
        ]
        assert [group.when for group in measurements(measured)] == [
            "before training",
            "at 50% of training",
            "after training",
        ]
        assert records.read(output) == measured
        # A killed process leaves half a line: what was whole is kept, the rest measured again, to the same digits.
        whole = output.read_bytes()
        output.write_bytes(whole[: len(whole) - 500])
        with pytest.MonkeyPatch.context() as patch:
            calls = []
            patch.setattr(
                interference, "measure_pairs", lambda *args, **kw: calls.append(1) or measure_pairs(*args, **kw)
            )
            again = interference.measure_interference(arguments, text_arguments())
        assert len(calls) == 1
        assert again == measured
        assert output.read_bytes() == whole
        monkeypatch.setattr(interference, "measure_pairs", None)
        assert interference.measure_interference(arguments, text_arguments()) == measured
        # The last checkpoint and the run's end are the same weights.
        same = interference_arguments(output, folder / "checkpoint-6", untrained=True)
        assert interference.measure_interference(same, text_arguments()) == measured
        with pytest.raises(ValueError, match="another num_children"):
            interference.measure_interference(interference_arguments(output, folder, num_children=3), text_arguments())

    def test_an_untrained_super_net_is_the_runs_own_beginning(self, run):
        from hf_nasbert.extraction import load_supernet
        from hf_nasbert.training.pretrain import initial_supernet

        folder, start = run
        torch.manual_seed(7)
        before = torch.get_rng_state()
        made = initial_supernet(load_supernet(folder).config, 3).state_dict()
        assert made.keys() == start.keys()
        assert all(torch.equal(made[name], tensor) for name, tensor in start.items())
        assert torch.equal(torch.get_rng_state(), before)
        other = initial_supernet(load_supernet(folder).config, 4).state_dict()
        assert any(not torch.equal(other[name], tensor) for name, tensor in start.items())

    def test_refuses_what_does_not_fit_by_name(self, run, tmp_path):
        import shutil

        from hf_nasbert.pipeline.interference import measure_interference

        folder, _ = run
        output = tmp_path / "interference.jsonl"

        def refused(message, *supernets, data=None, **changes):
            with pytest.raises((ValueError, OSError), match=message):
                measure_interference(interference_arguments(output, *supernets, **changes), data or text_arguments())
            assert not output.exists()

        refused("no such folder", tmp_path / "nobody")
        refused(
            "max_seq_length=32, but the super-net was built for 16", folder, data=text_arguments(max_seq_length=32)
        )
        # Another tokenizer of the same size: nothing but the words tells.
        other = tmp_path / "other"
        shutil.copytree(folder, other, ignore=shutil.ignore_patterns("checkpoint-*"))
        file = other / "tokenizer.json"
        content = json.loads(file.read_text())
        words = sorted(content["model"]["vocab"], key=content["model"]["vocab"].get)
        words[-1], words[-2] = words[-2], words[-1]
        content["model"]["vocab"] = {word: number for number, word in enumerate(words)}
        file.write_text(json.dumps(content))
        refused("other has another tokenizer than", folder, other)
        refused("has another tokenizer than tokenizer_name", other, data=text_arguments(tokenizer_name=str(folder)))
        # A damaged checkpoint.
        damaged = tmp_path / "checkpoint-3"
        shutil.copytree(folder / "checkpoint-3", damaged)
        refused("holds no tokenizer", damaged)
        state = damaged / "training_state.json"
        state.write_text(state.read_text().replace('"step": 3', '"step": 4'))
        refused("training_state.json", folder, damaged)
        # A super-net that nobody trained here has no seed to begin from.
        (other / "train_log.jsonl").unlink()
        refused("does not say by which seed", other, untrained=True)
        # A file of something else.
        output.write_text('{"architecture": "ffn-ffn-ffn", "proxy_loss": 1.0}\n')
        with pytest.raises(ValueError, match=r"\.jsonl: record 1 is no measurement"):
            measure_interference(interference_arguments(output, folder), text_arguments())

    @pytest.mark.parametrize("name", ["num_children", "num_settings", "max_distance"])
    def test_refuses_odd_numbers(self, name):
        with pytest.raises(ValueError, match=f"{name}=0"):
            interference_arguments("records.jsonl", "somewhere", **{name: 0})

    @pytest.mark.slow
    def test_report_fills_the_page(self, tmp_path):
        from hf_nasbert.pipeline import InterferenceReportArguments, report_interference

        records.extend(tmp_path / "study.jsonl", STUDY[2:3])
        page = tmp_path / "page.md"
        page.write_text("# Title\n<!-- table: gains -->\nold | text\n<!-- end -->\nwords\n")
        figures = tmp_path / "figures"
        text = report_interference(
            InterferenceReportArguments(measured=str(tmp_path / "study.jsonl"), page=str(page), figures=str(figures))
        )
        assert as_markdown(STUDY[2:3])["gains"] in text
        gains = as_markdown(STUDY[2:3])["gains"]
        assert page.read_text() == f"# Title\n<!-- table: gains -->\n{gains}\n<!-- end -->\nwords\n"
        drawn = {file.stem.removeprefix("interference-") for file in figures.iterdir()}
        assert drawn == {"distance", "inputs", "outputs", "blocks"}
        page.write_text("<!-- table: gain -->\n<!-- end -->\n")
        with pytest.raises(ValueError, match="no table 'gain'"):
            report_interference(InterferenceReportArguments(measured=str(tmp_path / "study.jsonl"), page=str(page)))


class TestSeveral:
    def measure(self, output, *folders, **changes):
        from hf_nasbert.pipeline import measure_interference

        return measure_interference(interference_arguments(output, *folders, **changes), text_arguments())

    @pytest.mark.slow
    def test_two_runs_that_would_pass_for_one_need_a_label(self, run, tmp_path):
        folder, output = tmp_path / "again", tmp_path / "interference.jsonl"
        shutil.copytree(run[0], folder)
        supernet = SupernetForMaskedLM.from_pretrained(folder)
        with torch.no_grad():
            supernet.nasbert.embeddings.word_embeddings.weight.mul_(1.1)
        supernet.save_pretrained(folder)
        with pytest.raises(ValueError, match="two runs are both uniform, seed 3, after training and would pass for"):
            self.measure(output, run[0], folder)
        assert not output.exists()
        self.measure(output, run[0])
        (_, second) = self.measure(output, folder, label="uniform, louder")
        assert second["method"] == "uniform, louder"
        with pytest.raises(ValueError, match="again as uniform, louder, now it would be uniform: give the same label"):
            self.measure(output, folder)

    def test_other_sizes_and_other_held_out_text_are_refused_be_it_of_the_last(self, run, tmp_path):
        folder, output = tmp_path / "other", tmp_path / "interference.jsonl"
        shutil.copytree(run[0], folder)
        SupernetForMaskedLM(SupernetConfig.from_pretrained(folder, hidden_act="relu")).save_pretrained(folder)
        with pytest.raises(ValueError, match=r"other has hidden_act=relu, but .*uniform gelu: measure"):
            self.measure(output, run[0], folder)
        shutil.rmtree(folder)
        shutil.copytree(run[0], folder)
        SupernetForMaskedLM(SupernetConfig.from_pretrained(folder)).save_pretrained(folder)
        log = (folder / "train_log.jsonl").read_text()
        (folder / "train_log.jsonl").write_text(
            log.replace('"seed": 3', '"seed": 4').replace('"data_seed": 0', '"data_seed": 7')
        )
        with pytest.raises(ValueError, match=r"other was trained on tiny\.txt with data_seed=7, now it is 0"):
            self.measure(output, run[0], folder)
        assert not output.exists()

    def test_a_run_that_goes_on_after_its_end_does_not_say_its_step(self, run, tmp_path):
        from hf_nasbert.pipeline.interference import describe_run

        folder = tmp_path / "going-on"
        shutil.copytree(run[0], folder)
        assert describe_run(folder)["step"] == 6
        lines = (folder / "train_log.jsonl").read_text().splitlines(keepends=True)
        assert '"finish"' in lines[-1]
        (folder / "train_log.jsonl").write_text("".join(lines[:-1]))
        assert describe_run(folder) == {"method": "uniform", "seed": 3, "step": None, "max_steps": 6}
        again = json.loads(lines[0])
        again["arguments"]["max_steps"] = 9
        with (folder / "train_log.jsonl").open("a") as log:
            log.write(json.dumps(again) + "\n")
        assert describe_run(folder)["max_steps"] == 9

    def test_settings_are_told_apart_at_every_step(self, run, tmp_path):
        from hf_nasbert.pipeline.interference import settings_digest

        digest = settings_digest(run[0])
        assert digest == settings_digest(run[0] / "checkpoint-3") is not None
        folder = tmp_path / "faster"
        shutil.copytree(run[0], folder)
        log = (folder / "train_log.jsonl").read_text()
        (folder / "train_log.jsonl").write_text(log.replace('"learning_rate": 0.0005', '"learning_rate": 0.005'))
        assert settings_digest(folder) not in (None, digest)
        (folder / "train_log.jsonl").write_text(
            log.replace('"per_device_train_batch_size": 4', '"per_device_train_batch_size": 8')
        )
        assert settings_digest(folder) not in (None, digest)
        (folder / "train_log.jsonl").write_text(log.replace('"save_steps": 3', '"save_steps": 2'))
        assert settings_digest(folder) == digest, "how often it is saved changes nothing of what comes out"
        (folder / "train_log.jsonl").unlink()
        assert settings_digest(folder) is None


class TestHeldOutText:
    """Whoever measures a super-net holds out what its own run held out, or hears of it."""

    def batches(self, folder, **changes):
        config = SupernetConfig.from_pretrained(folder)
        return load_dev_batches(config, folder, text_arguments(**changes), num_batches=1, batch_size=2)

    @pytest.mark.parametrize("place", [".", "checkpoint-3"])
    @pytest.mark.parametrize(
        "changed",
        [{"validation_fraction": 0.5}, {"data_seed": 7}, {"sample_by": "line"}],
        ids=lambda each: next(iter(each)),
    )
    def test_another_split_of_the_same_text_is_refused(self, run, place, changed):
        ((name, value),) = changed.items()
        with pytest.raises(
            ValueError, match=rf"trained on tiny\.txt with {name}=.*, now it is {value!r}.*the same {name}"
        ):
            self.batches(run[0] / place, **changed)

    def test_other_text_is_anybodys_choice(self, run, tmp_path):
        (tmp_path / "other.txt").write_text(TEXT.read_text())
        self.batches(run[0], train_files=[str(tmp_path / "other.txt")], data_seed=7)

    def test_longer_sequences_are_told(self, run, tmp_path, caplog):
        self.batches(run[0])
        assert not caplog.messages
        folder = tmp_path / "short"
        shutil.copytree(run[0], folder)
        log = (folder / "train_log.jsonl").read_text()
        assert '"sequence_length": 16' in log
        (folder / "train_log.jsonl").write_text(log.replace('"sequence_length": 16', '"sequence_length": 12'))
        self.batches(folder)
        assert "trained on sequences of 12 tokens: with max_seq_length=16" in caplog.text

    def test_a_folder_without_a_log_says_nothing(self, run, tmp_path):
        folder = tmp_path / "bare"
        shutil.copytree(run[0], folder, ignore=shutil.ignore_patterns("train_log.jsonl"))
        self.batches(folder, data_seed=7)
