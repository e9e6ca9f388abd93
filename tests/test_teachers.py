"""`teachers`: whatever teaches gives constants, without dropout, of the network that it says it is."""

import copy

import pytest
import torch
from tiny.models import randomise_
from tiny.trainings import TinyBatches, make_supernet
from transformers import BertConfig, BertForMaskedLM

from hf_nasbert.extraction import extract_child
from hf_nasbert.space import Architecture
from hf_nasbert.teachers import AverageTeacher, ChildTeacher, EncoderTeacher, Teacher

CHILD, OTHER = (Architecture.parse(text) for text in ("attention-ffn-conv3-ffn", "ffn-conv3-conv3-conv3"))


@pytest.fixture
def supernet():
    made = make_supernet(dropout=0.5).train()
    randomise_(made)
    return made


@pytest.fixture
def batch():
    return TinyBatches(4, padding=True).batch(0)


@pytest.fixture
def encoder(tmp_path):
    torch.manual_seed(0)
    sizes = {"vocab_size": 60, "hidden_size": 32, "num_attention_heads": 2, "intermediate_size": 64}
    BertForMaskedLM(BertConfig(num_hidden_layers=2, max_position_embeddings=16, **sizes)).save_pretrained(tmp_path)
    return EncoderTeacher(str(tmp_path))


@pytest.mark.parametrize("kind", ["child", "average", "encoder"])
def test_what_is_taught_is_what_the_whole_network_makes_of_the_batch(kind, supernet, batch, encoder):
    """Logits at the tokens to predict, in order; all states; twice the same; no gradient; the student is unchanged."""
    teachers: dict[str, tuple[Teacher, torch.nn.Module]] = {
        "child": (ChildTeacher(supernet, CHILD), extract_child(supernet, CHILD)),
        "average": (AverageTeacher(supernet, decay=0.5).child(CHILD), extract_child(supernet, CHILD)),
        "encoder": (encoder, copy.deepcopy(encoder.model)),
    }
    teacher, whole = teachers[kind]
    inputs = {name: tensor for name, tensor in batch.items() if name != "labels"}
    with torch.no_grad():
        expected = whole.eval()(**inputs, output_hidden_states=True)
    for _ in range(2):
        taught = teacher.teach(batch, hidden_states=True)
        torch.testing.assert_close(taught.logits, expected.logits[batch["labels"] != -100])
        real = batch["attention_mask"].bool()
        for found, states in zip(taught.hidden_states, expected.hidden_states, strict=True):
            torch.testing.assert_close(found[real], states[real])
            assert not found.requires_grad
        assert not taught.logits.requires_grad
    assert teacher.teach(batch).hidden_states is None
    assert len(teacher.teach(inputs).logits) == 0
    assert all(module.training for module in supernet.modules())


def test_an_encoder_gives_the_vectors_of_its_last_attention(encoder, batch):
    vectors = encoder.teach(batch, vectors=True).vectors
    last = encoder.model.bert.encoder.layer[-1].attention.self
    states = encoder.teach(batch, hidden_states=True).hidden_states[-2]
    for name, found in zip(("query", "key", "value"), vectors, strict=True):
        torch.testing.assert_close(found, getattr(last, name)(states))


def test_a_child_has_no_such_vectors(supernet, batch):
    with pytest.raises(ValueError, match="no queries, keys and values"):
        ChildTeacher(supernet, CHILD).teach(batch, vectors=True)


def test_an_average_moves_by_its_decay_and_only_where_a_child_was_trained(supernet):
    teacher = AverageTeacher(supernet, decay=0.75)
    before = {name: tensor.clone() for name, tensor in teacher.average.named_parameters()}
    with torch.no_grad():
        for parameter in supernet.parameters():
            parameter += 1.0
    teacher.update(supernet, [CHILD])
    trained = {id(parameter) for parameter in supernet.parameters_of(CHILD)}
    names = {name for name, parameter in supernet.named_parameters() if id(parameter) in trained}
    assert 0 < len(names) < len(before)
    for name, mean in teacher.average.named_parameters():
        torch.testing.assert_close(mean, before[name] + (0.25 if name in names else 0.0))
        assert not mean.requires_grad
    with pytest.raises(ValueError, match="decay=1"):
        AverageTeacher(supernet, decay=1)
