"""Measure interference: how alike a shared operator's gradients are under two children; one record per super-net.

python recipes/measure_interference.py --supernets runs/uniform runs/magic-t --packaged imdb --max_seq_length 64 \
    --output interference.jsonl --figures figures
python recipes/measure_interference.py --supernets runs/uniform/checkpoint-600 runs/uniform --untrained \
    --packaged imdb --output interference.jsonl
"""

from hf_nasbert.data import DataArguments
from hf_nasbert.pipeline import InterferenceArguments, measure_interference
from hf_nasbert.pipeline.interference import as_text, draw_interference
from hf_nasbert.recipe_arguments import parse_recipe_arguments, user_mistakes
from hf_nasbert.terminal import say


def main(argv: list[str] | None = None) -> None:
    """Measure as the arguments say, print the tables, and draw the figures if asked to."""
    settings = parse_recipe_arguments([InterferenceArguments, DataArguments], argv, description=__doc__)
    with user_mistakes("measure_interference", settings):
        measured = measure_interference(*settings)
        if settings[0].figures is not None:
            draw_interference(measured, settings[0].figures)
        say(as_text(measured))


if __name__ == "__main__":
    main()
