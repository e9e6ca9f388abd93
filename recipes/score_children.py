"""Score children of a super-net on held-out text, with the weights they have there: one record per child.

python recipes/score_children.py --supernet runs/supernet --num_random 1000 --packaged imdb --output scores.jsonl
python recipes/score_children.py --supernet runs/supernet --all_children --train_files text.txt --output scores.jsonl
python recipes/score_children.py --supernet runs/supernet --architectures attention-ffn ffn-ffn --packaged imdb \
    --output scores.jsonl
"""

import sys

from hf_nasbert.cli import main

if __name__ == "__main__":
    sys.exit(main(["score", *sys.argv[1:]]))
