"""Leave out of a space the operators that its scored children do worse with; the recipe of the smaller one is written.

python recipes/shrink_space.py --records search.jsonl --supernet runs/supernet --output smaller.yaml
hf-nasbert pretrain --config smaller.yaml --packaged imdb --max_steps 1000 --output_dir runs/smaller
"""

import sys

from hf_nasbert.cli import main

if __name__ == "__main__":
    sys.exit(main(["shrink-space", *sys.argv[1:]]))
