// Dashboards.

const dialog = document.getElementById("dashboard");
let opener = null; // the link that opened it, if one did
let left = null; // the dashboard that was last left for a trace, and how far down it was

function histogram(rows) {
  if (!rows[0].largest) return el("p", {}, "Not active on any token that counts.");
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
      `${row.condition}: active on ${row.tokens_active.toLocaleString("en")} of ${counted(row.tokens, "token")} read (${number(100 * row.tokens_active / Math.max(1, row.tokens), 2)}%)`))));
}

function strip(board, site, latent) {
  const active = rowsOf(board.strips);
  const most = Math.max(...active.map(({ max }) => max), 1e-12);
  return core.conditions.map((condition, index) => {
    const found = new Map(active.filter((row) => row.condition === condition).map((row) => [row.trace_id, row]));
    const written = (board.held ? heldTraces : traces).filter((trace) => trace.condition === index);
    if (!written.length) return null;
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

function passages(board, tokens, site, latent, bands = Object.keys(BANDS)) {
  const [studied] = rowsOf(board.histograms);
  const most = Math.max(studied.largest, 1e-12);
  const cuts = studied.quartiles;
  const shown = rowsOf(board.passages);
  const strongest = largest(shown.flatMap((row) => row.changes ?? []));
  if (!shown.length) return [el("p", {}, "None: it is active on no generated token that counts.")];
  return bands.map((band) => {
    const [title, quarter] = BANDS[band];
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

/** The rule that says most of what a latent is on, and how well it does on traces that it wasn't learnt from. */
function ruleText({ rule, tokens, ...row }) {
  const share = (name) => shareOf(row[name], row[`${name}_low`], row[`${name}_high`]);
  return [el("p", { class: "rule" }, rule), el("p", { class: "legend" }, `A rule learnt from half of the traces, proposed as a name; no check reads it. On the others, where it is strongly on ${counted(tokens, "token")}: precision ${share("precision")}, recall ${share("recall")}, F1 ${number(row.f1, 2)}; of activations moved against the text it would be ${number(row.shuffled, 2)}.`)];
}

/** Whether its passages are alike, by an encoder. */
function alikeText({ passages, embedding, low, high, groups, intruder, intruder_low: least, intruder_high: most }) {
  return el("p", { class: "legend" }, `Are its passages alike? By their words, an encoder tells ${passages} of them from places beside it in the same traces with AUROC ${number(embedding, 2)}${range(low, high)}, 0.5 by chance; and finds the one it isn’t on among five in ${percent(intruder)} (${percent(least)} to ${percent(most)}) of ${groups} groups, 20% by chance.`);
}

/** Return the rows of the patterns, one alone for a pattern that has the same note in place of a number in all windows. */
function patternRows(board) {
  const rows = rowsOf(board.patterns);
  const alike = (row) => row.note && rows.filter((other) => other.pattern === row.pattern).every((other) => other.note === row.note);
  const first = (row) => rows.find((other) => other.pattern === row.pattern) === row;
  return rows.filter((row) => !alike(row) || first(row)).map((row) => (alike(row) ? { ...row, window: null } : row));
}

/** The head of a dashboard: what it is of, and the ways on. */
function head(title, ...ways) {
  return el("div", { class: "head" }, el("h2", { id: "dashboard-title", tabindex: "-1" }, title),
    el("div", { class: "steps" }, ways, el("button", { type: "button", click: () => dialog.close() }, "Close")));
}

/** The steps to the latents before and after in the table, as it is sorted and filtered. */
function steps(site, latent) {
  const name = core.sites[site].name;
  const rows = [...document.querySelectorAll(`#latents-${site} tbody tr:not([hidden])`)].map((row) => Number(row.dataset.latent));
  const order = rows.includes(latent) ? rows : core.sites[site].latents; // as the table is sorted and filtered
  const place = order.indexOf(latent);
  // A step takes the place of this dashboard in the browser's history: one step back leaves them all.
  const step = (by, rel, words, arrow) => el("a", { rel, href: `#${name}/${order[(place + by + order.length) % order.length]}`, title: words, "aria-label": words,
    click: (event) => { event.preventDefault(); history.replaceState(null, "", event.currentTarget.hash); follow(); } }, arrow);
  return [step(-1, "prev", "Previous latent of the table", "←"), el("span", {}, `${place + 1} of ${order.length}`), step(1, "next", "Next latent of the table", "→")];
}

function dashboard(board, tokens, site, latent) {
  const name = core.sites[site].name;
  const label = (token) => chip(tokens[token]);
  const [reason, effects, controls, presence, contrasts] = [board.reason, ...["effects", "controls", "presence", "contrasts"].map((key) => rowsOf(board[key]))];
  const parts = [
    head([`Latent ${latent} `, el("small", {}, `at ${name}`)], steps(site, latent)),
    el("p", {}, el("span", { class: `verdict ${board.verdict.replace(" ", "-")}` }, board.verdict), board.why ? ` (${board.why}). ` : ". ",
      board.needs ? `${board.needs[0].toUpperCase()}${board.needs.slice(1)}. ` : null,
      `Among the top ${core.top} in ${board.traces} of ${counted(board.of, "trace")} under “${core.conditions[0]}” (95% interval ${board.interval} of all such traces).`,
      board.neuronpedia ? [" ", el("a", { href: board.neuronpedia, rel: "noreferrer" }, "On Neuronpedia")] : null),
    noteForm(site, latent),
    board.rule || board.coherence ? part("In words", board.rule ? ruleText(board.rule) : null, board.coherence ? alikeText(board.coherence) : null) : null,
    part("Checks", table("Checks", ["check", "result", "number", "what it is", "why", "what it would take"], rowsOf(board.checks).map((row) =>
      [row.check, el("span", { class: "result" }, el("span", { class: `check ${row.result}` }), ` ${row.result}`), number(row.number), core.numbers[row.check], row.note, row.needs || "–"]))),
    el("div", { class: "columns" },
      part("Activations", histogram(rowsOf(board.histograms))),
      part("Recurrence", strip(board, site, latent))),
    board.use ? part("Does the model use it?", use(board.use)) : null,
    part("Passages", passages(board, tokens, site, latent),
      board.passages.changes.some((changes) => changes !== null) ? el("p", { class: "legend" }, "Underlined: tokens that the model makes ", el("span", { class: "loses", style: "--change: 90%" }, "less"), " or ", el("span", { class: "gains", style: "--change: 90%" }, "more"), " likely without the latent.") : null),
    el("div", { class: "columns" },
      part("Top token types", typesTable(board, tokens) ?? el("p", {}, "None listed: without sinks it is among the top of no trace.")),
      part("Logit effect", effects.length ? el("div", { class: "columns" },
        ...[["top", "raises"], ["bottom", "lowers"]].map(([side, text]) => el("div", {}, table(text, [text, "by"],
          effects.filter((row) => row.side === side).map((row) => [label(row.token), number(row.effect)])))))
        : el("p", {}, "None: what is read here isn’t added to the residual stream as it is.")),
      part("Nearest by decoder", table("Nearest latents by decoder cosine", ["latent", "cosine"],
        rowsOf(board.neighbours).map((row) => [latentLink(site, row.neighbour), number(row.cosine)]))),
      part("Nearest by co-activation", coactiveTable(board, site) ?? el("p", {}, "None."))),
    board.amplified ? part("Held at its largest activation", rowsOf(board.amplified).length ? [
      el("p", { class: "legend" }, "Mean change of tokens’ logits, and with other leading latents of the site held so: what rises, or falls, most beyond those."),
      el("div", { class: "columns" }, ...[["top", "raises"], ["bottom", "lowers"]].map(([side, text]) => el("div", {}, table(`Held high, it ${text}`,
        [text, "by", "others", "beyond them (95%)"], rowsOf(board.amplified).filter((row) => row.side === side).map((row) =>
          [label(row.token), number(row.change), number(row.others), `${number(row.change - row.others)}${range(row.low, row.high)}`])))))]
      : el("p", {}, "Not tried: it is active on sinks alone, or no trace has a token to look at.")) : null,
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
  return [...parts, besideForm(site, latent)];
}

/** Return the dashboard of a latent: from its tables where it is a leading one, else from the traces that the page holds. */
async function boardOf(site, latent, wanted = () => true, progress = () => {}) {
  const boards = await unpack(`site-${site}`);
  return Object.hasOwn(boards, latent) ? boards[latent] : sketch(site, latent, wanted, progress);
}

/** Show the dialog with what `content` makes, unless another place was asked for meanwhile. */
async function openDialog(content) {
  const { hash } = location;
  const wanted = () => location.hash === hash;
  const stepping = dialog.open ? document.activeElement.rel : "";
  const show = (nodes) => {
    if (!wanted()) return;
    if (!dialog.open) {
      opener = document.activeElement.hash === hash ? document.activeElement : null;
      dialog.showModal();
    }
    dialog.replaceChildren(...[nodes].flat(Infinity).filter((node) => node !== null));
    dialog.dataset.hash = hash;
  };
  const status = el("p", { role: "status" });
  const progress = (text) => {
    if (!status.isConnected) show([head("Reading"), status]);
    if (wanted()) status.textContent = text;
  };
  try {
    show(await content(wanted, progress));
  } catch (error) {
    show([head("This can’t be shown"), el("p", {}, String(error))]);
  }
  if (!wanted()) return;
  dialog.scrollTop = left?.hash === hash ? left.top : 0;
  left = null;
  dialog.querySelector(stepping ? `a[rel=${stepping}]` : "#dashboard-title")?.focus({ preventScroll: true });
}

const isLatent = (site, latent) => /^\d+$/.test(latent) && Number(latent) < core.sites[site].size;

function openDashboard(site, latent) {
  const { name, size } = core.sites[site];
  return openDialog(async (wanted, progress) => {
    if (!isLatent(site, latent)) return [head(`No dashboard for latent ${latent}`), el("p", {}, `The latents of ${name} are 0 to ${size - 1}.`)];
    if (!core.sites[site].latents.includes(Number(latent)) && !heldTraces.length) return [head(`No dashboard for latent ${latent}`), el("p", {}, `It isn’t among the leading latents of ${name}, and this page holds no trace to compute one from (report.max_megabytes).`)];
    const [board, tokens] = await Promise.all([boardOf(site, Number(latent), wanted, progress), tokenRows()]);
    if (board === null) return [];
    return board.held ? sketched(board, tokens, site, Number(latent)) : dashboard(board, tokens, site, Number(latent));
  });
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
