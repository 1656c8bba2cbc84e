// The rows of the page: what is chosen, in which order, and numbers in points.

figurePrefix = "comparison_";
Object.assign(state, { table: 0, pair: 0, order: "difference", filter: "", sort: { key: "", down: false }, row: -1 });

let tables = [];
let pairs = [];

function readData() {
  data = JSON.parse(byId("payload").textContent);
  const distinct = (rows, ...keys) => [...new Map(rows.map((row) => [keys.map((key) => row[key]).join("\u0000"), row])).values()];
  tables = distinct(data.scores, "benchmark", "measure").map(({ benchmark, measure }) => ({ benchmark, measure }));
  pairs = distinct(data.differences, "baseline", "method").map(({ baseline, method }) => ({ baseline, method }));
}

const chosenTable = () => tables[state.table];
const chosenPair = () => pairs[state.pair];
const methods = () => Object.keys(data.methods);
const inTable = (row, { benchmark, measure } = chosenTable()) => row.benchmark === benchmark && row.measure === measure;
const differences = () => data.differences.filter((row) => inTable(row) && row.baseline === chosenPair().baseline && row.method === chosenPair().method);
const scoreOf = (row, method) => data.scores.find((one) => inTable(one, row) && one.language === row.language && one.method === method);

const nameOf = (row) => (row.language === null ? "Mean of targets" : data.names[row.language] || row.language);
const shortName = (row) => (row.kind === "overall" ? "Mean" : nameOf(row));
const longName = (row) => `${nameOf(row)}${row.kind === "anchor" ? " (anchor)" : ""}`;

/** Decimals of points: two where standard errors are below a fifth of a point. */
function digits(rows = data.differences.filter((row) => inTable(row))) {
  return rows.some((row) => row.standard_error > 0 && row.standard_error < 0.2) ? 2 : 1;
}
function points(x, signed = false, places = digits()) {
  if (!known(x)) return "–";
  const rounded = Number(x.toFixed(places)) + 0;
  return `${signed && rounded >= 0 ? "+" : ""}${rounded.toFixed(places)}`.replace("-", "−");
}
const span = (row) => (row.low === null ? "no interval" : `${points(row.low, true)} to ${points(row.high, true)}`);
const pText = (p) => (p >= 1 ? "1" : p < 0.001 ? "<.001" : p.toFixed(3).replace(/^0/, ""));
const level = () => `${Math.round(data.settings.level * 1000) / 10} %`;

const VERDICTS = { better: "better", worse: "worse", noise: "noise", uncorrected: "alone", same: "same" };
const VERDICT_WORDS = {
  better: "better after correction", worse: "worse after correction", noise: "no difference that these samples could show",
  uncorrected: "significant alone, not after correction", same: "the same score on every sample" };

/** The mean, the anchor, then the targets in the chosen order. */
function ordered(rows) {
  const top = rows.filter((row) => row.kind !== "language"), rest = rows.filter((row) => row.kind === "language");
  const by = {
    difference: (a, b) => b.difference - a.difference, name: (a, b) => nameOf(a).localeCompare(nameOf(b)),
    p: (a, b) => a.p - b.p, score: (a, b) => scoreOf(b, chosenPair().baseline).score - scoreOf(a, chosenPair().baseline).score }[state.order];
  return [...top, ...rest.sort((a, b) => by(a, b) || nameOf(a).localeCompare(nameOf(b)))];
}

/** Reasons for which samples gave no answer, as text: "12 cut, 3 unparsed"; empty when all answered. */
function unanswered(statuses) {
  const totals = {};
  for (const counts of statuses) for (const [reason, count] of Object.entries(counts)) if (reason !== "answered" && count) totals[reason] = (totals[reason] || 0) + count;
  return Object.entries(totals).map(([reason, count]) => `${grouped(count)} ${reason}`).join(", ");
}
