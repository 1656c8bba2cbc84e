"use strict";
// What every figure shares: the data, the state, elements, numbers in words, colours, the tooltip, downloads.
// Text from the data is only ever set as text (textContent, attributes), never as markup.

const SVG_SPACE = "http://www.w3.org/2000/svg";
const byId = (id) => document.getElementById(id);

function make(tag, attributes = {}, ...children) {
  const node = document.createElement(tag);
  for (const [key, value] of Object.entries(attributes)) {
    if (key === "class") node.className = value;
    else if (key.startsWith("on")) node.addEventListener(key.slice(2), value);
    else if (key.startsWith("aria-")) node.setAttribute(key, String(value)); // false is a state here, not an absence
    else if (value !== null && value !== undefined && value !== false) node.setAttribute(key, value === true ? "" : value);
  }
  node.append(...children);
  return node;
}

function draw(tag, attributes = {}, ...children) {
  const node = document.createElementNS(SVG_SPACE, tag);
  for (const [key, value] of Object.entries(attributes)) {
    if (value !== null && value !== undefined) node.setAttribute(key, typeof value === "number" ? round2(value) : value);
  }
  node.append(...children);
  return node;
}

const round2 = (value) => Math.round(value * 100) / 100;
const clamp = (value, low, high) => Math.min(high, Math.max(low, value));
const known = (value) => Number.isFinite(value);

// ---- data ------------------------------------------------------------------------------------------------------------

let data = null;
let profiles = [];
let languages = [];
let layers = [];

async function unpack(packed) {
  const bytes = Uint8Array.from(atob(packed.data), (c) => c.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  const buffer = await new Response(stream).arrayBuffer();
  if (packed.kind === "f8") return new Float64Array(buffer);
  if (packed.kind === "f4") return new Float32Array(buffer);
  if (packed.kind === "u2") return new Uint16Array(buffer);
  if (packed.kind === "u1") return new Uint8Array(buffer);
  // One byte each: the square root of the share of the row's largest value.
  const coded = new Uint8Array(buffer);
  const top = await unpack(packed.top);
  const width = packed.shape[packed.shape.length - 1];
  const values = new Float32Array(coded.length);
  for (let i = 0; i < coded.length; i += 1) values[i] = (coded[i] / 255) ** 2 * top[Math.floor(i / width)];
  return values;
}

async function readData() {
  data = JSON.parse(byId("payload").textContent);
  layers = data.layers;
  languages = data.languages.map((entry) => entry.code);
  profiles = await Promise.all(data.profiles.map(async (stored, index) => {
    const [measures, mean, load] = await Promise.all([unpack(stored.measures), unpack(stored.mean), unpack(stored.load)]);
    const profile = { ...stored, index, measures, mean, load, rows: Object.keys(stored.languages), exact: stored.mean.kind === "f4" };
    if (stored.between) {
      const [js, byLayer, ids] = await Promise.all([
        unpack(stored.between.js), unpack(stored.between.by_layer), unpack(stored.between.ids)]);
      profile.between = { ...stored.between, js, byLayer, ids };
    }
    return profile;
  }));
}

const measureIndex = (key) => data.measures.findIndex((measure) => measure.key === key);
const measureOf = (key) => data.measures[measureIndex(key)];

/** The 3 x layers block (mean, low, high) of a measure: which = 0, 1, 2. NaN where not defined. */
function value(profile, measure, language, layer, which = 0) {
  const row = (measureIndex(measure) * languages.length + languages.indexOf(language)) * 3 + which;
  return profile.measures[row * layers.length + layer];
}

function series(profile, measure, language, which = 0) {
  const row = (measureIndex(measure) * languages.length + languages.indexOf(language)) * 3 + which;
  return profile.measures.subarray(row * layers.length, (row + 1) * layers.length);
}

function meanOver(profile, measure, language, indices) {
  let sum = 0, count = 0;
  for (const index of indices) {
    const x = value(profile, measure, language, index);
    if (known(x)) { sum += x; count += 1; }
  }
  return count ? sum / count : NaN;
}

const hasMeasure = (profile, measure, language) => series(profile, measure, language).some(known);
const shownLanguages = (measure) => languages.filter((code) => profiles.some((p) => hasMeasure(p, measure, code)));
const allLayers = () => layers.map((_, index) => index);
const bandLayers = (profile = profiles[0]) =>
  (profile.suggested.layers || []).map((layer) => layers.indexOf(layer)).filter((index) => index >= 0);

/** Mean routing or load of a language: (layers x experts), or null when the profile lacks the language. */
function distribution(profile, quantity, language) {
  const row = profile.rows.indexOf(language);
  if (row < 0) return null;
  const size = layers.length * data.experts;
  return profile[quantity].subarray(row * size, (row + 1) * size);
}

function betweenLanguages(profile, a, b, layer = -1) {
  const between = profile.between;
  if (!between) return NaN;
  let i = between.languages.indexOf(a), j = between.languages.indexOf(b);
  if (i < 0 || j < 0) return NaN;
  if (i === j) return 0;
  if (i > j) [i, j] = [j, i];
  const n = between.languages.length, size = (n * (n - 1)) / 2;
  const at = i * n - (i * (i + 1)) / 2 + (j - i - 1);
  return layer < 0 ? between.js[at] : between.byLayer[layer * size + at];
}

function alikeOrder() {
  const between = profiles[0].between;
  const order = between ? between.order.map((index) => between.languages[index]) : [];
  return order.concat(languages.filter((code) => !order.includes(code)));
}

const nameOf = (code) => data.languages[languages.indexOf(code)].name;
function unseenBy(code) {
  return profiles.some((profile) => profile.unseen && profile.unseen.includes(code));
}
const marked = (code) => (unseenBy(code) ? `${nameOf(code)} ◇` : nameOf(code));

// ---- state -----------------------------------------------------------------------------------------------------------

const state = {
  language: "", measure: "js", profile: 0, against: -1, layer: 0, mode: "models", pins: new Set(), zoom: null,
  panelSort: "largest", matrixLayer: -1, scatterLayer: "band", quantity: "mean", expertView: "value", pair: "",
  scope: "all", filter: "", sort: { key: "language", down: false }, page: 0, theme: "auto",
};
const views = [];

/** Register what runs again when one of the state keys in `uses` changes; `draws` says that it draws (and is no mere link). */
function view(uses, run, draws = true) { views.push({ uses, run, draws }); }

function set(changes) {
  const changed = Object.keys(changes).filter((key) => state[key] !== changes[key]);
  Object.assign(state, changes);
  if (changed.length) for (const one of views) if (one.uses.some((key) => changed.includes(key))) one.run();
}

function redrawAll() { for (const one of views) if (one.draws) one.run(); }

function announce(text) { byId("announce").textContent = text; }

// ---- numbers ---------------------------------------------------------------------------------------------------------

function number(x, digits = 3) {
  if (!known(x)) return "–";
  if (x === 0) return "0";
  const size = Math.abs(x);
  if (size >= 1000) return String(Math.round(x));
  if (size < 0.0005) return x.toExponential(1).replace("-", "−");
  return String(Number(x.toPrecision(size >= 1 ? digits + 1 : digits))).replace("-", "−");
}
const fixed = (x) => (known(x) ? (Number.isInteger(x) && Math.abs(x) > 1 ? String(x) : Math.abs(x) >= 10 ? x.toFixed(2) : x.toFixed(4)).replace("-", "−") : "–");
const grouped = (n) => (n === null || n === undefined ? "–" : Number(n).toLocaleString("en-GB"));

function ticks(low, high, count) {
  if (!(high > low)) return [low];
  const raw = (high - low) / Math.max(count, 1);
  const power = 10 ** Math.floor(Math.log10(raw));
  const step = [1, 2, 5, 10].map((f) => f * power).find((s) => s >= raw * 0.999);
  const found = [];
  for (let i = Math.ceil(low / step - 1e-9); i * step <= high + step * 1e-9; i += 1) found.push(Number((i * step).toPrecision(12)));
  return found;
}
const wholeTicks = (low, high, count) => ticks(low, high, count).filter(Number.isInteger);

// ---- colours ---------------------------------------------------------------------------------------------------------

const DASHES = [null, "7 4", "2 3", "9 3 2 3"];
const isDark = () => document.documentElement.dataset.theme === "dark";
const LIGHT = { ink: "#171b21", muted: "#5a6470", line: "#dfe3e8", panel: "#ffffff", none: "#d9dce0", other: "#aab3bd", band: "#f0e442", bandOpacity: 0.26, mark: "#d55e00" };
const DARK = { ink: "#e8ecf1", muted: "#9aa6b3", line: "#2b333d", panel: "#171c23", none: "#343c46", other: "#525e6b", band: "#f0e442", bandOpacity: 0.13, mark: "#ff9a4d" };
const palette = () => (isDark() ? DARK : LIGHT);
// On dark ground the blue of the set is too dim for thin lines; a lighter tint of the same hue replaces it.
const BRIGHT = { "#0072b2": "#4aa8e0", "#d55e00": "#f28241" };
function category(index, colours) {
  const colour = data.palette.categories[index % data.palette.categories.length];
  return colours === DARK ? BRIGHT[colour] || colour : colour;
}

const channels = (hex) => [1, 3, 5].map((at) => parseInt(hex.slice(at, at + 2), 16));
function rampTable(stops, steps = 256) {
  const parsed = stops.map(channels);
  return Array.from({ length: steps }, (_, i) => {
    const place = (i / (steps - 1)) * (parsed.length - 1), at = Math.min(Math.floor(place), parsed.length - 2), part = place - at;
    const mix = parsed[at].map((c, k) => Math.round((1 - part) * c + part * parsed[at + 1][k]));
    return "#" + mix.map((c) => c.toString(16).padStart(2, "0")).join("");
  });
}
let ramps = null;
function makeRamps() {
  const diverging = [...data.palette.diverging], dark = [...diverging];
  dark[3] = "#2a3038"; dark[2] = "#2d5f86"; dark[4] = "#7d5220"; dark[1] = "#3f97d6"; dark[5] = "#e58a2e"; dark[0] = "#a9d8ff"; dark[6] = "#ffd29a";
  ramps = { sequential: rampTable(data.palette.sequential), inverted: rampTable([...data.palette.sequential].reverse()),
    diverging: rampTable(diverging), divergingDark: rampTable(dark) };
}
const pick = (table, part) => table[clamp(Math.round(part * (table.length - 1)), 0, table.length - 1)];
const divergingTable = (colours) => (colours === DARK ? ramps.divergingDark : ramps.diverging);
/** Black or white, whichever reads better on `hex`. */
function inkOn(hex) {
  const [r, g, b] = channels(hex).map((c) => (c / 255) ** 2.2);
  return 0.2126 * r + 0.7152 * g + 0.0722 * b > 0.18 ? "#101418" : "#ffffff";
}

// ---- tooltip ---------------------------------------------------------------------------------------------------------

/** Show lines near (x, y) in the window: the first is a heading; [colour, label, text] is a row. */
function showTip(lines, x, y) {
  const tip = byId("tip");
  tip.replaceChildren(...lines.map((entry, index) => {
    if (typeof entry === "string") return make("div", { class: index === 0 ? "head-line" : "" }, entry);
    const label = make("span");
    if (entry[0]) { const dot = make("span", { class: "dot" }); dot.style.background = entry[0]; label.append(dot); }
    label.append(entry[1]);
    return make("div", { class: "row" }, label, make("span", {}, entry[2]));
  }));
  tip.hidden = false;
  const box = tip.getBoundingClientRect();
  tip.style.left = `${clamp(x + 14 + box.width > innerWidth ? x - box.width - 14 : x + 14, 4, Math.max(4, innerWidth - box.width - 4))}px`;
  tip.style.top = `${clamp(y + 16 + box.height > innerHeight ? y - box.height - 12 : y + 16, 4, Math.max(4, innerHeight - box.height - 4))}px`;
}
function hideTip() { byId("tip").hidden = true; }

// ---- controls and downloads ------------------------------------------------------------------------------------------

/** A row of buttons of which one is chosen (arrow keys move, as in a radio group). */
function segments(id, options, get, choose) {
  const holder = byId(id);
  const mark = () => holder.querySelectorAll("button").forEach((button) => {
    const chosen = button.dataset.value === String(get());
    button.setAttribute("aria-checked", chosen);
    button.tabIndex = chosen ? 0 : -1;
  });
  holder.replaceChildren(...options.map(([key, label]) => make("button", {
    type: "button", role: "radio", "data-value": key, onclick: () => { choose(key); mark(); } }, label)));
  holder.addEventListener("keydown", (event) => {
    const step = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
    if (!step) return;
    event.preventDefault();
    const buttons = [...holder.querySelectorAll("button")];
    const next = buttons[(buttons.findIndex((b) => b.dataset.value === String(get())) + step + buttons.length) % buttons.length];
    next.click();
    next.focus();
  });
  mark();
  return mark;
}

function options(id, entries, get, choose) {
  const select = byId(id);
  select.replaceChildren(...entries.map(([key, label]) => make("option", { value: key }, label)));
  select.value = String(get());
  select.onchange = () => choose(select.value);
}

function download(name, type, text) {
  const link = make("a", { href: URL.createObjectURL(new Blob([text], { type })), download: name });
  document.body.append(link);
  link.click();
  link.remove();
  setTimeout(() => URL.revokeObjectURL(link.href), 10000);
}

function csv(header, rows) {
  const cell = (x) => {
    if (x === null || x === undefined || (typeof x === "number" && !known(x))) return "";
    const text = String(x);
    return /[",\n\r]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
  };
  return [header, ...rows].map((row) => row.map(cell).join(",")).join("\n") + "\n";
}

// Figures that can be saved: name -> function that draws the present view in print colours.
const printable = {};
function saveSvg(name) {
  const node = printable[name]();
  node.setAttribute("xmlns", SVG_SPACE);
  const [, , width, height] = node.getAttribute("viewBox").split(" ");
  node.setAttribute("width", width);
  node.setAttribute("height", height);
  node.prepend(draw("rect", { width: "100%", height: "100%", fill: "#ffffff" }));
  download(`routing_${name}.svg`, "image/svg+xml", new XMLSerializer().serializeToString(node));
}

/** Draw again when the width of `node` changes. */
function onResize(node, run) {
  let last = 0;
  new ResizeObserver((entries) => {
    const width = Math.round(entries[0].contentRect.width);
    if (width && width !== last) { last = width; run(); }
  }).observe(node);
}
