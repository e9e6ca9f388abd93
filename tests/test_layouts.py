"""Weight layouts: old files load with equal logits."""

from pathlib import Path

import torch
from modelling_helpers import padded_batch
from safetensors.torch import load_file

from hf_nasbert.extraction import load_supernet

OLD = Path(__file__).parent / "data" / "supernet-0.1"


def test_a_super_net_of_version_0_1_loads_with_equal_logits():
    """The folder was written before operators had layouts and names had sizes."""
    supernet = load_supernet(OLD).eval()
    for name, expected in load_file(OLD / "logits.safetensors").items():
        with torch.no_grad():
            found = supernet(**padded_batch(16), architecture=None if name == "largest" else name.split("-"))
        assert torch.allclose(found.logits, expected, atol=1e-6, rtol=0), name
