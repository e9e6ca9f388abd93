"""Find a better BERT for a budget: train one super-net, search its children, publish the winner as a Hub model.

The names below load on first use, so that `import hf_nasbert` and `hf-nasbert --help` are instant.
"""

import importlib
import importlib.abc
import importlib.machinery
import importlib.util
import sys
import types
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hf_nasbert.child_folders import save_child
    from hf_nasbert.costs import Budget
    from hf_nasbert.extraction import extract_child, load_supernet
    from hf_nasbert.modeling import (
        NasBertConfig,
        NasBertForMaskedLM,
        NasBertForMultipleChoice,
        NasBertForQuestionAnswering,
        NasBertForSequenceClassification,
        NasBertForTokenClassification,
        NasBertModel,
        SupernetConfig,
        SupernetForMaskedLM,
        SupernetModel,
    )
    from hf_nasbert.modeling.families import from_bert, to_bert
    from hf_nasbert.samplers import FairSampler, GradualSampler, UniformSampler
    from hf_nasbert.space import Architecture, SearchSpace

    __version__: str


class _AfterTransformers(importlib.abc.MetaPathFinder):
    """Imports our models right after transformers, which registers them with its Auto classes.

    So `AutoModel.from_pretrained` knows a child as soon as both packages are imported, in either order, and neither
    torch nor transformers is loaded for those who only count architectures or read `--help`.
    """

    _is_asking = False

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> importlib.machinery.ModuleSpec | None:
        if name != "transformers" or self._is_asking:
            return None
        self._is_asking = True  # the spec is the next finder's
        try:
            spec = importlib.util.find_spec(name)
        finally:
            self._is_asking = False
        if spec is not None and spec.loader is not None:
            loader, execute = spec.loader, spec.loader.exec_module

            def execute_and_register(module: types.ModuleType) -> None:
                if self in sys.meta_path:  # looked up is not yet imported: many ask whether transformers is there
                    sys.meta_path.remove(self)
                execute(module)
                importlib.import_module("hf_nasbert.modeling.auto_classes")

            setattr(loader, "exec_module", execute_and_register)  # noqa: B010 - of this one loader object
        return spec


if "transformers" in sys.modules:
    importlib.import_module("hf_nasbert.modeling.auto_classes")
else:
    sys.meta_path.insert(0, _AfterTransformers())

_HOME_OF = {
    "hf_nasbert.costs": ("Budget",),
    "hf_nasbert.child_folders": ("save_child",),
    "hf_nasbert.extraction": ("extract_child", "load_supernet"),
    "hf_nasbert.modeling.families": ("from_bert", "to_bert"),
    "hf_nasbert.modeling": (
        "NasBertConfig",
        "NasBertForMaskedLM",
        "NasBertForMultipleChoice",
        "NasBertForQuestionAnswering",
        "NasBertForSequenceClassification",
        "NasBertForTokenClassification",
        "NasBertModel",
        "SupernetConfig",
        "SupernetForMaskedLM",
        "SupernetModel",
    ),
    "hf_nasbert.samplers": ("FairSampler", "GradualSampler", "UniformSampler"),
    "hf_nasbert.space": ("Architecture", "SearchSpace"),
}
_MODULE_OF = {name: module for module, names in _HOME_OF.items() for name in names}

__all__ = [*_MODULE_OF]


def __getattr__(name: str) -> Any:
    if name == "__version__":
        return importlib.import_module("importlib.metadata").version("hf_nasbert")
    if name not in _MODULE_OF:
        raise AttributeError(f"module 'hf_nasbert' has no attribute {name!r}")
    return getattr(importlib.import_module(_MODULE_OF[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_MODULE_OF, "__version__"})
