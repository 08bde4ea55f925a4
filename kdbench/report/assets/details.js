// --- the runs behind an entry, and texts to take along, in a dialog ---

const dialog = document.querySelector("dialog");

const openDialog = (title, ...content) => {
  byId("dialog-title").textContent = title;
  dialog.querySelector(".body").replaceChildren(...content);
  if (!dialog.open) dialog.showModal();
  dialog.scrollTop = 0;
};

const facts = (lines) => make("dl", {}, lines.flatMap(([name, said]) => [make("dt", {}, name), make("dd", {}, said)]));

const showEntry = () => {
  const { table } = chosen();
  const [label, pair] = halves(state.entry);
  const key = `${table.labels.indexOf(label)}-${table.pairs.indexOf(pair)}`;
  const known = table.entries[key];
  if (!known) return;
  const fact = DATA.facts[table.methods[table.labels.indexOf(label)]];
  const paper = fact?.cited ? [["paper", make("span", {}, link(fact.address, fact.title), ` (${fact.cited})`)]] : [];
  const [teacher, student] = pair.split(" -> ");
  const published = `../published.html#${new URLSearchParams({ method: table.methods[table.labels.indexOf(label)], teacher: student ? teacher : "", student: student || teacher })}`;
  openDialog(`${label} on ${arrows(pair)}`,
    facts([...known.facts, ...paper, ["published", link(published, "numbers of this method and pair")]]),
    make("h3", {}, "Runs and attempts"), attempts(known.runs),
    make("h3", {}, "Curves"), make("div", { id: "run-curves", class: "pictures" }),
    make("h3", {}, "Parameters"), known.params.length ? facts(known.params) : make("p", {}, "none"));
  drawRuns(known);
};

const attempts = (runs) => {
  const lines = runs.flatMap((run) => DATA.runs[run].attempts);
  const used = DATA.headings.map((_, i) => i).filter((i) => lines.some((line) => line[i] !== ""));
  return grid("Runs and attempts", used.map((i) => ({ heading: DATA.headings[i] })),
    lines.map((line) => used.map((i) => ({ node: line[i], value: "" })))).box;
};

const drawRuns = (known) => {
  const curves = known.runs.map((run) => DATA.runs[run].curves);
  for (const [term, title] of Object.entries(TERMS)) {
    const traces = curves.flatMap((own, i) => (own[term] ? [{
      type: "scatter", mode: own[term][0].length < 15 ? "lines+markers" : "lines", x: own[term][0], y: own[term][1],
      name: `seed ${known.seeds[i]}`, line: { dash: DASHES[i % DASHES.length] },
    }] : []));
    if (!traces.length) continue;
    byId("run-curves").append(make("div", { id: `run-${term}`, class: "chart" }));
    plot(`run-${term}`, traces, { height: 280, xaxis: { title: { text: "epoch" } }, yaxis: { title: { text: title } } }, `${title} by epoch of each seed`);
  }
  if (!byId("run-curves").children.length) byId("run-curves").append("none recorded");
};

let openedFrom = "";

const listenToDialog = () => {
  byId("board").addEventListener("click", ({ target }) => {
    const button = target.closest("button[data-entry]");
    if (!button) return;
    const { table } = chosen();
    const [label, pair] = button.dataset.entry.split("-").map(Number);
    openedFrom = button.dataset.entry;
    remember({ entry: `${table.labels[label]}|${table.pairs[pair]}` });
    showEntry();
  });
  dialog.querySelector(".close").addEventListener("click", () => dialog.close());
  dialog.addEventListener("click", ({ target }) => { if (target === dialog) dialog.close(); });
  dialog.addEventListener("close", () => {
    if (state.entry) {
      remember({ entry: "" });
      byId("board").querySelector(`[data-entry="${openedFrom}"]`)?.focus();
    }
  });
};
