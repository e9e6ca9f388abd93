"use strict";
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  document.documentElement.classList.add("js");
  const tip = document.getElementById("tip");
  const [left, right, top, bottom] = data.frame;
  const reach = 28; // pixels around a point in which the pointer means it
  const onTop = 6; // units of the figure: so large are the front's points, drawn above all others
  const seriesOf = new Map();
  const rankOf = new Map();
  data.series.forEach((one, number) => one.ranking.forEach((place, index) => {
    seriesOf.set(place, number);
    rankOf.set(place, index + 1);
  }));

  const make = (name, className, text = "") => {
    const element = document.createElement(name);
    element.className = className;
    element.textContent = text;
    return element;
  };

  const chain = (place) => {
    const list = make("ol", "chain small");
    for (const name of data.architectures[place].split("-")) {
      const [candidate, width] = name.split("@");
      const block = make("li", candidate === "skip" ? "block skip" : "block", candidate);
      [block.style.background, block.style.color] = data.colours[candidate];
      if (width) block.append(make("small", "", width));
      list.append(block);
    }
    return list;
  };

  const asText = (value, [divisor, digits, suffix]) => (value / divisor).toLocaleString("en-US",
    { minimumFractionDigits: digits, maximumFractionDigits: digits }) + suffix;

  const numbers = (place) => {
    const said = [];
    if (place in data.marks) said.push(data.marks[place]);
    if (rankOf.has(place)) {
      const one = data.series[seriesOf.get(place)];
      said.push(`rank ${rankOf.get(place)} of ${one.ranking.length}${one.name ? ` in ${one.name}` : ""}`);
    }
    for (const one of data.measures) {
      if (one.values[place] !== null) said.push(`${one.name} ${one.values[place].toFixed(4)}`);
    }
    for (const one of data.costs) {
      if (one.values[place] !== null) said.push(`${one.name} ${asText(one.values[place], one.format)}`);
    }
    if (place in data.notes && data.notes[place] !== data.marks[place]) said.push(data.notes[place]);
    return said.join(" · ");
  };

  const command = (place) => {
    const box = make("div", "command");
    const around = rankOf.has(place) ? data.around[seriesOf.get(place)] : undefined;
    const text = data.commands[place] ?? (around &&
      `${around[0]}${data.architectures[place]}${around[1]}${rankOf.get(place)}`);
    if (!text) return box;
    const button = make("button", "copy", "Copy");
    button.type = "button";
    box.append(make("code", "", text), button);
    return box;
  };

  // The same as doubt.py: half the 95 % interval of a difference.
  const mean = (values) => values.reduce((sum, value) => sum + value, 0) / values.length;
  const variance = (values) => {
    const middle = mean(values);
    return values.reduce((sum, value) => sum + (value - middle) ** 2, 0) / (values.length - 1);
  };
  const quantile = (freedom) => (freedom < data.t95.length + 1 ? data.t95[Math.floor(freedom) - 1] : 1.96 + 2.5 / freedom);
  const doubt = (measure, place, other) => {
    const known = (one, two) => (two === measure.reference ? measure.known[one] : undefined);
    const told = known(place, other) ?? known(other, place);
    if (told !== undefined) return told;
    const [ours, theirs] = [measure.samples[place] ?? [], measure.samples[other] ?? []];
    if (Math.min(ours.length, theirs.length) < 2) return null;
    if (measure.paired) {
      if (ours.length !== theirs.length) return null;
      const differences = ours.map((value, index) => value - theirs[index]);
      return quantile(ours.length - 1) * Math.sqrt(variance(differences) / ours.length);
    }
    const parts = [ours, theirs].map((values) => [variance(values) / values.length, values.length - 1]);
    const whole = parts[0][0] + parts[1][0];
    if (!whole) return 0;
    const freedom = whole ** 2 / parts.reduce((sum, [part, own]) => sum + part ** 2 / own, 0);
    return quantile(freedom) * Math.sqrt(whole);
  };

  const showTip = (place, x, y) => {
    tip.replaceChildren(make("p", "", numbers(place)), chain(place));
    tip.setAttribute("aria-label", `${numbers(place)}: ${data.architectures[place]}`);
    tip.hidden = false;
    const { width, height } = tip.getBoundingClientRect();
    tip.style.left = `${Math.max(4, Math.min(x + 14, document.documentElement.clientWidth - width - 4))}px`;
    tip.style.top = `${y + 18 + height > window.innerHeight ? Math.max(4, y - height - 14) : y + 18}px`;
  };

  const copied = async (code) => {
    try {
      await navigator.clipboard.writeText(code.textContent);
      return true;
    } catch { // not every browser allows it to a file
      window.getSelection().selectAllChildren(code);
      return document.execCommand("copy");
    }
  };

  const round = (value) => Math.round(value * 10) / 10;
  const numbersOf = (text) => text.split(" ").map(Number);

  // Where the points of a figure lie: by measure and cost, or by measure and the order of scoring.
  const pointsOf = (svg, xs, ys) => {
    const [[lowX, highX], [lowY, highY]] = [numbersOf(svg.dataset.x), numbersOf(svg.dataset.y)];
    const x = (value) => round(left + (value - lowX) / (highX - lowX) * (right - left));
    const y = (value) => round(bottom + (value - lowY) / (highY - lowY) * (top - bottom));
    return xs.map((value, place) => (value === null || ys[place] === null ? null : [x(value), y(ys[place])]));
  };

  for (const plot of document.querySelectorAll("[data-plot]")) {
    const svg = plot.querySelector("svg");
    const mark = svg.querySelector(".mark");
    const figure = plot.closest("figure");
    const chosen = figure.parentElement.querySelector("[data-chosen]");
    const front = (plot.dataset.front || "").split(" ").filter(Boolean).map(Number);
    const { measure: whichMeasure = 0, cost: whichCost } = figure.parentElement.dataset;
    const measure = data.measures[whichMeasure];
    const cost = data.costs[whichCost];
    const order = data.architectures.map(() => null);
    for (const one of data.series) {
      [...one.ranking].sort((a, b) => a - b).forEach((place, index) => { order[place] = index + 1; });
    }
    const points = pointsOf(svg, "order" in plot.dataset ? order : cost.values, measure.values);
    const walk = data.series.flatMap((one) => one.ranking).filter((place) => points[place]);
    if (data.series.length > 1) walk.sort((a, b) => (measure.low ? 1 : -1) * (measure.values[a] - measure.values[b]));
    let current = null;

    const show = (place) => {
      current = place;
      const [x, y] = points[place];
      mark.setAttribute("cx", x);
      mark.setAttribute("cy", y);
      const box = svg.getBoundingClientRect();
      const scale = box.width / svg.viewBox.baseVal.width;
      showTip(place, box.left + x * scale, box.top + y * scale);
    };
    const hide = () => {
      current = null;
      tip.hidden = true;
      mark.setAttribute("cx", -99);
    };
    const nearest = (event) => {
      const box = svg.getBoundingClientRect();
      const scale = svg.viewBox.baseVal.width / box.width;
      const x = (event.clientX - box.left) * scale;
      const y = (event.clientY - box.top) * scale;
      const among = (places, limit) => {
        let [best, least] = [null, limit ** 2];
        for (const place of places) {
          if (!points[place]) continue;
          const distance = (points[place][0] - x) ** 2 + (points[place][1] - y) ** 2;
          if (distance < least) [best, least] = [place, distance];
        }
        return best;
      };
      return among(front, onTop) ?? among(points.keys(), reach * scale);
    };
    const keep = (place) => {
      const head = make("p", "", numbers(place));
      const close = make("button", "close", "×");
      close.type = "button";
      close.setAttribute("aria-label", "Unpin");
      close.addEventListener("click", () => { chosen.hidden = true; chosen.replaceChildren(); });
      chosen.replaceChildren(close, make("strong", "", "Pinned"), head, chain(place), command(place));
      chosen.hidden = false;
      const code = chosen.querySelector("code");
      const button = chosen.querySelector(".copy");
      if (code) copied(code).then((done) => { button.textContent = done ? "Copied" : "Copy"; });
    };

    plot.addEventListener("pointermove", (event) => {
      const place = nearest(event);
      if (place === null) hide();
      else if (place !== current) show(place);
    });
    plot.addEventListener("pointerleave", hide);
    plot.addEventListener("blur", hide);
    plot.addEventListener("click", (event) => {
      const place = current ?? nearest(event); // a click is where the pointer is but for the rounding; a touch is new
      if (place !== null) {
        show(place);
        keep(place);
      }
    });
    plot.addEventListener("focus", () => {
      if (plot.matches(":focus-visible")) show(front.length ? front[0] : walk[0]);
    });
    plot.addEventListener("keydown", (event) => {
      const along = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
      const through = { ArrowUp: 1, ArrowDown: -1 }[event.key];
      const way = along && front.length ? front : walk;
      if (event.key === "Escape") hide();
      else if (event.key === "Enter" && current !== null) keep(current);
      else if (along || through) {
        const from = way.indexOf(current);
        const to = from < 0 ? 0 : Math.max(0, Math.min(way.length - 1, from + (along || through)));
        show(way[to]);
      } else return;
      event.preventDefault();
    });

    const slider = figure.querySelector(".budget");
    if (!slider) continue;
    const input = slider.querySelector("input");
    const said = slider.querySelector("output");
    const within = figure.parentElement.querySelector("[data-within]");
    const steps = [...new Set(walk.map((place) => cost.values[place]))].sort((a, b) => a - b);
    const barred = [...new Set([...front, ...Object.keys(data.marks).map(Number)])];
    const [lowX, highX] = numbersOf(svg.dataset.x);
    const [lowY, highY] = numbersOf(svg.dataset.y);
    // The slider's ends stand under the least and the greatest cost of a candidate.
    const capAt = (value) => steps[0] + (steps.at(-1) - steps[0]) * value / 1000;
    const alignTo = (value) => (left + (value - lowX) / (highX - lowX) * (right - left)) / svg.viewBox.baseVal.width;
    input.style.marginLeft = `${100 * alignTo(steps[0])}%`;
    input.style.width = `${Math.max(20, 100 * (alignTo(steps.at(-1)) - alignTo(steps[0])))}%`;

    const redraw = (winner) => {
      const half = (place) => doubt(measure, place, winner);
      const isTied = (place) => {
        const width = half(place);
        return width !== null && Math.abs(measure.values[place] - measure.values[winner]) <= width;
      };
      const ranking = data.series[seriesOf.get(winner)].ranking;
      const tied = [...ranking].sort((a, b) => a - b).filter((place) => place !== winner && points[place] && isTied(place));
      svg.querySelector(".tied").setAttribute("d", tied.map((place) => `M${points[place][0]} ${points[place][1]}h0`).join(""));
      const clamp = (y) => Math.min(Math.max(y, top), bottom).toFixed(1);
      svg.querySelector(".errors").setAttribute("d", barred
        .filter((place) => place !== winner && points[place] && half(place) !== null)
        .map((place) => {
          const [x, y] = points[place];
          const tall = half(place) / (highY - lowY) * (bottom - top);
          const begin = y - tall < top ? `M${(x - 3).toFixed(1)} ${(top + 5).toFixed(1)}l3-5 3 5m-3-5`
            : `M${(x - 3).toFixed(1)} ${clamp(y - tall)}h6m-3 0`; // an arrow where it goes on beyond the field
          return `${begin}V${clamp(y + tall)}${y + tall > bottom ? "m-3-5l3 5 3-5" : "m-3 0h6"}`;
        }).join(""));
      return tied.length;
    };

    const slide = () => {
      const cap = capAt(Number(input.value));
      said.textContent = asText(cap, cost.format) + ` ${cost.name}`;
      const x = round(left + (cap - lowX) / (highX - lowX) * (right - left));
      svg.querySelector(".slid").setAttribute("d", Number(input.value) < 1000 ? `M${x} ${top}V${bottom}` : "");
      const winners = data.series.map((one) => one.ranking.find((place) => points[place] && cost.values[place] <= cap * (1 + 1e-12)));
      const stars = svg.querySelectorAll(".winner");
      const parts = [];
      winners.forEach((winner, number) => {
        const name = data.series[number].name;
        if (winner === undefined) {
          stars[number].setAttribute("transform", "translate(-99 -99)");
          parts.push(make("p", "", `${name ? `${name}: ` : ""}no ${data.noun[0]} is within this budget`));
          return;
        }
        stars[number].setAttribute("transform", `translate(${points[winner][0]} ${points[winner][1]})`);
        const numTied = number === 0 ? redraw(winner) : 0;
        const told = numTied ? ` · ${numTied} others cannot be told apart from it` : "";
        parts.push(make("p", "", numbers(winner) + told), chain(winner), command(winner));
      });
      if (winners.length > 1 && winners.every((winner) => winner !== undefined)) {
        const [one, two] = winners.map((winner) => measure.values[winner]);
        const ahead = measure.low ? two - one : one - two;
        const half = doubt(measure, ...winners);
        const names = data.series.map((series) => series.name);
        parts.unshift(make("p", "", `${ahead >= 0 ? names[0] : names[1]} is ahead by ${Math.abs(ahead).toFixed(4)}` +
          (half === null ? "" : ` ± ${half.toFixed(4)} (95 %)${Math.abs(ahead) <= half ? ", which may be chance" : ""}`)));
      }
      within.replaceChildren(make("strong", "", "The winner within this budget"), ...parts);
      for (const button of within.querySelectorAll(".copy")) button.hidden = false;
      within.hidden = false;
      hide();
    };
    input.addEventListener("input", slide);
    slider.hidden = steps.length < 2;
    said.textContent = asText(steps.at(-1), cost.format) + ` ${cost.name}`;
  }

  const choices = document.querySelectorAll(".switches input");
  const choose = () => {
    const picked = (name) => [...choices].find((choice) => choice.name === name && choice.checked).value;
    for (const part of document.querySelectorAll(".cost")) {
      part.hidden = part.dataset.cost !== picked("cost") || part.dataset.measure !== picked("measure");
    }
  };
  for (const choice of choices) choice.addEventListener("change", choose);
  for (const part of document.querySelectorAll(".switch")) part.hidden = part.querySelectorAll("input").length < 2;
  document.querySelector(".switches").hidden = false;
  choose();

  for (const table of document.querySelectorAll("[data-sortable]")) {
    const heads = [...table.tHead.rows[0].cells];
    heads.forEach((head, column) => {
      if (!head.hasAttribute("aria-sort")) return;
      const button = make("button", "", head.textContent);
      button.type = "button";
      head.replaceChildren(button);
      button.addEventListener("click", () => {
        const down = head.getAttribute("aria-sort") === "ascending";
        for (const other of heads) if (other.hasAttribute("aria-sort")) other.setAttribute("aria-sort", "none");
        head.setAttribute("aria-sort", down ? "descending" : "ascending");
        const value = (row) => Number(row.cells[column].dataset.value);
        const rows = [...table.tBodies[0].rows].sort((a, b) => (down ? value(b) - value(a) : value(a) - value(b)));
        table.tBodies[0].append(...rows);
      });
    });
  }

  for (const button of document.querySelectorAll(".copy")) button.hidden = false;
  document.addEventListener("click", async (event) => {
    const button = event.target.closest(".copy");
    if (!button) return;
    button.textContent = (await copied(button.previousElementSibling)) ? "Copied" : "Ctrl+C";
    setTimeout(() => { button.textContent = "Copy"; }, 1500);
  });
})();
