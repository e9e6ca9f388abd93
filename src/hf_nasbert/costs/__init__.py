"""What a child costs, without running it: parameters, FLOPs, peak memory, tabled latency; and budgets."""

from hf_nasbert.costs.budget import Budget as Budget
from hf_nasbert.costs.budget import Share as Share
from hf_nasbert.costs.budget import in_digits as in_digits
from hf_nasbert.costs.budget import parse_cap as parse_cap
from hf_nasbert.costs.budget import parse_quantity as parse_quantity
from hf_nasbert.costs.carrying import CarriedTable as CarriedTable
from hf_nasbert.costs.carrying import carry_table as carry_table
from hf_nasbert.costs.child import Cost as Cost
from hf_nasbert.costs.child import CostFunction as CostFunction
from hf_nasbert.costs.child import bert_beside as bert_beside
from hf_nasbert.costs.child import cost_function as cost_function
from hf_nasbert.costs.child import order_of as order_of
from hf_nasbert.costs.counts import block_peaks as block_peaks
from hf_nasbert.costs.counts import flops as flops
from hf_nasbert.costs.counts import num_parameters as num_parameters
from hf_nasbert.costs.counts import operator_flops as operator_flops
from hf_nasbert.costs.counts import operator_parameters as operator_parameters
from hf_nasbert.costs.counts import peak_activation_bytes as peak_activation_bytes
from hf_nasbert.costs.feasibility import affordable as affordable
from hf_nasbert.costs.feasibility import cheapest as cheapest
from hf_nasbert.costs.latency import LATENCY_SIZES as LATENCY_SIZES
from hf_nasbert.costs.latency import LatencyTable as LatencyTable
from hf_nasbert.costs.latency import latency_sizes as latency_sizes
from hf_nasbert.costs.latency import operator_key as operator_key
