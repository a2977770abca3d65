// The report's script: sorting and filtering, dashboards, the trace reader. Text is only ever set as text.
"use strict";

const core = JSON.parse(document.getElementById("core").textContent);

/** Make an element: attributes, of which functions are listeners, then children (elements or text; null is left out). */
function el(name, attributes = {}, ...children) {
  const svg = ["svg", "rect", "text", "path", "title"].includes(name);
  const node = svg ? document.createElementNS("http://www.w3.org/2000/svg", name) : document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (typeof value === "function") node.addEventListener(key, value);
    else node.setAttribute(key, value === true ? "" : value);
  }
  node.append(...children.flat().filter((child) => child !== null && child !== undefined));
  return node;
}

/** Return the rows of a table that comes as columns. */
function rowsOf(columns) {
  const names = Object.keys(columns);
  return columns[names[0]].map((_, index) => Object.fromEntries(names.map((name) => [name, columns[name][index]])));
}

const LEVELS = core.levels;
const traces = rowsOf(core.traces);
const siteIndex = (name) => core.sites.findIndex((site) => site.name === name);
const parcels = new Map();

/** Unpack a parcel of the page: base64, gzip, JSON. Each is unpacked once. */
function unpack(name) {
  if (!parcels.has(name)) {
    const element = document.getElementById(`parcel-${name}`);
    parcels.set(name, element === null ? Promise.resolve(null) : inflate(element.textContent.trim()));
  }
  return parcels.get(name);
}

/** Return the tokens that the page names: the label of each, and how it is read in running text. */
let tokens = null;
const tokenRows = () => (tokens ??= unpack("tokens").then(rowsOf));

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

const counted = (count, noun) => `${count} ${noun}${count === 1 ? "" : "s"}`;
const percent = (value, digits = 2) => (value === null || value === undefined ? "–" : `${number(100 * value, digits)}%`);
const shareOf = (value, low, high) => `${percent(value)}${low === null || low === undefined ? "" : ` (${percent(low)} to ${percent(high)})`}`;
const range = (low, high) => (low === null || low === undefined ? "" : ` (${number(low)} to ${number(high)})`);
const held = (condition, id) => document.getElementById(`parcel-trace-${condition}-${id}`) !== null;

// Tables of latents: sort by a heading, filter by text and verdict.

const VERDICTS = ["thinking pattern", "undecided", "no"];

function sortKey(row, key) {
  const value = row.getAttribute(`data-${key}`);
  if (key === "verdict") return VERDICTS.indexOf(value);
  return value === null || value === "" ? null : Number(value);
}

function sortBy(table, heading) {
  const key = heading.dataset.key;
  const small = ["latent", "verdict", "words"].includes(key); // first ascending
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
  const [search, verdict, check] = ["input", ".by-verdict", ".by-check"].map((part) => form.querySelector(part));
  const words = search.value.toLowerCase().split(/\s+/).filter(Boolean);
  const rows = [...document.getElementById(`latents-${form.dataset.site}`).tBodies[0].rows];
  let shown = 0;
  for (const row of rows) {
    const text = [...row.querySelectorAll("[data-find]")].map((cell) => cell.textContent).join(" ").toLowerCase();
    row.hidden = !(words.every((word) => text.includes(word)) && (!verdict.value || row.dataset.verdict === verdict.value)
      && (!check.value || row.dataset.checks.split(" ").includes(check.value)));
    if (!row.hidden) shown += 1;
  }
  const total = counted(rows.length, "latent");
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
function tokenSpan({ label, text }, value, most, extra = {}) {
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
  if (share > 0) span.style.setProperty("--heat", `${Math.round(20 + 65 * share)}%`);
  else span.style.removeProperty("--heat");
  span.classList.toggle("hot", share > 0);
}

// Dashboards.

const dialog = document.getElementById("dashboard");
let opener = null; // the link that opened it, if one did
let left = null; // the dashboard that was last left for a trace, and how far down it was

function latentLink(site, latent, text = String(latent)) {
  const known = core.sites[site].latents.includes(latent);
  return known ? el("a", { href: `#${core.sites[site].name}/${latent}` }, text) : el("span", { title: "has no dashboard" }, text);
}

/** The address of a trace in the reader, shaded by a latent, and of a token in it where a position is given. */
function traceAddress(condition, id, site, latent, position = null) {
  return `#${["trace", core.conditions[condition], id, core.sites[site].name, latent ?? "", ...(position === null ? [] : [position])].join("/")}`;
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
  const y = (share) => height - height * Math.sqrt(share / top); // else the few large ones couldn't be seen
  const about = rows.map((row) => `${row.condition}: active on ${row.tokens_active} of ${row.tokens} tokens read`).join("; ");
  const svg = el("svg", { viewBox: `0 -16 ${width} ${height + 34}`, class: "histogram", role: "img", "aria-label": `Histogram of activations. ${about}` });
  shares[0].forEach((share, bin) => {
    const low = (largest * bin) / rows[0].counts.length;
    const high = (largest * (bin + 1)) / rows[0].counts.length;
    svg.append(el("rect", { class: "bar", x: bin * step + 0.5, y: y(share), width: step - 1, height: height - y(share) },
      el("title", {}, `${number(low)} to ${number(high)}: ${counted(rows[0].counts[bin], "token")}`)));
  });
  shares.slice(1).forEach((values, index) => {
    const line = values.map((share, bin) => `${bin ? "L" : "M"}${bin * step} ${y(share)}H${(bin + 1) * step}`).join("");
    svg.append(el("path", { class: `control control-${index % 3}`, d: line }));
  });
  const below = { y: height + 14 };
  svg.append(el("text", { x: 0, y: -6 }, `share of tokens, square-root scale up to ${number(100 * top, 2)}%`), el("text", { x: 0, ...below }, "0"),
    el("text", { x: width / 2, "text-anchor": "middle", ...below }, "activation"), el("text", { x: width, "text-anchor": "end", ...below }, number(largest)));
  return el("div", {}, svg, el("ul", { class: "keys" }, rows.map((row, index) =>
    el("li", {}, el("span", { class: index ? `key control-${(index - 1) % 3}` : "key bar" }),
      `${row.condition}: active on ${row.tokens_active} of ${row.tokens} tokens read (${number(100 * row.tokens_active / Math.max(1, row.tokens), 2)}%)`))));
}

function strip(board, site, latent) {
  const active = rowsOf(board.strips);
  const most = Math.max(...board.strips.max, 1e-12);
  return core.conditions.map((condition, index) => {
    const found = new Map(active.filter((row) => row.condition === condition).map((row) => [row.trace_id, row]));
    const written = traces.filter((trace) => trace.condition === index);
    const tops = [...found.values()].filter(({ rank }) => rank <= core.top).length;
    const cells = written.map(({ trace_id: id, correct }) => {
      const { rank, max } = found.get(id) ?? { rank: null, max: 0 };
      const answer = correct === null ? "no answer graded" : correct ? "correct" : "wrong";
      const about = `${condition} ${id}: ${rank === null ? "not active" : `rank ${rank}, maximum ${number(max)}`}; ${answer}`;
      const cell = el("a", { href: held(index, id) ? traceAddress(index, id, site, latent) : null, role: held(index, id) ? null : "img",
        class: `cell${rank !== null && rank <= core.top ? " top" : ""}`, title: about, "aria-label": about, tabindex: -1 },
        el("i", {}, rank !== null && rank < 100 ? String(rank) : ""), el("b", {}, correct === null ? "·" : correct ? "✓" : "✗"));
      shade(cell.firstChild, max, most);
      return cell;
    });
    cells[0]?.setAttribute("tabindex", "0");
    const name = `${condition}: among the top ${core.top} in ${tops} of ${written.length} traces, active in ${found.size}`;
    return el("div", { class: "strip" }, el("div", { class: "name" }, name),
      el("div", { class: "cells", role: "group", "aria-label": `${name}; the arrow keys move`, keydown: walk }, cells));
  }).concat(el("p", { class: "legend" }, `A cell a trace: its rank there if below 100, filled by its maximum, outlined among the top ${core.top}; below, the answer: ✓ correct, ✗ wrong, · not graded.`));
}

/** Move the focus among the cells of a strip, which are one stop of the tab key. */
function walk(event) {
  const cells = [...event.currentTarget.children];
  const next = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
  const cell = next === undefined ? { Home: cells[0], End: cells.at(-1) }[event.key] : cells[cells.indexOf(event.target) + next];
  if (!cell) return;
  event.preventDefault();
  for (const each of cells) each.setAttribute("tabindex", each === cell ? "0" : "-1");
  cell.focus();
}

/** Underline a token by what taking a latent away changes at it, in nats: darker the more, one way or the other. */
function underline(span, change, most) {
  const share = change && most ? Math.min(1, Math.abs(change) / most) : 0;
  span.classList.toggle("loses", share > 0.02 && change < 0);
  span.classList.toggle("gains", share > 0.02 && change > 0);
  if (share > 0.02) span.style.setProperty("--change", `${Math.round(25 + 75 * share)}%`);
  else span.style.removeProperty("--change");
}

const largest = (changes) => Math.max(1e-4, ...changes.filter((change) => change !== null && change !== undefined).map(Math.abs));
const worth = (change) => (change === null || change === undefined ? "" : `; without the latent its log-probability changes by ${number(change)}`);

/** Title of each band of passages, and which quarter of the activations it is. */
const BANDS = { top: ["Top activations"], q4: ["Highest quarter", 3], q3: ["Third quarter", 2], q2: ["Second quarter", 1], q1: ["Lowest quarter", 0] };

function passages(board, tokens, site, latent) {
  const [studied] = rowsOf(board.histograms);
  const most = Math.max(studied.largest, 1e-12);
  const cuts = studied.quartiles;
  const shown = rowsOf(board.passages);
  const strongest = largest(shown.flatMap((row) => row.changes ?? []));
  if (!shown.length) return [el("p", {}, "None: it is active on no generated token that counts.")];
  return Object.entries(BANDS).map(([band, [title, quarter]]) => {
    const rows = shown.filter((row) => row.band === band);
    if (!rows.length) return null;
    const span = quarter === undefined ? "each from another trace" : `${number(cuts[quarter])} to ${number(cuts[quarter + 1])}`;
    return el("div", {}, el("h4", {}, `${title} `, el("small", {}, span)), rows.map((row) => {
      const index = core.conditions.indexOf(row.condition);
      const text = row.tokens.map((token, offset) => {
        const value = row.values[offset];
        const change = row.changes?.[offset];
        const about = `${tokens[token].label}: ${value === null ? "not read" : number(value)}${worth(change)}`;
        const span = tokenSpan(tokens[token], value, most, { title: about, class: row.start + offset === row.peak ? "token peak" : "token" });
        underline(span, change, strongest);
        return span;
      });
      const where = `${row.condition} ${row.trace_id}`;
      return el("div", { class: "passage" },
        held(index, row.trace_id) ? el("a", { class: "where", title: "Read on in the trace", href: traceAddress(index, row.trace_id, site, latent, row.peak) }, where)
          : el("span", { class: "where" }, where),
        el("span", { class: "value" }, number(row.values[row.peak - row.start])), el("p", { class: "text" }, text));
    }));
  });
}

/** Draw effects with their intervals, a row each: [name, value, low, high, class]. */
function intervals(rows, unit, label) {
  const [width, left, step] = [360, 130, 20];
  const ends = rows.flatMap(([, value, low, high]) => [value, low, high]).filter((value) => value !== null && value !== undefined);
  const [least, most] = [Math.min(0, ...ends), Math.max(0, ...ends)];
  const x = (value) => left + (width - left - 10) * (most > least ? (value - least) / (most - least) : 0.5);
  const svg = el("svg", { viewBox: `0 0 ${width} ${rows.length * step + 20}`, class: "histogram effects", role: "img", "aria-label": label });
  svg.append(el("path", { class: "zero", d: `M${x(0)} 0V${rows.length * step}` }));
  rows.forEach(([name, value, low, high, kind], index) => {
    const y = index * step + step / 2;
    svg.append(el("text", { x: left - 8, y: y + 4, "text-anchor": "end" }, name));
    if (value === null || value === undefined) return;
    if (low !== null && low !== undefined) svg.append(el("path", { class: `control interval-${kind}`, d: `M${x(low)} ${y}H${x(high)}` }));
    svg.append(el("rect", { class: `dot ${kind}`, x: x(value) - 3, y: y - 3, width: 6, height: 6 }, el("title", {}, `${name}: ${number(value)}${range(low, high)} ${unit}`)));
  });
  const below = { y: rows.length * step + 14 };
  svg.append(el("text", { x: x(least), "text-anchor": "middle", ...below }, number(least, 2)), el("text", { x: x(most), "text-anchor": "middle", ...below }, number(most, 2)));
  return svg;
}

/** What the model does without the latent, and with more of it. */
function use({ tried, controls, doses, predicted }) {
  const parts = [];
  if (tried) {
    const rows = [["taken away", tried.effect, tried.effect_low, tried.effect_high, "own"], ["its mean in place", tried.mean_effect, null, null, "own"],
      ...controls.map(([name, value]) => [name === "matched latent" ? "latents alike" : name === "shifted" ? "shifted" : "random directions", value, null, null, "other"]),
      ["beyond these", tried.excess, tried.low, tried.high, "own"]];
    parts.push(el("p", {}, `At ${tried.pattern} (${core.windows[tried.window]}), in ${counted(tried.traces, "trace")}: log-odds of what is to come that go with it, beyond places alike. `,
      tried.q === null ? `${tried.note ?? ""}.` : `Beyond its controls ${number(tried.excess)}${range(tried.low, tried.high)}, q ${number(tried.q)}; lost at the pattern itself ${number(tried.lost)}.`),
    el("div", { class: "columns" }, el("div", {}, el("h4", {}, "Necessary? ", el("small", {}, "log-odds lost")), intervals(rows, "log-odds", "Effects of taking the latent away, and of its controls")),
      doses.length ? el("div", {}, el("h4", {}, "Sufficient? ", el("small", {}, "log-odds gained where the pattern isn’t, beyond a random direction")),
        intervals(doses.map(([strength, value, low, high]) => [`×${number(strength)} added`, value, low, high, "own"]), "log-odds", "What adding the latent gives, by strength")) : null));
  } else parts.push(el("p", {}, "It wasn’t taken away: others are predicted to do more (interventions.latents), or no trace has its pattern and a place to compare it to."));
  if (predicted.length) parts.push(table("Predicted", ["predicted to take most from", "log-odds (95%)"],
    predicted.map(([pattern, window, value, low, high]) => [`${pattern}: ${core.windows[window]}`, `${number(value)}${range(low, high)}`])));
  return parts;
}

/** Return the rows of the patterns, one alone for a pattern that has the same note in place of a number in all windows. */
function patternRows(board) {
  const rows = rowsOf(board.patterns);
  const alike = (row) => row.note && rows.filter((other) => other.pattern === row.pattern).every((other) => other.note === row.note);
  const first = (row) => rows.find((other) => other.pattern === row.pattern) === row;
  return rows.filter((row) => !alike(row) || first(row)).map((row) => (alike(row) ? { ...row, window: null } : row));
}

function dashboard(board, tokens, site, latent) {
  const name = core.sites[site].name;
  const rows = [...document.querySelectorAll(`#latents-${site} tbody tr:not([hidden])`)].map((row) => Number(row.dataset.latent));
  const order = rows.includes(latent) ? rows : core.sites[site].latents; // as the table is sorted and filtered
  const place = order.indexOf(latent);
  // A step takes the place of this dashboard in the browser's history: one step back leaves them all.
  const step = (by, rel, words, arrow) => el("a", { rel, href: `#${name}/${order[(place + by + order.length) % order.length]}`, title: words, "aria-label": words,
    click: (event) => { event.preventDefault(); history.replaceState(null, "", event.currentTarget.hash); follow(); } }, arrow);
  const label = (token) => el("code", {}, tokens[token].label);
  const [reason, effects, controls, presence, contrasts] = [board.reason, ...["effects", "controls", "presence", "contrasts"].map((key) => rowsOf(board[key]))];
  const parts = [
    el("div", { class: "head" },
      el("h2", { id: "dashboard-title", tabindex: "-1" }, `Latent ${latent} `, el("small", {}, `at ${name}`)),
      el("div", { class: "steps" },
        step(-1, "prev", "Previous latent of the table", "←"), el("span", {}, `${place + 1} of ${order.length}`), step(1, "next", "Next latent of the table", "→"),
        el("button", { type: "button", click: () => dialog.close() }, "Close"))),
    el("p", {}, el("span", { class: `verdict ${board.verdict.replace(" ", "-")}` }, board.verdict), board.why ? ` (${board.why}). ` : ". ",
      board.needs ? `${board.needs[0].toUpperCase()}${board.needs.slice(1)}. ` : null,
      `Among the top ${core.top} in ${board.traces} of ${counted(board.of, "trace")} under “${core.conditions[0]}” (95% interval ${board.interval} of all such traces).`,
      board.neuronpedia ? [" ", el("a", { href: board.neuronpedia, rel: "noreferrer" }, "On Neuronpedia")] : null),
    part("Checks", table("Checks", ["check", "result", "number", "what it is", "why", "what it would take"], rowsOf(board.checks).map((row) =>
      [row.check, el("span", { class: "result" }, el("span", { class: `check ${row.result}` }), ` ${row.result}`), number(row.number), core.numbers[row.check], row.note, row.needs || "–"]))),
    el("div", { class: "columns" },
      part("Activations", histogram(rowsOf(board.histograms))),
      part("Recurrence", strip(board, site, latent))),
    board.use ? part("Does the model use it?", use(board.use)) : null,
    part("Passages", passages(board, tokens, site, latent),
      board.passages.changes.some((changes) => changes !== null) ? el("p", { class: "legend" }, "Underlined: tokens that the model makes ", el("span", { class: "loses", style: "--change: 90%" }, "less"), " or ", el("span", { class: "gains", style: "--change: 90%" }, "more"), " likely without the latent.") : null),
    el("div", { class: "columns" },
      part("Top token types", board.types.token.length ? table("Top token types", ["token", "maximum", "tokens", "traces"],
        rowsOf(board.types).map((row) => [label(row.token), number(row.max), row.tokens, row.traces])) : el("p", {}, "None listed: without sinks it is among the top of no trace.")),
      part("Logit effect", effects.length ? el("div", { class: "columns" },
        ...[["top", "raises"], ["bottom", "lowers"]].map(([side, text]) => table(text, [text, "by"],
          effects.filter((row) => row.side === side).map((row) => [label(row.token), number(row.effect)]))))
        : el("p", {}, "None: what is read here isn’t added to the residual stream as it is.")),
      part("Nearest by decoder", table("Nearest latents by decoder cosine", ["latent", "cosine"],
        rowsOf(board.neighbours).map((row) => [latentLink(site, row.neighbour), number(row.cosine)]))),
      part("Nearest by co-activation", board.coactive.phi.length ? table("Nearest latents by co-activation", ["latent", "φ", "both on"],
        rowsOf(board.coactive).map((row) => [latentLink(site, row.neighbour), number(row.phi), counted(row.both, "token")])) : el("p", {}, "None."))),
    controls.length || presence.length ? part("Controls",
      presence.length ? [el("h4", {}, "At equal length ", el("small", {}, "by which it is judged")), table("Recurrence at equal length",
        ["control", "tokens of a stretch", "stretches with it", "under the control", "beyond it (95%)", "tokens with it", "under the control", "beyond it (95%)", "p"],
        presence.map((row) => [row.control, row.tokens, percent(row.presence), percent(row.presence_control), shareOf(row.excess, row.low, row.high),
          percent(row.rate), percent(row.rate_control), shareOf(row.rate_excess, row.rate_low, row.rate_high), number(row.p)]))]
        : el("p", {}, "Too rarely active to be compared at equal length."),
      controls.length ? [el("h4", {}, `Original count `, el("small", {}, `traces with it among the top ${core.top}, whatever their length`)),
        table("Controls", ["control", "traces", "excess (95%)", "p", "q", "with sinks"],
          controls.map((row) => [row.control, `${row.traces} against ${row.traces_control} of ${row.of}`,
            `${number(row.excess)}${range(row.excess_low, row.excess_high)}`, number(row.p), number(row.q),
            `${row.traces_with_sinks} against ${row.traces_control_with_sinks}`]))] : null) : null,
    part("Thinking patterns", board.patterns.pattern.length ? table("Thinking patterns", ["pattern", "the latent", "traces", "inside", "on tokens alike", "share of its activation (95%)", "p", "told from place", "rank"],
      patternRows(board).map((row) => row.note ? [row.pattern, core.windows[row.window] ?? "–", row.note, "–", "–", "–", "–", "–", "–"]
        : [row.pattern, core.windows[row.window], row.traces, number(row.mean_inside), number(row.mean_alike), shareOf(row.share, row.low, row.high), number(row.p), percent(row.told_apart), percent(row.rank)]))
      : el("p", {}, "Too rarely active to be tested."),
      board.patterns.pattern.length ? el("p", {}, `Inside: its mean activation in that window. On tokens alike: what it would be there by which tokens these are and where they stand. Share: what is beyond that, of all its activation. p: of a share of ${core.min_share} or less. Told from place: how much of the window isn’t a matter of where it stands. Rank: share of the latents tested with no larger share.`) : null,
      reason ? el("p", {}, reason.score === null ? `ReasonScore: ${reason.note}.` : `ReasonScore ${number(reason.score)}${range(reason.low, reason.high)}, q ${number(reason.q)}${reason.that_word === null ? "" : `; without “${reason.that_word}” ${number(reason.least_without_a_word)}`}.`) : null),
    board.words?.tokens ? part("Which tokens it is on", el("p", {}, `Active on ${counted(board.words.tokens, "token")} of ${counted(board.words.types, "type")}. Share of its activation on one type ${board.words.top_1}, on three ${board.words.top_3} (digits count as one there, and so do marks), on ten ${board.words.top_10}; on words of thinking patterns ${board.words.in_words}; ${counted(board.words.types_90, "type")} ${board.words.types_90 === 1 ? "holds" : "hold"} 90%. Variance between types: ${board.words.eta_squared}, by chance ${board.words.eta_squared_by_chance}. Token types alone would give it ${board.words.typed} of its activation (95% interval ${board.words.low} to ${board.words.high}).`)) : null,
    part("Outcomes", table("Outcomes", ["outcome", "of its", "AUROC (95%)", "q", "length alone (95%)", "at equal length (95%)", "p there"],
      rowsOf(board.outcomes).map((row) => row.note ? [row.outcome, row.value, row.note, "–", "–", "–", "–"] : [row.outcome, row.value, `${number(row.auroc)}${range(row.low, row.high)}`, number(row.q),
        `${number(row.length_auroc)}${range(row.length_low, row.length_high)}`, `${number(row.within_length)}${range(row.within_low, row.within_high)}`, number(row.within_p)])),
      board.outcomes.auroc.some((area) => area !== null) ? el("p", {}, "How well its activation in a trace tells the outcome, what the trace’s length alone tells, and what is left of the first at equal length. Length may be a mediator: what the latent stands for may make traces longer, and longer traces end otherwise. So this speaks against no latent.") : null),
    contrasts.length ? part("Contrasts", table("Contrasts", ["contrast", "pairs", "effect (95%)", "p", "q"],
      contrasts.map((row) => row.note ? [row.contrast, row.note, "–", "–", "–"] : [row.contrast, row.pairs, `${number(row.effect)}${range(row.low, row.high)}`, number(row.p), number(row.q)]))) : null,
  ];
  return parts.flat().filter((node) => node !== null);
}

async function openDashboard(site, latent) {
  const [boards, tokens] = await Promise.all([unpack(`site-${site}`), tokenRows()]);
  if (location.hash !== `#${core.sites[site].name}/${latent}`) return; // another place was asked for meanwhile
  const stepping = dialog.open ? document.activeElement.rel : "";
  if (!dialog.open) {
    opener = document.activeElement.hash === location.hash ? document.activeElement : null;
    dialog.showModal();
  }
  const content = Object.hasOwn(boards, latent) ? dashboard(boards[latent], tokens, site, Number(latent)) : [el("div", { class: "head" },
    el("h2", { id: "dashboard-title", tabindex: "-1" }, `No dashboard for latent ${latent}`), el("button", { type: "button", click: () => dialog.close() }, "Close")),
    el("p", {}, `It isn’t among the leading latents of ${core.sites[site].name}, which alone have one; the trace reader can shade by it.`)];
  dialog.replaceChildren(...content);
  dialog.dataset.hash = location.hash;
  dialog.scrollTop = left?.hash === location.hash ? left.top : 0;
  left = null;
  dialog.querySelector(stepping ? `a[rel=${stepping}]` : "#dashboard-title").focus({ preventScroll: true });
}

dialog.addEventListener("close", () => {
  const [site, latent] = location.hash.slice(1).split("/");
  if (siteIndex(site) < 0) return; // it closed for another place on the page
  if (latent !== undefined) history.replaceState(null, "", location.pathname + location.search);
  (opener ?? document.querySelector(`#latents-${siteIndex(site)} tr[data-latent="${CSS.escape(latent)}"] a`))?.focus();
});
dialog.addEventListener("click", (event) => {
  if (event.target === dialog) dialog.close();
});
dialog.addEventListener("keydown", (event) => {
  const rel = { ArrowLeft: "prev", ArrowRight: "next" }[event.key];
  if (rel && event.target.matches("#dashboard-title, .steps a")) dialog.querySelector(`a[rel=${rel}]`)?.click();
});

/** Go where the page's address says: a dashboard (#layers.10.mlp/1156), a trace (see traceAddress), or a section. */
function follow() {
  const [first, ...rest] = location.hash.slice(1).split("/");
  const site = siteIndex(first);
  if (site >= 0 && rest.length === 1) openDashboard(site, rest[0]);
  else if (first === "trace") followTrace(...rest);
  else if (dialog.open) dialog.close();
}

function followTrace(condition, id, site, latent, position) {
  const index = core.conditions.indexOf(condition);
  if (dialog.open) {
    left = { hash: dialog.dataset.hash, top: dialog.scrollTop };
    dialog.close();
  }
  if (!held(index, id)) return;
  const numeric = (text) => (/^\d+$/.test(text ?? "") ? Number(text) : null);
  openTrace(index, Number(id), Math.max(0, siteIndex(site)), numeric(latent), numeric(position), true);
}
window.addEventListener("hashchange", follow);

// The trace reader.

/** What the reader shows; `at` is the position of the token whose latents are listed, `pinned` whether pointing leaves it. */
const reader = { site: 0, condition: 0, id: null, latent: null, at: null, pinned: false, trace: null, tokens: null, active: null };

/** Undo the differences of a trace's active latents (see reader.py): at each position the latents, the most active first. */
function activeLatents(packed, length) {
  const active = Array.from({ length }, () => []);
  const step = Math.log(packed.high / packed.low) / LEVELS;
  let [latent, index] = [0, 0];
  packed.latents.forEach((gap, which) => {
    latent += gap;
    let position = 0;
    for (let each = 0; each < packed.counts[which]; each += 1, index += 1) {
      position += packed.positions[index];
      active[position].push({ latent, activation: packed.low * Math.exp(step * packed.levels[index]) });
    }
  });
  for (const token of active) token.sort((a, b) => b.activation - a.activation || a.latent - b.latent);
  return active;
}

const ui = {};

function buildReader() {
  const available = traces.filter((trace) => held(trace.condition, trace.trace_id));
  if (!available.length) {
    document.getElementById("reader").replaceChildren(el("p", {}, "There was no room for a trace; raise report.max_megabytes."));
    return;
  }
  ui.trace = el("select", { id: "reader-trace", change: () => openTrace(...ui.trace.value.split(" ").map(Number)) },
    core.conditions.map((name, index) => el("optgroup", { label: name }, available.filter((trace) => trace.condition === index).map(({ trace_id: id, correct, finish_reason: finish }) =>
      el("option", { value: `${index} ${id}` }, `${name} ${id}${correct === null ? "" : correct ? " ✓" : " ✗"}${finish === "length" ? " (truncated)" : ""}`)))));
  ui.site = el("select", { id: "reader-site", change: () => { reader.site = Number(ui.site.value); reader.latent = core.sites[reader.site].latents[0] ?? null; showTrace(); } },
    core.sites.map(({ name }, index) => el("option", { value: index }, name)));
  ui.latents = el("datalist", { id: "reader-latents" });
  ui.latent = el("input", { id: "reader-latent", type: "number", min: 0, step: 1, list: "reader-latents", size: 8,
    input: () => shadeBy(ui.latent.value === "" ? null : Number(ui.latent.value)) });
  ui.scale = el("output", { class: "scale", for: "reader-latent" });
  const step = (by) => { ui.trace.selectedIndex = (ui.trace.selectedIndex + by + ui.trace.length) % ui.trace.length; ui.trace.dispatchEvent(new Event("change")); };
  ui.about = el("p", { class: "about" });
  ui.changed = el("p", { class: "legend" });
  ui.text = el("div", { class: "trace", tabindex: "0", role: "group", "aria-label": "Tokens of the trace; the arrow keys move", keydown: move,
    pointermove: (event) => { const at = pointed(event); if (at !== null && !reader.pinned && at !== reader.at) select(at); },
    click: (event) => { const at = pointed(event); if (at !== null) pin(at, !(reader.pinned && at === reader.at)); },
    focus: () => { if (reader.at === null) select(reader.trace?.prompt ?? 0); } });
  ui.status = el("p", { role: "status" }, "Point at a token.");
  ui.active = el("div", {});
  ui.panel = el("aside", { class: "panel", "aria-label": "The token" }, ui.status, ui.active);
  document.getElementById("reader").replaceChildren(
    el("div", { class: "filters" },
      el("label", { for: "reader-trace" }, "Trace ", ui.trace),
      el("button", { type: "button", click: () => step(-1), "aria-label": "Previous trace" }, "←"),
      el("button", { type: "button", click: () => step(1), "aria-label": "Next trace" }, "→"),
      el("label", { for: "reader-site" }, "Site ", ui.site),
      el("label", { for: "reader-latent" }, "Shade by latent ", ui.latent), ui.latents, ui.scale),
    ui.about, ui.changed, el("div", { class: "reading" }, ui.text, ui.panel));
  reader.latent = core.sites[0].latents[0] ?? null;
  ({ condition: reader.condition, trace_id: reader.id } = available[0]);
  const once = new IntersectionObserver((entries) => {
    if (entries.some((entry) => entry.isIntersecting)) { once.disconnect(); if (!reader.trace) showTrace(); }
  }, { rootMargin: "600px" });
  once.observe(document.getElementById("traces"));
}

function openTrace(condition, id, site = reader.site, latent = reader.latent, position = null, jump = false) {
  Object.assign(reader, { condition, id, site, latent, at: position, pinned: position !== null });
  return showTrace(jump);
}

async function showTrace(jump = false) {
  const { condition, id } = reader;
  const [trace, tokens] = await Promise.all([unpack(`trace-${condition}-${id}`), tokenRows()]);
  if (condition !== reader.condition || id !== reader.id) return; // another one was asked for meanwhile
  Object.assign(reader, { trace, tokens, active: activeLatents(trace.sites[reader.site], trace.tokens.length) });
  ui.trace.value = `${condition} ${id}`;
  ui.site.value = String(reader.site);
  ui.latent.max = core.sites[reader.site].size - 1;
  ui.latents.replaceChildren(...core.sites[reader.site].latents.map((latent) => el("option", { value: latent })));
  const about = traces.find((each) => each.condition === condition && each.trace_id === id);
  const cut = about.finish_reason === "length";
  const verdict = about.correct === null ? `not graded${cut ? ", as it didn’t come to an end" : ""}` : about.correct ? "correct" : "wrong";
  const packed = trace.sites[reader.site];
  const names = [...new Set(trace.patterns.map((match) => match.name))].sort();
  ui.about.replaceChildren(`${counted(trace.tokens.length - trace.prompt, "token")}, ${cut ? "truncated" : "ended by the model"}; answer ${about.predicted ?? "none"}, reference ${about.reference}: ${verdict}. Activations are within ${number(100 * Math.expm1(Math.log(packed.high / packed.low) / LEVELS / 2), 2)}%. `,
    ...(names.length ? ["Underlined: ", ...names.flatMap((name, index) => [index ? ", " : "", el("span", { class: "pattern", title: "thinking pattern" }, name)])] : ["No word of a thinking pattern (see methods)."]));
  const inside = trace.tokens.map(() => []);
  for (const { name, start, end, text } of trace.patterns) for (let at = start; at < end; at += 1) inside[at].push(`${name} (${text})`);
  reader.inside = inside;
  reader.sinks = new Set(trace.sites[reader.site].sinks);
  ui.text.replaceChildren(...trace.segments.map(({ segment, start, end }) => el("div", { class: `segment ${segment}` },
    el("h3", {}, segment), el("p", { class: "text" }, trace.tokens.slice(start, end).map((token, offset) => {
      const at = start + offset;
      return tokenSpan(tokens[token], 0, 0, { "data-at": at, class: `token${inside[at].length ? " pattern" : ""}` });
    })))));
  ui.text.dataset.trace = `${condition} ${id}`;
  ui.spans = [...ui.text.querySelectorAll("[data-at]")];
  ui.latent.value = reader.latent ?? "";
  paint();
  if (reader.at !== null && reader.at >= trace.tokens.length) Object.assign(reader, { at: null, pinned: false });
  if (jump) {
    document.getElementById("traces").scrollIntoView();
    ui.text.focus({ preventScroll: true });
  }
  remember();
  if (reader.at === null) {
    ui.status.replaceChildren("Point at a token.");
    ui.active.replaceChildren();
  } else {
    select(reader.at);
    if (jump) show(ui.spans[reader.at]);
  }
}

/** Scroll the text so that a token is in its middle, and the page only if it still can't be seen. */
function show(span) {
  ui.text.scrollTop += span.getBoundingClientRect().top - ui.text.getBoundingClientRect().top - ui.text.clientHeight / 2;
  span.scrollIntoView({ block: "nearest" });
}

/** Shade every token by the latent chosen, relative to its largest activation in the trace. */
function paint() {
  if (!reader.active) return;
  reader.values = reader.active.map((active) => active.find(({ latent }) => latent === reader.latent)?.activation ?? 0);
  const most = Math.max(...reader.values);
  reader.changes = reader.trace.sites[reader.site].changes?.[reader.latent] ?? null;
  const strongest = largest(reader.changes ?? []);
  ui.spans.forEach((span, at) => {
    shade(span, reader.values[at], most);
    underline(span, reader.changes?.[at - reader.trace.prompt], strongest);
  });
  ui.changed.replaceChildren(...(reader.changes ? ["Underlined: tokens that the model makes ", el("span", { class: "loses", style: "--change: 90%" }, "less"), " or ", el("span", { class: "gains", style: "--change: 90%" }, "more"), ` likely without latent ${reader.latent}, by up to ${number(strongest)} nats.`] : []));
  ui.scale.replaceChildren(reader.latent === null ? "" : reader.latent >= core.sites[reader.site].size ? `there are ${core.sites[reader.site].size} latents` : most ? `active on ${counted(reader.values.filter(Boolean).length, "token")}, shaded up to ${number(most)}` : "not active in this trace");
}

function shadeBy(latent) {
  reader.latent = latent;
  paint();
  for (const button of ui.active.querySelectorAll("button")) button.setAttribute("aria-pressed", String(button.value === String(latent)));
  if (reader.at !== null) describe();
  remember();
}

function pointed(event) {
  const span = event.target.closest("[data-at]");
  return span ? Number(span.dataset.at) : null;
}

/** Choose a token and hold it, so that pointing at others leaves it; or let go of it. */
function pin(at, hold = true) {
  reader.pinned = hold;
  select(at);
  remember();
}

/** Keep the page's address that of what the reader shows, once it is about the reader. */
function remember() {
  const { condition, id, site, latent, at, pinned } = reader;
  if (pinned || location.hash.startsWith("#trace/")) history.replaceState(null, "", traceAddress(condition, id, site, latent, pinned ? at : null));
}

/** Say what the chosen token is, and how active there the latent that shades. */
function describe() {
  const { trace, tokens, at, latent } = reader;
  const segment = trace.segments.find(({ start, end }) => at >= start && at < end).segment;
  const value = reader.values[at] ? number(reader.values[at]) : "not active";
  ui.status.replaceChildren(el("code", {}, tokens[trace.tokens[at]].label), ` position ${at}, ${segment}${reader.sinks.has(at) ? ", sink" : ""}${reader.pinned ? ", held" : ""}. `,
    latent === null ? "" : `${latent}: ${value}. `, reader.inside[at].length ? `Pattern: ${reader.inside[at].join("; ")}.` : "");
}

function select(at) {
  if (!ui.spans?.length) return;
  reader.at = at;
  ui.text.querySelector(".chosen")?.classList.remove("chosen");
  ui.spans[at].classList.add("chosen");
  describe();
  const active = reader.active[at];
  const most = active.length ? active[0].activation : 1;
  const read = at < reader.trace.tokens.length - 1;
  ui.active.replaceChildren(
    el("p", {}, read ? `${counted(active.length, "active latent")} at ${core.sites[reader.site].name}:` : "The last token was never read: it has no activations."),
    el("ol", { class: "active" }, active.map(({ latent, activation: value }) => el("li", {},
      el("button", { type: "button", value: latent, title: "Shade by this latent", "aria-pressed": String(latent === reader.latent), click: () => { ui.latent.value = latent; shadeBy(latent); } }, String(latent)),
      el("meter", { min: 0, max: most, value, "aria-label": `activation of ${latent}` }), ` ${number(value)} `,
      core.sites[reader.site].latents.includes(latent) ? latentLink(reader.site, latent, "dashboard") : null))));
}

function move(event) {
  if (event.key === "Escape") return reader.at === null ? undefined : pin(reader.at, false);
  if (event.ctrlKey || event.altKey || event.metaKey) return;
  const at = reader.at ?? 0;
  const by = { ArrowRight: 1, ArrowLeft: -1, ArrowDown: 10, ArrowUp: -10 }[event.key];
  const found = {
    Home: () => 0, End: () => ui.spans.length - 1,
    n: () => reader.values.findIndex((value, position) => position > at && value), p: () => reader.values.findLastIndex((value, position) => position < at && value),
  }[event.key];
  if (by === undefined && !found) return;
  event.preventDefault();
  const next = found ? found() : Math.max(0, Math.min(ui.spans.length - 1, at + by));
  if (next < 0) return; // it is active on no other token that way
  pin(next);
  ui.spans[next].scrollIntoView({ block: "nearest" });
}

// Pictures are printed, whether they are open or not.
let opened = [];
window.addEventListener("beforeprint", () => {
  opened = [...document.querySelectorAll("details.pictures:not([open])")];
  for (const details of opened) details.open = true;
});
window.addEventListener("afterprint", () => { for (const details of opened) details.open = false; });

buildReader();
follow();
