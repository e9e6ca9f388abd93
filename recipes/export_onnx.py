"""Export a child, with any head, as an ONNX file for any batch and length, checked in onnxruntime.

python recipes/export_onnx.py --model my-child --output_dir my-child-onnx
python recipes/export_onnx.py --model runs/mrpc/seed-0 --output_dir mrpc-onnx
"""

from hf_nasbert.export import ExportArguments, export_child
from hf_nasbert.recipe_arguments import parse_recipe_arguments, user_mistakes
from hf_nasbert.terminal import say


def main(argv: list[str] | None = None) -> None:
    """Export as the arguments say; a mistake in them ends in one line that names it."""
    (arguments,) = parse_recipe_arguments([ExportArguments], argv, description=__doc__)
    with user_mistakes("export_onnx", [arguments]):
        exported = export_child(arguments)
        say(exported)


if __name__ == "__main__":
    main()
