"""Fine-tune a child, or any extractive question answerer, on SQuAD v1.1, v2 or files like them, over several seeds.

python recipes/finetune_squad.py --model my-child --dataset_name rajpurkar/squad_v2 --seeds 0 1 2 \
    --output_dir runs/squad
python recipes/finetune_squad.py --model my-child --train_file train-v1.1.json --validation_file dev-v1.1.json \
    --max_seq_length 128 --max_question_length 32 --doc_stride 64 --output_dir runs/squad
"""

import sys

from hf_nasbert.cli import main

if __name__ == "__main__":
    sys.exit(main(["finetune-squad", *sys.argv[1:]]))
