"use strict";
(() => {
  const data = window.twinreelQueries;
  if (!data) return; // the data file was not copied along: the page's own examples remain
  const PER_PAGE = 10;
  const TEXT = 0, RANK = 1, TIED = 2, MARGIN = 3, OWN = 4, OWN_SCORE = 5, BEST = 6, SCORES = 7, ALIKE = 8;
  const byId = (id) => document.getElementById(id);
  const fold = (text) => text.normalize("NFKD").replace(/\p{M}/gu, "").toLowerCase();
  const number = (value) => value.toLocaleString("en-US", { maximumFractionDigits: 1 });
  const folded = data.queries.map((query) => fold(query[TEXT]));
  const compare = {
    worst: (a, b) => b[RANK] - a[RANK] || b[MARGIN] - a[MARGIN],
    best: (a, b) => a[RANK] - b[RANK] || a[MARGIN] - b[MARGIN],
    confused: (a, b) => b[MARGIN] - a[MARGIN],
  };
  const orders = {};
  const state = { order: "worst", words: [], page: 1, kept: [] };

  function make(name, attributes, ...children) {
    const element = document.createElement(name);
    for (const [key, value] of Object.entries(attributes)) if (value !== "") element.setAttribute(key, value);
    element.append(...children);
    return element;
  }

  function ordered() {
    orders[state.order] ??= [...data.queries.keys()];
    if (compare[state.order] && !orders[state.order].sorted) {
      orders[state.order].sort((a, b) => compare[state.order](data.queries[a], data.queries[b]));
      orders[state.order].sorted = true;
    }
    return orders[state.order];
  }

  function figure(clip, score, mark, caption) {
    const [own, pictured] = data.clips[clip];
    const text = caption ?? own;
    const picture = pictured
      ? make("img", { src: `media/clip-${String(clip).padStart(5, "0")}.webp`, loading: "lazy", decoding: "async" })
      : make("span", { class: "blank" });
    if (pictured) picture.alt = own;
    const name = mark.startsWith("right") ? " right clip" : mark.startsWith("alike") ? " same text" : "";
    const note = make("span", { class: "note" }, make("b", {}, score.toFixed(3)), name);
    const below = text ? [make("span", { class: "own", title: text }, text)] : [];
    return make("figure", { class: `clip ${mark}`.trim() }, picture, make("figcaption", {}, note, ...below));
  }

  function card(query) {
    const mark = (clip) => (clip === query[OWN] ? "right" : query[ALIKE].includes(clip) ? "alike" : "");
    const best = query[BEST].map((clip, place) =>
      figure(clip, query[SCORES][place], mark(clip), clip === query[OWN] ? query[TEXT] : undefined));
    const grade = query[RANK] <= 1 ? "first" : query[RANK] <= data.top ? "near" : "far";
    const tied = query[TIED] ? `, tied with ${number(query[TIED])}` : "";
    const header = make("header", {},
      make("q", { title: query[TEXT] }, query[TEXT]),
      make("span", { class: `rank ${grade}` }, `rank ${number(query[RANK])}${tied}`));
    if (!query[BEST].some((clip) => mark(clip))) header.append(figure(query[OWN], query[OWN_SCORE], "right apart", ""));
    return make("article", { class: "query" }, header, make("div", { class: "five" }, ...best));
  }

  function show() {
    const pages = Math.max(1, Math.ceil(state.kept.length / PER_PAGE));
    state.page = Math.min(Math.max(1, state.page), pages);
    const start = (state.page - 1) * PER_PAGE;
    const shown = state.kept.slice(start, start + PER_PAGE).map((place) => card(data.queries[place]));
    const none = make("p", {}, `No caption has all of these words: ${state.words.join(", ")}.`);
    byId("queries").replaceChildren(...(shown.length ? shown : [none]));
    byId("page").value = state.page;
    byId("page").max = pages;
    byId("pages").textContent = `of ${number(pages)}`;
    byId("previous").disabled = state.page === 1;
    byId("next").disabled = state.page === pages;
    const of = state.words.length ? ` of ${number(data.queries.length)}` : "";
    byId("found").textContent = `${number(state.kept.length)}${of} queries, ${data.orders[state.order]}.`;
  }

  function select() {
    state.kept = ordered().filter((place) => state.words.every((word) => folded[place].includes(word)));
    state.page = 1;
    show();
  }

  function turn(page) {
    state.page = page;
    show();
    byId("browser").scrollIntoView({ block: "start" });
  }

  const tabs = [...document.querySelectorAll("[data-order]")];
  function choose(tab) {
    state.order = tab.dataset.order;
    for (const one of tabs) {
      one.setAttribute("aria-selected", String(one === tab));
      one.tabIndex = one === tab ? 0 : -1;
    }
    byId("queries").setAttribute("aria-labelledby", tab.id);
    select();
  }
  tabs.forEach((tab, place) => {
    tab.addEventListener("click", () => choose(tab));
    tab.addEventListener("keydown", (event) => {
      const steps = { ArrowRight: place + 1, ArrowLeft: place - 1, Home: 0, End: tabs.length - 1 };
      if (!(event.key in steps)) return;
      const next = tabs[(steps[event.key] + tabs.length) % tabs.length];
      next.focus();
      choose(next);
      event.preventDefault();
    });
  });
  byId("filter").addEventListener("input", (event) => {
    state.words = fold(event.target.value).split(/\s+/).filter(Boolean);
    select();
  });
  byId("previous").addEventListener("click", () => turn(state.page - 1));
  byId("next").addEventListener("click", () => turn(state.page + 1));
  byId("page").addEventListener("change", (event) => turn(Math.round(Number(event.target.value)) || 1));
  byId("browser").hidden = false;
  byId("static-queries").hidden = true;
  choose(tabs[0]);
})();
