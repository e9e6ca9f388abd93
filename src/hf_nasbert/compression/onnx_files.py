"""A smaller model as ONNX files, in single precision and in int8: what each keeps of its answers, and how fast it is.

The files lie where sentence-transformers and optimum look for them: `onnx/model.onnx` in the model's folder, and the
int8 version beside it under the name that sentence-transformers gives to one for CPUs with AVX2.
"""

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from hf_nasbert import checkpoint_folders, metrics
from hf_nasbert.compression.materials import Materials
from hf_nasbert.compression.proof import pooled, read_pairs, spearman_on_pairs
from hf_nasbert.compression.sentences import Batch, as_batches
from hf_nasbert.compression.stages import OnnxFile
from hf_nasbert.data.foreign_tokenizers import open_tokenizer
from hf_nasbert.export.int8 import quantise
from hf_nasbert.export.onnx import FILE, INPUTS, tensors_of, write_graph
from hf_nasbert.modeling.sentence_transformer import SentenceModules

ONNX_FILE = f"onnx/{FILE}"
INT8_FILE = "onnx/model_qint8_avx2.onnx"
TORCH, ONNX, INT8 = "torch", "onnxruntime", "onnxruntime, int8"

LEAST_COSINE = 0.98
"""Of int8's sentence vectors with those in single precision, mean over sentences: less is no version of the model."""
LEAST_AGREEMENT = 0.95
"""Share of the predictions that int8 gives too, or rank correlation of one number each, where there are no vectors."""

_NUM_PROVEN = 4  # batches of real text that the exporter compares the graph on
_SECONDS_OF_A_TIMING_RUN = 20.0
_MOST_ROUNDS = 20
_NUM_WARM_UPS, _NUM_TIMED = 2, 3  # forwards of a visit; threads of the runtime before spin for a while

Run = Callable[[Batch], Mapping[str, torch.Tensor]]
"""What runs a model on a batch, and gives its outputs by name."""


@dataclass(frozen=True)
class Kept:
    """What is left of a model's answers when something else computes them, on text that chose nothing.

    Args:
        cosine: Of its sentence vectors with the model's, mean over sentences; None of heads.
        neighbours: Share of sentences whose nearest other sentence is the same; likewise.
        agreement: Share of the same predictions: labels, labels of tokens, tokens, or ends of answers; None of
            encoders, and where the prediction is a number.
        correlation: Rank correlation of such numbers.
    """

    cosine: float | None = None
    neighbours: float | None = None
    agreement: float | None = None
    correlation: float | None = None


@dataclass(frozen=True)
class Runtime:
    """One line of the table of runtimes: what computes a smaller model, what that keeps of it, and how fast it is.

    Args:
        budget: The budget that the model is for.
        how: `torch`, `onnxruntime`, or that in int8.
        file: Within the model's folder.
        num_bytes: Of the file.
        kept: What is left of its answers.
        spearman: Rank correlation of its cosines with the scores of the pairs; None without pairs, and of heads.
        latency_one_ms: Measured, of one sequence.
        latency_batch_ms: Measured, of a batch.
    """

    budget: str
    how: str
    file: str
    num_bytes: int
    kept: Kept
    spearman: float | None
    latency_one_ms: float
    latency_batch_ms: float

    @classmethod
    def from_dict(cls, row: Mapping[str, Any]) -> "Runtime":
        """The row that a record holds."""
        return cls(**{**row, "kept": Kept(**row["kept"])})


class Answers:
    """What models answer to text, in the form that it is compared in.

    Args:
        batches: The text.
        modules: What makes vectors of sentences.
        num_prompt_tokens: Tokens before every sentence that are not pooled.
        config: Of the model: whether its labels are independent.
    """

    def __init__(
        self, batches: Sequence[Batch], modules: SentenceModules, num_prompt_tokens: int, config: Any
    ) -> None:
        self._batches, self._modules, self._num_prompt_tokens = batches, modules, num_prompt_tokens
        self._is_multi_label = getattr(config, "problem_type", None) == "multi_label_classification"

    def __call__(self, run: Run) -> torch.Tensor:
        """Vectors (N, W), or one number for each prediction (N,): of class int64, but where numbers are predicted."""
        return torch.cat([self._of(run(batch), batch["attention_mask"].bool()) for batch in self._batches])

    def vectors(self, run: Run, batch: Batch) -> torch.Tensor:
        """Sentence vectors of a batch."""
        states = run(batch)["last_hidden_state"]
        return pooled(self._modules, self._num_prompt_tokens, states, batch["attention_mask"].bool())

    def _of(self, outputs: Mapping[str, torch.Tensor], real: torch.Tensor) -> torch.Tensor:
        if "last_hidden_state" in outputs:
            return pooled(self._modules, self._num_prompt_tokens, outputs["last_hidden_state"], real)
        if "start_logits" in outputs:  # where the answer begins and ends
            ends = [outputs[name].masked_fill(~real, float("-inf")) for name in ("start_logits", "end_logits")]
            return torch.cat([one.argmax(-1) for one in ends])
        logits = outputs["logits"]
        if logits.dim() == 3:
            logits = logits[real]
        if self._is_multi_label:
            return (logits > 0).long().flatten()
        return logits.flatten() if logits.shape[-1] == 1 else logits.argmax(-1)


def kept_of(expected: torch.Tensor, found: torch.Tensor) -> Kept:
    """What answers keep of the expected ones, both as `Answers` gives them."""
    if expected.dim() == 2:
        cosine = float(torch.nn.functional.cosine_similarity(expected, found).mean())
        return Kept(cosine=cosine, neighbours=float((_nearest(expected) == _nearest(found)).float().mean()))
    if expected.is_floating_point():
        return Kept(correlation=metrics.spearman(expected.tolist(), found.tolist()))
    return Kept(agreement=float((expected == found).float().mean()))


def _nearest(vectors: torch.Tensor) -> torch.Tensor:
    unit = torch.nn.functional.normalize(vectors, dim=-1)
    cosines = unit @ unit.T
    return cosines.fill_diagonal_(float("-inf")).argmax(1)


def check_int8(kept: Kept) -> None:
    """Refuse an int8 version that keeps too little of the model's answers.

    Raises:
        ValueError: Naming what was measured.
    """
    measured = (
        ("mean cosine of its sentence vectors with those", kept.cosine, LEAST_COSINE),
        ("share of its predictions that are those", kept.agreement, LEAST_AGREEMENT),
        ("rank correlation of its predictions with those", kept.correlation, LEAST_AGREEMENT),
    )
    for name, value, least in measured:
        if value is not None and not value >= least:  # not "less": NaN must fail
            raise ValueError(
                f"int8 is too far from the model: the {name} in single precision is {value:.4f} on text that chose "
                f"nothing, and {least} is the least; no int8 file is written, and the same command without int8 ends "
                "well"
            )


def torch_run(model: PreTrainedModel) -> Run:
    """Runs a model by torch, in the mode in which it is."""

    def run(batch: Batch) -> Mapping[str, torch.Tensor]:
        with torch.no_grad():
            return dict(model(**dict(zip(INPUTS, tensors_of(batch), strict=True)), return_dict=True))

    return run


def onnx_run(file: Path) -> Run:
    """Runs a file by onnxruntime on the CPU, with as many threads as torch has."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = torch.get_num_threads(), 3
    options.add_session_config_entry("session.force_spinning_stop", "1")  # idle threads leave the CPU to who is next
    session = onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]

    def run(batch: Batch) -> Mapping[str, torch.Tensor]:
        feeds = {name: tensor.numpy() for name, tensor in zip(INPUTS, tensors_of(batch), strict=True)}
        return dict(zip(names, map(torch.from_numpy, session.run(names, feeds)), strict=True))

    return run


class OnnxFiles:
    """The ONNX files of a smaller model, each in its place whole or not at all.

    Args:
        materials: Of the compression.
        folder: The model's.
        load: Loads the model, on the CPU and in evaluation mode.
    """

    def __init__(self, materials: Materials, folder: Path, load: Callable[[], PreTrainedModel]) -> None:
        self._materials, self._folder, self._load = materials, folder, load

    @cached_property
    def _model(self) -> PreTrainedModel:
        return self._load()

    @cached_property
    def _tokenizer(self) -> PreTrainedTokenizerBase:
        """The model's own: its vocabulary may be trimmed."""
        return open_tokenizer(self._folder, trust_remote_code=self._materials.arguments.trust_remote_code)

    @cached_property
    def _batches(self) -> list[Batch]:
        """Text that chose nothing."""
        shared = self._materials
        return as_batches(
            [shared.modules.default_prompt + text for text in shared.judging], self._tokenizer,
            batch_size=shared.arguments.batch_size, max_length=shared.max_length,
        )  # fmt: skip

    @cached_property
    def _answers(self) -> Answers:
        modules = self._materials.modules
        return Answers(self._batches, modules, modules.num_prompt_tokens(self._tokenizer), self._model.config)

    @cached_property
    def _expected(self) -> torch.Tensor:
        return self._answers(torch_run(self._model))

    def write(self) -> OnnxFile:
        """Export the model; its outputs on random tokens and on held-out sentences must be the model's.

        Raises:
            ValueError: If they are not.
            OSError: If the file cannot be written.
        """

        def write(staging: Path) -> None:
            (staging / ONNX_FILE).parent.mkdir()
            write_graph(self._model, staging / ONNX_FILE, batches=self._batches[:_NUM_PROVEN])

        return self._put(ONNX_FILE, write)

    def write_int8(self) -> OnnxFile:
        """Quantise the exported graph; it must keep enough of the model's answers on text that chose nothing.

        Raises:
            ValueError: If it does not.
            OSError: If the file cannot be written.
        """

        def write(staging: Path) -> None:
            (staging / INT8_FILE).parent.mkdir()
            quantise(self._folder / ONNX_FILE, staging / INT8_FILE)
            check_int8(kept_of(self._expected, self._answers(onnx_run(staging / INT8_FILE))))

        return self._put(INT8_FILE, write)

    def _put(self, file: str, write: Callable[[Path], None]) -> OnnxFile:
        checkpoint_folders.replace_files(
            self._folder, write, what=file, checkpoints=self._materials.work, advice="run the same command again"
        )
        return OnnxFile(file, (self._folder / file).stat().st_size)

    @property
    def there(self) -> dict[str, str]:
        """What can run the model, and the file in its folder that each runs."""
        files = {TORCH: "model.safetensors", ONNX: ONNX_FILE, INT8: INT8_FILE}
        return {how: file for how, file in files.items() if (self._folder / file).is_file()}

    def measure(
        self, budget: str, files: Mapping[str, str] | None = None, clock: Callable[[], float] = time.perf_counter
    ) -> list[Runtime]:
        """All that can run the model: what each keeps of its answers, and its time, in turn.

        Args:
            budget: The budget that the model is for.
            files: Others to measure than those that are `there`, torch's among them.
            clock: Tells the seconds.
        """
        files = self.there if files is None else files
        runs = {how: torch_run(self._model) if how == TORCH else onnx_run(self._folder / files[how]) for how in files}
        answers = {how: self._expected if how == TORCH else self._answers(run) for how, run in runs.items()}
        shape = self._materials.arguments.shape
        one, many = (
            by_turns(
                [partial(run, full_batch(self._model.config.vocab_size, size, shape[1])) for run in runs.values()],
                clock,
            )
            for size in (1, shape[0])
        )
        return [
            Runtime(
                budget, how, file, (self._folder / file).stat().st_size, kept_of(self._expected, answers[how]),
                self._spearman(runs[how]), one[number], many[number],
            )
            for number, (how, file) in enumerate(files.items())
        ]  # fmt: skip

    def _spearman(self, run: Run) -> float | None:
        """The rank correlation on the pairs, where there are some, and vectors to compare."""
        shared, pairs = self._materials, self._materials.arguments.pairs_file
        if pairs is None or self._expected.dim() == 1:
            return None
        longest = self._model.config.max_position_embeddings
        return spearman_on_pairs(
            partial(self._answers.vectors, run), read_pairs(pairs, shared.work / "pairs"), self._tokenizer,
            min(longest, shared.modules.max_seq_length or longest), shared.modules,
        )  # fmt: skip


def full_batch(vocabulary: int, size: int, length: int) -> Batch:
    """Random tokens without padding (size, length), the same at every call, to time models on."""
    ids = torch.randint(vocabulary, (size, length), generator=torch.Generator().manual_seed(0))
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids)}


def by_turns(runs: Sequence[Callable[[], object]], clock: Callable[[], float] = time.perf_counter) -> list[float]:
    """Milliseconds of each, the median over rounds in which all take their turns, so that what slows one slows all."""
    times: list[list[float]] = [[] for _ in runs]
    start, done = clock(), 0
    while done == 0 or (done < _MOST_ROUNDS and clock() - start < _SECONDS_OF_A_TIMING_RUN):
        for run, own in zip(runs, times, strict=True):
            for number in range(_NUM_WARM_UPS + _NUM_TIMED):
                begun = clock()
                run()
                if number >= _NUM_WARM_UPS:
                    own.append(1000 * (clock() - begun))
        done += 1
    return [statistics.median(own) for own in times]


def runtime_cells(rows: Sequence[Runtime], shape: tuple[int, int]) -> list[list[str]]:
    """The table's head and its lines, as texts; a column that nothing was measured for is left out."""
    several = len({row.budget for row in rows}) > 1
    columns: list[tuple[str, Callable[[Runtime], str]]] = [("budget", lambda row: row.budget)] if several else []
    columns += [
        ("run by", lambda row: row.how),
        ("file", lambda row: row.file),
        ("MB", lambda row: f"{row.num_bytes / 1e6:.1f}"),
        ("cosine with torch", lambda row: _told(row.kept.cosine)),
        ("nearest sentence kept", lambda row: _told(row.kept.neighbours)),
        ("predictions as torch", lambda row: _told(row.kept.agreement)),
        ("correlation with torch", lambda row: _told(row.kept.correlation)),
        ("Spearman on pairs", lambda row: _told(row.spearman)),
        (f"ms 1x{shape[1]}", lambda row: f"{row.latency_one_ms:.2f}"),
        (f"ms {shape[0]}x{shape[1]}", lambda row: f"{row.latency_batch_ms:.1f}"),
    ]
    filled = [(head, cell) for head, cell in columns if any(cell(row) for row in rows)]
    return [[head for head, _ in filled], *([cell(row) for _, cell in filled] for row in rows)]


def _told(value: float | None) -> str:
    return "" if value is None else f"{value:.4f}"
