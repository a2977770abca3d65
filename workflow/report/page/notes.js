// Labels and notes that a reader writes on latents: kept in the browser, for this study's SAEs, and saved as a file.

const SHELF = `thoughtscope notes: ${core.experiment} ${core.saes}`;
/** Notes that are listed. */
const LISTED = 500;

const LONGEST = { label: 80, note: 10_000 };

/** Notes by "site latent", each with site, latent, label, note and when it was changed. */
let notes = new Map();
let keeps = true; // whether this browser keeps them
let told = ""; // what came of the file that was last taken in

/** Return a note if it is one of a latent of this study; else null. */
function noteFrom(value) {
  const { site, latent, label = "", note = "", changed = "" } = value ?? {};
  const known = siteIndex(site) >= 0 && Number.isInteger(latent) && isLatent(siteIndex(site), String(latent));
  if (!known || ![label, note, changed].every((text) => typeof text === "string") || !(label + note).trim()) return null;
  const when = /^\d{4}-\d\d-\d\dT[\d:.]+Z$/.test(changed) && changed <= new Date().toISOString() ? changed : "";
  return { site, latent, label: label.trim().slice(0, LONGEST.label), note: note.trim().slice(0, LONGEST.note), changed: when };
}

function readNotes() {
  let kept = null;
  try {
    kept = localStorage.getItem(SHELF);
    keeps = true;
  } catch {
    keeps = false;
  }
  try {
    notes = new Map(JSON.parse(kept ?? "[]").map(noteFrom).filter(Boolean).map((each) => [`${each.site} ${each.latent}`, each]));
  } catch {
    notes = new Map(); // what is there isn't ours
  }
}

function keepNotes() {
  try {
    localStorage.setItem(SHELF, JSON.stringify([...notes.values()]));
    keeps = true;
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
  // As it is typed, as a page may be closed at any time; the field alone, as another tab may have changed the other one.
  const input = ({ target }) => {
    readNotes();
    const key = `${core.sites[site].name} ${latent}`;
    const now = { label: "", note: "", ...notes.get(key), site: core.sites[site].name, latent, [target.name]: target.value.trim(), changed: new Date().toISOString() };
    if (now.label || now.note) notes.set(key, now);
    else notes.delete(key);
    keepNotes();
  };
  const label = el("input", { type: "text", name: "label", maxlength: LONGEST.label, value: known?.label, placeholder: "what it stands for", input });
  const note = el("textarea", { rows: 1, name: "note", maxlength: LONGEST.note, placeholder: "what you saw", input }, known?.note ?? "");
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
  const clear = () => { if (clear.sure) { notes = new Map(); told = "Deleted."; keepNotes(); document.querySelector("#your-notes input").focus(); } else { clear.sure = true; said.textContent = "Press again to delete all of them from this browser."; } };
  document.getElementById("your-notes").replaceChildren(...[
    keeps ? null : el("p", {}, el("b", {}, "This browser keeps nothing of this page: save them before you close it.")),
    all.length ? scroll("Your notes", el("table", {}, el("thead", {}, el("tr", {}, ["latent", "label", "note", "changed"].map((text) => el("th", { scope: "col" }, text)))),
      el("tbody", {}, all.slice(0, LISTED).map((each) => el("tr", {}, el("th", { scope: "row" }, latentLink(siteIndex(each.site), each.latent, `${each.latent} at ${each.site}`)), el("td", {}, each.label), el("td", { class: "text" }, each.note), el("td", {}, each.changed.slice(0, 10)))))))
      : el("p", {}, "None yet."),
    all.length > LISTED ? el("p", {}, `The first ${LISTED} of ${counted(all.length, "note")}; the saved files have all.`) : null,
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
      const newer = found.filter((each) => !(notes.get(`${each.site} ${each.latent}`)?.changed > each.changed));
      for (const each of newer) notes.set(`${each.site} ${each.latent}`, each);
      const [older, odd] = [found.length - newer.length, given.notes.length - found.length];
      told = `Took in ${counted(newer.length, "note")}${older ? `; ${older} not, as what is here is newer` : ""}${odd ? `; ${odd} not, as they say nothing of latents here` : ""}.`;
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
