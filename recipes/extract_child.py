"""Make a child of a super-net a model of its own, and prove that it computes what it computed there.

python recipes/extract_child.py --supernet runs/supernet --architecture attention-ffn-conv3-ffn --output_dir my-child
python recipes/extract_child.py --supernet runs/supernet --architecture attention-ffn --native always --output_dir bert
"""

import sys

from hf_nasbert.cli import main

if __name__ == "__main__":
    sys.exit(main(["extract", *sys.argv[1:]]))
