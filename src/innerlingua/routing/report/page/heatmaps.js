// Heat maps on canvas: language x layer, layer x expert, language x language. One description draws the canvas and the SVG.

/**
 * A map: rows and columns are labels, at(i, j) a value, table 256 colours, part(v) the place in them, describe(i, j) the
 * tooltip, pick(i, j) what a click does, selected a row, band marked columns, tickColumns labels only some columns.
 */
function heatLayout(map, width) {
  const narrow = width < 560;
  const letters = Math.max(...map.rows.map((row) => row.length));
  const left = map.left ?? clamp(letters * 6.4 + 12, 30, narrow ? 108 : 170);
  const right = map.turned ? 34 : 6;
  const cell = Math.max(map.smallest || 4, Math.min(map.largest || 120, (width - left - right) / map.columns.length));
  const row = map.square ? cell : map.rowHeight || 15;
  const top = map.turned ? Math.min(120, letters * 5.2 + 10) : 6;
  const inner = [cell * map.columns.length, row * map.rows.length];
  return { left, top, cell, row, width: Math.max(width, left + inner[0] + right), height: top + inner[1] + (map.turned ? 36 : 54), inner, narrow };
}

/** Calls painter.rect / text / line for everything in the map; shared by canvas and SVG. */
function paintHeat(map, place, painter, colours) {
  const { left, top, cell, row, inner } = place;
  map.rows.forEach((name, i) => {
    const y = top + i * row;
    const chosen = i === map.selected;
    if (row >= 9 || i % Math.ceil(9 / row) === 0) {
      painter.text(left - 6, y + row / 2 + 3.5, shorten(name, (left - 8) / 5.9), { size: Math.min(11, Math.max(8, row * 0.82)), colour: chosen ? colours.ink : colours.muted, align: "end", bold: chosen });
    }
    for (let j = 0; j < map.columns.length; j += 1) {
      const x = map.at(i, j);
      painter.rect(left + j * cell, y, cell, row, known(x) ? pick(map.table, map.part(x)) : colours.none);
    }
  });
  if (map.selected >= 0) painter.frame(left - 1, top + map.selected * row - 1, inner[0] + 2, row + 2, colours.mark);
  if (map.turned) {
    map.columns.forEach((name, j) => painter.turned(left + (j + 0.5) * cell + 3, top - 5, shorten(name, 20), { size: Math.min(10.5, Math.max(8, cell * 0.75)), colour: j === map.selected ? colours.ink : colours.muted, bold: j === map.selected }));
  } else {
    const numbers = map.columns.map(Number), step = Math.max(1, Math.ceil(34 / cell));
    const stride = [1, 2, 4, 5, 8, 10, 16, 20, 32, 50, 64].find((s) => s >= step) || step;
    numbers.forEach((n, j) => { if (n % stride === 0) painter.text(left + (j + 0.5) * cell, top + inner[1] + 14, String(n), { size: 10.5, colour: colours.muted, align: "center" }); });
    for (const j of map.band || []) painter.rect(left + j * cell, top + inner[1] + 1, cell, 3, colours === DARK ? "#b9ae2f" : "#d8cb2a");
    painter.text(left, top + inner[1] + 30, map.axis, { size: 10.5, colour: colours.muted, align: "start" });
  }
  // On a phone the scale starts at the edge: behind the labels it would end beyond the screen.
  const y = place.height - 14, bar = Math.min(place.narrow ? 80 : 150, inner[0] * 0.4), start = place.narrow ? 2 : left;
  for (let k = 0; k < 50; k += 1) painter.rect(start + (k / 50) * bar, y, bar / 50 + 0.4, 8, pick(map.table, k / 49));
  painter.text(start + bar + 8, y + 8, `${map.low} to ${map.high}${map.unit ? ` ${map.unit}` : ""}`, { size: 10.5, colour: colours.muted, align: "start" });
}

/** The beginning of a name; the mark of a language that training never saw stays. */
function shorten(text, most) {
  if (text.length <= most) return text;
  const mark = text.endsWith(UNSEEN_MARK) ? UNSEEN_MARK : "";
  return `${text.slice(0, Math.max(1, Math.floor(most) - 1 - mark.length)).trimEnd()}…${mark}`;
}

function canvasPainter(context, ratio) {
  const font = (o) => `${o.bold ? "600 " : ""}${o.size}px system-ui, -apple-system, "Segoe UI", Roboto, "Noto Sans", Helvetica, Arial, sans-serif`;
  return {
    rect(x, y, w, h, colour) {
      // Whole device pixels, so that cells meet without seams.
      const a = Math.round(x * ratio), b = Math.round(y * ratio);
      context.fillStyle = colour;
      context.fillRect(a / ratio, b / ratio, (Math.round((x + w) * ratio) - a) / ratio, (Math.round((y + h) * ratio) - b) / ratio);
    },
    frame(x, y, w, h, colour) { context.strokeStyle = colour; context.lineWidth = 2; context.strokeRect(x, y, w, h); },
    text(x, y, content, o) { context.font = font(o); context.fillStyle = o.colour; context.textAlign = o.align; context.fillText(content, x, y); },
    turned(x, y, content, o) {
      context.save(); context.translate(x, y); context.rotate(-Math.PI / 3); context.font = font(o); context.fillStyle = o.colour;
      context.textAlign = "start"; context.fillText(content, 0, 0); context.restore();
    },
  };
}

function svgPainter(node) {
  const weight = (o) => ({ "font-weight": o.bold ? 600 : null });
  return {
    rect(x, y, width, height, fill) { node.append(draw("rect", { x, y, width: width + 0.12, height: height + 0.12, fill })); },
    frame(x, y, width, height, stroke) { node.append(draw("rect", { x, y, width, height, fill: "none", stroke, "stroke-width": 1.5 })); },
    text(x, y, content, o) { node.append(label(x, y, content, o.size, o.colour, { "text-anchor": o.align === "center" ? "middle" : o.align, ...weight(o) })); },
    turned(x, y, content, o) { node.append(label(x, y, content, o.size, o.colour, { transform: `rotate(-60 ${round2(x)} ${round2(y)})`, ...weight(o) })); },
  };
}

function heatSvg(map, width) {
  const place = heatLayout(map, width);
  const node = draw("svg", { viewBox: `0 0 ${round2(place.width)} ${round2(place.height)}` });
  paintHeat({ ...map, selected: -1 }, place, svgPainter(node), LIGHT);
  return node;
}

function heatCanvas(holder, map, title) {
  const width = Math.max(240, holder.clientWidth), place = heatLayout(map, width), ratio = window.devicePixelRatio || 1;
  let canvas = holder.querySelector("canvas");
  if (!canvas) {
    canvas = make("canvas", { tabindex: "0", role: "img" });
    holder.append(canvas);
    wireHeat(canvas);
  }
  canvas.setAttribute("aria-label", `${title}. Arrow keys walk the cells, Enter chooses.`);
  canvas.width = Math.round(place.width * ratio);
  canvas.height = Math.round(place.height * ratio);
  canvas.style.width = `${place.width}px`;
  canvas.style.height = `${place.height}px`;
  canvas.map = map;
  canvas.place = place;
  const context = canvas.getContext("2d");
  context.scale(ratio, ratio);
  paintHeat(map, place, canvasPainter(context, ratio), palette());
}

function wireHeat(canvas) {
  let at = null;
  const cellOf = (event) => {
    const box = canvas.getBoundingClientRect(), { left, top, cell, row } = canvas.place;
    const j = Math.floor((event.clientX - box.left - left) / cell), i = Math.floor((event.clientY - box.top - top) / row);
    const inside = i >= 0 && i < canvas.map.rows.length && j < canvas.map.columns.length;
    return inside && (j >= 0 || event.type === "click") ? [i, Math.max(j, -1)] : null;
  };
  const show = (x, y) => { asked = canvas; const lines = canvas.map.describe(...at); showTip(lines, x, y); return lines; };
  canvas.addEventListener("pointermove", (event) => {
    at = cellOf(event);
    canvas.style.cursor = at ? "crosshair" : "default";
    if (at) show(event.clientX, event.clientY); else hideTip();
  });
  canvas.addEventListener("pointerdown", (event) => { at = cellOf(event); if (at) show(event.clientX, event.clientY); });
  canvas.addEventListener("pointerleave", leaveTip);
  canvas.addEventListener("click", (event) => { const cell = cellOf(event); if (cell) canvas.map.pick?.(...cell); });
  canvas.addEventListener("blur", () => blurTip(canvas));
  canvas.addEventListener("keydown", (event) => {
    const step = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0] }[event.key];
    if (event.key === "Enter" && at) canvas.map.pick?.(...at);
    if (!step) return;
    event.preventDefault();
    const [i, j] = at || [-step[0], -step[1]];
    at = [clamp(i + step[0], 0, canvas.map.rows.length - 1), clamp(j + step[1], 0, canvas.map.columns.length - 1)];
    const box = canvas.getBoundingClientRect(), { left, top, cell, row } = canvas.place;
    const lines = show(box.left + left + (at[1] + 0.5) * cell, box.top + top + (at[0] + 0.5) * row);
    announce(lines.map((line) => (typeof line === "string" ? line : `${line[1]} ${line[2]}`)).join(", "));
  });
}

const largestOf = (numbers) => { let top = 0; for (const x of numbers) if (known(x)) top = Math.max(top, Math.abs(x)); return top; };

// ---- language x layer ------------------------------------------------------------------------------------------------

function layersMap(colours) {
  const profile = profiles[state.profile], against = state.against >= 0 ? profiles[state.against] : null, measure = state.measure;
  const order = alikeOrder(), codes = shownLanguages(measure).sort((a, b) => order.indexOf(a) - order.indexOf(b));
  const at = (i, j) => value(profile, measure, codes[i], j) - (against ? value(against, measure, codes[i], j) : 0);
  // One scale for all models, so that switching shows change and not a new scale.
  const pool = against ? codes.flatMap((_, i) => allLayers().map((j) => at(i, j)))
    : profiles.flatMap((p) => codes.flatMap((code) => [...series(p, measure, code)]));
  let low = 0, high = largestOf(pool) || 1;
  if (!against) {
    const smallest = Math.min(...pool.filter(known));
    if (smallest > 0.5 * high || smallest < 0) low = smallest;
  }
  return { rows: codes.map(marked), columns: layers, at, table: against ? divergingTable(colours) : ramps.sequential, codes,
    part: against ? (x) => 0.5 + x / (2 * high) : (x) => (x - low) / (high - low || 1), low: against ? number(-high) : number(low), high: number(high), unit: measureOf(measure).unit,
    axis: "decoder layer → (yellow: suggested)", band: bandLayers(), selected: codes.indexOf(state.language),
    describe: (i, j) => (j < 0 ? [marked(codes[i])] : [`${marked(codes[i])}, layer ${layers[j]}`,
      ...profiles.map((p) => [category(p.index, DARK), p.label, number(value(p, measure, codes[i], j))]),
      ...(against ? [["", `${profile.label} − ${against.label}`, number(at(i, j))]] : [])]),
    pick: (i, j) => set(j >= 0 ? { language: codes[i], layer: j } : { language: codes[i] }) };
}

function drawLayers() {
  const profile = profiles[state.profile], measure = measureOf(state.measure);
  const what = state.against >= 0 ? `${profile.label} less ${profiles[state.against].label}: blue fell, orange rose` : profile.label;
  const colours = palette();
  byId("layers-caption").textContent = `${measure.name}, ${what}. Languages that are routed alike stand together. Click a row to choose its language.`;
  heatCanvas(byId("layers"), layersMap(colours), `${measure.name} by language and layer, ${what}`);
}
printable.layers = () => heatSvg(layersMap(LIGHT), 760);

// ---- layer x expert --------------------------------------------------------------------------------------------------

function expertsMap(colours) {
  const profile = profiles[state.profile], quantity = state.quantity, language = state.language;
  const own = distribution(profile, quantity, language), anchor = distribution(profile, quantity, data.anchor);
  const difference = state.expertView === "difference" && anchor && own;
  const at = (i, j) => (own ? own[i * data.experts + j] - (difference ? anchor[i * data.experts + j] : 0) : NaN);
  const high = difference ? largestOf(own.map((x, k) => x - anchor[k])) || 1 : largestOf(own || []) || 1;
  const about = profile.exact ? "" : "≈ ";
  return { rows: layers.map(String), columns: Array.from({ length: data.experts }, (_, j) => j), at, left: 34,
    table: difference ? divergingTable(colours) : ramps.sequential, part: difference ? (x) => 0.5 + x / (2 * high) : (x) => Math.sqrt(x / high),
    low: difference ? number(-high, 2) : "0", high: number(high, 2), unit: difference ? "" : "(colour by square root)", axis: "expert → (rows: decoder layer)",
    rowHeight: clamp(420 / layers.length, 7, 26), smallest: 4.5, largest: 70, selected: -1,
    describe: (i, j) => (j < 0 ? [`Layer ${layers[i]}`] : [`Layer ${layers[i]}, expert ${j}`, ["", nameOf(language), own ? about + number(own[i * data.experts + j], 2) : "–"],
      ...(anchor ? [["", nameOf(data.anchor), about + number(anchor[i * data.experts + j], 2)]] : []), ["", "even share", number(1 / data.experts, 2)]]),
    pick: (i) => set({ layer: i }) };
}

function drawExperts() {
  const profile = profiles[state.profile];
  const what = state.quantity === "mean" ? "mean routing probability of each expert" : "share of the top-k selections that each expert got";
  const less = state.expertView === "difference" ? `, less ${nameOf(data.anchor)}: blue used less, orange used more` : "";
  const missing = profile.rows.includes(state.language) ? "" : " This profile lacks the language.";
  byId("experts-caption").textContent = `${marked(state.language)}, ${profile.label}: ${what}${less}.${missing}`;
  heatCanvas(byId("experts"), expertsMap(palette()), `Layers by experts, ${nameOf(state.language)}, ${profile.label}`);
}
printable.experts = () => heatSvg(expertsMap(LIGHT), 760);

// ---- language x language ---------------------------------------------------------------------------------------------

function betweenText(profile, a, b, layer) {
  const [js, low, high] = [0, 1, 2].map((which) => betweenLanguages(profile, a, b, layer, which));
  return layer < 0 && known(low) ? `${number(js)} [${number(low)}, ${number(high)}]` : number(js);
}

function matrixMap() {
  const profile = profiles[state.profile], between = profile.between, codes = alikeOrder().filter((code) => between.languages.includes(code));
  const layer = state.matrixLayer;
  const at = (i, j) => betweenLanguages(profile, codes[i], codes[j], layer);
  const pool = profiles.map((p) => largestOf(layer < 0 ? p.between.js.subarray(0, p.between.ids.length) : p.between.byLayer.subarray(layer * p.between.ids.length, (layer + 1) * p.between.ids.length)));
  const high = Math.max(...pool) || 1;
  return { rows: codes.map(marked), columns: codes.map(marked), at, table: ramps.inverted, part: (x) => x / high, low: "0 (same routing)", high: number(high), unit: "nats",
    square: true, turned: true, largest: 22, smallest: 9, selected: codes.indexOf(state.language),
    describe: (i, j) => (j < 0 ? [marked(codes[i])] : [`${marked(codes[i])} and ${marked(codes[j])}`, ...profiles.map((p) => [category(p.index, DARK), p.label, betweenText(p, codes[i], codes[j], layer)])]),
    pick: (i) => set({ language: codes[i] }) };
}

function drawMatrix() {
  const profile = profiles[state.profile];
  const where = state.matrixLayer < 0 ? "mean over layers" : `layer ${layers[state.matrixLayer]}`;
  byId("matrix-caption").textContent = `JS divergence between every two languages over the sentences that both have, ${where}, ${profile.label}. Bright is alike. The order (average linkage on ${profiles[0].label}) puts alike languages side by side.`;
  heatCanvas(byId("matrix"), matrixMap(), `Divergence between languages, ${where}, ${profile.label}`);
}
printable.matrix = () => heatSvg(matrixMap(), 760);
