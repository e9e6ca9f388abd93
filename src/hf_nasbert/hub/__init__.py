"""Push and pull super-nets, children and tables: the only room that speaks HTTP to the Hub."""

from hf_nasbert.hub.contents import Contents, gather
from hf_nasbert.hub.proof import check_leaves_home
from hf_nasbert.hub.pulling import PullArguments, Pulled, pull
from hf_nasbert.hub.pushing import PushArguments, Pushed, push

__all__ = [
    "Contents",
    "PullArguments",
    "Pulled",
    "PushArguments",
    "Pushed",
    "check_leaves_home",
    "gather",
    "pull",
    "push",
]
