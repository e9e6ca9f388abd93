"""A smaller model as ONNX files, in single precision and in int8: what they keep of its answers, and how fast they are.

The files lie where sentence-transformers and optimum look for them: `onnx/model.onnx` in the model's folder, and the
int8 version beside it under the name that sentence-transformers gives to one for CPUs with AVX2.
"""

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel

from hf_nasbert import metrics
from hf_nasbert.compression.encoders import running
from hf_nasbert.compression.sentences import Batch
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
_SECONDS_OF_A_SITTING = 20.0
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

    def check(self, what: str) -> None:
        """Refuse what keeps too little.

        Raises:
            ValueError: Naming what was measured.
        """
        measured = {
            "mean cosine of its sentence vectors with those": (self.cosine, LEAST_COSINE),
            "share of its predictions equal to those": (self.agreement, LEAST_AGREEMENT),
            "rank correlation of its predictions with those": (self.correlation, LEAST_AGREEMENT),
        }
        for name, (value, least) in measured.items():
            if value is not None and not value >= least:  # not "less": NaN must fail
                raise ValueError(
                    f"{what} is too far from the model: the {name} in single precision is {value:.4f} on text that "
                    f"chose nothing, and {least} is the least; no such file is written, and all else stays as it is "
                    "(the same command without int8 ends)"
                )


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
        config: Of the model: whether its labels are independent.
    """

    def __init__(self, batches: Sequence[Batch], modules: SentenceModules, config: Any) -> None:
        self._batches, self._modules = batches, modules
        self._is_multi_label = getattr(config, "problem_type", None) == "multi_label_classification"

    def __call__(self, run: Run) -> torch.Tensor:
        """Vectors (N, W), or one number for each prediction (N,): of class int64, but where numbers are predicted."""
        return torch.cat([self._of(run(batch), batch["attention_mask"]) for batch in self._batches])

    def vectors(self, run: Run, batch: Batch) -> torch.Tensor:
        """Sentence vectors of a batch."""
        return self._modules.pool(run(batch)["last_hidden_state"], batch["attention_mask"])

    def _of(self, outputs: Mapping[str, torch.Tensor], attention_mask: torch.Tensor) -> torch.Tensor:
        if "last_hidden_state" in outputs:
            return self._modules.pool(outputs["last_hidden_state"], attention_mask)
        real = attention_mask.bool()
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


def torch_run(model: PreTrainedModel) -> Run:
    """Runs a model by torch."""

    def run(batch: Batch) -> Mapping[str, torch.Tensor]:
        with running(model):
            return dict(model(**dict(zip(INPUTS, tensors_of(batch), strict=True)), return_dict=True))

    return run


def onnx_run(file: Path) -> Run:
    """Runs a file by onnxruntime on the CPU, with as many threads as torch has."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = torch.get_num_threads(), 3
    session = onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]

    def run(batch: Batch) -> Mapping[str, torch.Tensor]:
        feeds = {name: tensor.numpy() for name, tensor in zip(INPUTS, tensors_of(batch), strict=True)}
        return dict(zip(names, map(torch.from_numpy, session.run(names, feeds)), strict=True))

    return run


def write_onnx(model: PreTrainedModel, batches: Sequence[Batch], staging: Path) -> None:
    """Write a model's graph into a folder that the caller then puts into its place.

    Args:
        model: The smaller model.
        batches: Real text: its outputs on some of it must be the model's, as those on random tokens.
        staging: The folder.

    Raises:
        ValueError: If the outputs differ.
    """
    (staging / ONNX_FILE).parent.mkdir()
    write_graph(model, staging / ONNX_FILE, batches=batches[:_NUM_PROVEN])


def write_int8(file: Path, answers: Answers, expected: torch.Tensor, staging: Path) -> None:
    """Write the int8 version of a graph into a folder that the caller then puts into its place.

    Args:
        file: The graph in single precision.
        answers: Asks on text that chose nothing.
        expected: What the model in single precision answers.
        staging: The folder.

    Raises:
        ValueError: If it keeps too little of the answers.
    """
    (staging / INT8_FILE).parent.mkdir()
    quantise(file, staging / INT8_FILE)
    kept_of(expected, answers(onnx_run(staging / INT8_FILE))).check("int8")


def measure_runtimes(
    model: PreTrainedModel,
    folder: Path,
    files: Mapping[str, str],
    answers: Answers,
    *,
    budget: str,
    shape: tuple[int, int],
    spearman_of: Callable[[Callable[[Batch], torch.Tensor]], float] | None,
) -> list[Runtime]:
    """Torch and the files beside it: what each keeps of the model's answers, and its time, all by turns.

    Args:
        model: The smaller model, on the CPU.
        folder: Its folder.
        files: The files to run, in the folder, by the name of what runs them; the first is torch's.
        answers: Asks on text that chose nothing.
        budget: The budget that the model is for.
        shape: Sequences and tokens of the batch that is timed, beside one sequence.
        spearman_of: Correlates cosines of the vectors that something makes with the scores of pairs; None without.
    """
    runs = {how: torch_run(model) if how == TORCH else onnx_run(folder / file) for how, file in files.items()}
    expected = answers(runs[TORCH])
    is_encoder = expected.dim() == 2
    kept = {how: kept_of(expected, answers(run)) for how, run in runs.items()}
    spearman = {
        how: spearman_of(partial(answers.vectors, run)) if spearman_of is not None and is_encoder else None
        for how, run in runs.items()
    }
    one, many = (
        by_turns([partial(run, batch) for run in runs.values()])
        for batch in (_full_batch(model.config.vocab_size, size, shape[1]) for size in (1, shape[0]))
    )
    return [
        Runtime(budget, how, file, (folder / file).stat().st_size, kept[how], spearman[how], one[number], many[number])
        for number, (how, file) in enumerate(files.items())
    ]


def _full_batch(vocabulary: int, size: int, length: int) -> Batch:
    ids = torch.randint(vocabulary, (size, length), generator=torch.Generator().manual_seed(0))
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids)}


def by_turns(runs: Sequence[Callable[[], object]]) -> list[float]:
    """Milliseconds of each, the median over rounds in which all take their turns, so that what slows one slows all."""
    times: list[list[float]] = [[] for _ in runs]
    start, done = time.perf_counter(), 0
    while done == 0 or (done < _MOST_ROUNDS and time.perf_counter() - start < _SECONDS_OF_A_SITTING):
        for run, own in zip(runs, times, strict=True):
            for number in range(_NUM_WARM_UPS + _NUM_TIMED):
                begun = time.perf_counter()
                run()
                if number >= _NUM_WARM_UPS:
                    own.append(1000 * (time.perf_counter() - begun))
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
