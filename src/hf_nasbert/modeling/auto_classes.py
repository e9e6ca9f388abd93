"""Registers super-nets and children with transformers' Auto classes."""

from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForMaskedLM,
    AutoModelForMultipleChoice,
    AutoModelForQuestionAnswering,
    AutoModelForSequenceClassification,
    AutoModelForTokenClassification,
)

from .configuration_nasbert import NasBertConfig
from .configuration_supernet import SupernetConfig
from .modeling_nasbert import (
    NasBertForMaskedLM,
    NasBertForMultipleChoice,
    NasBertForQuestionAnswering,
    NasBertForSequenceClassification,
    NasBertForTokenClassification,
    NasBertModel,
    NasBertPreTrainedModel,
)
from .modeling_supernet import (
    SupernetForMaskedLM,
    SupernetForQuestionAnswering,
    SupernetForSequenceClassification,
    SupernetForTokenClassification,
    SupernetModel,
)
from .publishing import push_to_hub

AutoConfig.register("nasbert", NasBertConfig)
AutoConfig.register("nasbert_supernet", SupernetConfig)
AutoModel.register(SupernetConfig, SupernetModel)
AutoModelForMaskedLM.register(SupernetConfig, SupernetForMaskedLM)
AutoModelForSequenceClassification.register(SupernetConfig, SupernetForSequenceClassification)
AutoModelForTokenClassification.register(SupernetConfig, SupernetForTokenClassification)
AutoModelForQuestionAnswering.register(SupernetConfig, SupernetForQuestionAnswering)

# `register_for_auto_class` makes `save_pretrained` copy the files that a child needs where we are not installed.
NasBertConfig.register_for_auto_class()
for auto_class, model_class in (
    (AutoModel, NasBertModel),
    (AutoModelForMaskedLM, NasBertForMaskedLM),
    (AutoModelForSequenceClassification, NasBertForSequenceClassification),
    (AutoModelForTokenClassification, NasBertForTokenClassification),
    (AutoModelForQuestionAnswering, NasBertForQuestionAnswering),
    (AutoModelForMultipleChoice, NasBertForMultipleChoice),
):
    auto_class.register(NasBertConfig, model_class)
    model_class.register_for_auto_class(auto_class.__name__)

NasBertPreTrainedModel.push_to_hub = push_to_hub  # type: ignore[assignment, method-assign]  # the travelling file knows no Hub
