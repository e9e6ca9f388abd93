"""Train the children of a space alone, one record each: the ground-truth table that super-nets are ranked against.

python recipes/train_children.py --config table-imdb
torchrun --nproc_per_node 4 recipes/train_children.py --config table-imdb --num_workers 1

Killed or asked to stop (SIGTERM, SIGUSR1) at any moment it loses at most the children in hand; the same command goes
on.
"""

import sys

from hf_nasbert.cli import main

if __name__ == "__main__":
    sys.exit(main(["train-children", *sys.argv[1:]]))
