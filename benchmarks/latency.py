"""How far latency tables and memory estimates are from real children: 30 random ones of each of two spaces.

    OMP_NUM_THREADS=1 python benchmarks/latency.py      adds to benchmarks/records/latency.jsonl
    python benchmarks/latency.py --report               prints what is there

`quickstart` is the quickstart's space (6 choice blocks of 4 operators), `deep` one of 12 blocks of 5; both hidden 128,
vocabulary 8,192, 8 sequences of 128 tokens, float32, one thread, whose own time is what counts. Weights are random:
time does not depend on them. Beside each agreement stands that of two halves of the same measurements of the same
children, which is what noise leaves to be foretold.
"""

import argparse
import tempfile
from pathlib import Path

from hf_nasbert import records
from hf_nasbert.modeling import SupernetConfig
from hf_nasbert.pipeline import LatencyArguments, measure_latency
from hf_nasbert.pipeline.latency import as_text
from hf_nasbert.space import SearchSpace

RECORDS = Path(__file__).parent / "records" / "latency.jsonl"
OPERATORS = ("attention", "ffn", "conv3", "conv5", "conv7")
SPACES = {"quickstart": SearchSpace.chain(6, OPERATORS[:4]), "deep": SearchSpace.chain(12, OPERATORS)}


def main() -> None:
    """Measure the spaces asked for, or print what was measured."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--report", action="store_true", help="measure nothing")
    parser.add_argument("--spaces", nargs="+", choices=SPACES, default=list(SPACES))
    parser.add_argument("--rounds", type=int, default=12, help="visits of each child, two timed runs in each")
    arguments = parser.parse_args()
    for name in [] if arguments.report else arguments.spaces:
        with tempfile.TemporaryDirectory() as folder:
            config = SupernetConfig(search_space=SPACES[name], vocab_size=8192, hidden_size=128)
            config.save_pretrained(folder)
            made = Path(folder) / "made.jsonl"
            measure_latency(
                LatencyArguments(supernet=folder, output=str(made), num_rounds=arguments.rounds, num_visits=120)
            )
            records.extend(RECORDS, [{"space": name, **record} for record in records.read(made)])
    found = records.read(RECORDS)
    for start in range(0, len(found), 3):
        print(f"{found[start]['space']}: {as_text(found[start : start + 3])}")


if __name__ == "__main__":
    main()
