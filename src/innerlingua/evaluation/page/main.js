// Sets the page up: heading, cards, controls, how it was computed; then draws, and draws again when the state changes.

const MOST_WORDS = 10;

function drawGlance() {
  const rows = differences(), { baseline, method } = chosenPair(), colours = palette(), cards = [];
  for (const row of rows.filter((one) => one.kind !== "language")) {
    cards.push(card(`${longName(row)}: ${method} less ${baseline}`, `${points(row.difference, true)}`, `${span(row)}; ${VERDICT_WORDS[row.verdict]}`, verdictColour(row.verdict, colours)));
  }
  const targets = rows.filter((row) => row.kind === "language"), count = (...verdicts) => targets.filter((row) => verdicts.includes(row.verdict)).length;
  cards.push(card("Target languages", `${count("better")} better, ${count("worse")} worse`, `${count("noise", "uncorrected", "same")} of ${targets.length} without a finding`));
  const smallest = targets.map((row) => row.smallest).filter((x) => x !== null);
  if (smallest.length) cards.push(card("Smallest difference that could be shown", smallest.length > 1 ? `${points(Math.min(...smallest))} to ${points(Math.max(...smallest))}` : points(smallest[0]), `in one language, with ${Math.round(data.settings.power * 100)} % power`));
  byId("cards").replaceChildren(...cards);
  const spoken = ordered(rows).filter((row) => row.kind !== "language" || row.verdict === "better" || row.verdict === "worse" || targets.length === 1);
  const shown = spoken.slice(0, MOST_WORDS), more = spoken.length - shown.length;
  byId("words").replaceChildren(...shown.map((row) => make("li", {}, make("b", {}, `${longName(row)}: `), `${row.words}.`)),
    ...(more ? [make("li", {}, `${more} more findings are in the figure and the table.`)] : []));
}

function drawHow() {
  byId("how").textContent = data.how;
  const loud = data.notes.filter((note) => note.startsWith("SETTINGS"));
  byId("warnings").replaceChildren(...loud.map((note) => make("p", { class: "alert", role: "alert" }, note)));
  byId("notes").replaceChildren(...data.notes.map((note) => make("li", {}, note)));
  const plain = (x) => (x !== null && typeof x === "object" ? Object.entries(x).filter(([, value]) => value !== null).map(([key, value]) => `${key} ${plain(value)}`).join(", ") : String(x ?? "not stated"));
  byId("runs").replaceChildren(...Object.entries(data.methods).map(([name, method], index) => {
    const list = make("dl"), head = make("div", { class: "big" }), swatch = make("span", { class: "swatch" });
    swatch.style.borderColor = category(index, palette());
    head.append(swatch, name);
    method.folders.forEach((folder, run) => {
      for (const [term, text] of [["results", folder], ["training seed", method.fixed ? "none: a fixed model" : plain(method.seeds[run])], ["model", plain(method.models[run])], ["versions", plain(method.versions[run])]]) list.append(make("dt", {}, term), make("dd", {}, text));
    });
    return make("div", { class: "card" }, head, list);
  }));
}

function start() {
  const names = methods();
  byId("title").textContent = names.join(" · ");
  document.title = `Comparison of results: ${names.join(", ")}`;
  const codes = new Set(data.scores.filter((one) => one.kind === "language").map((one) => one.language)), benchmarks = new Set(tables.map((one) => one.benchmark));
  byId("subtitle").textContent = `${benchmarks.size} benchmark${benchmarks.size === 1 ? "" : "s"}, ${codes.size} target language${codes.size === 1 ? "" : "s"}; p corrected by ${{ holm: "Holm", bh: "Benjamini and Hochberg", none: "nothing" }[data.settings.correction]}`;
  byId("foot").textContent = "Written by innerlingua compare. This file is complete: it asks nothing of the network.";
  options("table-choice", tables.map((one, index) => [index, `${one.benchmark}, ${one.measure}`]), () => state.table, (table) => set({ table: Number(table), row: -1 }));
  options("pair", pairs.map((one, index) => [index, `${one.method} against ${one.baseline}`]), () => state.pair, (pair) => set({ pair: Number(pair), row: -1 }));
  options("order", [["difference", "largest gain first"], ["name", "by name"], ["p", "by p"], ["score", "by score of the baseline"]], () => state.order, (order) => set({ order, row: -1 }));
  for (const button of document.querySelectorAll("[data-svg]")) button.onclick = () => saveSvg(button.dataset.svg);
  wireTable();
  view(["table", "pair"], drawGlance);
  view(["table", "pair", "order"], drawForest);
  view(["table", "pair", "order"], drawScores);
  view(["table", "pair", "order", "filter", "sort"], drawTable);
  view(["table", "pair", "order"], drawUnanswered);
  view([], drawHow);
}

function main() {
  try {
    readData();
    start();
    theme();
    redrawAll();
    onResize(byId("forest"), drawForest);
    onResize(byId("scores"), drawScores);
    document.documentElement.dataset.ready = Math.round(performance.now());
  } catch (error) {
    byId("failure").textContent = `The page could not be drawn: ${error.message}`;
    byId("failure").hidden = false;
    throw error;
  }
}
main();
