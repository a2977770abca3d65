// Labels and notes that a reader writes on latents: kept in the browser, for this study's SAEs, and saved as a file.

const SHELF = `thoughtscope notes: ${core.experiment} ${core.saes}`;
const LONGEST = { label: 80, note: 10_000 };

/** Notes by "site latent", each with site, latent, label, note and when it was changed. */
let notes = new Map();
let keeps = true; // whether this browser keeps them
let told = ""; // what came of the file that was last taken in

/** Return a note if it is one of a latent of this study; else null. */
function noteFrom(value) {
  const { site, latent, label = "", note = "", changed = "" } = value ?? {};
  const known = siteIndex(site) >= 0 && Number.isInteger(latent) && isLatent(siteIndex(site), String(latent));
  const texts = [label, note, changed].every((text) => typeof text === "string");
  return known && texts ? { site, latent, label: label.slice(0, LONGEST.label), note: note.slice(0, LONGEST.note), changed: changed.slice(0, 40) } : null;
}

function readNotes() {
  try {
    const kept = JSON.parse(localStorage.getItem(SHELF) ?? "[]");
    notes = new Map(kept.map(noteFrom).filter(Boolean).map((each) => [`${each.site} ${each.latent}`, each]));
  } catch {
    keeps = false;
  }
}

function keepNotes() {
  try {
    localStorage.setItem(SHELF, JSON.stringify([...notes.values()]));
  } catch {
    keeps = false;
  }
  showNotes();
}

const noteOf = (site, latent) => notes.get(`${core.sites[site].name} ${latent}`);

/** A latent's label, for wherever it is named; nothing where it has none. */
function labelOf(site, latent) {
  const label = noteOf(site, latent)?.label;
  return label ? el("small", { class: "label" }, label) : null;
}

/** Fields for a latent's label and note. */
function noteForm(site, latent) {
  const known = noteOf(site, latent);
  const change = () => {
    const key = `${core.sites[site].name} ${latent}`;
    if (label.value.trim() || note.value.trim()) notes.set(key, { site: core.sites[site].name, latent, label: label.value.trim(), note: note.value.trim(), changed: new Date().toISOString() });
    else notes.delete(key);
    keepNotes();
  };
  const label = el("input", { type: "text", maxlength: LONGEST.label, value: known?.label, placeholder: "what it stands for", change });
  const note = el("textarea", { rows: 1, maxlength: LONGEST.note, placeholder: "what you saw", change }, known?.note ?? "");
  return el("form", { class: "filters note", "aria-label": "Your label and note", submit: (event) => event.preventDefault() }, el("label", {}, "Your label ", label), el("label", {}, "Your note ", note));
}

/** Show the labels in the tables of latents, and all notes in their section. */
function showNotes() {
  for (const row of document.querySelectorAll("table.latents tbody tr")) {
    const cell = row.cells[0];
    cell.querySelector(".label")?.remove();
    const label = labelOf(Number(row.closest("table").id.replace("latents-", "")), Number(row.dataset.latent));
    if (label) cell.append(" ", label);
  }
  const all = [...notes.values()].sort((a, b) => siteIndex(a.site) - siteIndex(b.site) || a.latent - b.latent);
  const file = (kind) => `${core.experiment} notes.${kind}`;
  const json = () => save(file("json"), `${JSON.stringify({ format: "thoughtscope notes", experiment: core.experiment, saes: core.saes, notes: all }, null, 1)}\n`, "application/json");
  const names = ["site", "latent", "label", "note", "changed"];
  const saved = () => save(file("csv"), csv([names, ...all.map((each) => names.map((name) => each[name]))]), "text/csv");
  const choose = el("input", { type: "file", accept: ".json,application/json", change: () => loadNotes(choose.files[0]) });
  const said = el("output", {}, told);
  const clear = () => { if (clear.sure) { notes = new Map(); keepNotes(); } else { clear.sure = true; said.textContent = "Press again to delete all of them from this browser."; } };
  document.getElementById("your-notes").replaceChildren(...[
    keeps ? null : el("p", {}, el("b", {}, "This browser keeps nothing of this page: save them before you close it.")),
    all.length ? scroll("Your notes", el("table", {}, el("thead", {}, el("tr", {}, ["latent", "label", "note", "changed"].map((text) => el("th", { scope: "col" }, text)))),
      el("tbody", {}, all.map((each) => el("tr", {}, el("th", { scope: "row" }, latentLink(siteIndex(each.site), each.latent, `${each.latent} at ${each.site}`)), el("td", {}, each.label), el("td", { class: "text" }, each.note), el("td", {}, each.changed.slice(0, 10)))))))
      : el("p", {}, "None yet."),
    el("div", { class: "filters" }, all.length ? [el("button", { type: "button", click: json }, "Save as JSON"), el("button", { type: "button", click: saved }, "Save as CSV"), el("button", { type: "button", click: clear }, "Delete all")] : null,
      el("label", {}, "Take in a saved JSON ", choose), said)].filter(Boolean));
}

/** Take in notes from a file; of two on the same latent the one that was changed last stays. */
async function loadNotes(file) {
  try {
    const given = JSON.parse(await file.text());
    if (given.format !== "thoughtscope notes" || !Array.isArray(given.notes)) throw new TypeError("another file");
    const found = given.notes.map(noteFrom).filter(Boolean);
    if (given.saes !== core.saes) told = `${file.name} is about other SAEs (of ${given.experiment}), whose latents are others: nothing was taken in.`;
    else {
      for (const each of found) {
        const key = `${each.site} ${each.latent}`;
        if (!(notes.get(key)?.changed > each.changed)) notes.set(key, each);
      }
      const left = given.notes.length - found.length;
      told = `Took in ${counted(found.length, "note")}${left ? `; ${left} not, as they aren’t of latents here` : ""}.`;
    }
  } catch {
    told = `${file.name} has no notes of thoughtscope: a file that “Save as JSON” gave is needed.`;
  }
  keepNotes();
}

function buildNotes() {
  readNotes();
  showNotes();
  window.addEventListener("storage", (event) => { if (event.key === SHELF) { readNotes(); showNotes(); } });
}
