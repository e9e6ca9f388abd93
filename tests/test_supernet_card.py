"""A super-net's card: what its folder and its scores say, and a snippet that runs as it stands."""

import json
import re

import pytest
from tiny.models import tiny_supernet
from transformers import AutoModelForMaskedLM

from hf_nasbert import records
from hf_nasbert.cards import check_card, render_supernet_card
from hf_nasbert.costs import num_parameters
from hf_nasbert.pipeline import describe_supernet, write_supernet_card
from hf_nasbert.scored import ScoredChild
from hf_nasbert.space import Architecture

SCORED = [
    ScoredChild(architecture=Architecture.parse(text), proxy_loss=loss, cost={})
    for text, loss in (
        ("attention-ffn-conv3-skip-skip", 3.25),
        ("conv7-ffn-conv5-ffn-skip", 3.125),
        ("ffn-ffn-ffn-ffn-ffn", None),
    )
]


@pytest.mark.parametrize("shape", ["chain-with-skip", "staged"])
def test_sizes_are_those_of_the_super_net_and_its_children(tmp_path, shape):
    supernet = tiny_supernet(shape)
    supernet.save_pretrained(tmp_path)
    record = describe_supernet(tmp_path)
    sizes = [num_parameters(supernet.config, child) for child in supernet.space.enumerate()]
    total = sum(parameter.numel() for parameter in supernet.parameters())
    assert list(record.cost.values()) == [total, min(sizes), max(sizes)]
    assert record.search == record.training == {}
    check_card(render_supernet_card(record))


def test_the_card_says_what_run_and_scores_say(tmp_path):
    tiny_supernet("chain-with-skip").save_pretrained(tmp_path)
    arguments = {"method": "fair", "seed": 3, "max_steps": 70}
    records.extend(
        tmp_path / "train_log.jsonl",
        [{"event": "start", "step": 0, "arguments": arguments}, {"event": "finish", "step": 70}],
    )
    record = describe_supernet(tmp_path, SCORED, license="mit", language="en", training={"text": "made up"})
    assert record.training == {"method": "fair", "num_steps": 70, "seed": 3, "text": "made up"}
    assert list(record.search.values()) == [2, "conv7-ffn-conv5-ffn-skip", 3.125]
    figure = tmp_path / "front.png"
    figure.write_bytes(b"")
    (tmp_path / "net").mkdir()
    card = write_supernet_card(tmp_path / "net", record, [figure])
    assert {file.name for file in (tmp_path / "net").iterdir()} == {"README.md", "card.json", "front.png"}
    assert card.read_text() == render_supernet_card(json.loads((tmp_path / "net" / "card.json").read_text()))


def test_the_snippet_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    tiny_supernet("chain-with-skip").save_pretrained(tmp_path / "net")
    record = describe_supernet(tmp_path / "net", SCORED)
    (snippet,) = re.findall(r"```python\n(.*?)```", render_supernet_card(record), flags=re.DOTALL)
    assert '"path/to/this/folder"' in snippet
    exec(snippet.replace("path/to/this/folder", "net"), {})
    child = AutoModelForMaskedLM.from_pretrained(tmp_path / "my-child")
    assert "-".join(child.config.operators) == "conv7-ffn-conv5-ffn-skip"


def test_a_folder_without_a_super_net_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"holds no super-net: expected config\.json"):
        describe_supernet(tmp_path)
