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

/** Return what a cell says, in one line, with numbers as spreadsheets know them. */
function said(cell) {
  const copy = cell.cloneNode(true);
  for (const each of copy.querySelectorAll("button, .label")) each.remove();
  for (const each of copy.querySelectorAll("small, .hidden, code")) each.before(" ");
  const text = copy.textContent.replaceAll(/\s+/g, " ").trim();
  if (cell.querySelector("code, .token")) return text; // tokens are as they are
  return text.replaceAll("−", "-").replace(/^–$/, "").replaceAll(/(?<=\d),(?=\d{3}\b)/g, "");
}

/** A button that saves a table as it stands: its rows as they are sorted, those that are shown. */
function csvButton(table, label) {
  const click = () => {
    const rows = [...table.rows].filter((row) => !row.hidden).map((row) => [...row.cells].map(said));
    const of = table.closest("dialog") ? location.hash.slice(1).replaceAll("/", " ") : "";
    save(`${core.experiment} ${of} ${label}.csv`, csv(rows), "text/csv");
  };
  return el("p", { class: "export" }, el("button", { type: "button", click, title: "Save this table, as it is shown" }, "CSV", el("span", { class: "hidden" }, `: save “${label}”`)));
}

for (const region of document.querySelectorAll("main .scroll:has(> table)")) {
  region.after(csvButton(region.querySelector("table"), region.getAttribute("aria-label")));
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
