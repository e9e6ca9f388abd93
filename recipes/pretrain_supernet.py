"""Train a BERT super-net on text, by uniform or fair sampling or by MAGIC.

python recipes/pretrain_supernet.py --config recipes/configs/quickstart.yaml
accelerate launch recipes/pretrain_supernet.py --config recipes/configs/magic-at.yaml --max_steps 200
ACCELERATE_USE_CPU=true torchrun --nproc_per_node 2 recipes/pretrain_supernet.py --config recipes/configs/fair.yaml
"""

from hf_nasbert.data import DataArguments
from hf_nasbert.recipe_arguments import parse_recipe_arguments
from hf_nasbert.training import SupernetArguments, SupernetTrainingArguments, pretrain_supernet


def main(argv: list[str] | None = None) -> None:
    """Train as the arguments say, and tell where the super-net lies."""
    settings = parse_recipe_arguments(
        [SupernetArguments, DataArguments, SupernetTrainingArguments], argv, description=__doc__
    )
    output = pretrain_supernet(*settings)
    output_dir = settings[-1].output_dir
    if output.is_finished:
        print(f"super-net of {output.global_step} steps in {output_dir}")
    else:
        print(f"stopped at step {output.global_step}; go on with the same command and --resume_from_checkpoint latest")


if __name__ == "__main__":
    main()
