"""Contracts of samplers, searches, methods and models: a check raises AssertionError, and says what is broken."""

from hf_nasbert.testing.methods import check_method as check_method
from hf_nasbert.testing.models import check_model as check_model
from hf_nasbert.testing.samplers import check_sampler as check_sampler
from hf_nasbert.testing.searches import check_search as check_search
