"""A child as an ONNX file for any batch and sequence length, proven in onnxruntime before it is in its place."""

import copy
import dataclasses
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
import transformers
from torch import nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

import hf_nasbert.modeling.auto_classes  # noqa: F401 - so that our children need no remote code
from hf_nasbert import modeling
from hf_nasbert.configs import load_config, loading_errors
from hf_nasbert.data.foreign_tokenizers import open_tokenizer
from hf_nasbert.data.vocabulary import save_tokenizer
from hf_nasbert.export.arguments import ExportArguments
from hf_nasbert.lazy import check_extra
from hf_nasbert.processes import be_alone
from hf_nasbert.terminal import quiet
from hf_nasbert.tolerances import EXPORT
from hf_nasbert.writing import check_whole_folder, whole_folder

FILE = "model.onnx"
INPUTS = ("input_ids", "attention_mask", "token_type_ids")


@dataclass(frozen=True)
class Exported:
    """An ONNX file, the names of its outputs, and the largest difference of any of them from the model's."""

    file: Path
    outputs: tuple[str, ...]
    max_difference: float

    def __str__(self) -> str:
        return (
            f"{self.file}: {', '.join(INPUTS)} to {', '.join(self.outputs)}, any batch and length; "
            f"equal in onnxruntime (largest difference {self.max_difference:.1e})"
        )


def export_child(arguments: ExportArguments) -> Exported:
    """Load a model under the class it was saved as, and export it with its tokenizer.

    Raises:
        FileExistsError: If `output_dir` holds something.
        ImportError: If the packages of the extra `onnx` are not installed.
        OSError: If there is no such model or tokenizer.
        WriteError: If the folder cannot be written.
        ValueError: If it is no model that can be exported, or the outputs differ.
    """
    be_alone("exporting a child")
    check_onnx()
    _check_place(Path(arguments.output_dir).resolve())
    config = load_config(arguments.model, revision=arguments.revision)
    name = (config.architectures or ["none"])[0]
    model_class = getattr(modeling, name, None) or getattr(transformers, name, None)
    if model_class is None:
        raise ValueError(f"{arguments.model} names the model class {name}, which neither of our packages has")
    with loading_errors(arguments.model):
        model, loading = model_class.from_pretrained(
            arguments.model, revision=arguments.revision, output_loading_info=True
        )
    missing = sorted(loading["missing_keys"])
    if missing:  # transformers draws them anew and goes on
        raise ValueError(
            f"{arguments.model} lacks {len(missing)} weights of the {name} that its config.json names, such as "
            f"{missing[0]}: the folder is incomplete, or this head was never trained"
        )
    tokenizer = open_tokenizer(
        arguments.tokenizer_name or arguments.model, revision=None if arguments.tokenizer_name else arguments.revision
    )
    return export_onnx(model, tokenizer, arguments.output_dir, tolerance=arguments.tolerance)


def export_onnx(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    folder: str | Path,
    *,
    tolerance: float = EXPORT,
) -> Exported:
    """Write `model.onnx`, config and tokenizer to a new folder, which appears whole or not at all.

    The graph takes `input_ids`, `attention_mask` and `token_type_ids`, (batch, length) each, or (batch, choices,
    length) for multiple choice, and gives the outputs of the model's class without losses, in float32. It knows no
    longer sequences than `config.max_position_embeddings`. The model itself is left as it is.

    Args:
        model: A child with any head, or a stock BERT.
        tokenizer: Its tokenizer.
        folder: Where to write; its parents are made.
        tolerance: Largest absolute difference of any output from the model's, over batches of several shapes with
            padding on either side.

    Raises:
        FileExistsError: If the folder holds something.
        ImportError: If the packages of the extra `onnx` are not installed.
        ValueError: If it is a super-net, or the outputs differ by more or are not finite.
        WriteError: If the folder cannot be written.
    """
    check_onnx()
    folder = Path(folder).resolve()
    _check_place(folder)
    with whole_folder(folder) as staging:
        exported = write_graph(model, staging / FILE, tolerance=tolerance)
        model.config.save_pretrained(staging)
        save_tokenizer(tokenizer, staging, getattr(model.config, "max_position_embeddings", None))
    return dataclasses.replace(exported, file=folder / FILE)


def write_graph(
    model: PreTrainedModel,
    file: Path,
    *,
    tolerance: float = EXPORT,
    batches: Sequence[Mapping[str, torch.Tensor]] = (),
) -> Exported:
    """Write a model's graph into a folder that the caller then puts into its place; see `export_onnx`.

    Args:
        model: A child with any head, or a stock BERT.
        file: The file to write.
        tolerance: Largest absolute difference of any output from the model's.
        batches: Real text to compare on, beside random tokens: `input_ids` and `attention_mask` each.

    Raises:
        ValueError: If it is a super-net, or the outputs differ by more or are not finite.
    """
    if model.config.model_type == "nasbert_supernet":
        raise ValueError("a super-net is no child: extract one first (hf-nasbert extract)")
    graph = _Graph(model)
    graph.write(file)
    return Exported(file, graph.outputs, graph.prove(file, tolerance, batches))


def _check_place(folder: Path) -> None:
    check_whole_folder(folder)  # the folder is made beside its place, then renamed
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise FileExistsError(f"{folder} is there already: name a new folder to export to")


class _Graph(nn.Module):
    """A copy of a model on the CPU in float32, as a function of three tensors to a tuple of tensors."""

    def __init__(self, model: PreTrainedModel) -> None:
        super().__init__()
        self.model = copy.deepcopy(model)
        nn.Module.to(self.model, device="cpu", dtype=torch.float32)
        self.model.set_attn_implementation("sdpa")
        self.model.config.output_hidden_states = self.model.config.output_attentions = False
        self.has_choices = type(model).__name__.endswith("MultipleChoice")
        self.train(False)
        with torch.no_grad():
            found = self.model(**dict(zip(INPUTS, self.example(2, 8), strict=True)), return_dict=True)
        self.outputs = tuple(found)

    def forward(self, *tensors: torch.Tensor) -> tuple[torch.Tensor, ...]:
        found = self.model(**dict(zip(INPUTS, tensors, strict=True)), return_dict=True)
        return tuple(found.to_tuple())

    def example(self, batch_size: int, length: int) -> tuple[torch.Tensor, ...]:
        """Random tokens; of each three rows one is full, one padded on the right, one on the left."""
        config, generator = self.model.config, torch.Generator().manual_seed(0)
        length = min(length, config.max_position_embeddings)
        shape = (batch_size, 3, length) if self.has_choices else (batch_size, length)
        ids = torch.randint(config.vocab_size, shape, generator=generator)
        types = torch.randint(config.type_vocab_size, shape, generator=generator)
        mask = torch.ones(shape, dtype=torch.long)
        rows = mask.view(-1, length)
        rows[1::3, (length + 1) // 2 :] = 0
        rows[2::3, : length // 2] = 0
        return ids, mask, types

    def write(self, file: Path) -> None:
        axes = ("batch", "choices", "length") if self.has_choices else ("batch", "length")
        shapes = dict(enumerate(axes))
        longest = self.model.config.max_position_embeddings
        # What the exporter has to say is about its own insides, and packages that are not needed.
        with quiet("torch.onnx._internal.exporter"), warnings.catch_warnings(action="ignore"), torch.no_grad():
            program = torch.onnx.export(
                self,
                self.example(4, min(16, max(longest // 2, 2))),  # at the longest, torch would take it for a constant
                input_names=INPUTS,
                output_names=self.outputs,
                dynamic_shapes=((shapes,) * len(INPUTS),),
                dynamo=True,
                verbose=False,
            )
            if program is None:
                raise ValueError("torch.onnx made no program of this model")
            program.save(file)

    def prove(self, file: Path, tolerance: float, batches: Sequence[Mapping[str, torch.Tensor]]) -> float:
        """The largest difference between the file in onnxruntime and the model, or an error if it is too large."""
        import onnxruntime

        session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
        largest = 0.0
        examples = [self.example(batch_size, length) for batch_size, length in ((4, 16), (1, 1), (3, 40), (7, 5))]
        for tensors in (*examples, *map(tensors_of, batches)):
            feeds = {name: tensor.numpy() for name, tensor in zip(INPUTS, tensors, strict=True)}
            with torch.no_grad():
                expected = self(*tensors)
            for name, theirs, ours in zip(self.outputs, session.run(self.outputs, feeds), expected, strict=True):
                difference = float((torch.from_numpy(theirs) - ours).abs().max())
                if not difference <= tolerance:  # not "greater": NaN must fail
                    raise ValueError(
                        f"{name} of the exported model differs by up to {difference:.3g} at batch {len(tensors[0])}, "
                        f"length {tensors[0].shape[-1]}; allowed are {tolerance:.3g}: nothing is written"
                    )
                largest = max(largest, difference)
        return largest


def tensors_of(batch: Mapping[str, torch.Tensor]) -> tuple[torch.Tensor, ...]:
    """The tensors that a graph takes, in order, of a batch; types are 0 where it has none."""
    types = torch.zeros_like(batch["input_ids"])
    return tuple((batch.get(name, types) if name == INPUTS[2] else batch[name]).cpu() for name in INPUTS)


def check_onnx() -> None:
    """Refuse to go on without the packages that ONNX files are made with.

    Raises:
        ImportError: Naming the first that is missing, and how to install it.
    """
    check_extra("ONNX export", "onnx", "onnx", "onnxscript", "onnxruntime")
