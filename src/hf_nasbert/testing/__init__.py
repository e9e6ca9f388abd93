"""Contracts for samplers, methods and models of one's own: a check raises AssertionError with what is broken."""

from hf_nasbert.testing.methods import check_method
from hf_nasbert.testing.models import check_model
from hf_nasbert.testing.samplers import check_sampler

__all__ = ["check_method", "check_model", "check_sampler"]
