"""Configuration of a super-net: a whole search space, stored in config.json as plain JSON."""

from collections.abc import Callable, Iterator
from itertools import chain
from typing import Any

from huggingface_hub.dataclasses import strict

from hf_nasbert.space import SearchSpace

from .configuration_nasbert import NasBertShapeConfig
from .copies import Copies
from .geometry_nasbert import parse_operator
from .layouts import LAYOUTS

# Widths and operators of the presets. What the MAGIC paper does not let us verify is tagged in docs/papers.md.
_PRESETS: dict[str, Callable[[], dict[str, Any]]] = {
    "quickstart": lambda: {
        "search_space": SearchSpace.chain(num_choice_blocks=6, operators=("attention", "ffn", "conv3", "conv5")),
        "vocab_size": 8192,
        "hidden_size": 128,
        "max_position_embeddings": 128,
    },
    "magic-base": lambda: {
        "search_space": SearchSpace.chain(
            num_choice_blocks=24, operators=("attention", "ffn", "conv3", "conv5", "conv7", "skip")
        ),
        "hidden_size": 768,
    },
    "nasbert": lambda: {
        "search_space": SearchSpace.staged(
            num_stages=4,
            blocks_per_stage=6,
            operators=("attention", "ffn", "conv3", "conv5", "conv7", "skip"),
            widths=(128, 192, 256, 384, 512),
        ),
        "hidden_size": 512,
        "embedding_size": 128,
    },
}


@strict
class SupernetConfig(NasBertShapeConfig):
    """Configuration of a super-net: the search space and the sizes its children share.

    Args:
        search_space: A `SearchSpace`, or the plain dictionary that `SearchSpace.to_dict` makes of one.
        weight_layout: Name of the layout in `layouts.LAYOUTS`: which tensors the operators are made of.
        copies: Of a super-net with several copies of all choice blocks, which child each one serves: what
            `Copies.to_dict` gives.

    Raises:
        ValueError: For an unknown field or a space with an operator that cannot be built, naming block and operator.

    Example:
        >>> from hf_nasbert.space import SearchSpace
        >>> space = SearchSpace.chain(num_choice_blocks=6, operators=("attention", "ffn", "conv3"))
        >>> SupernetConfig(search_space=space, hidden_size=128).space.num_children
        729
    """

    model_type = "nasbert_supernet"

    search_space: SearchSpace | dict | None = None
    weight_layout: str = "separate"
    sparse_prediction: bool = True
    copies: dict | None = None

    def _normalize(self):
        super()._normalize()
        space = _PRESETS["quickstart"]()["search_space"] if self.search_space is None else self.search_space
        if not isinstance(space, SearchSpace):
            space = SearchSpace.from_dict(space)
        self.search_space = space.to_dict()

    def check(self):
        super().check()
        if self.weight_layout not in LAYOUTS:
            raise ValueError(f"weight_layout is {self.weight_layout!r}; expected one of {', '.join(LAYOUTS)}")
        if self.copies is not None:
            Copies.from_dict(self.copies).check(self.space)
        for block, candidates in enumerate(self.space.blocks):
            for name in candidates:
                try:
                    self.check_operator(name)
                except ValueError as error:
                    raise ValueError(f"choice block {block}: {error}") from None

    def to_dict(self):
        fields = super().to_dict()
        if fields.get("weight_layout") == "separate":  # as all were before there were others
            del fields["weight_layout"]
        if fields.get("copies") is None:
            fields.pop("copies", None)
        return fields

    @property
    def space(self) -> SearchSpace:
        """The search space as an object."""
        return SearchSpace.from_dict(self.search_space)  # type: ignore[arg-type]  # `_normalize` made it plain

    @property
    def num_hidden_layers(self) -> int:
        """Number of choice blocks."""
        return self.space.num_choice_blocks

    def scaled(self, width: int) -> "SupernetConfig":
        """The same choices in another size: a space is searched small, and what is found is built large.

        All widths grow alike: `hidden_size`, those of stages and of embeddings, neurons of an ffn. Heads keep their
        width and become more. The child at `small.space.index_of(child)` of the scaled space is the same choice.
        Copies stay behind: which super-net serves a child is a matter of the training that made them.
        (Transfer of what was found small: NASNet, Zoph et al., 2018, https://arxiv.org/abs/1707.07012.)

        Args:
            width: The new `hidden_size`.

        Raises:
            ValueError: If a width or a number of heads would be no whole number; names it.
        """

        def grown(number: int, what: str) -> int:
            if number * width % self.hidden_size:
                raise ValueError(f"{what} cannot grow as hidden_size does from {self.hidden_size} to {width}")
            return number * width // self.hidden_size

        def renamed(name: str) -> str:
            kind, size = parse_operator(name).kind, parse_operator(name).size
            return name if size is None else f"{kind}{grown(size, name)}"

        if type(width) is not int or width < 1:
            raise ValueError(f"width={width!r} must be a whole number of at least 1")
        stages = [
            type(stage)(
                tuple(tuple(map(renamed, names)) for names in stage.blocks),
                tuple(grown(each, f"the width {each}") for each in stage.widths),
            )
            for stage in self.space.stages
        ]
        fields = {name: value for name, value in self.to_diff_dict().items() if name not in ("search_space", "copies")}
        fields |= {"hidden_size": width, "search_space": SearchSpace(tuple(stages))}
        widths = sorted({self.hidden_size, *(each for stage in self.space.stages for each in stage.widths)})
        fields["attention_head_size"] = self.attention_head_size or min(map(self.head_size, widths))
        if self.embedding_size is not None:
            fields["embedding_size"] = grown(self.embedding_size, f"embedding_size={self.embedding_size}")
        return type(self)(**fields)

    def operator_names(self) -> Iterator[str]:
        yield from chain.from_iterable(self.space.blocks)

    @classmethod
    def preset(cls, name: str, **overrides) -> "SupernetConfig":
        """A named space and its sizes; `overrides` replace single fields.

        - `"quickstart"`: 6 blocks of 4 operators (4,096 children), width 128, vocabulary 8,192.
        - `"magic-base"`: MAGIC's base-size space, 24 blocks of width 768 (its operators are partly unverified, see
          docs/papers.md).
        - `"nasbert"`: NAS-BERT's space (https://arxiv.org/abs/2105.14444, section 3): 4 stages of 6 blocks, 26
          operators, widths 128 to 512.

        Raises:
            ValueError: If there is no preset of that name.
        """
        if name not in _PRESETS:
            raise ValueError(f"unknown preset {name!r}: expected one of {', '.join(_PRESETS)}")
        return cls(**{**_PRESETS[name](), **overrides})


__all__ = ["SupernetConfig"]
