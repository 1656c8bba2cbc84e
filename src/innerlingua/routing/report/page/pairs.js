// One sentence pair: both sides token by token, and which experts they share in the chosen layer.

let opened = null; // the pair that is shown, unpacked: {pair, target: Uint8Array, anchor: Uint8Array}
let chosenToken = null; // [side, position]
let chosenExpert = null;

const samplePairs = () => profiles[state.profile].samples.pairs;
const pairKey = (pair) => (pair ? `${pair.language} ${pair.id}` : "");
const currentPair = () => samplePairs().find((pair) => pairKey(pair) === state.pair);
const expertsOf = (side, token, layer = state.layer) => {
  const count = opened.pair[side].tokens.length;
  const at = (layer * count + token) * data.top_k;
  return [...opened[side].subarray(at, at + data.top_k)];
};

/** Experts of one side in the chosen layer with how many tokens use each, the most used first. */
function usage(side) {
  const counts = new Map();
  for (let token = 0; token < opened.pair[side].tokens.length; token += 1) for (const expert of expertsOf(side, token)) counts.set(expert, (counts.get(expert) || 0) + 1);
  return [...counts].sort((a, b) => b[1] - a[1] || a[0] - b[0]);
}

function fillPairs() {
  const profile = profiles[state.profile], pairs = samplePairs();
  const empty = pairs.length === 0;
  byId("pair-body").hidden = empty;
  byId("pair").disabled = empty;
  const other = pairs.some((pair) => pair.language === state.language) ? "" : ` No pair in ${nameOf(state.language)} is kept here.`;
  const kept = profile.samples.of === pairs.length ? "" : ` ${pairs.length} of the profile's ${profile.samples.of} pairs fit into this page; all of them are in samples.json.`;
  byId("pair-caption").textContent = empty ? (profile.samples.of ? `None of the profile's ${profile.samples.of} sentence pairs fits into this page; they are in samples.json.` : `${profile.label} was profiled without sentence pairs (--samples 0).`)
    : `${profile.label}. The number under a token, and its shade, say how many of its ${data.top_k} experts are among the ${data.top_k} that the other side uses most. Choose a token to compare it with every token of the other side, or an expert to see who uses it.${other}${kept}`;
  if (empty) return;
  options("pair", pairs.map((pair) => [pairKey(pair), `${nameOf(pair.language)} · ${pair.id}`]), () => state.pair, (pair) => set({ pair }));
}

/** The chosen language's first pair, where it has one. */
function pairForLanguage() {
  if (currentPair()?.language === state.language) return;
  const pair = samplePairs().find((one) => one.language === state.language);
  if (pair) set({ pair: pairKey(pair) });
}

async function openPair() {
  fillPairs();
  const pair = currentPair();
  if (!pair) { // another model's pairs need not hold it
    if (samplePairs().length) set({ pair: pairKey(samplePairs()[0]) });
    return;
  }
  const [target, anchor] = await Promise.all([unpack(pair.target.experts), unpack(pair.anchor.experts)]);
  if (currentPair() !== pair) return; // another one was chosen meanwhile
  opened = { pair, target, anchor };
  chosenToken = chosenExpert = null;
  drawPair();
}

function drawPair() {
  if (!opened) return;
  byId("pair-layer").max = layers.length - 1;
  byId("pair-layer").value = state.layer;
  byId("pair-layer").setAttribute("aria-valuetext", `layer ${layers[state.layer]}`);
  byId("pair-layer-value").textContent = layers[state.layer];
  byId("target-title").textContent = `${marked(opened.pair.language)} (${opened.pair.target.tokens.length} tokens)`;
  byId("anchor-title").textContent = `${nameOf(data.anchor)}, the anchor (${opened.pair.anchor.tokens.length} tokens)`;
  byId("pair-curve").replaceChildren(pairCurve());
  const main = { target: new Set(usage("target").slice(0, data.top_k).map(([e]) => e)), anchor: new Set(usage("anchor").slice(0, data.top_k).map(([e]) => e)) };
  drawTokens("target", main.anchor);
  drawTokens("anchor", main.target);
  drawSets(main);
  drawDetail();
}

function drawTokens(side, others) {
  const { tokens } = opened.pair[side], other = side === "target" ? "anchor" : "target";
  const compare = chosenToken && chosenToken[0] === other ? new Set(expertsOf(...chosenToken)) : others;
  const table = ramps.sequential;
  const holder = byId(`${side}-tokens`);
  holder.dir = "auto";
  holder.replaceChildren(...tokens.map((token, index) => {
    const experts = expertsOf(side, index), common = experts.filter((e) => compare.has(e)).length, part = common / data.top_k;
    const chosen = chosenToken && chosenToken[0] === side && chosenToken[1] === index;
    const holds = chosenExpert !== null && experts.includes(chosenExpert);
    const button = make("button", { type: "button", class: `token${holds ? " holds" : chosenExpert !== null ? " dim" : ""}`, "aria-pressed": Boolean(chosen),
      "aria-label": `${token}: ${common} of ${data.top_k} experts in common`,
      onclick: () => { chosenToken = chosen ? null : [side, index]; drawPair(); byId(`${side}-tokens`).children[index].focus(); },
      onpointerenter: (event) => tokenTip(side, index, compare, event.clientX, event.clientY), onpointerleave: hideTip,
      onfocus: (event) => { const box = event.target.getBoundingClientRect(); if (event.target.matches(":focus-visible")) tokenTip(side, index, compare, box.left, box.bottom); }, onblur: hideTip },
    make("span", { class: "word" }, readable(token)), make("span", { class: "count" }, `${common}/${data.top_k}`));
    const fill = pick(table, 0.08 + 0.84 * part);
    button.style.background = fill;
    button.style.color = inkOn(fill);
    return button;
  }));
}

/** Blank tokens made visible; a word's leading space is left to the gap between the boxes. */
function readable(token) {
  if (token === "") return "·"; // the first bytes of a character that the next token completes
  if (/^\s+$/.test(token)) return token.replaceAll("\n", "↵").replaceAll("\t", "⇥").replaceAll(/[^↵⇥]/g, "␣");
  return token.trim() === "" ? token : token.replace(/^ /, "");
}

function tokenTip(side, index, compare, x, y) {
  asked = null;
  const experts = expertsOf(side, index), common = experts.filter((e) => compare.has(e)), own = experts.filter((e) => !compare.has(e));
  showTip([`${readable(opened.pair[side].tokens[index])} · layer ${layers[state.layer]}`, ["#009e73", "in common", common.join(", ") || "none"],
    [side === "target" ? "#4aa8e0" : "#e69f00", "only here", own.join(", ") || "none"]], x, y);
}

function drawDetail() {
  const detail = byId("token-detail");
  if (chosenToken) {
    const [side, index] = chosenToken;
    detail.textContent = `“${readable(opened.pair[side].tokens[index])}” goes to experts ${expertsOf(side, index).join(", ")}. The other side's numbers now count the experts in common with it.`;
  } else if (chosenExpert !== null) {
    const count = (side) => opened.pair[side].tokens.filter((_, index) => expertsOf(side, index).includes(chosenExpert)).length;
    detail.textContent = `Expert ${chosenExpert} in layer ${layers[state.layer]}: ${count("target")} of ${opened.pair.target.tokens.length} tokens of ${nameOf(opened.pair.language)}, ${count("anchor")} of ${opened.pair.anchor.tokens.length} of ${nameOf(data.anchor)}.`;
  } else {
    const js = opened.pair.js[state.layer];
    detail.textContent = `JS of this pair at layer ${layers[state.layer]}: ${js === null ? "–" : number(js)} nats.`;
  }
}

function drawSets(main) {
  const counts = { target: new Map(usage("target")), anchor: new Map(usage("anchor")) };
  const both = [...main.target].filter((e) => main.anchor.has(e));
  const left = [...main.target].filter((e) => !main.anchor.has(e)), right = [...main.anchor].filter((e) => !main.target.has(e));
  const jaccard = both.length / (both.length + left.length + right.length || 1);
  const button = (expert, kind) => make("button", { type: "button", class: `expert ${kind}`, "aria-pressed": chosenExpert === expert, title: `used by ${counts.target.get(expert) || 0} tokens here and ${counts.anchor.get(expert) || 0} there`,
    onclick: () => { chosenExpert = chosenExpert === expert ? null : expert; chosenToken = null; drawPair(); [...byId("sets").querySelectorAll(".expert")].find((one) => one.dataset.expert === String(expert))?.focus(); }, "data-expert": expert }, `${expert}`);
  const column = (title, experts, kind) => make("div", {}, make("h3", {}, title), make("div", { class: "experts" }, ...(experts.length ? experts.map((e) => button(e, kind)) : [make("span", { class: "hint" }, "none")])));
  byId("sets").replaceChildren(
    column(`Most used by both (overlap ${number(jaccard, 2)})`, both, "both"),
    column(`Most used in ${nameOf(opened.pair.language)} only`, left, "left"),
    column(`Most used in ${nameOf(data.anchor)} only`, right, "right"));
}

/** JS of the pair by layer, small; a click takes the layer. */
function pairCurve() {
  const colours = palette(), width = Math.max(200, byId("pair-curve").clientWidth || 400), height = 56;
  const js = opened.pair.js.map((x) => (x === null ? NaN : x)), high = largestOf(js) || 1;
  const xOf = (i) => 8 + (i / Math.max(1, layers.length - 1)) * (width - 70), yOf = (v) => height - 4 - (v / high) * (height - 12);
  const node = draw("svg", { viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": "JS of this pair by layer" });
  node.append(draw("path", { d: pathOf(layers.map((_, i) => xOf(i)), js.map(yOf)), fill: "none", stroke: category(profiles[state.profile].index, colours), "stroke-width": 1.8 }),
    draw("line", { x1: xOf(state.layer), x2: xOf(state.layer), y1: 0, y2: height, stroke: colours.mark, "stroke-width": 1.5 }));
  if (known(js[state.layer])) node.append(draw("circle", { cx: xOf(state.layer), cy: yOf(js[state.layer]), r: 3.5, fill: colours.mark }));
  node.append(label(width - 56, 12, `JS ${number(js[state.layer])}`, 11, colours.muted));
  node.addEventListener("click", (event) => {
    const box = node.getBoundingClientRect(), x = ((event.clientX - box.left) / box.width) * width;
    set({ layer: clamp(Math.round(((x - 8) / (width - 70)) * (layers.length - 1)), 0, layers.length - 1) });
  });
  node.style.cursor = "pointer";
  return node;
}
