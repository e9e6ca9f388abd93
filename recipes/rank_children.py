"""Hold super-nets' rankings of their children against the same children trained alone.

python recipes/rank_children.py --table imdb --packaged imdb --scores scores.jsonl --supernets runs/uniform runs/fair
python recipes/rank_children.py --table imdb --packaged imdb --scores scores.jsonl --supernets runs/uniform \
    --containing conv3 --adapt_steps 25 --num_adapted 30 --calibrate 15

Prints Kendall tau-b and its company by method, with the noise ceiling and the dull baselines beside it. Super-nets
that the records hold are not scored again; recipes/report_ranking.py reports from records alone.
"""

import sys

from hf_nasbert.cli import main

if __name__ == "__main__":
    sys.exit(main(["rank-children", *sys.argv[1:]]))
