// --- the leaderboard of the chosen table, metric, pairs and methods ---

const MISSING = ["–", null];

/** A cell: bold where the best is; with a button where runs lie behind it. */
const entry = ([text, value, after = "", bold = 0], key) => {
  const shown = bold ? make("strong", {}, text) : text;
  const node = key ? make("button", { type: "button", "data-entry": key }, shown, after) : make("span", {}, shown, after);
  return { node, value };
};

const plainText = ([text, , after = ""]) => text + after;

/** The columns of the choice, each with its cells by label: the lead of the summary, pairs, the rest, the origin. */
const boardColumns = ({ table, pairs, metric, scope, over }) => {
  const aside = scope < 0 ? `of all ${table.pairs.length} pairs` : "";
  const summary = over.columns.map((column) => ({ ...column, aside }));
  const ofPairs = pairs.map((pair) => ({ ...metric.pairs[pair], pair }));
  const lead = summary.filter((column) => column.lead);
  const rest = summary.filter((column) => !column.lead);
  return pairs.length === 1 && scope >= 0 ? [...ofPairs, ...lead, ...rest] : [...lead, ...ofPairs, ...rest];
};

const origin = (name) => {
  const fact = DATA.facts[name];
  if (!fact) return [{ node: "–", value: "" }, { node: "–", value: "" }];
  const paper = fact.cited ? link(fact.address, fact.cited.replace(/, (arXiv:|https?:|eq\. ).*/, "")) : "–";
  return [{ node: make("span", { title: fact.uses }, fact.family), value: fact.family }, { node: paper, value: fact.cited }];
};

const ORIGIN = [
  { heading: "kind", about: "What the method uses.", lower: true, kind: "name" },
  { heading: "paper", about: "Where the method comes from.", lower: true, kind: "name" },
];

let boardTable = null;

const drawBoard = () => {
  const choice = chosen();
  const { table, pairs, metric, over, labels } = choice;
  const columns = boardColumns(choice);
  const headings = [{ heading: "method", about: "Name of the method.", lower: true, kind: "name" }, ...columns, ...ORIGIN];
  const key = (column, label) => {
    const place = `${label}-${column.pair}`;
    return column.pair !== undefined && place in table.entries ? place : "";
  };
  const rows = labels.map((label) => [
    { node: table.labels[label], value: table.labels[label] },
    ...columns.map((column) => entry(column.cells[label] || MISSING, key(column, label))),
    ...origin(table.methods[label]),
  ]);
  const teachers = metric.key === "top1" && table.teachers.some(Boolean);
  const foot = teachers ? ["teacher", ...columns.map(({ pair }) => table.teachers[pair] || ""), "", ""] : [];
  const { table: element, box } = grid(`${table.heading}: ${metric.title}`, headings, rows, foot);
  byId("board").replaceChildren(box);
  const [name, direction] = halves(state.sort);
  const place = headings.findIndex((column) => column.heading === name);
  boardTable = sortable(element, headings, place < 0 ? [] : [[place, direction === "asc" ? "asc" : "desc"]], (column, way) => {
    if (column !== undefined) remember({ sort: `${headings[column].heading}|${way}` });
  });
  byId("heading").textContent = `${metric.title}: ${table.heading}`;
  byId("notes").replaceChildren(...over.notes.map((note) => make("li", {}, note)));
  byId("legend").replaceChildren(...metric.legend.map((note) => make("li", {}, note)));
  byId("said").textContent = follows(choice);
};

/** What the numbers are of where they do not follow the choice. */
const follows = ({ table, pairs, metric, scope, labels }) => {
  const lines = [`${metric.words[0].toUpperCase()}${metric.words.slice(1)}.`];
  const all = table.labels.length;
  if (labels.length < all) {
    lines.push(`${labels.length} of ${all} methods are shown; bold, ranks, intervals and p are those among all ${all}.`);
  }
  if (scope < 0) {
    const ways = table.scopes.slice(0, -table.pairs.length).map(({ title }) => title).join(", ");
    lines.push(`${pairs.length} of ${table.pairs.length} pairs are shown, each with its own numbers. The columns marked "of all `
      + `${table.pairs.length} pairs", the charts over pairs and the notes do not follow this choice: they are computed for ${ways} and one pair.`);
  }
  return lines.join(" ");
};
