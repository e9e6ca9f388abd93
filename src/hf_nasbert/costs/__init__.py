"""What a child costs, without running it: parameters, FLOPs, peak memory, tabled latency; and budgets."""

from hf_nasbert.costs.budget import Budget, Share, in_digits, parse_cap, parse_quantity
from hf_nasbert.costs.carrying import CarriedTable, carry_table
from hf_nasbert.costs.child import Cost, CostFunction, bert_beside, cost_function, order_of
from hf_nasbert.costs.counts import (
    block_peaks,
    flops,
    num_parameters,
    operator_flops,
    operator_parameters,
    peak_activation_bytes,
)
from hf_nasbert.costs.feasibility import affordable, cheapest
from hf_nasbert.costs.latency import LATENCY_SIZES, LatencyTable, latency_sizes, operator_key

__all__ = [
    "LATENCY_SIZES",
    "Budget",
    "CarriedTable",
    "Cost",
    "CostFunction",
    "LatencyTable",
    "Share",
    "affordable",
    "bert_beside",
    "block_peaks",
    "carry_table",
    "cheapest",
    "cost_function",
    "flops",
    "in_digits",
    "latency_sizes",
    "num_parameters",
    "operator_flops",
    "operator_key",
    "operator_parameters",
    "order_of",
    "parse_cap",
    "parse_quantity",
    "peak_activation_bytes",
]
