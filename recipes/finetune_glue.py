"""Fine-tune a child, or any sequence classifier, on a GLUE task, a packaged set or files, over several seeds.

python recipes/finetune_glue.py --model my-child --task rte --seeds 0 1 2 --output_dir runs/glue
python recipes/finetune_glue.py --model my-child --packaged stsb --output_dir runs/stsb
python recipes/finetune_glue.py --model my-child --train_file a.csv --validation_file b.csv --output_dir runs/own
"""

import sys

from hf_nasbert.cli import main

if __name__ == "__main__":
    sys.exit(main(["finetune", *sys.argv[1:]]))
