// Sets the page up: heading, cards, controls, what was read; then draws, and draws again when the state changes.

function spanText(indices) {
  if (!indices.length) return "none";
  return indices.length === 1 ? `layer ${layers[indices[0]]}` : `layers ${layers[indices[0]]}–${layers[indices.at(-1)]}`;
}

function drawGlance() {
  const first = profiles[0], band = bandLayers().length ? bandLayers() : allLayers();
  const targets = shownLanguages("js").length ? shownLanguages("js") : languages;
  const cards = [], pairs = first.rows.filter((code) => code !== data.anchor).reduce((sum, code) => sum + (first.languages[code].pairs || 0), 0);
  cards.push(card("Languages against the anchor", String(targets.length), `${grouped(pairs)} pairs, anchor ${nameOf(data.anchor)}`));
  cards.push(card(first.suggested.trough ? "Suggested for alignment (trough)" : "Suggested for alignment (no trough)", spanText(bandLayers()), `of ${layers.length} MoE layers, by ${first.label}`));
  if (measureIndex("js") >= 0) {
    const mean = (profile, codes) => { const all = codes.map((code) => meanOver(profile, "js", code, band)).filter(known); return all.reduce((a, b) => a + b, 0) / all.length; };
    for (const profile of profiles) {
      const now = mean(profile, targets), then = mean(first, targets);
      const change = profile === first ? "nats, mean over languages" : `${now <= then ? "−" : "+"}${Math.abs((1 - now / then) * 100).toFixed(0)} % against ${first.label}`;
      const [never, seen] = [true, false].map((unseen) => targets.filter((code) => profile.unseen && profile.rows.includes(code) && profile.unseen.includes(code) === unseen));
      const groups = never.length && seen.length ? `; seen ${number(mean(profile, seen))}, never seen ${number(mean(profile, never))}` : "";
      cards.push(card(`JS in ${spanText(band)}: ${profile.label}`, number(now), change + groups, category(profile.index, palette())));
    }
    const ranked = targets.map((code) => [code, meanOver(first, "js", code, band)]).filter(([, x]) => known(x)).sort((a, b) => b[1] - a[1]);
    if (ranked.length > 1) {
      cards.push(card(`Farthest from the anchor (${first.label})`, marked(ranked[0][0]), `JS ${number(ranked[0][1])}`));
      cards.push(card(`Nearest to the anchor (${first.label})`, marked(ranked.at(-1)[0]), `JS ${number(ranked.at(-1)[1])}`));
    }
  }
  byId("cards").replaceChildren(...cards);
  const differs = profiles.slice(1).filter((p) => spanText(bandLayers(p)) !== spanText(bandLayers()));
  const others = differs.length ? ` By the same rule: ${differs.map((p) => `${p.label} ${spanText(bandLayers(p))}`).join(", ")}.` : "";
  byId("rule").replaceChildren(make("span", { class: "key" }), make("b", {}, `Suggested ${spanText(bandLayers())}. `), `Rule: ${first.suggested.rule || "not stated in the profile"}.${others}`);
  const unseen = languages.filter(unseenBy);
  byId("unseen").replaceChildren(...(unseen.length ? [make("span", { class: "unseen-mark" }, "◇ "), make("b", {}, `Never seen in training (${unseen.length}): `), unseen.map(nameOf).join(", ")]
    : [profiles.every((p) => p.unseen === null) ? "The profiles do not say which languages training saw." : "Training saw all of these languages."]));
}

/** What was left out, by reason; where the profile knows by language, that too. */
function skippedLines(profile) {
  const rows = [], { skipped, skipped_by_language: detail, excluded_rows: excluded, same_as_anchor: same } = profile.data;
  const reasons = Object.entries(skipped || {}).map(([reason, count]) => [`skipped: ${reason}`, detail?.[reason] && Object.keys(detail[reason]).length ? detail[reason] : count]);
  if (excluded) reasons.push(["rows excluded", excluded]);
  if (same && Object.keys(same).length) reasons.push(["same as anchor (kept)", same]);
  for (const [reason, count] of reasons) {
    const named = count !== null && typeof count === "object";
    const total = named ? Object.values(count).reduce((a, b) => a + b, 0) : count;
    const where = named ? Object.entries(count).filter(([, n]) => n).map(([code, n]) => `${languages.includes(code) ? nameOf(code) : code} ${grouped(n)}`).join(", ") : "";
    rows.push([reason.replaceAll("_", " "), grouped(total) + (where ? ` (${where})` : "")]);
  }
  return rows;
}

function drawData() {
  byId("data").replaceChildren(...profiles.map((profile) => {
    const list = make("dl"), plain = (x) => (x !== null && typeof x === "object" ? JSON.stringify(x) : String(x ?? "–"));
    const rows = [["model", profile.model.name], ["weights", plain(profile.model.weights)], ["pairs read", grouped(profile.data.pairs_read)], ...skippedLines(profile),
      ["languages", `${profile.rows.length} (${profile.unseen ? `${profile.unseen.length} never seen in training` : "training not known"})`],
      ["files", (profile.data.files || []).join(", ") || "–"], ["created", plain(profile.created)], ["seed", plain(profile.seed)], ["settings", Object.entries(profile.settings || {}).map(([k, v]) => `${k} ${plain(v)}`).join(", ")],
      ["versions", Object.entries(profile.versions || {}).map(([k, v]) => `${k} ${plain(v)}`).join(", ")], ["command", plain(profile.command)]];
    const missing = languages.filter((code) => !profile.rows.includes(code));
    if (missing.length) rows.push(["not in this profile", missing.map(nameOf).join(", ")]);
    for (const [term, text] of rows) list.append(make("dt", {}, term), make("dd", {}, text));
    const head = make("div", { class: "big" });
    const swatch = make("span", { class: "swatch" });
    swatch.style.borderColor = category(profile.index, palette());
    head.append(swatch, profile.label);
    return make("div", { class: "card" }, head, list);
  }));
}

function languageOptions() {
  const codes = [...languages].sort((a, b) => nameOf(a).localeCompare(nameOf(b)));
  options("language", codes.map((code) => [code, `${marked(code)}${code === data.anchor ? " (anchor)" : ""}`]), () => state.language, (language) => set({ language }));
  const step = (by) => set({ language: codes[(codes.indexOf(state.language) + by + codes.length) % codes.length] });
  byId("previous-language").onclick = () => step(-1);
  byId("next-language").onclick = () => step(1);
  view(["language"], () => { byId("language").value = state.language; announce(`${marked(state.language)} chosen.`); }, false);
}

function wire() {
  languageOptions();
  options("measure", data.measures.map((m) => [m.key, m.name]), () => state.measure, (measure) => set({ measure }));
  segments("profile", profiles.map((p) => [p.index, p.label]), () => state.profile, (index) => set({ profile: Number(index) }));
  segments("curve-mode", [["models", "One language, all models"], ["languages", "One model, all languages"]], () => state.mode, (mode) => set({ mode }));
  segments("expert-quantity", [["mean", "Mean routing"], ["load", "Load"]], () => state.quantity, (quantity) => set({ quantity }));
  segments("expert-view", [["value", "Value"], ["difference", "Less the anchor"]], () => state.expertView, (expertView) => set({ expertView }));
  options("panel-sort", [["largest", "largest first"], ["alike", "alike together"], ["name", "by name"]], () => state.panelSort, (panelSort) => set({ panelSort }));
  options("against", [[-1, "nothing"], ...profiles.map((p) => [p.index, p.label])], () => state.against, (against) => set({ against: Number(against) }));
  options("matrix-layer", [[-1, "mean"], ...layers.map((layer, i) => [i, String(layer)])], () => state.matrixLayer, (layer) => set({ matrixLayer: Number(layer) }));
  if (data.results) {
    byId("s-scatter").hidden = false;
    options("scatter-layer", [...(bandLayers().length ? [["band", "suggested"]] : []), ["all", "all"], ...layers.map((layer, i) => [i, String(layer)])], () => state.scatterLayer, (scatterLayer) => set({ scatterLayer }));
  }
  byId("zoom-reset").onclick = () => set({ zoom: null });
  byId("zoom-in").onclick = () => zoomHere(0.6);
  byId("zoom-out").onclick = () => zoomHere(1.67);
  byId("pair-layer").oninput = (event) => set({ layer: Number(event.target.value) });
  for (const button of document.querySelectorAll("[data-svg]")) button.onclick = () => saveSvg(button.dataset.svg);
  wireTable();
}

function start() {
  const first = profiles[0];
  makeRamps();
  const targets = shownLanguages("js");
  const distance = (code) => meanOver(first, "js", code, allLayers());
  const ranked = [...targets].sort((a, b) => distance(b) - distance(a));
  state.measure = measureIndex("js") >= 0 ? "js" : data.measures[0].key;
  state.language = ranked[0] || languages[0];
  state.pins = new Set([ranked[0], ranked[Math.floor(ranked.length / 2)], ranked.at(-1)].filter(Boolean));
  const band = bandLayers();
  state.layer = band.length ? band[Math.floor(band.length / 2)] : Math.floor(layers.length / 2);
  state.scatterLayer = band.length ? "band" : "all";
  state.pair = pairKey(samplePairs().find((pair) => pair.language === state.language) || samplePairs()[0]);
  byId("title").textContent = profiles.map((p) => p.label).join(" · ");
  document.title = `Routing report: ${profiles.map((p) => p.label).join(", ")}`;
  byId("subtitle").textContent = `${data.model_type}, ${layers.length} MoE layers of ${data.experts} experts, top ${data.top_k} (${data.score}); anchor ${nameOf(data.anchor)}`;
  byId("foot").textContent = "Written by innerlingua routing report. This file is complete: it asks nothing of the network.";
  wire();

  view([], drawGlance);
  view(["language", "measure", "mode", "zoom", "pins"], drawCurves);
  view(["profile"], () => { if (state.mode === "languages") drawCurves(); });
  view(["measure", "panelSort", "profile"], drawPanels);
  view(["language"], markPanels);
  view(["language", "measure", "profile", "against"], drawLayers);
  view(["language", "profile", "quantity", "expertView"], drawExperts);
  view(["language", "profile", "matrixLayer"], drawMatrix);
  view(["language", "measure", "scatterLayer"], drawScatter);
  view(["pair", "profile"], openPair);
  view(["language"], fillPairs, false);
  view(["language"], pairForLanguage, false);
  view(["layer"], drawPair);
  view(["scope", "filter", "sort", "page", "language"], drawTable);
  view([], drawData);
  // A layer taken in the chart is also the one of the matrix and the scatter.
  view(["layer"], () => {
    set({ matrixLayer: state.layer, scatterLayer: String(state.layer) });
    byId("matrix-layer").value = String(state.layer);
    if (data.results) byId("scatter-layer").value = String(state.layer);
  }, false);
}

async function main() {
  try {
    if (typeof DecompressionStream === "undefined") throw new Error("This browser is too old for the page: it needs DecompressionStream (2023 or later).");
    await readData();
    start();
    theme();
    redrawAll();
    for (const [id, run] of [["curves", drawCurves], ["layers", drawLayers], ["experts", drawExperts], ["matrix", drawMatrix], ["scatter", drawScatter]]) onResize(byId(id), run);
    document.documentElement.dataset.ready = Math.round(performance.now());
  } catch (error) {
    byId("failure").textContent = `The page could not be drawn: ${error.message}`;
    byId("failure").hidden = false;
    throw error;
  }
}
main();
