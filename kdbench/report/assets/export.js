// --- what the table shows, to take along ---

/** The chosen columns and the labels in the order that is seen. */
const seen = () => {
  const choice = chosen();
  const order = boardTable.rows({ order: "applied" }).indexes().toArray().map((i) => choice.labels[i]);
  return { ...choice, columns: boardColumns(choice), order };
};

const csvText = () => {
  const { table, columns, order } = seen();
  const name = ({ heading: text, aside }) => (aside ? `${text} (${aside})` : text);
  return csv([["method", ...columns.map(name)],
    ...order.map((label) => [table.labels[label], ...columns.map(({ cells }) => plainText(cells[label]))])]);
};

const latexText = () => {
  const { table, columns, order } = seen();
  const line = (cells) => `${cells.join(" & ")} \\\\`;
  const broken = (tex) => (tex.includes(" $\\rightarrow$ ") ? `\\shortstack[r]{${tex.replace(" $\\rightarrow$ ", " $\\rightarrow$\\\\")}}` : tex);
  return ["% needs \\usepackage{booktabs}", `\\begin{tabular}{@{}l${"r".repeat(columns.length)}@{}}`, "\\toprule",
    line(["method", ...columns.map(({ tex, aside }) => (aside ? `${tex} (${aside})` : broken(tex)))]), "\\midrule",
    ...order.map((label) => line([table.names[label], ...columns.map(({ cells }) => cells[label][4] || cells[label][0])])),
    "\\bottomrule", "\\end{tabular}", ""].join("\n");
};

const bibtexText = () => {
  const { table, order } = seen();
  const names = [...new Set(order.map((label) => table.methods[label]))];
  return names.map((name) => DATA.facts[name]?.bibtex).filter(Boolean).join("\n\n") + "\n";
};

const TEXTS = {
  csv: ["The table as CSV", csvText, "csv", "As shown. leaderboard.csv beside this page has all digits."],
  latex: ["The table in LaTeX", latexText, "tex", "As shown: metric, pairs, methods and order."],
  bibtex: ["The papers of the methods shown, in BibTeX", bibtexText, "bib", "Methods of your own and those without a paper are left out."],
};

const copy = async (text, button) => {
  const usual = button.textContent;
  try {
    await navigator.clipboard.writeText(text);
    button.textContent = "Copied";
  } catch {
    button.textContent = "Not allowed here: select and copy";
  }
  setTimeout(() => { button.textContent = usual; }, 2000);
};

const offer = (name) => {
  const [title, text, kind, about] = TEXTS[name];
  const content = text();
  const area = make("textarea", { readonly: true, rows: 16, "aria-label": title, spellcheck: "false" }, content);
  const button = make("button", { type: "button" }, "Copy");
  button.addEventListener("click", () => { area.select(); copy(content, button); });
  const file = make("a", { class: "button", download: `${DATA.suite}.${kind}`, href: URL.createObjectURL(new Blob([content], { type: "text/plain" })) }, `Save as ${DATA.suite}.${kind}`);
  openDialog(title, make("p", {}, about), area, make("div", { class: "actions" }, button, file));
};

const listenToActions = (draw) => {
  document.addEventListener("click", ({ target }) => {
    const name = target.dataset?.take;
    if (name in TEXTS) offer(name);
    if (name === "link") copy(location.href, target);
    if (name === "all") { state = { ...START, table: state.table }; remember({}); draw(); }
    if (name === "two") {
      const choice = chosen();
      remember({ methods: theTwo(choice).map((place) => choice.table.labels[place].replaceAll(",", "*")).join(", "), family: "" });
      draw();
    }
  });
};
