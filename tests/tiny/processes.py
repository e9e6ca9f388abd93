"""What is run by several processes at once in the tests: trainings of all kinds, and the launching of them."""

import hashlib
import json
import multiprocessing
import os
import random
import signal
import socket
import subprocess
import sys
import time
import traceback
from multiprocessing import forkserver
from pathlib import Path

import numpy as np
import torch
from accelerate.state import AcceleratorState
from datasets import Dataset
from helpers import run_recipe, same_on_all_machines
from torch.distributed.tensor import DTensor
from transformers import BertForMaskedLM, BertModel
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

from hf_nasbert import processes
from hf_nasbert.data import MaskedBatches, train_tokenizer
from hf_nasbert.scoring import score_architectures
from hf_nasbert.training import SupernetLoop
from tiny.distilling import supernet_and_teacher
from tiny.models import randomise_
from tiny.trainings import TinyBatches, make_arguments, make_supernet

GLOBAL_BATCH_SIZE = 8
PRELOADED = ["accelerate", "datasets", "pytest", "transformers.models.bert.modeling_bert"]
PRELOADED += ["hf_nasbert.compression.run", "hf_nasbert.scoring", "hf_nasbert.training.loop", "torch.distributed.fsdp"]
"""What a fork server imports once for all its processes: none of the tests' own, which are not on its path."""
TRAININGS = {
    "uniform": {"method": "uniform"},
    "fair": {"method": "fair"},
    "magic_t": {"method": "magic_t"},
    "magic_a": {"method": "magic_a", "alignment_rows": 1.0},
    "magic_at": {"method": "magic_at", "alignment_rows": 0.5},
    "few_rows": {"method": "magic_a", "alignment_rows": 0.125},  # some processes align no row
    "sandwich": {"method": "sandwich"},
    "alpha": {"method": "sandwich", "distillation_divergence": "alpha", "dtype": torch.float64},
    "attentive": {"method": "attentive", "num_random_children": 1, "num_candidates": 2},
    "conflict_projection": {"method": "conflict_projection", "dtype": torch.float64},
    "complexity_rate": {"method": "complexity_rate"},
    "size_shifted": {"method": "size_shifted", "shift_interval": 2},
    "importance": {"method": "importance"},
    "learned_distribution": {"method": "learned_distribution", "distribution_interval": 2},
    "staged": {"method": "magic_at", "space": "staged"},
    "double": {"method": "magic_a", "dtype": torch.float64},
    "sandwich_double": {"method": "sandwich", "dtype": torch.float64},
    "taught": {"method": "magic_a", "alignment_rows": 0.5, "anchor": "base_model", "head": BertModel},
    "few_shot": {"method": "few_shot", "split": "gradients", "split_settings": 1},
    "mixture": {"method": "mixture", "mixture_interval": 2},
    "size_classes": {"method": "size_classes"},
    "in_place": {
        "method": "sandwich",
        "teacher": "full_child",
        "head": BertForMaskedLM,
        "distillation": ["states", "relations", "logits", "masked_lm"],
    },
    "magic_at_guarded": {"method": "magic_at_guarded", "alignment_rows": 0.5},
    "cross_path": {"method": "cross_path"},
    "board": {"method": "board", "board_interval": 2},
    "blockwise": {"method": "blockwise", "blockwise_stages": 2},
    "assembled": {"method": "assembled"},
    "blockwise_taught": {"method": "blockwise", "blockwise_target": "ensemble", "head": BertModel},
}
"""One by every method, and some that are harder on several processes."""


def make_trainer_of_many(output_dir, *, space="chain", dtype=torch.float32, batches=None, head=None, **settings):
    """A trainer of a world of any size: the same micro-batches of two sequences, however they are shared out."""
    AcceleratorState._reset_state()
    torch.set_num_threads(1)
    settings = {"max_steps": 8, "anchor_interval": 2, "per_device_train_batch_size": 2, "save_steps": 100} | settings
    arguments = make_arguments(output_dir, global_batch_size=GLOBAL_BATCH_SIZE, **settings)
    # The main process' weights are to win.
    supernet = make_supernet(space, dropout=0.1, seed=int(os.environ.get("RANK", 0))).to(dtype)
    dev_batches = [TinyBatches(4, seed=99).batch(number) for number in range(2)]
    batches = TinyBatches(GLOBAL_BATCH_SIZE, padding=True) if batches is None else batches
    given = {}
    if head is not None:
        supernet, teacher = supernet_and_teacher(head)
        randomise_(supernet, seed=1 + int(os.environ.get("RANK", 0)))
        given = {"base_model": teacher}
    return SupernetLoop(supernet, arguments, batches, dev_batches, **given)


class Spy:
    """Counts the messages of a training, and forbids them while children are drawn."""

    def __init__(self, trainer):
        self.num_messages, self.num_numbers, self.steps, self.is_drawing = 0, 0, [], False
        self._draw, self._take_step = trainer.method.sampler.next_step, trainer._take_step
        trainer.method.sampler.next_step, trainer._take_step = self.next_step, self.take_step
        self._originals = {name: getattr(torch.distributed, name) for name in ("all_reduce", "broadcast")}
        for name, original in self._originals.items():
            setattr(torch.distributed, name, self.counting(original))

    def counting(self, original):
        def call(tensor, *args, **options):
            assert not self.is_drawing, "children are drawn without a word"
            self.num_messages += 1
            self.num_numbers += tensor.numel()
            return original(tensor, *args, **options)

        return call

    def next_step(self):
        self.is_drawing = True
        children = self._draw()
        self.is_drawing = False
        return children

    def take_step(self, batch):
        self.num_messages = self.num_numbers = 0
        children = self._take_step(batch)
        self.steps.append((list(map(str, children)), self.num_messages, self.num_numbers))
        return children

    def stop(self):
        for name, original in self._originals.items():
            setattr(torch.distributed, name, original)


def digest(model):
    """A fingerprint of all bits of a model's weights."""
    content = hashlib.sha256()
    for parameter in model.parameters():
        content.update(parameter.detach().numpy().tobytes())
    return content.hexdigest()


def count_judgings(trainer):
    """A list that grows whenever this process scores child and anchor."""
    judged = []
    whole = trainer._whole_supernet

    def score(children, num_batches):
        supernet = whole()
        batches = trainer.dev_batches[:num_batches]

        def count():
            judged.append(trainer.global_step)
            return score_architectures(supernet, children, batches)

        return processes.on_main_process(trainer.accelerator, count)

    trainer._score = score
    return judged


def train_all(folder, names=tuple(TRAININGS)):
    """Every training, or those of some names, and what this process saw of it."""
    seen = {}
    for name in names:
        settings = TRAININGS[name]
        trainer = make_trainer_of_many(Path(folder) / name, max_steps=4, **settings)
        judged = count_judgings(trainer)
        spy = Spy(trainer)
        output = trainer.train()
        spy.stop()
        seen[name] = {
            "steps": spy.steps,
            "num_judged": len(judged),
            "evaluation": [(str(child), loss) for child, loss in output.evaluation],
            "weights": digest(trainer.supernet),
        }
    return seen


class ToldBatches(MaskedBatches):
    """Batches that write down which sequences they gave out: one line per process and step."""

    told: Path

    def batch(self, step, rows=slice(None)):
        with self.told.open("a") as file:  # a line is written whole, whoever else writes
            file.write(json.dumps([step, self.sample_ids(step, rows).tolist()]) + "\n")
        return super().batch(step, rows)


def train_a_while(folder, told, max_steps, is_resumed, stop_at=0):
    """Train, or go on with, a run on numbered sequences; stop as if by SIGTERM, on one process only."""
    tokenizer = train_tokenizer(["one two three four five six seven eight nine ten"] * 3, 60, model_max_length=10)
    ids = torch.randint(5, len(tokenizer), (37, 10), generator=torch.Generator().manual_seed(0))
    batches = ToldBatches(
        Dataset.from_dict({"input_ids": ids.tolist()}), tokenizer, batch_size=GLOBAL_BATCH_SIZE, seed=1
    )
    batches.told = Path(told)
    resumed = {"resume_from_checkpoint": "latest"} if is_resumed else {}
    trainer = make_trainer_of_many(folder, method="magic_at", batches=batches, max_steps=max_steps, **resumed)
    if stop_at and trainer.accelerator.process_index == trainer.accelerator.num_processes - 1:
        take_step = trainer._take_step

        def take_step_and_ask(batch):
            if trainer.global_step + 1 == stop_at:
                trainer.request_stop()
            return take_step(batch)

        trainer._take_step = take_step_and_ask
    return trainer.train().global_step


def train_in_parts(folder):
    """Train a super-net in parts: some steps, then on from the checkpoint; by two methods."""
    os.environ.update({"ACCELERATE_USE_FSDP": "true", "FSDP_VERSION": "2"})
    seen = {}
    for name in ("fair", "magic_at", "attentive"):
        settings = TRAININGS[name]
        trainer = make_trainer_of_many(Path(folder) / name, max_steps=2, **settings)
        trainer.arguments.max_steps = 4  # its schedule
        trainer.request_stop()
        trainer.train()
        trainer = make_trainer_of_many(Path(folder) / name, resume_from_checkpoint="latest", max_steps=4, **settings)
        is_cut = [isinstance(p, DTensor) and p.to_local().numel() < p.numel() for p in trainer.supernet.parameters()]
        output = trainer.train()
        seen[name] = (output.global_step, sum(is_cut) / len(is_cut))
    return seen


def train_beside_one_that(fails_how, folder, step_timeout):
    """Train in two processes, of which the second one fails in its third step."""
    trainer = make_trainer_of_many(folder, method="uniform", step_timeout=step_timeout, max_steps=6)
    take_step = trainer._take_step

    def fail(batch):
        if trainer.global_step == 2 and not trainer.accelerator.is_main_process:
            if fails_how == "dies":
                os.kill(os.getpid(), signal.SIGKILL)
            elif fails_how == "stalls":
                time.sleep(1000)
            elif fails_how == "draws another child":
                trainer.method.sampler.next_architecture()
        return take_step(batch)

    trainer._take_step = fail
    start = time.monotonic()
    try:
        trainer.train()
    except BaseException as error:
        return type(error).__name__, str(error), time.monotonic() - start
    return "trained", "", time.monotonic() - start


def main():
    """What a launcher starts: train all, and write down what was seen; then the recipe, as its user starts it."""
    folder = Path(sys.argv[1])
    state = processes.join()
    seen = train_all(folder)
    (folder / f"seen-{state.num_processes}-{state.process_index}.json").write_text(json.dumps(seen))
    AcceleratorState._reset_state()
    run_recipe("pretrain_supernet", "--config", folder / "recipe" / "tiny.yaml")  # it leaves the world


def launch(function, num_processes, *arguments, timeout=60, grace=None):
    """Run a function in so many processes that find each other; what each returned, or its exit code.

    A fork server makes them, as clean as a launcher's: a fork of this process inherits what hundreds of tests left of
    torch's threads, and one such died of a damaged heap.
    Whatever is not done after `timeout` seconds is killed, and its result is "hung"; so is, `grace` seconds after the
    first one is done, whatever is not done by then.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOADED)
    first = context.Process(target=int)  # what the server imports at its start is not of anybody's `timeout`
    first.start()
    first.join()
    pipes, children = [], []
    for rank in range(num_processes):
        receiver, sender = context.Pipe(duplex=False)
        environment = dict(os.environ) | {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": num_processes}
        environment |= {"LOCAL_WORLD_SIZE": num_processes, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
        children.append(context.Process(target=_in_child, args=(sender, environment, function, arguments)))
        children[-1].start()
        sender.close()
        pipes.append(receiver)
    end = time.monotonic() + timeout
    results = []
    for child, pipe in zip(children, pipes, strict=True):
        try:
            if not pipe.poll(max(0.0, end - time.monotonic())):
                results.append("hung")
            else:
                results.append(pipe.recv())
                end = min(end, time.monotonic() + (timeout if grace is None else grace))
        except EOFError:
            child.join(5)
            results.append(child.exitcode)
    for child in children:
        child.kill()
        child.join()
    return results


def _in_child(sender, environment, function, arguments):
    os.environ.clear()
    os.environ.update({name: str(value) for name, value in environment.items()})
    same_on_all_machines()
    AcceleratorState._reset_state(reset_partial_state=True)
    try:
        sender.send(function(*arguments))
    except BaseException:
        sender.send(traceback.format_exc())
    finally:
        os._exit(0)  # neither pytest's exit nor gloo's


def forked(function, *arguments):
    """Start a function in a forked process, to be waited for or killed; its generators stand where no others do."""
    process = multiprocessing.get_context("fork").Process(target=_in_fork, args=(function, arguments))
    process.start()
    return process


def kill_behind(function, arguments, count, number, seconds):
    """SIGKILL a function in a fork some seconds after `count` says `number`, unless it ends before."""
    process = multiprocessing.get_context("fork").Process(target=function, args=arguments)
    process.start()
    end = time.monotonic() + 120
    while process.is_alive() and count() < number:
        assert time.monotonic() < end, f"there are {count()} of {number}"
        time.sleep(0.01)
    process.join(seconds)
    process.kill()
    process.join()
    assert process.exitcode in (0, -signal.SIGKILL), process.exitcode


def _in_fork(function, arguments):
    AcceleratorState._reset_state(reset_partial_state=True)
    for seed in (random.seed, np.random.seed, torch.manual_seed):
        seed(os.getpid())
    try:
        function(*arguments)
    except SystemExit as end:
        if end.code:
            traceback.print_exc()
            os._exit(1)
    except BaseException:
        traceback.print_exc()
        os._exit(1)
    os._exit(0)


def with_a_fork_server_of_its_own(function, *arguments, **options):
    """What a forked process runs that starts workers: the fork server that it finds is its parent's child."""
    forkserver._forkserver.__init__()
    return function(*arguments, **options)


def exit_code_of(function, output):
    """Run a function in a forked process, which writes what it says to a file; how that ended."""

    def speaking():
        for descriptor in (1, 2):
            os.dup2(output.fileno(), descriptor)
        sys.stdout = sys.stderr = os.fdopen(2, "w", buffering=1)
        function()

    process = forked(speaking)
    process.join()
    return process.exitcode


def run_without_our_package(command, *, cwd, env, stdout, **_):
    """In place of `subprocess.run` of `hub.proof`: the same program in a fork, which finds the libraries imported.

    As in the process that it stands for, nobody has hf_nasbert there: neither imported, nor its classes registered.
    """

    def program():
        os.chdir(cwd)
        os.environ.clear()
        os.environ.update(env)
        for name in [name for name in sys.modules if name.split(".")[0] == "hf_nasbert"]:
            del sys.modules[name]
        CONFIG_MAPPING._extra_content = {}
        sys.argv = ["-c", *command[4:]]
        exec(command[3], {"__name__": "__main__"})

    return subprocess.CompletedProcess(command, exit_code_of(program, stdout))


if __name__ == "__main__":
    main()
