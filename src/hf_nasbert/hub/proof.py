"""The proof, before a push, that a child computes the same where this package is not installed."""

import dataclasses
import os
import re
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
import transformers
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from transformers import PreTrainedModel

import hf_nasbert.modeling as family
from hf_nasbert.configs import loading_errors, read_model_config
from hf_nasbert.foreign import ForeignFileError, printable
from hf_nasbert.hub.contents import foreign_code
from hf_nasbert.hub.private import Content
from hf_nasbert.modeling.sentence_transformer import SentenceModules, read_sentence_modules
from hf_nasbert.tolerances import RELOADING

# Runs where this package cannot be imported, offline and with an empty cache: what a user of the child has.
_ABSENT = """
import importlib.abc, sys
class Absent(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] == "hf_nasbert":
            raise ModuleNotFoundError("No module named 'hf_nasbert'", name=name)
sys.meta_path.insert(0, Absent())
"""
_COMPUTE = """
import torch, transformers
from importlib.util import find_spec
from pathlib import Path
from safetensors.torch import load_file, save_file
folder, auto_class, inputs, results = sys.argv[1:]
transformers.AutoTokenizer.from_pretrained(folder, trust_remote_code=True)  # it reads the model's config first
model = getattr(transformers, auto_class).from_pretrained(folder, trust_remote_code=True)
with torch.no_grad():
    outputs = model.eval()(**load_file(inputs), return_dict=True)
    if Path(folder, "modules.json").exists() and find_spec("sentence_transformers"):
        from sentence_transformers import SentenceTransformer

        vectors = SentenceTransformer(folder, trust_remote_code=True, device="cpu", local_files_only=True).eval()
        outputs["sentence_vectors"] = vectors(load_file(inputs))["sentence_embedding"]
save_file({name: tensor.contiguous() for name, tensor in outputs.items() if torch.is_tensor(tensor)}, results)
"""
# All that such a process is given of the user's environment: where programs and libraries lie, the language, the
# processor. No token, no password, no setting that would lead it to the user's files.
_GIVEN = re.compile(
    r"PATH|LANG|LANGUAGE|LC_\w+|TZ|TMPDIR|TEMP|TMP|LD_LIBRARY_PATH|DYLD_LIBRARY_PATH|SYSTEMROOT|WINDIR|COMSPEC|PATHEXT"
    r"|(OMP|MKL|OPENBLAS|NUMEXPR|VECLIB_MAXIMUM)_NUM_THREADS|(CUDA|HIP|ROCR)_VISIBLE_DEVICES|KMP_\w+"
)
_HOMES = (
    "HOME", "USERPROFILE", "APPDATA", "LOCALAPPDATA", "HF_HOME", "HF_MODULES_CACHE", "TORCH_HOME", "XDG_CACHE_HOME",
    "XDG_CONFIG_HOME", "XDG_DATA_HOME", "XDG_STATE_HOME",
)  # fmt: skip
_VECTORS = "sentence_vectors"  # as the program above calls them
_TIMEOUT = 600  # seconds


def check_leaves_home(files: Mapping[str, Content], *, trust_remote_code: bool = False) -> float:
    """Load a child in a fresh process without this package, and compare what it computes with what it computes here.

    Of a SentenceTransformer the vectors are compared too, where sentence_transformers is installed. The process sees
    nothing but the files that would be pushed; see `run_without_package`. In this one nothing of
    theirs is imported.

    Args:
        files: What would be pushed; see `contents.gather`.
        trust_remote_code: Whether code among them that is not this package's may be run.

    Returns:
        The largest difference of outputs on fixed dummy inputs with padding, relative to the largest output.

    Raises:
        TimeoutError: If it takes longer than ten minutes.
        ValueError: If it is somebody else's code and that was not said, does not load there, its weights are not
            those its config asks for, or its outputs differ.
    """
    foreign = [] if trust_remote_code else foreign_code(files, "the child")
    if foreign:
        raise ValueError(f"the child brings code that is not hf_nasbert's ({', '.join(foreign)}), so it is not run")
    config = read_model_config(files["config.json"], "the child's config.json")
    name = (config.get("architectures") or [None])[0]
    model_class = _model_class(name)
    auto_classes = {str(entry).rpartition(".")[2]: auto for auto, entry in (config.get("auto_map") or {}).items()}
    with TemporaryDirectory() as scratch:
        folder, inputs, results = (
            Path(scratch) / part for part in ("child", "inputs.safetensors", "results.safetensors")
        )
        _lay_out(files, folder)
        with loading_errors("the child"):
            model, loading = model_class.from_pretrained(folder, output_loading_info=True, local_files_only=True)
        problems = [f"{kind.replace('_', ' ')} {sorted(map(str, keys))[:3]}" for kind, keys in loading.items() if keys]
        if problems:
            raise ValueError(f"the child's weights do not belong to its config.json: {'; '.join(problems)}")
        with loading_errors("the child"), torch.inference_mode():
            batch = _dummy_inputs(model)
            expected = dict(model.eval()(**batch, return_dict=True))
            modules = _sentence_modules(folder)
            if modules is not None and find_spec("sentence_transformers"):
                states = expected["last_hidden_state"]
                expected[_VECTORS] = modules.pool(states, batch["attention_mask"])
        save_file(batch, inputs)
        run_without_package(_COMPUTE, [str(folder), auto_classes.get(name, name), str(inputs), str(results)])
        if not results.is_file():
            raise ValueError("the child does not load where hf_nasbert is not installed: it ended without a result")
        try:
            found = {name: one for name, one in load_file(results).items() if name != _VECTORS or name in expected}
        except SafetensorError as error:
            raise ValueError(f"the child wrote a result that is none ({printable(error, 200)})") from None
    return _difference(expected, found)


def run_without_package(program: str, arguments: Sequence[str]) -> None:
    """Run a program in a fresh process in which this package cannot be imported: where a child's code is tried.

    It is no sandbox: the process may do what its user may. But it is handed nothing: no network, an environment of a
    short list, an empty home, an empty working folder and caches of its own, no token and no open file.

    Args:
        program: Python, which finds `sys` imported and `arguments` in `sys.argv[1:]`.
        arguments: What it is told.

    Raises:
        TimeoutError: If it takes longer than ten minutes.
        ValueError: If it fails, with the last line of what it said.
    """
    with TemporaryDirectory() as scratch:
        home, work, said = (Path(scratch) / part for part in ("home", "work", "said"))
        home.mkdir()
        work.mkdir()
        try:
            with said.open("wb") as output:
                done = subprocess.run(
                    [sys.executable, "-I", "-c", _ABSENT + program, *arguments],
                    env=_environment(home),
                    cwd=work,
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=output,
                    close_fds=True,
                    check=False,
                    timeout=_TIMEOUT,
                )
        except subprocess.TimeoutExpired:
            raise TimeoutError(
                f"the check did not end within {_TIMEOUT} s on this machine: run it again"
            ) from None  # whose text would be the whole program
        if done.returncode < 0:
            raise ValueError(
                f"the check was ended by signal {-done.returncode} ({_name_of_signal(-done.returncode)}), as "
                "machines do that have no memory left: run it again where there is more"
            )
        if done.returncode:
            raise ValueError(f"the child does not load where hf_nasbert is not installed: {_last_line(said)}")


def _sentence_modules(folder: Path) -> SentenceModules | None:
    """What makes vectors of a SentenceTransformer's states, before they are cut; None of one with further modules.

    Those are loaded in the other process like all others.
    """
    try:
        modules = read_sentence_modules(folder)
    except ForeignFileError:
        raise
    except ValueError:
        return None
    return modules and dataclasses.replace(modules, truncate_dim=None)


def _model_class(name: str | None) -> Any:
    """The class of this package, or of transformers, that a config names."""
    found = getattr(family, str(name), None) or getattr(transformers, str(name), None)
    if not (isinstance(found, type) and issubclass(found, PreTrainedModel)):
        raise ValueError(f"config.json names the class {name!r}: expected one of this package or of transformers")
    return found


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


def _environment(home: Path) -> dict[str, str]:
    """What `_GIVEN` lets through of this process's, an empty home, no network, and as many threads."""
    given = {name: value for name, value in os.environ.items() if _GIVEN.fullmatch(name.upper())}
    homes = dict.fromkeys(_HOMES, str(home))
    offline = {"HF_HUB_OFFLINE": "1", "HF_HUB_DISABLE_IMPLICIT_TOKEN": "1", "HF_HUB_DISABLE_TELEMETRY": "1"}
    return given | homes | offline | {"OMP_NUM_THREADS": str(torch.get_num_threads())}


def _difference(expected: Mapping[str, Any], found: Mapping[str, torch.Tensor]) -> float:
    """The largest difference between the tensors of one name, relative to the largest number expected."""
    tensors = {name: tensor.float() for name, tensor in expected.items() if torch.is_tensor(tensor)}
    if tensors.keys() != found.keys():
        raise ValueError(f"without hf_nasbert the child returns {sorted(found)}, with it {sorted(tensors)}")
    worst = 0.0
    for name, tensor in tensors.items():
        difference = float((found[name].float() - tensor).abs().max() / tensor.abs().max().clamp(min=1))
        if not difference <= RELOADING:  # not "greater": NaN must fail
            raise ValueError(
                f"the child's code files compute other {name} than hf_nasbert does (they differ by {difference:.3g} "
                "of the largest): they come from another version; extract the child again"
            )
        worst = max(worst, difference)
    return worst


def _last_line(said: Path) -> str:
    """The last line of what a process said, which may be anything."""
    with said.open("rb") as file:
        file.seek(max(0, said.stat().st_size - 10_000))
        lines = [line.strip() for line in file.read().decode("utf-8", "replace").splitlines() if line.strip()]
    return printable(lines[-1], 500) if lines else "it ended without a word"


def _name_of_signal(number: int) -> str:
    return signal.Signals(number).name if number in {*signal.Signals} else "of no name"
