// --- two methods side by side ---

/** The places of the two, the one that is better in the table first: so every difference is the one that is computed. */
const theTwo = ({ table }) => {
  const base = table.labels.indexOf(table.baseline);
  const other = table.labels.findIndex((_, i) => i !== base);
  const place = (label, usual) => (table.labels.includes(label) ? table.labels.indexOf(label) : usual);
  const first = place(state.a, Math.max(other, 0));
  const second = place(state.b, base >= 0 && base !== first ? base : table.labels.findIndex((_, i) => i !== first));
  return [first, second];
};

const compared = (triangle, i, j) => triangle[i]?.[j - i - 1] || "";

const drawCompare = () => {
  const choice = chosen();
  const { table, pairs } = choice;
  byId("compare").hidden = table.labels.length < 2;
  if (table.labels.length < 2) return;
  const [one, other] = theTwo(choice);
  for (const [name, place] of [["a", one], ["b", other]]) {
    options(byId("two")[name], table.labels.map((label) => [label, label]), table.labels[place]);
  }
  const [first, second] = [one, other].sort((a, b) => a - b);
  const minus = `${table.labels[first]} − ${table.labels[second]}`;
  const same = first === second;
  const several = table.pairs.length > 1;
  const line = (metric, where, cells, difference) => [
    { node: metric.title, value: metric.title }, ...(several ? [{ node: where, value: where }] : []),
    { node: same ? "–" : difference || "–", value: same || !difference ? "" : parseFloat(difference) },
    ...[one, other].map((place) => entry(cells[place] || MISSING)),
  ];
  const rows = [
    ...(several ? table.metrics.map((metric) => line(metric, `all ${table.pairs.length} pairs`, overPairs(metric), compared(metric.over, first, second))) : []),
    ...pairs.flatMap((pair) => table.metrics.map((metric) =>
      line(metric, arrows(table.pairs[pair]), metric.pairs[pair].cells, compared(metric.compared[pair], first, second)))),
  ];
  const columns = [
    { heading: "metric", lower: true, kind: "name" }, ...(several ? [{ heading: "pair", lower: true, kind: "name" }] : []),
    { heading: `${minus} [95%] (${several ? "seeds or pairs" : "seeds"})`, about: "The paired difference with its own 95% interval." },
    { heading: table.labels[one] }, { heading: table.labels[other] },
  ];
  const { table: element, box } = grid("Two methods", columns, rows);
  byId("compared").replaceChildren(box);
  sortable(element, columns, [], () => {});
  byId("compare-said").textContent = same ? "Choose two different methods."
    : `Every difference is ${minus} on the same seeds, with a 95% interval of this one comparison: it is not corrected for `
      + "having chosen these two." + (several ? " Over all pairs: the mean of the pairs that both have, with their number." : "");
  drawCompareChart(choice, first, second, minus);
  drawClasses(choice, first, second);
  byId("compare-facts").replaceChildren(sideBySide(table, pairs, [one, other]));
};

/** The cells of the mean over all pairs, or of a cost over them. */
const overPairs = (metric) => (metric.scopes[0].columns.find(({ lead }) => lead)?.cells || []);

const numbers = (text) => (text.match(/[-+]?\d+(\.\d+)?/g) || []).map(Number);

const drawCompareChart = ({ table, metric, pairs }, first, second, minus) => {
  const texts = pairs.map((pair) => compared(metric.compared[pair], first, second));
  const lines = [
    ...texts.map((text, i) => [arrows(table.pairs[pairs[i]]), text]),
    ...(pairs.length > 1 ? [[`all ${table.pairs.length} pairs`, compared(metric.over, first, second)]] : []),
  ].filter(([, text]) => text).map(([name, text]) => ({ name, at: numbers(text) }));
  drawForest("compare-chart", lines.length < 2 ? [] : lines.map(({ name, at }) => ({ name, bar: at.length > 3 ? at.slice(0, 3) : [at[0], null, null], colour: "#0072B2" })),
    `${metric.title}: ${minus}, ${metric.unit}`);
};

/** Origin, parameters and the accuracy of every seed of the two. */
const sideBySide = (table, pairs, two) => {
  const name = (place) => table.labels[place];
  const facts = two.map((place) => DATA.facts[table.methods[place]]);
  const params = two.map((place) => Object.fromEntries(pairs.flatMap((pair) => table.entries[`${place}-${pair}`]?.params || [])));
  const keys = [...new Set(params.flatMap(Object.keys))].sort();
  const lines = [
    ["paper", ...facts.map((fact) => (fact?.title ? link(fact.address, fact.title) : "–"))],
    ["kind", ...facts.map((fact) => fact?.uses || "–")],
    ...keys.map((key) => [key, ...params.map((own) => own[key] ?? "–")]),
    ...pairs.flatMap((pair) => seedsOf(table, two, pair)),
  ];
  const columns = [{ heading: "" }, ...two.map((place) => ({ heading: name(place) }))];
  const { box } = grid("Origin, parameters and seeds", columns, lines.map((line) => line.map((node) => ({ node, value: "" }))));
  box.classList.add("words");
  return make("details", {}, make("summary", {}, "Origin, parameters and every seed of the two"), box);
};

const seedsOf = (table, two, pair) => {
  const place = DATA.headings.indexOf("top-1");
  const reached = two.map((label) => {
    const runs = table.entries[`${label}-${pair}`];
    return Object.fromEntries((runs?.runs || []).map((run, i) => [runs.seeds[i], countedAttempt(run)?.[place] || "–"]));
  });
  const seeds = [...new Set(reached.flatMap(Object.keys))].sort((a, b) => a - b);
  return seeds.map((seed) => [`top-1, seed ${seed}, ${arrows(table.pairs[pair])}`, ...reached.map((own) => own[seed] ?? "–")]);
};

const countedAttempt = (run) => DATA.runs[run].attempts.find((attempt) => attempt[DATA.headings.indexOf("counted")] === "yes");
