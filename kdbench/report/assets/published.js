// --- all published numbers: filters above, pages of rows below ---

const DATA = JSON.parse(byId("data").textContent);
const COLUMNS = DATA.columns;
const NUMBERS = ["value", "std", "runs"];
const LISTS = ["dataset", "metric", "rule", "protocol", "origin", "key"]; // chosen from a list; the others are typed
const TYPED = ["method", "teacher", "student"];
const said = (column, row) => column.said[column.codes[row]];
const rowCount = COLUMNS[0].codes.length;
const by = Object.fromEntries(COLUMNS.map((column) => [column.name, column]));

const field = (column) => {
  const typed = TYPED.includes(column.name);
  const input = typed
    ? make("input", { type: "search", name: column.name, list: `names-${column.name}`, autocomplete: "off", placeholder: "exact; * is anything" })
    : make("select", { name: column.name });
  const names = [...column.said].filter(Boolean).sort((a, b) => a.localeCompare(b, "en"));
  if (!typed) options(input, [["", "all"], ...names.map((name) => [name, name])], "");
  return make("label", {}, `${column.heading} `, input,
    ...(typed ? [make("datalist", { id: `names-${column.name}` }, names.map((value) => make("option", { value })))] : []));
};

const form = byId("filters");
form.append(...[...TYPED, ...LISTS].map((name) => field(by[name])),
  make("label", {}, "Anywhere ", make("input", { type: "search", name: "anywhere", autocomplete: "off" })));

const chosen = () => Object.fromEntries([...new FormData(form)].filter(([, value]) => value !== ""));

const readAddress = () => {
  const known = new URLSearchParams(location.hash.slice(1));
  for (const input of form.elements) input.value = known.get(input.name) ?? "";
  for (const select of form.querySelectorAll("select")) if (select.selectedIndex < 0) select.value = "";
};

const sourceCell = (key) => {
  const [name, address] = DATA.sources[key];
  const shown = link(address, key);
  return make("span", { title: name }, shown);
};

const headings = COLUMNS.map((column) => ({ ...column, kind: NUMBERS.includes(column.name) ? "gaps" : "name" }));
const { table, box } = grid("Published numbers", headings, []);
byId("numbers").replaceChildren(box);
const api = new DataTable(table, {
  data: Array.from({ length: rowCount }, (_, row) => row), autoWidth: false, pageLength: 50, deferRender: true, order: [],
  lengthMenu: [25, 50, 200, { label: "all", value: -1 }],
  layout: { topStart: null, topEnd: null, bottomStart: ["info", "pageLength"], bottomEnd: "paging" },
  columns: COLUMNS.map((column) => ({
    type: NUMBERS.includes(column.name) ? "gaps" : "name",
    orderSequence: column.name === "value" ? ["desc", "asc"] : ["asc", "desc"],
    cellType: column.name === "method" ? "th" : "td",
    data: (row, kind) => {
      const text = said(column, row);
      if (kind === "display" && column.name === "key") return sourceCell(text);
      return kind === "display" ? make("span", {}, text) : text;
    },
    createdCell: (cell) => { if (column.name === "method") cell.scope = "row"; },
  })),
});
box.after(...box.querySelectorAll(".dt-layout-row:not(.dt-layout-table)")); // what turns pages does not scroll with the table

let filter = () => true;
const anyText = (row) => COLUMNS.map((column) => said(column, row)).join(" ").toLowerCase();
api.search.fixed("choice", (_, row) => filter(row));

const draw = () => {
  const choice = chosen();
  const typed = TYPED.map((name) => [by[name], nameFilter(choice[name] || "")]).filter(([, sought]) => sought);
  const listed = LISTS.filter((name) => choice[name]).map((name) => [by[name], choice[name]]);
  const words = (choice.anywhere || "").toLowerCase().split(/\s+/).filter(Boolean);
  filter = (row) => typed.every(([column, sought]) => sought(said(column, row)))
    && listed.every(([column, value]) => said(column, row) === value)
    && words.every((word) => anyText(row).includes(word));
  api.draw();
  byId("said").textContent = `${api.rows({ search: "applied" }).count().toLocaleString("en")} of ${rowCount.toLocaleString("en")} numbers.`;
};

listen(form, () => {
  const address = new URLSearchParams(chosen()).toString();
  history.replaceState(null, "", address ? `#${address}` : location.pathname + location.search);
  draw();
});
window.addEventListener("hashchange", () => { readAddress(); draw(); });
byId("csv").addEventListener("click", () => {
  const rows = api.rows({ search: "applied", order: "applied" }).data().toArray();
  const lines = [COLUMNS.map(({ name }) => name), ...rows.map((row) => COLUMNS.map((column) => said(column, row)))];
  make("a", { download: "published.csv", href: URL.createObjectURL(new Blob([csv(lines)], { type: "text/csv" })) }).click();
});
readAddress();
draw();
