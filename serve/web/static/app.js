import { keep, setUpCollections } from "./collections.js";
import { byId, call, clock, make, posted, save, say, state } from "./common.js";
import { drawMap, setUpMap } from "./map.js";
import { open, player, strip } from "./player.js";
import { setUpRecording } from "./record.js";

const FOLD = 0.97, LIMIT = 48, MINUS = -0.5;

// --- what is looked for ---

function asked() {
  const [least, most] = byId("duration").value.split("-");
  const weights = (kinds) =>
    Object.fromEntries(state.terms.filter((t) => kinds.includes(t.kind)).map((t) => [t.id, t.weight]));
  return {
    text: byId("text").value.trim(),
    within: byId("within").value,
    moments: weights(["moment"]),
    uploads: weights(["like", "sound"]),
    labels: byId("label").value ? [byId("label").value] : [],
    after: byId("after").value,
    min_duration: least ? Number(least) : null,
    max_duration: most ? Number(most) : null,
    fold: byId("fold").checked ? FOLD : 0,
    limit: LIMIT,
  };
}

async function search() {
  const body = asked(), request = ++state.request;
  if (!body.text && !state.terms.length) {
    show({ hits: [] });
    say("Type what you look for, or drop a clip, a picture or a sound anywhere.");
    return;
  }
  say("Searching …");
  try {
    const found = await (await call("/api/search", posted(body))).json();
    if (request !== state.request) return; // a later search is on its way
    show(found);
    const files = `${found.hits.length} file${found.hits.length === 1 ? "" : "s"}`;
    const speed = `${found.moments.toLocaleString("en-US")} moments in ${Math.round(1000 * found.seconds)} ms`;
    say(found.hits.length ? `${files} of ${speed}` : `Nothing found among ${speed}`);
  } catch (error) {
    if (request === state.request) say(error.message, true);
  }
}

function showTerms() {
  byId("terms").replaceChildren(...state.terms.map((term) => {
    const change = () => { term.weight = term.weight > 0 ? MINUS : 1; showTerms(); search(); };
    const remove = () => { state.terms = state.terms.filter((one) => one !== term); showTerms(); search(); };
    return make("li", { class: term.weight < 0 ? "minus" : "" },
      ...(term.picture ? [make("img", { src: term.picture, alt: "" })] : []),
      make("span", { title: term.name }, `${term.weight < 0 ? "not like" : "like"} ${term.name}`),
      make("button", { type: "button", onclick: change, "aria-label": `Avoid ${term.name}` }, term.weight < 0 ? "+" : "−"),
      make("button", { type: "button", onclick: remove, "aria-label": `Remove ${term.name}` }, "✕"));
  }));
}

function alike(hit) {
  if (!state.terms.some((term) => term.id === hit.moment)) {
    state.terms = [{ kind: "moment", id: hit.moment, weight: 1, name: hit.name, picture: `/thumbnails/${hit.moment}` }];
  }
  byId("text").value = "";
  showTerms();
  window.scrollTo({ top: 0 });
  search();
}

async function upload(file) {
  const kind = file.type.startsWith("audio/") ? "sound" : "like", body = new FormData();
  body.append("file", file, file.name);
  say(`Reading ${file.name} …`);
  try {
    const made = await (await call(`/api/uploads?kind=${kind}`, { method: "POST", body })).json();
    const picture = file.type.startsWith("image/") ? URL.createObjectURL(file) : "";
    state.terms.push({ kind: made.kind, id: made.id, weight: 1, name: made.name, picture });
    showTerms();
    search();
  } catch (error) {
    say(error.message, true);
  }
}

// --- hits ---

function show(found) {
  state.hits = found.hits;
  byId("hits").replaceChildren(...found.hits.map((hit, place) => card(hit, place)));
  drawMap();
}

function card(hit, place) {
  const [from, to] = hit.spans[0], view = make("button", { type: "button", class: "view", "data-place": place });
  view.setAttribute("aria-label", `${hit.name} from ${clock(from)}, score ${hit.score}`);
  view.append(
    make("img", { src: `/thumbnails/${hit.moment}`, alt: "", loading: "lazy", decoding: "async" }),
    make("span", { class: "score" }, hit.score.toFixed(3)),
    ...(hit.still ? [] : [make("span", { class: "time" }, `${clock(from)} - ${clock(to)}`)]));
  view.addEventListener("click", () => open(hit, from));
  if (!hit.still) {
    view.addEventListener("mouseenter", () => preview(view, hit));
    view.addEventListener("focus", () => preview(view, hit));
    view.addEventListener("mouseleave", () => unpreview(view));
    view.addEventListener("blur", () => unpreview(view));
  }
  const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  for (const [key, value] of Object.entries({
    class: "strip", viewBox: "0 0 250 20", preserveAspectRatio: "none", role: "img", "aria-label": "Relevance over time",
  })) svg.setAttribute(key, value);
  strip(svg, hit, 250, 20, (time) => open(hit, time));
  const note = [hit.captions[0], hit.labels.join(", "), `${hit.folder} · ${hit.date}`].filter(Boolean).join(" · ");
  const acts = make("div", { class: "acts" }, make("button", { type: "button", class: "more", onclick: () => alike(hit) }, "More like this"),
    make("button", { type: "button", class: "keep", onclick: () => keep(hit) }, "Keep"));
  const item = make("li", { class: "hit" }, view, ...(hit.strip.length > 1 ? [svg] : []),
    make("div", { class: "name", title: hit.name }, hit.name), make("div", { class: "note", title: note }, note), acts);
  if (hit.alike.length) {
    const unfold = () => item.after(...hit.alike.map((other) => card(other, place))) || button.remove();
    const button = make("button", { type: "button", class: "same", onclick: unfold }, `${hit.alike.length} nearly the same`);
    acts.append(button);
  }
  return item;
}

function preview(view, hit) {
  if (state.blurred || view.querySelector("video")) return;
  const [from, to] = hit.spans[0], video = player(hit, from, to, { muted: true });
  video.muted = true;
  video.hidden = true;
  video.addEventListener("playing", () => { video.hidden = false; });
  video.addEventListener("error", () => video.remove());
  view.querySelector("img").after(video);
  video.play().catch(() => {});
}

function unpreview(view) {
  const video = view.querySelector("video");
  if (!video || view.matches(":hover") || document.activeElement === view) return;
  video.pause();
  video.removeAttribute("src");
  video.load(); // ends the download
  video.remove();
}

// --- the form, files, keys ---

byId("form").addEventListener("submit", (event) => { event.preventDefault(); search(); });
for (const id of ["within", "duration", "after", "label", "fold"]) byId(id).addEventListener("change", search);
byId("choose").addEventListener("click", () => byId("file").click());
byId("file").addEventListener("change", () => { for (const file of byId("file").files) upload(file); byId("file").value = ""; });
byId("form-of").addEventListener("change", () => {
  const form = byId("form-of").value;
  byId("form-of").value = "";
  if (!form) return;
  save(`/api/export?form=${form}`, asked(), `twinreel.${form}`);
});

const carries = (event) => [...(event.dataTransfer?.types ?? [])].includes("Files");
addEventListener("dragover", (event) => { if (carries(event)) { event.preventDefault(); byId("drop").hidden = false; } });
addEventListener("dragleave", (event) => { if (!event.relatedTarget) byId("drop").hidden = true; });
addEventListener("drop", (event) => {
  byId("drop").hidden = true;
  if (!carries(event)) return;
  event.preventDefault();
  for (const file of event.dataTransfer.files) upload(file);
});
addEventListener("paste", (event) => { for (const file of event.clipboardData?.files ?? []) upload(file); });

function move(key) {
  const views = [...document.querySelectorAll(".view")], at = views.indexOf(document.activeElement);
  if (at < 0) return void (key === "ArrowDown" && views[0]?.focus());
  const top = (view) => view.getBoundingClientRect().top;
  const columns = views.filter((view) => Math.abs(top(view) - top(views[0])) < 4).length || 1;
  const step = { ArrowRight: 1, ArrowLeft: -1, ArrowDown: columns, ArrowUp: -columns }[key];
  const next = views[at + step];
  if (next) next.focus();
  else if (key === "ArrowUp") byId("text").focus();
}

addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || byId("player").open) return;
  const here = document.activeElement, typing = here.matches("input, select");
  if (event.key === "/" && !typing) { event.preventDefault(); byId("text").select(); byId("text").focus(); }
  else if (event.key === "Escape" && here === byId("text")) { byId("text").value = ""; search(); }
  else if (event.key.startsWith("Arrow") && (!typing || (here === byId("text") && event.key === "ArrowDown"))) {
    if (here.matches(".view") || here === byId("text") || here === document.body) { event.preventDefault(); move(event.key); }
  } else if (event.key === "m" && here.matches(".view")) alike(state.hits[Number(here.dataset.place)]);
});

setUpMap(alike);
setUpCollections();
call("/api/collection").then((answer) => answer.json()).then((facts) => {
  const count = (value) => value.toLocaleString("en-US");
  state.blurred = facts.blurred;
  setUpRecording(upload, facts.hears);
  byId("about").textContent = `${count(facts.files)} files · ${count(facts.moments)} moments · ${facts.hours} h · ${facts.model}${facts.blurred ? " · faces blurred" : ""}`;
  for (const side of facts.sides) if (side === "transcript") byId("within").append(make("option", { value: side }, "what is said"));
  for (const side of facts.sides) if (side === "audio") byId("within").append(make("option", { value: side }, "sound"));
  byId("labelled").hidden = !facts.labels.length;
  for (const { label, files } of facts.labels) byId("label").append(make("option", { value: label }, `${label} (${files})`));
}).catch((error) => say(error.message, true));
