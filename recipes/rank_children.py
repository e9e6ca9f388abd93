"""Hold super-nets' rankings of their children against the same children trained alone.

python recipes/rank_children.py --table imdb --packaged imdb --scores scores.jsonl --supernets runs/uniform runs/fair

Prints Kendall tau-b and its company by method, with the noise ceiling and the dull baselines beside it. Super-nets
that the records hold are not scored again; recipes/report_ranking.py reports from records alone.
"""

from hf_nasbert.data import DataArguments
from hf_nasbert.pipeline.ranking import RankChildrenArguments, rank_children
from hf_nasbert.recipe_arguments import parse_recipe_arguments, user_mistakes
from hf_nasbert.terminal import say


def main(argv: list[str] | None = None) -> None:
    """Score what is not scored yet, and print the tables."""
    settings = parse_recipe_arguments([RankChildrenArguments, DataArguments], argv, description=__doc__)
    with user_mistakes("rank_children", settings):
        report = rank_children(*settings)
        say(report.as_markdown())


if __name__ == "__main__":
    main()
