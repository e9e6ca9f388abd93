"""The proof, before a push, that a child computes the same where this package is not installed."""

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
import transformers
from huggingface_hub.errors import StrictDataclassError
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

import hf_nasbert.modeling as family
from hf_nasbert.foreign import read_object
from hf_nasbert.hub.contents import Content

# Runs where this package cannot be imported, offline and with an empty cache: what a user of the child has.
_STRANGER = """
import importlib.abc, sys
class Absent(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] == "hf_nasbert":
            raise ModuleNotFoundError("No module named 'hf_nasbert'", name=name)
sys.meta_path.insert(0, Absent())
import torch, transformers
from safetensors.torch import load_file, save_file
folder, auto_class, inputs, results = sys.argv[1:]
transformers.AutoTokenizer.from_pretrained(folder, trust_remote_code=True)  # it reads the model's config first
model = getattr(transformers, auto_class).from_pretrained(folder, trust_remote_code=True)
with torch.no_grad():
    outputs = model.eval()(**load_file(inputs), return_dict=True)
save_file({name: tensor.contiguous() for name, tensor in outputs.items() if torch.is_tensor(tensor)}, results)
"""
# What a missing or torn file, a wrong config and other sizes of weights end in; stock configs check little, and fail
# where a field is first used.
_UNLOADABLE = (
    ArithmeticError,
    AttributeError,
    LookupError,
    OSError,
    RuntimeError,
    SafetensorError,
    StrictDataclassError,
    TypeError,
    ValueError,
)
_TOLERANCE = 1e-5  # relative to the largest output: other threads may add in another order
_TIMEOUT = 600  # seconds


def check_leaves_home(files: Mapping[str, Content]) -> float:
    """Load a child in a fresh process without this package, and compare what it computes with what it computes here.

    The process sees nothing but the files that would be pushed; it has no network, no token and an empty cache.

    Args:
        files: What would be pushed; see `contents.gather`.

    Returns:
        The largest difference of outputs on fixed dummy inputs with padding, relative to the largest output.

    Raises:
        ValueError: If it does not load there, its weights are not those its config asks for, or its outputs differ.
    """
    config = read_object(files["config.json"], "config.json")
    name = (config.get("architectures") or [None])[0]
    model_class = getattr(family, str(name), None) or getattr(transformers, str(name), None)
    if model_class is None:
        raise ValueError(f"config.json names the class {name!r}: expected one of this package or of transformers")
    auto_classes = {entry.rpartition(".")[2]: auto for auto, entry in (config.get("auto_map") or {}).items()}
    with TemporaryDirectory() as scratch:
        folder, results = Path(scratch) / "child", Path(scratch) / "results.safetensors"
        _lay_out(files, folder)
        try:
            model, loading = model_class.from_pretrained(folder, output_loading_info=True, local_files_only=True)
        except _UNLOADABLE as error:
            raise ValueError(f"the child does not load: {_last_line(str(error))}") from error
        problems = [f"{kind.replace('_', ' ')} {sorted(map(str, keys))[:3]}" for kind, keys in loading.items() if keys]
        if problems:
            raise ValueError(f"the child's weights do not belong to its config.json: {'; '.join(problems)}")
        inputs = _dummy_inputs(model)
        with torch.inference_mode():
            expected = model.eval()(**inputs, return_dict=True)
        save_file(inputs, Path(scratch) / "inputs.safetensors")
        arguments = [folder, auto_classes.get(name, name), Path(scratch) / "inputs.safetensors", results]
        done = subprocess.run(
            [sys.executable, "-I", "-c", _STRANGER, *arguments],
            env=_environment(Path(scratch)),
            cwd=scratch,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            timeout=_TIMEOUT,
        )
        if done.returncode != 0 or not results.exists():
            raise ValueError(f"the child does not load where hf_nasbert is not installed: {_last_line(done.stderr)}")
        found = load_file(results)
    return _difference(expected, found)


def _lay_out(files: Mapping[str, Content], folder: Path) -> None:
    """The files as they would lie in the repository; large ones as links."""
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(content, bytes):
            path.write_bytes(content)
        else:
            path.symlink_to(content.resolve())


def _dummy_inputs(model: Any) -> dict[str, torch.Tensor]:
    """Random tokens of a fixed seed, (B, T) or, of a multiple-choice model, (B, choices, T); the second row padded."""
    config, generator = model.config, torch.Generator().manual_seed(0)
    num_tokens = min(16, config.max_position_embeddings)
    shape = (2, 2, num_tokens) if type(model).__name__.endswith("ForMultipleChoice") else (2, num_tokens)
    attention_mask = torch.ones(shape, dtype=torch.long)
    attention_mask[1, ..., (num_tokens + 1) // 2 :] = 0
    return {
        "input_ids": torch.randint(config.vocab_size, shape, generator=generator),
        "attention_mask": attention_mask,
        "token_type_ids": torch.randint(config.type_vocab_size, shape, generator=generator),
    }


def _environment(scratch: Path) -> dict[str, str]:
    """This process's, without its tokens, its network and its caches, and with as many threads."""
    kept = {name: value for name, value in os.environ.items() if "TOKEN" not in name and "SECRET" not in name}
    return kept | {
        "HF_HOME": str(scratch / "hf_home"),
        "HF_MODULES_CACHE": str(scratch / "modules"),
        "HF_HUB_OFFLINE": "1",
        "OMP_NUM_THREADS": str(torch.get_num_threads()),
    }


def _difference(expected: Mapping[str, Any], found: Mapping[str, torch.Tensor]) -> float:
    """The largest difference between the tensors of one name, relative to the largest number expected."""
    tensors = {name: tensor.float() for name, tensor in expected.items() if torch.is_tensor(tensor)}
    if tensors.keys() != found.keys():
        raise ValueError(f"without hf_nasbert the child returns {sorted(found)}, with it {sorted(tensors)}")
    worst = 0.0
    for name, tensor in tensors.items():
        difference = float((found[name].float() - tensor).abs().max() / tensor.abs().max().clamp(min=1))
        if not difference <= _TOLERANCE:  # not "greater": NaN must fail
            raise ValueError(
                f"the child's code files compute other {name} than hf_nasbert does (they differ by {difference:.3g} "
                "of the largest): they come from another version; extract the child again"
            )
        worst = max(worst, difference)
    return worst


def _last_line(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1] if lines else "it ended without a word"
