"""What the package shows in Python at its top: the trainer of super-nets, and the search, each with its result."""
