"""`teachers`: whatever teaches gives constants, without dropout, of the network that it says it is."""

import copy

import pytest
import torch
from safetensors.torch import load_file, save_file
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


def train(supernet, teacher, steps):
    """Move a child's weights a little at every step, as an optimizer would, and the averages with them."""
    for step in steps:
        child = (CHILD, OTHER)[step % 2]
        generator = torch.Generator().manual_seed(step)
        with torch.no_grad():
            for parameter in supernet.parameters_of(child):
                parameter += 0.1 * torch.randn(parameter.shape, generator=generator)
        teacher.update(supernet, [child])


def test_averages_go_on_to_the_same_bits(supernet, tmp_path):
    straight, stopped = copy.deepcopy(supernet), copy.deepcopy(supernet)
    expected, teacher = (AverageTeacher(one, decay=0.9) for one in (straight, stopped))
    assert not teacher.state_dict(), "nothing is averaged yet"
    train(straight, expected, range(6))
    train(stopped, teacher, range(3))
    save_file(teacher.state_dict(), tmp_path / "averages.safetensors")
    resumed = copy.deepcopy(stopped)  # as its checkpoint gives it back
    again = AverageTeacher(resumed, decay=0.9)
    again.load_state_dict(load_file(tmp_path / "averages.safetensors"))
    train(resumed, again, range(3, 6))
    assert again.state_dict().keys() == expected.state_dict().keys()
    found = dict(again.average.named_parameters())
    for name, mean in expected.average.named_parameters():
        assert torch.equal(found[name], mean), name


def test_only_what_was_averaged_is_saved(supernet):
    teacher = AverageTeacher(supernet, decay=0.9)
    teacher.update(supernet, [CHILD])
    trained = {id(parameter) for parameter in supernet.parameters_of(CHILD)}
    assert teacher.state_dict().keys() == {n for n, p in supernet.named_parameters() if id(p) in trained}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda state, name: state | {"nobody": state[name]}, "has 'nobody', which this super-net has not"),
        (lambda state, name: state | {name: state[name][:-1]}, "of shape .*, expected torch.float32 of shape"),
        (lambda state, name: state | {name: state[name].half()}, "torch.float16"),
    ],
)
def test_averages_of_another_super_net_are_refused_and_change_nothing(supernet, change, words):
    teacher, other = (AverageTeacher(supernet, decay=0.9) for _ in range(2))
    train(supernet, teacher, range(2))
    state = teacher.state_dict()
    before = {name: mean.clone() for name, mean in other.average.named_parameters()}
    with pytest.raises(ValueError, match=words):
        other.load_state_dict(change(state, list(state)[-1]))
    assert all(torch.equal(mean, before[name]) for name, mean in other.average.named_parameters())
    assert not other.state_dict()
