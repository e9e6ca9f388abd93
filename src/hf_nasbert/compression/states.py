"""What the base model makes of every batch: its last states and logits, on disk, mapped into memory, made once.

Only real tokens' states are kept, in half precision. What stands in front of the blocks is not: embeddings are looked
up again for next to nothing.
"""

import json
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from accelerate import PartialState
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from tqdm import tqdm
from transformers import PreTrainedModel

from hf_nasbert.compression.sentences import Batch, digest_of
from hf_nasbert.elastic.distance import Target
from hf_nasbert.elastic.encoders import encoder_of, inputs_of, logits_of, mask_of, running, watched
from hf_nasbert.foreign import read_object
from hf_nasbert.kept import first_difference, weights_digest
from hf_nasbert.writing import write_bytes, write_text

logger = logging.getLogger(__name__)

_ASKED = "states.json"
_BATCHES_OF_A_SHARD = 32


class TeacherStates(Sequence[Target]):
    """The base model's states and logits of batches, read from disk as they are asked for.

    Attributes:
        mean: The mean of the last states over all real tokens, (D,), float32.
        inner_blocks: The blocks whose states are kept as well.
        inner_means: The means of these, (D,) each.
    """

    def __init__(self, folder: Path, num_batches: int, inner_blocks: Sequence[int] = ()) -> None:
        self._num_batches, self.inner_blocks = num_batches, tuple(inner_blocks)
        files = [folder / _shard_name(number) for number in range(_num_shards(num_batches))]
        self._shards: list[Any] = [safe_open(str(file), framework="pt") for file in files]  # mapped, not read
        self.num_tokens = sum(int(shard.get_tensor("ends")[-1]) for shard in self._shards)
        total: torch.Tensor = torch.stack([shard.get_tensor("sum") for shard in self._shards]).sum(0)
        self.mean = (total / self.num_tokens).float()
        self.inner_means = [
            (
                torch.stack([shard.get_tensor(f"sum {block}") for shard in self._shards]).sum(0) / self.num_tokens
            ).float()
            for block in self.inner_blocks
        ]

    def __len__(self) -> int:
        return self._num_batches

    def __getitem__(self, index: int) -> Target:  # type: ignore[override]  # no slices: they would be read at once
        if not 0 <= index < self._num_batches:
            raise IndexError(index)
        number, place = divmod(index, _BATCHES_OF_A_SHARD)
        shard = self._shards[number]

        def part(name: str, borders: str = "ends") -> torch.Tensor:
            ends = shard.get_tensor(borders)
            start = int(ends[place - 1]) if place else 0
            rows: torch.Tensor = shard.get_slice(name)[start : int(ends[place])]
            return rows

        logits = part("logits", "logit_ends") if "logits" in shard.keys() else None  # no dictionary
        return Target(part("states"), logits, tuple(part(f"states {block}") for block in self.inner_blocks))


def teacher_states(
    teacher: PreTrainedModel,
    batches: Sequence[Batch],
    folder: str | Path,
    *,
    inner_blocks: Sequence[int] = (),
    progress: bool = False,
    processes: PartialState | None = None,
) -> TeacherStates:
    """Run the base model over all batches, once: a killed call goes on after the last whole shard of 32 batches.

    Args:
        teacher: The full child, alone or with its head.
        batches: The batches.
        folder: Where the states lie; other states must not lie there.
        inner_blocks: Blocks whose states are kept beside the last ones.
        progress: Whether to show a bar, on the main process.
        processes: Those that share out the shards, in a folder that all of them see; each has to call with the same
            arguments, and each gets all states.

    Raises:
        ValueError: If the folder holds states of another model or of other batches, if there is no batch, or if a
            state is not finite.
        WriteError: If the folder cannot be written.
    """
    if not batches:
        raise ValueError("there is no batch to run the base model on: give more text")
    folder = Path(folder)
    asked = {"weights": weights_digest(teacher), "batches": digest_of(batches), "num_batches": len(batches)}
    asked |= {"inner_blocks": list(inner_blocks)}
    is_main = processes is None or processes.is_main_process
    if is_main and not (folder / _ASKED).exists():
        write_text(folder / _ASKED, json.dumps(asked, indent=1) + "\n")
    if processes is not None:
        processes.wait_for_everyone()
    difference = first_difference(read_object(folder / _ASKED), asked)
    if difference is not None:
        raise ValueError(
            f"{folder} holds states of another model or text ({difference}): name another folder, or delete it"
        )
    index, count = (0, 1) if processes is None else (processes.process_index, processes.num_processes)
    shards = range(index, _num_shards(len(batches)), count)
    for number in tqdm(shards, unit=" shards", desc="base model", disable=not (progress and is_main), leave=False):
        file = folder / _shard_name(number)
        if not _is_whole(file):
            own = batches[number * _BATCHES_OF_A_SHARD : (number + 1) * _BATCHES_OF_A_SHARD]
            write_bytes(file, _shard(teacher, own, inner_blocks))
    if processes is not None:
        processes.wait_for_everyone()
    return TeacherStates(folder, len(batches), inner_blocks)


def _num_shards(num_batches: int) -> int:
    return -(-num_batches // _BATCHES_OF_A_SHARD)


def _shard_name(number: int) -> str:
    return f"states-{number:05}.safetensors"


def _is_whole(file: Path) -> bool:
    """Whether a shard is there; one that somebody damaged is made again."""
    if not file.exists():
        return False
    try:
        shard: Any = safe_open(str(file), framework="pt")
        return "ends" in shard.keys()
    except (OSError, SafetensorError) as error:
        logger.warning("%s is damaged (%s): it is made again", file, error)
        return False


def _shard(teacher: PreTrainedModel, batches: Sequence[Batch], inner_blocks: Sequence[int]) -> bytes:
    states, logits = [], []
    inner: list[list[torch.Tensor]] = [[] for _ in inner_blocks]
    for batch in batches:
        target = target_of(teacher, batch, inner_blocks)
        states.append(target.states.cpu())
        for kept, one in zip(inner, target.inner, strict=True):
            kept.append(one.cpu())
        if target.logits is not None:
            logits.append(target.logits.cpu())
    tensors = {
        "states": torch.cat(states).half(),
        "ends": torch.tensor([len(one) for one in states]).cumsum(0),
        "sum": torch.stack([one.double().sum(0) for one in states]).sum(0),
    }
    for block, kept in zip(inner_blocks, inner, strict=True):
        tensors[f"states {block}"] = torch.cat(kept).half()
        tensors[f"sum {block}"] = torch.stack([one.double().sum(0) for one in kept]).sum(0)
    if logits:
        tensors |= {"logits": torch.cat(logits), "logit_ends": torch.tensor([len(one) for one in logits]).cumsum(0)}
    if not all(tensor.isfinite().all() for name, tensor in tensors.items() if name.startswith("states")):
        raise ValueError("a state of the base model is not finite in half precision: its weights are damaged")
    return save(tensors)


def target_of(teacher: PreTrainedModel, batch: Batch, inner_blocks: Sequence[int] = ()) -> Target:
    """What the base model makes of one batch, in single precision.

    Args:
        teacher: The full child, alone or with its head.
        batch: The batch.
        inner_blocks: Blocks after which its states are wanted as well.
    """
    encoder = encoder_of(teacher)
    blocks = [encoder.encoder.blocks[block] for block in inner_blocks]
    with running(teacher), watched(blocks) as outputs:
        device = next(teacher.parameters()).device
        mask = mask_of(batch, device)
        hidden_states, masks = encoder.embed(**inputs_of(batch, device))
        hidden_states = encoder.encoder(hidden_states, masks)
        logits = logits_of(teacher, hidden_states, mask)
    return Target(hidden_states[mask], logits, tuple(outputs[block][mask] for block in blocks))
