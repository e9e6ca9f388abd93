"""A super-net in parts (FSDP2): each process keeps its share of every operator; the whole is made to be saved."""

import os
import warnings
from typing import cast

import torch
from accelerate import Accelerator
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor

from hf_nasbert.modeling.modeling_supernet import SupernetEncoder, SupernetForMaskedLM, SupernetPreTrainedModel
from hf_nasbert.training.arguments import SupernetTrainingArguments
from hf_nasbert.training.step import make_optimizer


def is_wanted() -> bool:
    """Whether the launcher was told to use FSDP (recipes/configs/accelerate/fsdp2.yaml)."""
    return os.environ.get("ACCELERATE_USE_FSDP", "false").lower() == "true"


def check_launch(arguments: SupernetTrainingArguments) -> None:
    """Refuse what a launcher may ask for and a super-net's training does not do.

    Raises:
        ValueError: If DeepSpeed, the first FSDP, or FSDP with an option that is not heeded was asked for.
    """
    if os.environ.get("ACCELERATE_USE_DEEPSPEED", "false").lower() == "true":
        raise ValueError(
            "super-nets are not trained by DeepSpeed: its engine flattens all parameters, and would move "
            "operators off the path too. Launch with recipes/configs/accelerate/multi_gpu.yaml or fsdp2.yaml"
        )
    if not is_wanted():
        return
    asked = {name: os.environ.get(name, "").lower() for name in ("FSDP_VERSION", "FSDP_OFFLOAD_PARAMS")}
    if asked["FSDP_VERSION"] != "2" or asked["FSDP_OFFLOAD_PARAMS"] == "true" or arguments.mixed_precision == "fp16":
        raise ValueError(
            "super-nets are sharded by FSDP's version 2, without offloading and not in fp16: launch with "
            "recipes/configs/accelerate/fsdp2.yaml"
        )


def shard(supernet: SupernetPreTrainedModel, accelerator: Accelerator) -> None:
    """Cut every operator, and what is left, into parts, one for each process.

    Operators are cut one by one: a step gathers those on its child's path, and no others.
    """
    # Nothing here writes into a tensor that the super-net returned.
    warnings.filterwarnings("ignore", "FSDP2-wrapped module .* returned a view tensor", UserWarning)
    mesh = init_device_mesh(accelerator.device.type, (accelerator.num_processes,))
    for block in cast(SupernetEncoder, supernet.base_model.encoder).all_blocks:
        for operator in block.operators.units():
            if any(True for _ in operator.parameters()):
                fully_shard(operator, mesh=mesh)
    fully_shard(supernet, mesh=mesh)


def whole(
    supernet: SupernetPreTrainedModel, optimizer: torch.optim.Optimizer, arguments: SupernetTrainingArguments
) -> tuple[SupernetPreTrainedModel, torch.optim.Optimizer]:
    """A super-net and its optimizer in one piece: themselves, or if they are in parts, new ones on every process."""
    one = whole_supernet(supernet)
    if one is supernet:
        return supernet, optimizer
    of_one = make_optimizer(one, arguments)
    for parameter, part in zip(one.parameters(), supernet.parameters(), strict=True):
        for name, value in optimizer.state.get(part, {}).items():
            of_one.state[parameter][name] = _gathered(value).clone()
    return one, of_one


def whole_supernet(supernet: SupernetPreTrainedModel) -> SupernetPreTrainedModel:
    """A super-net in one piece: itself, or if it is in parts, a new one on every process."""
    if not isinstance(supernet, FSDPModule):
        return supernet
    parts: SupernetPreTrainedModel = supernet
    with torch.random.fork_rng(devices=[]):
        one: SupernetPreTrainedModel = SupernetForMaskedLM(parts.config)  # of a base model none is sharded
        torch.nn.Module.to(one, parts.device).train(parts.training)
    with torch.no_grad():
        for parameter, part in zip(one.parameters(), parts.parameters(), strict=True):
            parameter.copy_(_gathered(part))
    return one


def cut_again(
    supernet: SupernetPreTrainedModel,
    optimizer: torch.optim.Optimizer,
    one: SupernetPreTrainedModel,
    of_one: torch.optim.Optimizer,
) -> None:
    """Put the weights and the optimizer's state of what `whole` made back into the parts; the inverse of it."""
    if one is supernet:
        return
    optimizer.state.clear()
    with torch.no_grad():
        for parameter, part in zip(one.parameters(), supernet.parameters(), strict=True):
            part.copy_(_cut(parameter.detach(), part))
            for name, value in of_one.state.get(parameter, {}).items():
                optimizer.state[part][name] = _cut(value, part) if value.dim() else value


def _gathered(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def _cut(tensor: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    assert isinstance(like, DTensor)
    # Every process holds the whole already: nothing needs to be sent.
    return distribute_tensor(tensor, like.device_mesh, like.placements, src_data_rank=None)
