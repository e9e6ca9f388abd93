"""Push and pull super-nets, children and tables: the only package that speaks HTTP to the Hub."""

from typing import TYPE_CHECKING

from hf_nasbert.lazy import load_on_first_use

if TYPE_CHECKING:
    from hf_nasbert.hub.arguments import PullArguments as PullArguments
    from hf_nasbert.hub.arguments import PushArguments as PushArguments
    from hf_nasbert.hub.contents import Contents as Contents
    from hf_nasbert.hub.contents import gather as gather
    from hf_nasbert.hub.proof import check_leaves_home as check_leaves_home
    from hf_nasbert.hub.pulling import Pulled as Pulled
    from hf_nasbert.hub.pulling import pull as pull
    from hf_nasbert.hub.pushing import Pushed as Pushed
    from hf_nasbert.hub.pushing import push as push

__getattr__, __dir__, __all__ = load_on_first_use(__name__)
