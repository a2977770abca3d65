// The trace reader.

/** What the reader shows; `at` is the position of the token whose latents are listed, `pinned` whether pointing leaves it. */
const reader = { site: 0, condition: 0, id: null, latent: null, at: null, pinned: false, trace: null, tokens: null, active: null };

/** Return the latents active at each position of a trace, the most active first. */
function activeLatents(packed, length) {
  const active = Array.from({ length }, () => []);
  for (const { latent, positions, activations } of latentsIn(packed)) {
    positions.forEach((position, index) => active[position].push({ latent, activation: activations[index] }));
  }
  for (const token of active) token.sort((a, b) => b.activation - a.activation || a.latent - b.latent);
  return active;
}

const ui = {};

function buildReader() {
  if (!heldTraces.length) {
    document.getElementById("reader").replaceChildren(el("p", {}, "There was no room for a trace; raise report.max_megabytes."));
    return;
  }
  ui.trace = el("select", { id: "reader-trace", change: () => openTrace(...ui.trace.value.split(" ").map(Number)) },
    core.conditions.map((name, index) => el("optgroup", { label: name }, heldTraces.filter((trace) => trace.condition === index).map(({ trace_id: id, correct, finish_reason: finish }) =>
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
  ({ condition: reader.condition, trace_id: reader.id } = heldTraces[0]);
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
  const { hash } = location;
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
  ui.about.replaceChildren(`${counted(trace.tokens.length - trace.prompt, "token")}, ${cut ? "truncated" : "ended by the model"}; answer ${about.predicted ?? "none"}, reference ${about.reference}: ${verdict}. Activations are within ${percent(roundedBy(packed))}. `,
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
  if (location.hash === hash) remember(); // else it was left meanwhile
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
      latentLink(reader.site, latent, "dashboard"), labelOf(reader.site, latent)))));
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
