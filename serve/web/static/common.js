// What all modules of the page share.
export const byId = (id) => document.getElementById(id);
export const state = { terms: [], hits: [], request: 0, playing: null, blurred: false };

export function make(name, attributes, ...children) {
  const element = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (key.startsWith("on")) element.addEventListener(key.slice(2), value);
    else if (value === true) element.setAttribute(key, "");
    else if (value !== false && value !== "") element.setAttribute(key, value);
  }
  element.append(...children);
  return element;
}

export function clock(seconds) {
  const whole = Math.floor(seconds), hours = Math.floor(whole / 3600), pad = (value) => String(value).padStart(2, "0");
  const minutes = Math.floor(whole / 60) % 60;
  return hours ? `${hours}:${pad(minutes)}:${pad(whole % 60)}` : `${minutes}:${pad(whole % 60)}`;
}

export function say(text, bad = false) {
  byId("status").textContent = text;
  byId("status").classList.toggle("bad", bad);
}

export async function call(path, options = {}) {
  const answer = await fetch(path, options);
  if (answer.ok) return answer;
  const body = await answer.json().catch(() => ({}));
  throw new Error(body.detail || `the server answers with status ${answer.status}`);
}

export const posted = (body) => ({
  method: "POST", headers: { "content-type": "application/json" }, body: JSON.stringify(body),
});

export async function save(path, body, name) {
  try {
    const blob = await (await call(path, posted(body))).blob();
    const link = make("a", { href: URL.createObjectURL(blob), download: name });
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 1000);
  } catch (error) {
    say(error.message, true);
  }
}
