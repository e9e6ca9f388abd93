"""The report's own script, run by a browser where there is one: what pointer, keys and buttons do to the page."""

import json
import re
import shutil
import subprocess

import pytest
from tiny.records import CHILDREN, history

from hf_nasbert.report import render_search_report

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome", "chrome"))), None)
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(BROWSER is None, reason="needs Chromium or Chrome to run the page's script"),
]
FLAGS = (
    "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync --window-size=1000,900 --virtual-time-budget=4000 --dump-dom"
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
    """The page as the browser leaves it."""
    page = folder / "page.html"
    page.write_text(text, encoding="utf-8")
    command = [BROWSER, *FLAGS, f"--user-data-dir={folder / 'profile'}", page.as_uri()]
    return subprocess.run(command, capture_output=True, text=True, timeout=250, check=True).stdout


def label(place):
    """What the tip says of a child."""
    ranked = sorted(range(len(CHILDREN)), key=lambda other: CHILDREN[other][1])
    architecture, loss, parameters, flops = CHILDREN[place]
    return (
        f"rank {1 + ranked.index(place)} of 5 · loss {loss:.4f} · parameters {parameters:,} · "
        f"FLOPs {flops / 1e6:.1f} M: {architecture}"
    )


def test_what_pointer_keys_and_buttons_do(tmp_path):
    text = render_search_report(history(), supernet="net")
    # The page lets no other script run: for this one it has to.
    text = re.sub(r'<meta http-equiv="Content-Security-Policy"[^>]*>', "", text)
    found = dom(text.replace("</body>", f"<script>(() => {{{DRIVER}}})();</script></body>"), tmp_path)
    title = re.search(r"<title>seen(.*?)</title>", found)
    assert title, found[:2000]
    seen = json.loads(title[1].replace("&amp;", "&").replace("&lt;", "<").replace("&gt;", ">"))
    assert seen["hidden"] is None
    assert seen["hover"] == label(2)
    assert seen["blocks"] == ["attention", "conv3", "ffn"]
    assert seen["inside"]
    assert seen["far"] is seen["left"] is seen["escape"] is None
    assert seen["click"][0] is False
    assert "--architecture attention-ffn-conv3 --output_dir children/rank-3" in seen["click"][1]
    assert seen["click"][2] == label(0).rpartition(":")[0]
    assert seen["along"] == [label(place) for place in (1, 3, 4, 4, 3)], (
        "the front, from its cheap end, and no further"
    )
    assert seen["through"] == [label(place) for place in (4, 3, 0, 2)], "all children, down to lower losses"
    assert "--architecture attention-conv3-ffn --output_dir children/rank-4" in seen["enter"]
    assert [seen["costs"], seen["switched"]] == [[False, True], [True, False]]
    assert seen["order"] == [1, 3, 4]
    assert seen["ascending"] == [[4, 3, 1], "ascending", "none"]
    assert seen["descending"] == [[1, 3, 4], "descending"]
    assert seen["copies"] == 0


def test_the_page_lets_its_own_script_run_and_no_other(tmp_path):
    text = render_search_report(history(), supernet="net")
    found = dom(text.replace("</body>", "<script>document.title = 'taken over';</script></body>"), tmp_path)
    assert "taken over</title>" not in found
    assert len(re.findall(r'class="copy">', found)) == len(re.findall(r'class="copy" hidden', text)) > 0
    assert '<button class="" type="button">loss</button>' in found
