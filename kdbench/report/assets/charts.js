// --- charts: drawn by Plotly from the numbers of the tables ---

const FEW_BANDS = 9; // lines with a band of std; more would hide each other
const MANY_NAMES = 24; // points with their names beside them
const DASHES = ["solid", "dash", "dot", "dashdot"]; // as in the figures

const styleOf = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
const narrow = () => window.innerWidth < 640;

const plot = (id, traces, layout, label) => {
  const element = byId(id);
  element.hidden = !traces.length;
  if (!traces.length) return;
  const axis = { gridcolor: styleOf("--line"), zerolinecolor: styleOf("--soft"), automargin: true };
  const whole = {
    font: { family: "system-ui, sans-serif", size: 12, color: styleOf("--text") },
    paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)", hovermode: "closest",
    margin: { l: 10, r: 10, t: narrow() ? 10 : 36, b: 40 }, dragmode: narrow() ? false : "zoom",
    modebar: { bgcolor: "rgba(0,0,0,0)", color: styleOf("--soft"), activecolor: styleOf("--accent") },
    legend: { orientation: narrow() ? "h" : "v", y: narrow() ? -0.3 : 1 },
    ...layout, xaxis: { ...axis, ...layout.xaxis }, yaxis: { ...axis, ...layout.yaxis },
  };
  element.setAttribute("role", "img");
  element.setAttribute("aria-label", label);
  Plotly.react(element, traces, whole, {
    responsive: true, displaylogo: false, displayModeBar: narrow() ? false : "hover",
    modeBarButtons: [["toImage", "zoom2d", "pan2d", "resetScale2d"]], toImageButtonOptions: { format: "svg", filename: id },
  });
};

/** Black lines have the colour of the text: in a dark room black would not be seen. */
const ink = (colour) => (colour.toUpperCase() === "#000000" ? styleOf("--text") : colour);

/** Names and values that lie beyond the ends of an axis, in words; '' where none does. */
const beyond = (points) => (points.length ? `Beyond the chart's end: ${points.map(({ name, value }) => `${name} (${value})`).join(", ")}.` : "");

/** lines: {name, bar: [difference, low, high], colour}, the first on top. reach: how far from 0 the axis goes. */
const drawForest = (id, lines, title, reach = Infinity) => {
  const all = lines.filter(({ bar }) => bar.length && bar[0] !== null);
  const shown = all.filter(({ bar }) => Math.abs(bar[0]) <= reach).reverse();
  const far = all.filter((line) => !shown.includes(line)).map(({ name, bar }) => ({ name, value: bar[0] }));
  const length = (end) => shown.map(({ bar }) => (bar[1] === null ? 0 : Math.abs(bar[end] - bar[0])));
  plot(id, shown.length ? [{
    type: "scatter", mode: "markers", x: shown.map(({ bar }) => bar[0]), y: shown.map(({ name }) => name),
    error_x: { type: "data", symmetric: false, array: length(2), arrayminus: length(1), color: styleOf("--soft"), thickness: 1.2, width: 0 },
    marker: { size: 9, color: shown.map(({ colour }) => ink(colour)) },
    hovertemplate: "%{y}: %{x}<extra></extra>", showlegend: false,
  }] : [], {
    height: 90 + 24 * shown.length, xaxis: { title: { text: title }, zeroline: true, zerolinewidth: 1.5 },
    yaxis: { type: "category", range: [-0.7, shown.length - 0.3], tickfont: { size: narrow() ? 11 : 12 } },
  }, `${title}. The numbers are in the table above.`);
  return beyond(far);
};

const drawBars = (choice) => {
  const { table, metric, over, labels, scope } = choice;
  const about = scope < 0 ? `all ${table.pairs.length} pairs; does not follow the choice of pairs` : arrows(table.scopes[scope].title);
  byId("bars-heading").textContent = metric.unit ? `Difference to ${table.baseline} in ${metric.title} (${about})`
    : `A cost has no difference to ${table.baseline}: choose another metric`;
  byId("bars-said").textContent = drawForest("bars", labels.map((label) => ({ name: table.labels[label], bar: over.bars[label] || [], colour: table.looks[label][0] }))
    .filter(({ name }) => name !== table.baseline), `${metric.title} − ${table.baseline}'s, ${metric.unit}, 95% interval`, over.reach ?? Infinity);
};

const drawCost = (choice) => {
  const { table, metric, over, labels, scope } = choice;
  const costs = table.metrics.filter(({ unit }) => !unit);
  const cost = costs.find(({ key }) => key === state.cost) || costs[0];
  const of = metric.unit ? metric : table.metrics[0];
  for (const name of ["cost-heading", "cost-choices", "cost-said"]) byId(name).hidden = !cost;
  if (!cost) return plot("cost", [], {});
  byId("cost-heading").textContent = `Cost and ${of.title} (${scope < 0 ? `all ${table.pairs.length} pairs; does not follow the choice of pairs` : arrows(table.scopes[scope].title)})`;
  options(byId("cost-choices").cost, costs.map(({ key, title }) => [key, title.replace("cost, ", "")]), cost.key);
  const place = Math.max(scope, 0);
  const averaged = of.scopes[place].columns.find((column) => column.lead && column.heading.startsWith("mean"))?.heading;
  const all = labels.map((label) => ({ label, name: table.labels[label], x: cost.scopes[place].means[label], y: of.scopes[place].means[label] }));
  const known = all.filter(({ x, y }) => x !== null && y !== null);
  const middle = of.scopes[place].means[table.labels.indexOf(table.baseline)] ?? null;
  const far = middle === null ? [] : known.filter(({ y }) => Math.abs(y - middle) > (of.scopes[place].reach ?? Infinity));
  const points = known.filter((point) => !far.includes(point));
  const absent = all.filter((point) => !known.includes(point)).map(({ name }) => name);
  const few = points.length <= MANY_NAMES;
  byId("cost-said").textContent = [
    few ? "" : "Named: those that no cheaper method equals, and the baseline; touch a point for the others.",
    beyond(far.map(({ name, y }) => ({ name, value: y }))),
    absent.length ? `Not shown, without a cost or a mean over these pairs: ${absent.join(", ")}.` : "",
  ].filter(Boolean).join(" ");
  const unequalled = (one) => !points.some(({ x, y }) => (x < one.x && (of.lower ? y <= one.y : y >= one.y)));
  return plot("cost", points.length ? [{
    type: "scatter", mode: "markers+text", customdata: points.map(({ name }) => name),
    x: points.map(({ x }) => x), y: points.map(({ y }) => y),
    text: points.map((one) => (few || one.name === table.baseline || unequalled(one) ? one.name : "")),
    textposition: "top center", textfont: { size: 11 }, cliponaxis: false,
    marker: { size: 9, color: points.map(({ label }) => ink(table.looks[label][0])) },
    hovertemplate: "%{customdata}: %{x} ×, %{y}<extra></extra>", showlegend: false,
  }] : [], {
    height: 380, xaxis: { title: { text: `${cost.title.replace("cost, ", "")} × ${table.baseline}` } }, yaxis: { title: { text: [of.title, averaged].filter(Boolean).join(", ") } },
    margin: { l: 10, r: 30, t: 36, b: 40 },
  }, `Cost and ${of.title} of each method. The numbers are in the table above.`);
};

// --- curves ---

const TERMS = { top1: "top-1 (%)", loss: "training loss" };

const drawCurves = (choice) => {
  const { table, pairs, labels } = choice;
  const terms = Object.keys(TERMS).filter((term) => table.curves.lines.some((line) => line[2] === term));
  for (const id of ["curves-heading", "curve-choices"]) byId(id).hidden = !terms.length;
  if (!terms.length) return plot("curves", [], {});
  const form = byId("curve-choices");
  const pair = pairs.includes(table.pairs.indexOf(state.curve)) ? table.pairs.indexOf(state.curve) : pairs[0];
  const term = terms.includes(state.term) ? state.term : terms[0];
  byId("curve-pairs").hidden = pairs.length === 1;
  options(form.curve, pairs.map((i) => [table.pairs[i], arrows(table.pairs[i])]), table.pairs[pair]);
  options(form.term, terms.map((one) => [one, TERMS[one]]), term);
  form.x.value = state.x;
  form.y.value = state.y;
  const lines = table.curves.lines.filter((line) => line[0] === pair && line[2] === term && labels.includes(line[1]));
  const all = labels.length < table.labels.length; // chosen by name: shown
  const traces = lines.flatMap(([, label, , diverged, epochs, means, stds]) => {
    const [colour, dash] = [ink(table.looks[label][0]), DASHES[table.looks[label][1]]];
    const unit = state.x === "time" ? table.curves.seconds[label][pair] / 60 : 1;
    const x = epochs.map((epoch) => epoch * unit);
    const visible = all || table.curves.named.includes(label);
    const look = { type: "scatter", mode: "lines", legendgroup: label, x, visible: visible || "legendonly" };
    const edge = (sign) => means.map((mean, i) => mean + sign * (stds[i] ?? 0));
    const band = lines.length > FEW_BANDS || stds.every((std) => !std) ? [] : [
      { ...look, y: edge(-1), line: { width: 0 }, showlegend: false, hoverinfo: "skip" },
      { ...look, y: edge(1), line: { width: 0 }, fill: "tonexty", fillcolor: translucent(colour), showlegend: false, hoverinfo: "skip" },
    ];
    return [...band, { ...look, mode: epochs.length < 15 ? "lines+markers" : "lines", y: means, name: table.labels[label] + (diverged && ` ✗ seed ${diverged}`), showlegend: visible || !narrow(),
      line: { color: colour, dash, width: diverged ? 1 : 2 }, hovertemplate: "%{fullData.name}: %{y} at %{x:.4~g}<extra></extra>" }];
  });
  byId("curves-heading").textContent = `Curves: ${TERMS[term]} on ${arrows(table.pairs[pair])}, mean ± std over seeds`;
  return plot("curves", traces, {
    height: narrow() ? 420 : 460, yaxis: { type: state.y, title: { text: TERMS[term] } },
    xaxis: { title: { text: state.x === "time" ? "minutes of the method's own steps" : "epoch" } },
  }, `Curves of ${TERMS[term]} by ${state.x}. The fields above choose methods and pairs; curves.csv beside this page has the numbers.`);
};

const translucent = (colour) => {
  const [, r, g, b] = /^#(..)(..)(..)$/.exec(colour) || [];
  return r ? `rgba(${[r, g, b].map((part) => parseInt(part, 16))},0.13)` : "rgba(128,128,128,0.13)";
};

const drawCharts = () => {
  const choice = chosen();
  drawBars(choice);
  drawCost(choice);
  drawCurves(choice);
};
