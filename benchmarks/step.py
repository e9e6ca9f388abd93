"""Time one training step of a super-net against stock BERT: ratios from one process, steps taken in turns.

    python benchmarks/step.py --json

Compares, for a sampled child that is a plain BERT (attention and ffn in turn), the same batch, optimizer and dropout:

- `supernet_over_stock`: against `BertForMaskedLM`, which projects every position onto the vocabulary;
- `supernet_over_stock_masked`: against the same BERT with its head on the masked positions only;
- `candidates_8_over_2`, `candidates_30_over_2`: a super-net of eight or thirty candidates per block against one of
  two, running the same child; `candidates_30_over_2_tiny`: with steps of 4 times 32 tokens; `..._walking_all`: as it
  was when clipping, AdamW and clearing looked at every parameter;
- `nasbert_over_walking_all`: a step of NAS-BERT's space (26 candidates, 24 blocks) against the same, walking all;
- `magic_a_over_plain`, `magic_a_half_over_plain`, `magic_a_quarter_over_plain`: with an anchor and its alignment
  against plain sampling, for random children and anchors of a space of four operators, aligning all rows, half or a
  quarter of them; `magic_a_forward_over_plain`: the same without the backward pass of the alignment;
- `bf16_over_fp32_...`: by `mixed_precision: auto` on a CPU with units for bf16, against fp32, the same child, three
  hidden sizes; left out on other CPUs;
- `taught_over_plain`, `taught_relations_over_plain`, `taught_words_over_plain`, `in_place_over_plain`,
  `anchored_over_plain`: random children of a base model's super-net (six layers) that learn from the base model (last
  states and vectors; relations too; predictions of masked words), from the full child in place, or from masked words
  aligned to the base model, against masked words alone.

Every ratio is a median over rounds of paired steps; the spread is the interquartile range.
"""

import argparse
import json
import os
import random
import statistics
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from torch import nn
from transformers import BertConfig, BertForMaskedLM

from hf_nasbert import records
from hf_nasbert.methods import METHODS, ChildRun
from hf_nasbert.methods.magic import MagicA
from hf_nasbert.modeling import NasBertForMaskedLM, SupernetConfig, SupernetForMaskedLM
from hf_nasbert.modeling.elastic import elastic_space, elastic_supernet, load_full_child
from hf_nasbert.space import SearchSpace
from hf_nasbert.teachers import BaseModelTeacher
from hf_nasbert.training import SupernetTrainingArguments, tune_allocator
from hf_nasbert.training.distillation import Distillation
from hf_nasbert.training.machine import has_bf16_units, make_accelerator
from hf_nasbert.training.step import TrainingStep, make_optimizer, narrowed, with_gradient

SHAPES = {  # hidden size, vocabulary, batch size
    "hidden128_vocab8k": (128, 8192, 32),
    "hidden256_vocab30k": (256, 30522, 16),
}
WIDTHS = {
    "bf16_64": (64, 8192, 32),
    "bf16_128": (128, 8192, 32),
    "bf16_256": (256, 30522, 16),
    "bf16_768": (768, 30522, 4),
}
"""The same of the steps that are taken in fp32 and in bf16."""
NUM_LAYERS, NUM_TOKENS = 6, 128
BERT_PATH = ("attention", "ffn") * NUM_LAYERS


def masked_batch(batch_size: int, vocab_size: int, num_tokens: int = NUM_TOKENS) -> dict[str, torch.Tensor]:
    """Random token ids with 15 % of the positions labelled: the values do not matter for time."""
    generator = torch.Generator().manual_seed(0)
    input_ids = torch.randint(5, vocab_size, (batch_size, num_tokens), generator=generator)
    chosen = torch.rand(input_ids.shape, generator=generator) < 0.15
    return {"input_ids": input_ids, "labels": input_ids.masked_fill(~chosen, -100)}


def stepper(model: nn.Module, loss: Callable[[], torch.Tensor]) -> Callable[[], None]:
    """One optimizer step on `loss`, everything included."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, weight_decay=0.01, fused=True)

    def step() -> None:
        loss().backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    return step


def supernet_stepper(supernet: SupernetForMaskedLM, loss: Callable[[], torch.Tensor]) -> Callable[[], None]:
    """The same for a super-net as the training loop does it: only what has a gradient is walked."""
    optimizer = make_optimizer(supernet, SupernetTrainingArguments(output_dir="unused"))
    parameters = list(supernet.parameters())

    def step() -> None:
        loss().backward()
        update(optimizer, parameters)

    return step


def update(optimizer: torch.optim.Optimizer, parameters: list[nn.Parameter]) -> None:
    """Clip, step and clear, as the training loop does."""
    trained = with_gradient(parameters)
    with narrowed(optimizer, trained):
        nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)


def build_supernet(space: SearchSpace, hidden_size: int, vocab_size: int, dropout: float) -> SupernetForMaskedLM:
    """A super-net of the given sizes, in training mode."""
    config = SupernetConfig(
        search_space=space,
        hidden_size=hidden_size,
        vocab_size=vocab_size,
        hidden_dropout_prob=dropout,
        attention_probs_dropout_prob=dropout,
    )
    return SupernetForMaskedLM(config).train()


def masked_stock_loss(bert: BertForMaskedLM, batch: dict[str, torch.Tensor]) -> torch.Tensor:
    """Stock BERT's loss with its head on the labelled positions only."""
    rows = (batch["labels"].flatten() != -100).nonzero().squeeze(-1)
    hidden = bert.bert(batch["input_ids"]).last_hidden_state.flatten(0, 1)[rows]
    return nn.functional.cross_entropy(bert.cls(hidden), batch["labels"].flatten()[rows])


def time_in_turns(
    steps: dict[str, Callable[[], None]], rounds: int, before_round: Callable[[], None] = lambda: None
) -> dict[str, list[float]]:
    """Seconds of every step in every round; the order turns, so that none always runs behind the same one."""
    # One thread's CPU time does not depend on who else uses the machine; the CPU time of several would count waiting.
    clock = time.process_time if torch.get_num_threads() == 1 else time.perf_counter
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    names = list(steps)
    for round_ in range(rounds + 2):
        before_round()
        for name in names[round_ % len(names) :] + names[: round_ % len(names)]:
            start = clock()
            steps[name]()
            if round_ >= 2:  # the first two warm caches and the allocator up
                seconds[name].append(clock() - start)
    return seconds


def ratio(seconds: dict[str, list[float]], above: str, below: str) -> dict[str, float]:
    """Median and quartiles of the paired ratios of two steps."""
    ratios = [a / b for a, b in zip(seconds[above], seconds[below], strict=True)]
    low, median, high = statistics.quantiles(ratios, n=4)
    return {
        "median": round(median, 4),
        "quartile_1": round(low, 4),
        "quartile_3": round(high, 4),
        "rounds": len(ratios),
    }


def measure_shape(
    hidden_size: int, vocab_size: int, batch_size: int, dropout: float, rounds: int
) -> dict[str, object]:
    """The ratios against stock BERT for one shape."""
    batch = masked_batch(batch_size, vocab_size)
    heads = hidden_size // 64
    bert = BertForMaskedLM(
        BertConfig(
            vocab_size=vocab_size,
            hidden_size=hidden_size,
            num_hidden_layers=NUM_LAYERS,
            num_attention_heads=heads,
            intermediate_size=4 * hidden_size,
            hidden_dropout_prob=dropout,
            attention_probs_dropout_prob=dropout,
        )
    ).train()
    chain = SearchSpace.chain(2 * NUM_LAYERS, ("attention", "ffn", "conv3", "conv5", "conv7"))
    supernet = build_supernet(chain, hidden_size, vocab_size, dropout)
    steps = {
        "stock": stepper(bert, lambda: bert(**batch).loss),
        "stock_masked": stepper(bert, lambda: masked_stock_loss(bert, batch)),
        "supernet": supernet_stepper(supernet, lambda: supernet(**batch, architecture=BERT_PATH).loss),
    }
    seconds = time_in_turns(steps, rounds)
    return {
        "supernet_over_stock": ratio(seconds, "supernet", "stock"),
        "supernet_over_stock_masked": ratio(seconds, "supernet", "stock_masked"),
    }


def measure_candidates(
    hidden_size: int, vocab_size: int, batch_size: int, dropout: float, rounds: int
) -> dict[str, object]:
    """Eight and thirty resident candidates per block against two: what is not sampled must not cost."""
    kinds = ("attention", "ffn", "conv3", "conv5", "conv7")
    few = SearchSpace.chain(2 * NUM_LAYERS, ("attention", "ffn"))
    eight = SearchSpace.staged(1, 2 * NUM_LAYERS, kinds[:4], (hidden_size, hidden_size // 2))
    # Other widths are never run here: what counts is how many tensors lie beside those that are.
    widths = [hidden_size * quarters // 4 for quarters in (4, 1, 2, 3, 5, 6)]
    thirty = SearchSpace.staged(1, 2 * NUM_LAYERS, kinds, widths)
    supernets = {
        name: build_supernet(space, hidden_size, vocab_size, dropout)
        for name, space in {"2": few, "8": eight, "30": thirty}.items()
    }
    wide_path = tuple(f"{name}@{hidden_size}" for name in BERT_PATH)

    def steps_on(batch: dict[str, torch.Tensor]) -> dict[str, Callable[[], None]]:
        losses = {
            name: partial(loss_of, supernet, BERT_PATH if name == "2" else wide_path, batch)
            for name, supernet in supernets.items()
        }
        steps = {name: supernet_stepper(supernets[name], losses[name]) for name in supernets}
        return {**steps, "30_walking_all": stepper(supernets["30"], losses["30"])}

    found: dict[str, object] = {}
    for suffix, batch, num_rounds in (
        ("", masked_batch(batch_size, vocab_size), rounds),
        ("_tiny", masked_batch(4, vocab_size, 32), 4 * rounds),
    ):
        seconds = time_in_turns(steps_on(batch), num_rounds)
        found[f"candidates_8_over_2{suffix}"] = ratio(seconds, "8", "2")
        found[f"candidates_30_over_2{suffix}"] = ratio(seconds, "30", "2")
        found[f"candidates_30_over_2{suffix}_walking_all"] = ratio(seconds, "30_walking_all", "2")
    return found


def loss_of(supernet: SupernetForMaskedLM, path: Sequence[str], batch: dict[str, torch.Tensor]) -> torch.Tensor:
    """The loss of a child."""
    return supernet(**batch, architecture=path).loss


def measure_nasbert(dropout: float, rounds: int) -> dict[str, object]:
    """A step of NAS-BERT's space, a new child in every round, walking what was trained and walking all."""
    config = SupernetConfig.preset(
        "nasbert", vocab_size=8192, hidden_dropout_prob=dropout, attention_probs_dropout_prob=dropout
    )
    supernet, rng, batch = SupernetForMaskedLM(config).train(), random.Random(0), masked_batch(8, 8192)
    child = [supernet.space.sample(rng)]

    def loss() -> torch.Tensor:
        return loss_of(supernet, child[0], batch)

    def draw() -> None:
        child[0] = supernet.space.sample(rng)

    steps = {"now": supernet_stepper(supernet, loss), "walking_all": stepper(supernet, loss)}
    return {"nasbert_over_walking_all": ratio(time_in_turns(steps, rounds, draw), "now", "walking_all")}


def measure_alignment(hidden_size: int, vocab_size: int, batch_size: int, rounds: int) -> dict[str, object]:
    """What aligning a random child to a random anchor adds to a step, with a new pair in every round.

    Pairs differ in cost by a factor of five, so besides the quartiles over pairs there is the ratio of the sums: what
    a whole run pays.
    """
    space = SearchSpace.chain(2 * NUM_LAYERS, ("attention", "ffn", "conv3", "conv5"))
    supernet = build_supernet(space, hidden_size, vocab_size, dropout=0.0)
    batch = masked_batch(batch_size, vocab_size)
    batch["attention_mask"] = torch.ones_like(batch["input_ids"])
    accelerator, rng = Accelerator(cpu=True), random.Random(0)
    anchor, child = [space.sample(rng)], [space.sample(rng)]
    aligning: list[MagicA] = []

    def aligned(share: float | None, *, is_compared: bool = True) -> Callable[[], None]:
        arguments = SupernetTrainingArguments(
            output_dir="unused",
            method="uniform" if share is None else "magic_a",
            per_device_train_batch_size=batch_size,
            method_settings=None if share is None else {"alignment_rows": share, "anchor": str(anchor[0])},
        )
        method = METHODS[arguments.method](space, arguments.method_settings, cost=len, seed=0, max_steps=1)
        if isinstance(method, MagicA):
            aligning.append(method)
        if not is_compared:
            compared = method.loss

            def loss(run: ChildRun, *others: Any) -> Any:
                return run.loss, compared(run, *others)[1]

            method.loss = loss  # type: ignore[method-assign]
        training_step = TrainingStep(supernet, supernet, accelerator, arguments, method)
        optimizer = make_optimizer(supernet, arguments)

        def step() -> None:
            training_step.backward(0, child, batch, is_stopping=False)
            update(optimizer, training_step.parameters)

        return step

    def draw_pair() -> None:
        child[0], anchor[0] = space.sample(rng), space.sample(rng)
        for method in aligning:
            method.anchor = anchor[0]

    steps = {
        "plain": aligned(None),
        "all": aligned(1.0),
        "half": aligned(0.5),
        "quarter": aligned(0.25),
        "forward": aligned(1.0, is_compared=False),
    }
    seconds = time_in_turns(steps, rounds, draw_pair)
    return {
        f"magic_a_{name}over_plain": {
            "of_sums": round(sum(seconds[key]) / sum(seconds["plain"]), 4),
            **ratio(seconds, key, "plain"),
        }
        for key, name in {"all": "", **{key: f"{key}_" for key in ("half", "quarter", "forward")}}.items()
    }


def measure_precision(hidden_size: int, vocab_size: int, batch_size: int, rounds: int) -> dict[str, object]:
    """A step by `mixed_precision: auto` on a CPU with units for bf16, against fp32, of the same super-net."""
    if not has_bf16_units():
        return {}
    supernet = build_supernet(SearchSpace.chain(2 * NUM_LAYERS, ("attention", "ffn")), hidden_size, vocab_size, 0.1)
    batch = masked_batch(batch_size, vocab_size)
    steps = {}
    for name in ("auto", "no"):
        arguments = SupernetTrainingArguments(
            output_dir="unused", method="uniform", per_device_train_batch_size=batch_size, use_cpu=True,
            mixed_precision=name,  # type: ignore[arg-type]
        )  # fmt: skip
        AcceleratorState._reset_state(reset_partial_state=True)
        accelerator = make_accelerator(arguments)
        model = accelerator.prepare_model(supernet, evaluation_mode=True)
        forward = supernet.__dict__.pop("forward", supernet.forward)  # of one precision, and then of the other
        assert (accelerator.mixed_precision == "bf16") == (name == "auto")

        def loss(forward: Callable[..., Any] = forward, path: Sequence[str] = BERT_PATH) -> torch.Tensor:
            return forward(**batch, architecture=path).loss  # type: ignore[no-any-return]

        assert model is supernet
        steps[name] = supernet_stepper(supernet, loss)
    seconds = time_in_turns(steps, rounds)
    return {f"bf16_over_fp32_hidden{hidden_size}": ratio(seconds, "auto", "no")}


def measure_distillation(hidden_size: int, vocab_size: int, batch_size: int, rounds: int) -> dict[str, object]:
    """What a teacher makes of a step of a random child, a new one in every round, against masked words alone."""
    config = BertConfig(
        vocab_size=vocab_size,
        hidden_size=hidden_size,
        num_hidden_layers=NUM_LAYERS,
        num_attention_heads=hidden_size // 32,
        intermediate_size=4 * hidden_size,
    )
    full_child = load_full_child(BertForMaskedLM(config), NasBertForMaskedLM)
    supernet = elastic_supernet(full_child, elastic_space(full_child)).train()
    batch = masked_batch(batch_size, vocab_size)
    batch["attention_mask"] = torch.ones_like(batch["input_ids"])
    teacher = BaseModelTeacher(full_child, [{"input_ids": batch["input_ids"]}])
    accelerator, rng, space = Accelerator(cpu=True), random.Random(0), supernet.space
    child = [space.sample(rng)]

    def taught(by: str, terms: list[str] | None = None, anchor: str | None = None) -> Callable[[], None]:
        arguments = SupernetTrainingArguments(
            output_dir="unused",
            method="uniform" if anchor is None else "magic_a",
            per_device_train_batch_size=batch_size,
            teacher=by,  # type: ignore[arg-type]
            distillation=terms,
            method_settings=None if anchor is None else {"anchor": anchor, "alignment_rows": 1.0},
        )
        method = METHODS[arguments.method](space, arguments.method_settings, cost=len, seed=0, max_steps=1)
        distillation = Distillation(supernet, teacher, arguments, num_sequences=batch_size)
        training_step = TrainingStep(supernet, supernet, accelerator, arguments, method, distillation)
        optimizer = make_optimizer(supernet, arguments)

        def step() -> None:
            with distillation.teaching():
                training_step.backward(0, child, batch, is_stopping=False)
            update(optimizer, training_step.parameters)

        return step

    def draw() -> None:
        child[0] = space.sample(rng)

    steps = {
        "plain": taught("none"),
        "taught": taught("base_model"),
        "taught_relations": taught("base_model", ["states", "vectors", "relations"]),
        "taught_words": taught("base_model", ["logits"]),
        "in_place": taught("full_child"),
        "anchored": taught("none", anchor="base_model"),
    }
    seconds = time_in_turns(steps, rounds, draw)
    return {
        f"{key}_over_plain": {
            "of_sums": round(sum(seconds[key]) / sum(seconds["plain"]), 4),
            **ratio(seconds, key, "plain"),
        }
        for key in steps
        if key != "plain"
    }


def _named(name: str, shape: tuple[int, int, int], dropout: float, rounds: int) -> dict[str, object]:
    return {name: measure_shape(*shape, dropout, rounds)}


def main() -> None:
    """Measure what the arguments ask for, and print it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="print one line of JSON")
    parser.add_argument("--rounds", type=int, default=15, help="paired steps per ratio")
    parser.add_argument(
        "--pairs", type=int, default=60, help="random pairs of child and anchor, or children with a teacher"
    )
    parser.add_argument(
        "--only",
        nargs="*",
        choices=[*SHAPES, *WIDTHS, "candidates", "nasbert", "alignment", "distillation"],
        help="parts of it; default: all",
    )
    parser.add_argument("--threads", type=int, default=1, help="torch threads; 1 compares CPU time, more wall time")
    parser.add_argument("--dropout", type=float, default=0.1, help="dropout of both models (0.1 as in BERT)")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)
    tune_allocator()
    small = SHAPES["hidden128_vocab8k"]
    parts: dict[str, Callable[[], dict[str, object]]] = {
        name: partial(_named, name, shape, arguments.dropout, arguments.rounds) for name, shape in SHAPES.items()
    }
    parts["candidates"] = partial(measure_candidates, *small, arguments.dropout, arguments.rounds)
    parts["nasbert"] = partial(measure_nasbert, arguments.dropout, arguments.rounds)
    parts["alignment"] = partial(measure_alignment, *small, arguments.pairs)
    for name, shape in WIDTHS.items():
        parts[name] = partial(measure_precision, *shape, arguments.rounds)
    parts["distillation"] = partial(measure_distillation, *small, arguments.pairs)
    result: dict[str, object] = {}
    for name in arguments.only or parts:
        result.update(parts[name]())
    result |= {"threads": arguments.threads, "load": round(os.getloadavg()[0], 1), "versions": records.versions()}
    print(json.dumps(result, indent=None if arguments.json else 2))


if __name__ == "__main__":
    main()
