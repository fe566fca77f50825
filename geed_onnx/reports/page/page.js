/* The page: controls, and who is told when they change. */

const swatchOf = (colour) => { const s = element("i", { class: "swatch", "aria-hidden": "true" }); s.style.background = colour; return s; };
const swatch = (i) => swatchOf(colourOf(i));
const views = {};
let heat = null;

function options(select, entries, chosen) {
  select.replaceChildren(...entries.map(([value, label]) => element("option", { value, selected: String(value) === String(chosen) }, label)));
  select.value = String(chosen);
}

/* Choose several of a list, at most as many as there are colours. */
function picker(host, noun, labels, chosen, changed) {
  const limit = PALETTE.length;
  const summary = element("summary");
  const list = element("div", { class: "picker-list" });
  const said = element("p", { class: "note", role: "status" });
  const filter = element("input", { type: "search", placeholder: `Find ${noun}…`, "aria-label": `Find ${noun}`, autocomplete: "off" });
  const items = labels.map((label, i) => {
    const box = element("input", { type: "checkbox", value: i });
    box.checked = chosen().includes(i);
    box.addEventListener("change", () => {
      const now = chosen();
      if (box.checked && now.length >= limit) {
        box.checked = false;
        said.textContent = `At most ${limit} lines can be told apart; take one away first.`;
        return;
      }
      said.textContent = "";
      changed(box.checked ? [...now, i] : now.filter((x) => x !== i));
      count();
    });
    return element("label", {}, box, element("span", {}, label));
  });
  const count = () => { summary.textContent = `${noun[0].toUpperCase()}${noun.slice(1)}: ${chosen().length} of ${labels.length}`; };
  filter.addEventListener("input", () => {
    const words = filter.value.toLowerCase().split(/\s+/).filter(Boolean);
    items.forEach((item, i) => { item.hidden = !words.every((w) => labels[i].toLowerCase().includes(w)); });
  });
  list.append(...items);
  const inside = element("div", { class: "picker-box" }, ...(labels.length > 8 ? [filter] : []), list, said);
  const details = element("details", { class: "picker" }, summary, inside);
  document.addEventListener("click", (event) => { if (!details.contains(event.target)) details.open = false; });
  details.addEventListener("keydown", (event) => { if (event.key === "Escape") { details.open = false; summary.focus(); } });
  host.append(details);
  count();
  return () => {
    items.forEach((item, i) => { item.querySelector("input").checked = chosen().includes(i); });
    count();
  };
}

function legend() {
  byId("legend").replaceChildren(...state.models.map((entity, i) => {
    const key = element("button", { type: "button", class: "key", title: "point at it to see it alone" }, swatch(i), data.entities[entity].label);
    const alone = (series) => () => views.depth && views.depth.highlight(series);
    key.addEventListener("mouseenter", alone(entity));
    key.addEventListener("focus", alone(entity));
    key.addEventListener("mouseleave", alone(null));
    key.addEventListener("blur", alone(null));
    return key;
  }));
}

function variantControls() {
  const host = byId("variants");
  host.replaceChildren();
  for (const [kind, some] of Object.entries(here().variants)) {
    if (some.length < 2) continue;
    const select = element("select", {
      onchange: () => { state.variants[kind] = Number(select.value); renew("depth", "profile", "training"); },
    });
    options(select, some.map((v) => [v, text(v)]), variantOf(kind));
    host.append(element("label", {}, `${kind} taps by `, select));
  }
}

function slotControls() {
  const slots = here().slots;
  const kept = (slot) => slots.includes(slot);
  // the last map that most of the chosen models have
  const having = (slot) => state.models.filter((entity) => reading(entity, slot)).length;
  const most = (some) => some.filter((slot) => having(slot) === Math.max(...some.map(having))).at(-1);
  const maps = slots.filter((s) => data.slots[s].kind === "map");
  if (!kept(state.slot)) state.slot = most(maps) ?? most(slots) ?? null;
  options(byId("profile-slot"), slots.map((s) => [s, data.slots[s].label]), state.slot);
  if (!byId("training")) return;
  const trained = slots.filter((slot) => data.runs.some((run) => run.points.some(([, entity]) => reading(entity, slot))));
  if (!trained.includes(state.step.slot)) state.step.slot = trained.at(-1) ?? null;
  const last = trained.length - 1, colours = PALETTE.length - 1;
  state.taps = last <= colours ? trained : PALETTE.map((_, i) => trained[Math.round((i * last) / colours)]);
  options(byId("training-slot"), trained.map((s) => [s, data.slots[s].label]), state.step.slot);
}

function renew(...names) {
  for (const name of names) if (views[name]) views[name].renew();
  if (names.includes("heat") && heat) heat.show(sideBySide());
}

const everything = ["depth", "profile", "training", "heat"];

/* Other images or another group may be of other models: then those are drawn. */
function modelsOfContext() {
  const there = new Set([...here().index.values()].map((r) => r.entity));
  if (state.models.some((entity) => there.has(entity))) return;
  const families = [...there].filter((entity) => data.entities[entity].family);
  state.models = (families.length ? families : [...there]).slice(0, 5);
  views.modelsChanged();
  legend();
}

function contextChanged() {
  modelsOfContext();
  const note = byId("context-note");
  note.textContent = data.contexts[state.context].note || "";
  note.hidden = !note.textContent;
  variantControls();
  slotControls();
  renew(...everything);
}

function explore() {
  if (!byId("explore")) return;
  const context = byId("context");
  options(context, data.contexts.map((c, i) => [i, c.label]), 0);
  context.addEventListener("change", () => { state.context = Number(context.value); contextChanged(); });
  context.parentElement.hidden = data.contexts.length < 2;
  for (const input of document.querySelectorAll("input[name=scale]")) {
    input.addEventListener("change", () => {
      state.scale = input.value;
      document.body.dataset.scale = state.scale;
      renew(...everything);
    });
  }
  document.body.dataset.scale = state.scale;
  views.modelsChanged = picker(byId("models"), "models", data.entities.map((e) => e.label), () => state.models, (now) => {
    state.models = now;
    legend();
    renew("depth", "profile");
  });
  legend();
  byId("profile-slot").addEventListener("change", (event) => { state.slot = Number(event.target.value); renew("profile"); });
  if (byId("training")) {
    state.runs = data.runs.map((_, i) => i).slice(0, PALETTE.length);
    picker(byId("runs"), "trainings", data.runs.map((r) => r.label), () => state.runs, (now) => { state.runs = now; renew("training"); });
    byId("training-slot").addEventListener("change", (event) => { state.step.slot = Number(event.target.value); renew("training"); });
    byId("training-by").addEventListener("change", (event) => {
      state.step.by = event.target.value;
      byId("training-slot").parentElement.hidden = state.step.by !== "models";
      renew("training");
    });
    views.training = new Drawing(byId("training-chart"), drawTraining);
  }
  views.depth = new Drawing(byId("depth-chart"), drawDepth);
  views.profile = new Drawing(byId("profile-chart"), drawProfile);
  heat = new Grid(byId("heat"), sideBySide(), { filter: data.entities.length > 12, pinned: true });
  Grids.push(heat);
  contextChanged();
  for (const button of document.querySelectorAll("button[data-save]")) {
    button.addEventListener("click", () => saveSvg(byId(button.dataset.save), button.dataset.save));
  }
}

const Grids = [];

function allResults() {
  const host = byId("all-results");
  if (!host) return;
  // numbers by element are for the file alone
  const listed = BY_ELEMENT.map((key) => ({ key, title: key, shown: false, values: data.cells[key].map((row) => row && JSON.stringify(row)) }));
  const columns = [...data.columns, ...listed];
  Grids.push(new Grid(host, {
    name: "results", label: "all results", columns, count: data.cells.entity.length,
    value: (row, c) => (columns[c].text ? text(columns[c].values[row]) : columns[c].values[row]),
  }, { filter: true, pinned: true }));
}

function theme() {
  const root = document.documentElement, button = byId("theme");
  const stored = () => { try { return localStorage.getItem("geed-onnx-theme"); } catch { return null; } };
  const dark = () => (root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches);
  const told = () => { button.textContent = dark() ? "Light" : "Dark"; };
  if (["light", "dark"].includes(stored())) root.dataset.theme = stored();
  button.addEventListener("click", () => {
    root.dataset.theme = dark() ? "light" : "dark";
    try { localStorage.setItem("geed-onnx-theme", root.dataset.theme); } catch { /* a browser that keeps nothing */ }
    told();
  });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", told);
  told();
}

/* Paper does not scroll: long tables get their rows, wide ones a smaller print, folded parts open. */
function printing() {
  const folded = [];
  const before = () => {
    Drawing.all.forEach((d) => d.draw());
    Grids.forEach((g) => g.forPrint());
    for (const details of document.querySelectorAll("main details:not([open]):not(.picker)")) { details.open = true; folded.push(details); }
    for (const table of document.querySelectorAll(".table-box > table")) {
      const room = 690, wide = table.scrollWidth;
      table.style.zoom = wide > room ? Math.max(0.42, room / wide) : "";
    }
  };
  const after = () => {
    folded.splice(0).forEach((details) => { details.open = false; });
    for (const table of document.querySelectorAll(".table-box > table")) table.style.zoom = "";
  };
  window.addEventListener("beforeprint", before);
  window.addEventListener("afterprint", after);
}

theme();
for (const table of document.querySelectorAll("main table")) {
  const grid = enhance(table);
  if (grid) Grids.push(grid);
}
explore();
allResults();
printing();
// what is below is drawn when nothing else is to be done, so that paper has it
idle(() => Drawing.all.forEach((d) => d.draw()));
document.documentElement.dataset.ready = "yes";
