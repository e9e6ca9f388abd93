"""Fine-tune a child, or any token classifier, on tagged words (parts of speech, named entities), over several seeds.

python recipes/finetune_tokens.py --model my-child --train_file train.jsonl --validation_file dev.jsonl \
    --output_dir runs/pos
python recipes/finetune_tokens.py --model my-child --dataset_name eriktks/conll2003 --tags_column ner_tags \
    --seeds 0 1 2 --early_stopping_patience 2 --output_dir runs/ner

A row of a file reads {"tokens": ["Ada", "lives", "here"], "tags": ["B-PER", "O", "O"]}.
"""

import sys

from hf_nasbert.cli import main

if __name__ == "__main__":
    sys.exit(main(["finetune-tokens", *sys.argv[1:]]))
