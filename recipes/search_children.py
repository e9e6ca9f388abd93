"""Search a super-net for its best children under a budget; interrupted, the same command goes on.

python recipes/search_children.py --supernet runs/supernet --packaged imdb --output search.jsonl --max_parameters 1.5M
python recipes/search_children.py --supernet runs/supernet --packaged imdb --output random.jsonl --report random.html
python recipes/search_children.py --supernet runs/supernet --packaged imdb --output front.jsonl --search nsga2
optuna-dashboard sqlite:///front.db
"""

from hf_nasbert.data import DataArguments
from hf_nasbert.pipeline import SearchChildrenArguments, search_children
from hf_nasbert.pipeline.scores import as_search_report
from hf_nasbert.recipe_arguments import parse_recipe_arguments, user_mistakes
from hf_nasbert.terminal import say


def main(argv: list[str] | None = None) -> None:
    """Search as the arguments say, and print the best and the front."""
    settings = parse_recipe_arguments([SearchChildrenArguments, DataArguments], argv, description=__doc__)
    with user_mistakes("search_children", settings):
        scored = search_children(*settings)
        say(as_search_report(scored, settings[0]))


if __name__ == "__main__":
    main()
