// Collections: stretches that the user keeps under a name, in this browser; saved as playlists and cut lists.
import { byId, clock, make, save, say } from "./common.js";

const STORE = "twinreel-collections", FIRST = "Kept";
let kept = { now: FIRST, lists: { [FIRST]: [] } };

function write() {
  try { localStorage.setItem(STORE, JSON.stringify(kept)); } catch { say("This browser keeps no collections: its storage is full or off.", true); }
  show();
}

export function keep(hit) {
  const [start, end, score] = hit.spans[0], list = kept.lists[kept.now];
  if (!list.some((one) => one.file === hit.file && one.start === start)) {
    list.push({ file: hit.file, moment: hit.moment, name: hit.name, start, end, score });
  }
  write();
}

function row(one, index) {
  const remove = () => { kept.lists[kept.now].splice(index, 1); write(); };
  return make("li", {}, make("img", { src: `/thumbnails/${one.moment}`, alt: "" }),
    make("span", { title: one.name }, `${one.name} · ${clock(one.start)} - ${clock(one.end)}`),
    make("button", { type: "button", onclick: remove, "aria-label": `Remove ${one.name}` }, "✕"));
}

function show() {
  const names = Object.keys(kept.lists), list = kept.lists[kept.now];
  const total = names.reduce((sum, name) => sum + kept.lists[name].length, 0);
  byId("show-kept").textContent = total ? `Collections (${total})` : "Collections";
  byId("kept-of").replaceChildren(...names.map((name) =>
    make("option", { value: name, selected: name === kept.now }, `${name} (${kept.lists[name].length})`)));
  byId("kept-list").replaceChildren(...list.map(row));
  byId("kept-none").hidden = list.length > 0;
  byId("kept-as").disabled = !list.length;
}

export function setUpCollections() {
  try {
    const found = JSON.parse(localStorage.getItem(STORE) ?? "null");
    if (found && Array.isArray(found.lists?.[found.now])) kept = found;
  } catch { /* not ours, or no storage: begin anew */ }
  byId("show-kept").addEventListener("click", () => {
    byId("kept").hidden = !byId("kept").hidden;
    byId("show-kept").setAttribute("aria-expanded", String(!byId("kept").hidden));
  });
  byId("kept-of").addEventListener("change", () => { kept.now = byId("kept-of").value; write(); });
  byId("kept-new").addEventListener("submit", (event) => {
    event.preventDefault();
    const name = byId("kept-name").value.trim();
    byId("kept-name").value = "";
    if (!name) return;
    if (!Object.hasOwn(kept.lists, name)) kept.lists[name] = [];
    kept.now = name;
    write();
  });
  byId("kept-drop").addEventListener("click", () => {
    delete kept.lists[kept.now];
    if (!Object.keys(kept.lists).length) kept.lists[FIRST] = [];
    kept.now = Object.keys(kept.lists)[0];
    write();
  });
  byId("kept-as").addEventListener("change", () => {
    const form = byId("kept-as").value, stretches = kept.lists[kept.now].map(({ file, start, end, score }) =>
      ({ file, start_s: start, end_s: end, score }));
    byId("kept-as").value = "";
    if (form) save(`/api/cutlist?form=${form}`, { name: kept.now, stretches }, `${kept.now}.${form}`);
  });
  show();
}
