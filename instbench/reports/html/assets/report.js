"use strict";
(() => {
  const byId = (name) => document.getElementById(name);
  const data = JSON.parse(byId("data").textContent);
  const images = data.images, labels = data.labels, pair = labels.length > 1;
  const PAGE = 48, SVG = "http://www.w3.org/2000/svg";
  const COLORS = ["#e6194b", "#0082c8", "#3cb44b", "#f58230", "#911eb4", "#00aaaa", "#f032e6", "#966e14", "#800000",
    "#465aff", "#6ea000", "#dc508c"];
  const GREY = "#8a8f96";
  let shown = [], page = 0, current = -1, wanted = { failure: "", category: "" };

  // -- small helpers; text from data goes through textContent and attributes alone

  function make(tag, attributes, ...children) {
    const node = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes || {})) node.setAttribute(name, value);
    node.append(...children.filter((child) => child !== null && child !== undefined));
    return node;
  }
  function draw(tag, attributes, ...children) {
    const node = document.createElementNS(SVG, tag);
    for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
    node.append(...children);
    return node;
  }
  const isolated = (text) => make("bdi", { dir: "auto" }, text);
  const number = (value, digits = 2) => (value === undefined || value === null ? "-" : value.toFixed(digits));
  const cut = (text, limit) => (text.length > limit ? text.slice(0, limit) + "…" : text);

  // -- drawing

  function outline(polygons) {
    return polygons.map((flat) => {
      let path = "";
      for (let i = 0; i < flat.length; i += 2) path += (i ? "L" : "M") + flat[i] + " " + flat[i + 1];
      return path + "Z";
    }).join("");
  }
  function rectangle([x0, y0, x1, y1]) {
    return { x: x0, y: y0, width: Math.max(x1 - x0, 1), height: Math.max(y1 - y0, 1) };
  }
  function anchor(one) {
    if (one.box) return [one.box[0], one.box[1]];
    if (one.point) return one.point;
    if (one.scribble) return one.scribble.slice(0, 2);
    return one.mask && one.mask.length ? one.mask[0].slice(0, 2) : [0, 0];
  }
  function drawAsked(svg, one, color) {
    if (one.mask) svg.append(draw("path", { d: outline(one.mask), stroke: color, fill: color, class: "mask", "fill-rule": "evenodd" }));
    if (one.box) svg.append(draw("rect", { ...rectangle(one.box), class: "halo" }), draw("rect", { ...rectangle(one.box), stroke: color }));
    if (one.scribble) {
      const points = one.scribble;
      for (let i = 0; i < points.length; i += 2) svg.append(draw("circle", { cx: points[i], cy: points[i + 1], r: 11, fill: color, stroke: "#fff", "stroke-width": 3 }));
    }
    if (one.point) {
      const [x, y] = one.point, d = `M${x - 40} ${y}H${x + 40}M${x} ${y - 40}V${y + 40}`;
      svg.append(draw("path", { d, class: "halo" }), draw("path", { d, stroke: color }));
    }
  }
  const LINE = 44;
  // Labels keep off those that are there: the next free line below, else above; a crowd without one keeps its place.
  function writeLabel(svg, text, [x, y], below, taken) {
    const limited = cut(text, 24), width = limited.length * 25;
    const left = Math.max(6, Math.min(x + 6, 994 - width));
    const wanted = Math.max(40, Math.min(y + (below ? -10 : 42), 990));
    const free = (line) => line >= 40 && line <= 990
      && !taken.some((one) => Math.abs(one.line - line) < LINE && one.left < left + width && left < one.left + one.width);
    const lines = [wanted];
    for (let i = 1; i <= 6; i += 1) lines.push(wanted + i * LINE, wanted - i * LINE);
    const line = lines.find(free) || wanted;
    taken.push({ left, width, line });
    svg.append(draw("text", { x: left, y: line }, limited));
  }
  function overlay(entry, view, show) {
    const svg = draw("svg", { viewBox: "0 0 1000 1000", preserveAspectRatio: "none", "aria-hidden": "true" });
    // What the filters do not mean steps back, else nobody finds the one object among many.
    const back = draw("g", { class: "dim" });
    const place = (i) => (show.meant && !show.meant(entry, i) ? back : svg);
    svg.append(back);
    if (show.asked) entry.asked.forEach((one, i) => drawAsked(place(i), one, COLORS[i % COLORS.length]));
    if (show.found) {
      const owner = new Map();
      view.outcomes.forEach((one, i) => { if (one.detection !== undefined) owner.set(one.detection, i); });
      view.found.forEach((one, i) => {
        const color = owner.has(i) ? COLORS[owner.get(i) % COLORS.length] : GREY;
        const target = place(owner.get(i));
        if (one.mask && show.masks) target.append(draw("path", { d: outline(one.mask), stroke: color, class: "dash" }));
        target.append(draw("rect", { ...rectangle(one.box), class: "halo" }), draw("rect", { ...rectangle(one.box), stroke: color, class: "dash" }));
      });
    }
    if (show.labels) {
      const taken = [];
      if (show.asked) entry.asked.forEach((one) => writeLabel(svg, one.phrase, anchor(one), false, taken));
      if (show.found) view.found.forEach((one) => writeLabel(svg, one.category + " " + number(one.score), [one.box[0], one.box[3]], true, taken));
    }
    return svg;
  }
  function stage(entry, view, show) {
    const node = make("div", { class: "stage" });
    if (view.picture) node.append(make("img", { src: view.picture, alt: "", loading: "lazy", decoding: "async" }));
    else node.append(make("span", { class: "none" }, "no picture"));
    node.append(overlay(entry, view, show));
    return node;
  }
  const shows = () => ({
    asked: byId("show-asked").checked, found: byId("show-found").checked, labels: byId("show-labels").checked,
    meant: wanted.failure || wanted.category ? meant : null,
  });

  // -- sorting and filtering

  const failed = (entry) => entry.views.reduce((sum, view) => sum + view.failed, 0);
  const quality = (entry) => {
    const values = entry.views.map((view) => view.quality).filter((value) => value !== undefined);
    return values.length ? values.reduce((a, b) => a + b, 0) / values.length : 2;
  };
  const badness = (entry) => (entry.asked.length ? failed(entry) / entry.asked.length : 0);
  const difference = (entry) => {
    const [a, b] = entry.views.map((view) => view.quality);
    return a === undefined || b === undefined ? 0 : b - a;
  };
  const byKey = (a, b) => (a.key < b.key ? -1 : a.key > b.key ? 1 : 0);
  const ORDERS = {
    worst: (a, b) => badness(b) - badness(a) || quality(a) - quality(b),
    best: (a, b) => badness(a) - badness(b) || quality(b) - quality(a),
    objects: (a, b) => b.asked.length - a.asked.length,
    difference: (a, b) => Math.abs(difference(b)) - Math.abs(difference(a)),
    second: (a, b) => difference(b) - difference(a),
    first: (a, b) => difference(a) - difference(b),
    key: byKey,
  };
  function inCount(count, range) {
    const [low, high] = range.split("-");
    return count >= Number(low) && (high === undefined ? count === Number(low) : high === "" || count <= Number(high));
  }
  const haystacks = new Map();
  function haystack(entry) {
    if (!haystacks.has(entry)) {
      haystacks.set(entry, [entry.key, entry.image_id, entry.caption, ...entry.asked.map((one) => one.phrase)].join("\n").toLowerCase());
    }
    return haystacks.get(entry);
  }
  // Kind and category must both hold for one and the same object.
  function meant(entry, i) {
    const { failure, category } = wanted, one = entry.asked[i];
    return one !== undefined && (!category || one.category === category)
      && (!failure || entry.views.some((view) => (view.outcomes[i] || {}).failure === failure));
  }
  function refresh() {
    const count = byId("count").value;
    wanted = { failure: byId("failure").value, category: byId("category").value };
    const words = byId("search").value.toLowerCase().trim();
    shown = images.filter((entry) => {
      if (count && !inCount(entry.asked.length, count)) return false;
      if (words && !haystack(entry).includes(words)) return false;
      if (!wanted.failure && !wanted.category) return true;
      return entry.asked.some((_, i) => meant(entry, i));
    });
    const order = ORDERS[byId("sort").value] || ORDERS.worst;
    shown.sort((a, b) => order(a, b) || byKey(a, b));
    page = 0;
    render();
  }

  // -- cards

  function chips(entry) {
    const counts = new Map();
    entry.views.forEach((view) => view.outcomes.forEach((one) => {
      if (one.failure && one.failure !== "correct") counts.set(one.failure, (counts.get(one.failure) || 0) + 1);
    }));
    const row = make("span", { class: "chips" });
    for (const [kind, count] of counts) row.append(make("span", { class: "chip", "data-kind": kind }, count > 1 ? `${kind} ${count}` : kind));
    if (!counts.size) row.append(make("span", { class: "chip", "data-kind": "correct" }, "all correct"));
    return row;
  }
  function card(entry) {
    const pictures = make("span", { class: "pair" }, ...entry.views.map((view) => stage(entry, view, shows())));
    const means = entry.views.map((view) => number(view.quality)).join(" / ");
    const delta = pair ? ` (${difference(entry) >= 0 ? "+" : ""}${number(difference(entry))})` : "";
    const facts = `${entry.asked.length} objects, mean ${means}${delta}`;
    const about = make("span", { class: "about" },
      make("span", { class: "line" }, isolated(cut(entry.caption, 120))),
      make("span", { class: "line soft" }, facts), make("span", { class: "line soft" }, entry.key), chips(entry));
    const node = make("button", { type: "button", class: "card", "data-key": entry.key, "aria-label": `${entry.key}: ${cut(entry.caption, 120)}; ${facts}` }, pictures, about);
    node.addEventListener("click", () => { location.hash = link(entry); });
    return node;
  }
  function render() {
    const pages = Math.max(1, Math.ceil(shown.length / PAGE));
    page = Math.min(Math.max(page, 0), pages - 1);
    byId("cards").replaceChildren(...shown.slice(page * PAGE, (page + 1) * PAGE).map(card));
    byId("status").textContent = `${shown.length} of ${images.length} images`;
    for (const pager of document.querySelectorAll(".pager")) {
      pager.hidden = pages === 1;
      pager.querySelector(".where").textContent = `page ${page + 1} of ${pages}`;
      pager.querySelector(".previous").disabled = page === 0;
      pager.querySelector(".next").disabled = page === pages - 1;
    }
  }

  // -- one image

  const link = (entry) => "#image=" + encodeURIComponent(entry.key);
  function rowsOf(entry, view) {
    const has = (name) => view.outcomes.some((one) => one[name] !== undefined);
    const columns = [["iou_box", "box IoU"], ["iou_mask", "mask IoU"], ["share", "share hit"], ["score", "score"], ["similarity", "similarity"]].filter(([name]) => has(name));
    const hit = has("hit");
    const head = ["asked", "found", ...columns.map(([, title]) => title), ...(hit ? ["hit"] : []), "what happened"];
    const body = entry.asked.map((one, i) => {
      const outcome = view.outcomes[i] || {};
      const swatch = make("span", { class: "swatch" });
      swatch.style.backgroundColor = COLORS[i % COLORS.length];
      const detection = view.found[outcome.detection];
      const seen = [outcome.color_seen, outcome.texture_seen].filter(Boolean).join(", ");
      const found = outcome.found ? (detection ? detection.category : "yes") + (seen ? ` (${seen})` : "") : outcome.found === undefined ? "-" : "no";
      const failure = outcome.failure || (outcome.not_scored ? "not scored: " + outcome.not_scored : "-");
      return make("tr", {}, make("td", { class: "text" }, make("bdi", { dir: "auto" }, swatch, one.phrase)), make("td", {}, isolated(found)),
        ...columns.map(([name]) => make("td", { class: "number" }, number(outcome[name], 3))),
        ...(hit ? [make("td", {}, outcome.hit === undefined ? "-" : outcome.hit ? "yes" : "no")] : []),
        make("td", {}, make("span", { class: "kind", "data-kind": failure }, failure)));
    });
    const extra = view.found.filter((_, i) => !view.outcomes.some((one) => one.detection === i));
    const table = make("div", { class: "scroll" }, make("table", {}, make("thead", {}, make("tr", {}, ...head.map((title) => make("th", { scope: "col" }, title)))), make("tbody", {}, ...body)));
    const listed = extra.slice(0, 12).map((one) => `${one.category} ${number(one.score)}`).join(", ");
    return [table, extra.length ? make("p", { class: "note" }, "Also found: ", isolated(listed + (extra.length > 12 ? ", …" : ""))) : null];
  }
  function command(text) {
    const button = make("button", { type: "button" }, "Copy");
    button.addEventListener("click", () => copy(text, button));
    return make("div", { class: "command" }, make("pre", { tabindex: "0" }, text), button);
  }
  function fill(entry) {
    byId("image-title").textContent = entry.key;
    const body = byId("image-body"), all = { asked: true, found: true, labels: true, masks: true };
    const figures = (view, name) => {
      const plain = { asked: false, found: false, labels: false };
      const parts = [[plain, pair ? name : "image"], [{ ...all, found: false }, "asked"], [{ ...all, asked: false }, "found"]];
      return make("div", { class: "views" }, ...parts.map(([show, title]) => make("figure", {}, stage(entry, view, show), make("figcaption", {}, isolated(title)))));
    };
    const sections = entry.views.flatMap((view, i) => [
      pair ? make("h3", {}, isolated(labels[i])) : null, figures(view, labels[i]), ...rowsOf(entry, view),
      make("p", { class: "note" }, `seed ${view.seed || "-"}; ${number(view.seconds, 2)} s; mean ${number(view.quality)}; image id ${entry.image_id}`),
      make("h3", {}, `Make this image again${view.again.startsWith("instbench draw ") ? "" : " (the last one of the run)"}`), command(view.again),
    ]);
    body.replaceChildren(make("p", { class: "prompt" }, isolated(entry.caption)), ...sections.filter(Boolean));
    const position = shown.indexOf(entry);
    current = images.indexOf(entry);
    byId("image-previous").disabled = position <= 0;
    byId("image-next").disabled = position < 0 || position >= shown.length - 1;
  }
  const dialog = byId("image");
  function follow() {
    const match = /^#image=(.*)$/.exec(location.hash);
    let key = null;
    try { key = match && decodeURIComponent(match[1]); } catch { key = null; }
    const entry = key === null ? undefined : images.find((one) => one.key === key);
    if (entry) {
      fill(entry);
      if (!dialog.open) dialog.showModal();
      dialog.scrollTop = 0;
    } else if (dialog.open) dialog.close();
  }
  function step(by) {
    const next = shown[shown.indexOf(images[current]) + by];
    if (next && shown.includes(images[current])) history.replaceState(null, "", link(next)), follow();
  }
  dialog.addEventListener("close", () => {
    if (location.hash.startsWith("#image=")) history.replaceState(null, "", "#gallery");
    const entry = images[current], position = shown.indexOf(entry);
    if (position < 0) return;
    if (Math.floor(position / PAGE) !== page) { page = Math.floor(position / PAGE); render(); }
    const node = [...byId("cards").children].find((one) => one.dataset.key === entry.key);
    if (node) node.focus();
  });
  dialog.addEventListener("click", (event) => { if (event.target === dialog) dialog.close(); });
  dialog.addEventListener("keydown", (event) => {
    if (event.key === "ArrowLeft") { step(-1); event.preventDefault(); }
    if (event.key === "ArrowRight") { step(1); event.preventDefault(); }
  });
  byId("image-close").addEventListener("click", () => dialog.close());
  byId("image-previous").addEventListener("click", () => step(-1));
  byId("image-next").addEventListener("click", () => step(1));
  byId("image-link").addEventListener("click", (event) => copy(location.href, event.currentTarget));

  async function copy(text, button) {
    const before = button.dataset.text || (button.dataset.text = button.textContent);
    let done = false;
    try { await navigator.clipboard.writeText(text); done = true; } catch {
      const area = make("textarea", { readonly: "" });
      area.value = text;
      button.after(area);
      area.select();
      try { done = document.execCommand("copy"); } finally { area.remove(); }
    }
    button.textContent = done ? "Copied" : "Not copied";
    setTimeout(() => { button.textContent = before; }, 1500);
  }

  // -- events

  byId("controls").addEventListener("submit", (event) => event.preventDefault());
  for (const name of ["sort", "failure", "category", "count"]) byId(name).addEventListener("change", refresh);
  for (const name of ["show-asked", "show-found", "show-labels"]) byId(name).addEventListener("change", render);
  let waiting = 0;
  byId("search").addEventListener("input", () => { clearTimeout(waiting); waiting = setTimeout(refresh, 120); });
  for (const pager of document.querySelectorAll(".pager")) {
    const turn = (by) => { page += by; render(); byId("status").scrollIntoView({ block: "start" }); };
    pager.querySelector(".previous").addEventListener("click", () => turn(-1));
    pager.querySelector(".next").addEventListener("click", () => turn(1));
  }
  byId("cards").addEventListener("keydown", (event) => {
    const cards = [...byId("cards").children], at = cards.indexOf(document.activeElement);
    if (at < 0) return;
    const across = Math.max(1, cards.findIndex((one) => one.offsetTop > cards[0].offsetTop));
    const steps = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -across, ArrowDown: across, Home: -at, End: cards.length - 1 - at };
    if (!(event.key in steps)) return;
    event.preventDefault();
    const next = cards[Math.min(Math.max(at + steps[event.key], 0), cards.length - 1)];
    next.focus();
  });
  for (const button of document.querySelectorAll("button[data-copy]")) button.addEventListener("click", () => copy(button.dataset.copy, button));
  byId("theme").addEventListener("click", () => {
    const root = document.documentElement, dark = root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
    root.dataset.theme = dark ? "light" : "dark";
  });
  addEventListener("hashchange", follow);
  byId("cards").classList.toggle("wide", pair);
  refresh();
  follow();
})();
