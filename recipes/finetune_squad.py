"""Fine-tune a child, or any extractive question answerer, on SQuAD v1.1, v2 or files like them, over several seeds.

python recipes/finetune_squad.py --model my-child --dataset_name rajpurkar/squad_v2 --seeds 0 1 2 \
    --output_dir runs/squad
python recipes/finetune_squad.py --model my-child --train_file train-v1.1.json --validation_file dev-v1.1.json \
    --max_seq_length 128 --max_question_length 32 --doc_stride 64 --output_dir runs/squad
"""

from hf_nasbert.finetuning import FinetuneSquadArguments
from hf_nasbert.pipeline import finetune_with_cards
from hf_nasbert.recipe_arguments import parse_recipe_arguments, user_mistakes
from hf_nasbert.terminal import say


def main(argv: list[str] | None = None) -> None:
    """Fine-tune as the arguments say, and print the summary over the seeds."""
    (arguments,) = parse_recipe_arguments([FinetuneSquadArguments], argv, description=__doc__.splitlines()[0])
    with user_mistakes("finetune_squad", [arguments]):
        result = finetune_with_cards(arguments)
        say(result.table())


if __name__ == "__main__":
    main()
