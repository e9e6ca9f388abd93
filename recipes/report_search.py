"""Turn the file of a search, or of scored children, into one page of HTML; the records are all that it needs.

python recipes/report_search.py --records search.jsonl --supernet runs/supernet --output search.html
"""

import sys

from hf_nasbert.cli import main

if __name__ == "__main__":
    sys.exit(main(["report", *sys.argv[1:]]))
