"""A smaller version of an encoder that people already have: variants without training, their choice, recovery.

Files in the order of the work: `sentences` (text to batches), `states` (what the base model makes of them),
`importance` (which heads and neurons matter), `refit` (variants that work before any training), `distance` (how far a
child is from the base model), `scores` and `replace_one` (children and lone replacements, scored), `handmade` (what
people choose by hand), `recover` (the chosen child, distilled). The choice itself is `hf_nasbert.search.knapsack`.
"""
