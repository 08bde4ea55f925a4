// --- the two methods class by class, on one pair ---

const tenths = (value, plus = "") => (value === null ? "–" : (value > 0 ? plus : "") + value.toFixed(1).replace("-", "−"));

/** first, second: places in the table, the better one first. */
const drawClasses = ({ table, pairs }, first, second) => {
  const { classes } = table;
  const known = pairs.filter((pair) => classes.pairs[pair].images.length);
  const named = table.pairs.indexOf(state.classes);
  const pair = known.includes(named) ? named : known[0] ?? pairs[0];
  byId("class-choices").hidden = known.length < 2;
  options(byId("class-choices").classes, known.map((i) => [table.pairs[i], arrows(table.pairs[i])]), table.pairs[pair]);
  const title = `Class by class on ${arrows(table.pairs[pair])}`;
  byId("classes-heading").textContent = title;
  const { images, top1, differences, seeds } = classes.pairs[pair];
  const names = [first, second].map((place) => table.labels[place]);
  const two = [first, second].map((place) => classes.labels.indexOf(place));
  const absent = names.filter((_, i) => !top1[two[i]]?.length);
  const comparable = !absent.length && first !== second;
  const apart = comparable ? differences[two[0]][two[1] - two[0] - 1] : [];
  byId("classes-heading").hidden = first === second;
  byId("classes-said").textContent = classesSaid(absent, comparable && seeds[two[0]][two[1] - two[0] - 1], classes.said);
  byId("classes").hidden = !apart.length;
  if (!apart.length) return;
  const columns = [
    { heading: "class", lower: true }, { heading: names.join(" − "), about: "Difference in top-1, points." },
    ...names.map((heading) => ({ heading })), { heading: "images" },
  ];
  const number = (value, plus) => ({ node: tenths(value, plus), value: value ?? "" });
  const rows = images.map((count, i) => [
    { node: String(i), value: i }, number(apart[i], "+"), ...two.map((place) => number(top1[place][i])), { node: String(count), value: count },
  ]);
  const { table: element, box } = grid(title, columns, rows);
  byId("classes").replaceChildren(box);
  sortable(element, columns, [[1, "desc"]], () => {});
};

/** shared: the number of seeds that both have; false where the two cannot be compared. */
const classesSaid = (absent, shared, left) => {
  if (absent.length) return `No comparison: the report has no predictions of ${absent.join(" and ")} on this pair. ${left}`;
  if (shared === false) return "";
  if (!shared) return "The two share no seed on this pair.";
  return `Top-1 on the images of each class in percent, mean over seeds; the difference is that on the same seeds (${shared}). `
    + "A class has few images: there is no interval.";
};
