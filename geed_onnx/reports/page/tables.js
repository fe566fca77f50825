/* Tables: sorted by their headings, filtered, saved as CSV; rows of long ones are made as they are scrolled to. */

const collator = new Intl.Collator("en", { numeric: true, sensitivity: "base" });
const FIRST_ROWS = 60, MORE_ROWS = 200, PRINTED_ROWS = 1500;

function element(tag, attributes, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes || {})) {
    if (value === null || value === undefined || value === false) continue;
    if (name === "class") made.className = value;
    else if (name.startsWith("on")) made.addEventListener(name.slice(2), value);
    else made.setAttribute(name, value === true ? "" : value);
  }
  made.append(...children);
  return made;
}

/* A number as it is shown: three digits in ordinary range, scientific outside it, a dash for none. */
function shown(x) {
  if (x === null || x === undefined) return "–";
  if (Number.isInteger(x) && Math.abs(x) < 1e6) return String(x).replace("-", "−");
  const size = Math.abs(x);
  const text = size !== 0 && (size < 1e-3 || size >= 1e4) ? x.toExponential(2) : x.toFixed(3);
  return text.replace("-", "−").replace("e−", "e-").replace("e+", "e");
}

/* An interval; a dash for an end that is not known, nothing where there is none at all. */
function interval(low, high) {
  return low === null && high === null ? "" : ` [${shown(low)}, ${shown(high)}]`;
}

/* A spreadsheet runs text that starts like a formula; an apostrophe makes it text. Numbers stay numbers. */
function csvField(value) {
  if (value === null || value === undefined) return "";
  if (typeof value === "number") return String(value);
  let text = String(value);
  if (/^[=+\-@\t\r]/.test(text)) text = "'" + text;
  return /[",\r\n;]/.test(text) ? '"' + text.replaceAll('"', '""') + '"' : text;
}

function saveFile(name, type, text) {
  const url = URL.createObjectURL(new Blob([text], { type }));
  const link = element("a", { href: url, download: name });
  document.body.append(link);
  link.click();
  link.remove();
  setTimeout(() => URL.revokeObjectURL(url), 10000);
}

function compare(a, b) {
  if (typeof a === "number" && typeof b === "number") return a - b;
  if (typeof a === "number") return -1;
  if (typeof b === "number") return 1;
  return collator.compare(a, b);
}

/*
 * source: { name, label, columns: [{ title, about, text, shown }], count, value(row, column) → number | text | null,
 *           fill(cell, row, column, value)?, existing(row)? → a <tr> that is there already }
 */
class Grid {
  constructor(host, source, options = {}) {
    this.host = host;
    this.options = options;
    this.box = element("div", { class: options.pinned ? "table-box pinned" : "table-box", tabindex: "0", role: "region" });
    this.status = element("span", { class: "status", role: "status", "aria-live": "polite" });
    this.bar = element("div", { class: "table-bar" });
    if (options.filter) {
      this.filter = element("input", {
        type: "search", placeholder: "Filter rows…", "aria-label": `Filter ${source.label}`, autocomplete: "off",
        oninput: () => { clearTimeout(this.waiting); this.waiting = setTimeout(() => this.refresh(), 80); },
      });
      this.bar.append(this.filter);
    }
    this.download = element("button", { type: "button", class: "quiet", onclick: () => this.save() }, "CSV");
    this.download.setAttribute("aria-label", `Download ${source.label} as CSV`);
    this.bar.append(this.status, this.download);
    this.box.addEventListener("scroll", () => this.more(), { passive: true });
    host.append(this.bar, this.box);
    this.show(source);
  }

  show(source) {
    this.source = source;
    this.sorted = source.sorted || null;
    this.haystack = null;
    this.box.setAttribute("aria-label", source.label);
    this.visible = source.columns.map((_, c) => c).filter((c) => source.columns[c].shown !== false);
    if (source.table) this.table = source.table;
    else {
      this.table = element("table", {}, element("thead", {}, element("tr")), element("tbody"));
      const row = this.table.tHead.rows[0];
      for (const c of this.visible) {
        const column = source.columns[c];
        const head = element("th", { scope: "col", title: column.about, class: column.text ? null : "number" });
        head.append(element("span", {}, column.title));
        if (column.under) head.append(element("small", {}, column.under));
        row.append(head);
      }
    }
    this.heads = [...this.table.tHead.rows[0].cells];
    this.heads.forEach((head, i) => {
      const button = element("button", { type: "button", onclick: () => this.sort(this.visible[i]) });
      if (source.table) button.append(element("span", {}, ...head.childNodes));
      else button.append(...head.childNodes);
      head.replaceChildren(button);
    });
    this.box.replaceChildren(this.table);
    this.refresh();
  }

  sort(column) {
    const up = this.sorted && this.sorted.column === column ? !this.sorted.up : true;
    this.sorted = { column, up };
    this.refresh();
  }

  words() {
    return this.filter ? this.filter.value.toLowerCase().split(/\s+/).filter(Boolean) : [];
  }

  matches(row, words) {
    if (!this.haystack) this.haystack = new Array(this.source.count);
    if (this.haystack[row] === undefined) {
      const texts = this.source.columns.map((column, c) => (column.text ? this.source.value(row, c) : null));
      this.haystack[row] = texts.filter((t) => t !== null).join("\n").toLowerCase();
    }
    return words.every((word) => this.haystack[row].includes(word));
  }

  refresh() {
    const { source, sorted } = this;
    const words = this.words();
    let rows = Array.from({ length: source.count }, (_, i) => i);
    if (words.length) rows = rows.filter((row) => this.matches(row, words));
    if (sorted) {
      const keys = new Map(rows.map((row) => [row, source.value(row, sorted.column)]));
      const way = sorted.up ? 1 : -1;
      // what has no value comes last, whichever way
      rows.sort((a, b) => {
        const x = keys.get(a), y = keys.get(b);
        if (x === null || y === null) return (x === null) - (y === null) || a - b;
        return way * compare(x, y) || a - b;
      });
    }
    this.rows = rows;
    this.heads.forEach((head, i) => {
      const mine = sorted && sorted.column === this.visible[i];
      head.setAttribute("aria-sort", mine ? (sorted.up ? "ascending" : "descending") : "none");
    });
    this.table.tBodies[0].replaceChildren();
    this.made = 0;
    this.append(source.existing ? rows.length : FIRST_ROWS);
    this.box.scrollTop = 0;
    this.more();
    const all = source.count, noun = all === 1 ? "row" : "rows";
    this.status.textContent = rows.length === all ? `${all} ${noun}` : `${rows.length} of ${all} ${noun}`;
  }

  append(count) {
    const { source } = this;
    const end = Math.min(this.rows.length, this.made + count);
    const batch = document.createDocumentFragment();
    for (; this.made < end; this.made++) {
      const row = this.rows[this.made];
      if (source.existing) {
        batch.append(source.existing(row));
        continue;
      }
      const line = element("tr");
      for (const c of this.visible) {
        const value = source.value(row, c);
        const cell = document.createElement(c === this.visible[0] ? "th" : "td");
        if (c === this.visible[0]) cell.scope = "row";
        if (!source.columns[c].text) cell.className = "number";
        else if (source.columns[c].long) cell.className = "long";
        if (source.fill) source.fill(cell, row, c, value);
        else cell.textContent = typeof value === "number" ? shown(value) : value === null ? (source.columns[c].text ? "" : "–") : value;
        line.append(cell);
      }
      batch.append(line);
    }
    this.table.tBodies[0].append(batch);
  }

  more() {
    while (this.made < this.rows.length && this.box.scrollTop + this.box.clientHeight * 2 > this.box.scrollHeight) {
      const before = this.made;
      this.append(MORE_ROWS);
      if (this.made === before || !this.box.clientHeight) break;
    }
  }

  forPrint() {
    this.append(Math.max(0, PRINTED_ROWS - this.made));
    if (this.made < this.rows.length && !this.cut) {
      this.cut = element("p", { class: "note" }, `Printed: the first ${this.made} of ${this.rows.length} rows; the CSV has them all.`);
      this.host.append(this.cut);
    }
  }

  csv() {
    const { columns } = this.source;
    const all = columns.map((_, c) => c).filter((c) => columns[c].saved !== false);
    const name = (column) => column.key || [column.title, column.under].filter(Boolean).join(" ");
    const lines = [all.map((c) => csvField(name(columns[c])))];
    for (const row of this.rows) lines.push(all.map((c) => csvField(this.source.value(row, c))));
    return lines.map((line) => line.join(",") + "\r\n").join("");
  }

  save() {
    saveFile(`${this.source.name}.csv`, "text/csv;charset=utf-8", this.csv());
  }
}

/* A table that is in the page already: its cells hold `data-value` where the number is not what is shown. */
function enhance(table) {
  if (!table.tHead || !table.tHead.rows.length || !table.tBodies.length) return null;
  const rows = [...table.tBodies[0].rows];
  const read = (cell) => {
    if (!cell) return null;
    const text = (cell.dataset.value ?? cell.textContent).trim().replace(/^−/, "-");
    if (text === "" || text === "–") return null;
    return /^-?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?$/i.test(text) ? Number(text) : text;
  };
  const columns = [...table.tHead.rows[0].cells].map((head) => ({ title: head.textContent.trim(), text: true }));
  const label = (table.caption && table.caption.textContent.trim()) || table.dataset.name || "table";
  const name = table.dataset.name || label.toLowerCase().replace(/[^a-z0-9]+/g, "-").replace(/^-|-$/g, "") || "table";
  const host = element("div", { class: "grid" });
  table.replaceWith(host);
  return new Grid(host, {
    name, label, columns, table, count: rows.length,
    value: (row, c) => read(rows[row].cells[c]),
    existing: (row) => rows[row],
  }, { filter: rows.length > 12 });
}
