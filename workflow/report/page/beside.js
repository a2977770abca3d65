// Two latents side by side.

/** A form that asks for another latent to put beside one. */
function besideForm(site, latent) {
  const other = el("select", { "aria-label": "Site of the other latent" }, core.sites.map(({ name }, index) => el("option", { value: index, selected: index === site }, name)));
  const which = el("input", { type: "number", min: 0, step: 1, required: true, max: core.sites[site].size - 1, "aria-label": "The other latent" });
  other.addEventListener("change", () => { which.max = core.sites[other.value].size - 1; });
  const submit = (event) => {
    event.preventDefault();
    location.hash = `${latentAddress(site, latent)}/${core.sites[other.value].name}/${which.valueAsNumber}`;
  };
  return el("form", { class: "filters beside", submit }, el("label", {}, "Put beside it latent ", which), el("label", {}, " at ", other), el("button", {}, "Compare"));
}

/** Count, over the tokens that count under the condition under study, where two latents are active, alone and together. */
async function together(pair, wanted, progress) {
  const [tokens, on, joint] = [[0, 0], [0, 0], []];
  let both = 0;
  const done = await eachTrace((about, trace) => {
    if (about.condition) return;
    const counting = pair.map(({ site }) => counts(trace, site));
    const does = (position) => counting.every((each) => each(position)); // no sink at either site
    const values = pair.map(({ site, latent }) => {
      const own = [...latentsIn(trace.sites[site])].find((each) => each.latent === latent);
      return new Map((own?.positions ?? []).map((position, index) => [position, own.activations[index]]));
    });
    tokens[0] += read(trace, does);
    const active = values.map((each) => [...each.keys()].filter(does));
    active.forEach((positions, index) => { on[index] += positions.length; });
    const shared = active[0].filter((position) => values[1].has(position));
    both += shared.length;
    const best = shared.reduce((peak, position) => (peak === null || values[0].get(position) * values[1].get(position) > values[0].get(peak) * values[1].get(peak) ? position : peak), null);
    if (best !== null) joint.push({ about, trace, values, peak: best, strength: values[0].get(best) * values[1].get(best) });
  }, wanted, progress);
  return done ? { tokens: tokens[0], on, both, joint: joint.sort((a, b) => b.strength - a.strength).slice(0, 6) } : null;
}

function openBeside(site, latent, otherSite, other) {
  return openDialog(async (wanted, progress) => {
    const named = [[site, latent], [otherSite, other]];
    const unknown = named.find(([at, which]) => !isLatent(at, which));
    if (unknown) return [head(`No latent ${unknown[1]}`), el("p", {}, `The latents of ${core.sites[unknown[0]].name} are 0 to ${core.sites[unknown[0]].size - 1}.`)];
    const pair = named.map(([at, which]) => ({ site: at, latent: Number(which) }));
    const tokens = await tokenRows();
    const boards = [];
    for (const each of pair) boards.push(await boardOf(each.site, each.latent, wanted, progress));
    const shared = boards.includes(null) ? null : await together(pair, wanted, progress);
    return shared === null ? [] : beside(pair, boards, shared, tokens);
  });
}

function beside(pair, boards, shared, tokens) {
  const names = pair.map(({ site, latent }) => `${latent} at ${core.sites[site].name}`);
  const of = (count, all) => `${counted(count, "token")} (${percent(all ? count / all : null)})`;
  return [
    head(`Latents ${names.join(" and ")}`),
    part("Together", el("p", {}, shared.tokens ? `Of ${counted(shared.tokens, "token")} written under “${core.conditions[0]}” in the traces that this page holds, ${pair[0].latent} is active on ${of(shared.on[0], shared.tokens)}, ${pair[1].latent} on ${of(shared.on[1], shared.tokens)}, both on ${of(shared.both, shared.tokens)}; by chance it would be ${number((shared.on[0] * shared.on[1]) / shared.tokens)}. φ = ${number(phi(shared.tokens, ...shared.on, shared.both))}.` : "No trace is held by this page."),
      shared.joint.map((row) => jointPassage(pair, row, tokens)),
      shared.joint.length ? el("p", { class: "legend" }, `Where both are most active together, a passage a trace: shaded by ${names[0]}, underlined by ${names[1]}.`) : null),
    el("div", { class: "columns pair" }, pair.map(({ site, latent }, index) => {
      const board = boards[index];
      return el("section", {}, el("h3", {}, latentLink(site, latent, `Latent ${latent}`), " ", el("small", {}, `at ${core.sites[site].name}`), " ", labelOf(site, latent)),
        el("p", {}, board.verdict === null ? sketchedFrom(board)
          : [el("span", { class: `verdict ${board.verdict.replace(" ", "-")}` }, board.verdict), board.why ? ` (${board.why})` : "", ": ",
            rowsOf(board.checks).map((row) => el("span", { class: "result" }, el("span", { class: `check ${row.result}` }), ` ${row.check} `, el("span", { class: "hidden" }, `${row.result}; `))).flatMap((mark) => [mark, " "])]),
        board.rule ? el("p", { class: "rule" }, board.rule.rule) : null,
        el("h4", {}, "Activations"), histogram(rowsOf(board.histograms)), el("h4", {}, "Recurrence"), strip(board, site, latent),
        el("h4", {}, "Top passages"), passages(board, tokens, site, latent, ["top"]), el("h4", {}, "Top token types"), typesTable(board, tokens) ?? el("p", {}, "None."));
    })),
  ];
}

function jointPassage(pair, { about, trace, values, peak }, tokens) {
  const most = values.map((each) => Math.max(...each.values()));
  const [start, end] = [Math.max(0, peak - BEFORE), Math.min(trace.tokens.length, peak + AFTER + 1)];
  const text = trace.tokens.slice(start, end).map((token, offset) => {
    const [own, other] = values.map((each) => each.get(start + offset) ?? 0);
    const span = tokenSpan(tokens[token], own, most[0], { title: `${tokens[token].label}: ${number(own)} and ${number(other)}`, class: start + offset === peak ? "token peak" : "token" });
    underline(span, other, most[1]);
    return span;
  });
  return el("div", { class: "passage" }, el("a", { class: "where", href: traceAddress(about.condition, about.trace_id, pair[0].site, pair[0].latent, peak) }, `${core.conditions[about.condition]} ${about.trace_id}`),
    el("span", { class: "value" }, number(values[0].get(peak))), el("p", { class: "text" }, text));
}
