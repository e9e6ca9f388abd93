"""Continue the masked-LM pre-training of a child, or train any masked-LM configuration from scratch beside it.

python recipes/pretrain_child.py --model my-child --packaged imdb --max_steps 2000 --output_dir runs/my-child
python recipes/pretrain_child.py --model bert-config --from_scratch --tokenizer_name my-child --packaged imdb \
    --max_steps 2000 --output_dir runs/baseline
python recipes/pretrain_child.py --model my-child --teacher google-bert/bert-base-uncased --dataset_name my-text \
    --max_steps 20000 --output_dir runs/distilled    # logits if it shares the child's vocabulary, words' states if not
"""

from hf_nasbert.data import DataArguments
from hf_nasbert.finetuning import PretrainChildArguments, pretrain_child
from hf_nasbert.recipe_arguments import parse_recipe_arguments, user_mistakes
from hf_nasbert.terminal import say


def main(argv: list[str] | None = None) -> None:
    """Pre-train as the arguments say, and print the dev loss before and after."""
    kinds = [PretrainChildArguments, DataArguments]
    arguments, data = parse_recipe_arguments(kinds, argv, description=__doc__.splitlines()[0])
    with user_mistakes("pretrain_child", [arguments, data]):
        record = pretrain_child(arguments, data)
        say(f"{arguments.output_dir}: dev loss {record['dev_loss_before']:.4f} -> {record['dev_loss_after']:.4f}")


if __name__ == "__main__":
    main()
