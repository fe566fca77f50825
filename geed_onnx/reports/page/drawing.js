/* Charts: drawn when they come near the window, again when what they show changes; nothing is fetched. */

const tip = element("div", { id: "tip", role: "tooltip", hidden: true });
document.body.append(tip);

function showTip(_handler, event, _item, value) {
  // text, never markup: names in it come from files that others made
  const text = typeof value === "string" ? value : value && typeof value === "object" ? String(value.tip ?? "") : "";
  tip.hidden = !text;
  if (!text) return;
  tip.textContent = text;
  const { width, height } = tip.getBoundingClientRect();
  const left = Math.min(event.clientX + 14, window.innerWidth - width - 8);
  const top = event.clientY + 18 + height > window.innerHeight ? event.clientY - height - 12 : event.clientY + 18;
  tip.style.left = `${Math.max(8, left)}px`;
  tip.style.top = `${Math.max(8, top)}px`;
}
document.addEventListener("keydown", (event) => { if (event.key === "Escape") tip.hidden = true; });

class Drawing {
  constructor(host, make) {
    this.host = host;
    this.make = make;
    this.stale = true;
    Drawing.all.push(this);
    Drawing.watcher.observe(host);
  }

  /* make(host) draws and returns a promise of views, or null while there is nothing to draw. */
  async draw() {
    if (!this.stale) return this.done;
    this.stale = false;
    (this.views || []).forEach((view) => view.finalize());
    this.views = [];
    const turn = (this.turn = (this.turn || 0) + 1);
    this.done = Promise.resolve(this.make(this.host)).then((views) => {
      if (turn === this.turn) this.views = views || [];
      else (views || []).forEach((view) => view.finalize());
    });
    return this.done;
  }

  renew() {
    this.stale = true;
    if (this.near) this.draw();
    else idle(() => this.draw());
  }

  highlight(series) {
    for (const view of this.views || []) {
      try { view.signal("active", series).runAsync(); } catch { /* a chart without that signal */ }
    }
  }
}
Drawing.all = [];
Drawing.watcher = new IntersectionObserver((entries) => {
  for (const entry of entries) {
    const drawing = Drawing.all.find((d) => d.host === entry.target);
    drawing.near = entry.isIntersecting;
    if (drawing.near) drawing.draw();
  }
}, { rootMargin: "300px" });

function idle(work) {
  if (window.requestIdleCallback) requestIdleCallback(work, { timeout: 4000 });
  else setTimeout(work, 300);
}

const vegaErrors = 1;

/* Each specification names its data; `change(spec)` sets what depends on them. */
async function chart(host, kind, datasets, change) {
  const spec = structuredClone(CHARTS[kind]);
  spec.datasets = datasets;
  if (change) change(spec);
  const made = await vegaEmbed(host, spec, {
    mode: "vega-lite", renderer: "svg", actions: false, defaultStyle: false, tooltip: showTip,
    // an interpreter runs the expressions, so that the page needs no right to make code from text
    ast: true,
    logLevel: vegaErrors,
  });
  const svg = host.querySelector("svg");
  if (svg) svg.setAttribute("role", "img");
  return made.view;
}

/* The drawing as a file: its colours are the page's variables, which no other program knows. */
function saveSvg(host, name) {
  const styles = getComputedStyle(document.documentElement);
  const plain = (text) => text.replace(/var\((--[a-z0-9-]+)\)/g, (_, v) => styles.getPropertyValue(v).trim());
  const drawings = [...host.querySelectorAll("svg.marks")];
  drawings.forEach((svg, i) => {
    const copy = svg.cloneNode(true);
    copy.setAttribute("xmlns", "http://www.w3.org/2000/svg");
    const file = drawings.length > 1 ? `${name}-${i + 1}.svg` : `${name}.svg`;
    saveFile(file, "image/svg+xml", plain(new XMLSerializer().serializeToString(copy)));
  });
}

/* Everything that moves with the length of the circle: 0° at the top, counter-clockwise, as the pictures turn. */
function onCircle(radius, degrees) {
  const t = (degrees * Math.PI) / 180;
  return { x: -radius * Math.sin(t), y: radius * Math.cos(t) };
}

function circle(radius, path, more) {
  const points = [];
  for (let i = 0; i <= 72; i++) points.push({ ...onCircle(radius, i * 5), order: i, path, ...more });
  return points;
}

/* A line through a value at every angle, and back to the first; broken where a value is null. */
function around(angles, values, path, more) {
  const points = [];
  let part = 0;
  for (let i = 0; i <= angles.length; i++) {
    const g = i % angles.length;
    if (values[g] === null) part++;
    else points.push({ ...onCircle(Math.max(0, values[g]), angles[g]), order: i, path: `${path}${part}`, ...more(g) });
  }
  return points;
}

/* `levels` by their name: one number for all angles is a circle, one for each a line through them. */
function polar(host, { angles, values, tips, colour, levels, reach }) {
  const frame = [], labels = [], marked = [];
  for (const part of [1 / 3, 2 / 3, 1]) frame.push(...circle(reach * part, `c${part}`));
  const step = Math.max(1, Math.ceil(angles.length / 12));
  angles.forEach((angle, i) => {
    if (i % step) return;
    frame.push({ x: 0, y: 0, order: 0, path: `s${i}` }, { ...onCircle(reach, angle), order: 1, path: `s${i}` });
    labels.push({ ...onCircle(reach * 1.14, angle), text: `${+angle.toFixed(1)}°` });
  });
  for (const [dash, level] of Object.entries(levels)) {
    if (Array.isArray(level)) marked.push(...around(angles, level, dash, () => ({ dash })));
    else if (level !== null && level > 0) marked.push(...circle(level, dash, { dash }));
  }
  const points = around(angles, values, "v", (g) => ({ colour, tip: tips[g] }));
  return chart(host, "polar", { frame, labels, levels: marked, points }, (spec) => {
    for (const layer of spec.layer) {
      for (const axis of ["x", "y"]) layer.encoding[axis].scale = { domain: [-reach * 1.25, reach * 1.25], nice: false };
    }
  });
}
