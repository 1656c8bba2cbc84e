// Differences with their intervals, a row each, and what so many samples could have shown as a band around no difference.

const VERDICT_COLOURS = { better: 0, worse: 3, uncorrected: 1 };
function verdictColour(verdict, colours) {
  return verdict in VERDICT_COLOURS ? category(VERDICT_COLOURS[verdict], colours) : colours.muted;
}

/** A mark whose shape says the same as its colour: triangles for a finding, hollow for none. */
function verdictMark(verdict, x, y, colours, size = 6) {
  const colour = verdictColour(verdict, colours), up = `M${x} ${y - size}L${x + size} ${y + size * 0.8}L${x - size} ${y + size * 0.8}Z`;
  const down = `M${x} ${y + size}L${x + size} ${y - size * 0.8}L${x - size} ${y - size * 0.8}Z`;
  if (verdict === "better") return draw("path", { d: up, fill: colour });
  if (verdict === "worse") return draw("path", { d: down, fill: colour });
  if (verdict === "uncorrected") return draw("rect", { x: x - size * 0.75, y: y - size * 0.75, width: size * 1.5, height: size * 1.5, fill: colours.panel, stroke: colour, "stroke-width": 2 });
  return draw("circle", { cx: x, cy: y, r: size * 0.75, fill: colours.panel, stroke: colour, "stroke-width": 1.6 });
}

/** A mean over languages as the customary diamond, as wide as its interval. */
function diamond(row, xOf, y, colours) {
  const colour = verdictColour(row.verdict, colours), found = row.verdict === "better" || row.verdict === "worse";
  const [low, high] = row.low === null ? [row.difference, row.difference] : [row.low, row.high];
  return draw("path", { d: `M${round2(xOf(low))} ${y}L${round2(xOf(row.difference))} ${y - 7}L${round2(xOf(high))} ${y}L${round2(xOf(row.difference))} ${y + 7}Z`,
    fill: found ? colour : colours.panel, stroke: colour, "stroke-width": 1.8, "stroke-linejoin": "round" });
}

/** Names that fit into `width` pixels at 12 px. */
const fitting = (text, width) => (text.length * 6.6 <= width ? text : `${text.slice(0, Math.max(3, Math.floor(width / 6.6) - 1))}…`);

function forestChart(rows, width, colours) {
  const narrow = width < 560, left = narrow ? 104 : 190, right = narrow ? 8 : 176, step = 26, top = 30;
  const height = top + rows.length * step + 44;
  const edges = rows.flatMap((row) => [row.low, row.high, row.difference, row.smallest, row.smallest === null ? null : -row.smallest]).filter((x) => x !== null && known(x));
  const reach = Math.max(...edges.map(Math.abs), 0.1) * 1.06;
  const lowest = Math.min(...edges, 0) < 0 ? Math.min(...edges) * 1.06 : -reach * 0.05, highest = Math.max(...edges, 0) > 0 ? Math.max(...edges) * 1.06 : reach * 0.05;
  const xOf = (x) => left + ((x - lowest) / (highest - lowest || 1)) * (width - left - right);
  const yOf = (index) => top + index * step + step / 2;
  const { baseline, method } = chosenPair();
  const node = draw("svg", { viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": `Difference of ${method} to ${baseline} in points, ${rows.length} rows with intervals` });
  for (const tick of ticks(lowest, highest, Math.max(3, Math.round((width - left - right) / 90)))) {
    node.append(draw("line", { x1: xOf(tick), x2: xOf(tick), y1: top - 4, y2: height - 40, stroke: colours.line }),
      label(xOf(tick), height - 26, points(tick, tick !== 0, Number.isInteger(tick) ? 0 : digits()), 11, colours.muted, { "text-anchor": "middle" }));
  }
  rows.forEach((row, index) => {
    if (row.smallest === null) return;
    node.append(draw("rect", { class: "smallest", x: xOf(-row.smallest), y: yOf(index) - step / 2, width: xOf(row.smallest) - xOf(-row.smallest), height: step, fill: colours.band, "fill-opacity": colours.bandOpacity }));
  });
  node.append(draw("line", { x1: xOf(0), x2: xOf(0), y1: top - 4, y2: height - 40, stroke: colours.ink, "stroke-width": 1.2 }));
  rows.forEach((row, index) => {
    const y = yOf(index), group = draw("g", { class: "row", "data-row": index });
    const heavy = row.kind === "language" ? {} : { "font-weight": 650 };
    group.append(label(left - 8, y + 4, fitting(narrow ? shortName(row) : longName(row), left - 12), 12, colours.ink, { "text-anchor": "end", ...heavy }));
    if (row.kind === "overall") group.append(diamond(row, xOf, y, colours));
    else {
      if (row.low !== null) group.append(draw("line", { x1: xOf(row.low), x2: xOf(row.high), y1: y, y2: y, stroke: verdictColour(row.verdict, colours), "stroke-width": 2 }));
      group.append(verdictMark(row.verdict, round2(xOf(row.difference)), y, colours));
    }
    if (!narrow) group.append(label(width - right + 10, y + 4, `${points(row.difference, true)}  (${span(row)})`, 12, row.verdict === "noise" || row.verdict === "same" ? colours.muted : colours.ink, heavy));
    node.append(group);
    if (row.kind !== "language" && rows[index + 1]?.kind === "language") node.append(draw("line", { x1: 0, x2: width, y1: y + step / 2, y2: y + step / 2, stroke: colours.muted, "stroke-dasharray": "2 3" }));
  });
  node.append(label(left, height - 6, `← ${fitting(baseline, 120)} higher`, 11, colours.muted), label(width - right, height - 6, `${fitting(method, 120)} higher →`, 11, colours.muted, { "text-anchor": "end" }));
  let x = narrow ? 4 : left;
  for (const verdict of ["better", "worse", "uncorrected", "noise", "same"].filter((one) => rows.some((row) => row.verdict === one))) {
    node.append(verdictMark(verdict, x + 6, 11, colours, 5), label(x + 16, 15, VERDICTS[verdict], 11, colours.ink));
    x += 30 + VERDICTS[verdict].length * 7;
  }
  node.append(draw("rect", { x: x + 2, y: 5, width: 18, height: 12, fill: colours.band, "fill-opacity": colours.bandOpacity * 1.6 }), label(x + 25, 15, narrow ? "too small to show" : "too small to show reliably", 11, colours.ink));
  node.scales = { top, step };
  return node;
}

const FOREST_TIP = (row) => [longName(row), [null, `difference, ${level()} interval`, `${points(row.difference, true)} (${span(row)})`],
  ...methods().filter((label) => label === row.baseline || label === row.method).map((label) => [null, label, points(scoreOf(row, label).score)]),
  [null, "p alone, corrected", `${pText(row.p)}, ${pText(row.corrected)}`], [null, "smallest that could be shown", row.smallest === null ? "none" : points(row.smallest)],
  [null, "samples", row.clusters < row.samples ? `${grouped(row.samples)} in ${grouped(row.clusters)} clusters` : grouped(row.samples)],
  ...(row.wins === null ? [] : [[null, `${row.method} / ${row.baseline} alone right`, `${grouped(row.wins)} / ${grouped(row.losses)}`]]),
  ...(row.from_seeds === null ? [] : [[null, "standard error: samples, seeds", `${points(row.from_samples, false, 2)}, ${points(row.from_seeds, false, 2)}`]]),
  VERDICT_WORDS[row.verdict]];

function drawForest() {
  const holder = byId("forest"), rows = ordered(differences()), colours = palette();
  const node = forestChart(rows, Math.max(280, holder.clientWidth), colours);
  const cursor = draw("rect", { x: 0, y: 0, width: "100%", height: node.scales.step, fill: colours.ink, "fill-opacity": 0.07, visibility: "hidden" });
  node.insertBefore(cursor, node.firstChild);
  node.tabIndex = 0;
  const walk = (index, x, y) => {
    cursor.setAttribute("y", node.scales.top + index * node.scales.step);
    cursor.setAttribute("visibility", "visible");
    showTip(FOREST_TIP(rows[index]), x, y);
    state.row = index;
  };
  const leave = () => { cursor.setAttribute("visibility", "hidden"); hideTip(); };
  node.addEventListener("pointermove", (event) => {
    const box = node.getBoundingClientRect(), y = ((event.clientY - box.top) / box.height) * node.viewBox.baseVal.height;
    const index = Math.floor((y - node.scales.top) / node.scales.step);
    if (index >= 0 && index < rows.length) walk(index, event.clientX, event.clientY); else leave();
  });
  node.addEventListener("pointerleave", leave);
  node.addEventListener("blur", leave);
  node.addEventListener("keydown", (event) => {
    const by = { ArrowDown: 1, ArrowUp: -1 }[event.key];
    if (event.key === "Escape") leave();
    if (!by) return;
    event.preventDefault();
    const index = clamp((state.row < 0 ? (by > 0 ? -1 : 0) : state.row) + by, 0, rows.length - 1), box = node.getBoundingClientRect();
    walk(index, box.left + box.width / 3, box.top + ((node.scales.top + (index + 1) * node.scales.step) / node.viewBox.baseVal.height) * box.height);
    announce(`${longName(rows[index])}: ${rows[index].words}`);
  });
  holder.replaceChildren(node);
  const { baseline, method } = chosenPair(), families = rows.filter((row) => row.kind === "language").length;
  byId("forest-caption").textContent = `${method} less ${baseline}, ${chosenTable().benchmark}, ${chosenTable().measure}, in points of 100, with ${level()} intervals. A finding (filled) is one that stands after correction for ${families} language${families === 1 ? "" : "s"}. Yellow: differences that so many samples would miss in more than ${Math.round((1 - data.settings.power) * 100)} % of cases.`;
}

printable.forest = () => forestChart(ordered(differences()), 760, LIGHT);
