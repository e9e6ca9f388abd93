"""Reports: what stands on the page is what the records say, nothing of them is code, and bad records are one line."""

import html
import itertools
import json
import random
import re
import shlex
from html.parser import HTMLParser
from importlib import resources
from pathlib import Path

import pytest
from tiny.records import ABOUT, CHILDREN, SPACE, child, history

from hf_nasbert import cli, records
from hf_nasbert.pipeline import ExtractionArguments
from hf_nasbert.pipeline.inputs import supernet_digest
from hf_nasbert.recipe_arguments import parse_recipe_arguments
from hf_nasbert.report import Compressed, Searched, read_findings, render_compression_report, render_search_report
from hf_nasbert.report.doubt import half_width
from hf_nasbert.report.drawing import BOTTOM, LEFT, RIGHT, TOP, draw_scatter, draw_shares, draw_trajectory, unit_of
from hf_nasbert.report.of_compression import content_of_compression
from hf_nasbert.report.of_search import content_of_search
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


def content(found, other=None):
    """What a page shows of one file, or of two."""
    both = [found] if other is None else [found, other]
    names = ("first.jsonl", "second.jsonl")
    return content_of_search(
        [Searched(read_findings(one), "net", name) for one, name in zip(both, names, strict=False)]
    )


def points(path):
    return [tuple(map(float, pair)) for pair in re.findall(r"M(\S+) (\S+?)h0", path)]


def commands(text):
    return re.findall(r"<code>(.*?)</code>", text)


def test_the_page_says_what_was_searched():
    text = page(history(budget={"num_parameters": 1_450_000})).text
    for words in (
        "search evolution, seed 3",
        "super-net (its digest) f11cb030a2258e7f",
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
    assert "budget none" not in scored, "children that were given were under none"


def test_the_winner_and_its_numbers():
    found = page(history())
    assert "proxy loss (nats per masked token) 5.1250 parameters 1,400,000 FLOPs 25.0 M" in found.text
    (network,) = found.all("div", class_="network")
    assert network["aria-label"].endswith("ffn-ffn-ffn")
    assert [row["data-place"] for row in found.all("tr", class_="best")] == ["4", "4"], "marked in both fronts"
    inks = {block["style"] for block in found.all("li") if "style" in block}
    assert {"background:#0072B2;color:#fff", "background:#E69F00;color:#000"} <= inks, "legible on its colour"
    ticks = draw_scatter(content(history()), 0, 1).y.ticks
    assert " ".join(tick.text for tick in ticks) in found.text
    tied = [("ffn-ffn-ffn", 5.0, 9, 9), ("conv3-conv3-conv3", 5.0, 8, 9), ("ffn-conv3-ffn", 5.0, 8.5, 9)]
    assert read_findings(history(tied)).ranking() == [1, 2, 0], "of equals the cheaper"


def test_the_front_is_of_loss_against_each_cost():
    shown = content(history())
    assert [cost.key for cost in shown.costs] == ["num_parameters", "flops"]
    assert shown.front(0, 0, 0) == [1, 3, 4]
    assert shown.front(0, 1, 0) == [2, 4]
    equal = [*CHILDREN, ("ffn-ffn-conv3", 5.125, 1_400_000, 1)]
    assert content(history(equal)).front(0, 0, 0) == [1, 3, 4], "of equal points the first scored"
    fronts = [plot["data-front"] for plot in page(history()).all("div") if "data-front" in plot]
    assert fronts == ["1 3 4", "2 4"]


@pytest.mark.parametrize("cost", ["num_parameters", "flops"])
def test_every_child_is_a_point_where_its_numbers_lie(cost):
    found = history(budget={"num_parameters": 1_450_000})
    findings = read_findings(found)
    scatter = draw_scatter(content(found), 0, ["num_parameters", "flops"].index(cost))
    (drawn,) = scatter.series
    places = points(drawn.dots)
    assert len(places) == 5
    costs, losses = [child.cost[cost] for child in findings.children], [child.loss for child in findings.children]
    x_ratio = (places[0][0] - places[4][0]) / (places[1][0] - places[4][0])
    assert x_ratio == pytest.approx((costs[0] - costs[4]) / (costs[1] - costs[4]), abs=0.01)
    y_ratio = (places[0][1] - places[4][1]) / (places[1][1] - places[4][1])
    assert y_ratio == pytest.approx((losses[0] - losses[4]) / (losses[1] - losses[4]), abs=0.01)
    assert places[1][1] < places[4][1], "a higher loss lies higher"
    assert all(LEFT < x < RIGHT and TOP < y < BOTTOM for x, y in places)
    assert drawn.winner == places[4]
    assert list(drawn.points) == [places[place] for place in drawn.front]
    assert drawn.line.startswith(f"M{drawn.points[0][0]:g} {drawn.points[0][1]:g}H{drawn.points[1][0]:g}V")
    for axis in (scatter.x, scatter.y):
        assert 3 <= len(axis.ticks) <= 8
        unit = scatter.unit.size if axis is scatter.x else 1
        for tick in axis.ticks:
            value = float(tick.text.replace(",", ""))
            assert tick.place == axis.place(value), "a tick stands at its number"
            assert axis.low <= value <= axis.high
        assert unit == {"num_parameters": 1e6, "flops": 1e6}[cost] or axis is scatter.y


def test_the_budget_is_a_line_where_it_is_near():
    near = content(history(budget={"num_parameters": 1_450_000}))
    scatter = draw_scatter(near, 0, 0)
    (drawn,) = scatter.series
    assert max(x for x, _ in points(drawn.dots)) < drawn.cap == scatter.x.place(1.45) < RIGHT
    assert draw_scatter(near, 0, 1).series[0].cap is None
    far = content(history(budget={"num_parameters": 9_000_000}))
    assert draw_scatter(far, 0, 0).series[0].cap is None
    assert "9,000,000: beyond what is drawn" in page(history(budget={"num_parameters": 9_000_000})).text
    assert len(page(history(budget={"num_parameters": 1_450_000})).all("path", class_="cap")) == 1


def test_the_trajectory_is_the_best_so_far():
    drawn = draw_trajectory(content(history()))
    places = points(drawn.dots[0])
    assert [x for x, _ in places] == sorted(x for x, _ in places)
    steps = [float(y) for y in re.findall(r"[V ](\d[\d.]*)", drawn.lines[0])]
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
    (measure,) = data["measures"]
    assert (measure["name"], measure["low"]) == ("proxy loss", True)
    assert measure["values"] == [values[1] for values in CHILDREN]
    assert [(cost["key"], cost["values"]) for cost in data["costs"]] == [
        ("num_parameters", [values[2] for values in CHILDREN]),
        ("flops", [values[3] for values in CHILDREN]),
    ]
    assert [one["ranking"] for one in data["series"]] == [[4, 3, 0, 2, 1]]
    assert f"{data['around'][0][0]}ffn-ffn-ffn{data['around'][0][1]}1" in found.text
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
        assert EVIL in json.loads(evil.scripts[0])["around"][0][0].replace("'\"'\"'", "'")
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
    drawn = [figure for figure in found.all("svg") if "aria-hidden" not in figure]
    assert len(drawn) == 4
    for figure in drawn:
        assert len(figure["aria-label"]) > 40
    for plot in [tag for name, tag in found.tags if name == "div" and "data-plot" in tag]:
        assert plot["tabindex"] == "0"
        assert "rrow" in plot["aria-label"]
    assert "The front goes from 5.7500 at 1,000,000 to 5.1250 at 1,400,000." in drawn[0]["aria-label"]


def test_widths_and_stages_are_drawn():
    space = SearchSpace.staged(2, 2, ("attention", "ffn", "skip"), (64, 128))
    children = [("attention@64-ffn@64-ffn@128-skip", 5.0, 10, 1), ("ffn@64-skip-ffn@64-ffn@64", 5.5, 11, 1)]
    found = page(history(children, space=space.to_dict()))
    winner = [item for item in found.all("li") if "style" in item][:4]
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
    assert len(text) < 270 * len(found)
    assert text.count("<circle") < 100
    assert f"the best {round(0.05 * len(found))} of {len(found):,} children" in Page(text).text
    assert len(points(re.search(r'class="dots s0"[^>]* d="([^"]*)"', text)[1])) == len(found)


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
    assert content(history(same)).front(0, 1, 0) == [0]
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
    return supernet_digest(folder)


def test_the_command_writes_one_file(tmp_path, capsys):
    digest = write_supernet(tmp_path / "net")
    source, output = tmp_path / "s.jsonl", tmp_path / "made" / "report.html"
    records.extend(source, history(about={**ABOUT, "supernet": digest}))
    arguments = ["--records", str(source), "--output", str(output), "--supernet", str(tmp_path / "net")]
    assert cli.main(["report", *arguments]) == 0
    assert capsys.readouterr().out.splitlines()[0] == str(output)
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
        SystemExit, match=r"^hf-nasbert report: .*is another super-net .*than was scored \(f11cb030a2258e7f\)"
    ):
        cli.main(["report", "--records", str(source), "--output", str(output), "--supernet", str(tmp_path / "net")])
    assert not output.exists()
    with pytest.raises(SystemExit, match=r"^hf-nasbert report: no records at"):
        cli.main(["report", "--records", str(tmp_path / "no"), "--output", str(output), "--supernet", "x"])


@pytest.mark.parametrize("text", ["the boats came home\nand went\n", "the boats", ""])
def test_a_file_without_records_is_told_before_anything_is_asked_for(tmp_path, text):
    """What holds records is named, and not the super-net that would be needed for some."""
    (tmp_path / "my.txt").write_text(text)
    records.extend(tmp_path / "s.jsonl", history())
    said = r"^hf-nasbert report: .*my\.txt holds no records: name a file that .*search.*\(--{} .*summary\.json"
    output = ["--output", str(tmp_path / "report.html")]
    with pytest.raises(SystemExit, match=said.format("records")):
        cli.main(["report", "--records", str(tmp_path / "my.txt"), *output])
    with pytest.raises(SystemExit, match=said.format("other")):
        cli.main(["report", "--records", str(tmp_path / "s.jsonl"), "--other", str(tmp_path / "my.txt"), *output])
    with pytest.raises(SystemExit, match=r"need the folder of its super-net: give it \(--supernet\)"):
        cli.main(["report", "--records", str(tmp_path / "s.jsonl"), *output])


# How sure it is, what children are held against, two searches

NOISE = [0.25, -0.25, 0.125, -0.125]


def noisy(children=CHILDREN, shifts=(0.0, 0.0, 0.0, 0.0), settings=(), controls=True):
    """A history with losses batch by batch: the noise is the same for all but where a child's own is added."""
    found = history(children, **dict(settings))
    own = {0: (0.03, -0.03, 0.02, -0.02), 3: (0.2, -0.2, 0.3, -0.3)}
    for place, record in enumerate(found[1:]):
        record["batch_losses"] = [
            record["score"] + noise + shift for noise, shift in zip(NOISE, own.get(place, shifts), strict=True)
        ]
    if controls:
        for name, architecture, loss, parameters in (
            ("largest child", "attention-attention-attention", 5.375, 1_800_000),
            ("BERT of the budget", "attention-ffn-attention", 5.25, 1_500_000),
        ):
            losses = [loss + noise for noise in NOISE]
            further = {"record": "control", "name": name, "batch_losses": losses}
            found.append({**child(architecture, loss, parameters, 50_000_000), **further})
    return found


def test_intervals_are_students():
    assert half_width([1.0, 2.0, 3.0], [1.0, 1.0, 1.0], are_paired=True) == pytest.approx(4.303 / 3**0.5, rel=1e-3)
    assert half_width([1.0, 2.0, 3.0], [0.5, 1.5, 2.5], are_paired=True) == 0
    welch = half_width([1.0, 2.0, 3.0], [4.0, 6.0, 8.0], are_paired=False)  # variances 1/3 and 4/3, freedom 2.94
    assert welch == pytest.approx(4.303 * (5 / 3) ** 0.5, rel=1e-3)
    assert half_width([1.0, 2.0], [3.0, 3.0], are_paired=False) == pytest.approx(12.706 * 0.5, rel=1e-3)
    assert half_width([1.0], [2.0], are_paired=True) is None
    assert half_width([1.0, 2.0], [2.0, 3.0, 4.0], are_paired=True) is None
    many = half_width(list(range(101)), [0.0] * 101, are_paired=True)
    assert many == pytest.approx(1.984 * 29.3 / 101**0.5, rel=1e-2), "as tables of t say of 100"


def test_the_sentence_on_top_says_what_was_won_and_how_sure_it_is():
    drawn = page(noisy(settings={"budget": {"num_parameters": 1_450_000}}))
    assert (
        "The winner has a proxy loss of 5.1250 (perplexity 168) within 1,450,000 parameters, 0.1250 ± 0.0000 (95 %) "
        "below the BERT of the budget, with 6.7 % fewer parameters; 1 other child may be as good." in drawn.text
    )
    assert "Its lead over the BERT of the budget is 0.1250 ± 0.0000 (95 %), more than the noise" in drawn.text
    assert (
        "1 of the 4 other children cannot be told apart from it on the 4 dev batches: it is marked below" in drawn.text
    )
    assert "Train the best few before you choose." in drawn.text
    shown = content(noisy())
    assert [place for place in range(5) if shown.measures[0].is_tied(place, 4)] == [3, 4]
    alone = page(noisy([CHILDREN[1], CHILDREN[4]], controls=False)).text
    assert "ahead of all 1 other" in alone
    unknown = page(history()).text
    assert "0.2500 below the median of the scored children" not in unknown
    assert "0.2500" not in page(history()).text.split("search")[0]
    assert "records hold no losses of single dev batches" in unknown
    assert "how much of that is noise, the records do not say." in content(history()).lead
    assert "How far" not in page(history(CHILDREN[:1])).text, "one child is told apart from nobody"


def test_what_children_are_held_against_is_marked_and_no_candidate():
    found = noisy()
    shown = content(found)
    assert [(mark.kind, mark.name, mark.place) for mark in shown.marks] == [
        ("base", "largest child", 5),
        ("bert", "BERT of the budget", 6),
    ]
    assert shown.series[0].ranking == (4, 3, 0, 2, 1)
    drawn = page(found)
    assert drawn.all("path", class_="marker base")
    assert drawn.all("path", class_="marker bert")
    assert json.loads(drawn.scripts[0])["marks"] == {"5": "largest child", "6": "BERT of the budget"}
    assert "children scored 5" in drawn.text
    known = noisy(controls=False)
    known.append({**known[3], "record": "control", "name": "BERT of the budget"})
    assert [mark.place for mark in content(known).marks] == [2], "one that was searched for is one point"
    for bad, message in (
        ({**found[-1], "name": 3}, "a control has a name"),
        ({**found[-1], "architecture": "ffn-ffn"}, "a control has other choice blocks"),
        ({**found[-1], "batch_losses": ["low"]}, "no list of finite numbers"),
    ):
        with pytest.raises(ValueError, match=message):
            read_findings([*found, bad])


def test_error_bars_and_the_children_that_cannot_be_told_apart_are_drawn():
    scatter = draw_scatter(content(noisy()), 0, 0)
    assert points(scatter.tied) == [points(scatter.series[0].dots)[3]]
    bars = re.findall(r"M(\S+) (\S+?)(?:h6m-3 0|l3-5 3 5m-3-5)V([\d.]+)m-3", scatter.errors)
    front = {place: scatter.series[0].points[at] for at, place in enumerate(scatter.series[0].front)}
    by_x = {round(float(x) + 3, 1): (float(top), float(bottom)) for x, top, bottom in bars}
    assert len(by_x) == 4, "of the front without the winner, and of both controls"
    half = half_width(*(content(noisy()).measures[0].samples[place] for place in (3, 4)), are_paired=True)
    tall = half / (scatter.y.high - scatter.y.low) * (BOTTOM - TOP)
    top, bottom = by_x[front[3][0]]
    assert (top, bottom) == (
        pytest.approx(max(front[3][1] - tall, TOP), abs=0.1),
        pytest.approx(min(front[3][1] + tall, BOTTOM), abs=0.1),
    )
    assert draw_scatter(content(history()), 0, 0).errors == ""


def test_an_interval_that_goes_on_beyond_the_figure_ends_in_an_arrow():
    found = noisy()
    found[-1]["batch_losses"] = [found[-1]["score"] + noise for noise in (4.0, -4.0, 4.0, -4.0)]
    scatter = draw_scatter(content(found), 0, 0)
    assert scatter.has_arrows
    (arrows,) = re.findall(r"M\S+ (\S+)l3-5 3 5m-3-5V(\S+)m-3-5l3 5 3-5", scatter.errors)
    assert [float(one) for one in arrows] == [TOP + 5, BOTTOM], "its point lies on the edge"
    assert "an arrow: it goes on" in page(found).text
    for record in found[1:]:
        record["batch_losses"] = [record.get("score", 5) + noise / 1e3 for noise in NOISE]
    scatter = draw_scatter(content(found), 0, 0)
    assert "h6m-3 0V" in scatter.errors
    assert not scatter.has_arrows
    assert "an arrow" not in page(found).text


def test_the_front_of_a_lone_search_has_one_colour():
    drawn = page(noisy())
    assert {one["class"] for one in drawn.all("circle") if "member" in one["class"]} == {"member s0"}


def test_no_two_signs_share_a_colour():
    style = (resources.files("hf_nasbert.report") / "page.css").read_text(encoding="utf-8")
    for scheme in re.findall(r"--paper: [^}]*", style):
        colours = dict(re.findall(r"--(\w+): (#\w+);", scheme))
        signs = [colours[name] for name in ("dot", "front", "winner", "other", "tied", "bert", "ink")]
        signs.append(re.search(r"\.marker\.hand { fill: (#\w+)", style)[1])
        assert len(set(signs)) == len(signs)
    assert ".marker.bert { fill: var(--bert)" in style


def test_further_dev_sets_are_measures():
    found = history()
    for record in found[1:]:
        record["dev_losses"] = {"news": 10 - record["score"]}
    shown = content(found)
    assert [measure.name for measure in shown.measures] == ["proxy loss", "loss on news"]
    assert shown.front(1, 0, 0) == [1]
    assert len(page(found).all("input", name="measure")) == 2


def test_two_searches_are_held_side_by_side():
    better = [(name, loss - 0.25, parameters, flops) for name, loss, parameters, flops in CHILDREN]
    other = noisy(better, settings={"seed": 4, "about": {**ABOUT, "supernet": "0000000000000000"}})
    shown = content(noisy(), other)
    assert [one.name for one in shown.series] == ["A: first.jsonl", "B: second.jsonl"]
    assert shown.lead == (
        "The winner of B: second.jsonl is ahead of that of A: first.jsonl by 0.2500 ± 0.0000 (95 %) in proxy loss: "
        "4.8750 against 5.1250."
    )
    assert "more than the noise" in shown.doubts[0]
    level = noisy(settings={"seed": 4})
    for record in level[1:]:
        record["batch_losses"] = [record.get("score", 5) + noise for noise in (0.5, -0.5, 0.0, 0.0)]
    assert re.search(r" are level in proxy loss, 0\.0000 ± 0\.\d*[1-9]\d* \(95 %\): ", content(noisy(), level).lead)
    assert [mark.name for mark in shown.marks] == ["largest child", "BERT of the budget"], "equal ones count once"
    text = render_search_report(
        noisy(), supernet="net", source="a", other=Searched(read_findings(other), "other net", "b")
    )
    found = [shlex.split(html.unescape(command)) for command in commands(text)]
    assert {words[3] for words in found} == {"net", "other net"}
    folders = {words[-1]: words[words.index("--architecture") + 1] + words[3] for words in found}
    assert len(folders) == len(set(folders.values())), "a folder of its own for every child of both"
    assert len(points(re.search(r'class="dots s1"[^>]* d="([^"]*)"', text)[1])) == 5
    with pytest.raises(ValueError, match=r"second.jsonl was scored with another text than first.jsonl"):
        content(noisy(), history(about={**ABOUT, "text": "other"}))
    with pytest.raises(ValueError, match="other choice blocks"):
        content(noisy(), history([("ffn-ffn", 5.0, 1, 1)], space=SearchSpace.chain(2, ("ffn",)).to_dict()))


# Compressions


def row(how, loss, spearman, parameters, **further):
    """A line of a compression's table, judged under so many seeds as numbers are given."""
    return {
        "budget": "max_parameters=0.5x",
        "how": how,
        "architecture": "attention-ffn",
        "num_encoder_parameters": parameters,
        "num_parameters": parameters + 1000,
        "latency_one_ms": parameters / 100,
        "latency_batch_ms": parameters / 10,
        "judged": [{"loss": loss, "cosine": 0.9, "agreement": None, "spearman": one} for one in spearman],
        "is_within": True,
        "chosen_by": loss,
        "is_given": False,
        "file_bytes": None,
        **further,
    }


def summary(**further):
    rows = [
        row("base model", 0.0, [0.8], 10_000, budget=None, chosen_by=None, architecture="attention-ffn"),
        row("searched", 0.5, [0.76, 0.762, 0.758], 5_000, is_given=True, architecture="attention6-ffn640"),
        row("every other layer", 0.9, [0.7, 0.69, 0.71], 5_100, architecture="skip-skip"),
        row("layers 0 4 5", 0.6, [0.759, 0.761, 0.76], 4_800, is_within=False),
    ]
    return {
        "base_model": "org/base",
        "rows": rows,
        "verdicts": ["it is <b>good</b>"],
        "latency_shape": [32, 128],
        "models": [{"budget": "max_parameters=0.5x", "folder": "."}],
        "stages": [{"stage": "costs", "seconds": 90.0, "cpu_seconds": 80.0, "peak_memory_mib": 7}],
        **further,
    }


def test_the_sentence_on_top_is_about_every_budget():
    rows = summary()["rows"]
    quarter = row("layers 0", 0.8, [0.4], 2_500, is_given=True, budget="max_parameters=0.25x")
    models = [*summary()["models"], {"budget": "max_parameters=0.25x", "folder": "0.25x"}]
    shown = content_of_compression([Compressed(summary(rows=[*rows, quarter], models=models), "both", "both")])
    half, fourth = shown.lead.removesuffix(".").split(". ")
    assert half.startswith("max_parameters=0.5x: the searched model keeps 95.0 ± 0.6 %")
    assert fourth.startswith("max_parameters=0.25x: the model chosen by hand (layers 0) keeps 50.0 %")
    assert "pairs the model of max_parameters=0.5x is level with layers 0 4 5" in shown.doubts[0]


def test_names_at_the_bottom_stay_above_the_axis():
    rows = [row("base model", 0.0, [0.9], 10_000, budget=None, chosen_by=None, architecture="attention-ffn")]
    rows += [row("searched", 0.5, [0.5], 5_000, is_given=True)]
    rows += [row(f"hand {number}", 0.5, [0.1], 5_000 + number) for number in range(3)]
    labels = draw_scatter(content_of_compression([Compressed(summary(rows=rows), "a", "a")]), 0, 0).labels
    low = sorted(label.y for label in labels if label.text.startswith("hand"))
    assert low[-1] <= BOTTOM - 10
    assert all(below - above >= 16 for above, below in itertools.pairwise(low))


def test_a_compressions_table_is_a_page():
    shown = content_of_compression([Compressed(summary(), "small model", "small")])
    assert shown.lead == (
        "The searched model keeps 95.0 ± 0.6 % of the base model's Spearman correlation on the pairs (0.7600 of "
        "0.8000; 95 % interval over 3 seeds), is 2.00 times as fast and has 50.0 % of its encoder's parameters."
    )
    assert shown.doubts == (
        "By Spearman correlation on the pairs it is level with layers 0 4 5.",
        "By Spearman correlation on the pairs it is ahead of every other layer by 0.06 ± 0.025 (95 %), more than "
        "chance.",
    )
    assert [(mark.kind, mark.name) for mark in shown.marks] == [
        ("base", "base model"), ("given", "searched"), ("hand", "every other layer"), ("hand", "layers 0 4 5"),
    ]  # fmt: skip
    assert [measure.name.split()[0] for measure in shown.measures] == ["Spearman", "cosine", "distance"]
    assert [measure.is_low_better for measure in shown.measures] == [False, False, True]
    assert shown.front(0, 0, 0) == [3], "cheaper and no worse"
    assert shown.series[0].ranking == (1, 3, 2), "by what chooses"
    text = render_compression_report(Compressed(summary(), "small model", "small"))
    found = Page(text)
    assert "base model org/base" in found.text
    assert "it is <b>good</b>" in found.text
    assert not found.all("b")
    assert {html.unescape(one) for one in commands(text)} == {
        "hf-nasbert push --source 'small model' --repo_id YOUR_NAME/small-model"
    }
    assert "time it took 1.5 minutes" in found.text
    assert not found.all("h2", id="the-trajectory")


def test_one_seed_says_that_it_says_nothing_of_chance():
    short = summary()
    for one in short["rows"]:
        one["judged"] = one["judged"][:1]
    doubts = content_of_compression([Compressed(short, "s", "s")]).doubts
    assert "one seed" in doubts[-1]
    assert "--seeds 0 1 2" in doubts[-1]
    assert not any("chance" in line for line in doubts[:-1])


def test_labelled_examples_say_how_sure_a_difference_is():
    labelled = summary()
    for place, one in enumerate(labelled["rows"]):
        one["judged"] = [{**one["judged"][0], "metrics": {"accuracy": 0.9 - 0.02 * place, "macro_f1": 0.8}}]
        one["against_given"] = None if place < 2 else [-0.02 * (place - 1), 0.015]
        one["against_base"] = None if place == 0 else [-0.02 * place, 0.005]
    shown = content_of_compression([Compressed(labelled, "s", "s")])
    measure = shown.measures[0]
    assert measure.name == "accuracy"
    assert [measure.doubt(place, 1) for place in (0, 2, 3)] == pytest.approx(
        [1.96 * 0.005, 1.96 * 0.015, 1.96 * 0.015]
    )
    assert measure.is_tied(2, 1)
    assert not measure.is_tied(3, 1)
    assert "ahead of every other layer by 0.02 ± 0.029 (95 %), which may be chance." in " ".join(shown.doubts)


def test_two_compressions_of_one_base_model():
    other = summary()
    other["rows"][1]["judged"] = [{**one, "spearman": one["spearman"] - 0.05} for one in other["rows"][1]["judged"]]
    both = [Compressed(summary(), "one", "one"), Compressed(other, "two", "two")]
    shown = content_of_compression(both)
    assert len(shown.architectures) == 7, "the base model once"
    assert [one.ranking for one in shown.series] == [(1, 3, 2), (4, 6, 5)]
    assert "the model of one is ahead of the model of two by 0.05" in shown.doubts[0]
    text = render_compression_report(*both)
    assert {words.split()[3] for words in commands(text)} == {"one", "two"}
    for change, message in (
        ({"num_parameters": 3}, "is of another base model than one"),
        ({"judged": [{"loss": 0.0, "cosine": 1.0, "agreement": None, "spearman": 0.9}]}, "judged on other text"),
    ):
        bad = summary()
        bad["rows"][0] |= change
        with pytest.raises(ValueError, match=message):
            content_of_compression([both[0], Compressed(bad, "two", "two")])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"rows": []}, "its rows are no table"),
        ({"rows": [{"how": 1}]}, "a row has no budget"),
        ({"rows": summary()["rows"][:1]}, "no model that was saved"),
    ],
)
def test_what_is_no_summary_is_one_line(change, message):
    with pytest.raises(ValueError, match=message):
        render_compression_report(Compressed(summary(**change), "s", "s.json"))


def test_the_command_takes_summaries_and_two_files(tmp_path, capsys):
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "summary.json").write_text(json.dumps(summary()))
    output = tmp_path / "report.html"
    files = [str(tmp_path / name / "summary.json") for name in ("one", "two")]
    assert cli.main(["report", "--records", files[0], "--other", files[1], "--output", str(output)]) == 0
    assert capsys.readouterr().out.splitlines()[0] == str(output)
    assert "Two smaller encoders" in output.read_text()
    source = tmp_path / "s.jsonl"
    records.extend(source, history())
    for arguments, message in (
        (["--records", str(source)], "supernet: the commands of s.jsonl need"),
        (
            ["--records", str(source), "--other", files[0], "--supernet", "x"],
            "other: .* is of another kind than records",
        ),
        (["--records", str(output)], "report.html"),
    ):
        with pytest.raises(SystemExit, match=message):
            cli.main(["report", *arguments, "--output", str(tmp_path / "r.html")])
    both = ["--records", str(source), "--other", str(source), "--supernet", "x"]
    with pytest.raises(SystemExit):
        cli.main(["report", "--records", str(source), "--other", str(source), "--output", str(source)])
    records.extend(tmp_path / "t.jsonl", history(seed=4))
    both[3] = str(tmp_path / "t.jsonl")
    assert cli.main(["report", *both, "--output", str(tmp_path / "r.html")]) == 0
    assert "A: s.jsonl" in (tmp_path / "r.html").read_text()


def test_two_searches_with_one_winner_are_not_said_to_differ_by_chance():
    found = history()
    for record in found[1:]:
        record["batch_losses"] = [record["score"] + noise for noise in (0.3, -0.3, 0.1, -0.1)]
    other = Searched(read_findings(found, "b"), "net", "b")
    page = render_search_report(found, supernet="net", other=other)
    assert "Their losses are equal on every one of the 4 dev batches." in page
    assert "That may be chance" not in page
