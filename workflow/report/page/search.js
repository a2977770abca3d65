// Search over the traces that the page holds.

const SEARCHES = { text: "text", token: "a token", pattern: "a thinking pattern", latent: "a latent" };

/** Results shown at once. */
const SHOWN = 50;

const searching = { number: 0, ui: {} };

function buildSearch() {
  if (!heldTraces.length) return;
  const ui = searching.ui;
  ui.kind = el("select", { id: "search-kind", change: () => askFor(ui.kind.value) }, Object.entries(SEARCHES).map(([kind, text]) => el("option", { value: kind }, text)));
  ui.query = el("input", { id: "search-query", type: "search", autocomplete: "off", list: "search-patterns" });
  ui.site = el("select", { id: "search-site" }, core.sites.map(({ name }, index) => el("option", { value: index }, name)));
  ui.at = el("label", { for: "search-site", hidden: true }, "at ", ui.site);
  ui.condition = el("select", { id: "search-condition" }, el("option", { value: "" }, "all prompts"), core.conditions.map((name, index) => el("option", { value: index }, name)));
  ui.prompts = el("input", { id: "search-prompts", type: "checkbox" });
  ui.output = el("output", { for: "search-query" });
  ui.results = el("div", { class: "results" });
  document.getElementById("search").replaceChildren(
    el("form", { class: "filters", role: "search", "aria-label": "Search the traces", submit: (event) => { event.preventDefault(); startSearch(); } },
      el("label", { for: "search-kind" }, "Search for ", ui.kind), el("label", { for: "search-query", class: "query" }, el("span", { class: "hidden" }, "What to look for "), ui.query), ui.at,
      el("label", { for: "search-condition" }, "under ", ui.condition), el("label", { for: "search-prompts" }, ui.prompts, " in the prompts, too"),
      el("button", {}, "Search"), el("datalist", { id: "search-patterns" }), ui.output),
    ui.results);
  askFor("text");
}

/** Ask for what a kind of search takes. */
function askFor(kind) {
  const { query, at, kind: choice, prompts } = searching.ui;
  choice.value = kind;
  at.hidden = kind !== "latent";
  prompts.disabled = kind === "pattern";
  query.type = kind === "latent" ? "number" : "search";
  query.placeholder = { text: "words, in any case", token: "as the reader names it", pattern: "its name or words; all", latent: "its number" }[kind];
  document.getElementById("search-patterns").replaceChildren(...(kind === "pattern" ? core.patterns : []).map((name) => el("option", { value: name })));
}

function startSearch() {
  const { kind, query, site, condition, prompts } = searching.ui;
  const asked = kind.value === "latent" ? [core.sites[site.value].name, Number(query.value)] : [encodeURIComponent(query.value)];
  history.replaceState(null, "", `#search/${[kind.value, ...asked].join("/")}`);
  search({ kind: kind.value, query: kind.value === "latent" && query.value !== "" ? String(Number(query.value)) : query.value, site: Number(site.value), condition: condition.value === "" ? null : Number(condition.value), prompts: prompts.checked });
}

/** Follow the address of a search: #search/text/wait%20a%20minute, #search/latent/layers.20.mlp/906. */
function followSearch(kind, ...rest) {
  leaveDashboard();
  if (!Object.hasOwn(SEARCHES, kind) || !heldTraces.length) return;
  const { query, site, condition, prompts, output, results } = searching.ui;
  askFor(kind);
  [condition.value, prompts.checked] = ["", false];
  if (kind === "latent") {
    if (siteIndex(rest[0]) < 0) {
      searching.number += 1;
      results.replaceChildren();
      output.replaceChildren(`No site ${rest[0] ?? ""}: there are ${core.sites.map(({ name }) => name).join(", ")}.`);
      document.getElementById("search").scrollIntoView();
      return;
    }
    site.value = String(siteIndex(rest.shift()));
  }
  try {
    query.value = decodeURIComponent(rest.join("/"));
  } catch {
    query.value = ""; // no address of ours
  }
  document.getElementById("search").scrollIntoView();
  startSearch();
}

/** Return what finds the hits in a trace: [position, tokens from there on, weight] each. */
function finder({ kind, query, site }, tokens) {
  if (kind === "latent") {
    const latent = Number(query);
    return (trace) => {
      for (const each of latentsIn(trace.sites[site])) if (each.latent === latent) return each.positions.map((position, index) => [position, 1, each.activations[index]]);
      return [];
    };
  }
  const wanted = query.toLowerCase();
  if (kind === "pattern") return (trace) => trace.patterns.filter(({ name, text }) => `${name} ${text}`.toLowerCase().includes(wanted)).map(({ start, end }) => [start, end - start, 1]);
  if (kind === "token") {
    const same = new Set(tokens.flatMap(({ label, text }, index) => (label === query || text.trim() === query.trim() ? [index] : [])));
    return (trace) => trace.tokens.flatMap((token, position) => (same.has(token) ? [[position, 1, 1]] : []));
  }
  const lower = tokens.map(({ text }) => text.toLowerCase());
  return (trace) => {
    const starts = [];
    let length = 0;
    for (const token of trace.tokens) { starts.push(length); length += lower[token].length; }
    const text = trace.tokens.map((token) => lower[token]).join("");
    const hits = [];
    let token = 0;
    for (let found = text.indexOf(wanted); found >= 0; found = text.indexOf(wanted, found + wanted.length)) {
      while (token + 1 < starts.length && starts[token + 1] <= found) token += 1;
      let end = token + 1;
      while (end < starts.length && starts[end] < found + wanted.length) end += 1;
      hits.push([token, end - token, 1]);
    }
    return hits;
  };
}

/** Search all traces that the page holds, and show what is found: the most active first for a latent, else in order. */
async function search(asked) {
  const { output, results } = searching.ui;
  searching.number += 1;
  const mine = searching.number;
  const wanted = () => searching.number === mine;
  const say = (text) => { output.replaceChildren(text); };
  results.replaceChildren();
  if (asked.kind !== "pattern" && asked.query.trim() === "") return say("Nothing to look for.");
  if (asked.kind === "latent" && !isLatent(asked.site, asked.query)) return say(`The latents of ${core.sites[asked.site].name} are 0 to ${core.sites[asked.site].size - 1}.`);
  const tokens = await tokenRows();
  const find = finder(asked, tokens);
  const found = [];
  const done = await eachTrace((about, trace) => {
    if (asked.condition !== null && asked.condition !== about.condition) return;
    for (const [position, length, weight] of find(trace)) {
      if (asked.prompts || asked.kind === "pattern" || position >= trace.prompt) {
        const [start, end] = [Math.max(0, position - BEFORE), Math.min(trace.tokens.length, position + length + AFTER)];
        found.push({ about, position, length, weight, start, tokens: trace.tokens.slice(start, end) });
      }
    }
  }, wanted, (text) => say(`Looking in ${text}`));
  if (!done) return undefined;
  if (asked.kind === "latent") found.sort((a, b) => b.weight - a.weight);
  const places = new Set(found.map(({ about }) => about)).size;
  const all = heldTraces.filter(({ condition }) => asked.condition === null || condition === asked.condition).length;
  say(found.length ? `${counted(found.length, "place")} in ${counted(places, "trace")} of ${all}` : all ? `Not found in ${counted(all, "trace")}.` : "This page holds no trace of these.");
  const show = (count) => {
    const most = found[0]?.weight ?? 1;
    const rows = found.slice(0, count).map(({ about, position, length, weight, start, tokens: shown }) => {
      const { condition, trace_id: id } = about;
      const latent = asked.kind === "latent" ? Number(asked.query) : null;
      const site = asked.kind === "latent" ? asked.site : reader.site;
      const text = shown.map((token, offset) => {
        const hit = start + offset >= position && start + offset < position + length;
        return tokenSpan(tokens[token], hit ? weight : 0, most, { class: hit ? "token hit" : "token" });
      });
      const where = el("a", { href: traceAddress(condition, id, site, latent, position), title: "Read it in the trace" }, `${core.conditions[condition]} ${id}`);
      return [where, String(position), ...(latent === null ? [] : [number(weight)]), el("p", { class: "text" }, text)];
    });
    const headings = ["trace", "position", ...(asked.kind === "latent" ? ["activation"] : []), "passage"];
    results.replaceChildren(...(rows.length ? [table("Search results", headings, rows)].flat(Infinity) : []),
      ...(count < found.length ? [el("button", { type: "button", click: () => { show(count + 4 * SHOWN); results.querySelector(`tbody tr:nth-child(${count + 1}) a`).focus(); } }, `Show more (${count} of ${found.length})`)] : []));
  };
  show(SHOWN);
  return undefined;
}
