"""Make an encoder that you have smaller and faster: search what can be cut out of it, distil that, prove what it lost.

python recipes/compress_encoder.py --base_model sentence-transformers/all-MiniLM-L6-v2 --train_files my.txt \
    --max_latency 0.5x --output_dir small
python recipes/compress_encoder.py --base_model my-classifier --train_file reviews.csv --test_file test.csv \
    --budgets 0.75x 0.5x 0.25x --cost num_parameters --output_dir family    # a folder for each
python recipes/compress_encoder.py --base_model my-encoder --packaged boolq-wikipedia --max_parameters 0.5x \
    --pairs_file pairs.tsv --seeds 0 1 2 --output_dir small    # proven on sentence1, sentence2, score
accelerate launch --config_file recipes/configs/accelerate/multi_cpu.yaml --num_processes 2 \
    recipes/compress_encoder.py ...    # stages are shared out, and so are children and seeds
"""

import sys

from hf_nasbert.cli import main

if __name__ == "__main__":
    sys.exit(main(["compress", *sys.argv[1:]]))
