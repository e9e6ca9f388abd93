"""Trainings of a dozen steps: super-nets of their own size, batches of a language to learn, what a log says."""

import random

import torch
from accelerate.state import AcceleratorState

from hf_nasbert.methods import methods_with
from hf_nasbert.modeling import SupernetConfig, SupernetForMaskedLM
from hf_nasbert.space import SearchSpace
from hf_nasbert.training import SupernetLoop, SupernetTrainingArguments, read_log

SPACES = {
    "chain": SearchSpace.chain(4, ("attention", "ffn", "conv3", "skip")),
    "staged": SearchSpace.staged(2, 2, ("attention", "conv3", "skip"), widths=(32, 64)),
}
VOCAB_SIZE = 60
T = 10
STATE = {
    "step": 1, "num_skipped": 0, "identity": {}, "arguments": {}, "method": {}, "update_counter": {}, "window": {},
}  # fmt: skip


class TinyBatches:
    """Batches of a language to learn: every token is followed by the next number. Rows have padding, if asked for."""

    def __init__(self, batch_size, *, seed=0, padding=False):
        self.batch_size, self.seed, self.padding = batch_size, seed, padding

    def describe(self):
        return {"seed": self.seed, "batch_size": self.batch_size}

    def batch(self, step, rows=slice(None)):
        generator = torch.Generator().manual_seed(1000 * self.seed + step)
        first = torch.randint(0, 5, (self.batch_size, 1), generator=generator)
        input_ids = 5 + first + torch.arange(T)
        masked = torch.rand(input_ids.shape, generator=generator) < 0.25
        masked[:, 0] = True
        attention_mask = torch.ones_like(input_ids)
        if self.padding:
            lengths = torch.randint(2, T + 1, (self.batch_size, 1), generator=generator)
            attention_mask = (torch.arange(T) < lengths).long()
        labels = torch.where(masked & attention_mask.bool(), input_ids, -100)
        hidden = torch.where(masked, 4, input_ids)
        return {"input_ids": hidden[rows], "attention_mask": attention_mask[rows], "labels": labels[rows]}

    def loader(self, start_step, num_steps, *, rows=slice(None), num_workers=0):
        return (self.batch(start_step + number, rows) for number in range(num_steps))

    def sample_ids(self, step):
        return range(step * self.batch_size, (step + 1) * self.batch_size)


class KilledBatches(TinyBatches):
    """Batches whose data source dies before some step."""

    def __init__(self, *args, kill_at, **kwargs):
        super().__init__(*args, **kwargs)
        self.kill_at = kill_at

    def batch(self, step, rows=slice(None)):
        if step == self.kill_at:
            raise KeyboardInterrupt
        return super().batch(step, rows)


def make_supernet(space="chain", *, dropout=0.0, seed=0, **sizes):
    torch.manual_seed(seed)
    sizes = {"vocab_size": VOCAB_SIZE, "hidden_size": 32, "max_position_embeddings": 16, **sizes}
    return SupernetForMaskedLM(
        SupernetConfig(
            search_space=SPACES[space],
            hidden_dropout_prob=dropout,
            attention_probs_dropout_prob=dropout,
            **sizes,
        )
    )


def make_arguments(output_dir, **settings):
    defaults = {
        "method": "magic_at",  # the one with most to go wrong
        "max_steps": 12,
        "per_device_train_batch_size": 4,
        "learning_rate": 1e-2,
        "warmup_ratio": 0.2,
        "logging_steps": 1,
        "save_steps": 5,
        "anchor_interval": 3,
        "anchor_dev_batches": 1,
        "num_eval_children": 3,
        "mixed_precision": "no",  # the same bits on CPUs with and without units for bf16
        "report_to": "none",
        "disable_tqdm": True,
        "use_cpu": True,
    }
    given = {**defaults, **settings}
    own = {name: given.pop(name) for name in list(given) if methods_with(name)}
    method = given["method"]
    own = {name: value for name, value in own.items() if method in methods_with(name)}
    return SupernetTrainingArguments(output_dir=str(output_dir), method_settings=own, **given)


def make_trainer(output_dir, *, supernet=None, batches=None, **settings):
    arguments = make_arguments(output_dir, **settings)
    batches = TinyBatches(arguments.train_batch_size(1)) if batches is None else batches
    dev_batches = [TinyBatches(4, seed=99).batch(number) for number in range(2)]
    AcceleratorState._reset_state(reset_partial_state=True)
    return SupernetLoop(make_supernet() if supernet is None else supernet, arguments, batches, dev_batches)


def train_log(output_dir, event="train"):
    """The deterministic part of a log."""
    chosen = [record for record in read_log(output_dir) if record["event"] == event]
    return [{key: value for key, value in record.items() if key != "tokens_per_second"} for record in chosen]


def save_tiny_recipe(folder):
    """A config of a small run on a text file; its run lies beside it."""
    rng = random.Random(0)
    words = ["the", "film", "was", "good", "bad", "and", "long", "actors", "play", "well"]
    (folder / "text.txt").write_text("\n".join(" ".join(rng.choices(words, k=40)) for _ in range(120)))
    settings = {
        "output_dir": folder / "run",
        "train_files": [folder / "text.txt"],
        "cache_dir": folder / "cache",
        "vocab_size": 60,
        "max_seq_length": 16,
        "operators": ["attention", "ffn", "conv3"],
        "num_choice_blocks": 3,
        "hidden_size": 32,
        "method": "magic_at",
        "max_steps": 4,
        "per_device_train_batch_size": 4,
        "learning_rate": "1e-2",
        "num_eval_batches": 2,
        "save_steps": 2,
        "logging_steps": 1,
        "use_cpu": "true",
        "disable_tqdm": "true",
        "report_to": "none",
    }
    as_yaml = {
        key: f"[{', '.join(map(str, value))}]" if isinstance(value, list) else value for key, value in settings.items()
    }
    (folder / "tiny.yaml").write_text("".join(f"{key}: {value}\n" for key, value in as_yaml.items()))
    return folder / "tiny.yaml"
