// --- tables: plain HTML, which DataTables sorts and filters ---

const missing = (a, b) => (a === "") - (b === "");
DataTable.type("gaps", { order: { // numbers; where there is none, always last
  asc: (a, b) => missing(a, b) || a - b,
  desc: (a, b) => missing(a, b) || b - a,
} });
DataTable.type("name", { order: { asc: (a, b) => a.localeCompare(b, "en"), desc: (a, b) => b.localeCompare(a, "en") } });

/**
 * A table in a box that scrolls. columns: {heading, about, lower, kind}; rows: arrays of {node, value}, the first one
 * the row's name. foot: texts of a last row that is never sorted.
 */
const grid = (label, columns, rows, foot = []) => {
  const line = (cells) => make("tr", {}, cells.map(({ node, value }, i) => make(i ? "td" : "th", {
    scope: i ? undefined : "row", "data-order": value ?? "",
  }, node)));
  const table = make("table", { "aria-label": label },
    make("thead", {}, make("tr", {}, columns.map((column) => make("th", {
      scope: "col", title: column.about || undefined, "aria-label": column.heading, class: column.aside && "aside",
    }, heading(column.heading), ...(column.aside ? [make("small", {}, column.aside)] : []))))),
    make("tbody", {}, rows.map(line)),
    ...(foot.length ? [make("tfoot", {}, make("tr", {}, foot.map((text, i) => make(i ? "td" : "th", { scope: i ? undefined : "row" }, text))))] : []));
  return { table, box: make("div", { class: "scroll", role: "region", "aria-label": label, tabindex: 0 }, table) };
};

/** Makes a grid sortable. order: [[column, direction]]; sorted: called with the place of a column and its direction. */
const sortable = (table, columns, order, sorted) => {
  const api = new DataTable(table, {
    paging: false, info: false, autoWidth: false, order, language: { emptyTable: "Nothing here has that name or kind." },
    layout: { topStart: null, topEnd: null, bottomStart: null, bottomEnd: null },
    columns: columns.map(({ lower, kind }) => ({
      type: kind || "gaps", orderSequence: lower ? ["asc", "desc"] : ["desc", "asc"],
    })),
  });
  api.on("order.dt", () => sorted(...(api.order()[0] || [])));
  return api;
};
