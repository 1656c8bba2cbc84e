// Curves over layers: the large chart with zoom and walk, and the small panels.

/** SVG path through the points; a value that is no number breaks the line. */
function pathOf(xs, ys) {
  let d = "", pen = false;
  for (let i = 0; i < xs.length; i += 1) {
    if (known(ys[i])) { d += `${pen ? "L" : "M"}${round2(xs[i])} ${round2(ys[i])}`; pen = true; } else pen = false;
  }
  return d;
}

/** Stretches of the interval band as closed paths. */
function bandPath(xs, low, high) {
  let d = "", start = -1;
  for (let i = 0; i <= xs.length; i += 1) {
    const inside = i < xs.length && known(low[i]) && known(high[i]);
    if (inside && start < 0) start = i;
    if (!inside && start >= 0) {
      const forth = [], back = [];
      for (let k = start; k < i; k += 1) { forth.push(`${round2(xs[k])} ${round2(high[k])}`); back.unshift(`${round2(xs[k])} ${round2(low[k])}`); }
      d += `M${forth.join("L")}L${back.join("L")}Z`;
      start = -1;
    }
  }
  return d;
}

/** First and last of each run of neighbours in ascending `indices`. */
function runs(indices) {
  const found = [];
  for (const index of indices) {
    if (found.length && found.at(-1)[1] === index - 1) found.at(-1)[1] = index; else found.push([index, index]);
  }
  return found;
}

function valueRange(lines, from, to) {
  let low = Infinity, high = -Infinity;
  for (const line of lines) for (const row of [line.mean, line.low, line.high]) {
    for (let i = from; i <= to; i += 1) if (known(row[i])) { low = Math.min(low, row[i]); high = Math.max(high, row[i]); }
  }
  if (!known(low)) return [0, 1];
  if (low >= 0 && low < 0.5 * high) low = 0;
  const room = (high - low || Math.abs(high) || 1) * 0.05;
  return [low === 0 ? 0 : low - room, high + room];
}

/**
 * The chart: `lines` = [{label, colour, dash, mean, low, high, muted, key}], zoom = [first, last] layer position.
 * Returns the SVG with the scales on it, so that pointers can be read.
 */
function chart({ lines, zoom, band, unit, width, height, colours, legend = true, title }) {
  const left = 50, right = 14, bottom = 34;
  const shown = lines.filter((line) => !line.muted);
  const rowsOf = [];
  if (legend) {
    let x = left, row = 0;
    for (const line of shown) {
      const size = 32 + line.label.length * 6.7;
      if (x + size > width - right && x > left) { x = left; row += 1; }
      rowsOf.push([x, row]);
      x += size;
    }
  }
  const top = legend ? 12 + ((rowsOf.at(-1) || [0, 0])[1] + 1) * 18 : 10;
  const [from, to] = zoom;
  const [low, high] = valueRange(lines, from, to);
  const xOf = (i) => (to === from ? (left + width - right) / 2 : left + ((i - from) / (to - from)) * (width - left - right));
  const yOf = (v) => height - bottom - ((v - low) / (high - low || 1)) * (height - bottom - top);
  const node = draw("svg", { viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": title });
  const clip = `clip-${Math.random().toString(36).slice(2)}`;
  node.append(draw("defs", {}, draw("clipPath", { id: clip }, draw("rect", { x: left - 3, y: top - 4, width: width - left - right + 6, height: height - top - bottom + 8 }))));
  const half = to > from ? (xOf(1) - xOf(0)) / 2 : 20;
  const plot = draw("g", { "clip-path": `url(#${clip})` });
  for (const [start, end] of runs(band)) {
    plot.append(draw("rect", { x: xOf(start) - half, y: top, width: xOf(end) - xOf(start) + 2 * half, height: height - bottom - top, fill: colours.band, "fill-opacity": colours.bandOpacity }));
  }
  for (const tick of ticks(low, high, Math.max(3, Math.round(height / 60)))) {
    node.append(draw("line", { x1: left, x2: width - right, y1: yOf(tick), y2: yOf(tick), stroke: colours.line, "stroke-width": 1 }));
    node.append(label(left - 7, yOf(tick) + 4, number(tick, 3), 11, colours.muted, { "text-anchor": "end" }));
  }
  const first = layers[from], last = layers[to];
  for (const tick of wholeTicks(first, last, Math.max(3, Math.round(width / 80)))) {
    const at = layers.indexOf(tick);
    if (at >= 0) node.append(label(xOf(at), height - bottom + 16, String(tick), 11, colours.muted, { "text-anchor": "middle" }));
  }
  node.append(label(width - right, height - 3, "decoder layer →", 11, colours.muted, { "text-anchor": "end" }));
  if (unit) node.append(label(4, height - 3, `↑ ${unit}`, 11, colours.muted));
  const xs = layers.map((_, i) => xOf(i));
  for (const line of lines) {
    if (!line.muted) {
      plot.append(draw("path", { d: bandPath(xs, Array.from(line.low, yOf), Array.from(line.high, yOf)), fill: line.colour, "fill-opacity": 0.17 }));
    }
  }
  for (const line of [...lines].sort((a, b) => Number(!a.muted) - Number(!b.muted))) {
    const ys = Array.from(line.mean, yOf);
    const path = draw("path", { d: pathOf(xs, ys), fill: "none", stroke: line.colour, "stroke-width": line.muted ? 1 : 2.2, "stroke-dasharray": line.dash, "stroke-linejoin": "round", "stroke-opacity": line.muted ? 0.7 : 1 });
    if (line.key) path.dataset.key = line.key;
    plot.append(path);
    if (!line.muted && (to - from) < 20) {
      for (let i = from; i <= to; i += 1) if (known(ys[i])) plot.append(draw("circle", { cx: xs[i], cy: ys[i], r: 2.6, fill: line.colour }));
    }
  }
  node.append(plot);
  if (legend) {
    shown.forEach((line, index) => {
      const [x, row] = rowsOf[index], y = 12 + row * 18;
      node.append(draw("line", { x1: x, x2: x + 20, y1: y - 4, y2: y - 4, stroke: line.colour, "stroke-width": 2.6, "stroke-dasharray": line.dash }));
      node.append(label(x + 25, y, line.label, 12, colours.ink));
    });
  }
  node.scales = { xOf, yOf, top, bottom: height - bottom, left, right: width - right, from, to };
  return node;
}

function modelLines(language, measure, colours) {
  return profiles.filter((p) => hasMeasure(p, measure, language)).map((profile) => ({
    label: profile.label, colour: category(profile.index, colours), dash: DASHES[profile.index % DASHES.length],
    mean: series(profile, measure, language), low: series(profile, measure, language, 1), high: series(profile, measure, language, 2) }));
}

function languageLines(profile, measure, colours) {
  const pinned = [...state.pins].filter((code) => languages.includes(code));
  return shownLanguages(measure).filter((code) => hasMeasure(profile, measure, code)).map((code) => {
    const place = pinned.indexOf(code), muted = place < 0;
    return { key: code, label: marked(code), muted, colour: muted ? colours.other : category(place, colours),
      dash: muted ? (unseenBy(code) ? "3 3" : null) : DASHES[Math.floor(place / data.palette.categories.length) % DASHES.length],
      mean: series(profile, measure, code), low: series(profile, measure, code, 1), high: series(profile, measure, code, 2) };
  });
}

function curveLines(colours) {
  return state.mode === "models" ? modelLines(state.language, state.measure, colours) : languageLines(profiles[state.profile], state.measure, colours);
}

let cursor = -1;

function drawCurves() {
  const holder = byId("curves"), measure = measureOf(state.measure), colours = palette();
  const width = Math.max(280, holder.clientWidth), height = width < 560 ? 260 : 380;
  const zoom = state.zoom || [0, layers.length - 1];
  const lines = curveLines(colours);
  const what = state.mode === "models" ? `${marked(state.language)}, one line per model` : `${profiles[state.profile].label}, one line per language`;
  const title = `${measure.name} by layer: ${what}`;
  const node = chart({ lines, zoom, band: bandLayers(), unit: measure.unit, width, height, colours, title });
  const walker = draw("g", { visibility: "hidden" });
  node.append(walker);
  node.tabIndex = 0;
  node.setAttribute("aria-label", `${title}. Arrow keys walk the layers.`);
  holder.replaceChildren(node);
  byId("zoom-reset").disabled = byId("zoom-out").disabled = !state.zoom;
  byId("zoom-in").disabled = zoom[1] - zoom[0] <= Math.min(2, layers.length - 1);
  byId("curve-caption").textContent = `${measure.name}: ${measure.meaning} Shaded: 95 % interval over sentences; yellow: suggested layers.`;
  wireCurves(node, walker, lines, colours);
  byId("pins").replaceChildren(...(state.mode === "models" ? [] : pinChips(colours)));
}

function pinChips(colours) {
  const pinned = [...state.pins];
  return shownLanguages(state.measure).map((code) => {
    const place = pinned.indexOf(code);
    const chip = make("button", { type: "button", class: "chip", "aria-pressed": place >= 0, onclick: () => {
      const next = new Set(state.pins);
      if (!next.delete(code)) next.add(code);
      set({ pins: next });
      [...byId("pins").children].find((one) => one.dataset.code === code)?.focus();
    }, "data-code": code }, marked(code));
    if (place >= 0) chip.style.borderColor = category(place, colours);
    return chip;
  });
}

function wireCurves(node, walker, lines, colours) {
  const { scales } = node;
  const local = (event) => {
    const box = node.getBoundingClientRect(), viewBox = node.viewBox.baseVal;
    return [((event.clientX - box.left) / box.width) * viewBox.width, ((event.clientY - box.top) / box.height) * viewBox.height];
  };
  const nearest = (x) => {
    let best = scales.from;
    for (let i = scales.from; i <= scales.to; i += 1) if (Math.abs(scales.xOf(i) - x) < Math.abs(scales.xOf(best) - x)) best = i;
    return best;
  };
  const walk = (index, y, clientX, clientY) => {
    cursor = index;
    asked = node;
    let rows = lines.filter((line) => !line.muted);
    if (y !== null) {
      const near = lines.filter((line) => line.muted && known(line.mean[index])).sort((a, b) => Math.abs(scales.yOf(a.mean[index]) - y) - Math.abs(scales.yOf(b.mean[index]) - y))[0];
      if (near && Math.abs(scales.yOf(near.mean[index]) - y) < 25) rows = [near, ...rows];
    }
    walker.replaceChildren(draw("line", { x1: scales.xOf(index), x2: scales.xOf(index), y1: scales.top, y2: scales.bottom, stroke: colours.muted, "stroke-dasharray": "2 3" }),
      ...rows.filter((line) => known(line.mean[index])).map((line) => draw("circle", { cx: scales.xOf(index), cy: scales.yOf(line.mean[index]), r: 4, fill: line.muted ? colours.ink : line.colour, stroke: colours.panel, "stroke-width": 1.5 })));
    walker.setAttribute("visibility", "visible");
    const lineText = (line) => `${number(line.mean[index])}${known(line.low[index]) ? ` [${number(line.low[index])}, ${number(line.high[index])}]` : ""}`;
    const shown = rows.slice(0, 9);
    showTip([`Layer ${layers[index]}${bandLayers().includes(index) ? " (suggested)" : ""}`, ...shown.map((line) => [line.colour, line.label, lineText(line)])], clientX, clientY);
    return `Layer ${layers[index]}. ${shown.map((line) => `${line.label} ${lineText(line)}`).join("; ")}`;
  };
  let start = null, brush = null;
  node.addEventListener("pointerdown", (event) => {
    if (event.button !== 0) return;
    const [x, y] = local(event);
    start = x;
    if (event.pointerType === "mouse") node.setPointerCapture(event.pointerId);
    else walk(nearest(x), y, event.clientX, event.clientY);
  });
  node.addEventListener("pointermove", (event) => {
    const [x, y] = local(event);
    if (start !== null && Math.abs(x - start) > 6 && event.pointerType !== "touch") {
      brush?.remove();
      const [a, b] = [Math.min(start, x), Math.max(start, x)].map((p) => clamp(p, scales.left, scales.right));
      brush = draw("rect", { x: a, y: scales.top, width: b - a, height: scales.bottom - scales.top, fill: colours.ink, "fill-opacity": 0.12 });
      node.append(brush);
    }
    walk(nearest(x), y, event.clientX, event.clientY);
  });
  node.addEventListener("pointerup", (event) => {
    const [x] = local(event);
    if (brush) {
      const [a, b] = [nearest(Math.min(start, x)), nearest(Math.max(start, x))];
      start = brush = null;
      if (b > a) set({ zoom: [a, b] }); else drawCurves();
    } else if (start !== null) {
      start = null;
      set({ layer: nearest(x) });
      announce(`Layer ${layers[state.layer]} taken.`);
    }
  });
  node.addEventListener("pointercancel", () => { start = null; }); // the page scrolls
  node.addEventListener("pointerleave", (event) => { if (!brush && event.pointerType !== "touch") { walker.setAttribute("visibility", "hidden"); hideTip(); } });
  node.addEventListener("dblclick", () => set({ zoom: null }));
  node.addEventListener("wheel", (event) => {
    // Only when the chart has the focus, so that scrolling the page never gets stuck in it.
    if (document.activeElement !== node) return;
    event.preventDefault();
    zoomBy(event.deltaY < 0 ? 0.75 : 1.34, nearest(local(event)[0]));
    focusCurves();
  }, { passive: false });
  node.addEventListener("keydown", (event) => {
    const box = node.getBoundingClientRect();
    if (event.key === "ArrowLeft" || event.key === "ArrowRight") {
      event.preventDefault();
      const next = clamp((cursor < 0 ? scales.from - 1 : cursor) + (event.key === "ArrowRight" ? 1 : -1), scales.from, scales.to);
      const x = box.left + (scales.xOf(next) / node.viewBox.baseVal.width) * box.width;
      announce(walk(next, null, x, box.top + box.height / 3));
    } else if (event.key === "+" || event.key === "=") { zoomHere(0.6); focusCurves(); }
    else if (event.key === "-") { zoomHere(1.67); focusCurves(); }
    else if (event.key === "Escape") { hideTip(); set({ zoom: null }); focusCurves(); }
    else if (event.key === "Enter" && cursor >= 0) { set({ layer: cursor }); announce(`Layer ${layers[cursor]} taken.`); }
  });
  node.addEventListener("blur", () => { walker.setAttribute("visibility", "hidden"); blurTip(node); });
}

/** A chart that was drawn anew has lost the focus. */
const focusCurves = () => byId("curves").firstChild.focus({ preventScroll: true });

function zoomBy(factor, centre) {
  const [from, to] = state.zoom || [0, layers.length - 1];
  const span = clamp((to - from) * factor, Math.min(2, layers.length - 1), layers.length - 1);
  const part = to > from ? (centre - from) / (to - from) : 0.5;
  const a = clamp(Math.round(centre - part * span), 0, layers.length - 1), b = clamp(Math.round(a + span), a, layers.length - 1);
  set({ zoom: a === 0 && b === layers.length - 1 ? null : [a, b] });
}

/** Around the layer that was walked to last, else the middle. */
function zoomHere(factor) {
  const [from, to] = state.zoom || [0, layers.length - 1];
  zoomBy(factor, cursor >= from && cursor <= to ? cursor : Math.round((from + to) / 2));
}

// ---- panels ----------------------------------------------------------------------------------------------------------

function panelOrder() {
  const codes = shownLanguages(state.measure);
  if (state.panelSort === "name") return codes.sort((a, b) => nameOf(a).localeCompare(nameOf(b)));
  if (state.panelSort === "alike") { const order = alikeOrder(); return codes.sort((a, b) => order.indexOf(a) - order.indexOf(b)); }
  const size = (code) => meanOver(profiles[state.profile], state.measure, code, allLayers());
  return codes.sort((a, b) => (known(size(b)) ? size(b) : -1) - (known(size(a)) ? size(a) : -1));
}

function panelChart(code, range, width, height, colours) {
  const node = draw("svg", { viewBox: `0 0 ${width} ${height}`, "aria-hidden": "true" });
  const xOf = (i) => 2 + (i / Math.max(1, layers.length - 1)) * (width - 4);
  const yOf = (v) => height - 3 - ((v - range[0]) / (range[1] - range[0] || 1)) * (height - 6);
  const half = (xOf(1) - xOf(0)) / 2;
  for (const [start, end] of runs(bandLayers())) node.append(draw("rect", { x: Math.max(0, xOf(start) - half), y: 0, width: xOf(end) - xOf(start) + 2 * half, height, fill: colours.band, "fill-opacity": colours.bandOpacity }));
  node.append(draw("line", { x1: 0, x2: width, y1: height - 1, y2: height - 1, stroke: colours.line }));
  const xs = layers.map((_, i) => xOf(i));
  for (const line of modelLines(code, state.measure, colours)) {
    node.append(draw("path", { d: bandPath(xs, Array.from(line.low, yOf), Array.from(line.high, yOf)), fill: line.colour, "fill-opacity": 0.17 }));
    node.append(draw("path", { d: pathOf(xs, Array.from(line.mean, yOf)), fill: "none", stroke: line.colour, "stroke-width": 1.5, "stroke-dasharray": line.dash }));
  }
  return node;
}

const panelRange = (codes) => valueRange(codes.flatMap((code) => modelLines(code, state.measure, LIGHT)), 0, layers.length - 1);

function drawPanels() {
  const colours = palette(), codes = panelOrder(), range = panelRange(codes);
  byId("panel-caption").textContent = `${measureOf(state.measure).name}, ${profiles.map((p) => p.label).join(" / ")}, one scale from ${number(range[0])} to ${number(range[1])} for all. The number is the mean over layers of ${profiles[state.profile].label}. Click a panel to see it large.`;
  byId("panels").replaceChildren(...codes.map((code) => {
    const name = [make("span", { class: "of" }, nameOf(code)), ...(unseenBy(code) ? [make("span", { class: "unseen-mark", title: "never seen in training" }, "◇")] : [])];
    return make("button", { type: "button", class: "panel", "aria-pressed": code === state.language, "data-code": code,
      "aria-label": `${marked(code)}: show this language`, onclick: () => set({ language: code }) },
    make("span", { class: "name" }, ...name, make("span", {}, number(meanOver(profiles[state.profile], state.measure, code, allLayers())))),
    panelChart(code, range, 180, 74, colours));
  }));
}

function markPanels() {
  for (const panel of byId("panels").children) panel.setAttribute("aria-pressed", panel.dataset.code === state.language);
}

printable.curves = () => {
  const measure = measureOf(state.measure);
  return chart({ lines: curveLines(LIGHT), zoom: state.zoom || [0, layers.length - 1], band: bandLayers(), unit: measure.unit, width: 720, height: 380, colours: LIGHT, title: measure.name });
};
printable.panels = () => {
  const codes = panelOrder(), range = panelRange(codes), columns = 6, rows = Math.ceil(codes.length / columns);
  const node = draw("svg", { viewBox: `0 0 ${columns * 150 + 10} ${rows * 100 + 40}` });
  let x = 10;
  for (const profile of profiles) {
    node.append(draw("line", { x1: x, x2: x + 20, y1: 14, y2: 14, stroke: category(profile.index, LIGHT), "stroke-width": 2.5, "stroke-dasharray": DASHES[profile.index % 4] }), label(x + 25, 18, profile.label, 12, LIGHT.ink));
    x += 40 + profile.label.length * 7;
  }
  codes.forEach((code, index) => {
    const inner = panelChart(code, range, 140, 70, LIGHT), left = 10 + (index % columns) * 150, top = 46 + Math.floor(index / columns) * 100;
    const group = draw("g", { transform: `translate(${left} ${top})` });
    group.append(...inner.childNodes);
    node.append(label(left, top - 5, marked(code), 11, LIGHT.ink), group);
  });
  return node;
};
