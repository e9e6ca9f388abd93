"""Make the tables and figures of an interference study anew from its records.

python recipes/report_interference.py --measured benchmarks/records/interference.jsonl.gz \
    --page docs/interference.md --figures docs/figures
"""

from hf_nasbert.pipeline import InterferenceReportArguments, report_interference
from hf_nasbert.recipe_arguments import parse_recipe_arguments, user_mistakes
from hf_nasbert.terminal import say


def main(argv: list[str] | None = None) -> None:
    """Print the tables; write them into the page and draw the figures if asked to."""
    (arguments,) = parse_recipe_arguments([InterferenceReportArguments], argv, description=__doc__)
    with user_mistakes("report_interference", [arguments]):
        say(report_interference(arguments))


if __name__ == "__main__":
    main()
