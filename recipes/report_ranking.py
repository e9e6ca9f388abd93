"""Turn the records of the ranking study into its tables and figures; needs neither text nor super-net.

python recipes/report_ranking.py --table imdb --scores benchmarks/records/ranking.jsonl.xz \
    --page docs/appendix/ranking.md --figures docs/figures
"""

import sys

from hf_nasbert.cli import main

if __name__ == "__main__":
    sys.exit(main(["report-ranking", *sys.argv[1:]]))
