"""The super-net: a chain of choice blocks that hold every candidate operator, with one set of shared weights.

One file, as transformers has it: blocks, the encoder that knows whose weights a child has, and the model classes.
"""

import copy
import inspect
from collections.abc import Iterator, MutableSequence, Sequence
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any, ClassVar, Self, cast

import torch
from torch import nn
from transformers import BertModel, Cache, GenerationConfig, PreTrainedModel
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.modeling_outputs import BaseModelOutputWithPooling, MaskedLMOutput
from transformers.utils.generic import TransformersKwargs

from hf_nasbert.space import Architecture, SearchSpace, num_shared_operators

from .configuration_supernet import SupernetConfig
from .copies import Copies
from .geometry_nasbert import SKIP, Block, geometry, geometry_of, last_mixing_block, operator_kind, operator_width
from .layouts import LAYOUTS
from .modeling_nasbert import (
    Masks,
    NasBertForMaskedLM,
    NasBertForQuestionAnswering,
    NasBertForSequenceClassification,
    NasBertForTokenClassification,
    NasBertModel,
    NasBertPreTrainedModel,
)
from .operators_nasbert import NasBertSelfAttention


class ChoiceBlock(GradientCheckpointingLayer):
    """All candidate operators of one choice block, and a stage's projections at its borders, one per width."""

    def __init__(self, config: SupernetConfig, candidates: Sequence[str], is_first: bool, is_last: bool):
        super().__init__()
        self.hidden_size = config.hidden_size
        self.operators = LAYOUTS[config.weight_layout](config, candidates)
        named = {operator_width(name) or config.hidden_size for name in candidates if operator_kind(name) != SKIP}
        widths = sorted(named - {config.hidden_size})
        self.input_projections = nn.ModuleDict(
            {str(width): nn.Linear(config.hidden_size, width) for width in widths if is_first}
        )
        self.output_projections = nn.ModuleDict(
            {str(width): nn.Linear(width, config.hidden_size) for width in widths if is_last}
        )

    def forward(
        self,
        hidden_states,
        attention_mask=None,
        padding_mask=None,
        positions=None,
        operator=None,
        child=None,
        **kwargs,
    ):
        if self.operators.reads_child(operator):
            kwargs["child"] = child
        if self.input_projections:
            width = str(operator_width(operator) or self.hidden_size)
            if width in self.input_projections:
                hidden_states = self.input_projections[width](hidden_states)
        hidden_states = self.operators(operator, hidden_states, attention_mask, padding_mask, positions, **kwargs)
        # A skip has no width of its own: what passes through it tells which stage width is to be left.
        width = str(hidden_states.shape[-1])
        if width in self.output_projections:
            hidden_states = self.output_projections[width](hidden_states)
        return hidden_states

    def projections_of(self, block: Block) -> dict[str, nn.Module]:
        """The projections that a child's block has here, under their names in the child."""
        found = {}
        if block.input_width != block.width:
            found["input_projection"] = self.input_projections[str(block.width)]
        if block.output_width != block.width:
            found["output_projection"] = self.output_projections[str(block.width)]
        return found

    def size_of(self, block: Block) -> int:
        """The number of weights of a child's block."""
        projections = self.projections_of(block).values()
        return self.operators.size_of(block.name) + sum(p.numel() for one in projections for p in one.parameters())

    def modules_of(self, block: Block) -> list[nn.Module]:
        """The modules that a child's block uses."""
        return [*self.operators.modules_of(block.name), *self.projections_of(block).values()]

    def parameters_of(self, block: Block) -> list[nn.Parameter]:
        """The parameters that a child's block uses."""
        projections = self.projections_of(block).values()
        return [*self.operators.parameters_of(block.name), *(p for module in projections for p in module.parameters())]

    def state_of(self, block: Block, child: Sequence[str]) -> dict[str, torch.Tensor]:
        """The weights of a child's block under their names in the child."""
        given: dict[str, Any] = {"child": child} if self.operators.reads_child(block.name) else {}
        parts = {"operator": self.operators.state_of(block.name, **given)}
        parts |= {name: module.state_dict() for name, module in self.projections_of(block).items()}
        return {f"{part}.{name}": tensor for part, state in parts.items() for name, tensor in state.items()}


class SupernetEncoder(nn.Module):
    """The chain of choice blocks, or several copies of it; runs the one child it is told to."""

    blocks: MutableSequence[ChoiceBlock]
    """The first copy."""
    copies: MutableSequence[MutableSequence[ChoiceBlock]]
    """The others."""

    def __init__(self, config: SupernetConfig):
        super().__init__()
        self.config = config
        self.space: SearchSpace = config.space
        self.owning = None if config.copies is None else Copies.from_dict(config.copies)
        self._sizes: dict[Block, int] = {}
        num_copies = 1 if self.owning is None else self.owning.number
        self.blocks = self._make_blocks()  # type: ignore[assignment]  # it does not say of what
        self.copies = nn.ModuleList(self._make_blocks() for _ in range(num_copies - 1))  # type: ignore[assignment]
        self.largest_architecture = self._largest_architecture()

    def _make_blocks(self) -> nn.ModuleList:
        blocks = nn.ModuleList()
        for stage in self.space.stage_slices:
            candidates = self.space.blocks[stage]
            for index, names in enumerate(candidates):
                blocks.append(ChoiceBlock(self.config, names, index == 0, index == len(candidates) - 1))
        return blocks

    def _largest_architecture(self) -> Architecture:
        """The child with the most parameters; of equals the one whose operators come first."""
        operators: list[str] = []
        for stage in self.space.stage_slices:
            blocks = self.blocks[stage]
            chains: dict[int | None, list[str]] = {}  # by width
            for block in blocks:
                best: dict[int | None, str] = {}
                for name in block.operators.candidates:
                    width = operator_width(name)
                    if operator_kind(name) != SKIP and (
                        width not in best or block.operators.size_of(name) > block.operators.size_of(best[width])
                    ):
                        best[width] = name
                for width, name in best.items():
                    chains.setdefault(width, []).append(name)
            whole = [chain for chain in chains.values() if len(chain) == len(blocks)]
            operators += max(whole, key=partial(self._size, stage))
        return self.space.validate(operators)

    def _size(self, stage: slice, operators: Sequence[str]) -> int:
        """The number of weights of a stage's part of a child, its projections included."""
        parts = zip(self.blocks[stage], geometry(operators, self.config.hidden_size), strict=True)
        return sum(module.size_of(block) for module, block in parts)

    def set_copies(self, copies: Copies) -> None:
        """Let other copies serve children; those that there are not yet begin as the first one is.

        Raises:
            ValueError: If they are of another space, or fewer than there are.
        """
        copies.check(self.space)
        if copies.number <= len(self.copies):
            raise ValueError(f"the super-net has {1 + len(self.copies)} copies, which cannot become {copies.number}")
        while copies.number > 1 + len(self.copies):
            self.copies.append(copy.deepcopy(self.blocks))
        self.owning, self.config.copies = copies, copies.to_dict()

    def owner_of(self, architecture: Sequence[str]) -> int:
        """The number of the copy that serves a child: 0 where there is one alone."""
        return 0 if self.owning is None else self.owning.owners[self.row_of(architecture)]

    def row_of(self, architecture: Sequence[str]) -> int:
        """The row of a child in `Copies`."""
        assert self.owning is not None
        if self.owning.reference is None:
            return self.owning.row_of(architecture)
        reference = self.owning.reference.split("-")
        return self.owning.row_of(architecture, self._weights_of(architecture) - self._weights_of(reference))

    def _weights_of(self, architecture: Sequence[str]) -> int:
        """The number of weights of a child's blocks."""
        blocks = geometry_of(self.config, architecture)
        for module, block in zip(self.blocks, blocks, strict=True):
            if block not in self._sizes:
                self._sizes[block] = module.size_of(block)
        return sum(self._sizes[block] for block in blocks)

    def blocks_of(self, architecture: Sequence[str]) -> Sequence[ChoiceBlock]:
        """The choice blocks of the copy that serves a child."""
        owner = self.owner_of(architecture)
        return self.copies[owner - 1] if owner else self.blocks

    @property
    def all_blocks(self) -> Iterator[ChoiceBlock]:
        """The choice blocks of all copies."""
        return chain(self.blocks, *self.copies)

    def num_shared(self, one: Sequence[str], other: Sequence[str]) -> int:
        """How many blocks, from the start, two children have in common: operators and weights."""
        num_shared = num_shared_operators(one, other) if self.owner_of(one) == self.owner_of(other) else 0
        if num_shared == len(one):
            return num_shared
        blocks = zip(self.blocks, one[:num_shared], strict=False)
        return next((n for n, (block, name) in enumerate(blocks) if block.operators.reads_child(name)), num_shared)

    def parts_of(self, architecture: Sequence[str]) -> Iterator[tuple[ChoiceBlock, Block]]:
        """The choice blocks, and what a child has in each."""
        architecture = self.space.validate(architecture)
        return zip(self.blocks_of(architecture), geometry_of(self.config, architecture), strict=True)

    def modules_of(self, architecture: Sequence[str]) -> Iterator[nn.Module]:
        """The modules that a child uses."""
        for module, block in self.parts_of(architecture):
            yield from module.modules_of(block)

    def state_of(self, architecture: Sequence[str]) -> dict[str, torch.Tensor]:
        """The weights of a child's encoder under their names there."""
        parts = self.parts_of(architecture)
        return {
            f"blocks.{block.index}.{name}": tensor
            for module, block in parts
            for name, tensor in module.state_of(block, architecture).items()
        }

    def forward(self, hidden_states, masks: Masks, positions=None, prefixes=None, architecture=None, **kwargs):
        architecture = self.largest_architecture if architecture is None else self.space.validate(architecture)
        last = last_mixing_block(architecture)
        for index, (block, operator) in enumerate(zip(self.blocks_of(architecture), architecture, strict=True)):
            rows = positions if index == last else None
            prefix = {} if prefixes is None else {"prefix": prefixes[index]}
            hidden_states = block(
                hidden_states, masks.attention, masks.padding, rows, operator=operator, child=architecture, **prefix,
                **kwargs,
            )  # fmt: skip
        return hidden_states


# What trainers, pipelines and tools may hand to any encoder, by transformers' own lists: a super-net takes it as a
# child does. Every other name is a mistake: a misspelt `architecture` would silently run the largest child.
_KEYWORDS = {
    *TransformersKwargs.__annotations__,
    *GenerationConfig().to_dict(),  # `use_cache` and the flags of outputs
    *inspect.signature(BertModel.forward).parameters,
    *("return_dict", "logits_to_keep", "cache_position"),  # which transformers reads, and lists nowhere
} - {"self", "kwargs"}


class SupernetPreTrainedModel(NasBertPreTrainedModel):
    """What every super-net class has beside a child's: the space, the weights of its children. Its first base."""

    config: SupernetConfig  # type: ignore[assignment]  # a child's config has operators, this one a space
    child_class: ClassVar[type[NasBertPreTrainedModel]]
    """The class of its children."""
    _auto_class = None  # children carry their code along; a super-net's users have this package
    _no_split_modules = ["NasBertEmbeddings", "ChoiceBlock"]
    _can_record_outputs = {"hidden_states": ChoiceBlock, "attentions": NasBertSelfAttention}

    @classmethod
    def from_base_model(
        cls,
        base_model: str | Path | PreTrainedModel,
        *,
        heads: Sequence[int] | None = None,
        ffn: Sequence[int] | None = None,
        kernels: Sequence[int] = (),
        skip: bool = True,
        revision: str | None = None,
        trust_remote_code: bool = False,
    ) -> Self:
        """Make a super-net of a pretrained encoder: its largest child is that encoder, all others are cut from it.

        Args:
            base_model: Folder, name on the Hub, or the model itself: a stock encoder of `modeling.families`, or a
                child. It is left as it is.
            heads: Numbers of heads of the narrow attentions; by default a half and a quarter of the base model's.
            ffn: Inner widths of the narrow ffns; by default a half and a quarter of the base model's.
            kernels: Sizes of the convolutions that may stand for an attention: 3, 5, 7.
            skip: Whether a block may be left out: as `skip`, and as `norm`.
            revision: Branch, tag or commit on the Hub.
            trust_remote_code: Whether code of the repository's own may be run.

        Raises:
            ValueError: If the base model is none that a super-net can be made of, or the sizes are none of its.
            OSError: If there is no such model.
        """
        from .elastic import elastic_space, elastic_supernet, load_full_child  # it knows these classes

        full_child = load_full_child(
            base_model, cls.child_class, revision=revision, trust_remote_code=trust_remote_code
        )
        space = elastic_space(full_child, heads=heads, ffn=ffn, kernels=kernels, skip=skip)
        return cast(Self, elastic_supernet(full_child, space))

    @property
    def space(self) -> SearchSpace:
        """The search space."""
        return self._encoder.space

    @property
    def largest_architecture(self) -> Architecture:
        """The child with the most parameters, which runs where no architecture is given."""
        return self._encoder.largest_architecture

    @property
    def head_parameters(self) -> int | None:
        """The number of weights on the encoder, as costs ask for it; `None` of a masked-LM head, which they know."""
        if self.child_class is NasBertForMaskedLM:
            return None
        below = (*self._embeddings.parameters(), *self._encoder.parameters())
        return self.num_parameters() - sum(parameter.numel() for parameter in below)

    def parameters_of(self, architecture: Sequence[str]) -> list[nn.Parameter]:
        """The parameters that a child uses, each once: its operators', the embeddings' and the head's."""
        encoder = self._encoder
        used = [p for module, block in encoder.parts_of(architecture) for p in module.parameters_of(block)]
        head = (p for name, p in self.named_parameters() if not name.startswith(self._inside))
        return list(dict.fromkeys([*self._embeddings.parameters(), *used, *head]))

    def state_of(self, architecture: Sequence[str]) -> dict[str, torch.Tensor]:
        """The weights of a child under the names that they have in the child, a `child_class`."""
        shared = {name: tensor for name, tensor in self.state_dict().items() if not name.startswith(self._inside)}
        state = self._encoder.state_of(architecture)
        return shared | {f"{self._inside}{name}": tensor for name, tensor in state.items()}

    def run_block(
        self,
        index: int,
        operator: str,
        hidden_states: torch.Tensor,
        masks: Masks,
        positions=None,
        child: Sequence[str] | None = None,
    ) -> torch.Tensor:
        """Run one choice block: (B, T, W) to (B, T, W'), or (N, W') at flat `positions`. `embed` makes its inputs.

        Where there are several copies, or an operator's weights depend on the child, it must be said.

        Raises:
            ValueError: If it was not.
        """
        encoder = self._encoder
        if child is None and (encoder.copies or encoder.blocks[index].operators.reads_child(operator)):
            raise ValueError(f"the weights of {operator!r} in block {index} depend on the child: say which one runs")
        block = encoder.blocks[index] if child is None else encoder.blocks_of(child)[index]
        return block(hidden_states, masks.attention, masks.padding, positions, operator=operator, child=child)

    @property
    def _embeddings(self) -> nn.Module:
        return cast(nn.Module, self.base_model.embeddings)

    @property
    def _encoder(self) -> SupernetEncoder:
        return cast(SupernetEncoder, self.base_model.encoder)

    @property
    def _inside(self) -> str:
        """Where the choice blocks stand in it, in one copy or several."""
        return "encoder." if self.base_model is self else f"{self.base_model_prefix}.encoder."


class SupernetModel(SupernetPreTrainedModel, NasBertModel):
    """The super-net's encoder. `forward` takes `architecture` beside a child's arguments.

    Args:
        config: The space and the sizes.
        add_pooling_layer: Whether to add BERT's pooler.
    """

    encoder_class = SupernetEncoder
    encoder: SupernetEncoder
    child_class = NasBertModel

    def forward(
        self,
        input_ids: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        token_type_ids: torch.Tensor | None = None,
        position_ids: torch.Tensor | None = None,
        inputs_embeds: torch.Tensor | None = None,
        prediction_positions: torch.Tensor | None = None,
        past_key_values: Cache | None = None,
        architecture: Sequence[str] | None = None,
        **kwargs,
    ) -> tuple | BaseModelOutputWithPooling:
        """Encode a batch as a child does, by its arguments: the child `architecture`, by default the largest one.

        Raises:
            TypeError: For a keyword that neither a child nor transformers knows.
        """
        # Here, where the caller's words arrive: what transformers' decorators add of the config comes later.
        if unknown := kwargs.keys() - _KEYWORDS:
            raise TypeError(f"a super-net takes no argument {', '.join(sorted(unknown))}; the child is `architecture`")
        return super().forward(
            input_ids,
            attention_mask,
            token_type_ids,
            position_ids,
            inputs_embeds,
            prediction_positions,
            past_key_values,
            architecture=architecture,
            **kwargs,
        )


class SupernetForMaskedLM(SupernetPreTrainedModel, NasBertForMaskedLM):
    """The super-net with a masked-LM head: every child of the space, by name.

    The architecture is an argument, never state: `supernet(input_ids, labels=labels, architecture=architecture)`. It
    may be an `Architecture` or any sequence of operator names; without one the largest child runs (the one with the
    most parameters). Operators off the path cost no time and get no gradient (`grad is None`).

    Raises:
        ValueError: By `forward`, for an architecture that is not in the space: names block, operator and candidates.
    """

    encoder_model_class = SupernetModel
    nasbert: SupernetModel
    child_class = NasBertForMaskedLM

    def forward(
        self,
        input_ids: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        token_type_ids: torch.Tensor | None = None,
        position_ids: torch.Tensor | None = None,
        inputs_embeds: torch.Tensor | None = None,
        labels: torch.Tensor | None = None,
        architecture: Sequence[str] | None = None,
        **kwargs,
    ) -> tuple | MaskedLMOutput:
        """Predict tokens as a child does, by its arguments: the child `architecture`, by default the largest one."""
        return super().forward(
            input_ids,
            attention_mask,
            token_type_ids,
            position_ids,
            inputs_embeds,
            labels,
            architecture=architecture,
            **kwargs,
        )


class SupernetForSequenceClassification(SupernetPreTrainedModel, NasBertForSequenceClassification):
    """The super-net with a classifier (or regressor) over the pooled first token. `architecture` says the child."""

    encoder_model_class = SupernetModel
    child_class = NasBertForSequenceClassification


class SupernetForTokenClassification(SupernetPreTrainedModel, NasBertForTokenClassification):
    """The super-net with a classifier over every token. `architecture` says the child."""

    encoder_model_class = SupernetModel
    child_class = NasBertForTokenClassification


class SupernetForQuestionAnswering(SupernetPreTrainedModel, NasBertForQuestionAnswering):
    """The super-net with scores for the start and the end of an answer. `architecture` says the child."""

    encoder_model_class = SupernetModel
    child_class = NasBertForQuestionAnswering


SUPERNETS: dict[str, type[SupernetPreTrainedModel]] = {
    supernet_class.__name__: supernet_class
    for supernet_class in (
        SupernetModel,
        SupernetForMaskedLM,
        SupernetForSequenceClassification,
        SupernetForTokenClassification,
        SupernetForQuestionAnswering,
    )
}
"""Super-net classes by the names that a config's `architectures` says."""

__all__ = ["SUPERNETS", *SUPERNETS]
