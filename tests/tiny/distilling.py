"""Super-nets of tiny base models and what teaches them."""

from accelerate.state import AcceleratorState
from transformers import BertModel

from hf_nasbert.modeling import NasBertForMaskedLM, NasBertForSequenceClassification, NasBertModel
from hf_nasbert.modeling.elastic import elastic_space, elastic_supernet, load_full_child
from hf_nasbert.teachers import BaseModelTeacher
from hf_nasbert.training import SupernetLoop

from .compress import base_model, batches
from .trainings import TinyBatches, make_arguments

_CHILDREN = {
    "BertModel": NasBertModel,
    "BertForMaskedLM": NasBertForMaskedLM,
    "BertForSequenceClassification": NasBertForSequenceClassification,
}


def full_child(head=BertModel, seed=0):
    """A random base model as the child that it is."""
    return load_full_child(base_model(head, seed), _CHILDREN[head.__name__])


def supernet_and_teacher(head=BertModel, seed=0):
    """The super-net of a base model, as cut, and the base model as its teacher."""
    child = full_child(head, seed)
    return elastic_supernet(child, elastic_space(child)), BaseModelTeacher(child, batches())


def make_taught_trainer(output_dir, *, head=BertModel, seed=0, supernet=None, has_base=True, padding=True, **settings):
    """A trainer of a base model's super-net."""
    made, base_model = supernet_and_teacher(head, seed)
    own = {name: settings.pop(name) for name in ("batches",) if name in settings}
    arguments = make_arguments(output_dir, **{"method": "uniform", **settings})
    given = own.get("batches") or TinyBatches(arguments.train_batch_size(1), padding=padding)
    dev_batches = [TinyBatches(4, seed=99).batch(number) for number in range(2)]
    AcceleratorState._reset_state(reset_partial_state=True)
    return SupernetLoop(
        made if supernet is None else supernet, arguments, given, dev_batches,
        base_model=base_model if has_base else None,
    )  # fmt: skip
