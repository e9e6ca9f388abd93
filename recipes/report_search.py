"""Turn the file of a search, or of scored children, into one page of HTML; the records are all that it needs.

python recipes/report_search.py --records search.jsonl --supernet runs/supernet --output search.html
"""

from hf_nasbert.pipeline import SearchReportArguments, report_search
from hf_nasbert.recipe_arguments import parse_recipe_arguments, user_mistakes
from hf_nasbert.terminal import say


def main(argv: list[str] | None = None) -> None:
    """Report, and print where."""
    (arguments,) = parse_recipe_arguments([SearchReportArguments], argv, description=__doc__)
    with user_mistakes("report_search", [arguments]):
        page = report_search(arguments)
        say(page)


if __name__ == "__main__":
    main()
