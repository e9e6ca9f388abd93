"""Make the tables and figures of an interference study anew from its records.

python recipes/report_interference.py --measured benchmarks/records/interference.jsonl.xz \
    --page docs/appendix/interference.md --figures docs/figures
"""

import sys

from hf_nasbert.cli import main

if __name__ == "__main__":
    sys.exit(main(["report-interference", *sys.argv[1:]]))
