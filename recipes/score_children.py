"""Score children of a super-net on held-out text, with the weights they have there: one record per child.

python recipes/score_children.py --supernet runs/supernet --num_random 1000 --packaged imdb --output scores.jsonl
python recipes/score_children.py --supernet runs/supernet --all_children --train_files text.txt --output scores.jsonl
python recipes/score_children.py --supernet runs/supernet --architectures attention-ffn ffn-ffn --packaged imdb \
    --output scores.jsonl
"""

from hf_nasbert.data import DataArguments
from hf_nasbert.pipeline import ScoreChildrenArguments, score_children
from hf_nasbert.pipeline.scores import as_table
from hf_nasbert.recipe_arguments import parse_recipe_arguments, user_mistakes
from hf_nasbert.terminal import say


def main(argv: list[str] | None = None) -> None:
    """Score as the arguments say, and print the best."""
    settings = parse_recipe_arguments([ScoreChildrenArguments, DataArguments], argv, description=__doc__)
    with user_mistakes("score_children", settings):
        scored = score_children(*settings)
        say(as_table(scored))


if __name__ == "__main__":
    main()
