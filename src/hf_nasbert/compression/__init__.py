"""A smaller version of an encoder that people already have: variants without training, their choice, recovery.

Files in the order of the work: `arguments` (what is asked), `run` (the stages, each made once), `base_models` (what is
given), `sentences` (text to batches), `vocabulary` (the pieces that a text needs), `states` (what the base model makes
of text), `importance` (which heads and neurons matter), `refit` (variants that work before any training), `distance`
(how far a child is from the base model), `scores` and `replace_one` (children and lone replacements, scored),
`encoder_costs` and `choosing` (budgets, and the child that is chosen within one), `handmade` (what people choose by
hand), `recover` (the chosen child, distilled), `proof` (the table that all are held against each other in), `results`
(what comes out). The exact choice itself is `hf_nasbert.search.knapsack`. Names load on first use, so that what the
command line knows of them needs no torch.
"""

from typing import TYPE_CHECKING

from hf_nasbert.lazy import load_on_first_use

if TYPE_CHECKING:
    from hf_nasbert.compression.arguments import CompressArguments as CompressArguments
    from hf_nasbert.compression.results import Compressed as Compressed
    from hf_nasbert.compression.results import CompressResult as CompressResult
    from hf_nasbert.compression.run import compress as compress
    from hf_nasbert.compression.run import run_compression as run_compression

_NAMES_OF = {
    "hf_nasbert.compression.arguments": ("CompressArguments",),
    "hf_nasbert.compression.results": ("Compressed", "CompressResult"),
    "hf_nasbert.compression.run": ("compress", "run_compression"),
}

__getattr__, __dir__, __all__ = load_on_first_use(__name__, _NAMES_OF)
