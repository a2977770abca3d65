/** Go where the page's address says: a latent's dashboard (#layers.10.mlp/1156), those of two (…/layers.20.mlp/906), a
 *  trace (see traceAddress), a search (#search/latent/layers.10.mlp/1156), or a section. */
function follow() {
  const [first, ...rest] = location.hash.slice(1).split("/");
  const site = siteIndex(first);
  if (site >= 0 && rest.length === 1) openDashboard(site, rest[0]);
  else if (site >= 0 && rest.length === 3 && siteIndex(rest[1]) >= 0) openBeside(site, rest[0], siteIndex(rest[1]), rest[2]);
  else if (first === "trace") followTrace(...rest);
  else if (first === "search") followSearch(...rest);
  else if (dialog.open) dialog.close();
}

/** Close the dashboard for another place, so that one step back is it again, as far down as it was. */
function leaveDashboard() {
  if (!dialog.open) return;
  left = { hash: dialog.dataset.hash, top: dialog.scrollTop };
  dialog.close();
}

function followTrace(condition, id, site, latent, position) {
  const index = core.conditions.indexOf(condition);
  leaveDashboard();
  if (!held(index, id)) return;
  const numeric = (text) => (/^\d+$/.test(text ?? "") ? Number(text) : null);
  openTrace(index, Number(id), Math.max(0, siteIndex(site)), numeric(latent), numeric(position), true);
}
window.addEventListener("hashchange", follow);

// Pictures are printed, whether they are open or not.
let opened = [];
window.addEventListener("beforeprint", () => {
  opened = [...document.querySelectorAll("details.pictures:not([open])")];
  for (const details of opened) details.open = true;
});
window.addEventListener("afterprint", () => { for (const details of opened) details.open = false; });

buildReader();
buildSearch();
buildNotes();
follow();
