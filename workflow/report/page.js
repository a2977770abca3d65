// The report's script: sorting and filtering, dashboards, the trace reader. Text is only ever set as text.
"use strict";

const core = JSON.parse(document.getElementById("core").textContent);

/** Make an element: attributes, of which functions are listeners, then children (elements or text; null is left out). */
function el(name, attributes = {}, ...children) {
  const svg = ["svg", "rect", "text", "line", "path", "g", "title"].includes(name);
  const node = svg ? document.createElementNS("http://www.w3.org/2000/svg", name) : document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (typeof value === "function") node.addEventListener(key, value);
    else node.setAttribute(key, value === true ? "" : value);
  }
  node.append(...children.flat().filter((child) => child !== null && child !== undefined));
  return node;
}

const parcels = new Map();

/** Unpack a parcel of the page: base64, gzip, JSON. Each is unpacked once. */
function unpack(name) {
  if (!parcels.has(name)) {
    const element = document.getElementById(`parcel-${name}`);
    parcels.set(name, element === null ? Promise.resolve(null) : inflate(element.textContent.trim()));
  }
  return parcels.get(name);
}

async function inflate(text) {
  const bytes = Uint8Array.from(atob(text), (char) => char.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  return JSON.parse(await new Response(stream).text());
}

/** Show a number with three significant digits, or a dash. */
function number(value, digits = 3) {
  if (value === null || value === undefined) return "–";
  if (value === 0) return "0";
  const size = Math.abs(value);
  const text = size >= 1e6 || size < 1e-4 ? value.toExponential(digits - 1) : String(Number(value.toPrecision(digits)));
  return text.replaceAll("-", "−");
}

const percent = (value) => (value === null || value === undefined ? "–" : `${Math.round(100 * value)}%`);
const range = (low, high) => (low === null || low === undefined ? "" : ` (${number(low)} to ${number(high)})`);
const held = (condition, id) => document.getElementById(`parcel-trace-${condition}-${id}`) !== null;

// Tables of latents: sort by a heading, filter by text and verdict.

const VERDICTS = ["thinking pattern", "undecided", "no"];

function sortKey(row, key) {
  const value = row.dataset[key.replace(/-(.)/g, (_, char) => char.toUpperCase())];
  if (key === "verdict") return VERDICTS.indexOf(value);
  return value === undefined || value === "" ? null : Number(value);
}

function sortBy(table, heading) {
  const key = heading.dataset.key;
  const small = ["latent", "verdict", "pattern", "words"].includes(key); // first ascending
  const was = heading.getAttribute("aria-sort");
  const order = was === null ? (small ? "ascending" : "descending") : was === "ascending" ? "descending" : "ascending";
  for (const other of table.querySelectorAll("th[aria-sort]")) other.removeAttribute("aria-sort");
  heading.setAttribute("aria-sort", order);
  const body = table.tBodies[0];
  const rows = [...body.rows].map((row, index) => ({ row, index, value: sortKey(row, key) }));
  const sign = order === "ascending" ? 1 : -1;
  rows.sort((a, b) => {
    if (a.value === null || b.value === null) return (a.value === null) - (b.value === null) || a.index - b.index;
    return sign * (a.value - b.value) || a.index - b.index;
  });
  body.append(...rows.map((each) => each.row));
}

function filter(form) {
  const [search, verdict] = [form.querySelector("input"), form.querySelector("select")];
  const words = search.value.toLowerCase().split(/\s+/).filter(Boolean);
  const rows = [...document.getElementById(`latents-${form.dataset.site}`).tBodies[0].rows];
  let shown = 0;
  for (const row of rows) {
    const text = row.textContent.toLowerCase();
    row.hidden = !(words.every((word) => text.includes(word)) && (!verdict.value || row.dataset.verdict === verdict.value));
    if (!row.hidden) shown += 1;
  }
  const total = `${rows.length} latent${rows.length === 1 ? "" : "s"}`;
  form.querySelector("output").textContent = shown === rows.length ? total : `${shown} of ${total}`;
}

for (const table of document.querySelectorAll("table.latents")) {
  for (const heading of table.querySelectorAll("th[data-key]")) {
    heading.querySelector("button").addEventListener("click", () => sortBy(table, heading));
  }
}
for (const form of document.querySelectorAll("form.filters")) {
  form.addEventListener("input", () => filter(form));
  form.addEventListener("submit", (event) => event.preventDefault());
}

// Tokens: a chip, shaded by an activation.

/** Return a token as it stands in running text; a line ends after its mark. */
function tokenSpan(token, value, most, extra = {}) {
  const [label, text] = token;
  const span = el("span", { class: "token", ...extra });
  if (text.includes("\n")) {
    for (const part of text.split(/(\n)/)) {
      if (part === "\n") span.append(el("span", { class: "mark", "aria-hidden": "true" }, "↵"), el("br"));
      else if (part) span.append(part);
    }
  } else span.append(text || label);
  shade(span, value, most);
  return span;
}

function shade(span, value, most) {
  const share = value && most ? Math.min(1, value / most) : 0;
  if (share > 0) span.style.setProperty("--heat", `${Math.round(12 + 73 * share)}%`);
  else span.style.removeProperty("--heat");
  span.classList.toggle("hot", share > 0);
}

// Dashboards.

const dialog = document.getElementById("dashboard");
let opener = null;

function latentLink(site, latent, text = String(latent)) {
  const known = core.latents[site].includes(latent);
  return known ? el("a", { href: `#${core.sites[site]}/${latent}` }, text) : el("span", { title: "has no dashboard" }, text);
}

function scroll(label, ...children) {
  return el("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": label }, ...children);
}

function table(label, headings, rows) {
  return scroll(label, el("table", {},
    el("thead", {}, el("tr", {}, headings.map((text) => el("th", { scope: "col" }, text)))),
    el("tbody", {}, rows.map((cells) => el("tr", {}, cells.map((cell, index) =>
      index === 0 ? el("th", { scope: "row" }, cell) : el("td", {}, cell))))),
  ));
}

function part(title, ...children) {
  return el("section", {}, el("h3", {}, title), ...children);
}

function histogram(rows) {
  const [width, height] = [320, 110];
  const largest = rows[0].largest;
  const shares = rows.map((row) => row.counts.map((count) => (row.tokens ? count / row.tokens : 0)));
  const top = Math.max(...shares.flat(), 1e-12);
  const step = width / rows[0].counts.length;
  const y = (share) => height - height * Math.sqrt(share / top);
  const about = rows.map((row) => `${row.condition}: active on ${row.tokens_active} of ${row.tokens} tokens`).join("; ");
  const svg = el("svg", { viewBox: `0 0 ${width} ${height + 18}`, class: "histogram", role: "img", "aria-label": `Histogram of activations. ${about}` });
  shares[0].forEach((share, bin) => {
    const low = (largest * bin) / rows[0].counts.length;
    const high = (largest * (bin + 1)) / rows[0].counts.length;
    svg.append(el("rect", { class: "bar", x: bin * step + 0.5, y: y(share), width: step - 1, height: height - y(share) },
      el("title", {}, `${number(low)} to ${number(high)}: ${rows[0].counts[bin]} tokens`)));
  });
  shares.slice(1).forEach((values, index) => {
    const line = values.map((share, bin) => `${bin ? "L" : "M"}${bin * step} ${y(share)}H${(bin + 1) * step}`).join("");
    svg.append(el("path", { class: `control control-${index % 3}`, d: line }));
  });
  svg.append(el("text", { x: 0, y: height + 14 }, "0"), el("text", { x: width, y: height + 14, "text-anchor": "end" }, number(largest)));
  return el("div", {}, svg, el("ul", { class: "keys" }, rows.map((row, index) =>
    el("li", {}, el("span", { class: index ? `key control-${(index - 1) % 3}` : "key bar" }),
      `${row.condition}: active on ${row.tokens_active} of ${row.tokens} tokens (${number(100 * row.tokens_active / Math.max(1, row.tokens), 2)}%)`))));
}

function strip(board, site, latent) {
  const most = Math.max(...Object.values(board.strip).flat().map(([, , max]) => max), 1e-12);
  return core.conditions.map((condition, index) => {
    const found = new Map(board.strip[condition].map(([id, rank, max]) => [id, [rank, max]]));
    const traces = core.traces.filter(([number_]) => number_ === index);
    const tops = [...found.values()].filter(([rank]) => rank <= core.top).length;
    const cells = traces.map(([, id, correct]) => {
      const [rank, max] = found.get(id) ?? [null, 0];
      const answer = correct === null ? "no answer graded" : correct ? "correct" : "wrong";
      const title = `${condition} ${id}: ${rank === null ? "not active" : `rank ${rank}, maximum ${number(max)}`}; ${answer}`;
      const cell = el("span", { class: `cell${rank !== null && rank <= core.top ? " top" : ""}`, title,
        click: held(index, id) ? () => openTrace(index, id, site, latent) : null },
        el("i", {}), el("b", {}, correct === null ? "·" : correct ? "✓" : "✗"));
      shade(cell.firstChild, max, most);
      return cell;
    });
    return el("div", { class: "strip" }, el("div", { class: "name" }, `${condition}: among the top ${core.top} in ${tops} of ${traces.length} traces`),
      el("div", { class: "cells", role: "img", "aria-label": `${condition}: among the top ${core.top} in ${tops} of ${traces.length} traces, active in ${found.size}` }, cells));
  });
}

const BANDS = { top: "Top activations", q4: "Highest quarter", q3: "Third quarter", q2: "Second quarter", q1: "Lowest quarter" };

function passages(board, tokens, site, latent) {
  const most = Math.max(...board.histograms.map((row) => row.largest), 1e-12);
  return Object.entries(BANDS).map(([band, title]) => {
    const rows = board.passages.filter((row) => row[0] === band);
    if (!rows.length) return null;
    const values = rows.map(([, , , start, peak, , at]) => at[peak - start]);
    const span = `${number(Math.min(...values))} to ${number(Math.max(...values))}`;
    return el("div", { class: "band" }, el("h4", {}, `${title} `, el("small", {}, span)), rows.map(([, condition, id, start, peak, ids, at]) => {
      const index = core.conditions.indexOf(condition);
      const text = ids.map((token, offset) => {
        const value = at[offset];
        const title_ = `${tokens[token][0]}: ${value === null ? "not read" : number(value)}`;
        return tokenSpan(tokens[token], value, most, { title: title_, class: start + offset === peak ? "token peak" : "token" });
      });
      const where = `${condition} ${id}`;
      return el("div", { class: "passage" },
        held(index, id) ? el("button", { type: "button", class: "where", title: "Open this trace in the reader", click: () => openTrace(index, id, site, latent, peak) }, where)
          : el("span", { class: "where" }, where),
        el("span", { class: "value" }, number(at[peak - start])), el("p", { class: "text" }, text));
    }));
  });
}

function dashboard(board, tokens, site, latent) {
  const name = core.sites[site];
  const order = core.latents[site];
  const step = (by) => order[(order.indexOf(latent) + by + order.length) % order.length];
  const label = (token) => el("code", {}, tokens[token][0]);
  const reason = board.reason;
  const parts = [
    el("div", { class: "head" },
      el("h2", { id: "dashboard-title", tabindex: "-1" }, `Latent ${latent} `, el("small", {}, `at ${name}`)),
      el("div", { class: "steps" },
        el("a", { href: `#${name}/${step(-1)}`, "aria-label": "Previous latent" }, "←"),
        el("a", { href: `#${name}/${step(1)}`, "aria-label": "Next latent" }, "→"),
        el("button", { type: "button", click: () => dialog.close() }, "Close"))),
    el("p", {}, el("span", { class: `verdict ${board.verdict.replace(" ", "-")}` }, board.verdict), board.why ? ` ${board.why}. ` : " ",
      `Among the top ${core.top} in ${board.traces} of ${board.of} traces under “${core.conditions[0]}”.`,
      board.neuronpedia ? [" ", el("a", { href: board.neuronpedia, rel: "noreferrer" }, "On Neuronpedia")] : null),
    part("Checks", table("Checks", ["check", "result", "number", "why"], board.checks.map(([check, result, value, note]) =>
      [check, el("span", {}, el("span", { class: `check ${result}` }), ` ${result}`), number(value), note]))),
    el("div", { class: "columns" },
      part("Activations", histogram(board.histograms)),
      part("Recurrence", strip(board, site, latent))),
    part("Passages", passages(board, tokens, site, latent)),
    el("div", { class: "columns" },
      part("Top token types", board.types.length ? table("Top token types", ["token", "maximum", "tokens", "traces"],
        board.types.map(([token, max, count, traces]) => [label(token), number(max), count, traces])) : el("p", {}, "None.")),
      part("Logit effect", board.effects.top.length ? el("div", { class: "columns" },
        ...[["top", "raises"], ["bottom", "lowers"]].map(([side, text]) => table(text, [text, "by"],
          board.effects[side].map(([token, effect]) => [label(token), number(effect)]))))
        : el("p", {}, "None: what is read here isn’t added to the residual stream as it is.")),
      part("Nearest by decoder", table("Nearest latents by decoder cosine", ["latent", "cosine"],
        board.neighbours.map(([other, cosine]) => [latentLink(site, other), number(cosine)]))),
      part("Nearest by co-activation", board.coactive.length ? table("Nearest latents by co-activation", ["latent", "φ", "both on"],
        board.coactive.map(([other, phi, both]) => [latentLink(site, other), number(phi), `${both} tokens`])) : el("p", {}, "None."))),
    board.controls.length ? part("Controls", table("Controls", ["control", "traces", "excess (95 %)", "p", "q", "with sinks"],
      board.controls.map((row) => [row.control, `${row.traces} against ${row.traces_control} of ${row.of}`,
        `${number(row.excess)}${range(row.excess_low, row.excess_high)}`, number(row.p), number(row.q),
        `${row.traces_with_sinks} against ${row.traces_control_with_sinks}`]))) : null,
    part("Thinking patterns", table("Thinking patterns", ["pattern", "traces", "inside", "outside", "difference (95 %)", "p", "q"],
      board.patterns.map((row) => row.note ? [row.pattern, row.note, "–", "–", "–", "–", "–"] : [row.pattern, row.traces, number(row.mean_inside), number(row.mean_outside),
        `${number(row.difference)}${range(row.low, row.high)}`, number(row.p), number(row.q)])),
      reason ? el("p", {}, reason.score === null ? `ReasonScore: ${reason.note}.` : `ReasonScore ${number(reason.score)}${range(reason.low, reason.high)}, q ${number(reason.q)}; without “${reason.that_word}” ${number(reason.least_without_a_word)}.`) : null),
    board.words ? part("Which tokens it is on", el("p", {}, `Active on ${board.words.tokens} tokens of ${board.words.types} types. Share of its activation on one type ${percent(board.words.top_1)}, on three ${percent(board.words.top_3)}, on ten ${percent(board.words.top_10)}; ${board.words.types_90} types hold 90%. Variance between types: ${percent(board.words.eta_squared)}, by chance ${percent(board.words.eta_squared_by_chance)}.`)) : null,
    part("Outcomes", table("Outcomes", ["outcome", "of its", "AUROC (95 %)", "q", "length alone", "at equal length"],
      board.outcomes.map((row) => row.note ? [row.outcome, row.value, row.note, "–", "–", "–"] : [row.outcome, row.value, `${number(row.auroc)}${range(row.low, row.high)}`, number(row.q), number(row.length_auroc), number(row.within_length)]))),
    board.contrasts.length ? part("Contrasts", table("Contrasts", ["contrast", "pairs", "effect", "p", "q"],
      board.contrasts.map((row) => row.note ? [row.contrast, row.note, "–", "–", "–"] : [row.contrast, row.pairs, number(row.effect), number(row.p), number(row.q)]))) : null,
  ];
  return parts.flat().filter((node) => node !== null);
}

async function openDashboard(site, latent) {
  const [boards, tokens] = await Promise.all([unpack(`site-${site}`), unpack("tokens")]);
  const board = boards[latent];
  if (!dialog.open) {
    opener = document.activeElement;
    dialog.showModal();
  }
  dialog.replaceChildren(...dashboard(board, tokens, site, latent));
  dialog.scrollTop = 0;
  document.getElementById("dashboard-title").focus({ preventScroll: true });
}

dialog.addEventListener("close", () => {
  if (/\/\d+$/.test(location.hash)) history.replaceState(null, "", location.pathname + location.search);
  if (opener && opener !== document.body) opener.focus();
});
dialog.addEventListener("click", (event) => {
  if (event.target === dialog) dialog.close();
});

/** Follow an address such as #layers.10.mlp/1156 to its dashboard; others are the page's own sections. */
function follow() {
  const wanted = decodeURIComponent(location.hash.slice(1)).match(/^(.+)\/(\d+)$/);
  if (!wanted) return;
  const site = core.sites.indexOf(wanted[1]);
  if (site >= 0 && core.latents[site].includes(Number(wanted[2]))) openDashboard(site, Number(wanted[2]));
}
window.addEventListener("hashchange", follow);

// The trace reader.

const reader = { site: 0, condition: 0, id: null, latent: null, at: null, trace: null, tokens: null, active: null };

/** Undo the differences of a trace's active latents: for each position a list of [latent, activation], the largest first. */
function activeLatents(packed, length) {
  const active = Array.from({ length }, () => []);
  const step = Math.log(packed.high / packed.low) / 255;
  let [latent, index] = [0, 0];
  packed.latents.forEach((gap, which) => {
    latent += gap;
    let position = 0;
    for (let each = 0; each < packed.counts[which]; each += 1, index += 1) {
      position += packed.positions[index];
      active[position].push([latent, packed.low * Math.exp(step * packed.levels[index])]);
    }
  });
  for (const token of active) token.sort((a, b) => b[1] - a[1] || a[0] - b[0]);
  return active;
}

const ui = {};

function buildReader() {
  const available = core.traces.filter(([condition, id]) => held(condition, id));
  if (!available.length) {
    document.getElementById("reader").replaceChildren(el("p", {}, "There was no room for a trace; raise report.max_megabytes."));
    return;
  }
  ui.trace = el("select", { id: "reader-trace", change: () => { const [condition, id] = ui.trace.value.split(" ").map(Number); openTrace(condition, id); } },
    core.conditions.map((name, index) => el("optgroup", { label: name }, available.filter(([condition]) => condition === index).map(([condition, id, correct, finish]) =>
      el("option", { value: `${condition} ${id}` }, `${name} ${id}${correct === null ? "" : correct ? " ✓" : " ✗"}${finish === "length" ? " (truncated)" : ""}`)))));
  ui.site = el("select", { id: "reader-site", change: () => { reader.site = Number(ui.site.value); reader.latent = core.latents[reader.site][0] ?? null; showTrace(); } },
    core.sites.map((name, index) => el("option", { value: index }, name)));
  ui.latents = el("datalist", { id: "reader-latents" });
  ui.latent = el("input", { id: "reader-latent", type: "number", min: 0, step: 1, list: "reader-latents", size: 8,
    input: () => { reader.latent = ui.latent.value === "" ? null : Number(ui.latent.value); paint(); } });
  const step = (by) => { ui.trace.selectedIndex = (ui.trace.selectedIndex + by + ui.trace.length) % ui.trace.length; ui.trace.dispatchEvent(new Event("change")); };
  ui.about = el("p", { class: "about" });
  ui.text = el("div", { class: "trace", tabindex: "0", role: "group", "aria-label": "Tokens of the trace; the arrow keys move", keydown: move,
    mouseover: (event) => point(event.target), click: (event) => point(event.target), focus: () => select(reader.at ?? reader.trace?.prompt ?? 0) });
  ui.panel = el("aside", { class: "panel", "aria-label": "The token", "aria-live": "polite" });
  document.getElementById("reader").replaceChildren(
    el("div", { class: "filters" },
      el("label", { for: "reader-trace" }, "Trace ", ui.trace),
      el("button", { type: "button", click: () => step(-1), "aria-label": "Previous trace" }, "←"),
      el("button", { type: "button", click: () => step(1), "aria-label": "Next trace" }, "→"),
      el("label", { for: "reader-site" }, "Site ", ui.site),
      el("label", { for: "reader-latent" }, "Shade by latent ", ui.latent), ui.latents),
    ui.about, el("div", { class: "reading" }, ui.text, ui.panel));
  reader.latent = core.latents[0][0] ?? null;
  [reader.condition, reader.id] = available[0];
  const once = new IntersectionObserver((entries) => {
    if (entries.some((entry) => entry.isIntersecting)) { once.disconnect(); if (!reader.trace) showTrace(); }
  }, { rootMargin: "600px" });
  once.observe(document.getElementById("traces"));
}

function openTrace(condition, id, site = reader.site, latent = reader.latent, position = null) {
  Object.assign(reader, { condition, id, site, latent, at: position });
  if (dialog.open) { opener = null; dialog.close(); }
  return showTrace(position !== null || document.activeElement?.closest?.("#traces") === null);
}

async function showTrace(jump = false) {
  const { condition, id } = reader;
  const [trace, tokens] = await Promise.all([unpack(`trace-${condition}-${id}`), unpack("tokens")]);
  if (condition !== reader.condition || id !== reader.id) return; // another one was asked for meanwhile
  Object.assign(reader, { trace, tokens, active: activeLatents(trace.sites[reader.site], trace.tokens.length) });
  ui.trace.value = `${condition} ${id}`;
  ui.site.value = String(reader.site);
  ui.latents.replaceChildren(...core.latents[reader.site].map((latent) => el("option", { value: latent })));
  const about = core.traces.find((row) => row[0] === condition && row[1] === id);
  const verdict = about[2] === null ? "not graded" : about[2] ? "correct" : "wrong";
  const names = [...new Set(trace.patterns.map((match) => match[0]))].sort();
  ui.about.replaceChildren(`${trace.tokens.length - trace.prompt} tokens, ${about[3] === "length" ? "truncated" : "ended by the model"}; answer ${about[4] ?? "none"}, reference ${about[5]}: ${verdict}. `,
    ...(names.length ? ["Underlined: ", ...names.flatMap((name, index) => [index ? ", " : "", el("span", { class: "pattern", title: "thinking pattern" }, name)])] : ["No thinking pattern’s words."]));
  const inside = trace.tokens.map(() => []);
  for (const [name, start, end, text] of trace.patterns) for (let at = start; at < end; at += 1) inside[at].push(`${name} (${text})`);
  reader.inside = inside;
  reader.sinks = new Set(trace.sites[reader.site].sinks);
  ui.text.replaceChildren(...trace.segments.map(([segment, start, end]) => el("div", { class: `segment ${segment}` },
    el("h4", {}, segment), el("p", { class: "text" }, trace.tokens.slice(start, end).map((token, offset) => {
      const at = start + offset;
      return tokenSpan(tokens[token], 0, 0, { "data-at": at, class: `token${inside[at].length ? " pattern" : ""}` });
    })))));
  ui.text.dataset.trace = `${condition} ${id}`;
  ui.spans = [...ui.text.querySelectorAll("[data-at]")];
  ui.latent.value = reader.latent ?? "";
  paint();
  if (reader.at !== null && reader.at < trace.tokens.length) select(reader.at, jump);
  else ui.panel.replaceChildren(el("p", {}, "Point at a token."));
  if (jump) document.getElementById("traces").scrollIntoView();
}

/** Shade every token by the latent chosen, relative to its largest activation in the trace. */
function paint() {
  if (!reader.active) return;
  const values = reader.active.map((active) => active.find(([latent]) => latent === reader.latent)?.[1] ?? 0);
  const most = Math.max(...values);
  ui.spans.forEach((span, at) => shade(span, values[at], most));
  reader.values = values;
}

function point(target) {
  const span = target.closest("[data-at]");
  if (span) select(Number(span.dataset.at));
}

function select(at, jump = false) {
  if (!ui.spans?.length) return;
  const { trace, tokens } = reader;
  reader.at = at;
  ui.text.querySelector(".chosen")?.classList.remove("chosen");
  ui.spans[at].classList.add("chosen");
  if (jump) ui.spans[at].scrollIntoView({ block: "nearest" });
  const active = reader.active[at];
  const most = active.length ? active[0][1] : 1;
  const segment = trace.segments.find(([, start, end]) => at >= start && at < end)[0];
  const read = at < trace.tokens.length - 1;
  ui.panel.replaceChildren(...[
    el("p", { class: "token-name" }, el("code", {}, tokens[trace.tokens[at]][0]), ` position ${at}, ${segment}${reader.sinks.has(at) ? ", sink" : ""}`),
    reader.inside[at].length ? el("p", {}, `Pattern: ${reader.inside[at].join("; ")}`) : null,
    el("p", {}, read ? `${active.length} active latents at ${core.sites[reader.site]}:` : "The last token was never read: it has no activations."),
    el("ol", { class: "active" }, active.map(([latent, value]) => el("li", {},
      el("button", { type: "button", title: "Shade by this latent", "aria-pressed": String(latent === reader.latent), click: () => { reader.latent = latent; ui.latent.value = latent; paint(); select(at); } }, String(latent)),
      el("meter", { min: 0, max: most, value, "aria-label": `activation of ${latent}` }), ` ${number(value, 2)} `,
      core.latents[reader.site].includes(latent) ? latentLink(reader.site, latent, "dashboard") : null))),
  ].filter((node) => node !== null));
}

function move(event) {
  const by = { ArrowRight: 1, ArrowLeft: -1, ArrowDown: 10, ArrowUp: -10 }[event.key];
  const edge = { Home: 0, End: ui.spans.length - 1 }[event.key];
  if (by === undefined && edge === undefined) return;
  event.preventDefault();
  select(edge ?? Math.max(0, Math.min(ui.spans.length - 1, (reader.at ?? 0) + by)), true);
}

window.addEventListener("beforeprint", () => document.querySelectorAll("details").forEach((details) => { details.open = true; }));
buildReader();
follow();
