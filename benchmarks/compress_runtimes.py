"""What int8 and a trimmed vocabulary keep of MiniLM-L6 as it comes: the figures of docs/compress.md, as Markdown.

    python benchmarks/compress_runtimes.py                                   all; ten minutes on two cores
    python benchmarks/compress_runtimes.py --only "seven bits" --pairs 100   what has this in its name, on fewer pairs

256 sentences of Wikipedia (BoolQ's paragraphs), and the pairs of STS-B's test split. The vocabulary is trimmed to the
pieces of the first 12,000 paragraphs. Model, text and pairs come out of pinned packages
(recipes/data-requirements.txt); `pip install "hf_nasbert[onnx]"` brings the rest.
"""

import argparse
import tempfile
from pathlib import Path

import onnx
import torch
from onnxruntime.quantization import QuantType, quantize_dynamic

from hf_nasbert.cards.markdown import table
from hf_nasbert.compression.onnx_files import Answers, Run, kept_of, onnx_run, torch_run
from hf_nasbert.compression.proof import read_pairs, spearman_on_pairs
from hf_nasbert.compression.sentences import choose_sentences, tokenised
from hf_nasbert.compression.sizes import bytes_of_child
from hf_nasbert.compression.vocabulary import choose_pieces, count_pieces, trim_model, trim_tokenizer
from hf_nasbert.data.packaged import packaged_text
from hf_nasbert.elastic.base_models import open_base_model
from hf_nasbert.export.onnx import write_graph

SENTENCES, TOKENS, PARAGRAPHS = 256, 128, 12_000
INT8 = {
    f"{name}, {'a scale for each channel' if per_channel else 'one scale for each matrix'}": {
        "weight_type": weight_type, "reduce_range": name == "seven bits", "per_channel": per_channel,
    }
    for name, weight_type in zip(
        ("int8", "seven bits", "unsigned"), (QuantType.QInt8, QuantType.QInt8, QuantType.QUInt8), strict=True
    )
    for per_channel in (False, True)
}  # fmt: skip


def measure(only: str, num_pairs: int | None) -> list[list[str]]:
    """Lines of the table: what is told, cosine, nearest sentences kept, Spearman, megabytes."""
    base = open_base_model("packaged:all-MiniLM-L6-v2")
    assert base.modules is not None
    text, pairs = packaged_text("boolq-wikipedia"), read_pairs("packaged:stsb")
    pairs = pairs if num_pairs is None else pairs.select(range(num_pairs))
    held_out = sorted(choose_sentences(text.select(range(PARAGRAPHS, len(text))), SENTENCES, 0), key=len)

    def answers_of(tokenizer) -> Answers:
        batches = [tokenised(held_out[start : start + 32], tokenizer, TOKENS) for start in range(0, SENTENCES, 32)]
        return Answers(batches, base.modules, 0, base.full_child.config)

    expected = answers_of(base.tokenizer)(torch_run(base.full_child))
    lines = []

    def line(name: str, run: Run, num_bytes: int, tokenizer=base.tokenizer) -> None:
        answers = answers_of(tokenizer)
        kept = kept_of(expected, answers(run))
        spearman = spearman_on_pairs(lambda batch: answers.vectors(run, batch), pairs, tokenizer, TOKENS, base.modules)
        lines.append(
            [name, f"{kept.cosine:.4f}", f"{kept.neighbours:.3f}", f"{spearman:.4f}", f"{num_bytes / 1e6:.1f}"]
        )

    with tempfile.TemporaryDirectory() as folder:
        graph = Path(folder, "model.onnx")
        write_graph(base.full_child, graph)
        if only in "single precision":
            line("single precision", onnx_run(graph), graph.stat().st_size)
        for name, options in INT8.items():
            if only in name:
                file = Path(folder, "int8.onnx")
                quantize_dynamic(onnx.load(graph), file, **options)
                line(name, onnx_run(file), file.stat().st_size)
    if only in "trimmed vocabulary":
        counts = count_pieces(text.select(range(PARAGRAPHS)), base.tokenizer)
        kept = choose_pieces(base.tokenizer, counts, min_count=1)
        model, tokenizer = trim_model(base.full_child, kept), trim_tokenizer(base.tokenizer, kept)
        line(f"trimmed vocabulary, {len(kept):,} pieces", torch_run(model), bytes_of_child(model), tokenizer)
    return lines


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", help="Part of the names of the lines to measure.")
    parser.add_argument("--pairs", type=int, help="Pairs of STS-B, the first ones; by default all.")
    given = parser.parse_args()
    torch.manual_seed(0)
    head = ["weights", "cosine with single precision", "nearest sentence kept", "STS-B", "MB"]
    print(table(head, measure(given.only, given.pairs)))
