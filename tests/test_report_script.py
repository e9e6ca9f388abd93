"""The report's own script, run by a browser where there is one: pointer, keys, slider, buttons."""

import json
import random
import re
import shutil
import subprocess

import pytest
from tiny.records import CHILDREN, history

from hf_nasbert.report import Searched, read_findings, render_search_report
from hf_nasbert.report.drawing import draw_scatter
from hf_nasbert.report.of_search import content_of_search

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome", "chrome"))), None)
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(BROWSER is None, reason="needs Chromium or Chrome to run the page's script"),
]
FLAGS = (
    "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync --window-size=1000,900 --virtual-time-budget=4000 --dump-dom "
    "--enable-logging=stderr --v=0"
).split()

# Told to the page after its own script: each step's name -> what is to be seen then.
DRIVER = """
const seen = {};
const plot = document.querySelector("[data-plot]");
const svg = plot.querySelector("svg");
const box = () => svg.getBoundingClientRect();
const tip = document.getElementById("tip");
const points = svg.querySelector(".dots").getAttribute("d").split("M").slice(1)
  .map((point) => point.split(/[ h]/).map(Number));
const at = (place, off = 0) => {
  const scale = box().width / svg.viewBox.baseVal.width;
  return { clientX: box().left + points[place][0] * scale + off, clientY: box().top + points[place][1] * scale,
           bubbles: true };
};
const tipped = () => (tip.hidden ? null : tip.getAttribute("aria-label"));
const key = (name) => {
  plot.dispatchEvent(new KeyboardEvent("keydown", { key: name, bubbles: true }));
  return tipped();
};
const order = () => [...document.querySelector("[data-sortable] tbody").rows].map((row) => Number(row.dataset.place));
const chosen = document.querySelector("[data-chosen]");

seen.hidden = tipped();
svg.dispatchEvent(new PointerEvent("pointermove", at(2, 3)));
seen.hover = tipped();
seen.blocks = [...tip.querySelectorAll("li")].map((block) => block.textContent);
seen.inside = tip.getBoundingClientRect().right <= window.innerWidth;
const corner = { clientX: box().left + 90, clientY: box().top + 2, bubbles: true };
svg.dispatchEvent(new PointerEvent("pointermove", corner));
seen.far = tipped();
svg.dispatchEvent(new PointerEvent("pointermove", at(0)));
plot.dispatchEvent(new PointerEvent("pointerleave"));
seen.left = tipped();
svg.dispatchEvent(new MouseEvent("click", at(0)));
seen.click = [chosen.hidden, chosen.querySelector("code").textContent, chosen.querySelector("p").textContent];
seen.selected = String(window.getSelection());
key("Escape");
seen.escape = tipped();
seen.along = [key("ArrowRight"), key("ArrowRight"), key("ArrowRight"), key("ArrowRight"), key("ArrowLeft")];
seen.through = [key("ArrowDown"), key("ArrowUp"), key("ArrowUp"), key("ArrowUp")];
key("Enter");
seen.enter = chosen.querySelector("code").textContent;
const [first, second] = document.querySelectorAll("input[name=cost]");
seen.costs = [...document.querySelectorAll("[data-cost]")].map((part) => part.hidden);
second.click();
seen.switched = [...document.querySelectorAll("[data-cost]")].map((part) => part.hidden);
first.click();
const slider = document.querySelector(".budget input");
const shown = () => {
  const within = document.querySelector("[data-within]");
  const star = svg.querySelector(".winner").getAttribute("transform");
  return [document.querySelector(".budget output").textContent, star, within.hidden ? null : within.textContent];
};
const slide = (value) => {
  slider.value = value;
  slider.dispatchEvent(new Event("input", { bubbles: true }));
  return shown();
};
seen.before = [document.querySelector(".budget").hidden, ...shown()];
seen.slid = [slide(750), slide(250), slide(1000)];
const heads = document.querySelector("[data-sortable]").tHead.rows[0].cells;
seen.order = order();
heads[1].querySelector("button").click();
seen.ascending = [order(), heads[1].getAttribute("aria-sort"), heads[2].getAttribute("aria-sort")];
heads[1].querySelector("button").click();
seen.descending = [order(), heads[1].getAttribute("aria-sort")];
seen.copies = [...document.querySelectorAll(".copy")].filter((button) => button.hidden).length;
document.title = "seen" + JSON.stringify(seen);
"""


def dom(text, folder):
    """The page as the browser leaves it; fails where the script does."""
    page = folder / "page.html"
    page.write_text(text, encoding="utf-8")
    command = [BROWSER, *FLAGS, f"--user-data-dir={folder / 'profile'}", page.as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=250, check=True)
    errors = [line for line in done.stderr.splitlines() if ":CONSOLE" in line]
    assert errors == [], "nothing in the console"
    return done.stdout


def seen_by(text, driver, folder):
    """What a further script finds: the page lets none run, so for this one it has to."""
    text = re.sub(r'<meta http-equiv="Content-Security-Policy"[^>]*>', "", text)
    found = dom(text.replace("</body>", f"<script>(() => {{{driver}}})();</script></body>"), folder)
    title = re.search(r"<title>seen(.*?)</title>", found)
    assert title, found[:2000]
    return json.loads(title[1].replace("&amp;", "&").replace("&lt;", "<").replace("&gt;", ">"))


def numbers(place):
    """What is said of a child."""
    ranked = sorted(range(len(CHILDREN)), key=lambda other: CHILDREN[other][1])
    _, loss, parameters, flops = CHILDREN[place]
    return (
        f"rank {1 + ranked.index(place)} of 5 · proxy loss {loss:.4f} · parameters {parameters:,} · "
        f"FLOPs {flops / 1e6:.1f} M"
    )


def label(place):
    """What the tip says of a child."""
    return f"{numbers(place)}: {CHILDREN[place][0]}"


def test_what_pointer_keys_and_buttons_do(tmp_path):
    seen = seen_by(render_search_report(history(), supernet="net"), DRIVER, tmp_path)
    assert seen["hidden"] is None
    assert seen["hover"] == label(2)
    assert seen["blocks"] == ["attention", "conv3", "ffn"]
    assert seen["inside"]
    assert seen["far"] is seen["left"] is seen["escape"] is None
    assert seen["click"][0] is False
    assert "--architecture attention-ffn-conv3 --output_dir children/rank-3" in seen["click"][1]
    assert seen["click"][2] == numbers(0)
    assert seen["selected"] in (seen["click"][1], ""), "a file may not write the clipboard: the text is selected then"
    assert seen["along"] == [label(place) for place in (1, 3, 4, 4, 3)], (
        "the front, from its cheap end, and no further"
    )
    assert seen["through"] == [label(place) for place in (4, 3, 0, 2)], "all children, down to lower losses"
    assert "--architecture attention-conv3-ffn --output_dir children/rank-4" in seen["enter"]
    content = content_of_search([Searched(read_findings(history()), "net", "found.jsonl")])
    places = draw_scatter(content, 0, 0).series[0].points  # of 1, 3 and 4
    star = [f"translate({x:g} {y:g})" for x, y in places]
    assert seen["before"] == [False, "1,400,000 parameters", star[2], None]
    for (cap, moved, told), (budget, place, at) in zip(
        seen["slid"], [("1,300,000", 3, 1), ("1,100,000", 3, 1), ("1,400,000", 4, 2)], strict=True
    ):
        assert cap == f"{budget} parameters"
        assert moved == star[at], "the slider moves the winner"
        assert numbers(place) in told
        assert f"--architecture {CHILDREN[place][0]} " in told
    assert [seen["costs"], seen["switched"]] == [[False, True], [True, False]]
    assert seen["order"] == [1, 3, 4]
    assert seen["ascending"] == [[4, 3, 1], "ascending", "none"]
    assert seen["descending"] == [[1, 3, 4], "descending"]
    assert seen["copies"] == 0


def test_the_page_lets_its_own_script_run_and_no_other(tmp_path):
    text = render_search_report(history(), supernet="net")
    with pytest.raises(AssertionError, match="nothing in the console"):  # the browser says that it lets it not run
        dom(text.replace("</body>", "<script>document.title = 'taken over';</script></body>"), tmp_path)
    found = dom(text, tmp_path)
    assert "taken over</title>" not in found
    assert len(re.findall(r'class="copy">', found)) == len(re.findall(r'class="copy" hidden', text)) > 0
    assert '<button class="" type="button">proxy loss</button>' in found


def noisy(seed):
    """A history whose children differ by more and by less than their dev batches scatter."""
    rng = random.Random(seed)
    found = history(seed=seed)
    for record in found[1:]:
        record["batch_losses"] = [record["score"] + noise + rng.gauss(0, 0.05) for noise in (0.3, -0.3, 0.1, -0.1)]
    control = {
        **found[1],
        "record": "control",
        "name": "BERT of the budget",
        "architecture": "attention-ffn-attention",
    }
    return [*found, control]


REDRAWN = """
const drawn = () => [...document.querySelectorAll("[data-cost] svg")].filter((svg) => svg.querySelector(".errors"))
  .map((svg) => [svg.querySelector(".errors").getAttribute("d"), svg.querySelector(".tied").getAttribute("d")]);
const before = drawn();
for (const input of document.querySelectorAll(".budget input")) {
  input.value = 1000;
  input.dispatchEvent(new Event("input", { bubbles: true }));
}
const numbers = (text) => text.match(/-?[0-9.]+/g) ?? [];
const apart = before.flatMap((one, at) => one.map((text, part) => [numbers(text), numbers(drawn()[at][part])]));
document.title = "seen" + JSON.stringify({ apart, told: document.querySelector("[data-within]").textContent,
  stars: document.querySelectorAll("[data-cost='0'] [data-x] .winner").length });
"""


@pytest.mark.parametrize("is_two", [False, True])
def test_the_script_draws_what_python_drew(tmp_path, is_two):
    """Both compute intervals: where the slider stands at its end, nothing moves."""
    other = Searched(read_findings(noisy(1), "b"), "net", "b") if is_two else None
    seen = seen_by(render_search_report(noisy(0), supernet="net", other=other), REDRAWN, tmp_path)
    assert len(seen["apart"]) == 4
    assert any(before for before, _ in seen["apart"])
    for before, after in seen["apart"]:
        assert [float(number) for number in after] == pytest.approx([float(number) for number in before], abs=0.11)
    assert seen["stars"] == 1 + is_two
    assert ("is ahead by" in seen["told"]) == is_two
