// The player, and the strip of scores over the length of a file.
import { byId, clock, make, state } from "./common.js";

export function strip(svg, hit, width, height, seek) {
  const end = Math.max(...hit.strip.map((one) => one[1]), 0.04);
  const scores = hit.strip.map((one) => one[2]);
  const low = Math.min(...scores), range = Math.max(...scores) - low || 1;
  svg.replaceChildren(...hit.strip.map(([from, to, score], i) => {
    const rect = document.createElementNS("http://www.w3.org/2000/svg", "rect");
    const next = i + 1 < hit.strip.length ? hit.strip[i + 1][0] : to;
    const tall = height * (0.15 + 0.85 * (hit.strip.length > 1 ? (score - low) / range : 1));
    const best = hit.spans.some((span) => from >= span[0] - 1e-3 && to <= span[1] + 1e-3);
    const box = { x: (from / end) * width, y: height - tall, width: Math.max(((next - from) / end) * width - 0.6, 0.6), height: tall };
    for (const [key, value] of Object.entries({ ...box, class: best ? "best" : "" })) rect.setAttribute(key, value);
    const title = document.createElementNS("http://www.w3.org/2000/svg", "title");
    title.textContent = `${clock(from)} - ${clock(to)}: ${score.toFixed(3)}`;
    rect.append(title);
    rect.addEventListener("click", (event) => { event.stopPropagation(); seek(from); });
    return rect;
  }));
}

// Where faces are blurred, the server makes the stretch that is played, and there is nothing else of the film.
const STRETCH_S = 30;

function blurredPlayer(hit, from, attributes) {
  const span = hit.spans.find((one) => one[0] <= from && from < one[1]);
  const to = Math.min(span ? span[1] : from + STRETCH_S, from + STRETCH_S);
  return make("video", { src: `/stretches/${hit.file}?start_s=${from}&end_s=${to}`, playsinline: true, preload: "auto", ...attributes });
}

export function player(hit, from, to, attributes) {
  if (state.blurred) return blurredPlayer(hit, from, attributes);
  const video = make("video", { src: `/media/${hit.file}#t=${from}`, playsinline: true, preload: "auto", ...attributes });
  video.addEventListener("loadedmetadata", () => { if (Math.abs(video.currentTime - from) > 0.3) video.currentTime = from; });
  if (to) video.addEventListener("timeupdate", () => { if (video.currentTime >= to || video.ended) { video.currentTime = from; video.play().catch(() => {}); } });
  return video;
}

function play(hit, from, stage) {
  const video = player(hit, from, 0, { controls: true });
  const failed = () => stage.replaceChildren(
    make("img", { src: `/thumbnails/${hit.moment}`, alt: "" }),
    make("p", { class: "bad" }, state.blurred ? "This stretch cannot be shown now; try again in a moment."
      : "This browser cannot play the format of this film; save the hits as a playlist and open it in VLC."));
  video.addEventListener("error", failed);
  stage.replaceChildren(video);
  video.play().catch(() => {});
}

export function open(hit, from) {
  state.playing = hit;
  byId("playing").textContent = hit.name;
  const stage = byId("stage");
  if (hit.still) stage.replaceChildren(make("img", { src: `/${state.blurred ? "stretches" : "media"}/${hit.file}`, alt: hit.captions[0] || hit.name }));
  else play(hit, from, stage);
  const seek = (time) => {
    const video = stage.querySelector("video");
    if (state.blurred && !hit.still) play(hit, time, stage);
    else if (video) { video.currentTime = time; video.play().catch(() => {}); }
  };
  byId("wide-strip").toggleAttribute("hidden", hit.strip.length < 2);
  strip(byId("wide-strip"), hit, 600, 48, seek);
  byId("moments").replaceChildren(...(hit.still ? [] : hit.spans).map(([start, end, score]) =>
    make("button", { type: "button", onclick: () => seek(start) }, `${clock(start)} - ${clock(end)}  ·  ${score.toFixed(3)}`)));
  byId("facts").textContent = [hit.captions[0], hit.labels.join(", "), hit.date, hit.duration_s ? clock(hit.duration_s) : ""].filter(Boolean).join(" · ");
  if (!byId("player").open) byId("player").showModal();
}

byId("player").addEventListener("close", () => {
  byId("stage").replaceChildren();
  document.querySelector(`.view[data-place="${state.hits.indexOf(state.playing)}"]`)?.focus({ preventScroll: true });
});
byId("player").addEventListener("click", (event) => { if (event.target === byId("player")) byId("player").close(); });
byId("close").addEventListener("click", () => byId("player").close());
