// The map of the collection: a canvas with a point for each moment; pointer and arrow keys choose one.
import { byId, call, make, posted, say, state } from "./common.js";
import { open } from "./player.js";

const EDGE = 14, REACH = 16, AGAIN = 3000; // pixels, pixels, milliseconds
const map = { points: [], names: {}, at: -1, final: false };
const canvas = byId("map-canvas"), tip = byId("map-tip");

const place = ([x, y]) => [EDGE + x * (canvas.clientWidth - 2 * EDGE), EDGE + (1 - y) * (canvas.clientHeight - 2 * EDGE)];

export function drawMap() {
  if (byId("map").hidden) return;
  const ratio = devicePixelRatio || 1, width = canvas.clientWidth, height = canvas.clientHeight;
  canvas.width = Math.round(width * ratio);
  canvas.height = Math.round(height * ratio);
  const pen = canvas.getContext("2d"), colours = getComputedStyle(document.documentElement);
  const colour = (name) => colours.getPropertyValue(name).trim();
  pen.scale(ratio, ratio);
  const found = new Set(state.hits.flatMap((hit) => [hit.file, ...hit.alike.map((other) => other.file)]));
  const size = map.points.length > 1500 ? 2.2 : 3.5;
  const dots = (points, radius, fill, alpha) => {
    pen.fillStyle = fill;
    pen.globalAlpha = alpha;
    for (const point of points) {
      const [x, y] = place(point);
      pen.beginPath();
      pen.arc(x, y, radius, 0, 7);
      pen.fill();
    }
  };
  dots(map.points.filter((point) => !found.has(point[3])), size, colour("--muted"), 0.55);
  dots(map.points.filter((point) => found.has(point[3])), size + 1, colour("--first"), 0.9);
  if (map.at >= 0) {
    const [x, y] = place(map.points[map.at]);
    pen.globalAlpha = 1;
    pen.lineWidth = 2.5;
    pen.strokeStyle = colour("--ink");
    pen.beginPath();
    pen.arc(x, y, size + 4, 0, 7);
    pen.stroke();
  }
}

function choose(index) {
  map.at = index;
  tip.hidden = index < 0;
  if (index >= 0) {
    const [, , moment, file] = map.points[index], name = map.names[file] ?? "", [x, y] = place(map.points[index]);
    if (tip.dataset.moment !== String(moment)) {
      tip.dataset.moment = moment;
      tip.replaceChildren(make("img", { src: `/thumbnails/${moment}`, alt: "" }), make("figcaption", {}, name));
      canvas.setAttribute("aria-label", `Map of the collection: ${name}`);
    }
    const box = [tip.offsetWidth, tip.offsetHeight];
    tip.style.left = `${Math.max(0, Math.min(x - box[0] / 2, canvas.clientWidth - box[0]))}px`;
    tip.style.top = `${y > box[1] + 14 ? y - box[1] - 12 : y + 14}px`;
  }
  drawMap();
}

function nearest(x, y, allowed = () => true) {
  let best = -1, least = Infinity;
  map.points.forEach((point, i) => {
    const [px, py] = place(point), far = Math.hypot(px - x, py - y);
    if (far < least && allowed(px - x, py - y, i)) [best, least] = [i, far];
  });
  return [best, least];
}

function under(event) {
  const [index, far] = nearest(event.offsetX, event.offsetY);
  return far <= REACH ? index : -1;
}

async function show(index) {
  const moment = map.points[index][2];
  try {
    const found = await (await call("/api/search", posted({ moments: { [moment]: 1 }, limit: 1 }))).json();
    const hit = found.hits[0];
    if (hit) open(hit, hit.spans[0][0]);
  } catch (error) {
    say(error.message, true);
  }
}

function step(key) {
  if (map.at < 0) return choose(nearest(canvas.clientWidth / 2, canvas.clientHeight / 2)[0]);
  const [x, y] = place(map.points[map.at]);
  const ahead = {
    ArrowRight: (dx, dy) => dx > 0.5 && dx >= Math.abs(dy), ArrowLeft: (dx, dy) => dx < -0.5 && -dx >= Math.abs(dy),
    ArrowDown: (dx, dy) => dy > 0.5 && dy >= Math.abs(dx), ArrowUp: (dx, dy) => dy < -0.5 && -dy >= Math.abs(dx),
  }[key];
  const [next] = nearest(x, y, (dx, dy, i) => i !== map.at && ahead(dx, dy));
  if (next >= 0) choose(next);
}

async function read() {
  const found = await (await call("/api/map")).json();
  const chosen = map.points[map.at]?.[2];
  Object.assign(map, { points: found.points, names: found.names, final: found.final });
  const count = (value) => value.toLocaleString("en-US");
  const part = found.points.length < found.of ? `a sample of ${count(found.points.length)} of ${count(found.of)} moments` : `${count(found.of)} moments`;
  byId("map-about").textContent = `${part}; those that look alike are near each other (${found.method}${found.final ? "" : ", a better one is on its way"}). Coloured: the hits.`;
  choose(map.points.findIndex((point) => point[2] === chosen));
  if (!found.final && !byId("map").hidden) setTimeout(() => read().catch((error) => say(error.message, true)), AGAIN);
}

export function setUpMap(alike) {
  const button = byId("show-map");
  button.addEventListener("click", () => {
    const opened = byId("map").hidden;
    byId("map").hidden = !opened;
    button.setAttribute("aria-expanded", String(opened));
    if (!opened) return;
    drawMap();
    if (!map.final) read().catch((error) => say(error.message, true));
  });
  canvas.addEventListener("pointermove", (event) => { if (event.pointerType === "mouse") choose(under(event)); });
  canvas.addEventListener("pointerleave", (event) => { if (event.pointerType === "mouse") choose(-1); });
  canvas.addEventListener("click", (event) => {
    const index = under(event), again = index === map.at; // a finger shows a point first, and opens it then
    choose(index);
    if (index >= 0 && (again || event.pointerType === "mouse")) show(index);
  });
  canvas.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || !map.points.length) return;
    if (event.key.startsWith("Arrow")) step(event.key);
    else if (event.key === "Enter" && map.at >= 0) show(map.at);
    else if (event.key === "m" && map.at >= 0) alike({ moment: map.points[map.at][2], name: map.names[map.points[map.at][3]] ?? "" });
    else if (event.key === "Escape") choose(-1);
    else return;
    event.preventDefault();
    event.stopPropagation();
  });
  new ResizeObserver(() => choose(map.at)).observe(canvas);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", drawMap);
}
