"""Searched small, built large: does the order of children survive a change of width?

    OMP_NUM_THREADS=1 python benchmarks/scaled_order.py --width 32 --num_children 32

Children of the table `imdb` (64 wide) that hold a conv3 are trained alone once more at another width, the same choices
by `SupernetConfig.scaled`, all else by the table's recipe and seed. Prints Kendall's tau between the two widths beside
that between two trainings of the same children at one width, and keeps the losses in
benchmarks/records/scaled-order.jsonl, which the same command goes on from; where that file is not there, it tells what
is committed (scaled-order.jsonl.gz).
"""

import argparse
import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from hf_nasbert import metrics, records
from hf_nasbert.data import DataArguments, load_corpus
from hf_nasbert.modeling import SupernetConfig
from hf_nasbert.ranking import GroundTruth, load_table
from hf_nasbert.training.arguments import StandaloneArguments
from hf_nasbert.training.standalone import StandaloneTrainer

RECORDS = Path(__file__).parent / "records" / "scaled-order.jsonl"
_SIZES = ("ffn_ratio", "attention_head_size", "num_conv_layers")


def trainer_of(truth: GroundTruth, width: int) -> StandaloneTrainer:
    """Trains by the table's recipe, at another width."""
    recipe: dict[str, Any] = dict(truth.recipe)
    sizes = {name: recipe[name] for name in _SIZES}
    table = SupernetConfig(
        search_space=truth.space,
        hidden_size=recipe["hidden_size"],
        vocab_size=recipe["vocab_size"],
        max_position_embeddings=recipe["sequence_length"],
        **sizes,
    )
    scaled = table.scaled(width)
    known = StandaloneArguments.__dataclass_fields__
    settings = {name: value for name, value in recipe.items() if name in known}
    settings |= {"blocks": [",".join(names) for names in scaled.space.blocks], "hidden_size": width}
    settings |= {"attention_head_size": scaled.attention_head_size, "num_dev_batches": 16, "eval_steps": 10**9}
    arguments = StandaloneArguments(**settings)
    data = DataArguments(packaged="imdb", vocab_size=recipe["vocab_size"], max_seq_length=recipe["sequence_length"])
    return StandaloneTrainer(arguments, load_corpus(data), source="imdb")


def summary(entries: Sequence[Mapping[str, Any]]) -> list[str]:
    """What the children's losses say, with 90 % intervals of a bootstrap over the children."""
    entries = sorted(entries, key=lambda one: str(one["architecture"]))  # the redraws depend on their order
    ((small, large),) = {(one["width"], one["table_width"]) for one in entries}
    losses = np.array([one["dev_loss"] for one in entries])
    table, again = (np.array([one["table_dev_losses"][seed] for one in entries]) for seed in (0, 1))
    redraws = metrics.draw(len(entries), 2000, 0)
    taus = {
        f"width {small} and width {large}": metrics.Redraws(losses, table, redraws).kendall_tau(),
        f"two trainings at width {large}": metrics.Redraws(again, table, redraws).kendall_tau(),
    }
    told = []
    for what, (estimate, *resampled) in taus.items():
        found = metrics.percentile_interval(estimate, resampled)
        told.append(f"{what}: tau {found.estimate:.2f} ({found.low:.2f} to {found.high:.2f})")
    rank = int(np.argsort(np.argsort(table))[losses.argmin()]) + 1
    return [*told, f"the best child at width {small}: rank {rank} of {len(entries)} at width {large}"]


def main() -> None:
    """Train what the records lack, and compare."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--width", type=int, default=32)
    parser.add_argument("--num_children", type=int, default=32)
    parser.add_argument(
        "--seed", type=int, default=0, help="of the draw; children are trained under the table's seed 0"
    )
    arguments = parser.parse_args()
    truth = GroundTruth(load_table("imdb"), containing="conv3")
    places = [place for place, by_seed in enumerate(truth.losses) if {0, 1} <= by_seed.keys()]
    random.Random(arguments.seed).shuffle(places)  # more children are these and others
    drawn = sorted(places[: arguments.num_children])
    found = records.read(RECORDS if RECORDS.exists() else RECORDS.with_suffix(".jsonl.gz"))
    done = {(one["architecture"], one["width"]): one for one in found}
    trainer = trainer_of(truth, arguments.width)
    for place in drawn:
        child = truth.architectures[place]
        if (str(child), arguments.width) not in done:
            scaled = trainer.space.child_at(truth.space.index_of(child))
            trained = trainer.train(scaled, 0)
            entry = {
                "architecture": str(child),
                "width": arguments.width,
                "dev_loss": trained["dev_loss"],
                "table_width": truth.recipe["hidden_size"],
                "table_dev_losses": [truth.losses[place][seed] for seed in (0, 1)],
                "timing": trained["timing"],
                "versions": records.versions(),
            }
            records.append(RECORDS, entry)
            done[str(child), arguments.width] = entry
    print("\n".join(summary([done[str(truth.architectures[place]), arguments.width] for place in drawn])))


if __name__ == "__main__":
    main()
