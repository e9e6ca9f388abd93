"""Train a BERT super-net on text, by uniform or fair sampling or by MAGIC.

python recipes/pretrain_supernet.py --config quickstart-scratch
accelerate launch recipes/pretrain_supernet.py --config supernet --method magic_at --max_steps 200
accelerate launch recipes/pretrain_supernet.py --base_model my-encoder --train_files my.txt --output_dir runs/elastic
ACCELERATE_USE_CPU=true torchrun --nproc_per_node 2 recipes/pretrain_supernet.py --config supernet
"""

import sys

from hf_nasbert.cli import main

if __name__ == "__main__":
    sys.exit(main(["pretrain", *sys.argv[1:]]))
