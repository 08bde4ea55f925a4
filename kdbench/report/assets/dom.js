// --- making elements ---

const byId = (id) => document.getElementById(id);

/** An element with these attributes (undefined, false: left out; true: without a value) and children. */
const make = (name, attributes = {}, ...children) => {
  const element = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (value !== undefined && value !== false) element.setAttribute(key, value === true ? "" : value);
  }
  element.append(...children.flat());
  return element;
};

const options = (select, choices, chosen) => {
  select.replaceChildren(...choices.map(([value, text]) => make("option", { value }, text)));
  select.value = String(chosen);
};

const arrows = (text) => text.replaceAll(" -> ", " → ");

/** A heading that breaks after the arrow and nowhere within a name. */
const heading = (text) => text.replaceAll("-> ", "→ ").replaceAll(/(?<! )-/g, "\u2011");

const link = (address, text) => (address ? make("a", { href: address }, text) : text);

/** Rows of texts as CSV. */
const csv = (rows) => rows.map((row) => row.map((text) => (/[",\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text)).join(",")).join("\n") + "\n";

/** Whether a text is one of the names, separated by commas, in which * stands for anything; null where there is none. */
const nameFilter = (names) => {
  const terms = names.split(",").map((term) => term.trim()).filter(Boolean)
    .map((term) => term.replace(/[.+?^${}()|[\]\\]/g, "\\$&").replaceAll("*", ".*"));
  const any = new RegExp(`^(${terms.join("|")})$`, "i");
  return terms.length ? (text) => any.test(text) : null;
};

/** Calls ``chosen`` with the field of a form that was changed: while one types, else when it is done. */
const listen = (form, chosen) => {
  const typed = (field) => field.type === "search";
  form.addEventListener("submit", (event) => event.preventDefault());
  form.addEventListener("input", ({ target }) => { if (typed(target)) chosen(target); });
  form.addEventListener("change", ({ target }) => { if (!typed(target)) chosen(target); });
};

/** 'a|b|c' as ['a|b', 'c']: the last part has no such line. */
const halves = (text) => { const at = text.lastIndexOf("|"); return [text.slice(0, Math.max(at, 0)), text.slice(at + 1)]; };
