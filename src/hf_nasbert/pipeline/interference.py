"""Super-nets' folders and text in, interference out: a record per super-net, and tables and figures from records."""

import hashlib
import json
import logging
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from accelerate import PartialState
from tqdm import tqdm

from hf_nasbert import records
from hf_nasbert.cards import fill_page, marked_tables
from hf_nasbert.costs import latency_sizes
from hf_nasbert.data import DataArguments, load_tokenizer
from hf_nasbert.data.tokenization import tokenizer_digest
from hf_nasbert.extraction import load_supernet
from hf_nasbert.interference import as_markdown, measure_blocks, measure_pairs, measurements, refuse_duplicates
from hf_nasbert.lazy import check_extra
from hf_nasbert.modeling import SupernetConfig, SupernetForMaskedLM
from hf_nasbert.pipeline.arguments import InterferenceArguments, InterferenceReportArguments
from hf_nasbert.pipeline.inputs import load_dev_batches, supernet_digest
from hf_nasbert.pipeline.text_settings import check_against_training, find_tokenizer
from hf_nasbert.plots import plot_gradient_similarity, plot_similarity_by_block, save_figure
from hf_nasbert.processes import be_alone
from hf_nasbert.records import Record
from hf_nasbert.training import SupernetTrainingArguments, read_log
from hf_nasbert.training.checkpoints import MANIFEST, read_state, save_model, verify_checkpoint
from hf_nasbert.training.journal import LOG
from hf_nasbert.training.pretrain import initial_supernet
from hf_nasbert.writing import check_folder, check_unless_there, check_writable, scratch_folder

logger = logging.getLogger(__name__)

_DIGITS = 6  # of a cosine in fp32 no more can be trusted from one machine to the next


class _Job(NamedTuple):
    """A super-net to measure: what tells it from others, what is known of it, and how to get it."""

    supernet: str
    about: dict[str, Any]
    folder: str
    make: Callable[[], SupernetForMaskedLM]


def measure_interference(arguments: InterferenceArguments, data: DataArguments) -> list[Record]:
    """Measure super-nets, one record each in the output file; those that it holds already are not measured again.

    Everything is checked before anything is measured. The figures of all records are drawn if they are asked for.

    Returns:
        The records of the whole file, in its order.

    Raises:
        FileNotFoundError: If a super-net or a file of the text is missing.
        ValueError: If a folder holds no super-net or a damaged one; if super-nets differ in space or tokenizer; if
            they and the text do not fit each other; if the file holds measurements of other settings, or a record
            that is none.
        WriteError: If the output or a figure cannot be written.
    """
    be_alone("measuring interference")
    output = Path(arguments.output)
    check_unless_there(output)
    if arguments.figures is not None:
        check_extra("a figure", "plots", "matplotlib")
        check_folder(arguments.figures)
    found = records.read(output) if output.exists() else []
    _check_measurements(found, output)
    jobs, configs = _plan(arguments)
    measured = {record["supernet"]: record for record in found}
    for job in jobs:
        method = job.about["method"]
        if job.supernet in measured and measured[job.supernet]["method"] != method:
            raise ValueError(
                f"{output} holds {job.folder} as {measured[job.supernet]['method']}, now it would be {method}: give "
                "the same label, or measure into another file"
            )
    refuse_duplicates(
        [*found, *({"supernet": job.supernet, **job.about} for job in jobs if job.supernet not in measured)]
    )
    first = arguments.supernets[0]
    _check_tokenizers(arguments.supernets, data)
    for folder in arguments.supernets[1:]:
        check_against_training(folder, data)
    batches, about_text = load_dev_batches(
        configs[0], first, data, num_batches=arguments.num_dev_batches, batch_size=arguments.dev_batch_size
    )
    settings = {
        **about_text,
        "search_space": configs[0].space.to_dict(),
        "children_seed": arguments.seed,
        **{name: getattr(arguments, name) for name in ("num_children", "max_distance", "num_settings")},
    }
    for record in found:
        different = [name for name, value in settings.items() if record.get(name) != value]
        if different:
            raise ValueError(f"{output} holds measurements of another {different[0]}: two kinds do not compare")
    missing = [job for job in jobs if job.supernet not in measured]
    if missing and output.suffix in (".gz", ".xz"):
        raise ValueError(f"{output} is compressed, and {len(missing)} super-nets are to be added: uncompress it")
    if missing:
        check_writable(output, is_appended=True)
    for job in tqdm(missing, desc="super-nets", unit="supernet", disable=not missing):
        supernet = job.make().float().to(PartialState().device)
        pairs = measure_pairs(
            supernet,
            batches,
            num_children=arguments.num_children,
            seed=arguments.seed,
            max_distance=arguments.max_distance,
            progress=True,
        )
        blocks = measure_blocks(
            supernet, batches, num_settings=arguments.num_settings, seed=arguments.seed, progress=True
        )
        record = {
            "supernet": job.supernet,
            **job.about,
            **settings,
            "versions": records.versions(),
            "pairs": _columns(pairs),
            "blocks": _columns(blocks),
        }
        found = records.update(output, partial(_unless_there, record, output))
    if arguments.figures is not None:
        draw_interference(found, arguments.figures)
    return found


def _unless_there(record: Record, output: Path, written: list[Record]) -> list[Record]:
    """A measured super-net, if no other process has written it since."""
    _check_measurements([*written, record], output)
    return [] if any(other["supernet"] == record["supernet"] for other in written) else [record]


def report_interference(arguments: InterferenceReportArguments) -> str:
    """Make tables and figures from records, without any super-net.

    Returns:
        The tables as text.

    Raises:
        FileNotFoundError: If records or page are missing.
        ValueError: If a record is no measurement, or the page marks a place for a table that there is not.
        WriteError: If page or figures cannot be written.
    """
    if arguments.figures is not None:
        check_extra("a figure", "plots", "matplotlib")
    found = records.read(arguments.measured)
    _check_measurements(found, arguments.measured)
    if arguments.page is not None:
        page = Path(arguments.page)
        fill_page(page, as_markdown(found, marked_tables(page.read_text(encoding="utf-8"))))
    if arguments.figures is not None:
        draw_interference(found, arguments.figures)
    return as_text(found)


def _check_measurements(found: Sequence[Record], path: str | Path) -> None:
    """Refuse a file of anything else than measurements, by name."""
    try:
        measurements(found)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None


def draw_interference(found: Sequence[Record], folder: str | Path) -> list[Path]:
    """Draw all figures of measurements, as PNG and SVG; returns the files."""
    figures = {
        "interference-distance": plot_gradient_similarity(found, against="distance"),
        "interference-inputs": plot_gradient_similarity(found, against="input_similarity"),
        "interference-outputs": plot_gradient_similarity(found, against="output_similarity"),
        "interference-blocks": plot_similarity_by_block(found),
    }
    return [file for name, figure in figures.items() for file in save_figure(figure, Path(folder) / name)]


def as_text(found: Sequence[Record]) -> str:
    """All tables of measurements, each under its name."""
    return "\n\n".join(f"{name}\n{table}" for name, table in as_markdown(found).items())


def describe_run(folder: str | Path) -> dict[str, Any]:
    """What a super-net's own run says of it: `method`, `seed`, `step` and `max_steps`; None where it says nothing.

    Raises:
        DamagedCheckpointError: If it is a checkpoint, and not what was written.
        ValueError: If the run's log is damaged.
    """
    step, said = _step_and_arguments(Path(folder))
    return {"method": said.get("method"), "seed": said.get("seed"), "step": step, "max_steps": said.get("max_steps")}


def settings_digest(folder: str | Path) -> str | None:
    """A fingerprint of the settings that a super-net was trained by, the same at every step; None where it says none.

    Raises:
        DamagedCheckpointError, ValueError: See `describe_run`.
    """
    _, said = _step_and_arguments(Path(folder))
    settings = {name: value for name, value in said.items() if name not in SupernetTrainingArguments.incidental}
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:12] if said else None


def _step_and_arguments(folder: Path) -> tuple[int | None, dict[str, Any]]:
    step, said = None, {}
    if (folder / MANIFEST).is_file():
        verify_checkpoint(folder)
        state = read_state(folder)
        step, said = state["step"], state["arguments"]
    elif (folder / LOG).is_file():
        log = read_log(folder)
        said = next((record["arguments"] for record in reversed(log) if "arguments" in record), {})
        # A run that goes on after its end has not written its super-net anew yet.
        step = log[-1]["step"] if log and log[-1]["event"] == "finish" else None
    return step, said


def _plan(arguments: InterferenceArguments) -> tuple[list[_Job], list[SupernetConfig]]:
    """All that is to be measured, each super-net once, and the configs of the folders."""
    jobs: dict[str, _Job] = {}
    configs = []
    for folder in arguments.supernets:
        config = load_supernet(folder).config  # all of it: what is damaged is refused now
        configs.append(config)
        if config.space != configs[0].space:
            raise ValueError(f"{folder} has another search space than {arguments.supernets[0]}: measure them apart")
        wanted = latency_sizes(configs[0])
        for name, own in latency_sizes(config).items():
            if own != wanted[name]:
                raise ValueError(
                    f"{folder} has {name}={own}, but {arguments.supernets[0]} {wanted[name]}: measure them apart"
                )
        about = {**describe_run(folder), "settings": settings_digest(folder)}
        if arguments.label is not None:
            about["method"] = arguments.label
        job = _Job(supernet_digest(folder), about, folder, partial(load_supernet, folder))
        if job.supernet in jobs:
            logger.warning("%s is the same super-net as %s: measured once", folder, jobs[job.supernet].folder)
        jobs.setdefault(job.supernet, job)
        if arguments.untrained:
            seed = about["seed"]
            if seed is None:
                raise ValueError(f"{folder} does not say by which seed its training began: leave out untrained")
            start = _Job(
                _digest_of_start(config, seed),
                {**about, "method": None, "step": 0},
                folder,
                partial(initial_supernet, config, seed),
            )
            jobs.setdefault(start.supernet, start)
    return list(jobs.values()), configs


def _digest_of_start(config: SupernetConfig, seed: int) -> str:
    """The fingerprint that an untrained super-net's folder would have."""
    with scratch_folder() as folder:
        save_model(initial_supernet(config, seed), folder)
        return supernet_digest(folder)


def _check_tokenizers(folders: Sequence[str], data: DataArguments) -> None:
    """Refuse super-nets of different tokenizers, or of another one than `data` names."""
    named = {folder: place for folder in folders if (place := find_tokenizer(folder)) is not None}
    owners: dict[str, str] = {"tokenizer_name": data.tokenizer_name} if data.tokenizer_name else {}
    owners |= {folder: str(place) for folder, place in named.items()}
    digests = {
        owner: tokenizer_digest(load_tokenizer(replace(data, tokenizer_name=place))) for owner, place in owners.items()
    }
    for owner, digest in digests.items():
        first = next(iter(digests))
        if digest != digests[first]:
            raise ValueError(f"{owner} has another tokenizer than {first}: gradients on other tokens do not compare")


def _columns(rows: Sequence[Record]) -> dict[str, list[Any]]:
    def plain(value: Any) -> Any:
        return round(value, _DIGITS) if isinstance(value, float) else value

    return {name: [plain(row[name]) for row in rows] for name in rows[0]}
