"""Train a BERT super-net on text, by uniform or fair sampling or by MAGIC.

python recipes/pretrain_supernet.py --config recipes/configs/quickstart.yaml
accelerate launch recipes/pretrain_supernet.py --config recipes/configs/supernet.yaml --method magic_at --max_steps 200
ACCELERATE_USE_CPU=true torchrun --nproc_per_node 2 recipes/pretrain_supernet.py --config recipes/configs/supernet.yaml
"""

from hf_nasbert.data import DataArguments
from hf_nasbert.recipe_arguments import parse_recipe_arguments, user_mistakes
from hf_nasbert.terminal import say
from hf_nasbert.training import SupernetArguments, SupernetTrainingArguments, pretrain_supernet


def main(argv: list[str] | None = None) -> None:
    """Train as the arguments say, and tell where the super-net lies."""
    settings = parse_recipe_arguments(
        [SupernetArguments, DataArguments, SupernetTrainingArguments], argv, description=__doc__
    )
    with user_mistakes(
        "pretrain_supernet", settings, "the last checkpoint is kept: --resume_from_checkpoint latest goes on from it"
    ):
        output = pretrain_supernet(*settings)
        say(f"{settings[-1].output_dir}: {output}")


if __name__ == "__main__":
    main()
