"""Fine-tune a child, or any sequence classifier, on a GLUE task, a packaged set or files, over several seeds.

python recipes/finetune_glue.py --model my-child --task rte --seeds 0 1 2 --output_dir runs/glue
python recipes/finetune_glue.py --model my-child --packaged stsb --output_dir runs/stsb
python recipes/finetune_glue.py --model my-child --train_file a.csv --validation_file b.csv --output_dir runs/own
"""

from hf_nasbert.finetuning import FinetuneArguments
from hf_nasbert.pipeline import finetune_with_cards
from hf_nasbert.recipe_arguments import parse_recipe_arguments, user_mistakes
from hf_nasbert.terminal import say


def main(argv: list[str] | None = None) -> None:
    """Fine-tune as the arguments say, and print the summary over the seeds."""
    (arguments,) = parse_recipe_arguments([FinetuneArguments], argv, description=__doc__.splitlines()[0])
    with user_mistakes("finetune_glue", [arguments]):
        result = finetune_with_cards(arguments)
        say(result.table())


if __name__ == "__main__":
    main()
