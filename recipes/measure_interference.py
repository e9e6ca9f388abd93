"""Measure interference: how alike a shared operator's gradients are under two children; one record per super-net.

python recipes/measure_interference.py --supernets runs/uniform runs/magic-t --packaged imdb --max_seq_length 64 \
    --output interference.jsonl --figures figures
python recipes/measure_interference.py --supernets runs/uniform/checkpoint-600 runs/uniform --untrained \
    --packaged imdb --output interference.jsonl
"""

import sys

from hf_nasbert.cli import main

if __name__ == "__main__":
    sys.exit(main(["measure-interference", *sys.argv[1:]]))
