// --- what the reader has chosen: in the address after #, so that a link shows the same ---

const DATA = JSON.parse(byId("data").textContent);
const START = {
  table: "", metric: "top1", pairs: [], methods: "", family: "", sort: "", a: "", b: "", entry: "",
  classes: "", cost: "", curve: "", term: "", x: "epoch", y: "linear",
};
let state = { ...START };

const readAddress = () => {
  const said = new URLSearchParams(location.hash.slice(1));
  if (![...said.keys()].some((key) => key in START)) return false; // a place of the page, or nothing
  state = { ...START };
  for (const key of Object.keys(START)) {
    if (said.has(key)) state[key] = key === "pairs" ? said.getAll(key) : said.get(key);
  }
  return true;
};

const address = () => {
  const said = new URLSearchParams();
  for (const [key, value] of Object.entries(state)) {
    for (const one of Array.isArray(value) ? value : [value]) {
      if (String(value) !== String(START[key])) said.append(key, one);
    }
  }
  return `#${said}`;
};

/** Keeps a choice, without drawing anything. */
const remember = (choice) => {
  Object.assign(state, choice);
  history.replaceState(null, "", address() === "#" ? location.pathname + location.search : address());
};

/**
 * The data behind the choices; what the address names and this page has not counts as not chosen.
 * scope: the place of the choice of pairs for which all numbers are there, or -1.
 */
const chosen = () => {
  const place = Math.max(DATA.tables.findIndex((table) => table.key === state.table), 0);
  const table = DATA.tables[place];
  const named = state.pairs.map((pair) => table.pairs.indexOf(pair)).filter((pair) => pair >= 0);
  const pairs = named.length ? table.pairs.map((_, i) => i).filter((i) => named.includes(i)) : table.pairs.map((_, i) => i);
  const metric = table.metrics.find(({ key }) => key === state.metric) || table.metrics[0];
  const scope = table.scopes.findIndex((one) => String(one.pairs) === String(pairs));
  const over = metric.scopes[Math.max(scope, 0)];
  return { place, table, pairs, metric, scope, over, labels: shownLabels(table, over) };
};

/** Places of the labels that the reader looks for, in the order of a summary. */
const shownLabels = (table, over) => {
  const named = nameFilter(state.methods);
  const sought = (i) => !named || named(table.labels[i]) || named(table.methods[i]);
  const kind = (i) => !state.family || (DATA.facts[table.methods[i]]?.family || "other") === state.family;
  const rest = table.labels.map((_, i) => i).filter((i) => !over.order.includes(i));
  return [...over.order, ...rest].filter((i) => sought(i) && kind(i));
};
