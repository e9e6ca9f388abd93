"""The names of the weight layouts, which a command line knows without torch."""

import sys

LAYOUT_NAMES = ("separate", "nested", "entangled", "experts")
"""Those that come with this package: the keys of `layouts.LAYOUTS`."""


def known_layouts() -> tuple[str, ...]:
    """The names of all layouts, with those that were added to `LAYOUTS`: whoever did so has loaded it."""
    loaded = sys.modules.get("hf_nasbert.modeling.layouts")
    return LAYOUT_NAMES if loaded is None else tuple(loaded.LAYOUTS)
