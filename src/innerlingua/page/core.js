"use strict";
// What every page shares: elements, the state, numbers in words, colours, the tooltip, controls, downloads, the theme.
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

// ---- state -----------------------------------------------------------------------------------------------------------

/** The data of the page, as its main script has read them; `palette.categories` holds the colours of categories. */
let data = null;
const state = { theme: "auto" };
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

// Figures that can be saved: name -> function that draws the present view in print colours; and how their files begin.
const printable = {};
let figurePrefix = "";
function saveSvg(name) {
  const node = printable[name]();
  node.setAttribute("xmlns", SVG_SPACE);
  const [, , width, height] = node.getAttribute("viewBox").split(" ");
  node.setAttribute("width", width);
  node.setAttribute("height", height);
  node.prepend(draw("rect", { width: "100%", height: "100%", fill: "#ffffff" }));
  download(`${figurePrefix}${name}.svg`, "image/svg+xml", new XMLSerializer().serializeToString(node));
}

/** Draw again when the width of `node` changes. */
function onResize(node, run) {
  let last = 0;
  new ResizeObserver((entries) => {
    const width = Math.round(entries[0].contentRect.width);
    if (width && width !== last) { last = width; run(); }
  }).observe(node);
}

// ---- parts of a page -------------------------------------------------------------------------------------------------

const FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Noto Sans', Helvetica, Arial, sans-serif";

function label(x, y, content, size, colour, extra = {}) {
  return draw("text", { x, y, "font-size": size, fill: colour, "font-family": FONT, ...extra }, document.createTextNode(content));
}

function card(what, big, sub, colour) {
  const top = make("div", { class: "big" });
  if (colour) { const swatch = make("span", { class: "swatch" }); swatch.style.borderColor = colour; top.append(swatch); }
  top.append(big);
  return make("div", { class: "card" }, make("div", { class: "what" }, what), top, ...(sub ? [make("div", { class: "sub" }, sub)] : []));
}

/** The theme button, automatic, dark or light, and the colours of paper when printing. */
function theme() {
  const system = matchMedia("(prefers-color-scheme: dark)"), paper = matchMedia("print");
  const apply = (printing = paper.matches) => {
    document.documentElement.dataset.theme = printing ? "light" : state.theme === "auto" ? (system.matches ? "dark" : "light") : state.theme;
  };
  apply();
  system.addEventListener("change", () => { apply(); redrawAll(); });
  // Figures on paper are drawn in the colours of paper, whatever the screen has.
  paper.addEventListener("change", () => { apply(); redrawAll(); });
  addEventListener("beforeprint", () => { apply(true); redrawAll(); });
  addEventListener("afterprint", () => { apply(false); redrawAll(); });
  byId("theme").onclick = () => {
    state.theme = { auto: "dark", dark: "light", light: "auto" }[state.theme];
    byId("theme").textContent = `Theme: ${state.theme === "auto" ? "automatic" : state.theme}`;
    apply();
    redrawAll();
  };
}
