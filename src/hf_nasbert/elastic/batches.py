"""What is fed to encoders here: tokenised text, and what distinguishes some of it from other text."""

import hashlib
from collections.abc import Mapping, Sequence

import torch

Batch = Mapping[str, torch.Tensor]
"""`input_ids` and `attention_mask`, of pairs `token_type_ids` too, int64, (B, T); padding is on the right.

Of labelled examples also `labels`, (B,): int64 of classes, float32 of numbers.
"""

INPUTS = ("input_ids", "attention_mask", "token_type_ids")
"""What an encoder reads of a batch."""

LABELS = "labels"
"""What a batch of labelled examples holds beside that."""


def num_tokens(batches: Sequence[Batch]) -> int:
    """The real tokens of batches."""
    return sum(int(batch["attention_mask"].sum()) for batch in batches)


def digest_of(batches: Sequence[Batch]) -> str:
    """A fingerprint of batches: what was made from others does not compare."""
    content = hashlib.sha256()
    for batch in batches:
        for name in (name for name in (*INPUTS, LABELS) if name in batch):
            content.update(str(tuple(batch[name].shape)).encode())
            content.update(batch[name].cpu().numpy().tobytes())
    return content.hexdigest()[:16]
