"""Fine-tune a child, or any token classifier, on tagged words (parts of speech, named entities), over several seeds.

python recipes/finetune_tokens.py --model my-child --train_file train.jsonl --validation_file dev.jsonl \
    --output_dir runs/pos
python recipes/finetune_tokens.py --model my-child --dataset_name eriktks/conll2003 --tags_column ner_tags \
    --seeds 0 1 2 --early_stopping_patience 2 --output_dir runs/ner

A row of a file reads {"tokens": ["Ada", "lives", "here"], "tags": ["B-PER", "O", "O"]}.
"""

from hf_nasbert.finetuning import FinetuneTokensArguments
from hf_nasbert.pipeline import finetune_with_cards
from hf_nasbert.recipe_arguments import parse_recipe_arguments, user_mistakes
from hf_nasbert.terminal import say


def main(argv: list[str] | None = None) -> None:
    """Fine-tune as the arguments say, and print the summary over the seeds."""
    (arguments,) = parse_recipe_arguments([FinetuneTokensArguments], argv, description=__doc__.splitlines()[0])
    with user_mistakes("finetune_tokens", [arguments]):
        result = finetune_with_cards(arguments)
        say(result.table())


if __name__ == "__main__":
    main()
