"""What a compression will take, stage by stage: CPU time and memory, estimated from short measurements of its parts.

Nothing is searched or trained: operators, one layer's refit and a few steps of recovery are timed, and counted as
often as the stages will run them. Where what is chosen matters, a stand-in of the same size is taken.
Longer than other files: it has one short forecast for each stage of `run`, in the same order.
"""

import copy
import random
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, Generic, NamedTuple, TypeVar

import torch
from datasets import Dataset
from transformers import PreTrainedModel

from hf_nasbert.child_folders import fill_child_folder
from hf_nasbert.compression.arguments import CompressArguments
from hf_nasbert.compression.base_models import difference_from, name_of
from hf_nasbert.compression.choosing import MEASURED_AT_ONCE
from hf_nasbert.compression.encoder_costs import EncoderCost, caps_of
from hf_nasbert.compression.handmade import best_layers, best_uniform, every_other_layer, most_layers, with_slack
from hf_nasbert.compression.materials import SAVE_STEPS, Materials
from hf_nasbert.compression.memory import forget_peak, peak_memory
from hf_nasbert.compression.proof import SECONDS_TO_CORRECT, read_pairs, rounds_of_a_timing_run
from hf_nasbert.compression.recover import NUM_SCORED, RecoverySettings, batch_of_step, time_steps
from hf_nasbert.compression.replace_one import Replacement, as_items, places
from hf_nasbert.compression.sentences import PARTS, Batch, tokenised, unknown_share
from hf_nasbert.compression.states import target_of
from hf_nasbert.compression.text_source import TextSource
from hf_nasbert.costs import Share, cheapest, order_of
from hf_nasbert.data import DataArguments
from hf_nasbert.elastic.distance import Distance, Target
from hf_nasbert.elastic.encoders import does_bf16_pay, encoder_of, inputs_of, mask_of, running
from hf_nasbert.elastic.importance import importance
from hf_nasbert.elastic.refit import fit_block, moments_of_blocks, variants_of
from hf_nasbert.elastic.scores import score_children, walking_order
from hf_nasbert.extraction import extract_child
from hf_nasbert.kept import weights_digest
from hf_nasbert.modeling import NasBertModel
from hf_nasbert.modeling.elastic import elastic_supernet
from hf_nasbert.modeling.families import native_form
from hf_nasbert.modeling.modeling_supernet import SupernetPreTrainedModel
from hf_nasbert.processes import be_alone
from hf_nasbert.searching.knapsack import best_choices
from hf_nasbert.space import SKIP, Architecture, num_shared_operators

_LAYER = 2  # blocks
_NUM_STEPS = 4  # of recovery: the first one warms up, the last one writes a checkpoint
_NUM_CHOICES = 3  # of the integer program
_RUNS_OF_A_VISIT = 3
_UNKNOWN_SHARE = 0.5  # of the base model, that a latency in milliseconds is taken for
_NUM_PAIRS = 64

_Made = TypeVar("_Made")


@dataclass(frozen=True)
class Forecast:
    """What one stage will take.

    Args:
        stage: As its record will be called; of several of a kind, the kind and how many.
        cpu_seconds: Of all processes together.
        peak_memory_mib: Of one process, files that are mapped included.
    """

    stage: str
    cpu_seconds: float
    peak_memory_mib: int


@dataclass(frozen=True)
class Plan:
    """What a compression will take.

    Args:
        stages: In their order.
        measured_cpu_seconds: What the estimate itself took.
    """

    stages: tuple[Forecast, ...]
    measured_cpu_seconds: float

    @property
    def cpu_seconds(self) -> float:
        """Of all stages."""
        return sum(one.cpu_seconds for one in self.stages)

    @property
    def peak_memory_mib(self) -> int:
        """The most of all stages."""
        return max(one.peak_memory_mib for one in self.stages)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON."""
        return asdict(self) | {"cpu_seconds": round(self.cpu_seconds, 1), "peak_memory_mib": self.peak_memory_mib}

    def __str__(self) -> str:
        lines = [("stage", "CPU-minutes", "most memory (MiB)")]
        lines += [(one.stage, f"{one.cpu_seconds / 60:.1f}", f"{one.peak_memory_mib:,}") for one in self.stages]
        lines += [("in all", f"{self.cpu_seconds / 60:.1f}", f"{self.peak_memory_mib:,}")]
        widths = [max(len(line[column]) for line in lines) for column in range(3)]
        rows = [f"{a.ljust(widths[0])}  {b.rjust(widths[1])}  {c.rjust(widths[2])}" for a, b, c in lines]
        return "\n".join([*rows, f"estimated from {self.measured_cpu_seconds / 60:.1f} CPU-minutes of measurements"])


def plan_compression(
    base_model: str | Path, texts: Dataset | Iterable[str] | DataArguments | str | Path, **settings: Any
) -> Plan:
    """Estimate what `compress` will take with these arguments; nothing is kept.

    The stages vocabulary, warm-up, onnx, int8 and runtimes are left out.

    Raises:
        ValueError, OSError: As `compress` does, where the base model, the text or the budgets are of no use.
    """
    arguments = CompressArguments(base_model=name_of(base_model), **{"output_dir": "unused", **settings})
    return _plan(arguments, TextSource.of(texts))


def run_plan(data: DataArguments, arguments: CompressArguments) -> Plan:
    """Estimate what `hf-nasbert compress` will take with the same settings; nothing is kept."""
    return _plan(arguments, TextSource.of(data))


def _plan(arguments: CompressArguments, source: TextSource) -> Plan:
    be_alone("estimating what a compression takes")
    start = time.process_time()
    with tempfile.TemporaryDirectory(prefix="plan-") as scratch:
        stages = _Planner(arguments, source, Path(scratch)).stages()
    stages = [Forecast(one.stage, round(one.cpu_seconds, 1), one.peak_memory_mib) for one in stages]
    return Plan(tuple(stages), round(time.process_time() - start, 1))


class _Timed(NamedTuple, Generic[_Made]):
    made: _Made
    seconds: float
    peak: int


def _timed(work: Callable[[], _Made]) -> _Timed[_Made]:
    forget_peak()
    start = time.process_time()
    made = work()
    return _Timed(made, time.process_time() - start, peak_memory())


def _size(batches: Iterable[Batch]) -> int:
    """Tokens of batches, padding included: what time is proportional to."""
    return sum(batch["input_ids"].numel() for batch in batches)


def _rate(run: Callable[[], object], batch: Batch) -> float:
    """CPU-seconds per token: the median of three."""
    return sorted(_timed(run).seconds for _ in range(3))[1] / _size([batch])


class _Rates:
    """CPU-seconds per token of every operator, and of what compares a child's states with the base model's."""

    def __init__(
        self, supernet: SupernetPreTrainedModel, batch: Batch, target: Target, distance: Distance, *, bf16: bool
    ) -> None:
        encoder, device = encoder_of(supernet), next(supernet.parameters()).device
        self.full = supernet.largest_architecture
        self._operators: dict[str, float] = {SKIP: 0.0}
        with running(supernet, bf16=bf16):
            states, masks = encoder.embed(**inputs_of(batch, device))
            for block, names in enumerate(supernet.space.blocks):
                for name in names:
                    if name not in self._operators:
                        run = partial(encoder.run_block, block, name, states, masks)
                        self._operators[name] = _rate(run, batch)
            mask = mask_of(batch, device)
            target = Target(target.states)  # a classifier's own time is next to none
            self._leaf = _rate(lambda: distance.parts(states, mask, target), batch)

    def alone(self, child: Sequence[str]) -> float:
        """Of a child by itself, compared."""
        return sum(self._operators[name] for name in child) + self._leaf

    def together(self, children: Iterable[Architecture]) -> float:
        """Of children scored together: what they share runs once."""
        distinct = walking_order(set(children), self.full)
        calls: Counter[str] = Counter()
        before: Sequence[str] = ()
        for child in distinct:
            calls.update(child[num_shared_operators(before, child) :])
            before = child
        return sum(self._operators[name] * count for name, count in calls.items()) + self._leaf * len(distinct)


class _Counter:
    """Stands for a scorer: says how long one would take, and gives losses of no meaning."""

    def __init__(self, supernet: SupernetPreTrainedModel, rates: _Rates, size: int) -> None:
        self.supernet, self._rates, self._num_tokens = supernet, rates, size
        self.seconds, self.calls, self._rng = 0.0, 0, random.Random(0)

    def __call__(self, children: Sequence[Architecture], *, kept_as: str | None = None) -> list[float]:
        self.calls += 1
        self.seconds += self._rates.together(children) * self._num_tokens
        return [self._rng.random() for _ in children]


class _Planner:
    """Measures what stages are made of, in their order, with what the run will hold in memory by then."""

    def __init__(self, arguments: CompressArguments, source: TextSource, scratch: Path) -> None:
        self.arguments, self.scratch = arguments, scratch
        self.shared = Materials(arguments, source, scratch / "work")
        self.seeds = len(arguments.seeds)

    def stages(self) -> list[Forecast]:
        """All stages."""
        found = [self._costs(), self._text(), self._taught(), self._variants(), self._replacements()]
        if self.arguments.additivity:
            found.append(self._additive())
        if self.arguments.scorer == "supernet":
            found.append(self._trained())
        chosen: list[Architecture] = []
        for budget, caps in self.caps.items():
            found.append(self._search(budget, caps, chosen))
        if self.arguments.handmade:
            found.append(self._by_hand(chosen))
        children = list(dict.fromkeys(chosen))
        found.append(self._recovery(children))
        found.append(self._proof(children))
        found.append(self._folder(children[0]))
        return found

    def _costs(self) -> Forecast:
        shared, wanted = self.shared, self.arguments.wanted
        loaded = _timed(lambda: shared.base)
        made = _timed(lambda: elastic_supernet(shared.base.full_child, shared.space))
        supernet = made.made
        self.cost = EncoderCost.of(supernet, self.arguments.shape[1], None)
        counted = {name: budget for name, budget in wanted.items() if budget.max_latency_ms is None}
        base, caps = self.cost(supernet.largest_architecture), caps_of(counted, self.cost, supernet)
        smallest = self.cost(cheapest(supernet.space, order_of(self.cost, "num_parameters")))["num_parameters"]
        # A latency is taken for as large a share of the parameters: what children cost decides, not which they are.
        self.caps = {}
        for name, budget in wanted.items():
            limit = budget.max_latency_ms
            share = min((cap / base[one] for one, cap in caps.get(name, {}).items()), default=_UNKNOWN_SHARE)
            share = limit.factor if isinstance(limit, Share) else share
            self.caps[name] = {"num_parameters": max(share * base["num_parameters"], smallest)}
        return Forecast("costs", loaded.seconds + made.seconds, max(loaded.peak, made.peak))

    def _text(self) -> Forecast:
        shared = self.shared

        def read() -> None:
            for part in PARTS:
                if not getattr(shared.text, part):
                    raise ValueError(f"no sentence is left for {part}: give more text")
            unknown_share(shared.text.train, shared.base.tokenizer, shared.base.name)

        made = _timed(read)
        by_size = sorted(shared.text.train, key=lambda batch: batch["input_ids"].numel())
        self.longest = by_size[-1]
        self.sample = [by_size[len(by_size) * place // 4] for place in (1, 2, 3)]
        self.sizes = {part: _size(getattr(shared.text, part)) for part in PARTS}
        self.num_replacing = _size(shared.batches_of_replacements)
        return Forecast("text", made.seconds, made.peak)

    def _taught(self) -> Forecast:
        full, text = self.shared.base.full_child, self.shared.text
        compared = _timed(lambda: difference_from(self.shared.base, text.judging[:1], self.arguments))
        read = _timed(lambda: [target_of(full, batch) for batch in (*self.sample, self.longest)])
        self.targets = [Target(target.states.half(), target.logits) for target in read.made]
        states = torch.cat([target.states for target in read.made])
        self.distance = Distance.of(full, states.float().mean(0))
        rate = read.seconds / _size((*self.sample, self.longest))
        num_tokens = 2 * _size(text.judging[1:4]) + sum(self.sizes.values())
        digest = _timed(lambda: weights_digest(full)).seconds
        asked = self.arguments.bf16
        self.bf16 = does_bf16_pay(full.device) if asked == "auto" else asked == "yes"
        return Forecast(
            "base model", compared.seconds + rate * num_tokens + len(PARTS) * digest, max(compared.peak, read.peak)
        )

    def _variants(self) -> Forecast:
        shared, one = self.shared, self.sample[1:2]
        weighed = _timed(lambda: importance(shared.base.full_child, one))
        made = _timed(lambda: shared.sorted(weighed.made))
        self.supernet = made.made
        self.full = self.supernet.largest_architecture
        layer = {block: [one for one in variants_of(self.supernet) if one.block == block] for block in range(_LAYER)}
        wanted = {block: own for block, own in layer.items() if own}

        forget_peak()
        start, solving = time.process_time(), 0.0
        for block, moments in moments_of_blocks(self.supernet, one, wanted):
            solving -= time.process_time()
            fit_block(self.supernet, moments, wanted[block], 1e-3)
            solving += time.process_time()
        adding, peak = time.process_time() - start - solving, peak_memory()
        layers, share = len(self.full) // _LAYER, _size(shared.calibration) / _size(one)
        seconds = weighed.seconds * share + made.seconds + layers * (adding * share + solving)
        held = _size(shared.calibration) * 4 * self.supernet.config.hidden_size >> 20  # states of all its batches
        return Forecast("variants", seconds, max(weighed.peak, made.peak, peak) + held)

    def _replacements(self) -> Forecast:
        one, target = self.sample[1], self.targets[1]
        self.rates = _Rates(self.supernet, one, target, self.distance, bf16=self.bf16)
        scored = _timed(
            lambda: score_children(self.supernet, [self.full], [self.longest], [self.targets[3]], self.distance)
        )
        self.scoring_peak = scored.peak
        self.table = [Replacement(first, names, 0.0) for first, names in places(self.supernet.space, self.full)]
        children = [self.full, *(one.put_into(self.full) for one in self.table)]
        self.digest = _timed(lambda: weights_digest(self.supernet)).seconds
        seconds = self.rates.together(children) * self.num_replacing + self.digest
        return Forecast("lone replacements", seconds, scored.peak)

    def _additive(self) -> Forecast:
        space, rng = self.supernet.space, random.Random(0)
        drawn = [space.sample(rng) for _ in range(self.arguments.additivity)]
        # Of two spaces; which variants the screened one leaves out is not known.
        seconds = 2 * (self.rates.together(drawn) * self.num_replacing + self.digest)
        return Forecast("additivity", seconds, self.scoring_peak)

    def _trained(self) -> Forecast:
        asked, space, rng = self.arguments, self.supernet.space, random.Random(0)
        copied = _timed(lambda: copy.deepcopy(self.supernet))
        children = [space.sample(rng) for _ in range(NUM_SCORED)]
        steps, peak = self._steps(copied.made, "supernet", lambda step: {"architecture": children[step]})
        of_a_step = [self.rates.alone(child) for child in children]
        ratio = steps.per_token / (sum(of_a_step[1:_NUM_STEPS]) / (_NUM_STEPS - 1))
        mean = sum(of_a_step) / len(of_a_step)
        seconds = copied.seconds + self.digest + 2 * self.rates.together(children) * self.sizes["choosing"]
        seconds += ratio * mean * self._tokens_of(asked.supernet_steps)
        seconds += steps.of_a_checkpoint * -(-asked.supernet_steps // SAVE_STEPS)
        self.trained = copied.made  # the run holds it from here on
        return Forecast("super-net", seconds, max(copied.peak, peak))

    def _search(self, budget: str, caps: Mapping[str, float], chosen: list[Architecture]) -> Forecast:
        asked, rng = self.arguments, random.Random(1)
        base = self.cost(self.full)["num_parameters"]
        # Losses grow with what is cut out, so that choices are as large as the cap allows.
        table = [
            Replacement(one.first_block, one.operators, cut**2 * rng.uniform(0.5, 2.0))
            for one in self.table
            for cut in [1 - self.cost(one.put_into(self.full))["num_parameters"] / base]
        ]
        items, fixed = as_items(table, self.full, self.cost, caps)
        best_choices(items, len(self.full), caps, fixed=fixed)  # loads the solver
        solved = _timed(lambda: best_choices(items, len(self.full), caps, fixed=fixed, num_choices=_NUM_CHOICES))
        best = solved.made[0].architecture
        chosen.append(best)
        is_rescored = asked.scorer != "additive" or asked.wanted[budget].max_latency_ms is not None
        number = asked.num_rescored if is_rescored else 1
        seconds = solved.seconds / _NUM_CHOICES * number
        if asked.scorer != "additive":
            near = [best]
            while len(near) < number:  # the best sums differ in a few places
                child = best
                for one in rng.sample(self.table, 2):
                    child = one.put_into(child)
                near.append(child)
            seconds += self.rates.together(near) * self.sizes["choosing"] + self.digest
        peak = self._scoring()
        if asked.wanted[budget].max_latency_ms is not None:  # best sums, then best scores, beside the base model
            rate = 1 + MEASURED_AT_ONCE * self.rates.alone(best) / self.rates.alone(self.full)
            for length in (SECONDS_TO_CORRECT, None):
                own, own_peak = self._timing_run(rate, asked.shape[0], length)
                seconds, peak = seconds + own, max(peak, own_peak)
        return Forecast(f"search {budget}", seconds, peak)

    def _scoring(self) -> int:
        """Peak memory of scoring children now: what stages before it, such as the super-net, left is held."""
        forget_peak()
        return max(self.scoring_peak, peak_memory())

    def _by_hand(self, chosen: list[Architecture]) -> Forecast:
        scorer: Any = _Counter(self.supernet, self.rates, self.sizes["choosing"])
        for caps in map(with_slack, self.caps.values()):
            for way in (best_layers, every_other_layer):
                with suppress(ValueError):
                    number = most_layers(self.full, self.cost, caps)
                    chosen.append(way(scorer, number).architecture)
            with suppress(ValueError):
                chosen.append(best_uniform(scorer, self.cost, caps).architecture)
        return Forecast("by hand", scorer.seconds + scorer.calls * self.digest, self._scoring())

    def _recovery(self, children: Sequence[Architecture]) -> Forecast:
        num_steps = self.arguments.recovery_steps
        self.extracted = _timed(lambda: extract_child(self.supernet, children[0]))
        child = self.extracted.made
        steps, peak = self._steps(child, "child", lambda step: {})
        ratio = steps.per_token / self.rates.alone(children[0])
        self.pair_tokens = self._tokens_of_pairs()
        digest = _timed(lambda: weights_digest(child)).seconds
        self.of_a_checkpoint = steps.of_a_checkpoint
        seconds = 0.0
        for one in children:
            rate = self.rates.alone(one)
            seconds += self.extracted.seconds + digest + ratio * rate * self._tokens_of(num_steps)
            seconds += steps.of_a_checkpoint * -(-num_steps // SAVE_STEPS)
            seconds += rate * (2 * self.sizes["choosing"] + self.sizes["judging"] + self.pair_tokens)
        number = len(children) * self.seeds
        return Forecast(f"recovery (of {number})", seconds * self.seeds, max(self.extracted.peak, peak))

    def _proof(self, children: Sequence[Architecture]) -> Forecast:
        all_timed = [self.full, *children]
        rate = sum(map(self.rates.alone, all_timed)) / self.rates.alone(self.full)  # in base models
        judging = self.rates.alone(self.full) * (self.sizes["judging"] + self.pair_tokens)
        timings = [self._timing_run(rate, number) for number in (1, self.arguments.shape[0])]
        seconds, peak = judging + sum(own for own, _ in timings), max(own for _, own in timings)
        models = 4 * (rate - 1) * self.cost(self.full)["num_parameters"] + 4 * len(children) * self._outside
        return Forecast("proof", seconds, peak + (int(models) >> 20))

    def _timing_run(self, rate: float, number: int, length: float | None = None) -> tuple[float, int]:
        """CPU-seconds and peak of children that are measured side by side on a batch.

        Args:
            rate: What they cost together, in base models.
            number: Sequences of the batch.
            length: How many seconds it takes, about; None for a whole one.
        """
        built = _timed(lambda: NasBertModel(self.shared.base.full_child.config))
        inputs = {"input_ids": torch.ones(min(number, 4), self.arguments.shape[1], dtype=torch.long)}
        run = partial(built.made, **inputs)
        with running(built.made):
            run()
            forget_peak()
            before, start = peak_memory(), time.perf_counter()
            forward = _timed(run)
            wall = time.perf_counter() - start
        scale = number / len(inputs["input_ids"])
        rounds = rounds_of_a_timing_run(wall * scale * rate, length)
        seconds = forward.seconds * scale * rate * _RUNS_OF_A_VISIT * (1 + rounds)
        return seconds + rate * built.seconds, before + int(scale * (forward.peak - before))

    def _folder(self, child: Architecture) -> Forecast:
        shared, model = self.shared, self.extracted.made
        folder = self.scratch / "written"

        def write() -> None:
            stock, _ = native_form(model)
            folder.mkdir()
            fill_child_folder(
                folder, child=stock, tokenizer=shared.base.tokenizer, card="", sentence_modules=shared.base.modules
            )

        written = _timed(write)
        again = self.extracted.seconds + self.of_a_checkpoint + 2 * self.rates.alone(child) * self.sizes["choosing"]
        return Forecast("folder", (written.seconds + again) * len(self.caps), written.peak)

    @property
    def _outside(self) -> int:
        """Parameters that are in no block."""
        full = self.shared.base.full_child
        return int(full.num_parameters() - self.cost(self.full)["num_parameters"])

    def _steps(
        self, model: PreTrainedModel, name: str, options: Callable[[int], dict[str, Any]]
    ) -> tuple["_Steps", int]:
        """Some steps of a training, and their peak."""
        settings = RecoverySettings(
            num_steps=_NUM_STEPS,
            learning_rate=1e-6,
            bf16=self.bf16,
            save_steps=_NUM_STEPS,
            label_weight=self.shared.label_weight,
        )
        batches, targets = [*self.sample, self.longest], self.targets
        timed = _timed(
            lambda: time_steps(model, batches, targets, self.distance, settings, options, self.scratch / name)
        )
        sizes = [batches[batch_of_step(len(batches), settings.seed, step)]["input_ids"].numel() for step in range(4)]
        per_token = sum(timed.made[1:-1]) / sum(sizes[1:-1])
        return _Steps(per_token, max(0.0, timed.made[-1] - per_token * sizes[-1])), timed.peak

    def _tokens_of(self, num_steps: int) -> int:
        """Tokens of so many steps, padding included."""
        batches = self.shared.text.train
        return sum(batches[batch_of_step(len(batches), 0, step)]["input_ids"].numel() for step in range(num_steps))

    def _tokens_of_pairs(self) -> int:
        file, shared = self.arguments.pairs_file, self.shared
        if file is None:
            return 0
        rows = read_pairs(file, shared.work / "pairs")
        sentences = sorted({*rows["sentence1"], *rows["sentence2"]}, key=len)
        some = sentences[:: max(1, len(sentences) // _NUM_PAIRS)]
        counts = tokenised(some, shared.base.tokenizer, shared.max_length)["attention_mask"].sum(1)
        return int(counts.float().mean() * len(sentences))


class _Steps(NamedTuple):
    """CPU-seconds of a training: a token of a step, and a checkpoint."""

    per_token: float
    of_a_checkpoint: float
