"use strict";
// Shows one row at a time and draws its figures when they come into view, in the reader's light or dark.
const read = (id) => JSON.parse(document.getElementById(id).textContent);
const specs = read("specs");
const themes = read("themes");
const dark = window.matchMedia("(prefers-color-scheme: dark)");
const views = new Map();

async function draw(plot) {
  const theme = dark.matches ? "dark" : "light";
  if (plot.dataset.drawn === theme) return;
  plot.dataset.drawn = theme;
  views.get(plot)?.finalize();
  const result = await vegaEmbed(plot, specs[plot.dataset.spec], {
    renderer: "svg",
    config: themes[theme],
    tooltip: { theme },
    actions: { export: true, source: false, compiled: false, editor: false },
    downloadFileName: plot.dataset.spec,
  });
  views.set(plot, result);
  plot.dataset.ready = theme;
}

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
}

chooser?.addEventListener("change", () => {
  history.replaceState(null, "", `#${chooser.value}`);
  show(chooser.value);
});
window.addEventListener("hashchange", () => {
  const name = decodeURIComponent(location.hash.slice(1));
  if (rows.some((row) => row.dataset.row === name)) show(name);
});
show(decodeURIComponent(location.hash.slice(1)));
