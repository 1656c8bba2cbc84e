// Scores of every method in every language, with intervals; single runs as ticks, and the score of a guess.

function scoreMark(index, x, y, colours) {
  const fill = category(index, colours), edge = { fill, stroke: colours.panel, "stroke-width": 1 }, size = 5;
  const shapes = [() => draw("circle", { cx: x, cy: y, r: size, ...edge }), () => draw("rect", { x: x - size, y: y - size, width: 2 * size, height: 2 * size, ...edge }),
    () => draw("path", { d: `M${x} ${y - size * 1.25}L${x + size * 1.2} ${y + size}L${x - size * 1.2} ${y + size}Z`, ...edge }),
    () => draw("path", { d: `M${x} ${y - size * 1.35}L${x + size * 1.35} ${y}L${x} ${y + size * 1.35}L${x - size * 1.35} ${y}Z`, ...edge })];
  return shapes[index % shapes.length]();
}

function scoresChart(rows, width, colours) {
  const names = methods(), narrow = width < 560, left = narrow ? 104 : 190, right = 16, step = 14 + 12 * names.length;
  const legend = [];
  let x = 4, line = 0;
  for (const name of names) {
    const size = 26 + fitting(name, 240).length * 7;
    if (x > 4 && x + size > width) { x = 4; line += 1; }
    legend.push([name, x, line * 18]);
    x += size;
  }
  const top = 26 + line * 18, height = top + rows.length * step + 40;
  const all = rows.flatMap((row) => names.map((name) => scoreOf(row, name)));
  const edges = all.flatMap((one) => [one.score, one.low, one.high, ...one.by_run, one.chance]).filter((value) => value !== null && known(value));
  const space = (Math.max(...edges) - Math.min(...edges) || 1) * 0.04, lowest = Math.max(0, Math.min(...edges) - space), highest = Math.max(...edges) + space;
  const xOf = (value) => left + ((value - lowest) / (highest - lowest || 1)) * (width - left - right);
  const node = draw("svg", { viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": `Scores of ${names.join(", ")} in ${rows.length} rows with intervals` });
  for (const tick of ticks(lowest, highest, Math.max(3, Math.round((width - left - right) / 80)))) {
    node.append(draw("line", { x1: xOf(tick), x2: xOf(tick), y1: top, y2: height - 34, stroke: colours.line }), label(xOf(tick), height - 20, number(tick), 11, colours.muted, { "text-anchor": "middle" }));
  }
  legend.forEach(([name, at, y], index) => node.append(scoreMark(names.indexOf(name), at + 7, 11 + y, colours), label(at + 17, 15 + y, fitting(name, 240), 12, colours.ink)));
  rows.forEach((row, index) => {
    const start = top + index * step;
    if (index % 2 === 0) node.append(draw("rect", { x: 0, y: start, width, height: step, fill: colours.ink, "fill-opacity": 0.025 }));
    node.append(label(left - 8, start + step / 2 + 4, fitting(narrow ? shortName(row) : longName(row), left - 12), 12, colours.ink, { "text-anchor": "end", ...(row.kind === "language" ? {} : { "font-weight": 650 }) }));
    names.forEach((name, place) => {
      const one = scoreOf(row, name), y = start + 13 + 12 * place, colour = category(place, colours);
      if (one.chance !== null && place === 0) node.append(draw("line", { class: "chance", x1: xOf(one.chance), x2: xOf(one.chance), y1: start + 2, y2: start + step - 2, stroke: colours.mark, "stroke-width": 1.6, "stroke-dasharray": "3 2" }));
      if (one.low !== null) node.append(draw("line", { x1: xOf(one.low), x2: xOf(one.high), y1: y, y2: y, stroke: colour, "stroke-width": 2, "stroke-opacity": 0.75 }));
      if (one.by_run.length > 1) for (const value of one.by_run) node.append(draw("line", { class: "run", x1: xOf(value), x2: xOf(value), y1: y - 5, y2: y + 5, stroke: colour, "stroke-width": 1.3 }));
      node.append(scoreMark(place, round2(xOf(one.score)), y, colours));
    });
  });
  node.append(label(width - right, height - 4, `${fitting(chosenTable().measure, 200)} →`, 11, colours.muted, { "text-anchor": "end" }));
  node.scales = { top, step };
  return node;
}

function drawScores() {
  const holder = byId("scores"), rows = ordered(differences()), colours = palette(), names = methods();
  const node = scoresChart(rows, Math.max(280, holder.clientWidth), colours);
  node.addEventListener("pointermove", (event) => {
    const box = node.getBoundingClientRect(), y = ((event.clientY - box.top) / box.height) * node.viewBox.baseVal.height;
    const row = rows[Math.floor((y - node.scales.top) / node.scales.step)];
    if (!row) { hideTip(); return; }
    showTip([longName(row), ...names.map((name, index) => {
      const one = scoreOf(row, name), runs = one.by_run.length > 1 ? `; runs ${one.by_run.map((x) => points(x)).join(", ")}` : "";
      return [category(index, colours), name, `${points(one.score)}${one.low === null ? "" : ` (${points(one.low)} to ${points(one.high)})`}${one.at_chance ? ", at chance" : ""}${runs}`];
    })], event.clientX, event.clientY);
  });
  node.addEventListener("pointerleave", hideTip);
  holder.replaceChildren(node);
  const chance = rows.some((row) => scoreOf(row, names[0]).chance !== null), seeds = data.scores.some((one) => one.by_run.length > 1);
  byId("scores-caption").textContent = `${chosenTable().benchmark}, ${chosenTable().measure}, with ${level()} intervals of each score.${chance ? " Dashed: what a guess scores." : ""}${seeds ? " Ticks: single runs." : ""} Intervals of two scores may overlap where the paired difference is certain: judge by the differences above.`;
}

printable.scores = () => scoresChart(ordered(differences()), 760, LIGHT);
