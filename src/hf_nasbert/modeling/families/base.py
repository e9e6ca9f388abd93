"""What a family of stock encoders shares with children, both ways: sizes, names of weights, heads."""

import logging
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, TypeVar

import torch
from torch import nn
from transformers import PreTrainedConfig, PreTrainedModel

from hf_nasbert.modeling import NasBertConfig, NasBertForMaskedLM, NasBertForQuestionAnswering, NasBertModel
from hf_nasbert.modeling.geometry_nasbert import SKIP, inner_width, parse_operator

logger = logging.getLogger(__name__)

_Model = TypeVar("_Model", bound=PreTrainedModel)

_IN_TURN = ("attention", "ffn")  # the two sub-layers of a layer
_LABELS = ("id2label", "label2id", "problem_type")


class Family:
    """A family of stock encoders whose layers are post-norm attention and feed-forward sub-layers, as BERT's.

    Subclasses name what differs; an instance converts models. Weights have equal names but for what `encoder_names`
    and `head_names` say: pairs of a regular expression of the stock name and the child's name, in which `{layer}`
    stands for a layer's number there, `{attention}` and `{ffn}` for its blocks here.
    """

    name: ClassVar[str]
    config_class: ClassVar[type[PreTrainedConfig]]
    heads: ClassVar[Mapping[type[PreTrainedModel], type[PreTrainedModel]]]
    """Every class of a child, and the stock class that computes the same."""
    near: ClassVar[Mapping[type[PreTrainedModel], type[PreTrainedModel]]] = {}
    """Stock classes with a head that no child has, and the child's class that has most of them."""
    fields: ClassVar[Mapping[str, str]]
    """Fields of a child's config, and their names in a stock config."""
    fixed: ClassVar[Mapping[str, Any]] = {}
    """Fields of a child's config that are the same in all members."""
    layers: ClassVar[tuple[str, str, str, str]] = (
        "num_hidden_layers",
        "num_attention_heads",
        "intermediate_size",
        "hidden_size",
    )
    """Names of the stock config's number of layers, heads, inner width and width."""
    encoder_names: ClassVar[Sequence[tuple[str, str]]] = (
        (r"encoder\.layer\.(?P<layer>\d+)\.attention\.(?P<rest>.+)", "encoder.blocks.{attention}.operator.{rest}"),
        (r"encoder\.layer\.(?P<layer>\d+)\.(?P<rest>.+)", "encoder.blocks.{ffn}.operator.{rest}"),
    )
    head_names: ClassVar[Sequence[tuple[str, str]]] = ()
    pooler_act: ClassVar[str] = "tanh"
    """The activation of what sequences are classified by."""
    has_pooler: ClassVar[bool] = True
    """Whether the encoder without a head may have BERT's pooler."""

    # Sizes

    def child_fields(self, config: PreTrainedConfig) -> dict[str, Any]:
        """The fields of a child's config that a stock config says, but for its operators and labels."""
        return {ours: getattr(config, theirs) for ours, theirs in self.fields.items()}

    def stock_fields(self, config: NasBertConfig) -> dict[str, Any]:
        """The fields of a stock config that a child's config says, but for its layers and labels.

        Raises:
            ValueError: If no member of the family has such a field.
        """
        for ours, only in self.fixed.items():
            if getattr(config, ours) != only:
                raise self._refusal(f"its {ours} is {getattr(config, ours)!r}, and {self.name}'s {only!r}")
        return {theirs: getattr(config, ours) for ours, theirs in self.fields.items()}

    def blocks_of(self, operators: Sequence[str], hidden_size: int) -> list[int]:
        """The blocks of a child that become layers, attention and ffn in turn; skips are left out.

        Raises:
            ValueError: If the child is none of this family, naming the first block in the way, and why.
        """
        blocks: list[int] = []
        for index, name in enumerate(operators):
            operator = parse_operator(name)
            width = operator.width or hidden_size
            if operator.kind == SKIP:
                continue
            expected = _IN_TURN[len(blocks) % 2]
            first_ffn = blocks[1] if len(blocks) > 1 else index
            if operator.kind not in _IN_TURN:
                reason = f"{self.name} has no {operator.kind}"
            elif width != hidden_size:
                reason = f"it is {width} wide between states of {hidden_size}, and {self.name} has one width"
            elif operator.kind != expected:
                reason = f"{self.name} alternates attention and ffn, so {expected} would have to stand here"
            elif operator.kind == "attention" and operator.size is not None:
                reason = f"{self.name}'s attention has as many heads as fill its width"
            elif operator.kind == "ffn" and operator.size != parse_operator(operators[first_ffn]).size:
                reason = f"{self.name}'s layers all have one inner width, and that of block {first_ffn} is another"
            else:
                blocks.append(index)
                continue
            raise self._refusal(f"block {index} ({name}): {reason}")
        if not blocks:
            raise self._refusal("all its blocks are skips")
        if len(blocks) % 2:
            raise self._refusal(f"block {blocks[-1]} (attention): {self.name}'s last operator is an ffn")
        return blocks

    def _refusal(self, reason: str) -> ValueError:
        return ValueError(f"this child is no {self.name}: {reason}")

    # Names and weights

    def child_name(self, name: str, prefix: str, blocks: Sequence[int]) -> str:
        """Where a child keeps the weight that a stock model, with its encoder under `prefix`, calls `name`."""
        inside = name.startswith(prefix)
        found, rules = (name.removeprefix(prefix), self.encoder_names) if inside else (name, self.head_names)
        for pattern, template in rules:
            match = re.fullmatch(pattern, found)
            if match is not None:
                places = match.groupdict()
                if "layer" in places:
                    layer = 2 * int(places["layer"])
                    places |= {"attention": str(blocks[layer]), "ffn": str(blocks[layer + 1])}
                found = template.format(**places)
                break
        return f"nasbert.{found}" if inside and prefix else found

    def child_state(self, state: Mapping[str, torch.Tensor], config: PreTrainedConfig) -> dict[str, torch.Tensor]:
        """Weights under a child's names as a child keeps them."""
        return dict(state)

    def stock_state(self, state: Mapping[str, torch.Tensor], config: NasBertConfig) -> dict[str, torch.Tensor]:
        """Weights under a child's names as the stock model keeps them: the way back of `child_state`."""
        return dict(state)

    # Models

    def to_stock(self, child: PreTrainedModel) -> PreTrainedModel:
        """Turn a child that alternates attention and ffn into the stock model that it is, with equal outputs.

        Raises:
            ValueError: If the child is none of this family, naming what is in the way, and why.
        """
        config = child.config
        stock = next((theirs for ours, theirs in self.heads.items() if isinstance(child, ours)), None)
        if not isinstance(config, NasBertConfig):
            raise ValueError(f"expected a child of one of the classes NasBert..., got a {type(child).__name__}")
        if stock is None:
            raise self._refusal(f"{self.name} has no head that computes what {type(child).__name__} does")
        if getattr(child.base_model, "pooler", None) is not None and config.pooler_act != self.pooler_act:
            raise self._refusal(f"its pooler_act is {config.pooler_act!r}, and {self.name}'s {self.pooler_act!r}")
        blocks = self.blocks_of(config.operators, config.hidden_size)
        layers = (
            len(blocks) // 2,
            config.hidden_size // config.head_size(config.hidden_size),
            inner_width(config, config.operators[blocks[1]]),
            config.hidden_size,
        )
        # Two labels are asked for where answers have a start and an end.
        labels = () if type(child) is NasBertForQuestionAnswering else _LABELS
        stock_config = self.config_class(
            **self.stock_fields(config) | dict(zip(self.layers, layers, strict=True)),
            **{name: getattr(config, name) for name in labels},
        )
        has_pooler = type(child) is NasBertModel and child.pooler is not None
        if has_pooler and not self.has_pooler:
            raise self._refusal(f"{self.name} has no pooler: make it with add_pooling_layer=False")
        options = {"add_pooling_layer": has_pooler} if type(child) is NasBertModel and self.has_pooler else {}
        model = build_like(lambda config: stock(config, **options), stock_config, like=child)
        state = self.stock_state(child.state_dict(), config)
        if isinstance(child, NasBertForMaskedLM):
            # The decoder's bias has two names in some families, and untied a twin that nothing reads.
            state.setdefault("lm_head.bias", state["lm_head.decoder.bias"])
        prefix = "" if type(child) is NasBertModel else f"{stock.base_model_prefix}."
        model.load_state_dict(
            {name: state[self.child_name(name, prefix, blocks)] for name in model.state_dict()}, strict=True
        )
        return model

    def from_stock(self, model: PreTrainedModel, model_class: type[PreTrainedModel] | None = None) -> PreTrainedModel:
        """Turn a stock model into the child that it is: attention and ffn in turn, with equal outputs.

        What the child has and the stock model has not is made new, and a warning of this module's logger says what;
        so it does of a head that no child has.

        Args:
            model: A member of this family, the encoder alone or with any head.
            model_class: The class of the child; by default the one with the same head.

        Raises:
            ValueError: If the model is none of this family, or its sizes are none a child can have.
        """
        config, stock = model.config, type(model)
        made = model_class or {**{theirs: ours for ours, theirs in self.heads.items()}, **self.near}.get(stock)
        if made is None or not isinstance(model, (*self.heads.values(), *self.near)):
            known = sorted(one.__name__ for one in (*self.heads.values(), *self.near))
            raise ValueError(f"expected a stock {self.name} ({', '.join(known)}), got a {stock.__name__}")
        if getattr(config, "is_decoder", False) or getattr(config, "add_cross_attention", False):
            raise ValueError(f"this {self.name} is a decoder: a child's attention sees every token")
        num_layers, num_heads, inner, width = (getattr(config, name) for name in self.layers)
        ratio, rest = divmod(inner, width)
        labels = () if stock.__name__.endswith("QuestionAnswering") else _LABELS
        fields = {"hidden_size": width, "attention_head_size": width // num_heads, **self.child_fields(config)}
        fields |= {name: getattr(config, name) for name in labels}
        if not rest:
            fields["ffn_ratio"] = ratio
        if self.heads.get(made) is stock:
            fields["pooler_act"] = self.pooler_act
        operators = ("attention", f"ffn{inner}" if rest else "ffn") * num_layers
        child_config = NasBertConfig(**fields, operators=operators)
        prefix = f"{stock.base_model_prefix}."
        if not any(name.startswith(prefix) for name in model.state_dict()):  # the encoder alone
            prefix = ""
        blocks = list(range(2 * num_layers))
        stock_names = {self.child_name(name, prefix, blocks): name for name in model.state_dict()}
        state = self.child_state({ours: model.state_dict()[theirs] for ours, theirs in stock_names.items()}, config)
        bare, inside = made is NasBertModel, "" if prefix else "nasbert."
        if bare:
            state = {name.removeprefix("nasbert."): tensor for name, tensor in state.items()}
            stock_names = {name.removeprefix("nasbert."): theirs for name, theirs in stock_names.items()}
        else:
            state = {inside + name: tensor for name, tensor in state.items()}
            stock_names = {inside + name: theirs for name, theirs in stock_names.items()}
        options = {"add_pooling_layer": any(name.startswith("pooler.") for name in state)} if bare else {}
        child = build_like(lambda config: made(config, **options), child_config, like=model)
        names = child.state_dict().keys()
        if "lm_head.bias" in names and "lm_head.decoder.bias" in state:
            state.setdefault("lm_head.bias", state["lm_head.decoder.bias"])
        new = sorted({name.split(".")[name.startswith("nasbert.")] for name in names - state.keys()})
        # An untied masked-LM head has a second bias, which nothing reads.
        unread = {stock_names[name].removeprefix(prefix) for name in state.keys() - names - {"lm_head.bias"}}
        left = sorted({".".join(name.split(".")[:-1]) or name for name in unread})
        child.load_state_dict({name: tensor for name, tensor in state.items() if name in names}, strict=False)
        if new:
            logger.warning("the child's %s is new, with random weights: %s has none", ", ".join(new), stock.__name__)
        if left:
            logger.warning("left out of the child: the %s of %s", ", ".join(left), stock.__name__)
        return child


def build_like(model_class: Callable[[Any], _Model], config: PreTrainedConfig, like: PreTrainedModel) -> _Model:
    """A model on the device, in the precision and with the attention kernels of another, to be filled with weights."""
    config._attn_implementation = like.config._attn_implementation
    with torch.random.fork_rng(devices=[]):  # its random weights are thrown away: nobody's draws may depend on them
        model = model_class(config)
    nn.Module.to(model, device=like.device, dtype=like.dtype)
    model.train(False)
    return model
