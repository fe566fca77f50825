/* What the reader chooses: images and group, scale, models, tap; and the charts and tables that follow. */

const data = JSON.parse(document.getElementById("geed-data").textContent);
const PALETTE = ["var(--c1)", "var(--c2)", "var(--c3)", "var(--c4)", "var(--c5)", "var(--c6)", "var(--c7)", "var(--c8)"];
const CALIBRATED_AXIS = "calibrated deviation";
const PREFERRED = ["channelwise", "latent-l2", "softmax"];
const column = Object.fromEntries(data.columns.map((c, i) => [c.key, i]));
const text = (i) => (i === null || i === undefined ? null : data.texts[i]);
const byId = (id) => document.getElementById(id);

const NUMBERS = ["value", "low", "high", "optimum", "floor", "null", "calibrated", "calibrated_low", "calibrated_high"];
const BY_ELEMENT = ["per_element", "floor_per_element", "null_per_element", "calibrated_by_element"];

function readings() {
  const found = [];
  const take = (places, numbers, reasons, calibrated, models) => {
    for (let i = 0; i < places.entity.length; i++) {
      const r = { entity: places.entity[i], context: places.context[i], slot: places.slot[i], variant: places.variant[i] };
      r.tap = text(places.tap[i]);
      for (const name of BY_ELEMENT) r[name] = places[name][i];
      for (const name of NUMBERS) r[name] = numbers[name][i];
      r.reason = text(reasons[i]);
      r.calibrated_reason = text(calibrated[i]);
      r.models = models ? models[i] : null;
      found.push(r);
    }
  };
  const own = Object.fromEntries(NUMBERS.map((name) => [name, data.columns[column[name]].values]));
  take(data.cells, own, data.columns[column.reason].values, data.columns[column.calibrated_reason].values, null);
  take(data.means, data.means, data.means.reason, data.means.calibrated_reason, data.means.models);
  return found;
}

const all = readings();
const state = { context: 0, scale: "calibrated", variants: {}, models: [...data.chosen], slot: null, taps: [], runs: [], step: { by: "models" } };

/* Everything of one context: readings by entity, slot and variant, the variants of each kind, the slots in use. */
const contexts = new Map();
function here() {
  if (!contexts.has(state.context)) {
    const index = new Map(), variants = {}, slots = new Set();
    for (const r of all) {
      if (r.context !== state.context || r.slot === null) continue;
      index.set(`${r.entity}/${r.slot}/${r.variant}`, r);
      slots.add(r.slot);
      const kind = data.slots[r.slot].kind;
      variants[kind] = variants[kind] || [];
      if (!variants[kind].includes(r.variant)) variants[kind].push(r.variant);
    }
    contexts.set(state.context, { index, variants, slots: [...slots].sort((a, b) => a - b) });
  }
  return contexts.get(state.context);
}

function variantOf(kind) {
  const some = here().variants[kind] || [];
  if (!some.includes(state.variants[kind])) {
    state.variants[kind] = some.find((v) => PREFERRED.includes(text(v))) ?? some[0];
  }
  return state.variants[kind];
}

const reading = (entity, slot, variant = variantOf(data.slots[slot].kind)) => here().index.get(`${entity}/${slot}/${variant}`);
const colourOf = (i) => PALETTE[i % PALETTE.length];

function told(r) {
  const lines = [data.entities[r.entity].label, `${r.tap} · ${text(r.variant)}`];
  if (r.models !== null) lines[0] += ` (${r.models} with a value)`;
  if (r.value !== null) lines.push(`value ${shown(r.value)}${interval(r.low, r.high)}`);
  if (r.calibrated !== null) lines.push(`calibrated ${shown(r.calibrated)}${interval(r.calibrated_low, r.calibrated_high)}`);
  if (r.value !== null) lines.push(`floor ${shown(r.floor)} · null ${shown(r.null)} · optimum ${shown(r.optimum)}`);
  lines.push(...[r.reason, r.calibrated_reason].filter(Boolean));
  return lines.join("\n");
}

/* A reading on the chosen scale. */
function onScale(r, scale = state.scale) {
  if (scale === "calibrated") {
    const none = r.calibrated === null;
    return { value: r.calibrated, low: r.calibrated_low, high: r.calibrated_high, floor: none ? null : 0, null: none ? null : 1 };
  }
  return { value: r.value, low: r.low, high: r.high, floor: r.floor, null: r.null };
}

/* Rows for `points` and `levels` of a line chart; `at` says where along x a reading stands. */
function linesOf(series, calibrated) {
  const points = [], levels = [];
  for (const { id, colour, places } of series) {
    for (const { at, r } of places) {
      const s = onScale(r, calibrated ? "calibrated" : "value");
      points.push({ ...at, series: id, colour, value: s.value, low: s.low, high: s.high, tip: told(r) });
      if (calibrated) continue;
      for (const what of ["floor", "null"]) {
        if (s[what] !== null) levels.push({ ...at, series: id, what, dash: what, level: s[what], colour, alone: places.length === 1 });
      }
    }
  }
  if (calibrated) {
    const once = new Map(series.flatMap((s) => s.places.map((p) => [JSON.stringify(p.at), p.at])));
    const alone = once.size === 1;
    for (const at of once.values()) {
      levels.push({ ...at, series: "all", what: "floor", dash: "floor", level: 0, colour: "var(--muted)", alone });
      levels.push({ ...at, series: "all", what: "null", dash: "null", level: 1, colour: "var(--muted)", alone });
    }
  }
  return { points, levels };
}

function titled(spec, title, domain) {
  for (const layer of spec.layer) {
    if (layer.encoding.y && layer.encoding.y.field === "value") layer.encoding.y.title = title;
    if (domain && layer.encoding.x) layer.encoding.x.scale = { ...layer.encoding.x.scale, domain };
    // the levels that hold for all are no line of one model
    if (layer.encoding.opacity && layer.encoding.opacity.condition) {
      layer.encoding.opacity.condition.test = "active === null || active === datum.series || datum.series === 'all'";
    }
    if (domain && domain.length && layer.encoding.x && layer.encoding.x.axis) {
      const longest = Math.max(...domain.map((name) => name.length));
      layer.encoding.x.axis.labelAngle = domain.length * longest > 60 ? -35 : 0;
    }
  }
}

function nothing(host, why) {
  host.replaceChildren(element("p", { class: "empty" }, why));
  return [];
}

function panel(host, title, about) {
  const drawn = element("div", { class: "chart" });
  const made = element("figure", { class: "panel" }, drawn);
  if (title) made.prepend(element("figcaption", {}, element("strong", {}, title), about ? ` ${about}` : ""));
  host.append(made);
  return drawn;
}

async function drawDepth(host) {
  const { slots } = here();
  host.replaceChildren();
  const calibrated = state.scale === "calibrated";
  const kinds = [...new Set(slots.map((s) => data.slots[s].kind))];
  const parts = calibrated ? [slots] : kinds.map((kind) => slots.filter((s) => data.slots[s].kind === kind));
  const drawn = [];
  for (const part of parts) {
    const series = state.models.map((entity, i) => ({
      id: entity, colour: colourOf(i),
      places: part.map((slot) => ({ at: { tap: data.slots[slot].label }, r: reading(entity, slot) })).filter((p) => p.r),
    }));
    const taken = new Set(series.flatMap((s) => s.places.map((p) => p.at.tap)));
    if (!taken.size) continue;
    const domain = part.map((slot) => data.slots[slot].label).filter((label) => taken.has(label));
    const name = text(variantOf(data.slots[part[0]].kind));
    const drawing = calibrated ? panel(host) : panel(host, name, `on ${data.slots[part[0]].kind} taps; optimum ${optimumOf(series)}`);
    drawing.parentElement.style.flexGrow = calibrated ? 1 : Math.max(2, domain.length);
    drawn.push(chart(drawing, "depth", linesOf(series, calibrated), (spec) => titled(spec, calibrated ? CALIBRATED_AXIS : `${name}, raw`, domain)));
  }
  return drawn.length ? Promise.all(drawn) : nothing(host, "No measured taps for these models here.");
}

function optimumOf(series) {
  const some = new Set(series.flatMap((s) => s.places.map((p) => p.r.optimum)).filter((x) => x !== null).map(shown));
  return some.size === 1 ? [...some][0] : some.size ? "differs (−1/M)" : "unknown";
}

/* Calibrated values beyond this are drawn at the edge: where null and floor nearly meet, they have no bound. */
const EDGE = 3;

/* Deviations by element: each against its own floor and null, or above the optimum. A value is null where there is
 * nothing to compare with; `levels` are one number for all elements, or one for each. */
function profileOf(r) {
  if (!r.per_element || r.value === null) return null;
  if (state.scale === "calibrated" && r.calibrated === null) return null;
  if (state.scale === "calibrated" && r.calibrated_by_element) {
    return { values: r.calibrated_by_element, levels: { null: 1, floor: 0 }, raw: false };
  }
  const base = r.optimum ?? 0;
  const above = (row) => row && row.map((v) => v - base);
  return { values: above(r.per_element), levels: { null: above(r.null_per_element), floor: above(r.floor_per_element) }, raw: true };
}

/* Reach from the least to the largest of what is drawn, so that sizes compare. */
function reachOf(profiles) {
  const ends = profiles.flatMap(({ values, levels }) => [...values, levels.null, levels.floor].flat()).filter((v) => v !== null);
  const raw = profiles.some((p) => p.raw);
  const top = Math.max(...ends, 1e-12), least = Math.min(0, ...ends);
  return raw ? { top, least } : { top: Math.min(top, EDGE), least: Math.max(least, -1) };
}

/* What stands under one drawing. */
function saidOf(r, profile, names, top) {
  const { values, raw } = profile;
  const worst = values.indexOf(Math.max(...values.filter((v) => v !== null)));
  const which = (test) => names.filter((_, g) => test(values[g])).join(", ");
  const none = which((v) => v === null), beyond = raw ? "" : which((v) => v > top);
  const notes = [["worst at ", element("strong", {}, names[worst]), `: ${shown(values[worst])}`]];
  if (none) notes.push([`left out: ${none}, where unrelated images would not deviate either`]);
  if (beyond) notes.push([`drawn at the edge: ${beyond}`]);
  if (raw && state.scale === "calibrated") notes.push(["above the optimum, not calibrated: these results have no floor and null by element"]);
  else if (raw && !r.null_per_element && r.null !== null) notes.push(["no floor and null by element in these results"]);
  return notes.map((parts) => element("p", { class: "note" }, ...parts));
}

async function drawProfile(host) {
  host.replaceChildren();
  const { elements, angles } = data.contexts[state.context];
  const shapes = state.models.map((entity, i) => ({ entity, colour: colourOf(i), r: state.slot === null ? null : reading(entity, state.slot) }))
    .filter((shape) => shape.r).map((shape) => ({ ...shape, profile: profileOf(shape.r) }));
  if (!shapes.length) return nothing(host, "No deviations by element for these models here.");
  const drawn = [];
  for (const { entity, colour, r, profile } of shapes) {
    const label = data.entities[entity].label;
    const figure = element("figure", { class: "petal" }, element("figcaption", {}, swatchOf(colour), label));
    host.append(figure);
    if (!profile) {
      figure.append(element("p", { class: "empty" }, r.calibrated_reason || r.reason || "no deviations by element were kept"));
      continue;
    }
    const { top, least } = reachOf(shapes.map((s) => s.profile).filter((p) => p && p.raw === profile.raw));
    const names = profile.values.map((_, g) => elements[g] ?? `g${g}`);
    const word = profile.raw ? "above the optimum" : "calibrated";
    const tips = profile.values.map((v, g) => `${label}\n${r.tap} at ${names[g]}\n${shown(v)} ${word}\nvalue ${shown(r.per_element[g])}`);
    const drawing = element("div", { class: "chart" });
    figure.append(drawing, ...saidOf(r, profile, names, top));
    const values = profile.values.map((v) => (v === null ? null : Math.max(least, Math.min(top, v))));
    if (angles && angles.length === values.length) {
      drawn.push(polar(drawing, { angles, reach: top * 1.06, values, tips, colour, levels: profile.levels }));
      continue;
    }
    figure.classList.add("wide");
    const points = values.map((value, g) => ({ name: names[g], value, tip: tips[g], colour })).filter((p) => p.value !== null);
    const known = Object.entries(profile.levels).filter(([, level]) => level !== null);
    const rules = known.filter(([, level]) => !Array.isArray(level)).map(([dash, level]) => ({ dash, level }));
    const ticks = known.filter(([, level]) => Array.isArray(level)).flatMap(([dash, row]) => row.map((level, g) => ({ dash, level, name: names[g] })));
    drawn.push(chart(drawing, "bars", { points, rules, ticks }, (spec) => {
      for (const layer of spec.layer) {
        if (layer.encoding.x) layer.encoding.x.scale = { domain: names };
        layer.encoding.y.scale = { domain: [least, top * 1.06] };
      }
    }));
  }
  return Promise.all(drawn);
}

async function drawTraining(host) {
  host.replaceChildren();
  const slots = state.step.by === "models" ? [state.step.slot] : here().slots.filter((s) => state.taps.includes(s));
  const runs = state.step.by === "models" ? state.runs : [state.runs[0]];
  const series = [];
  for (const run of runs) {
    if (run === undefined) continue;
    for (const slot of slots) {
      if (slot === null || slot === undefined) continue;
      const places = data.runs[run].points.map(([step, entity]) => ({ at: { step }, r: reading(entity, slot) })).filter((p) => p.r);
      const label = state.step.by === "models" ? data.runs[run].label : data.slots[slot].label;
      if (places.length) series.push({ id: series.length, colour: colourOf(series.length), places, label });
    }
  }
  const legend = byId("training-legend");
  legend.replaceChildren(...series.map((s) => element("span", { class: "key" }, swatchOf(s.colour), s.label)));
  if (!series.length) return nothing(host, "No checkpoints for this choice.");
  const names = [...new Set(slots.map((s) => text(variantOf(data.slots[s].kind))))];
  const title = state.scale === "calibrated" ? CALIBRATED_AXIS : `${names.join(", ")}, raw`;
  return Promise.all([chart(panel(host), "training", linesOf(series, state.scale === "calibrated"), (spec) => titled(spec, title))]);
}

/* Models side by side: one row a model, one column a tap and variant, shaded by the calibrated value. */
function sideBySide() {
  const { index, slots } = here();
  const columns = [{ key: "model", title: "Model", text: true }];
  const at = [null];
  for (const slot of slots) {
    for (const variant of here().variants[data.slots[slot].kind]) {
      if (!data.entities.some((_, e) => index.has(`${e}/${slot}/${variant}`))) continue;
      columns.push({ title: data.slots[slot].label, under: text(variant), about: `${state.scale} value of ${data.slots[slot].label}, ${text(variant)}` });
      at.push([slot, variant]);
    }
  }
  const rows = data.entities.map((_, e) => e).filter((e) => at.some((p) => p && index.has(`${e}/${p[0]}/${p[1]}`)));
  const get = (row, c) => index.get(`${rows[row]}/${at[c][0]}/${at[c][1]}`);
  return {
    name: `side-by-side-${state.scale === "value" ? "raw" : "calibrated"}`, label: "models side by side", columns, count: rows.length,
    value: (row, c) => (c === 0 ? data.entities[rows[row]].label : (get(row, c) || {})[state.scale] ?? null),
    fill: (cell, row, c, value) => {
      cell.textContent = c === 0 ? value : shown(value);
      if (c === 0) return;
      const r = get(row, c);
      if (!r) { cell.textContent = ""; return; }
      cell.title = told(r);
      if (r.calibrated !== null) cell.style.setProperty("--heat", Math.max(0, Math.min(1, r.calibrated)).toFixed(3));
      cell.className = r.calibrated === null ? "number none" : "number heat";
    },
  };
}
