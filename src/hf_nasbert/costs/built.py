"""What an operator costs that `counts` has no formula for: it is built on torch's `meta` device, and its run watched.

Nothing is computed and no memory is taken: a `meta` tensor is a shape. A run takes some milliseconds, a formula some
microseconds.
"""

from typing import TYPE_CHECKING, Any

from hf_nasbert.modeling.geometry_nasbert import parse_operator

if TYPE_CHECKING:
    from torch import nn

_NUM_TOKENS = 64  # of the run whose memory is watched: what does not grow with the tokens is rounded away


def built_parameters(config: Any, name: str) -> int:
    """The parameters of an operator, each once.

    Raises:
        ValueError: If the config builds no such operator.
    """
    return sum(parameter.numel() for parameter in _build(config, name).parameters())


def built_flops(config: Any, name: str, batch_size: int, sequence_length: int) -> int:
    """The floating-point operations of a run, by `torch.utils.flop_counter`.

    Raises:
        ValueError: If the config builds no such operator.
    """
    from torch.utils.flop_counter import FlopCounterMode

    with FlopCounterMode(display=False) as counter:
        _run(config, name, batch_size, sequence_length)
    return int(counter.get_total_flops())


def built_peak(config: Any, name: str) -> int:
    """The numbers per token that a run makes and holds at once; those of a kernel's other results count too.

    Raises:
        ValueError: If the config builds no such operator.
    """
    import torch
    from torch.multiprocessing.reductions import StorageWeakRef
    from torch.utils._python_dispatch import TorchDispatchMode
    from torch.utils._pytree import tree_leaves

    weak: Any = StorageWeakRef  # untyped, as its method is
    is_gone: Any = StorageWeakRef.expired

    class Watch(TorchDispatchMode):  # type: ignore[no-untyped-call]
        """Knows of every memory that was made and is still held."""

        held: dict[int, tuple[Any, int]] = {}
        most = 0

        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            given = {id_of(one) for one in tree_leaves((args, kwargs)) if isinstance(one, torch.Tensor)}
            out = func(*args, **(kwargs or {}))
            self.held = {key: one for key, one in self.held.items() if not is_gone(one[0])}
            for one in tree_leaves(out):
                if isinstance(one, torch.Tensor) and id_of(one) not in given:
                    self.held[id_of(one)] = weak(one.untyped_storage()), one.untyped_storage().nbytes()
            self.most = max(self.most, sum(nbytes for _, nbytes in self.held.values()))
            return out

    def id_of(tensor: torch.Tensor) -> int:
        return int(tensor.untyped_storage()._cdata)

    watch = Watch()  # type: ignore[no-untyped-call]
    _run(config, name, 1, _NUM_TOKENS, watch)
    return watch.most // (4 * _NUM_TOKENS)


def _build(config: Any, name: str) -> "nn.Module":
    import torch

    from hf_nasbert.modeling.operators_nasbert import build_operator

    if not hasattr(config, "check_operator"):
        raise ValueError(
            f"the cost of operator {name!r} is unknown: known are attention, ffn, conv<size>, norm and skip, and what "
            "a NasBertConfig or a SupernetConfig builds"
        )
    with torch.device("meta"):
        return build_operator(config, name).eval()


def _run(config: Any, name: str, batch_size: int, sequence_length: int, watch: Any = None) -> None:
    from contextlib import nullcontext

    import torch

    module = _build(config, name)
    width = parse_operator(name).width or int(config.hidden_size)
    states = torch.empty(batch_size, sequence_length, width, device="meta")
    with torch.no_grad(), nullcontext() if watch is None else watch:
        module(states)
