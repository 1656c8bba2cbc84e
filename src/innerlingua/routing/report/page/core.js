// The profiles of the page and what is asked of them, and the choices that all figures share.

figurePrefix = "routing_";

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
    const [js, byLayer, ids] = await Promise.all([
      unpack(stored.between.js), unpack(stored.between.by_layer), unpack(stored.between.ids)]);
    profile.between = { ...stored.between, js, byLayer, ids };
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

/** JS of two languages in a layer, or its mean over layers (layer = -1) with its interval (which = 0, 1, 2). */
function betweenLanguages(profile, a, b, layer = -1, which = 0) {
  const between = profile.between;
  let i = between.languages.indexOf(a), j = between.languages.indexOf(b);
  if (i < 0 || j < 0) return NaN;
  if (i === j) return which ? NaN : 0;
  if (i > j) [i, j] = [j, i];
  const n = between.languages.length, size = (n * (n - 1)) / 2;
  const at = i * n - (i * (i + 1)) / 2 + (j - i - 1);
  return layer < 0 ? between.js[which * size + at] : between.byLayer[layer * size + at];
}

function alikeOrder() {
  const between = profiles[0].between;
  const order = between.order.map((index) => between.languages[index]);
  return order.concat(languages.filter((code) => !order.includes(code)));
}

const nameOf = (code) => data.languages[languages.indexOf(code)].name;
function unseenBy(code) {
  return profiles.some((profile) => profile.unseen && profile.unseen.includes(code));
}
const UNSEEN_MARK = " ◇";
const marked = (code) => (unseenBy(code) ? nameOf(code) + UNSEEN_MARK : nameOf(code));

// A finger has no hover: what a tap shows stays until the next touch.
const leaveTip = (event) => { if (event.pointerType !== "touch") hideTip(); };
addEventListener("pointerdown", (event) => { if (event.pointerType === "touch") hideTip(); }, true);
addEventListener("touchmove", hideTip, { passive: true });

// The focus leaves a figure after the finger has already asked another one: only the asked one's tip is hidden then.
let asked = null;
const blurTip = (node) => { if (asked === node) hideTip(); };

Object.assign(state, {
  language: "", measure: "js", profile: 0, against: -1, layer: 0, mode: "models", pins: new Set(), zoom: null,
  panelSort: "largest", matrixLayer: -1, scatterLayer: "band", quantity: "mean", expertView: "value", pair: "",
  scope: "all", filter: "", sort: { key: "language", down: false }, page: 0,
});

// ---- colours of maps -------------------------------------------------------------------------------------------------

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
