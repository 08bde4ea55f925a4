"use strict";
(() => {
  // --- tables: sort by a heading, filter methods (rows) and pairs (columns) ---

  const number = (row, column) => parseFloat(row.cells[column].dataset.value || "NaN");

  const compare = (column, sign) => (a, b) => {
    if (column === 0) return sign * a.cells[0].textContent.localeCompare(b.cells[0].textContent, "en");
    const [x, y] = [number(a, column), number(b, column)];
    return (isNaN(x) - isNaN(y)) || (isNaN(x) || x === y ? 0 : sign * (x < y ? -1 : 1)); // no value: always last
  };

  const sort = (table, heading) => {
    const rising = ["method", "rank", "p (Holm)"].some((name) => heading.textContent.trim().startsWith(name));
    const before = heading.getAttribute("aria-sort");
    const order = before ? (before === "ascending" ? "descending" : "ascending") : rising ? "ascending" : "descending";
    for (const other of table.tHead.rows[0].cells) other.removeAttribute("aria-sort");
    heading.setAttribute("aria-sort", order);
    const body = table.tBodies[0];
    body.append(...[...body.rows].sort(compare(heading.cellIndex, order === "ascending" ? 1 : -1)));
  };

  const matcher = (input) => {
    const words = (input ? input.value : "").toLowerCase().split(/[\s,]+/).filter(Boolean);
    return (text) => !words.length || words.some((word) => text.toLowerCase().includes(word));
  };

  const filter = (board) => {
    const table = board.querySelector("table");
    const [method, pair] = [".methods", ".pairs"].map((name) => matcher(board.querySelector(name)));
    const headings = [...table.tHead.rows[0].cells];
    const columns = headings.map((heading) => !heading.dataset.pair || pair(heading.dataset.pair));
    const rows = [...table.tBodies[0].rows];
    for (const row of rows) row.hidden = !method(row.cells[0].textContent);
    for (const row of [table.tHead.rows[0], ...rows]) [...row.cells].forEach((cell, i) => { cell.hidden = !columns[i]; });
    const shown = rows.filter((row) => !row.hidden).length;
    const pairs = headings.filter((heading) => heading.dataset.pair);
    const seen = pairs.filter((heading) => !heading.hidden).length;
    const columnsLeft = pairs.length > 1 ? `, ${seen} of ${pairs.length} pairs` : "";
    board.querySelector("output").textContent = `${shown} of ${rows.length} methods${columnsLeft}`;
  };

  for (const board of document.querySelectorAll(".board")) {
    board.querySelector(".tools").hidden = false;
    board.addEventListener("input", () => filter(board));
    board.addEventListener("click", (event) => {
      const button = event.target.closest("button");
      if (button && button.matches(".sort")) sort(board.querySelector("table"), button.closest("th"));
      if (button && button.dataset.entry) show(button.dataset.entry);
    });
    filter(board);
  }

  // --- figures: as wide as the page, or in full; of one whose file is not there, only its name ---

  for (const image of document.querySelectorAll("figure img")) {
    const figure = image.closest("figure");
    const button = figure.querySelector(".zoom");
    window.addEventListener("load", () => {
      const absent = image.naturalWidth === 0;
      figure.querySelector(".scroll").hidden = absent;
      figure.querySelector(".absent").hidden = !absent;
      button.hidden = image.naturalWidth <= image.clientWidth;
    });
    button.addEventListener("click", () => {
      button.setAttribute("aria-pressed", figure.classList.toggle("full"));
    });
  }

  // --- the runs behind an entry ---

  const dialog = document.querySelector("dialog");
  let data = null;

  const make = (name, text, children = []) => {
    const element = document.createElement(name);
    element.textContent = text;
    element.append(...children);
    return element;
  };

  const list = (facts) => make("dl", "", facts.flatMap(([key, value]) => [make("dt", key), make("dd", value)]));

  const grid = (headings, rows) => {
    const used = headings.map((_, i) => rows.some((row) => row[i] !== "")); // no empty columns
    const line = (name, texts) => make("tr", "", texts.filter((_, i) => used[i]).map((text) => make(name, text)));
    const unbroken = headings.map((heading) => heading.replaceAll("-", "\u2011"));
    const table = make("table", "", [
      make("thead", "", [line("th", unbroken)]),
      make("tbody", "", rows.map((row) => line("td", row))),
    ]);
    const box = make("div", "", [table]);
    box.className = "scroll";
    box.tabIndex = 0;
    return box;
  };

  const show = (key) => {
    data = data || JSON.parse(document.getElementById("data").textContent);
    const entry = data.entries[key];
    dialog.querySelector("h2").textContent = entry.title.replace(" -> ", " → ");
    const runs = entry.runs.map((id) => data.runs[id]);
    dialog.querySelector(".body").replaceChildren(
      list(entry.facts),
      make("h3", "Runs and attempts"), grid(data.attempt, runs.flatMap((run) => run.attempts)),
      make("h3", "Curves"), ...plots(runs, entry.seeds),
      make("h3", "Parameters"), entry.params.length ? list(entry.params) : make("p", "none"),
    );
    dialog.showModal();
    dialog.scrollTop = 0;
  };

  dialog.querySelector(".close").addEventListener("click", () => dialog.close());
  dialog.addEventListener("click", (event) => { if (event.target === dialog) dialog.close(); });

  // --- curves: one plot per term, one line per seed ---

  const [WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM] = [400, 230, 48, 10, 24, 34];
  const MARKED = 15; // a curve of no more points shows where they are
  const DASHES = ["", "7 3", "2 3", "9 3 2 3"];

  const draw = (name, attributes, text = "") => {
    const element = document.createElementNS("http://www.w3.org/2000/svg", name);
    for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
    element.textContent = text;
    return element;
  };

  const look = (i) => `stroke:var(--seed-${i % 6});stroke-dasharray:${DASHES[i % 4] || "none"}`;

  const ticks = (low, high) => {
    const rough = (high - low || 1) / 4;
    const power = 10 ** Math.floor(Math.log10(rough));
    const step = power * [1, 2, 5, 10].find((factor) => factor * power >= rough);
    const first = Math.ceil(low / step - 1e-9);
    const count = Math.floor(high / step + 1e-9) - first + 1;
    return Array.from({ length: count }, (_, i) => Number(((first + i) * step).toPrecision(6)));
  };

  const plot = (title, lines) => {
    const [xs, ys] = [0, 1].map((axis) => lines.flatMap(({ line }) => line[axis]));
    const [left, right, low, high] = [Math.min(...xs), Math.max(...xs), Math.min(...ys), Math.max(...ys)];
    const x = (value) => LEFT + (value - left) / (right - left || 1) * (WIDTH - LEFT - RIGHT);
    const y = (value) => HEIGHT - BOTTOM - (value - low) / (high - low || 1) * (HEIGHT - TOP - BOTTOM);
    const svg = draw("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, role: "img", "aria-label": `${title} by epoch` });
    svg.append(draw("text", { x: LEFT, y: 14 }, title), draw("text", { x: WIDTH / 2, y: HEIGHT - 3 }, "epoch"));
    for (const value of ticks(low, high)) {
      svg.append(draw("line", { class: "axis", x1: LEFT, x2: WIDTH - RIGHT, y1: y(value), y2: y(value) }));
      svg.append(draw("text", { x: LEFT - 6, y: y(value) + 4, "text-anchor": "end" }, value));
    }
    for (const value of ticks(left, right).filter(Number.isInteger)) {
      svg.append(draw("text", { x: x(value), y: HEIGHT - BOTTOM + 15, "text-anchor": "middle" }, value));
    }
    for (const { line, i } of lines) {
      const points = line[0].map((epoch, j) => [x(epoch).toFixed(1), y(line[1][j]).toFixed(1)]);
      svg.append(draw("polyline", { class: "curve", style: look(i), points: points.join(" ") }));
      if (points.length > MARKED) continue;
      for (const [cx, cy] of points) svg.append(draw("circle", { cx, cy, r: 2.5, style: `fill:var(--seed-${i % 6})` }));
    }
    return svg;
  };

  const plots = (runs, seeds) => {
    const drawn = Object.entries(data.terms).map(([term, title]) => [title, runs.flatMap(
      (run, i) => run.curves[term] ? [{ line: run.curves[term], i }] : [])]).filter(([, lines]) => lines.length);
    if (!drawn.length) return [make("p", "none recorded")];
    const box = make("div", "", drawn.map(([title, lines]) => plot(title, lines)));
    box.className = "plots";
    const key = make("div", "", seeds.map((seed, i) => {
      const sample = draw("svg", { viewBox: "0 0 38 10", "aria-hidden": "true" });
      sample.append(draw("line", { x1: 0, x2: 38, y1: 5, y2: 5, "stroke-width": 2, style: look(i) }));
      return make("span", "", [sample, `seed ${seed}`]);
    }));
    key.className = "key";
    return [box, key];
  };
})();
