"""Turn the records of the ranking study into its tables and figures; needs neither text nor super-net.

python recipes/report_ranking.py --table imdb --scores benchmarks/records/ranking.jsonl.gz --page docs/ranking.md \
    --figures docs/figures
"""

from hf_nasbert.pipeline.ranking import RankingReportArguments, report_ranking
from hf_nasbert.recipe_arguments import parse_recipe_arguments, user_mistakes
from hf_nasbert.terminal import say


def main(argv: list[str] | None = None) -> None:
    """Report, and print the tables."""
    (arguments,) = parse_recipe_arguments([RankingReportArguments], argv, description=__doc__)
    with user_mistakes("report_ranking", [arguments]):
        report = report_ranking(arguments)
        say(report.as_markdown())


if __name__ == "__main__":
    main()
