"""Continue the masked-LM pre-training of a child, or train any masked-LM configuration from scratch beside it.

python recipes/pretrain_child.py --model my-child --packaged imdb --max_steps 2000 --output_dir runs/my-child
python recipes/pretrain_child.py --model bert-config --from_scratch --tokenizer_name my-child --packaged imdb \
    --max_steps 2000 --output_dir runs/baseline
python recipes/pretrain_child.py --model my-child --teacher google-bert/bert-base-uncased --dataset_name my-text \
    --max_steps 20000 --output_dir runs/distilled    # logits if it shares the child's vocabulary, words' states if not
"""

import sys

from hf_nasbert.cli import main

if __name__ == "__main__":
    sys.exit(main(["pretrain-child", *sys.argv[1:]]))
