// Dashboards of latents that have none in the tables: computed from the traces that the page holds.

const [BEFORE, AFTER] = core.passage;

/** Return whether a token counts: it was written, read, and is no sink, or sinks count. */
function counts(trace, site) {
  const sinks = new Set(core.include_sinks ? [] : trace.sites[site].sinks);
  return (position) => position >= trace.prompt && position < trace.tokens.length - 1 && !sinks.has(position);
}

const read = (trace, does) => trace.tokens.reduce((total, _, position) => total + does(position), 0);

/** φ of two latents' being active: of n tokens the one is active on a, the other on b, both on c (see dashboards.py). */
function phi(n, a, b, c) {
  const root = Math.sqrt(a * (n - a)) * Math.sqrt(b * (n - b));
  return root > 0 ? (n * c - a * b) / root : null;
}

/** A quantile of sorted values, interpolated linearly. */
function quantile(sorted, share) {
  const at = share * (sorted.length - 1);
  const low = sorted[Math.floor(at)];
  return low + (at - Math.floor(at)) * ((sorted[Math.ceil(at)] ?? low) - low);
}

/** The passage around a token, as `passages` takes it; a latent's activations are by position. */
function passage(band, { about, trace, values }, peak) {
  const [start, end] = [Math.max(0, peak - BEFORE), Math.min(trace.tokens.length, peak + AFTER + 1)];
  return {
    band, condition: core.conditions[about.condition], trace_id: about.trace_id, start, peak, tokens: trace.tokens.slice(start, end), changes: null,
    values: trace.tokens.slice(start, end).map((_, offset) => (start + offset === trace.tokens.length - 1 ? null : values.get(start + offset) ?? 0)),
  };
}

/** Return the dashboard of any latent, with what `held` traces allow; null if it isn't wanted any longer. */
async function sketch(site, latent, wanted, progress) {
  const [found, others, types] = [[], new Map(), new Map()];
  const tokens = core.conditions.map(() => 0);
  let rounded = 0;
  const done = await eachTrace((about, trace) => {
    const does = counts(trace, site);
    tokens[about.condition] += read(trace, does);
    rounded = Math.max(rounded, roundedBy(trace.sites[site]));
    const all = [...latentsIn(trace.sites[site])].map((each) => ({ ...each, counted: each.positions.filter(does) }));
    const own = all.find((each) => each.latent === latent);
    const there = new Set(own?.counted);
    if (about.condition === 0) {
      for (const { latent: other, counted: at } of all) {
        const [active, both] = others.get(other) ?? [0, 0];
        others.set(other, [active + at.length, both + at.filter((position) => there.has(position)).length]);
      }
    }
    if (!own?.counted.length) return;
    const maximum = ({ positions, activations }) => activations.reduce((most, value, index) => (does(positions[index]) ? Math.max(most, value) : most), 0);
    const max = maximum(own);
    const rank = 1 + all.filter((each) => each.latent !== latent && (maximum(each) > max || (maximum(each) === max && each.latent < latent))).length;
    const values = new Map(own.positions.map((position, index) => [position, own.activations[index]]));
    found.push({ about, trace, values, max, rank, at: own.counted });
    if (about.condition) return;
    for (const position of own.counted) {
      const type = types.get(trace.tokens[position]) ?? { max: 0, tokens: 0, traces: new Set() };
      type.traces.add(about.trace_id);
      types.set(trace.tokens[position], { ...type, max: Math.max(type.max, values.get(position)), tokens: type.tokens + 1 });
    }
  }, wanted, (text) => progress(`Reading ${text}`));
  if (!done) return null;
  const peaks = found.flatMap(({ about, at, values }, index) => at.map((position) => ({ index, condition: about.condition, position, value: values.get(position) })));
  const studied = peaks.filter(({ condition }) => condition === 0).sort((a, b) => b.value - a.value);
  const most = peaks.reduce((largest, { value }) => Math.max(largest, value), 0);
  const cuts = [0, 0.25, 0.5, 0.75, 1].map((share) => quantile(studied.map(({ value }) => value).reverse(), share));
  const total = tokens[0];
  const active = studied.length;
  return {
    held: heldTraces.length, rounded, verdict: null,
    histograms: columnsOf(core.conditions.flatMap((condition, index) => {
      if (index && !tokens[index]) return []; // no trace of it is held
      const values = peaks.filter((each) => each.condition === index).map(({ value }) => value);
      const bins = Array.from({ length: 30 }, () => 0);
      for (const value of values) bins[Math.min(29, Math.floor((value / most) * 30))] += 1;
      return { condition, tokens_active: values.length, tokens: tokens[index], largest: most, counts: bins, quartiles: index || !active ? [] : cuts };
    })),
    strips: columnsOf(found.map(({ about, rank, max }) => ({ condition: core.conditions[about.condition], trace_id: about.trace_id, rank, max }))),
    passages: columnsOf(drawn(studied, cuts).map(({ band, index, position }) => passage(band, found[index], position))),
    types: columnsOf([...types].map(([token, type]) => ({ token, ...type, traces: type.traces.size })).sort((a, b) => b.max - a.max || a.token - b.token).slice(0, 20)),
    coactive: columnsOf([...others].filter(([other, [on]]) => other !== latent && on >= core.min_tokens && on < total)
      .map(([other, [on, both]]) => ({ neighbour: other, phi: phi(total, active, on, both), both }))
      .filter((row) => row.phi !== null).sort((a, b) => b.phi - a.phi || a.neighbour - b.neighbour).slice(0, 10)),
  };
}

/** Turn rows into columns, which rowsOf takes; none if there is none. */
const columnsOf = (rows) => Object.fromEntries(Object.keys(rows[0] ?? { none: 0 }).map((name) => [name, rows.map((row) => row[name])]));

/** Choose peaks to show, of all by falling activation: the largest of each trace, then of each quarter some, evenly. */
function drawn(peaks, cuts) {
  const shown = [];
  const near = (peak) => shown.some((each) => each.index === peak.index && Math.abs(each.position - peak.position) <= AFTER);
  for (const peak of peaks) {
    if (shown.length < 8 && !shown.some((each) => each.index === peak.index)) shown.push({ ...peak, band: "top" });
  }
  for (const [band, [, quarter]] of Object.entries(BANDS).filter(([name]) => name !== "top")) {
    const within = peaks.filter(({ value }) => value >= cuts[quarter] && (quarter === 3 || value < cuts[quarter + 1]));
    for (let each = 0; each < 4; each += 1) {
      const fresh = within.filter((peak) => !near(peak));
      const peak = fresh[Math.floor(((each + 0.5) / 4) * fresh.length)];
      if (peak) shown.push({ ...peak, band });
    }
  }
  return shown.sort((a, b) => b.value - a.value);
}

/** What a sketch says of itself. */
const sketchedFrom = ({ held: from, rounded }) => `Computed from the ${counted(from, "trace")} that this page holds${from < traces.length ? ` (of ${traces.length})` : ""}; activations are within ${percent(rounded)}, and ranks may differ where they are as close. Token types are all those it is active on.`;

function typesTable(board, tokens) {
  return rowsOf(board.types).length ? table("Top token types", ["token", "maximum", "tokens", "traces"], rowsOf(board.types).map((row) => [chip(tokens[row.token]), number(row.max), row.tokens, row.traces])) : null;
}

function coactiveTable(board, site) {
  return rowsOf(board.coactive).length ? table("Nearest latents by co-activation", ["latent", "φ", "both on"],
    rowsOf(board.coactive).map((row) => [latentLink(site, row.neighbour), number(row.phi), counted(row.both, "token")])) : null;
}

/** The dashboard of a latent that isn't among the leading ones. */
function sketched(board, tokens, site, latent) {
  const { name, latents } = core.sites[site];
  return [
    head([`Latent ${latent} `, el("small", {}, `at ${name}`)]),
    el("p", {}, `No test’s numbers are here: it isn’t among the ${counted(latents.length, "leading latent")} of ${name}, which report.latents sets; those of all candidates are in the site’s tables. ${sketchedFrom(board)}`),
    noteForm(site, latent),
    el("div", { class: "columns" }, part("Activations", histogram(rowsOf(board.histograms))), part("Recurrence", strip(board, site, latent))),
    part("Passages", passages(board, tokens, site, latent)),
    el("div", { class: "columns" },
      part("Top token types", typesTable(board, tokens) ?? el("p", {}, "None.")),
      part("Nearest by co-activation", coactiveTable(board, site) ?? el("p", {}, "None."))),
    besideForm(site, latent),
  ];
}
