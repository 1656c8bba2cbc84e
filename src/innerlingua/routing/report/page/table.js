// The table of measures, sorted, filtered and paged; and the downloads.

const PAGE = 40;

function scopeLayers() {
  if (state.scope === "band") return bandLayers();
  return state.scope === "all" || state.scope === "each" ? allLayers() : [Number(state.scope)];
}

function tableColumns() {
  const columns = [
    { key: "profile", name: "Model", text: true }, { key: "language", name: "Language", text: true }, { key: "code", name: "Code", text: true },
    { key: "seen", name: "Seen in training", text: true }, { key: "pairs", name: "Pairs" }];
  if (state.scope === "each") columns.push({ key: "layer", name: "Layer" });
  return columns.concat(data.measures.map((measure) => ({ key: measure.key, name: measure.unit ? `${measure.name} (${measure.unit})` : measure.name })));
}

function tableRows() {
  const rows = [];
  for (const profile of profiles) for (const code of profile.rows) {
    const entry = profile.languages[code];
    const seen = !profile.unseen ? "not known" : profile.unseen.includes(code) ? "never ◇" : "yes";
    const base = { profile: profile.label, language: nameOf(code), code, seen, pairs: entry.pairs ?? NaN };
    const groups = state.scope === "each" ? allLayers().map((index) => [index]) : [scopeLayers()];
    for (const group of groups) {
      const row = { ...base };
      if (state.scope === "each") row.layer = layers[group[0]];
      for (const measure of data.measures) row[measure.key] = meanOver(profile, measure.key, code, group);
      rows.push(row);
    }
  }
  return rows;
}

function chosenRows() {
  const words = state.filter.toLowerCase().split(/\s+/).filter(Boolean);
  const rows = tableRows().filter((row) => {
    const text = `${row.profile} ${row.language} ${row.code} ${row.seen}`.toLowerCase();
    return words.every((word) => text.includes(word));
  });
  const { key, down } = state.sort, sign = down ? -1 : 1;
  return rows.sort((a, b) => {
    const [x, y] = [a[key], b[key]];
    if (typeof x === "string" && typeof y === "string") return sign * x.localeCompare(y);
    if (!known(x) || !known(y)) return Number(!known(x)) - Number(!known(y)); // without a value: last either way
    return sign * (x - y);
  });
}

function drawTable() {
  const columns = tableColumns(), rows = chosenRows(), pages = Math.max(1, Math.ceil(rows.length / PAGE)), page = clamp(state.page, 0, pages - 1);
  const scope = { all: "mean over all layers", band: "mean over the suggested layers", each: "a row per layer" }[state.scope] || `layer ${layers[Number(state.scope)]}`;
  byId("table-caption").textContent = `${grouped(rows.length)} rows, ${scope}. Click a heading to sort.`;
  const head = make("thead", {}, make("tr", {}, ...columns.map((column) => {
    const chosen = state.sort.key === column.key;
    return make("th", { scope: "col", class: column.text ? "text" : "", "aria-sort": chosen ? (state.sort.down ? "descending" : "ascending") : "none", "data-key": column.key },
      make("button", { type: "button", onclick: () => {
        set({ sort: { key: column.key, down: chosen ? !state.sort.down : false }, page: 0 });
        byId("table").querySelector(`th[data-key="${column.key}"] button`)?.focus({ preventScroll: true });
      } }, column.name));
  })));
  const body = make("tbody", {}, ...rows.slice(page * PAGE, (page + 1) * PAGE).map((row) => make("tr", { class: row.code === state.language ? "chosen" : "", "data-code": row.code },
    ...columns.map((column) => make("td", { class: column.text ? "text" : "" }, typeof row[column.key] === "string" ? row[column.key] : ["pairs", "layer"].includes(column.key) ? grouped(known(row[column.key]) ? row[column.key] : null) : fixed(row[column.key]))))));
  byId("table").replaceChildren(head, body);
  byId("page-of").textContent = `rows ${rows.length ? page * PAGE + 1 : 0} to ${Math.min(rows.length, (page + 1) * PAGE)} of ${grouped(rows.length)}`;
  byId("page-back").disabled = page === 0;
  byId("page-on").disabled = page >= pages - 1;
}

function wireTable() {
  options("scope", [["all", "mean of all"], ...(bandLayers().length ? [["band", "mean of suggested"]] : []), ["each", "each layer"], ...layers.map((layer, i) => [i, `layer ${layer}`])], () => state.scope, (scope) => set({ scope, page: 0 }));
  byId("filter").addEventListener("input", (event) => set({ filter: event.target.value, page: 0 }));
  byId("page-back").onclick = () => set({ page: state.page - 1 });
  byId("page-on").onclick = () => set({ page: state.page + 1 });
  const shown = () => { const columns = tableColumns(); return [columns, chosenRows()]; };
  byId("rows-csv").onclick = () => { const [columns, rows] = shown(); download("rows.csv", "text/csv", csv(columns.map((c) => c.key), rows.map((row) => columns.map((c) => row[c.key])))); };
  byId("rows-json").onclick = () => { const [, rows] = shown(); download("rows.json", "application/json", JSON.stringify(rows, jsonNumber)); };
  byId("measures-csv").onclick = () => download("measures.csv", "text/csv", csv(MEASURE_HEADER, measureRows()));
  byId("experts-csv").onclick = () => download("experts.csv", "text/csv", csv(EXPERT_HEADER, expertRows()));
  byId("between-csv").onclick = () => download("between_languages.csv", "text/csv", csv(BETWEEN_HEADER, betweenRows()));
  byId("all-json").onclick = () => download("report.json", "application/json", JSON.stringify(everything(), jsonNumber));
  const exact = profiles.every((p) => p.exact);
  byId("precision").textContent = exact ? "All numbers of this page are those of the profiles." : "Measures are exact. The distributions over experts are stored in this page as one byte each (within 0.4 % of the largest share of a layer); innerlingua routing report --export DIR writes them in full.";
}

const jsonNumber = (_, x) => (typeof x === "number" && !known(x) ? null : x);
const MEASURE_HEADER = ["profile", "measure", "language", "name", "layer", "mean", "low", "high"];
const EXPERT_HEADER = ["profile", "language", "layer", "expert", "mean", "load"];
const BETWEEN_HEADER = ["profile", "layer", "language_a", "language_b", "js", "low", "high", "shared_ids"];

function measureRows() {
  return profiles.flatMap((p) => data.measures.flatMap((m) => p.rows.flatMap((code) => layers.map((layer, i) =>
    [p.label, m.key, code, nameOf(code), layer, value(p, m.key, code, i), value(p, m.key, code, i, 1), value(p, m.key, code, i, 2)]))));
}

function expertRows() {
  const rows = [];
  for (const p of profiles) for (const code of p.rows) {
    const mean = distribution(p, "mean", code), load = distribution(p, "load", code);
    layers.forEach((layer, i) => { for (let e = 0; e < data.experts; e += 1) { const at = i * data.experts + e; rows.push([p.label, code, layer, e, short(mean[at]), short(load[at])]); } });
  }
  return rows;
}

/** The shortest decimal that is the same float32. */
function short(x) {
  for (let digits = 6; digits < 10; digits += 1) { const text = Number(x.toPrecision(digits)); if (Math.fround(text) === Math.fround(x)) return text; }
  return x;
}

function betweenRows() {
  const rows = [];
  for (const p of profiles) {
    const codes = p.between.languages;
    let pair = 0;
    for (let i = 0; i < codes.length; i += 1) for (let j = i + 1; j < codes.length; j += 1, pair += 1) {
      const ids = p.between.ids[pair];
      rows.push([p.label, "mean", codes[i], codes[j], ...[0, 1, 2].map((which) => betweenLanguages(p, codes[i], codes[j], -1, which)), ids]);
      layers.forEach((layer, k) => rows.push([p.label, layer, codes[i], codes[j], short(betweenLanguages(p, codes[i], codes[j], k)), null, null, ids]));
    }
  }
  return rows;
}

function everything() {
  const objects = (header, rows) => rows.map((row) => Object.fromEntries(header.map((key, i) => [key, row[i]])));
  return { schema: 1, profiles: Object.fromEntries(profiles.map((p) => [p.label, { model: p.model, anchor: data.anchor, data: p.data, settings: p.settings, suggested_layers: p.suggested, languages: p.languages }])),
    measures: objects(MEASURE_HEADER, measureRows()), experts: objects(EXPERT_HEADER, expertRows()), between_languages: objects(BETWEEN_HEADER, betweenRows()), results: data.results };
}
