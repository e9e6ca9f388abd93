"""Make a child of a super-net a model of its own, and prove that it computes what it computed there.

python recipes/extract_child.py --supernet runs/supernet --architecture attention-ffn-conv3-ffn --output_dir my-child
python recipes/extract_child.py --supernet runs/supernet --architecture attention-ffn --native always --output_dir bert
"""

from hf_nasbert.pipeline import ExtractionArguments, extract
from hf_nasbert.recipe_arguments import parse_recipe_arguments, user_mistakes
from hf_nasbert.terminal import say


def main(argv: list[str] | None = None) -> None:
    """Extract as the arguments say; a mistake in them ends in one line that names it."""
    (arguments,) = parse_recipe_arguments([ExtractionArguments], argv, description=__doc__)
    with user_mistakes("extract_child", [arguments]):
        extracted = extract(arguments)
        say(extracted)


if __name__ == "__main__":
    main()
