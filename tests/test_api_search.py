"""The search at the top: the command's own children, and what is to be seen of them."""

import gc
import random
import sys
import warnings

import pytest
from datasets import Dataset
from tiny.models import tiny_supernet
from tiny.texts import tiny_tokenizer

from hf_nasbert import SearchSpace, search
from hf_nasbert.api.found import SearchResult
from hf_nasbert.data import DataArguments
from hf_nasbert.extraction import prove_equal_logits
from hf_nasbert.modeling.modeling_supernet import SupernetForMaskedLM
from hf_nasbert.pipeline import SearchChildrenArguments, search_children
from hf_nasbert.scored import ScoredChild
from hf_nasbert.searching import pareto_front
from hf_nasbert.space import Architecture

SPACE = SearchSpace.chain(3, ("attention", "ffn", "conv3"))
USUAL = {
    "num_evaluations": 12, "num_dev_batches": 2, "dev_batch_size": 4, "max_seq_length": 16, "search": "evolution",
    "validation_fraction": 0.3,
}  # fmt: skip


@pytest.fixture(scope="module")
def text():
    words, rng = "the film was good bad long short and not very a plot".split(), random.Random(0)
    return [" ".join(rng.choices(words, k=30)) for _ in range(80)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    place = tmp_path_factory.mktemp("supernet")
    tiny_supernet(SPACE, hidden_size=32).save_pretrained(place)
    tiny_tokenizer().save_pretrained(place)
    return place


@pytest.fixture(scope="module")
def result(folder, text, tmp_path_factory):
    return search(folder, text, max_parameters="0.95x", **USUAL, cache_dir=str(tmp_path_factory.mktemp("cache")))


def test_the_children_are_those_of_the_command(result, folder, text, tmp_path):
    (tmp_path / "text.txt").write_text("\n".join(text))
    own = {name: value for name, value in USUAL.items() if name not in ("max_seq_length", "validation_fraction")}
    arguments = SearchChildrenArguments(
        supernet=str(folder), output=str(tmp_path / "h.jsonl"), max_parameters="0.95x", **own
    )
    data = DataArguments(
        train_files=[str(tmp_path / "text.txt")], max_seq_length=16, validation_fraction=0.3, cache_dir=str(tmp_path)
    )
    assert result.scored == tuple(search_children(arguments, data))


def test_the_best_child_and_the_front(result, folder):
    assert len(result.scored) == 12
    best = result.best
    assert best.loss == min(child.loss for child in result.scored)
    largest = max(child.cost["num_parameters"] for child in result.scored)
    supernet = SupernetForMaskedLM.from_pretrained(folder)
    assert largest <= 0.95 * 1.001 * sum(p.numel() for p in supernet.parameters_of(supernet.largest_architecture))
    points = [(child.loss, child.cost["num_parameters"]) for child in result.scored]
    assert [child.architecture for child in result.front] == [
        result.scored[place].architecture for place in pareto_front(points)
    ]
    assert result.front[0] == best
    child = best.extract()
    assert prove_equal_logits(supernet, best.architecture, child) == 0
    assert all("_supernet" not in repr(one) for one in (best, result))


def test_as_a_data_frame(result):
    frame = result.to_pandas()
    assert list(frame.columns[:3]) == ["architecture", "loss", "num_parameters"]
    assert frame["architecture"][0] == str(result.best.architecture)
    assert frame["loss"].is_monotonic_increasing
    assert frame["is_on_front"].sum() == len(result.front)


def test_as_axes(result):
    axes = result.plot()
    assert "parameters" in axes.get_xlabel()
    assert "FLOPs" in result.plot("flops").get_xlabel()
    with pytest.raises(ValueError, match="cost='speed' is none of num_parameters, flops"):
        result.plot("speed")


def test_without_matplotlib_it_says_how_to_get_it(result, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(ImportError, match=r'^plot needs matplotlib, .* pip install "hf_nasbert\[plots\]"$'):
        result.plot()


def test_as_a_table_of_a_notebook(result):
    shown = result._repr_html_()
    assert "12 children scored" in shown
    assert shown.count("<tr>") == 1 + 10
    assert str(result.best.architecture) in shown
    assert str(result).splitlines()[1].startswith(str(result.best.architecture))


def test_what_a_file_holds_is_escaped_in_a_notebook(tmp_path):
    cost = {"<script>alert(1)</script>": 1.0, "num_parameters": 2.0}
    child = ScoredChild(architecture=Architecture(("ffn",)), proxy_loss=1.0, cost=cost)
    shown = SearchResult((child,), ("num_parameters",), tmp_path / "h.jsonl", tmp_path)._repr_html_()
    assert "<script>" not in shown
    assert "&lt;script&gt;" in shown


def test_the_page(result, tmp_path):
    page = result.report(tmp_path / "page.html")
    assert str(result.best.architecture) in page.read_text(encoding="utf-8")
    with pytest.raises(ValueError, match=r"page\.pdf ends in '\.pdf'; expected \.html"):
        result.report(tmp_path / "page.pdf")


def test_no_child_has_a_finite_loss(tmp_path):
    child = ScoredChild(architecture=Architecture(("ffn",)), proxy_loss=None, cost={"num_parameters": 2.0})
    broken = SearchResult((child,), ("num_parameters",), tmp_path / "h.jsonl", tmp_path)
    with pytest.raises(ValueError, match="none of the 1 children has a finite loss: is the super-net trained"):
        broken.best  # noqa: B018
    assert broken.front == ()
    assert "inf" in broken._repr_html_()


def test_a_super_net_in_memory_and_a_call_that_goes_on(folder, result, text, tmp_path):
    supernet = SupernetForMaskedLM.from_pretrained(folder)
    settings = {**USUAL, "max_parameters": "0.95x", "output": tmp_path / "h.jsonl", "cache_dir": str(tmp_path)}
    found = search(supernet, Dataset.from_dict({"text": text}), **settings)
    assert found.scored == result.scored
    assert found._loaded is supernet
    before = (tmp_path / "h.jsonl").read_bytes()
    supernet.name_or_path = ""
    again = search(supernet, text, processing_class=tiny_tokenizer(), **settings)
    assert again.scored == result.scored
    assert (tmp_path / "h.jsonl").read_bytes() == before
    with pytest.raises(ValueError, match="does not know its tokenizer: give it as processing_class"):
        search(supernet, text, **settings)


def test_held_out_text_of_its_own(folder, text, tmp_path):
    dev = search(folder, eval_dataset=text, **USUAL, cache_dir=str(tmp_path))
    assert len(dev.scored) == 12
    with pytest.raises(ValueError, match="held-out text alone was given: give text to train on as well"):
        search(folder, eval_dataset=text, **{**USUAL, "search": "random"}, adapt_steps=1, cache_dir=str(tmp_path))


def test_the_settings_of_a_search_are_its_own(folder, text, tmp_path):
    settings = {**USUAL, "cache_dir": str(tmp_path), "num_evaluations": 3}
    search(folder, text, **settings, population_size=4)
    with pytest.raises(ValueError, match=r"population_size is a setting of .*evolution.*, and search=random"):
        search(folder, text, **{**settings, "search": "random"}, population_size=4)
    with pytest.raises(TypeError, match="max_params"):
        search(folder, text, **settings, max_params="2M")
    with pytest.raises(ValueError, match="exactly one text source is needed"):
        search(folder, **settings)


def test_temporary_files_live_as_long_as_the_result(folder, text, tmp_path):
    found = search(folder, text, **{**USUAL, "num_evaluations": 3}, cache_dir=str(tmp_path))
    history = found.history
    assert len(history.read_text().splitlines()) == 5  # the search, three children, and what they are held against
    child = found.best
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        del found
        gc.collect()
        assert history.exists()  # its best child loads the super-net
        del child
        gc.collect()
    assert not history.parent.exists()
