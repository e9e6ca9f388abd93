"""A smaller version of an encoder that people already have: variants without training, their choice, recovery.

`run` has the stages in their order; every other file is one step of them, which its first line names. The exact choice
itself is `hf_nasbert.searching.knapsack`. Names load on first use, so that what the command line knows of them needs
no torch.
"""

from typing import TYPE_CHECKING

from hf_nasbert.lazy import load_on_first_use

if TYPE_CHECKING:
    from hf_nasbert.compression.arguments import CompressArguments as CompressArguments
    from hf_nasbert.compression.arguments import CompressDataArguments as CompressDataArguments
    from hf_nasbert.compression.plan import Plan as Plan
    from hf_nasbert.compression.plan import plan_compression as plan_compression
    from hf_nasbert.compression.plan import run_plan as run_plan
    from hf_nasbert.compression.results import Compressed as Compressed
    from hf_nasbert.compression.results import CompressResult as CompressResult
    from hf_nasbert.compression.run import compress as compress
    from hf_nasbert.compression.run import run_compression as run_compression

__getattr__, __dir__, __all__ = load_on_first_use(__name__)
