"""Measure a super-net's operators on this device: a latency table, checked against 30 really measured children.

python recipes/measure_latency.py --supernet runs/supernet --output latency.jsonl
python recipes/measure_latency.py --supernet runs/supernet --output latency.jsonl --batch_size 1 --num_threads 2
"""

import sys

from hf_nasbert.cli import main

if __name__ == "__main__":
    sys.exit(main(["latency", *sys.argv[1:]]))
