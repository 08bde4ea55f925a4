// --- the fields in which the reader chooses ---

const fillChoices = () => {
  const { table, pairs, metric, scope } = chosen();
  const form = byId("choices");
  byId("tables").hidden = DATA.tables.length === 1;
  options(form.table, DATA.tables.map(({ key, heading: text }) => [key, text]), table.key);
  options(form.metric, table.metrics.map(({ key, title }) => [key, title]), metric.key);
  const several = table.pairs.length > 1;
  byId("scopes").hidden = byId("several").hidden = !several;
  const own = scope < 0 ? [["-1", `${pairs.length} of ${table.pairs.length} pairs`]] : [];
  options(form.scope, [...table.scopes.map(({ title }, i) => [i, arrows(title)]), ...own], scope);
  byId("pairs").replaceChildren(...table.pairs.map((pair, i) => make("label", {},
    make("input", { type: "checkbox", name: "pair", value: i, checked: pairs.includes(i) }), arrows(pair))));
  if (form.methods.value !== state.methods) form.methods.value = state.methods;
  byId("names").replaceChildren(...table.labels.map((value) => make("option", { value })));
  const families = [...new Set(table.methods.map((name) => DATA.facts[name]?.family || "other"))].sort();
  options(form.family, [["", "all"], ...families.map((family) => [family, family])], state.family);
};

const namesOf = (places) => {
  const { table } = chosen();
  return places.length === table.pairs.length ? [] : places.map((i) => table.pairs[i]);
};

const listenToChoices = (draw) => {
  listen(byId("choices"), ({ name, value }) => {
    if (name === "scope") remember({ pairs: namesOf((chosen().table.scopes[value] || chosen()).pairs) });
    else if (name === "table") remember({ pairs: [], sort: "", a: "", b: "", classes: "", curve: "", table: value });
    else if (name === "metric") remember({ sort: "", metric: value });
    else remember({ [name]: value });
    draw();
  });
  byId("pairs").addEventListener("change", ({ target }) => {
    const places = [...byId("pairs").querySelectorAll(":checked")].map(({ value }) => Number(value));
    remember({ pairs: namesOf(places) });
    draw();
    byId("pairs").querySelector(`[value="${target.value}"]`).focus(); // the fields are new
  });
  for (const id of ["two", "class-choices", "cost-choices", "curve-choices"]) {
    listen(byId(id), ({ name, value }) => { remember({ [name]: value }); draw(); });
  }
};
