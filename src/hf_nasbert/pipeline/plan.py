"""Parameters and minutes in, a search space and numbers of steps out, by a short measurement on this machine."""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from random import Random
from statistics import median

import torch

from hf_nasbert.costs import num_parameters
from hf_nasbert.costs.feasibility import cheapest
from hf_nasbert.modeling import SupernetConfig, SupernetForMaskedLM
from hf_nasbert.pipeline.arguments import PlanArguments
from hf_nasbert.processes import be_alone
from hf_nasbert.space import SKIP, Architecture, SearchSpace

OPERATORS = ("attention", "ffn", "conv3", "conv5", SKIP)
_WIDTHS = (32, 64, 96, 128, 160, 192, 256, 320, 384, 512, 640, 768, 1024)
_DEPTHS = (6, 8, 12, 16, 20, 24)
_WIDTH_OF_BLOCK = 32  # widths of published BERTs from tiny to base, over their blocks of attention or ffn
_REACH = (1.3, 2.0)  # the largest child's parameters over the budget: less rules few children out, more rules out most
_FULL = 0.75  # a BERT that takes less of the budget leaves too much of it unused
_HEAD = 32
_SHARES = {"pretrain": 0.6, "search": 0.1, "pretrain-child": 0.3}
_NUM_TIMED = 5
_PASSES_OF_A_STEP = 3  # a forward, and a backward of two
_NUM_DEV_BATCHES, _DEV_BATCH_SIZE = 4, 16  # a search's by default
_FEW_STEPS = 1000

Timer = Callable[[SupernetConfig, int, int], float]


@dataclass(frozen=True)
class SearchPlan:
    """A space for a budget, and what fits into the time.

    Args:
        config: The super-net's.
        cap: Most parameters of a child.
        seconds_per_step: Of one training step of a random child on this machine, measured.
        max_steps: Steps of the super-net's training.
        num_evaluations: Children to score.
        child_steps: Steps of the chosen child's further training.
        num_tokens: Tokens of one step.
        minutes: What was asked for.
    """

    config: SupernetConfig
    cap: int
    seconds_per_step: float
    max_steps: int
    num_evaluations: int
    child_steps: int
    num_tokens: int
    minutes: float

    def __str__(self) -> str:
        config, space = self.config, self.config.space

        def cost(child: Architecture) -> int:
            return num_parameters(config, child)

        smallest, largest = cost(cheapest(space, cost)), _largest(config)
        bert = _bert_within(config, self.cap)
        assert bert is not None
        lines = [
            f"space: {space.num_choice_blocks} blocks of {', '.join(OPERATORS)}, width {config.hidden_size}: "
            f"{space.num_children:,} children of {smallest:,} to {largest:,} parameters",
            f"budget: {self.cap:,} parameters; the largest child has {largest / self.cap:.2f} times as many, "
            f"the largest BERT within it {cost(bert):,}",
            f"measured here: {self.seconds_per_step:.3f} seconds for a step of {self.num_tokens:,} tokens",
            f"of {self.minutes:g} minutes: {self.max_steps:,} steps of the super-net "
            f"({self.max_steps * self.num_tokens / 1e6:,.1f} M tokens), {self.num_evaluations:,} children scored, "
            f"{self.child_steps:,} steps of the best child",
        ]
        if largest < _REACH[0] * self.cap:
            rest = cost(Architecture([SKIP] * space.num_choice_blocks))
            why = "no larger space is offered here"
            if rest > self.cap / 2:
                why = f"embeddings and head take {rest:,} of it; a smaller --vocab_size leaves more to choose"
            lines.append(f"it rules {'few children' if largest > self.cap else 'no child'} out: {why}")
        if self.max_steps < _FEW_STEPS:
            lines.append(
                f"{self.max_steps:,} steps are few for a super-net from random weights: more minutes help most"
            )
        return "\n".join(lines)


def plan_search(arguments: PlanArguments, time_step: Timer | None = None) -> SearchPlan:
    """Choose a space that reaches over the budget, time its training step, and share out the minutes.

    Args:
        arguments: Budget, minutes and sizes of the text.
        time_step: Seconds of a step of a super-net on a batch of sequences of tokens; by default it is measured.

    Raises:
        ValueError: If no space meets the budget, or the minutes do not pay for a step.
    """
    be_alone("planning")
    cap = arguments.cap
    config = _config(arguments, cap)
    size, length = arguments.per_device_train_batch_size, arguments.max_seq_length
    seconds = (time_step or measure_step)(config, size, length)
    each = {name: share * 60 * arguments.minutes for name, share in _SHARES.items()}
    score = seconds / _PASSES_OF_A_STEP * _NUM_DEV_BATCHES * _DEV_BATCH_SIZE / size
    max_steps, child_steps = (int(each[name] / seconds) for name in ("pretrain", "pretrain-child"))
    if child_steps < 1:
        raise ValueError(
            f"minutes={arguments.minutes:g}: a step takes {seconds:.2f} seconds here; give more minutes, or smaller "
            "batches (--per_device_train_batch_size)"
        )
    return SearchPlan(
        config=config,
        cap=cap,
        seconds_per_step=seconds,
        max_steps=max_steps,
        num_evaluations=max(1, min(int(each["search"] / score), config.space.num_children, 5000)),
        child_steps=child_steps,
        num_tokens=size * length,
        minutes=arguments.minutes,
    )


def _config(arguments: PlanArguments, cap: int) -> SupernetConfig:
    """Of the spaces that reach over the cap, the one whose BERT fills it and is most like published ones in its shape.

    Where none does both, the one that reaches over it nearest to as far as it should.
    """
    offers = []
    for depth in _DEPTHS:
        for width in _WIDTHS:
            config = SupernetConfig(
                search_space=SearchSpace.chain(depth, OPERATORS),
                vocab_size=arguments.vocab_size,
                hidden_size=width,
                attention_head_size=_HEAD,
                max_position_embeddings=arguments.max_seq_length,
            )
            bert = _bert_within(config, cap)
            if bert is not None:
                reach, full = _largest(config) / cap, num_parameters(config, bert) / cap
                missed = max(_REACH[0] - reach, reach - _REACH[1], 0)
                slender = abs(math.log(width / (_WIDTH_OF_BLOCK * 2 * bert.count("ffn"))))
                offers.append((missed, full < _FULL, slender, -full, config))
    if not offers:
        raise ValueError(
            f"max_parameters={arguments.max_parameters}: with a vocabulary of {arguments.vocab_size:,} even the "
            "smallest BERT that is offered here has more; raise it, or lower --vocab_size"
        )
    return min(offers, key=lambda offer: offer[:-1])[-1]


def _largest(config: SupernetConfig) -> int:
    """Parameters of the largest child: of these operators an ffn is the largest."""
    return num_parameters(config, ["ffn"] * config.space.num_choice_blocks)


def _bert_within(config: SupernetConfig, cap: int) -> Architecture | None:
    """The largest BERT among the children that are within the cap: the blocks behind its layers are left out."""
    num_blocks = config.space.num_choice_blocks
    for num_layers in range(num_blocks // 2, 0, -1):
        child = Architecture(("attention", "ffn") * num_layers + (SKIP,) * (num_blocks - 2 * num_layers))
        if num_parameters(config, child) <= cap:
            return child
    return None


def measure_step(config: SupernetConfig, batch_size: int, sequence_length: int) -> float:
    """Seconds of a training step of a random child: forward, backward and AdamW on random tokens, the median of some.

    The first step is not counted, and random numbers of others are left alone.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        supernet = SupernetForMaskedLM(config).train()
        optimizer = torch.optim.AdamW(supernet.parameters(), lr=1e-4)
        draw, seconds = Random(0), []
        for _ in range(1 + _NUM_TIMED):
            child = config.space.sample(draw)
            input_ids = torch.randint(5, config.vocab_size, (batch_size, sequence_length))
            labels = torch.where(torch.rand(input_ids.shape) < 0.15, input_ids, -100)
            start = time.perf_counter()
            supernet(input_ids, architecture=child, labels=labels).loss.backward()
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            seconds.append(time.perf_counter() - start)
    return median(seconds[1:])
