/* The charts as Vega-Lite specifications without data: the page fills in the lines that the reader chooses.
   Names of models and taps are only ever values of `tap`, `tip` and the like, never names of fields or expressions.
   Colours are CSS variables, so that one drawing serves light, dark and paper. */

const nominal = (field, more) => ({ field, type: "nominal", ...more });
const quantity = (field, more) => ({ field, type: "quantitative", ...more });
const layer = (data, type, mark, encoding) => ({ data: { name: data }, mark: { type, ...mark }, encoding });

const line = { strokeWidth: 2, strokeJoin: "round" };
const thin = { strokeWidth: 1.25 };
const coloured = nominal("colour", { scale: null });
const muted = { value: "var(--muted)" };
const hint = nominal("tip");
/* How reference levels are told apart: dots for the floor, dashes for the null. */
const strokeDash = nominal("dash", { scale: { domain: ["floor", "null"], range: [[1, 3], [6, 4]] }, legend: null });

function finished(description, width, height, layers, more) {
  const axis = {
    labelColor: "var(--muted)", titleColor: "var(--muted)", gridColor: "var(--line)", domainColor: "var(--line)",
    tickColor: "var(--line)", labelFontSize: 11, titleFontSize: 11, titleFontWeight: "normal", titlePadding: 8,
  };
  const font = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, sans-serif";
  const config = { background: "transparent", font, view: { stroke: null }, axis };
  const autosize = { type: "fit", contains: "padding" };
  return { description, width, height, layer: layers, config, autosize, ...more };
}

/* Lines with a band, their floor and null, and a mark where there is no number; over taps or over steps. */
function lines(description, x) {
  const series = nominal("series");
  const either = (test, value, other) => ({ condition: { test, value }, value: other });
  const faded = (shown, faint) => either("active === null || active === datum.series", shown, faint);
  // a filter would leave empty data, whose scale has no ends
  const only = (test, size) => either(test, size, 0);
  const y = quantity("value", { scale: { zero: false, nice: true }, title: null, axis: { tickCount: 6, domain: false } });
  const level = { x, y: quantity("level"), stroke: coloured, strokeDash, opacity: faded(0.8, 0.12) };
  const cross = "M-.5,-.5L.5,.5M.5,-.5L-.5,.5";
  return finished(description, "container", 300, [
    layer("points", "area", { interpolate: "linear" },
      { x, y: quantity("low"), y2: { field: "high" }, detail: series, fill: coloured, opacity: faded(0.16, 0.03) }),
    layer("levels", "line", thin, { ...level, detail: [series, nominal("what")] }),
    // one tap makes no line
    layer("levels", "point", { shape: "stroke", ...thin }, { ...level, size: only("datum.alone", 700) }),
    layer("points", "line", line, { x, y, detail: series, stroke: coloured, opacity: faded(1, 0.15) }),
    layer("points", "point", { filled: true, size: 46, opacity: 1 },
      { x, y, color: coloured, tooltip: hint, opacity: faded(1, 0.15) }),
    // above the frame, where no number is
    layer("points", "point", { shape: cross, strokeWidth: 2 },
      { x, y: { value: -4 }, color: coloured, tooltip: hint, size: only("!isValid(datum.value)", 90), opacity: faded(0.9, 0.15) }),
  ], { params: [{ name: "active", value: null }] });
}

function ring() {
  const [x, y] = ["x", "y"].map((field) => quantity(field, { axis: null }));
  const along = { x, y, order: quantity("order"), detail: nominal("path") };
  return finished("Deviation by angle: the further out, the less equivariant.", 250, 250, [
    layer("frame", "line", { strokeWidth: 1 }, { ...along, stroke: { value: "var(--line)" } }),
    layer("levels", "line", thin, { ...along, stroke: muted, strokeDash }),
    layer("points", "line", line, { ...along, stroke: coloured }),
    layer("points", "point", { filled: true, size: 50, opacity: 1 }, { x, y, color: coloured, tooltip: hint }),
    layer("labels", "text", { fontSize: 10.5 }, { x, y, text: nominal("text"), color: muted }),
  ]);
}

function bars() {
  const axis = { title: null, labelLimit: 110, labelAngle: -40, labelOverlap: "greedy", ticks: false };
  const x = nominal("name", { sort: null, axis });
  const y = quantity("value", { title: null, axis: { tickCount: 5, domain: false } });
  const level = { y: quantity("level"), stroke: muted, strokeDash };
  return finished("Deviation by group element.", "container", 230, [
    layer("points", "bar", { cornerRadiusEnd: 2, width: { band: 0.72 } }, { x, y, color: coloured, tooltip: hint }),
    // one level for all elements, or one for each
    layer("rules", "rule", thin, level),
    layer("ticks", "rule", thin, { ...level, x: { ...x, bandPosition: 0 }, x2: { field: "name", bandPosition: 1 } }),
  ]);
}

const CHARTS = {
  depth: lines("Deviation by depth: one line a model over its taps, with interval, floor and null.", nominal("tap", {
    sort: null,
    scale: { type: "point", padding: 0.4 },
    axis: { title: null, labelLimit: 130, labelOverlap: "greedy", grid: false, ticks: false, labelPadding: 6 },
  })),
  training: lines("Deviation over training steps, with interval, floor and null.",
    quantity("step", { axis: { title: "training step", grid: false, tickCount: 6, format: "~s" } })),
  polar: ring(),
  bars: bars(),
};
