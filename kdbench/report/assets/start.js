// --- everything together ---

const PAUSE = 120; // milliseconds without a change before charts are drawn: they take longer than a key
let later = null;

const draw = () => {
  fillChoices();
  drawBoard();
  drawCompare();
  clearTimeout(later);
  later = setTimeout(drawCharts, PAUSE);
};

for (const element of document.querySelectorAll(".app")) element.hidden = false;
byId("plain").hidden = true;
for (const image of document.querySelectorAll("figure img")) {
  const absent = () => {
    image.closest(".picture").hidden = true;
    image.closest("figure").querySelector(".absent").hidden = false;
  };
  if (image.complete && !image.naturalWidth) absent();
  image.addEventListener("error", absent);
}
readAddress();
draw();
listenToChoices(draw);
listenToDialog();
listenToActions(draw);
if (state.entry) showEntry();
window.addEventListener("hashchange", () => {
  if (!readAddress()) return remember({}); // a place of the page: the choices stay in the address
  if (!state.entry && dialog.open) dialog.close();
  draw();
  return state.entry && showEntry();
});
window.matchMedia("(prefers-color-scheme: dark)").addEventListener("change", drawCharts);
