/* What the reader chooses: images and group, scale, models, tap; and the charts and tables that follow. */

const data = DATA.data;
const PALETTE = ["var(--c1)", "var(--c2)", "var(--c3)", "var(--c4)", "var(--c5)", "var(--c6)", "var(--c7)", "var(--c8)"];
const CALIBRATED_AXIS = "calibrated deviation";
const PREFERRED = ["channelwise", "latent-l2", "softmax"];
const column = Object.fromEntries(data.columns.map((c, i) => [c.key, i]));
const text = (i) => (i === null || i === undefined ? null : data.texts[i]);
const byId = (id) => document.getElementById(id);

const NUMBERS = ["value", "low", "high", "optimum", "floor", "null", "calibrated", "calibrated_low", "calibrated_high"];

function readings() {
  const found = [];
  const take = (places, numbers, reasons, models) => {
    for (let i = 0; i < places.entity.length; i++) {
      const r = { entity: places.entity[i], context: places.context[i], slot: places.slot[i], variant: places.variant[i] };
      r.tap = text(places.tap[i]);
      r.per_element = places.per_element[i];
      for (const name of NUMBERS) r[name] = numbers[name][i];
      r.reason = text(reasons[i]);
      r.models = models ? models[i] : null;
      found.push(r);
    }
  };
  const own = Object.fromEntries(NUMBERS.map((name) => [name, data.columns[column[name]].values]));
  take(data.cells, own, data.columns[column.reason].values, null);
  take(data.means, data.means, data.means.reason, data.means.models);
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

function between(low, high) {
  return low === null || high === null ? "" : ` [${shown(low)}, ${shown(high)}]`;
}

function told(r) {
  const lines = [data.entities[r.entity].label, `${r.tap} · ${text(r.variant)}`];
  if (r.models !== null) lines[0] += ` (${r.models} with a value)`;
  if (r.value !== null) lines.push(`value ${shown(r.value)}${between(r.low, r.high)}`);
  if (r.calibrated !== null) lines.push(`calibrated ${shown(r.calibrated)}${between(r.calibrated_low, r.calibrated_high)}`);
  if (r.value !== null) lines.push(`floor ${shown(r.floor)} · null ${shown(r.null)} · optimum ${shown(r.optimum)}`);
  if (r.reason) lines.push(r.reason);
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

/* Deviations by element: above the optimum, or calibrated. */
function profileOf(r) {
  if (!r || !r.per_element || r.value === null) return null;
  if (state.scale === "calibrated") {
    if (r.calibrated === null || r.null === null || r.floor === null) return null;
    const gap = r.null - r.floor;
    return { values: r.per_element.map((v) => (v - r.floor) / gap), floor: 0, null: 1 };
  }
  const base = r.optimum ?? 0;
  return { values: r.per_element.map((v) => v - base), floor: r.floor === null ? null : r.floor - base, null: r.null === null ? null : r.null - base };
}

async function drawProfile(host) {
  host.replaceChildren();
  const { elements, angles } = data.contexts[state.context];
  const shapes = state.models.map((entity, i) => ({ entity, colour: colourOf(i), r: state.slot === null ? null : reading(entity, state.slot) }))
    .filter((shape) => shape.r).map((shape) => ({ ...shape, profile: profileOf(shape.r) }));
  if (!shapes.length) return nothing(host, "No deviations by element for these models here.");
  // one scale for all, so that sizes compare
  const ends = shapes.flatMap(({ profile }) => (profile ? [...profile.values, profile.floor ?? 0, profile.null ?? 0] : []));
  const reach = Math.max(...ends, 1e-12) * 1.06, least = Math.min(0, ...ends);
  const drawn = [];
  for (const { entity, colour, r, profile } of shapes) {
    const label = data.entities[entity].label;
    const figure = element("figure", { class: "petal" }, element("figcaption", {}, swatchOf(colour), label));
    host.append(figure);
    if (!profile) {
      figure.append(element("p", { class: "empty" }, r.reason || "no deviations by element were kept"));
      continue;
    }
    const names = profile.values.map((_, g) => elements[g] ?? `g${g}`);
    const word = state.scale === "calibrated" ? "calibrated" : "above the optimum";
    const tips = profile.values.map((v, g) => `${label}\n${r.tap} at ${names[g]}\n${shown(v)} ${word}\nvalue ${shown(r.per_element[g])}`);
    const worst = profile.values.indexOf(Math.max(...profile.values));
    const drawing = element("div", { class: "chart" });
    figure.append(drawing, element("p", { class: "note" }, "worst at ", element("strong", {}, names[worst]), `: ${shown(profile.values[worst])}`));
    const same = { values: profile.values, tips, colour, floor: profile.floor, null: profile.null };
    if (angles && angles.length === profile.values.length) {
      drawn.push(polar(drawing, { angles, reach, ...same }));
      continue;
    }
    figure.classList.add("wide");
    const points = profile.values.map((value, g) => ({ name: names[g], value, tip: tips[g], colour }));
    const levels = ["floor", "null"].filter((w) => profile[w] !== null).map((w) => ({ dash: w, level: profile[w] }));
    drawn.push(chart(drawing, "bars", { points, levels }, (spec) => {
      spec.layer[0].encoding.x.scale = { domain: names };
      spec.layer[0].encoding.y.scale = { domain: [least, reach] };
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
