// The report's script, of which this is the first part (page.py has their order). Text is only ever set as text.
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
  node.append(...children.flat(Infinity).filter((child) => child !== null && child !== undefined));
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

const counted = (count, noun) => `${count.toLocaleString("en")} ${noun}${count === 1 ? "" : "s"}`;
const percent = (value, digits = 2) => (value === null || value === undefined ? "–" : `${number(100 * value, digits)}%`);
const shareOf = (value, low, high) => `${percent(value)}${low === null || low === undefined ? "" : ` (${percent(low)} to ${percent(high)})`}`;
const range = (low, high) => (low === null || low === undefined ? "" : ` (${number(low)} to ${number(high)})`);
const sum = (values) => values.reduce((total, value) => total + value, 0);
const held = (condition, id) => document.getElementById(`parcel-trace-${condition}-${id}`) !== null;
const heldTraces = traces.filter((trace) => held(trace.condition, trace.trace_id));

/** Characters of packed traces up to which all are kept once they are unpacked; of more, each is unpacked when needed. */
const KEPT = 12e6;
const kept = sum(heldTraces.map(({ condition, trace_id: id }) => document.getElementById(`parcel-trace-${condition}-${id}`).textContent.length)) <= KEPT;

/** Show each trace that the page holds to `visit`, in order, until `wanted` says that it is too late. */
async function eachTrace(visit, wanted = () => true, progress = () => {}) {
  for (const [index, about] of heldTraces.entries()) {
    const name = `trace-${about.condition}-${about.trace_id}`;
    const known = parcels.has(name);
    const trace = await unpack(name);
    if (!kept && !known) parcels.delete(name);
    if (!wanted()) return false;
    visit(about, trace);
    if (index % 20 === 0) {
      progress(`${index} of ${counted(heldTraces.length, "trace")} …`);
      await new Promise((resolve) => { setTimeout(resolve); }); // else nothing else could be done meanwhile
    }
  }
  return true;
}

/** Undo the differences of a trace's active latents (see reader.py): each with its positions and activations there. */
function* latentsIn(packed) {
  const step = Math.log(packed.high / packed.low) / LEVELS;
  let [latent, index] = [0, 0];
  for (const [which, gap] of packed.latents.entries()) {
    latent += gap;
    const [positions, activations] = [[], []];
    let position = 0;
    for (const end = index + packed.counts[which]; index < end; index += 1) {
      position += packed.positions[index];
      positions.push(position);
      activations.push(packed.low * Math.exp(step * packed.levels[index]));
    }
    yield { latent, positions, activations };
  }
}

/** By what share the reader's activations of a trace at a site may be off, as they are rounded. */
const roundedBy = (packed) => Math.expm1(Math.log(packed.high / packed.low) / LEVELS / 2);

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


// Addresses, and what several parts show.

/** The address of a trace in the reader, shaded by a latent, and of a token in it where a position is given. */
function traceAddress(condition, id, site, latent, position = null) {
  return `#${["trace", core.conditions[condition], id, core.sites[site].name, latent ?? "", ...(position === null ? [] : [position])].join("/")}`;
}

const latentAddress = (site, latent) => `#${core.sites[site].name}/${latent}`;
const latentLink = (site, latent, text = String(latent)) => el("a", { href: latentAddress(site, latent) }, text);

function scroll(label, ...children) {
  return el("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": label }, ...children);
}

function table(label, headings, rows) {
  const made = el("table", {},
    el("thead", {}, el("tr", {}, headings.map((text) => el("th", { scope: "col" }, text)))),
    el("tbody", {}, rows.map((cells) => el("tr", {}, cells.map((cell, index) =>
      index === 0 ? el("th", { scope: "row" }, cell) : el("td", {}, cell))))),
  );
  return [scroll(label, made), csvButton(made, label)];
}

/** A token in a table. */
const chip = (token) => el("code", {}, token.label);

function part(title, ...children) {
  return el("section", {}, el("h3", {}, title), ...children);
}

/** Give the reader a file that the page made. */
function save(name, text, type) {
  const address = URL.createObjectURL(new Blob([text], { type }));
  el("a", { href: address, download: name.replaceAll(/[^\w.-]+/g, "_") }).click();
  setTimeout(() => URL.revokeObjectURL(address), 10_000);
}

/** Write rows of text as CSV (RFC 4180). What a spreadsheet would take for a formula gets a quote before it. */
function csv(rows) {
  const cell = (value) => {
    const text = String(value ?? "");
    const isNumber = /^-?[\d.]+(e[+-]?\d+)?%?( \(-?[\d.]+%? to -?[\d.]+%?\))?$/.test(text);
    const safe = /^\s*[=+\-@＝＋－＠]/.test(text) && !isNumber ? `'${text}` : text;
    return /[",\r\n]/.test(safe) ? `"${safe.replaceAll('"', '""')}"` : safe;
  };
  return rows.map((row) => `${row.map(cell).join(",")}\r\n`).join("");
}
