"""Cards: valid metadata, every number from the record, nothing invented, and no text that becomes markup."""

import functools
import json
import re
from itertools import pairwise

import pytest
import yaml
from huggingface_hub import ModelCard, ModelCardData
from hypothesis import given, settings
from hypothesis import strategies as st

from hf_nasbert.cards import (
    FOR_PUBLISHING,
    ChildRecord,
    CompressedRecord,
    Evaluation,
    SupernetRecord,
    check_card,
    datasets_of,
    fill_page,
    marked_tables,
    metadata_problems,
    quoted_texts,
    render_child_card,
    render_compressed_card,
    render_finetuned_card,
    render_supernet_card,
    title_of,
    without_quotes,
)
from hf_nasbert.data.examples import example_of, sentence_of
from hf_nasbert.native import CODE_NEEDS
from hf_nasbert.space import SearchSpace

RECORD = {
    "name": "Little film BERT",
    "architecture": "conv3-attention-ffn-conv5-skip-skip",
    "hub_id": "someone/little-film-bert",
    "summary": "Made in 12 minutes.",
    "license": "apache-2.0",
    "language": "en",
    "datasets": ["stanfordnlp/imdb"],
    "base_model": "someone/supernet",
    "tags": ["films"],
    "model": {"hidden_size": 128, "vocab_size": 8192},
    "cost": {"num_parameters": 3434567, "flops": 123456789, "latency_ms": 3.219876},
    "bert_cost": {"name": "BERT of 2 layers", "num_parameters": 3512345, "flops": 134567891},
    "cost_conditions": "One text of 128 tokens, one thread.",
    "supernet": {"method": "magic_at", "num_children": 4096, "num_steps": 3001, "seed": 7},
    "search": {"method": "evolution", "num_scored": 1009, "budget": {"max_parameters": 3500000}, "proxy_loss": 4.5678},
    "training": {"num_steps": 611},
    "max_logit_difference": 0.0,
    "evaluations": [
        {
            "task": "text-classification",
            "dataset": "Rotten Tomatoes",
            "dataset_id": "cornell-movie-review-data/rotten_tomatoes",
            "split": "test",
            "num_examples": 1066,
            "metric": "accuracy",
            "values": [0.70, 0.71, 0.72],
            "seeds": [0, 1, 2],
            "baseline": "BERT of 2 layers",
            "baseline_values": [0.69, 0.70, 0.74],
        },
        {"task": "fill-mask", "dataset": "IMDb", "metric": "loss", "values": [4.321]},
    ],
    "figures": {name: f"figures/{name}.png" for name in ("architecture", "front", "training", "operators")},
    "limits": ["One genre only."],
    "versions": {"torch": "2.13.0"},
}
MINIMAL = {"name": "child", "architecture": "attention-ffn"}
SPACE = SearchSpace.staged(2, 3, ("attention", "ffn", "conv3", "skip"), widths=(32, 64))
SUPERNET = {
    **{name: RECORD[name] for name in ("name", "hub_id", "summary", "license", "language", "datasets", "tags")},
    **{name: RECORD[name] for name in ("model", "limits", "versions")},
    "search_space": SPACE.to_dict(),
    "example": "attention@32-ffn@32-skip-conv3@64-skip-skip",
    "cost": {"parameters of the super-net": 9876543},
    "cost_conditions": "Weights in fp32.",
    "training": {"method": "fair", "num_steps": 3001, "seed": 7},
    "search": {"num_scored": 1009, "best child": "attention@32-skip-skip-ffn@64-skip-skip"},
    "ranking": {"Kendall's tau-b": 0.6543, "children": 211},
    "figures": {name: f"{name}.png" for name in ("front", "training", "operators")},
    "evaluations": [RECORD["evaluations"][1]],
}
MINIMAL_SUPERNET = {"name": "super-net", "search_space": SearchSpace.of_blocks(["ffn", "ffn,conv3"]).to_dict()}


def section(card: str, title: str) -> str:
    return card.split(f"## {title}\n")[1].split("\n## ")[0]


class TestMetadata:
    def test_says_what_the_hub_reads(self):
        data = ModelCard(render_child_card(RECORD)).data
        assert data.library_name == "transformers"
        assert data.pipeline_tag == "fill-mask"
        assert data.license == "apache-2.0"
        assert data.language == "en"
        assert data.datasets == ["stanfordnlp/imdb"]
        assert data.base_model == "someone/supernet"
        assert {"nasbert", "neural-architecture-search", "films"} <= set(data.tags)
        (loss,) = data.eval_results
        assert (loss.metric_type, loss.metric_value) == ("loss", 4.321)
        assert data.model_name == "Little film BERT"

    def test_results_of_fine_tuned_copies_are_not_those_of_the_repository(self):
        tuned = {**RECORD["evaluations"][0], "split_by": "hf_nasbert"}
        card = render_child_card({**MINIMAL, "evaluations": [tuned]})
        assert ModelCard(card).data.eval_results is None
        rows = section(card, "Evaluation")
        assert "| After fine-tuning |" in rows
        assert "This model" not in rows
        assert "splits of `Rotten Tomatoes` were made by `hf_nasbert`: they are not the published ones" in rows
        assert "were made by" not in section(render_child_card(RECORD), "Evaluation")
        head = {"task": "rt", "hub_task": "text-classification", "seed": 1, "start": "child"}
        (own,) = ModelCard(render_finetuned_card({"name": "x", **head, "evaluations": [tuned]})).data.eval_results
        assert (own.metric_value, own.dataset_name) == (0.71, "Rotten Tomatoes, split by hf_nasbert")
        assert (own.dataset_type, own.dataset_split) == ("cornell-movie-review-data/rotten_tomatoes", "test")
        net = render_supernet_card({**MINIMAL_SUPERNET, "evaluations": [tuned]})
        assert ModelCard(net).data.eval_results is None

    def test_is_silent_about_what_nobody_said(self):
        data = ModelCard(render_child_card(MINIMAL)).data.to_dict()
        assert set(data) == {"library_name", "pipeline_tag", "tags"}

    def test_a_stock_bert_needs_no_flag(self):
        card = render_child_card({**MINIMAL, "native": True})
        assert "trust_remote_code" not in card
        assert CODE_NEEDS not in card
        assert "bert" in ModelCard(card).data.tags
        assert "trust_remote_code=True" in render_child_card(MINIMAL)
        assert f"needs {CODE_NEEDS}." in render_child_card(MINIMAL)


class TestCheck:
    """The Hub's own library reads every card we render, and what it reads is what the record said."""

    @pytest.mark.parametrize("card", [render_child_card(RECORD), render_supernet_card(SUPERNET)], ids=["child", "net"])
    def test_survives_a_yaml_round_trip(self, card):
        data = check_card(card, FOR_PUBLISHING)
        again = ModelCardData(**yaml.safe_load(data.to_yaml()), ignore_metadata_errors=False)
        assert again.to_dict() == data.to_dict()
        assert again.eval_results == data.eval_results

    @pytest.mark.parametrize("card", [render_child_card(MINIMAL), render_supernet_card(MINIMAL_SUPERNET)])
    def test_the_least_card_is_valid_and_not_for_publishing(self, card):
        check_card(card)
        with pytest.raises(ValueError, match="metadata lack license, language"):
            check_card(card, FOR_PUBLISHING)

    @pytest.mark.parametrize(
        ("old", "new", "message"),
        [
            ("library_name: transformers\n", "", "lack library_name"),
            ("pipeline_tag: fill-mask\n", "pipeline_tag:\n", "lack pipeline_tag"),
            ("value: 4.321\n", "value: high\n", "is 'high', not a number"),
            ("      value: 4.321\n", "", "[Ii]nvalid metadata|model-index|['\"]value['\"]"),
            ("language: en", "language: [en", "while parsing"),
        ],
    )
    def test_what_is_missing_is_named(self, old, new, message):
        card = render_child_card(RECORD)
        assert old in card
        with pytest.raises((ValueError, KeyError, yaml.YAMLError), match=message):
            check_card(card.replace(old, new))

    def test_metadata_alone_are_no_card(self):
        with pytest.raises(ValueError, match="says nothing"):
            check_card(render_child_card(MINIMAL).split("\n# ")[0])


class TestText:
    def test_every_number_of_the_record_is_there(self):
        card = render_child_card(RECORD)
        body = card.split("---\n", 2)[2]
        for number in (
            *("128", "8,192", "3,434,567", "123,456,789", "3.22", "3,512,345", "134,567,891"),
            *("4,096", "3,001", "7", "1,009", "3,500,000", "4.568", "611", "1,066", "2.13.0"),
        ):
            assert re.search(rf"(?<![\d.,]){re.escape(number)}(?![\d,])", body), number

    def test_no_number_comes_from_elsewhere(self):
        """Every number of the text is one of the record's, once the papers are left out."""
        known = json.dumps(RECORD) + " 3.22 4.568 0.7100 0.0100 0.7100 0.0265 4.3210 conv3 3 5 0 " + CODE_NEEDS
        body = render_child_card(RECORD).split("---\n", 2)[2].split("## Citation")[0]
        for number in re.findall(r"\d[\d,.]*\d|\d", body):
            assert number.replace(",", "") in known.replace(",", " "), number

    def test_means_and_spreads_are_those_of_the_seeds(self):
        rows = section(render_child_card(RECORD), "Evaluation")
        # Sample standard deviations, by hand: sqrt(2 * 0.01^2 / 2) and sqrt((0.02^2 + 0.01^2 + 0.03^2) / 2).
        assert "| 0.7100 ± 0.0100 | 0.7100 ± 0.0265 | BERT of 2 layers | 3 |" in rows
        assert "| `IMDb` | `loss` | 4.3210 | 1 |" in rows
        assert "one seed has no spread" in rows

    def test_columns_and_notes_that_nothing_fills_are_left_out(self):
        alone = {**MINIMAL, "evaluations": [RECORD["evaluations"][1]]}
        rows = section(render_child_card(alone), "Evaluation")
        assert "| Data | Metric | This model | Seeds |" in rows
        assert "±" not in rows

    @pytest.mark.parametrize(
        ("key", "trace"),
        [
            ("cost", "## Cost"),
            ("bert_cost", "BERT of the same"),
            ("cost_conditions", "one thread"),
            ("supernet", "**The super-net**"),
            ("search", "**The search**"),
            ("training", "**After the extraction**"),
            ("max_logit_difference", "logits differ"),
            ("evaluations", "## Evaluation"),
            ("versions", "## Versions"),
            ("figures", "!["),
            ("model", "hidden size"),
            ("summary", "12 minutes"),
            ("limits", "One genre only"),
        ],
    )
    def test_what_is_absent_leaves_no_section(self, key, trace):
        full = {**RECORD, "bert_cost": {"num_parameters": 1}}
        assert trace in render_child_card(full)
        assert trace not in render_child_card({name: value for name, value in full.items() if name != key})
        assert trace not in render_child_card(MINIMAL)

    def test_a_minimal_card_has_no_holes(self):
        card = render_child_card(MINIMAL)
        for hole in ("None", "nan", "[]", "{}", "| |", "\n\n\n", "()"):
            assert hole not in card
        assert card.endswith("\n")
        assert [line for line in card.splitlines() if line != line.rstrip()] == []

    def test_the_paper_of_the_method_is_cited(self):
        papers = {"uniform": "1904.00420", "fair": "1907.01845", "magic_t": "2108.12821", "magic_at": "2108.12821"}
        for method, paper in papers.items():
            citation = section(render_child_card({**MINIMAL, "supernet": {"method": method}}), "Citation")
            assert paper in citation
            assert not any(other in citation for other in set(papers.values()) - {paper})
        assert section(render_child_card(MINIMAL), "Citation").count("arxiv") == 1

    def test_operators_are_explained_once_in_order(self):
        text = section(render_child_card({**MINIMAL, "architecture": "conv5@64-ffn@64-conv5@64-skip"}), "Architecture")
        assert "`conv5@64-ffn@64-conv5@64-skip`" in text
        assert text.index("`conv5` is") < text.index("`ffn` is") < text.index("`skip` is")
        assert text.count("over 5 tokens") == 1
        assert "hidden size" in text
        assert "attention" not in text
        text = section(render_child_card({**MINIMAL, "architecture": "glu-ffn"}), "Architecture")
        assert "`glu` is a kind of operator that `operators_nasbert.py` defines" in text

    def test_the_architecture_is_drawn_where_there_is_no_figure(self):
        drawn = section(
            render_child_card({**MINIMAL, "architecture": "-".join(["attention", "ffn"] * 6)}), "Architecture"
        )
        lines = drawn.split("```")[1].strip().splitlines()
        assert len(lines) == 3
        assert max(map(len, lines)) <= 80
        assert re.findall(r"\[(\w+)\]", drawn.split("```")[1]) == ["attention", "ffn"] * 6
        with_figure = section(render_child_card(RECORD), "Architecture")
        assert "![" in with_figure
        assert "─►" not in with_figure

    def test_stages_are_told_apart_in_the_drawing(self):
        staged = {**MINIMAL, "architecture": "attention@64-ffn@64-conv3@32-skip", "stage_lengths": [2, 2]}
        drawn = section(render_child_card(staged), "Architecture")
        assert "[ffn@64] ║ ─► [conv3@32] ─► [skip] ─► masked LM" in drawn
        assert drawn.count("║") == 1
        with pytest.raises(ValueError, match=r"\[2, 3\] blocks do not hold 4"):
            render_child_card({**staged, "stage_lengths": [2, 3]})

    def test_the_same_record_gives_the_same_bytes(self):
        assert render_child_card(RECORD) == render_child_card(json.loads(json.dumps(RECORD)))
        assert render_child_card(RECORD) == render_child_card(ChildRecord.from_dict(RECORD))


NASTY = [
    "<script>alert(1)</script>",
    "[click](javascript:alert(1))",
    "![x](http://evil.example/x.png)",
    "a | b | c",
    "`code` ``more``",
    "**bold** _it_ ~~gone~~ # head",
    "---\nlicense: mit\n---\n# Owned",
    "\n\n## Heading\n\n- item",
    "1. first",
    "- [ ] task",
    "+ plus",
    "===",
    "{{ 7 * 7 }}{% raw %}",
    "&lt;b&gt; &#60;",
    "tail\\",
    '\'; import os #"""',
    "yes: [no, {a: b}] # &x *x !!python/object",
    "\u2028line\u0085sep\x00\x1b[31m\u202e",
    "www.evil.example me@evil.example http://evil.example",
    "```python\nimport os\n```",
    "<!-- comment",
    "    indented",
    "> quote",
    "<div onclick=alert(1) ",
]


def record_with(text: str) -> dict:
    """A record with one text in every place that takes one."""
    evaluation = {**RECORD["evaluations"][0], "task": text, "dataset": text, "dataset_id": text, "split": text}
    evaluation |= {"metric": text, "baseline": text, "dataset_config": text, "split_by": text}
    return {
        **RECORD,
        **{"name": text, "summary": text, "tags": [text], "cost_conditions": text, "limits": [text, text]},
        "mask_token": text,
        "model": {text: text, "hidden_size": 128},
        "cost": {**RECORD["cost"], text: text},
        "bert_cost": {**RECORD["bert_cost"], "name": text},
        "supernet": {"method": f"my {text}", "data": [text, {text: text}]},
        "search": {text: {text: text}},
        "training": {text: text},
        "versions": {text: text},
        "evaluations": [evaluation, {**evaluation, "task": "fill-mask"}],
    }


def supernet_with(text: str) -> dict:
    """The same for a super-net."""
    child = record_with(text)
    return {
        **SUPERNET,
        **{name: child[name] for name in ("name", "summary", "tags", "limits", "model", "versions", "evaluations")},
        "cost_conditions": text,
        "cost": {text: text},
        "training": {"method": f"my {text}", text: text},
        "search": {text: [text]},
        "ranking": {text: {text: 1.5}},
    }


def structure(card: str) -> list:
    """What a Markdown reader builds of a card, texts left out."""
    markdown_it = pytest.importorskip("markdown_it", reason="comes with rich, which comes with huggingface_hub")
    parser = markdown_it.MarkdownIt("commonmark", {"html": True}).enable(["table", "strikethrough"])
    body = card.split("\n---\n", 1)[1]

    def walk(tokens):
        for token in tokens:
            if token.type not in ("text", "text_special"):
                yield token.type, token.tag, dict(token.attrs)
            yield from walk(token.children or [])

    return list(walk(parser.parse(body)))


@functools.cache
def harmless_structure(render, record_of) -> list:
    """What nasty texts are compared with: the structure of the same card with a text that does nothing."""
    return structure(render(record_of("harmless")))


class TestInjection:
    @settings(max_examples=40, deadline=None)
    @given(st.text(alphabet=st.characters(codec="utf-8"), min_size=1, max_size=30))
    def test_no_text_becomes_markup(self, text):
        if not text.strip() or not any(sign.isprintable() and not sign.isspace() for sign in text):
            text += "x"
        card = render_child_card(record_with(text))
        assert structure(card) == harmless_structure(render_child_card, record_with)

    @pytest.mark.parametrize("text", NASTY)
    def test_known_attacks_stay_text(self, text):
        card = render_child_card(record_with(text))
        assert structure(card) == harmless_structure(render_child_card, record_with)
        card = render_supernet_card(supernet_with(text))
        assert structure(card) == harmless_structure(render_supernet_card, supernet_with)

    def test_addresses_do_not_become_links(self):
        """GitHub's dialect, which the Hub reads, links bare addresses; CommonMark, checked above, does not."""
        card = render_child_card({**MINIMAL, "limits": ["www.evil.example me@evil.example http://evil.example"]})
        assert r"- www\.evil.example me\@evil.example http\://evil.example" in card

    def test_the_test_sees_markup(self):
        """Sanity check: the structure of a card changes where a text does become markup."""
        card = render_child_card(RECORD)
        plain = structure(card)
        for change in ("<b>", "**x**", "[x](y)", "\n\n## x\n\n", "| x |"):
            assert structure(card.replace("BERT of 2 layers", change)) != plain

    @pytest.mark.parametrize("text", NASTY)
    def test_metadata_keeps_its_shape(self, text):
        data = ModelCard(render_child_card(record_with(text))).data
        assert data.license == "apache-2.0"
        assert data.pipeline_tag == "fill-mask"
        one_line = " ".join("".join(sign if sign.isprintable() else " " for sign in text).split())
        assert data.model_name == one_line
        assert data.tags[-1] == one_line
        assert data.eval_results[0].metric_type == one_line

    @pytest.mark.parametrize("text", NASTY)
    def test_the_snippet_stays_python(self, text):
        card = render_child_card({**MINIMAL, "mask_token": text})
        snippet = re.search(r"```python\n(.*?)\n```", card, re.DOTALL)[1]
        said = []
        source = snippet.replace("from transformers import pipeline", "")
        exec(source, {"pipeline": lambda task, **kwargs: said.append, "print": lambda *args: None})
        assert said == [f"Paris is the capital of {text}."]

    @pytest.mark.parametrize("text", NASTY)
    def test_an_example_of_the_users_own_text_stays_python(self, text):
        card = render_child_card({**MINIMAL, "example": text})
        snippet = re.search(r"```python\n(.*?)\n```", card, re.DOTALL)[1]
        said = []
        source = snippet.replace("from transformers import pipeline", "")
        exec(source, {"pipeline": lambda task, **kwargs: said.append, "print": lambda *args: None})
        assert said == [text]


class TestSupernetCard:
    def test_metadata(self):
        data = ModelCard(render_supernet_card(SUPERNET)).data
        assert data.library_name == "hf_nasbert", "transformers alone cannot load it"
        assert data.pipeline_tag == "fill-mask"
        assert "supernet" in data.tags
        assert (data.license, data.language, data.datasets) == ("apache-2.0", "en", ["stanfordnlp/imdb"])

    def test_says_what_its_record_says(self):
        card = render_supernet_card(SUPERNET)
        for number in ("9,876,543", "3,001", "1,009", "0.6543", "211", f"{SPACE.num_children:,}", "8,192"):
            assert number in card, number
        assert "| 0 | 0 to 2 | `attention`, `ffn`, `conv3`, `skip` | 32, 64 |" in card
        assert "1904.00420" not in section(card, "Citation")
        assert "1907.01845" in section(card, "Citation")
        assert SUPERNET["example"] in card
        assert card == render_supernet_card(SupernetRecord.from_dict(json.loads(json.dumps(SUPERNET))))

    def test_runs_of_equal_blocks_are_one_row(self):
        space = SearchSpace.of_blocks(["ffn", "ffn,conv3", "ffn,conv3", "attention"])
        rows = section(render_supernet_card({**MINIMAL_SUPERNET, "search_space": space.to_dict()}), "The space")
        assert "| Stage | Choice blocks | Candidates |\n" in rows
        assert "| 0 | 0 | `ffn` |\n| 0 | 1 to 2 | `ffn`, `conv3` |\n| 0 | 3 | `attention` |" in rows

    @pytest.mark.parametrize(
        ("key", "trace"),
        [
            ("cost", "## Cost"),
            ("cost_conditions", "fp32"),
            ("training", "## How it was trained"),
            ("search", "## What was found in it"),
            ("ranking", "## How well it ranks"),
            ("evaluations", "## Evaluation"),
            ("figures", "!["),
            ("versions", "## Versions"),
            ("limits", "One genre only"),
        ],
    )
    def test_what_is_absent_leaves_no_section(self, key, trace):
        assert trace in render_supernet_card(SUPERNET)
        assert trace not in render_supernet_card({name: value for name, value in SUPERNET.items() if name != key})
        assert trace not in render_supernet_card(MINIMAL_SUPERNET)

    def test_an_unmeasured_ranking_is_said_to_be_one(self):
        assert "was not measured" in render_supernet_card(MINIMAL_SUPERNET)
        assert "was not measured" not in render_supernet_card(SUPERNET)

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"search_space": {"stages": []}}, "non-empty list of stages"),
            ({"example": "attention"}, "choice blocks"),
            ({"hub_id": "a/b/c"}, "name on the Hub"),
            ({"train": {}}, r"unknown keys \['train'\]"),
        ],
    )
    def test_odd_records_are_refused(self, change, message):
        with pytest.raises(ValueError, match=message):
            render_supernet_card({**SUPERNET, **change})


class TestPages:
    PAGE = "# Page\n<!-- table: a -->\nold | text\n<!-- end -->\nwords\n<!-- table: b-1 -->\n<!-- end -->\n"

    def test_tables_are_filled_between_their_marks_only(self, tmp_path):
        page = tmp_path / "page.md"
        page.write_text(self.PAGE)
        assert marked_tables(self.PAGE) == ["a", "b-1"]
        fill_page(page, {"b-1": "| \\1 |", "a": "new"})
        filled = page.read_text()
        assert filled == (
            "# Page\n<!-- table: a -->\nnew\n<!-- end -->\nwords\n<!-- table: b-1 -->\n| \\1 |\n<!-- end -->\n"
        )
        fill_page(page, {"a": "new"})
        assert page.read_text() == filled

    @pytest.mark.parametrize("page", ["# Page\n", "<!-- table: b -->\n<!-- end -->\n", "<!-- table: a -->\nno end\n"])
    def test_a_table_without_a_place_is_refused(self, tmp_path, page):
        (tmp_path / "page.md").write_text(page)
        with pytest.raises(ValueError, match="expected <!-- table: a --> and <!-- end -->"):
            fill_page(tmp_path / "page.md", {"a": "x"})
        assert (tmp_path / "page.md").read_text() == page


def evaluated(**fields) -> dict:
    return {"evaluations": [{"task": "x", "dataset": "d", "metric": "m", **fields}]}


class TestRefusals:
    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"licence": "mit"}, r"unknown keys \['licence'\]"),
            ({"architecture": "attention ffn"}, "operator name"),
            ({"hub_id": "a/b/c"}, "name on the Hub"),
            ({"base_model": "x\ny"}, "name on the Hub"),
            ({"datasets": ["<b>"]}, "name on the Hub"),
            ({"license": "my license"}, "license"),
            ({"figures": {"architecture": "../secret.png"}}, "relative path"),
            ({"figures": {"architecture": "http://x.example/a.png"}}, "relative path"),
            ({"figures": {"architecture": "a) [x](y.png"}}, "relative path"),
            ({"figures": {"arch": "a.png"}}, r"unknown figures \['arch'\]"),
            ({"cost": {"num_parameters": float("nan")}}, "not a finite number"),
            ({"max_logit_difference": float("inf")}, "not a finite number"),
            ({"max_logit_difference": "0"}, "max_logit_difference is .0., expected float"),
            (evaluated(values=[]), "no value"),
            (evaluated(values=[float("nan")]), "not a finite"),
            (evaluated(values=[1.0], seeds=[0, 1]), "1 values for 2 seeds"),
            (evaluated(values=[1.0], baseline="b"), "both or neither"),
            (evaluated(values=[1.0], baseline_values=[1.0]), "both or neither"),
            (evaluated(), r"missing keys \['values'\]"),
            (evaluated(values=[1.0], value=1.0), r"unknown keys \['value'\]"),
        ],
    )
    def test_odd_records_are_refused(self, change, message):
        with pytest.raises(ValueError, match=message):
            render_child_card({**MINIMAL, **change})

    def test_a_name_and_an_architecture_are_required(self):
        with pytest.raises(ValueError, match=r"missing keys \['architecture', 'name'\]"):
            render_child_card({})


class TestOrigins:
    def test_only_data_sets_on_the_hub_are_named(self, tmp_path):
        assert datasets_of({"dataset_name": "stanfordnlp/imdb"}) == ("stanfordnlp/imdb",)
        assert datasets_of({"dataset_name": str(tmp_path)}) == ()
        assert datasets_of({"dataset_name": None, "train_files": ["secret.txt"]}) == ()

    def test_a_folder_that_looks_like_a_name_is_no_data_set(self, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        (tmp_path / "mine" / "texts").mkdir(parents=True)
        assert datasets_of({"dataset_name": "mine/texts"}) == ()

    def test_titles_say_size_and_text(self):
        assert title_of(726_096, {"packaged": "imdb"}) == "A small encoder of 0.7 M parameters for text like imdb"
        assert title_of(3_912, {"train_files": ["secret.txt"]}) == "A small encoder of 3,912 parameters"
        assert "org/set" in title_of(5_000_000, {"dataset_name": "org/set"})

    def test_a_sentence_to_try_is_short(self):
        assert sentence_of(["", "  ", "one", "A plain  sentence\nof six words.", "Another one here."]) == (
            "A plain sentence of six words."
        )
        assert sentence_of(["word " * 100]) == " ".join(["word"] * 20)
        assert sentence_of(["...", ""]) is None
        texts = ["too long for the model", "this one fits"]
        assert sentence_of(texts, lambda text: len(text) < 15) == "this one fits"
        assert sentence_of(texts, lambda text: len(text) < 10) == "too long"
        assert sentence_of(texts, lambda text: False) is None


def compressed(**further):
    record = CompressedRecord(
        name="A smaller encoder",
        architecture="attention6-ffn640",
        how="searched",
        is_searched=True,
        budget="max_parameters=0.5x",
        hub_task="sentence-similarity",
        auto_class="AutoModel",
        proof=(("model", "Spearman"), ("base model", "0.82"), ("searched (saved)", "0.81")),
        is_sentence_transformer=True,
        evaluations=(
            Evaluation(task="sentence-similarity", dataset="stsb", metric="spearman_cosine", values=(0.81, 0.82)),
        ),
        training={"seed": 0},
        **further,
    )
    return render_compressed_card(record)


def test_a_smaller_encoders_card_is_what_the_hub_reads():
    card = compressed(language="de", datasets=("org/texts",), license="mit", example='Ein "Satz".')
    assert metadata_problems(card) == []
    data = check_card(card, FOR_PUBLISHING)
    assert (data.language, data.license, data.datasets) == ("de", "mit", ["org/texts"])
    (result,) = data.eval_results
    assert (result.metric_type, result.metric_value, result.dataset_name) == ("spearman_cosine", 0.815, "stsb")
    assert 'text = "Ein \\"Satz\\"."\nprint(model.encode([text]).shape)' in card
    bare = compressed()
    assert "license" not in check_card(bare).to_dict()
    assert 'text = "Paris is the capital of France."\n' in bare


class TestTextsOfTheUsersOwn:
    HOSTILE = 'say "no"\n```\n# quoted \\ <b>—\u202e'

    def test_they_are_marked_found_and_taken_out(self):
        card = compressed(example=self.HOSTILE, is_example_private=True)
        assert quoted_texts(card) == [self.HOSTILE]
        assert without_quotes(card) == compressed()
        assert len(re.findall("^```", card, flags=re.MULTILINE)) == 2, "no text ends the block"
        compile(re.findall(r"```python\n(.*?)^```", card, flags=re.DOTALL | re.MULTILINE)[0], "snippet", "exec")

    def test_public_ones_are_not(self):
        card = compressed(example=self.HOSTILE)
        assert json.dumps(self.HOSTILE) in card
        assert quoted_texts(card) == []
        assert without_quotes(card) == card

    def test_a_pair_is_taken_whole(self):
        pairs = [("one two three", "four"), ("some more words here", "and the other one")]
        assert example_of(pairs, lambda texts: True) == pairs[1]
        assert example_of(pairs[:1], lambda texts: True) == pairs[0]
        assert example_of(pairs, lambda texts: len(" ".join(texts)) <= 12) == ("one two", "four")
        assert example_of([("...", "a word")], lambda texts: True) == ()


@pytest.mark.parametrize(
    "card", [render_child_card(RECORD), render_supernet_card(SUPERNET), compressed()], ids=["child", "net", "smaller"]
)
def test_no_table_has_an_empty_head_and_no_colon_is_escaped_before_a_space(card):
    lines = card.splitlines()
    heads = [line for line, rule in pairwise(lines) if re.fullmatch(r"(\| --- )+\|", rule)]
    assert heads
    for head in heads:
        assert all(cell.strip() for cell in head.strip("|").split("|")), head
    assert r"\: " not in card


def test_labels_are_words():
    card = render_child_card({**MINIMAL, "search": {"at most num_parameters": 5}, "versions": {"hf_nasbert": "0.1"}})
    assert "| at most parameters | 5 |" in card
    assert "| `hf_nasbert` | `0.1` |" in card
