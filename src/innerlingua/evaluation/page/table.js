// The numbers of the chosen comparison as a table, samples that gave no answer, and downloads.

function tableColumns() {
  const { baseline, method } = chosenPair();
  return [
    { key: "language", name: "Language", text: true, show: longName, value: nameOf }, { key: "code", name: "Code", text: true, show: (row) => row.language ?? "", value: (row) => row.language ?? "" },
    { key: "samples", name: "Samples", show: (row) => grouped(row.samples), value: (row) => row.samples },
    { key: "baseline_score", name: baseline, show: (row) => points(scoreOf(row, baseline).score), value: (row) => scoreOf(row, baseline).score },
    { key: "method_score", name: method, show: (row) => points(scoreOf(row, method).score), value: (row) => scoreOf(row, method).score },
    { key: "difference", name: "Difference", show: (row) => points(row.difference, true), value: (row) => row.difference },
    { key: "interval", name: `${level()} interval`, show: span, value: (row) => (row.low === null ? NaN : row.high - row.low) },
    { key: "p", name: "p alone", show: (row) => pText(row.p), value: (row) => row.p }, { key: "corrected", name: "p corrected", show: (row) => pText(row.corrected), value: (row) => row.corrected },
    { key: "smallest", name: "Smallest shown", show: (row) => (row.smallest === null ? "none" : points(row.smallest)), value: (row) => row.smallest ?? NaN },
    { key: "unanswered", name: `No answer: ${baseline} | ${method}`, text: true, show: (row) => `${unanswered(scoreOf(row, baseline).statuses) || "–"} | ${unanswered(scoreOf(row, method).statuses) || "–"}`, value: (row) => [baseline, method].reduce((sum, name) => sum + scoreOf(row, name).statuses.reduce((a, one) => a + Object.entries(one).reduce((b, [reason, n]) => b + (reason === "answered" ? 0 : n), 0), 0), 0) },
    { key: "verdict", name: "Verdict", text: true, show: (row) => VERDICTS[row.verdict], value: (row) => row.verdict }];
}

function chosenRows() {
  const words = state.filter.toLowerCase().split(/\s+/).filter(Boolean);
  const rows = ordered(differences()).filter((row) => {
    const text = `${longName(row)} ${row.language ?? ""} ${VERDICTS[row.verdict]}`.toLowerCase();
    return words.every((word) => text.includes(word));
  });
  const column = tableColumns().find((one) => one.key === state.sort.key);
  if (!column) return rows;
  const sign = state.sort.down ? -1 : 1;
  return rows.sort((a, b) => {
    const [x, y] = [column.value(a), column.value(b)];
    if (typeof x === "string") return sign * x.localeCompare(y);
    if (!known(x) || !known(y)) return Number(!known(x)) - Number(!known(y)); // without a value: last either way
    return sign * (x - y);
  });
}

function drawTable() {
  const columns = tableColumns(), rows = chosenRows();
  const head = make("thead", {}, make("tr", {}, ...columns.map((column) => {
    const chosen = state.sort.key === column.key;
    return make("th", { scope: "col", class: column.text ? "text" : "", "aria-sort": chosen ? (state.sort.down ? "descending" : "ascending") : "none", "data-key": column.key },
      make("button", { type: "button", onclick: () => {
        set({ sort: { key: column.key, down: chosen ? !state.sort.down : false } });
        byId("table").querySelector(`th[data-key="${column.key}"] button`)?.focus({ preventScroll: true });
      } }, column.name));
  })));
  const strong = (row) => row.verdict === "better" || row.verdict === "worse";
  const body = make("tbody", {}, ...rows.map((row) => make("tr", { class: { overall: "mean", anchor: "anchor" }[row.kind] || "", "data-code": row.language ?? "mean", title: row.words },
    ...columns.map((column) => make("td", { class: [column.text ? "text" : "", strong(row) && ["difference", "verdict"].includes(column.key) ? "strong" : ""].join(" ").trim() }, column.show(row))))));
  byId("table").replaceChildren(head, body);
  byId("table-caption").textContent = `${grouped(rows.length)} rows: ${chosenPair().method} against ${chosenPair().baseline}. Click a heading to sort.`;
}

function drawUnanswered() {
  const columns = Object.entries(data.methods).flatMap(([name, method]) => method.folders.map((folder, index) => ({ name, index, title: method.folders.length > 1 ? `${name}, run ${index + 1}` : name })));
  const rows = ordered(differences()).filter((row) => row.kind !== "overall").filter((row) => columns.some(({ name, index }) => unanswered([scoreOf(row, name).statuses[index]])));
  byId("unanswered").hidden = !rows.length;
  byId("unanswered-caption").textContent = rows.length ? (["chrF++", "BLEU"].includes(rows[0].measure) ? "They are scored as far as they go, the empty ones 0. " : "They count as wrong (score 0). ") + "Cut: the token limit ended the text before an answer stood. Unparsed: no answer was found in the text. Overlong: the prompt had no room in the model's context. A difference that comes from these is one of form, not of knowledge." : "Every sample of this benchmark was answered under every run.";
  byId("unanswered").replaceChildren(make("thead", {}, make("tr", {}, make("th", { class: "text", scope: "col" }, "Language"), ...columns.map(({ title }) => make("th", { scope: "col" }, title)))),
    make("tbody", {}, ...rows.map((row) => make("tr", {}, make("td", { class: "text" }, longName(row)), ...columns.map(({ name, index }) => make("td", {}, unanswered([scoreOf(row, name).statuses[index]]) || "–"))))));
}

const DIFFERENCE_KEYS = ["benchmark", "measure", "kind", "language", "baseline", "method", "difference", "low", "high", "standard_error", "from_samples", "from_seeds", "freedom", "p", "corrected", "tests", "test", "smallest", "samples", "clusters", "discordance", "wins", "losses", "verdict"];

function wireTable() {
  byId("filter").addEventListener("input", (event) => set({ filter: event.target.value }));
  byId("rows-csv").onclick = () => {
    const columns = tableColumns(), plain = (row, column) => (column.key === "interval" ? [row.low, row.high] : [column.key === "unanswered" ? column.show(row) : column.value(row)]);
    download("rows.csv", "text/csv", csv(columns.flatMap((column) => (column.key === "interval" ? ["low", "high"] : [column.key])), chosenRows().map((row) => columns.flatMap((column) => plain(row, column)))));
  };
  byId("differences-csv").onclick = () => download("differences.csv", "text/csv", csv(DIFFERENCE_KEYS, data.differences.map((row) => DIFFERENCE_KEYS.map((key) => row[key]))));
  byId("scores-csv").onclick = () => {
    const keys = ["benchmark", "measure", "kind", "language", "method", "run", "score", "low", "high", "chance", "samples"];
    const reasons = [...new Set(data.scores.flatMap((one) => one.statuses.flatMap(Object.keys)))];
    const rows = data.scores.flatMap((one) => [
      [...keys.slice(0, 5).map((key) => one[key]), "mean", one.score, one.low, one.high, one.chance, one.samples, ...reasons.map((reason) => one.statuses.reduce((sum, counts) => sum + counts[reason], 0))],
      ...(one.by_run.length > 1 ? one.by_run.map((score, index) => [...keys.slice(0, 5).map((key) => one[key]), index + 1, score, null, null, one.chance, one.samples, ...reasons.map((reason) => one.statuses[index][reason])]) : [])]);
    download("scores.csv", "text/csv", csv([...keys, ...reasons], rows));
  };
  byId("all-json").onclick = () => { const { palette: colours, how, ...kept } = data; download("comparison.json", "application/json", JSON.stringify(kept)); };
}
