"use strict";
// Shows one row at a time and draws its figures when they come into view, in the reader's light or dark.
const read = (id) => JSON.parse(document.getElementById(id).textContent);
const specs = read("specs");
const themes = read("themes");
const dark = window.matchMedia("(prefers-color-scheme: dark)");
const views = new Map();

// On a phone the names at the side would leave no room for the bars; hovering says them whole.
function fitted(theme, width) {
  const most = theme.axisY.labelLimit;
  return { ...theme, axisY: { ...theme.axisY, labelLimit: Math.min(most, 0.5 * width) } };
}

async function draw(plot) {
  const theme = dark.matches ? "dark" : "light";
  if (plot.dataset.drawn === theme) return;
  plot.dataset.drawn = theme;
  views.get(plot)?.finalize();
  const result = await vegaEmbed(plot, specs[plot.dataset.spec], {
    renderer: "svg",
    config: fitted(themes[theme], plot.clientWidth),
    tooltip: { theme },
    actions: { export: true, source: false, compiled: false, editor: false },
    downloadFileName: plot.dataset.spec,
  });
  views.set(plot, result);
  plot.dataset.ready = theme;
  if (plot.dataset.spec.endsWith(".confusions")) result.view.addEventListener("click", lead);
}

// A bar of confused classes leads to a video of it in the timelines of the same row.
async function lead(event, item) {
  const video = item?.datum?.video;
  if (!video) return;
  const plot = document.querySelector("section.row:not([hidden]) figure.timelines .plot");
  if (!plot) return;
  await draw(plot);
  const chooser = [...plot.querySelectorAll("select")].find((select) =>
    [...select.options].some((option) => option.value === video));
  if (chooser) {
    chooser.value = video;
    chooser.dispatchEvent(new Event("change"));
  }
  plot.scrollIntoView({ block: "center" });
}

// What is printed must have been drawn, seen or not: so that it is, the shown row is drawn while there is time.
const later = window.requestIdleCallback ?? ((task) => setTimeout(task, 200));
async function drawShown() {
  for (const plot of document.querySelectorAll("section.row:not([hidden]) .plot")) {
    await new Promise((done) => later(done));
    if (plot.closest("section.row").hidden) return;
    await draw(plot);
  }
}
window.addEventListener("beforeprint", () => {
  document.querySelectorAll("details.legend, .results details").forEach((part) => (part.open = true));
  document.querySelectorAll("section.row:not([hidden]) .plot").forEach(draw);
});

const seen = new IntersectionObserver(
  (entries) => entries.filter((entry) => entry.isIntersecting).forEach((entry) => draw(entry.target)),
  { rootMargin: "400px" },
);
const plots = [...document.querySelectorAll(".plot")];
plots.forEach((plot) => seen.observe(plot));
dark.addEventListener("change", () => plots.filter((plot) => plot.dataset.drawn).forEach(draw));

const rows = [...document.querySelectorAll("section.row")];
const chooser = document.getElementById("row");

function show(name) {
  const chosen = rows.find((row) => row.dataset.row === name) ?? rows[0];
  rows.forEach((row) => (row.hidden = row !== chosen));
  if (chooser) chooser.value = chosen.dataset.row;
  drawShown();
}

chooser?.addEventListener("change", () => {
  history.replaceState(null, "", `#${chooser.value}`);
  show(chooser.value);
});
window.addEventListener("hashchange", () => {
  const name = decodeURIComponent(location.hash.slice(1));
  if (rows.some((row) => row.dataset.row === name)) {
    show(name);
    document.getElementById("rows").scrollIntoView();
  }
});
show(decodeURIComponent(location.hash.slice(1)));
