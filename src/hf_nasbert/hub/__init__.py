"""Push and pull super-nets, children and tables: the only package that speaks HTTP to the Hub."""

from typing import TYPE_CHECKING

from hf_nasbert.lazy import load_on_first_use

if TYPE_CHECKING:
    from hf_nasbert.hub.arguments import PullArguments, PushArguments
    from hf_nasbert.hub.contents import Contents, gather
    from hf_nasbert.hub.proof import check_leaves_home
    from hf_nasbert.hub.pulling import Pulled, pull
    from hf_nasbert.hub.pushing import Pushed, push

__getattr__, __dir__, __all__ = load_on_first_use(__name__)
