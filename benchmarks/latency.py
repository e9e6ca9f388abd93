"""How far latency tables and memory estimates are from real children: 30 random ones of each of two spaces.

    OMP_NUM_THREADS=1 python benchmarks/latency.py      writes benchmarks/records/latency.jsonl.gz
    python benchmarks/latency.py --report               prints what is there

`quickstart` is the quickstart's space (6 choice blocks of 4 operators), `deep` one of 12 blocks of 5; both hidden 128,
vocabulary 8,192, 8 sequences of 128 tokens, float32, one thread, whose own time is what counts. Weights are random:
time does not depend on them. Beside each agreement stands that of two halves of the same measurements of the same
children, which is what noise leaves to be predicted.
"""

import argparse
import tempfile
from pathlib import Path

from hf_nasbert import records
from hf_nasbert.modeling import SupernetConfig
from hf_nasbert.pipeline import LatencyArguments, measure_latency
from hf_nasbert.pipeline.latency import as_text
from hf_nasbert.space import SearchSpace
from hf_nasbert.training.farm import compress_table

RECORDS = Path(__file__).parent / "records" / "latency.jsonl"
OPERATORS = ("attention", "ffn", "conv3", "conv5", "conv7")
SPACES = {"quickstart": SearchSpace.chain(6, OPERATORS[:4]), "deep": SearchSpace.chain(12, OPERATORS)}


def measure(name: str, num_rounds: int) -> list[records.Record]:
    """The table of a space, its check, and that of the memory estimate."""
    with tempfile.TemporaryDirectory() as folder:
        config = SupernetConfig(search_space=SPACES[name], vocab_size=8192, hidden_size=128)
        config.save_pretrained(folder)
        made = str(Path(folder) / "made.jsonl")
        return measure_latency(
            LatencyArguments(supernet=folder, output=made, num_rounds=num_rounds, num_visits=10 * num_rounds)
        )


def main() -> None:
    """Measure the spaces asked for, or print what was measured."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--report", action="store_true", help="measure nothing")
    parser.add_argument("--spaces", nargs="+", choices=SPACES, default=list(SPACES))
    parser.add_argument("--rounds", type=int, default=40, help="visits of each child, two timed runs in each")
    arguments = parser.parse_args()
    committed = RECORDS.with_name(RECORDS.name + ".gz")
    found = records.read(committed) if committed.exists() else []
    if not arguments.report:
        found = [record for record in found if record["space"] not in arguments.spaces]
        for name in arguments.spaces:
            found += [{"space": name, **record} for record in measure(name, arguments.rounds)]
        RECORDS.unlink(missing_ok=True)
        records.extend(RECORDS, found)
        compress_table(RECORDS)
    for start in range(0, len(found), 3):
        print(f"{found[start]['space']}: {as_text(found[start : start + 3])}")


if __name__ == "__main__":
    main()
