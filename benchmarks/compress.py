"""Half and a quarter of MiniLM-L6 by `hf_nasbert.compress` itself, beside what people choose by hand: the bars.

    python benchmarks/compress.py run half            each run to its end, or on from where it was killed
    python benchmarks/compress.py collect              writes down the stages that are done so far
    python benchmarks/compress.py show                 prints the tables of docs/appendix/compress.md and
                                                   docs/compress.md, of what is recorded
    python benchmarks/compress.py peers                what another package makes of the same, in its own environment
    python benchmarks/compress.py files                ONNX and int8 files, and a trimmed vocabulary

The base model, text (Wikipedia and film reviews, three to two) and the pairs of STS-B's test split come out of pinned
packages (data/data-requirements.txt). One thread; times are CPU-seconds of the process. Every stage of a run leaves
its record, as the command writes it, in benchmarks/records/compress.jsonl, with the name of the run; `show` reads what
is committed of it (compress.jsonl.gz) where that file is not there.

`peers` gives EasySmallEmbeddingModel the base model of the run `half-drawn`, the sentences of every step of that run's
recovery, and its size; the package is installed by pip where it is not there yet. What comes out is judged by the same
code, is held against what is committed of that run, and goes to benchmarks/records/compress-peers.jsonl; a child that
is recorded there is not made again.

`files` is a run of one seed with `--trim_vocabulary --int8`; then it measures the files of the searched child as that
run's last stage does, but by CPU time, which other work moves less than the clock, and those of the base model, with
int8 by every way of quantising. Its records are those of benchmarks/records/compress-files.jsonl.
"""

import argparse
import dataclasses
import importlib.metadata
import json
import os
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

import datasets
import torch

from hf_nasbert import records
from hf_nasbert.cards.markdown import table
from hf_nasbert.child_folders import save_child
from hf_nasbert.compression import CompressResult, compress
from hf_nasbert.compression.arguments import CompressArguments
from hf_nasbert.compression.materials import Materials
from hf_nasbert.compression.onnx_files import ONNX, OnnxFiles, Runtime, runtime_cells
from hf_nasbert.compression.proof import Judge, Row, read_pairs
from hf_nasbert.compression.recover import batch_of_step
from hf_nasbert.compression.sentences import num_tokens
from hf_nasbert.compression.text_source import TextSource
from hf_nasbert.data.packaged import packaged_model, packaged_text
from hf_nasbert.elastic.base_models import open_base_model
from hf_nasbert.elastic.distance import Distance
from hf_nasbert.elastic.encoders import encoder_of
from hf_nasbert.export.int8 import quantise
from hf_nasbert.modeling.families import native_form
from hf_nasbert.writing import write_text

ROOT = Path(__file__).parents[1]
RECORDS = ROOT / "benchmarks" / "records" / "compress.jsonl"
PEERS = ROOT / "benchmarks" / "records" / "compress-peers.jsonl"
FILES = ROOT / "benchmarks" / "records" / "compress-files.jsonl"
BASE, PAIRS = "packaged:all-MiniLM-L6-v2", "packaged:stsb"
RUNS: dict[str, dict[str, Any]] = {
    "half": {"max_parameters": "0.5x"},
    # More sentences and steps than by default, still within ten CPU-minutes.
    "quarter": {"max_parameters": "0.25x", "num_sentences": 12000, "recovery_steps": 2000},
    "half-latency": {"max_latency": "0.5x"},
    # On sentences as they were drawn, which was the command's way when these were run.
    "half-drawn": {"max_parameters": "0.5x", "varied_sentences": False},
    "quarter-drawn": {"max_parameters": "0.25x", "recovery_steps": 1200, "varied_sentences": False},
    "half-latency-drawn": {"max_latency": "0.5x", "varied_sentences": False},
    # Other sentences of the same text, to see how far quality depends on which ones were drawn.
    "half-text-1": {"max_parameters": "0.5x", "seeds": [0], "handmade": False, "text_seed": 1},
    "half-text-2": {"max_parameters": "0.5x", "seeds": [0], "handmade": False, "text_seed": 2},
}
RUNS |= {f"half-drawn-text-{seed}": RUNS[f"half-text-{seed}"] | {"varied_sentences": False} for seed in (1, 2)}
FILES_RUN = "half-files"
FILES_SETTINGS: dict[str, Any] = {
    **RUNS["half-drawn"],
    "seeds": [0],
    "handmade": False,
    "trim_vocabulary": True,
    "int8": True,
}
BASE_MODEL, TRIMMED = "base model", "half, trimmed vocabulary"
TIMING_RUN = "files"
"""The stage of a record of files that were timed in one run."""
WAYS = {
    f"int8, {7 if reduce_range else 8} bits, a scale for each {'channel' if per_channel else 'matrix'}": {
        "per_channel": per_channel, "reduce_range": reduce_range
    }
    for per_channel in (True, False) for reduce_range in (True, False)
}  # fmt: skip
"""Of quantising; the first is that of the command."""
MAKING = ("costs", "text", "base model", "variants", "lone replacements", "search")
"""Stages that make a child, beside its recovery; the others compare and prove it."""
PEER = "EasySmallEmbeddingModel==0.1.0"
PEER_NEEDS = ("sentence-transformers==5.2.0", "transformers==4.57.3")
"""Of the time when it was published: later releases of the first one have no modules under the names it imports."""
PEER_RUN = "half-drawn"
PEER_WAYS = (("layers", 2e-5), ("layers", 4e-4), ("compress", 2e-5))
"""Evenly spaced layers, at its learning rate and at ours; and its own choice of layers, width and vocabulary."""


def texts(seed: int = 0) -> datasets.Dataset:
    """Paragraphs of Wikipedia and reviews, about three to two; in another order for another seed than 0."""
    wiki, imdb = packaged_text("boolq-wikipedia"), packaged_text("imdb")
    mixed = datasets.concatenate_datasets([wiki, imdb.select(range(2 * len(wiki) // 3))])
    return mixed.shuffle(seed=seed) if seed else mixed


def run(name: str, settings: dict[str, Any], folder: Path, output: Path) -> CompressResult:
    """One run, or the rest of it."""
    torch.set_num_threads(1)
    settings = {"seeds": [0, 1, 2], **settings}
    text = texts(settings.pop("text_seed", 0))
    result = compress(BASE, text, output_dir=folder / name, pairs_file=PAIRS, **settings)
    print(result)
    collect([name], folder, output)
    return result


def collect(names: Iterable[str], folder: Path, output: Path) -> None:
    """Write down the stages that are done and have no record yet, without what every neuron is worth."""
    known = {(one["run"], one["stage"]) for one in records.read(output)} if output.exists() else set()
    for name in names:
        stages = folder / name / "stages.jsonl"
        for record in records.read(stages) if stages.exists() else ():
            if (name, record["stage"]) not in known:
                content = {key: value for key, value in record["content"].items() if key != "importance"}
                records.append(output, {"run": name, **record, "content": content})


def as_table(made: list[dict[str, Any]]) -> str:
    """What is recorded, as Markdown: every run, and every child of it that was recovered."""
    lines = [
        "| run | child | STS-B test by seed | mean, of the base model's | cosine | parameters of blocks | ms 1 x 128 "
        "· 32 x 128, of the base model's | CPU-s to choose · recover |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for name in dict.fromkeys(one["run"] for one in made):
        stages = {one["stage"]: one for one in made if one["run"] == name}
        if "proof" not in stages:
            continue
        base, *rows = stages["proof"]["content"]["rows"]
        whole = base["judged"][0]["spearman"]
        making = sum(one["cpu_seconds"] for stage, one in stages.items() if stage.startswith(MAKING))
        for row in rows:
            child, how = row["architecture"], "searched" if row["how"] == "searched" else row["how"]
            own = [one for stage, one in stages.items() if stage.startswith(f"recovery {child} seed")]
            found = [judged["spearman"] for judged in row["judged"]]
            mean, cosine = statistics.fmean(found), statistics.fmean(judged["cosine"] for judged in row["judged"])
            times = (row[key] / base[key] for key in ("latency_one_ms", "latency_batch_ms"))
            seconds = statistics.fmean(one["cpu_seconds"] for one in own)
            cells = (
                name, how, " ".join(f"{value:.4f}" for value in found), f"{mean:.4f}, {mean / whole:.1%}",
                f"{cosine:.3f}", f"{row['num_encoder_parameters'] / base['num_encoder_parameters']:.1%}",
                " · ".join(f"{time:.0%}" for time in times),
                f"{making:.0f} · {seconds:.0f}" if how == "searched" else f"{seconds:.0f}",
            )  # fmt: skip
            lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


SHORT = {
    "half": "half of the parameters", "half-latency": "half of the latency", "quarter": "a quarter of the parameters",
}  # fmt: skip


def short_table(made: list[dict[str, Any]]) -> str:
    """The mean rank correlation of every way to choose, as a share of the base model's."""
    lines = [
        "| run, mean of three seeds | searched | best layers | every other layer | one width throughout |",
        "|---|---|---|---|---|",
    ]
    for name, told in SHORT.items():
        (proof,) = (one for one in made if one["run"] == name and one["stage"] == "proof")
        base, *rows = proof["content"]["rows"]
        means = {row["how"]: statistics.fmean(one["spearman"] for one in row["judged"]) for row in rows}
        kept = {how.partition(" ")[0]: mean / base["judged"][0]["spearman"] for how, mean in means.items()}
        shares = [f"{kept[how]:.1%}" for how in ("searched", "layers", "every", "uniform")]
        lines.append(f"| {' | '.join([told, *shares])} |")
    return "\n".join(lines) + "\n"


def peer_environment(folder: Path) -> Path:
    """The Python of an environment that holds the peer; made where there is none, or one of other releases."""
    wanted = "\n".join((PEER, *PEER_NEEDS, f"torch=={importlib.metadata.version('torch').split('+')[0]}")) + "\n"
    python, mark = folder / "bin" / "python", folder / "installed.txt"
    if not mark.exists() or mark.read_text(encoding="utf-8") != wanted:
        subprocess.run([sys.executable, "-m", "venv", "--clear", folder], check=True)
        subprocess.run([python, "-m", "pip", "install", "--quiet", *wanted.split()], check=True)
        write_text(mark, wanted)
    return python


def make_peer(python: Path, asked: dict[str, Any]) -> dict[str, Any]:
    """What the peer makes, in its environment, of what `easy_small_embedding_model.py` takes."""
    folder = Path(asked["output_dir"])
    shutil.rmtree(folder, ignore_errors=True)
    write_text(folder / "asked.json", json.dumps(asked))
    script = Path(__file__).with_name("easy_small_embedding_model.py")
    subprocess.run([python, script, folder / "asked.json", folder / "made.json"], check=True)
    found: dict[str, Any] = json.loads((folder / "made.json").read_text(encoding="utf-8"))
    return found


class PeerBench:
    """What a peer is given, and what judges it: all of it that of the run `half-drawn`."""

    def __init__(self, work: Path) -> None:
        arguments = CompressArguments(base_model=BASE, output_dir="unused", pairs_file=PAIRS, **RUNS[PEER_RUN])
        self.arguments, self.shared = arguments, Materials(arguments, TextSource.of(texts()), work)

    def sentences(self, seed: int) -> tuple[list[str], int]:
        """The sentences of every step of a recovery, cut where that cuts them, and how many tokens they have."""
        batches = self.shared.text.train
        steps = range(self.arguments.recovery_steps)
        read = [batches[batch_of_step(len(batches), seed, step)] for step in steps]
        tokenizer = self.shared.base.tokenizer
        cut = [tokenizer.batch_decode(batch["input_ids"], skip_special_tokens=True) for batch in read]
        return [sentence for sentences in cut for sentence in sentences], num_tokens(read)

    def judge(self, folder: Path) -> dict[str, Any]:
        """Parameters of a model, its Spearman on the pairs, and the cosine of its vectors with the base model's."""
        shared, base = self.shared, self.shared.base
        made = open_base_model(str(folder))
        longest = base.full_child.config.max_position_embeddings
        distance = Distance.of(base.full_child, torch.zeros(base.full_child.config.hidden_size))  # measures nothing
        judge = Judge(
            (), (), distance, shared.modules, base.tokenizer, read_pairs(PAIRS),
            min(longest, shared.modules.max_seq_length or longest),
        )  # fmt: skip
        judged = judge.with_tokenizer(
            made.full_child, made.tokenizer, base.full_child, shared.judging, shared.max_length
        )
        blocks = encoder_of(made.full_child).encoder
        return {
            "num_encoder_parameters": sum(parameter.numel() for parameter in blocks.parameters()),
            "num_parameters": made.full_child.num_parameters(),
            "judged": {"spearman": judged.spearman, "cosine": judged.cosine},
        }


def peer_record(asked: dict[str, Any], made: dict[str, Any], judged: dict[str, Any], tokens: int) -> records.Record:
    """What is kept of one child of a peer: no path, no text."""
    way, rate, seed = (asked[name] for name in ("way", "learning_rate", "seed"))
    return {
        "run": "peers",
        "stage": peer_stage(way, rate, seed),
        "cpu_seconds": round(made["choosing_cpu_seconds"] + made["distilling_cpu_seconds"], 1),
        "peak_memory_mib": made["peak_memory_mib"],
        "content": {
            "package": PEER, "compared_with": PEER_RUN, "way": way, "learning_rate": rate, "seed": seed,
            "num_steps": len(asked["training"]) // asked["batch_size"], "num_tokens": tokens,
            **{name: made[name] for name in ("layers", "hidden_size", "choosing_cpu_seconds", "versions")}, **judged,
        },
        "versions": records.versions(),
    }  # fmt: skip


def peer_stage(way: str, rate: float, seed: int) -> str:
    """What a record of a peer is called."""
    return f"{way}, learning rate {rate:g}, seed {seed}"


def searched_row(made: Sequence[records.Record]) -> tuple[dict[str, Any], dict[str, Any]]:
    """The base model's row and that of the searched child, of the run that peers are held against."""
    proof = next((one for one in made if (one["run"], one["stage"]) == (PEER_RUN, "proof")), None)
    if proof is None:
        raise SystemExit(
            f"the run {PEER_RUN} is not recorded to its end: python benchmarks/compress.py run {PEER_RUN}"
        )
    base, *rows = proof["content"]["rows"]
    return base, next(row for row in rows if row["how"] == "searched")


def peers(folder: Path, output: Path, ours: Path, seeds: Sequence[int]) -> None:
    """Make, judge and record what is not recorded yet."""
    torch.set_num_threads(1)
    _, searched = searched_row(records.read(ours))
    there = {one["stage"] for one in records.read(output)} if output.exists() else set()
    python = peer_environment(folder / "environment")
    bench = PeerBench(folder / "work")
    batches = bench.shared.text.train
    corpus = [
        sentence
        for batch in batches
        for sentence in bench.shared.base.tokenizer.batch_decode(batch["input_ids"], skip_special_tokens=True)
    ]
    for way, rate in PEER_WAYS:
        for seed in seeds:
            stage = peer_stage(way, rate, seed)
            if stage in there:
                continue
            training, tokens = bench.sentences(seed)
            asked = {
                "base_model": str(packaged_model(BASE.partition(":")[2])), "output_dir": str(folder / stage),
                "way": way, "num_kept_layers": 3, "max_parameters": searched["num_parameters"], "corpus": corpus,
                "training": training, "batch_size": bench.arguments.batch_size, "learning_rate": rate, "seed": seed,
            }  # fmt: skip
            start = time.monotonic()
            made = make_peer(python, asked)
            record = peer_record(asked, made, bench.judge(Path(made["folder"])), tokens)
            records.append(output, record | {"seconds": round(time.monotonic() - start, 1)})
            print(peers_table(records.read(ours), records.read(output)), flush=True)


def peers_table(ours: Sequence[records.Record], made: Sequence[records.Record]) -> str:
    """What peers made beside the searched child, as Markdown, and by how much that is ahead of each."""
    base, searched = searched_row(ours)
    whole = base["judged"][0]["spearman"]
    mine = statistics.fmean(one["spearman"] for one in searched["judged"])
    lines = [
        "| made by | STS-B test by seed | mean, of the base model's | cosine | parameters of blocks | all parameters "
        "| CPU-s | `compress` is ahead by |",
        "|---|---|---|---|---|---|---|---|",
    ]

    def line(name: str, row: dict[str, Any], judged: Sequence[dict[str, Any]], seconds: str, ahead: str) -> str:
        found = [one["spearman"] for one in judged]
        mean = statistics.fmean(found)
        cells = (
            name, " ".join(f"{value:.4f}" for value in found), f"{mean:.4f}, {mean / whole:.1%}",
            f"{statistics.fmean(one['cosine'] for one in judged):.3f}",
            f"{row['num_encoder_parameters'] / base['num_encoder_parameters']:.1%}",
            f"{row['num_parameters'] / 1e6:.1f} M", seconds, ahead,
        )  # fmt: skip
        return f"| {' | '.join(cells)} |"

    own = [one for one in ours if one["run"] == PEER_RUN]
    making = sum(one["cpu_seconds"] for one in own if one["stage"].startswith(MAKING))
    recovery = [
        one["cpu_seconds"] for one in own if one["stage"].startswith(f"recovery {searched['architecture']} seed")
    ]
    seconds = f"{making + statistics.fmean(recovery):.0f}"
    lines.append(line("`compress`, searched", searched, searched["judged"], seconds, ""))
    groups: dict[tuple[str, float], list[records.Record]] = {}
    for one in made:
        groups.setdefault((one["content"]["way"], one["content"]["learning_rate"]), []).append(one)
    for (way, rate), group in groups.items():
        content = group[0]["content"]
        kept = " ".join(map(str, content["layers"]))
        name = (
            f"{PEER.partition('=')[0]}: {'its `compress`, ' if way == 'compress' else ''}layers {kept}, rate {rate:g}"
        )
        judged = [one["content"]["judged"] for one in group]
        ahead = mine - statistics.fmean(one["spearman"] for one in judged)
        seconds = f"{statistics.fmean(one['cpu_seconds'] for one in group):.0f}"
        lines.append(line(name, content, judged, seconds, f"{ahead:+.4f}"))
    return "\n".join(lines) + "\n"


def files(folder: Path, output: Path) -> None:
    """A run that writes files, then what all files of its child and of the base model keep and cost; or the rest."""
    child = run(FILES_RUN, FILES_SETTINGS, folder, output).best
    arguments = CompressArguments(base_model=BASE, output_dir="unused", pairs_file=PAIRS, **FILES_SETTINGS)
    shared = Materials(arguments, TextSource.of(texts()), folder / "files")
    done = {one["run"] for one in timed(records.read(output))}
    if FILES_RUN not in done:
        measured = OnnxFiles(shared, child.folder, child.model)
        time_files(FILES_RUN, measured, measured.there, output)
    if BASE_MODEL not in done:
        model, place = native_form(shared.base.full_child)[0], folder / "files" / "base model"
        shutil.rmtree(place, ignore_errors=True)
        save_child(model, shared.base.tokenizer, place)
        measured = OnnxFiles(shared, place, lambda: model)
        measured.write()
        found = dict(measured.there)
        for number, (name, settings) in enumerate(WAYS.items()):
            found[name] = f"onnx/way-{number}.onnx"
            quantise(place / found[ONNX], place / found[name], **settings)
        time_files(BASE_MODEL, measured, found, output)


def time_files(name: str, measured: OnnxFiles, found: dict[str, str], output: Path) -> None:
    """Measure the files of a model in one timing run, and write it down."""
    cpu = time.process_time()
    rows = [dataclasses.asdict(row) for row in measured.measure(name, found, time.process_time)]
    content = {
        "rows": rows, "load": os.getloadavg()[0], "has_vnni": torch.cpu._is_vnni_supported(),
        "onnxruntime": importlib.metadata.version("onnxruntime"),
    }  # fmt: skip
    seconds = round(time.process_time() - cpu, 1)
    records.append(
        output,
        {"run": name, "stage": TIMING_RUN, "cpu_seconds": seconds, "content": content, "versions": records.versions()},
    )


def timed(made: Sequence[records.Record]) -> list[records.Record]:
    """The runs that timed files: of the base model, then of the searched child."""
    return sorted((one for one in made if one["stage"] == TIMING_RUN), key=lambda one: one["run"] != BASE_MODEL)


def files_table(made: Sequence[records.Record]) -> str:
    """Torch, ONNX and int8 of the base model and of the searched child, as Markdown."""
    names = {BASE_MODEL: BASE_MODEL, FILES_RUN: TRIMMED}
    rows = [
        dataclasses.replace(Runtime.from_dict(row), budget=names[row["budget"]])
        for one in timed(made)
        for row in one["content"]["rows"]
    ]
    batch, tokens = CompressArguments(base_model=BASE, output_dir="unused", **FILES_SETTINGS).shape
    head, *lines = runtime_cells(rows, (batch, tokens))
    file = head.index("file")
    head = [one.replace("ms ", "CPU-ms ") for one in head]
    return table(["model", *head[1:file], *head[file + 1 :]], [[*line[:file], *line[file + 1 :]] for line in lines])


def trimmed_table(made: Sequence[records.Record]) -> str:
    """The base model, and the searched child with and without a trimmed vocabulary, as Markdown."""
    proof = next(one for one in made if one["stage"] == "proof")
    rows, lines = [Row.from_dict(row) for row in proof["content"]["rows"]], []
    whole = next(row.trimmed.num_before for row in rows if row.trimmed)
    for row in rows:
        trimmed = row.trimmed
        name = BASE_MODEL if row.budget is None else "half" if trimmed is None else TRIMMED
        assert row.file_bytes is not None
        lines.append(
            [
                name, f"{trimmed.num_pieces if trimmed else whole:,}", f"{row.num_parameters / 1e6:.1f} M",
                f"{row.file_bytes / 1e6:.1f}", f"{trimmed.cut_otherwise:.1%}" if trimmed else "",
                f"{row.mean('cosine'):.4f}", f"{row.mean('spearman'):.4f}",
            ]
        )  # fmt: skip
    head = ["model", "pieces", "all parameters", "MB of weights", "sentences cut otherwise", "cosine", "STS-B test"]
    return table(head, lines)


def files_told(made: Sequence[records.Record]) -> str:
    """What the files were timed on, as a sentence."""
    timings = [one["content"] for one in timed(made)]
    return (
        f"onnxruntime {timings[0]['onnxruntime']}, CPU-milliseconds of one thread, on a CPU "
        f"with{'' if timings[0]['has_vnni'] else 'out'} VNNI that other work shared\n(load averages "
        f"{' and '.join(format(one['load'], '.1f') for one in timings)}).\n"
    )


def committed(output: Path) -> Path:
    """What is committed of a file of records."""
    return output.with_suffix(".jsonl.gz")


def recorded(output: Path) -> Path:
    """A file of records, or what is committed of it where it is not there."""
    return output if output.exists() else committed(output)


def show(output: Path, of_peers: Path, of_files: Path) -> None:
    """Print every run: its children, their worth, and the CPU-seconds that they took; then peers, and files."""
    print("\n".join([as_table(records.read(output)), short_table(records.read(output))]), end="")
    if of_peers.exists():
        print("\n" + peers_table(records.read(committed(RECORDS)), records.read(of_peers)), end="")
    if of_files.exists():
        made = records.read(of_files)
        print("\n" + "\n\n".join([trimmed_table(made), files_table(made), files_told(made)]), end="")


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=ROOT / "runs" / "compress", help="Of the runs.")
    parser.add_argument("--records", type=Path, default=RECORDS)
    parser.add_argument("--peers_records", type=Path, default=PEERS)
    parser.add_argument("--files_records", type=Path, default=FILES)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("run").add_argument("names", nargs="+", choices=RUNS)
    commands.add_parser("collect")
    commands.add_parser("show")
    commands.add_parser("files")
    commands.add_parser("peers").add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    arguments = parser.parse_args()
    if arguments.command == "run":
        for name in arguments.names:
            run(name, RUNS[name], arguments.folder, arguments.records)
    elif arguments.command == "collect":
        collect(RUNS, arguments.folder, arguments.records)
    elif arguments.command == "files":
        files(arguments.folder, arguments.files_records)
    elif arguments.command == "peers":
        folder = arguments.folder / "peers"
        peers(folder, arguments.peers_records, committed(arguments.records), arguments.seeds)
    else:
        show(*map(recorded, (arguments.records, arguments.peers_records, arguments.files_records)))


if __name__ == "__main__":
    main()
