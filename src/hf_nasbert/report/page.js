"use strict";
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const tip = document.getElementById("tip");
  const rankOf = new Map(data.ranking.map((place, index) => [place, index + 1]));
  const reach = 28; // pixels around a point in which the pointer means it
  const onTop = 6; // units of the figure: so large are the front's points, drawn above all others

  const make = (name, className, text = "") => {
    const element = document.createElement(name);
    element.className = className;
    element.textContent = text;
    return element;
  };

  const chain = (place) => {
    const list = make("ol", "chain small");
    for (const name of data.architectures[place].split("-")) {
      const [kind, width] = name.split("@");
      const block = make("li", kind === "skip" ? "block skip" : "block", kind);
      [block.style.background, block.style.color] = data.colours[kind];
      if (width) block.append(make("small", "", width));
      list.append(block);
    }
    return list;
  };

  const numbers = (place) => {
    const costs = data.costs.map(([name, texts]) => `${name} ${texts[place]}`);
    return [`rank ${rankOf.get(place)} of ${data.ranking.length}`, `loss ${data.losses[place]}`, ...costs].join(" · ");
  };

  const command = (place) => {
    const box = make("div", "command");
    const [before, between] = data.command;
    const text = `${before}${data.architectures[place]}${between}${rankOf.get(place)}`;
    const button = make("button", "copy", "Copy");
    button.type = "button";
    box.append(make("code", "", text), button);
    return box;
  };

  const showTip = (place, x, y) => {
    tip.replaceChildren(make("p", "", numbers(place)), chain(place));
    tip.setAttribute("aria-label", `${numbers(place)}: ${data.architectures[place]}`);
    tip.hidden = false;
    const { width, height } = tip.getBoundingClientRect();
    tip.style.left = `${Math.max(4, Math.min(x + 14, document.documentElement.clientWidth - width - 4))}px`;
    tip.style.top = `${y + 18 + height > window.innerHeight ? Math.max(4, y - height - 14) : y + 18}px`;
  };

  for (const plot of document.querySelectorAll("[data-plot]")) {
    const svg = plot.querySelector("svg");
    const mark = svg.querySelector(".mark");
    const points = svg.querySelector(".dots").getAttribute("d").split("M").slice(1)
      .map((point) => point.split(/[ h]/).slice(0, 2).map(Number));
    const front = (plot.dataset.front || "").split(" ").filter(Boolean).map(Number);
    const chosen = plot.closest("figure").parentElement.querySelector("[data-chosen]");
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
          const distance = (points[place][0] - x) ** 2 + (points[place][1] - y) ** 2;
          if (distance < least) [best, least] = [place, distance];
        }
        return best;
      };
      return among(front, onTop) ?? among(points.keys(), reach * scale);
    };
    const keep = (place) => {
      chosen.replaceChildren(make("p", "", numbers(place)), chain(place), command(place));
      chosen.hidden = false;
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
      if (plot.matches(":focus-visible")) show(front.length ? front[0] : data.ranking[0]);
    });
    plot.addEventListener("keydown", (event) => {
      const along = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
      const through = { ArrowUp: 1, ArrowDown: -1 }[event.key];
      const order = along && front.length ? front : data.ranking;
      if (event.key === "Escape") hide();
      else if (event.key === "Enter" && current !== null) keep(current);
      else if (along || through) {
        const from = order.indexOf(current);
        const to = from < 0 ? 0 : Math.max(0, Math.min(order.length - 1, from + (along || through)));
        show(order[to]);
      } else return;
      event.preventDefault();
    });
  }

  const choices = document.querySelectorAll("input[name=cost]");
  const choose = () => {
    const value = [...choices].find((choice) => choice.checked).value;
    for (const part of document.querySelectorAll("[data-cost]")) part.hidden = part.dataset.cost !== value;
  };
  for (const choice of choices) choice.addEventListener("change", choose);
  document.querySelector(".switch").hidden = choices.length < 2;
  choose();

  for (const table of document.querySelectorAll("[data-sortable]")) {
    const heads = [...table.tHead.rows[0].cells];
    heads.slice(0, -1).forEach((head, column) => {
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

  const copied = async (code) => {
    try {
      await navigator.clipboard.writeText(code.textContent);
      return true;
    } catch { // not every browser allows it to a file
      window.getSelection().selectAllChildren(code);
      return document.execCommand("copy");
    }
  };
  for (const button of document.querySelectorAll(".copy")) button.hidden = false;
  document.addEventListener("click", async (event) => {
    const button = event.target.closest(".copy");
    if (!button) return;
    button.textContent = (await copied(button.previousElementSibling)) ? "Copied" : "Ctrl+C";
    setTimeout(() => { button.textContent = "Copy"; }, 1500);
  });
})();
