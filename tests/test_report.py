"""Reports: what stands on the page is what the records say, nothing of them is code, and bad records are one line."""

import html
import json
import random
import re
import shlex
from html.parser import HTMLParser
from pathlib import Path

import pytest
from tiny.records import ABOUT, CHILDREN, SPACE, child, history

from hf_nasbert import cli, records
from hf_nasbert.pipeline import ExtractionArguments
from hf_nasbert.pipeline.inputs import weights_digest
from hf_nasbert.recipe_arguments import parse_recipe_arguments
from hf_nasbert.report import read_findings, render_search_report
from hf_nasbert.report.drawing import BOTTOM, LEFT, RIGHT, TOP, draw_scatter, draw_shares, draw_trajectory, unit_of
from hf_nasbert.space import Architecture, SearchSpace


def flat(children=CHILDREN, **settings):
    """As `score_children` writes them."""
    names = ("architecture", "proxy_loss", "num_parameters", "flops")
    return [{**dict(zip(names, values, strict=True)), **ABOUT, **settings} for values in children]


class Page(HTMLParser):
    """The tags of a page with their attributes, and its text without styles and scripts."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.words, self.scripts, self._inside = [], [], [], ""
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        self._inside = tag

    def handle_endtag(self, tag):
        self._inside = ""

    def handle_data(self, data):
        if self._inside == "script":
            self.scripts.append(data)
        elif self._inside != "style":
            self.words.append(data)

    @property
    def text(self):
        return " ".join(" ".join(self.words).split())

    def all(self, tag, **attributes):
        wanted = {name.rstrip("_"): value for name, value in attributes.items()}
        return [found for name, found in self.tags if name == tag and wanted.items() <= found.items()]


def page(found, supernet="runs/supernet", **further):
    return Page(render_search_report(found, supernet=supernet, **further))


def points(path):
    return [tuple(map(float, pair)) for pair in re.findall(r"M(\S+) (\S+?)h0", path)]


def commands(text):
    return re.findall(r"<code>(.*?)</code>", text)


def test_the_page_says_what_was_searched():
    text = page(history(budget={"num_parameters": 1_450_000})).text
    for words in (
        "search evolution, seed 3",
        "digest of its weights) f11cb030a2258e7f",
        "text imdb",
        "budget at most 1,450,000 parameters",
        "children in the space 27",
        "children scored 5",
        "the best of 5",
        "batches of held-out text 4",
        "torch 2.13.0",
    ):
        assert words in text, words
    assert "budget none" in page(history()).text
    assert "without a finite loss" not in text
    scored = page(flat()).text
    assert "f11cb030a2258e7f" in scored
    assert "budget" not in scored, "children that were given were under none"


def test_the_winner_and_its_numbers():
    found = page(history())
    assert "proxy loss (nats per masked token) 5.1250 parameters 1,400,000 FLOPs 25.0 M" in found.text
    (network,) = found.all("div", class_="network")
    assert network["aria-label"].endswith("ffn-ffn-ffn")
    assert [row["data-place"] for row in found.all("tr", class_="best")] == ["4", "4"], "marked in both fronts"
    inks = {block["style"] for block in found.all("li")}
    assert {"background:#0072B2;color:#fff", "background:#E69F00;color:#000"} <= inks, "legible on its colour"
    ticks = draw_scatter(read_findings(history()), "flops", 4).y.ticks
    assert " ".join(tick.text for tick in ticks) in found.text
    tied = [("ffn-ffn-ffn", 5.0, 9, 9), ("conv3-conv3-conv3", 5.0, 8, 9), ("ffn-conv3-ffn", 5.0, 8.5, 9)]
    assert read_findings(history(tied)).ranking() == [1, 2, 0], "of equals the cheaper"


def test_the_front_is_of_loss_against_each_cost():
    findings = read_findings(history())
    assert findings.front("num_parameters") == [1, 3, 4]
    assert findings.front("flops") == [2, 4]
    equal = [*CHILDREN, ("ffn-ffn-conv3", 5.125, 1_400_000, 1)]
    assert read_findings(history(equal)).front("num_parameters") == [1, 3, 4], "of equal points the first scored"
    fronts = [plot["data-front"] for plot in page(history()).all("div") if "data-front" in plot]
    assert fronts == ["1 3 4", "2 4"]


@pytest.mark.parametrize("cost", ["num_parameters", "flops"])
def test_every_child_is_a_point_where_its_numbers_lie(cost):
    findings = read_findings(history(budget={"num_parameters": 1_450_000}))
    scatter = draw_scatter(findings, cost, 4)
    places = points(scatter.dots)
    assert len(places) == 5
    costs, losses = [child.cost[cost] for child in findings.children], [child.loss for child in findings.children]
    x_ratio = (places[0][0] - places[4][0]) / (places[1][0] - places[4][0])
    assert x_ratio == pytest.approx((costs[0] - costs[4]) / (costs[1] - costs[4]), abs=0.01)
    y_ratio = (places[0][1] - places[4][1]) / (places[1][1] - places[4][1])
    assert y_ratio == pytest.approx((losses[0] - losses[4]) / (losses[1] - losses[4]), abs=0.01)
    assert places[1][1] < places[4][1], "a higher loss lies higher"
    assert all(LEFT < x < RIGHT and TOP < y < BOTTOM for x, y in places)
    assert scatter.winner == places[4]
    assert list(scatter.points) == [places[place] for place in scatter.front]
    assert scatter.line.startswith(f"M{scatter.points[0][0]:g} {scatter.points[0][1]:g}H{scatter.points[1][0]:g}V")
    for axis in (scatter.x, scatter.y):
        assert 3 <= len(axis.ticks) <= 8
        unit = scatter.unit.size if axis is scatter.x else 1
        for tick in axis.ticks:
            value = float(tick.text.replace(",", ""))
            assert tick.place == axis.place(value), "a tick stands at its number"
            assert axis.low <= value <= axis.high
        assert unit == {"num_parameters": 1e6, "flops": 1e6}[cost] or axis is scatter.y


def test_the_budget_is_a_line_where_it_is_near():
    near = read_findings(history(budget={"num_parameters": 1_450_000}))
    scatter = draw_scatter(near, "num_parameters", 4)
    assert max(x for x, _ in points(scatter.dots)) < scatter.cap == scatter.x.place(1.45) < RIGHT
    assert draw_scatter(near, "flops", 4).cap is None
    far = read_findings(history(budget={"num_parameters": 9_000_000}))
    assert draw_scatter(far, "num_parameters", 4).cap is None
    assert "9,000,000: beyond what is drawn" in page(history(budget={"num_parameters": 9_000_000})).text
    assert len(page(history(budget={"num_parameters": 1_450_000})).all("path", class_="cap")) == 1


def test_the_trajectory_is_the_best_so_far():
    drawn = draw_trajectory(read_findings(history()).children)
    places = points(drawn.dots)
    assert [x for x, _ in places] == sorted(x for x, _ in places)
    steps = [float(y) for y in re.findall(r"[V ](\d[\d.]*)", drawn.line)]
    assert steps == [places[0][1], places[3][1], places[4][1]], "only what is better than all before"
    assert drawn.last == places[4]


def test_operators_of_the_best_are_counted_per_block():
    ranked = [Architecture(names) for names in (("ffn", "ffn"), ("ffn", "conv3"), ("conv3", "skip"), ("skip", "skip"))]
    shares = draw_shares(ranked, ("ffn", "conv3", "skip"), 0.5)
    assert (shares.num_best, shares.num_all) == (2, 4)
    assert shares.best == ((1, 0, 0), (0.5, 0.5, 0))
    assert shares.everyone == ((0.5, 0.25, 0.25), (0.25, 0.25, 0.5))
    full = BOTTOM - TOP
    best = [bar for bar in shares.bars if bar.is_best]
    assert [(bar.kind, bar.height / full) for bar in best] == [("ffn", 1), ("ffn", 0.5), ("conv3", 0.5)]
    assert best[2].y + best[2].height == pytest.approx(best[1].y), "stacked"
    assert best[1].text == "block 1: ffn in 50 % of the best 2"
    assert draw_shares(ranked, ("ffn",), 0.05).num_best == 1, "one child at least"
    assert "the best 1 of 5 children" in page(history()).text


def test_every_child_of_the_front_has_its_command():
    supernet = "runs/it's a net; rm -rf $(pwd)"
    text = render_search_report(history(), supernet=supernet)
    found = [shlex.split(html.unescape(command)) for command in commands(text)]
    fronts = [[4], [1, 3, 4], [2, 4]]  # the winner, the front of each cost
    assert [words[words.index("--architecture") + 1] for words in found] == [
        CHILDREN[place][0] for front in fronts for place in front
    ]
    for words in found:
        assert words[:2] == ["hf-nasbert", "extract"]
        (arguments,) = parse_recipe_arguments([ExtractionArguments], words[2:])
        assert arguments.supernet == supernet
    folders = {tuple(words[-1:]): words[words.index("--architecture") + 1] for words in found}
    assert len(folders) == len(set(folders.values())) == 4, "a folder of its own for every child"
    assert ("children/rank-1",) in folders


def test_what_the_script_reads_is_what_the_records_say():
    found = page(history())
    data = json.loads(found.scripts[0])
    assert data["architectures"] == [values[0] for values in CHILDREN]
    assert data["losses"] == [f"{values[1]:.4f}" for values in CHILDREN]
    assert data["costs"] == [
        ["parameters", [f"{values[2]:,}" for values in CHILDREN]],
        ["FLOPs", [f"{values[3] / 1e6:.1f} M" for values in CHILDREN]],
    ]
    assert data["ranking"] == [4, 3, 0, 2, 1]
    assert f"{data['command'][0]}ffn-ffn-ffn{data['command'][1]}1" in found.text
    assert set(data["colours"]) == {"attention", "ffn", "conv3"}


EVIL = "\"'><script>alert(1)</script><img src=x onerror=alert(2)>&amp;`--></style>{{ 7*7 }}"


def test_nothing_of_a_record_is_code():
    evil_costs = [child(*CHILDREN[0], **{EVIL: 1}), child(*CHILDREN[1], **{EVIL: 2.5})]
    head = history(about={**ABOUT, "supernet": EVIL, "text": [EVIL], EVIL: {EVIL: EVIL}}, search=EVIL, seed=EVIL)[0]
    head["settings"][EVIL] = EVIL
    head["versions"] = {EVIL: EVIL}
    head["settings"]["budget"] = {EVIL: 3}
    settings = {**dict.fromkeys(ABOUT, EVIL), EVIL: EVIL}
    for found in ([head, *evil_costs], flat(**settings)):
        evil = page(found, supernet=EVIL, note=EVIL)
        plain = page(history() if found is not flat else flat())
        assert len(evil.all("script")) == len(plain.all("script")) == 2
        assert not evil.all("img")
        assert evil.text.count("<script>alert(1)</script>") >= 3, "it is there to read"
        assert "49" not in evil.text.replace("{{ 7*7 }}", "")
        allowed = {"class", "id", "type", "lang"}
        for tag, attributes in evil.tags:
            assert not [name for name in attributes if name.startswith("on")], (tag, attributes)
            assert not [name for name in allowed & attributes.keys() if "alert" in (attributes[name] or "")]
        assert EVIL in json.loads(evil.scripts[0])["command"][0].replace("'\"'\"'", "'")
    with pytest.raises(ValueError, match="record 2"):
        read_findings(history([(EVIL, 5.0, 1, 1)]))


def test_the_page_needs_nothing_else_and_runs_no_other_script():
    import base64
    import hashlib

    text = render_search_report(history(), supernet="s")
    found = Page(text)
    assert text.startswith("<!DOCTYPE html>")
    for tag, attributes in found.tags:
        assert tag not in ("link", "iframe", "object", "embed", "base")
        assert not {"src", "href", "action", "srcset"} & attributes.keys(), (tag, attributes)
    assert not re.search(r"https?:|@import|url\(|//\w", text.replace("// ", "")), "no address"
    (policy,) = [
        meta["content"] for meta in found.all("meta") if "content" in meta and "default-src" in meta["content"]
    ]
    assert policy.startswith("default-src 'none'")
    digest = base64.b64encode(hashlib.sha256(found.scripts[1].encode()).digest()).decode()
    assert policy.endswith(f"script-src 'sha256-{digest}'")


def test_the_same_records_give_the_same_bytes():
    assert render_search_report(history(), supernet="s") == render_search_report(history(), supernet="s")


def test_every_figure_has_words():
    found = page(history())
    assert len(found.all("svg")) == 4
    for figure in found.all("svg"):
        assert len(figure["aria-label"]) > 40
    for plot in [tag for name, tag in found.tags if name == "div" and "data-plot" in tag]:
        assert plot["tabindex"] == "0"
        assert "rrow" in plot["aria-label"]
    assert "The front goes from loss 5.7500 at 1,000,000 to 5.1250 at 1,400,000." in found.all("svg")[0]["aria-label"]


def test_widths_and_stages_are_drawn():
    space = SearchSpace.staged(2, 2, ("attention", "ffn", "skip"), (64, 128))
    children = [("attention@64-ffn@64-ffn@128-skip", 5.0, 10, 1), ("ffn@64-skip-ffn@64-ffn@64", 5.5, 11, 1)]
    found = page(history(children, space=space.to_dict()))
    winner = found.all("li")[:4]
    assert [block.get("data-stage") for block in winner] == ["stage 0", None, "stage 1", None]
    assert "attention 64 ffn 64 ffn 128 skip" in found.text
    assert "skip" in winner[3]["class"]


def test_thousands_of_children_stay_small():
    rng = random.Random(0)
    many = {
        "-".join(rng.choices(("attention", "ffn", "conv3", "conv5"), k=12)): (rng.uniform(4, 6), rng.randrange(10**6))
        for _ in range(1500)
    }
    found = [child(name, loss, 10**6 + cost, cost) for name, (loss, cost) in many.items()]
    text = render_search_report([history()[0] | {"settings": {"search": "random"}}, *found], supernet="s")
    assert len(text) < 250 * len(found)
    assert text.count("<circle") < 100
    assert f"the best {round(0.05 * len(found))} of {len(found):,} children" in Page(text).text
    assert len(points(re.search(r'class="dots"[^>]* d="([^"]*)"', text)[1])) == len(found)


def test_children_without_a_loss_and_partial_scores_are_counted_not_drawn():
    found = history([*CHILDREN, ("ffn-ffn-conv3", None, 1, 1), ("ffn-conv3-conv3", float("nan"), 1, 1)])
    found.append({**child("conv3-conv3-ffn", 1.0, 1, 1), "num_batches": 1})
    drawn = page(found)
    assert "of these without a finite loss 2, not shown" in drawn.text
    assert "part of the dev batches 1, not shown" in drawn.text
    assert "children scored 7" in drawn.text
    assert json.loads(drawn.scripts[0])["architectures"] == [values[0] for values in CHILDREN]


def test_a_child_scored_twice_counts_once_with_its_later_loss():
    findings = read_findings(history([*CHILDREN, ("conv3-conv3-conv3", 5.0, 1_000_000, 1)]))
    assert len(findings.children) == 5
    assert findings.children[1].loss == 5.0


@pytest.mark.parametrize("found", [history(CHILDREN[:1]), flat(CHILDREN[:1]), history([CHILDREN[0]] * 3)])
def test_one_child_is_a_report_too(found):
    drawn = page(found)
    assert "the best of 1" in drawn.text
    assert "the front: none is better in both (1)" in drawn.text
    assert "nan" not in re.sub(r"[a-z]nan", "", drawn.text)


def test_a_front_of_one_among_many():
    better = [*CHILDREN, ("conv3-conv3-ffn", 1.0, 1, 1)]
    assert "(1)" in page(history(better)).text
    same = [(name, 5.0, 7, 7) for name, *_ in CHILDREN]
    assert read_findings(history(same)).front("flops") == [0]
    render_search_report(history(same), supernet="s")


WITHOUT_COST = [{name: value for name, value in record.items() if name != "cost"} for record in history()]
BAD = {
    "empty": ([], "s.jsonl holds no records"),
    "only a head": (history([]), "none of 0 scored children"),
    "all losses None": (history([("ffn-ffn-ffn", None, 1, 1)]), "none of 1 scored children has a finite loss"),
    "no costs": (WITHOUT_COST, "says of no cost"),
    "no cost of all": (
        [*history()[:2], {**child(*CHILDREN[1]), "cost": {"latency_ms": 1.0}}],
        "says of no cost what every child needs",
    ),
    "a training log": ([{"event": "train", "step": 1}], "record 1 is no scored child"),
    "no score": ([history()[0], {"architecture": "ffn"}], "record 2 is no scored child"),
    "two super-nets": ([*flat(), *flat(supernet="other")], "record 6 was scored with another supernet"),
    "two spaces": (history([CHILDREN[0], ("ffn-ffn", 5.0, 1, 1)]), r"children of \[2, 3\] choice blocks"),
    "another space": (history([("ffn-ffn", 5.0, 1, 1)]), "the space has 3 choice blocks, its children 2"),
    "a loss in words": (history([("ffn-ffn-ffn", "low", 1, 1)]), "record 2: score is 'low', which is no number"),
    "a cost in words": (history([("ffn-ffn-ffn", 5.0, True, 1)]), "num_parameters is 'True', which is no number"),
    "an infinite cost": (history([("ffn-ffn-ffn", 5.0, float("inf"), 1)]), "no finite number"),
    "a budget of what is unknown": (history(budget={"latency_ms": 3}), "caps latency_ms, which is not known"),
    "costs that are a list": ([history()[0], {**child(*CHILDREN[0]), "cost": [1]}], "expected names and values"),
    "a space that is a list": (history(space=[1]), "s.jsonl: the space: expected names and values"),
    "listed children that are a number": (history(space=SPACE.to_dict() | {"children": 3}), "are a list, got '3'"),
    "no operator name": (history([("ffn ffn", 5.0, 1, 1)]), "record 2: .*ffn ffn"),
}


@pytest.mark.parametrize("name", BAD)
def test_what_cannot_be_reported_is_one_line(name):
    found, message = BAD[name]
    with pytest.raises(ValueError, match=message) as raised:
        render_search_report(found, supernet="s", source="s.jsonl")
    assert "\n" not in str(raised.value)
    assert "s.jsonl" in str(raised.value)


def test_units_are_those_that_people_read():
    assert unit_of("num_parameters", 2e9) == (1e9, "billions")
    assert unit_of("num_parameters", 1e6) == (1e6, "millions")
    assert unit_of("peak_activation_bytes", 5e6) == (1e6, "MB")
    assert unit_of("latency_ms", 5e6) == (1, "ms")
    assert unit_of("own", 5) == (1, "")


def write_supernet(folder: Path) -> str:
    folder.mkdir()
    (folder / "model.safetensors").write_bytes(b"weights")
    return weights_digest(folder)


def test_the_command_writes_one_file(tmp_path, capsys):
    digest = write_supernet(tmp_path / "net")
    source, output = tmp_path / "s.jsonl", tmp_path / "made" / "report.html"
    records.extend(source, history(about={**ABOUT, "supernet": digest}))
    arguments = ["--records", str(source), "--output", str(output), "--supernet", str(tmp_path / "net")]
    assert cli.main(["report", *arguments]) == 0
    assert capsys.readouterr().out.strip() == str(output)
    assert [file.name for file in output.parent.iterdir()] == ["report.html"]
    text = output.read_text(encoding="utf-8")
    assert f"--supernet {tmp_path / 'net'} " in text
    assert "unchecked" not in text
    (tmp_path / "net" / "model.safetensors").unlink()
    cli.main(["report", *arguments])
    assert "unchecked" in output.read_text(encoding="utf-8"), "a report may be made elsewhere, and says so"


def test_another_super_net_is_refused(tmp_path):
    write_supernet(tmp_path / "net")
    source, output = tmp_path / "s.jsonl", tmp_path / "report.html"
    records.extend(source, history())
    with pytest.raises(
        SystemExit, match=r"^hf-nasbert report: .*other weights .*than were scored \(f11cb030a2258e7f\)"
    ):
        cli.main(["report", "--records", str(source), "--output", str(output), "--supernet", str(tmp_path / "net")])
    assert not output.exists()
    with pytest.raises(SystemExit, match=r"^hf-nasbert report: no records at"):
        cli.main(["report", "--records", str(tmp_path / "no"), "--output", str(output), "--supernet", "x"])
