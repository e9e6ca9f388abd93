"""What each stage of `hf-nasbert compress` costs for a base-size encoder, and what `plan-compress` estimates of it.

    python benchmarks/compress_base_size.py run      all stages once; a later call goes on where one stopped
    python benchmarks/compress_base_size.py plan     the forecast, by a short measurement
    python benchmarks/compress_base_size.py show     prints the forecast beside the run, as docs/appendix/compress.md

The encoder has 12 layers of 768, 12 heads, and 30,522 pieces: random weights serve, with MiniLM's tokenizer. Text is
Wikipedia's, out of a pinned package. One thread; figures are CPU-seconds of the process and the most memory taken
in a stage. What grows with steps and sentences is scaled down, which the record says: peaks do not depend on it.
Stages that are finished are recorded also where a later one stops. Random weights may learn nothing in so few steps:
where the check on that stops the super-net or a recovery, `--gates off` goes on without it, and the record says so.
"""

import argparse
import importlib
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

import torch
from transformers import BertConfig, BertModel

import hf_nasbert
from hf_nasbert import records
from hf_nasbert.compression import plan_compression
from hf_nasbert.compression.recover import Recovery, SupernetRecovery
from hf_nasbert.data import packaged_model
from hf_nasbert.data.foreign_tokenizers import open_tokenizer
from hf_nasbert.data.packaged import packaged_text
from hf_nasbert.writing import write_text

ROOT = Path(__file__).parents[1]
RECORD = ROOT / "benchmarks" / "records" / "compress-base-size.json"
SETTINGS = {
    "max_parameters": "0.5x", "scorer": "supernet", "max_replace_one_loss": 10.0, "num_rescored": 4,
    "supernet_steps": 4, "recovery_steps": 16, "learning_rate": 1e-6, "batch_size": 8, "num_sentences": 64,
    "max_seq_length": 32, "latency_shape": "1x32", "bf16": "no",
}  # fmt: skip
SCALED = {
    "materials": {"_NUM_CHOOSING": 8, "_NUM_JUDGING": 8, "_CALIBRATION_TOKENS": 1000},
    "handmade": {"_BEAM": 1},
    "proof": {"_SECONDS_OF_A_TIMING_RUN": 3.0},
}
NEAR = 0.3
"""How far a forecast may be from the run, as a share of it."""
LAST = "folder"


def save_base_model(folder: Path) -> Path:
    """A base-size BERT of random weights with a real tokenizer."""
    if not (folder / "config.json").exists():
        torch.manual_seed(0)
        BertModel(BertConfig(vocab_size=30522)).save_pretrained(folder)
        open_tokenizer(str(packaged_model("all-MiniLM-L6-v2"))).save_pretrained(folder)
    return folder


def scale_down() -> None:
    """Take fewer sentences, and shorter timing runs."""
    for module, values in SCALED.items():
        found = importlib.import_module(f"hf_nasbert.compression.{module}")
        for name, value in values.items():
            if not hasattr(found, name):
                raise SystemExit(f"{found.__name__} has no {name} any more: SCALED names what scales nothing down")
            setattr(found, name, value)


def open_gates() -> None:
    """Go on where a super-net or a recovery learned nothing."""
    materials: Any = importlib.import_module("hf_nasbert.compression.materials")
    distil = materials.distil_supernet

    def distil_anyway(*given: Any, **named: Any) -> SupernetRecovery:
        try:
            found: SupernetRecovery = distil(*given, **named)
        except ValueError as error:
            if "training made the super-net's children worse" not in str(error):
                raise
            print(error)
            return SupernetRecovery([], 0, 0.0, 0.0)
        return found

    materials.distil_supernet = distil_anyway
    Recovery.has_fallen = property(lambda recovery: True)  # type: ignore[assignment]


def write(part: str, found: Any, **also: Any) -> None:
    """Put a part into the record; what was recorded with other settings goes."""
    record = json.loads(RECORD.read_text(encoding="utf-8")) if RECORD.exists() else {}
    asked = {"settings": SETTINGS, "scaled": SCALED}
    if any(record.get(name) != value for name, value in asked.items()):
        record = asked
    record |= {"versions": records.versions(), part: found, **also}
    write_text(RECORD, json.dumps(record, indent=1) + "\n")


def write_stages(folder: Path, gates: str) -> None:
    """Record the stages that are finished."""
    names = ("stage", "seconds", "cpu_seconds", "peak_memory_mib")
    file = folder / "stages.jsonl"
    made = [{name: stage[name] for name in names} for stage in records.read(file)] if file.exists() else []
    write("stages", made, gates=gates)


def by_stage(stages: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, float]]:
    """CPU-seconds and most memory by stage; all recoveries are one, of so many children."""
    found: dict[str, dict[str, float]] = {}
    for stage in stages:
        name, _, number = stage["stage"].partition(" (of ")
        name = "recovery" if name.startswith("recovery") else name
        own = found.setdefault(name, {"cpu_seconds": 0.0, "peak_memory_mib": 0, "number": 0})
        own["cpu_seconds"] += stage["cpu_seconds"]
        own["peak_memory_mib"] = max(own["peak_memory_mib"], stage["peak_memory_mib"])
        own["number"] += int(number[:-1]) if number else 1
    return found


def as_table(record: Mapping[str, Any]) -> str:
    """The forecast beside the run, stage by stage, as Markdown; stages of which either is missing are left out."""
    foretold, made = by_stage(record["plan"]["stages"]), by_stage(record["stages"])
    names = [name for name in made if name in foretold]
    for found in (foretold, made):
        own = [found[name] for name in names]
        peak, seconds = max(one["peak_memory_mib"] for one in own), sum(one["cpu_seconds"] for one in own)
        found["in all"] = {"cpu_seconds": seconds, "peak_memory_mib": peak, "number": 1}
    lines = [
        "| stage | CPU-minutes | estimated | ratio | within 30 % | MiB at most | estimated | ratio | within 30 % |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for name in (*names, "in all"):
        plan, run = foretold[name], made[name]
        cells = [name if run["number"] == 1 else f"{name} (of {run['number']:.0f}, estimated {plan['number']:.0f})"]
        for key, unit, digits in (("cpu_seconds", 60, 2), ("peak_memory_mib", 1, 0)):
            told = [f"{one[key] / unit:,.{digits}f}" for one in (run, plan)]
            # Of next to nothing, as records round it, a share says nothing.
            ratio = round(plan[key] / run[key], 2) if run[key] >= 1 else None
            near = "" if ratio is None else "yes" if 1 - NEAR <= ratio <= 1 + NEAR else "no"
            cells += [*told, "" if ratio is None else f"{ratio:.2f}", near]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def told(record: Mapping[str, Any]) -> str:
    """What stands under the table: how far the run came, and whether its checks were on."""
    stages = [stage["stage"] for stage in record["stages"]]
    end = "all stages" if LAST in stages else f"stages up to `{stages[-1]}`"
    # Records of before gates could be told had them off.
    gates = {"on": "with all checks on", "off": "with the checks that super-net and recovery gain switched off"}
    return f"{end[0].upper()}{end[1:]}, {gates[record.get('gates', 'off')]}.\n"


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("command", choices=("run", "plan", "show"))
    parser.add_argument("--folder", type=Path, default=ROOT / "runs" / "compress-base-size")
    parser.add_argument("--gates", choices=("on", "off"), default="on", help="Of the super-net and of recovery.")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    if arguments.command != "show":
        scale_down()
        base = save_base_model(arguments.folder / "base")
        text = packaged_text("boolq-wikipedia").select(range(400))
        if arguments.command == "plan":
            write("plan", plan_compression(base, text, **SETTINGS).to_dict())
        else:
            if arguments.gates == "off":
                open_gates()
            try:
                hf_nasbert.compress(base, text, output_dir=arguments.folder / "small", **SETTINGS)
            finally:
                write_stages(arguments.folder / "small", arguments.gates)
    record = json.loads(RECORD.read_text(encoding="utf-8"))
    if "plan" in record and "stages" in record:
        print(as_table(record))
    print(told(record) if "stages" in record else json.dumps(record, indent=1), end="")


if __name__ == "__main__":
    main()
