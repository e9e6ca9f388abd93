"""Estimate what making an encoder smaller will take: CPU-minutes and memory of every stage, with the same settings.

python recipes/plan_compression.py --base_model sentence-transformers/all-MiniLM-L6-v2 --train_files my.txt \
    --max_latency 0.5x --output_dir small    # nothing is written there
"""

import sys

from hf_nasbert.cli import main

if __name__ == "__main__":
    sys.exit(main(["plan-compress", *sys.argv[1:]]))
