// Routing against accuracy, when results were given: a point per language and model, and r by layer.

function wilson(n, correct) {
  const z = 1.959963984540054, p = correct / n, middle = (p + (z * z) / (2 * n)) / (1 + (z * z) / n);
  const half = (z * Math.sqrt((p * (1 - p)) / n + (z * z) / (4 * n * n))) / (1 + (z * z) / n);
  return [Math.max(0, middle - half), Math.min(1, middle + half)];
}

function scatterLayers() {
  if (state.scatterLayer === "band") return bandLayers().length ? bandLayers() : allLayers();
  return state.scatterLayer === "all" ? allLayers() : [Number(state.scatterLayer)];
}

function scatterPoints() {
  return profiles.flatMap((profile) => Object.entries(data.results.accuracy[profile.label] || {})
    .filter(([code]) => languages.includes(code) && code !== data.anchor)
    .map(([code, { n, correct }]) => ({ profile, code, n, x: meanOver(profile, state.measure, code, scatterLayers()), y: correct / n, span: wilson(n, correct) }))
    .filter((point) => known(point.x)));
}

function pearson(points) {
  if (points.length < 3) return NaN;
  const mean = (key) => points.reduce((sum, p) => sum + p[key], 0) / points.length;
  const [mx, my] = [mean("x"), mean("y")];
  let xy = 0, xx = 0, yy = 0;
  for (const p of points) { xy += (p.x - mx) * (p.y - my); xx += (p.x - mx) ** 2; yy += (p.y - my) ** 2; }
  return xx > 0 && yy > 0 ? xy / Math.sqrt(xx * yy) : NaN;
}

function marker(profile, x, y, colours, chosen) {
  const fill = category(profile.index, colours), size = chosen ? 6.5 : 4.5, edge = { stroke: chosen ? colours.ink : colours.panel, "stroke-width": chosen ? 2 : 1, fill };
  const shapes = [() => draw("circle", { cx: x, cy: y, r: size, ...edge }), () => draw("rect", { x: x - size, y: y - size, width: 2 * size, height: 2 * size, ...edge }),
    () => draw("path", { d: `M${x} ${y - size * 1.25}L${x + size * 1.2} ${y + size}L${x - size * 1.2} ${y + size}Z`, ...edge }),
    () => draw("path", { d: `M${x} ${y - size * 1.35}L${x + size * 1.35} ${y}L${x} ${y + size * 1.35}L${x - size * 1.35} ${y}Z`, ...edge })];
  return shapes[profile.index % shapes.length]();
}

function scatterChart(width, height, colours) {
  const points = scatterPoints(), measure = measureOf(state.measure);
  const left = 46, right = 16, bottom = 40, legend = [];
  let x = left, row = 0;
  for (const profile of profiles.filter((p) => data.results.accuracy[p.label])) {
    const r = pearson(points.filter((p) => p.profile === profile));
    const text = `${profile.label}, r = ${known(r) ? r.toFixed(2).replace("-", "−") : "–"}`, size = 30 + text.length * 6.8;
    if (x > left && x + size > width) { x = left; row += 1; }
    legend.push([profile, text, x, row * 18]);
    x += size;
  }
  const top = 30 + row * 18;
  const xs = points.map((p) => p.x), ys = points.flatMap((p) => p.span);
  const x0 = points.length && Math.min(...xs) > 0.5 * Math.max(...xs) ? Math.min(...xs) * 0.98 : 0, x1 = (Math.max(...xs, 0) || 1) * 1.05;
  const chance = data.results.chance, bounds = chance === null ? ys : [...ys, chance];
  const y0 = Math.max(0, Math.floor(Math.min(...bounds, 1) * 10) / 10), y1 = Math.min(1, Math.ceil(Math.max(...bounds, 0) * 10) / 10);
  const xOf = (v) => left + ((v - x0) / (x1 - x0 || 1)) * (width - left - right), yOf = (v) => height - bottom - ((v - y0) / (y1 - y0 || 1)) * (height - top - bottom);
  const node = draw("svg", { viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": `${measure.name} against accuracy, ${points.length} points` });
  for (const tick of ticks(y0, y1, 5)) node.append(draw("line", { x1: left, x2: width - right, y1: yOf(tick), y2: yOf(tick), stroke: colours.line }), label(left - 7, yOf(tick) + 4, number(tick), 11, colours.muted, { "text-anchor": "end" }));
  for (const tick of ticks(x0, x1, 5)) node.append(label(xOf(tick), height - bottom + 16, number(tick), 11, colours.muted, { "text-anchor": "middle" }));
  node.append(label(width - right, height - 5, `${measure.name}${measure.unit ? ` (${measure.unit})` : ""} →`, 11, colours.muted, { "text-anchor": "end" }), label(4, height - 5, "accuracy ↑", 11, colours.muted));
  for (const [profile, text, at, y] of legend) node.append(marker(profile, at + 5, 11 + y, colours, false), label(at + 15, 15 + y, text, 12, colours.ink));
  for (const p of points) node.append(draw("line", { x1: xOf(p.x), x2: xOf(p.x), y1: yOf(p.span[0]), y2: yOf(p.span[1]), stroke: category(p.profile.index, colours), "stroke-opacity": 0.35 }));
  if (chance !== null) node.append(draw("line", { x1: left, x2: width - right, y1: yOf(chance), y2: yOf(chance), stroke: colours.muted, "stroke-dasharray": "4 3" }), label(width - right, yOf(chance) - 4, "chance", 11, colours.muted, { "text-anchor": "end" }));
  const taken = []; // places of labels: those of several models can meet
  for (const p of [...points].sort((a, b) => Number(a.code === state.language) - Number(b.code === state.language))) {
    const chosen = p.code === state.language, shape = marker(p.profile, round2(xOf(p.x)), round2(yOf(p.y)), colours, chosen);
    shape.point = p;
    node.append(shape);
    if (chosen) {
      const far = xOf(p.x) > width * 0.8, reach = nameOf(p.code).length * 7 + 10, x = xOf(p.x) + (far ? -10 - reach : 10);
      let y = yOf(p.y) - 7;
      while (taken.some(([a, b]) => Math.abs(a - x) < reach && Math.abs(b - y) < 13)) y -= 4;
      taken.push([x, y]);
      node.append(label(xOf(p.x) + (far ? -10 : 10), y, nameOf(p.code), 11, colours.ink, { "font-weight": 600, "text-anchor": far ? "end" : "start" }));
    }
  }
  return node;
}

function drawScatter() {
  if (!data.results) return;
  const measure = measureOf(state.measure), chosen = scatterLayers();
  const where = chosen.length === 1 ? `layer ${layers[chosen[0]]}` : `mean over layers ${layers[chosen[0]]} to ${layers[chosen.at(-1)]}`;
  const { unmatched, other_languages: others } = data.results;
  const left = (unmatched.length ? ` Results without a profile, not shown: ${unmatched.join(", ")}.` : "") + (others.length ? ` Languages of no profile, not shown: ${others.join(", ")}.` : "");
  byId("scatter-caption").textContent = `Each point is a language: ${measure.name} (${where}) against accuracy${data.results.benchmark ? ` in ${data.results.benchmark}` : ""} with its 95 % interval (Wilson). On the right Pearson's r over languages at each layer; it describes these few languages and tests nothing.${left}`;
  const holder = byId("scatter"), node = scatterChart(Math.max(280, holder.clientWidth), 340, palette());
  holder.replaceChildren(node);
  const show = (event) => {
    const p = event.target.point;
    if (!p) { leaveTip(event); return; }
    showTip([`${marked(p.code)}, ${p.profile.label}`, ["", measure.name, number(p.x)], ["", "accuracy", `${p.y.toFixed(3)} [${p.span[0].toFixed(3)}, ${p.span[1].toFixed(3)}]`], ["", "questions", grouped(p.n)]], event.clientX, event.clientY);
  };
  node.addEventListener("pointermove", show);
  node.addEventListener("pointerdown", show);
  node.addEventListener("pointerleave", leaveTip);
  node.addEventListener("click", (event) => { if (event.target.point) set({ language: event.target.point.code }); });
  byId("correlation").replaceChildren(correlationChart(Math.max(240, byId("correlation").clientWidth), 340, palette()));
}

function correlationChart(width, height, colours) {
  const lines = profiles.filter((p) => data.results.r[p.label] && data.results.r[p.label][state.measure]).map((profile) => {
    const mean = data.results.r[profile.label][state.measure].map((x) => (x === null ? NaN : x)), none = mean.map(() => NaN);
    return { label: profile.label, colour: category(profile.index, colours), dash: DASHES[profile.index % 4], mean, low: none, high: none };
  });
  const node = chart({ lines, zoom: [0, layers.length - 1], band: bandLayers(), unit: "Pearson's r", width, height, colours, title: "Pearson's r between the measure and accuracy by layer" });
  return node;
}
printable.scatter = () => scatterChart(640, 360, LIGHT);
printable.correlation = () => correlationChart(520, 340, LIGHT);
