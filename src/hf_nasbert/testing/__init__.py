"""Contracts, published for people who write a part of their own: what the tests hold the package's own parts to."""
