"""Train the children of a space alone, one record each: the ground-truth table that super-nets are ranked against.

python recipes/train_children.py --config recipes/configs/table-imdb.yaml
torchrun --nproc_per_node 4 recipes/train_children.py --config recipes/configs/table-imdb.yaml --num_workers 1

Killed or asked to stop (SIGTERM, SIGUSR1) at any moment it loses at most the children in hand; the same command goes
on.
"""

from hf_nasbert.data import DataArguments
from hf_nasbert.recipe_arguments import parse_recipe_arguments, user_mistakes
from hf_nasbert.terminal import say
from hf_nasbert.training.farm import FarmArguments, train_children
from hf_nasbert.training.standalone import StandaloneArguments


def main(argv: list[str] | None = None) -> None:
    """Train what the table lacks, and print its range of losses."""
    farm, recipe, data = parse_recipe_arguments(
        [FarmArguments, StandaloneArguments, DataArguments], argv, description=__doc__
    )
    with user_mistakes("train_children", [farm, recipe, data]):
        losses = [record["dev_loss"] for record in train_children(farm, recipe, data).values()]
        say(f"{farm.table}: {len(losses)} children, dev loss {min(losses):.4f} to {max(losses):.4f}")


if __name__ == "__main__":
    main()
