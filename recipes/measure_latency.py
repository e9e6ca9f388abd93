"""Measure a super-net's operators on this device: a latency table, checked against 30 really measured children.

python recipes/measure_latency.py --supernet runs/supernet --output latency.jsonl
python recipes/measure_latency.py --supernet runs/supernet --output latency.jsonl --batch_size 1 --num_threads 2
"""

from hf_nasbert.pipeline import LatencyArguments, measure_latency
from hf_nasbert.pipeline.latency import as_text
from hf_nasbert.recipe_arguments import parse_recipe_arguments, user_mistakes
from hf_nasbert.terminal import say


def main(argv: list[str] | None = None) -> None:
    """Measure as the arguments say; print the table, its error (MAPE) and rank correlation (Spearman)."""
    settings = parse_recipe_arguments([LatencyArguments], argv, description=__doc__)
    with user_mistakes("measure_latency", settings):
        measured = measure_latency(*settings)
        say(as_text(measured))


if __name__ == "__main__":
    main()
