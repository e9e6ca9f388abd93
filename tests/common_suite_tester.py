"""Our classes under transformers' own common tests: test_common_suite.py copies this file beside them."""

import unittest

import torch
import transformers.models.auto.modeling_auto as auto

from hf_nasbert import modeling
from hf_nasbert.modeling import NasBertConfig, SupernetConfig
from hf_nasbert.space import SearchSpace

from ..test_configuration_common import ConfigTester
from ..test_modeling_common import ModelTesterMixin, ids_tensor, random_attention_mask
from ..test_training_mixin import TrainingTesterMixin

torch.set_num_threads(1)
# The suite finds out by these names which labels a class wants.
for table, head in {
    "MODEL_MAPPING_NAMES": "Model",
    "MODEL_FOR_MASKED_LM_MAPPING_NAMES": "ForMaskedLM",
    "MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES": "ForSequenceClassification",
    "MODEL_FOR_TOKEN_CLASSIFICATION_MAPPING_NAMES": "ForTokenClassification",
    "MODEL_FOR_QUESTION_ANSWERING_MAPPING_NAMES": "ForQuestionAnswering",
    "MODEL_FOR_MULTIPLE_CHOICE_MAPPING_NAMES": "ForMultipleChoice",
}.items():
    getattr(auto, table)["nasbert"] = f"NasBert{head}"
    if hasattr(modeling, f"Supernet{head}"):
        getattr(auto, table)["nasbert_supernet"] = f"Supernet{head}"


class ModelTester:
    """The sizes that the suite asks for."""

    batch_size, seq_length, is_training = 13, 7, True
    key_length = encoder_seq_length = seq_length
    vocab_size, hidden_size, num_hidden_layers, num_attention_heads = 99, 32, 2, 2
    num_labels, num_choices, type_sequence_label_size = 3, 4, 2

    def __init__(self, make_config):
        self.make_config = make_config

    def get_config(self):
        return self.make_config(
            vocab_size=99, hidden_size=32, attention_head_size=16, max_position_embeddings=512, type_vocab_size=16
        )

    def prepare_config_and_inputs_for_common(self):
        shape = [self.batch_size, self.seq_length]
        return self.get_config(), {
            "input_ids": ids_tensor(shape, 99),
            "token_type_ids": ids_tensor(shape, 16),
            "attention_mask": random_attention_mask(shape),
        }


class Common(ModelTesterMixin, TrainingTesterMixin):
    is_encoder_decoder = False
    test_mismatched_shapes = True

    def setUp(self):
        self.model_tester = ModelTester(self.make_config)
        self.config_tester = ConfigTester(self, config_class=self.config_class, hidden_size=32)

    def test_config(self):
        self.config_tester.run_common_tests()

    def _get_trainable_model_class(self):
        return next(one for one in self.all_model_classes if one.__name__.endswith("ForMaskedLM"))


class OnlyAttention(Common, unittest.TestCase):
    """As many attentions as blocks, which `test_attention_outputs` counts on."""

    config_class = NasBertConfig
    all_model_classes = tuple(
        getattr(modeling, name) for name in modeling.__all__ if name.startswith(("NasBertModel", "NasBertFor"))
    )

    @staticmethod
    def make_config(**sizes):
        return NasBertConfig(operators=["attention", "attention"], **sizes)


class Mixed(OnlyAttention):
    @staticmethod
    def make_config(**sizes):
        return NasBertConfig(operators=["conv3", "ffn"], **sizes)

    def test_attention_outputs(self):
        self.skipTest("no block attends")

    test_retain_grad_hidden_states_attentions = test_attention_outputs


class Supernet(Common, unittest.TestCase):
    config_class = SupernetConfig
    all_model_classes = (
        modeling.SupernetModel,
        modeling.SupernetForMaskedLM,
        modeling.SupernetForSequenceClassification,
        modeling.SupernetForTokenClassification,
        modeling.SupernetForQuestionAnswering,
    )

    @staticmethod
    def make_config(**sizes):
        space = SearchSpace.chain(2, ("attention", "conv3", "skip"))  # the largest child is attention alone
        return SupernetConfig(search_space=space, **sizes)

    def check_training_gradient_checkpointing(self, gradient_checkpointing_kwargs=None):
        """The suite asks for a gradient of every parameter, and operators off the path have none: without choice."""
        space = SearchSpace.chain(2, ("attention",))
        self.model_tester.make_config = lambda **sizes: SupernetConfig(search_space=space, **sizes)
        super().check_training_gradient_checkpointing(gradient_checkpointing_kwargs)


del Common, ModelTesterMixin, TrainingTesterMixin  # no tests by themselves
