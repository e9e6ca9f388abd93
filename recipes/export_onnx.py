"""Export a child, with any head, as an ONNX file for any batch and length, checked in onnxruntime.

python recipes/export_onnx.py --model my-child --output_dir my-child-onnx
python recipes/export_onnx.py --model runs/mrpc/seed-0 --output_dir mrpc-onnx
"""

import sys

from hf_nasbert.cli import main

if __name__ == "__main__":
    sys.exit(main(["export", *sys.argv[1:]]))
