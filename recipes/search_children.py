"""Search a super-net for its best children under a budget; interrupted, the same command goes on.

python recipes/search_children.py --supernet runs/supernet --packaged imdb --output search.jsonl --max_parameters 1.5M
python recipes/search_children.py --supernet runs/supernet --packaged imdb --output random.jsonl --report random.html
python recipes/search_children.py --supernet runs/supernet --packaged imdb --output front.jsonl --search nsga2
python recipes/search_children.py --supernet runs/supernet --packaged imdb --output paid.jsonl --compute_budget 5x
optuna-dashboard sqlite:///front.db
"""

import sys

from hf_nasbert.cli import main

if __name__ == "__main__":
    sys.exit(main(["search", *sys.argv[1:]]))
