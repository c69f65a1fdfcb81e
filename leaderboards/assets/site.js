"use strict";
(function () {
  const data = JSON.parse(document.getElementById("data").textContent);
  const byId = (id) => document.getElementById(id);

  // Every text is set as text; nothing here ever parses markup.
  function make(tag, attributes, ...children) {
    const element = document.createElement(tag);
    for (const [key, value] of Object.entries(attributes || {})) {
      if (value !== null && value !== undefined && value !== false) element.setAttribute(key, value === true ? "" : String(value));
    }
    for (const child of children) {
      if (child !== null && child !== undefined) element.append(child);
    }
    return element;
  }

  function unique(values) {
    return [...new Set(values)].sort();
  }

  function show(value, size) {
    if (value === null || value === undefined) return "\u2013";
    return value.toFixed(Math.abs(size === undefined ? value : size) >= 100 ? 1 : 3);
  }

  // Missing values come last in both directions.
  function compare(a, b, ascending) {
    const emptyA = a === null || a === undefined, emptyB = b === null || b === undefined;
    if (emptyA || emptyB) return Number(emptyA) - Number(emptyB);
    const order = typeof a === "number" && typeof b === "number" ? a - b : String(a).localeCompare(String(b));
    return ascending ? order : -order;
  }

  function select(form, label, values, chosen, changed) {
    const list = make("select", { name: label });
    for (const value of values) list.append(make("option", { value: value, selected: value === chosen }, value || "all"));
    list.addEventListener("change", changed);
    form.append(make("label", {}, label, list));
    return list;
  }

  // A table that sorts by any column; a header is a button, so keys work too.
  function table(columns, rows, state, caption) {
    const body = make("tbody");
    const heads = [];
    function draw() {
      const column = columns[state.column];
      const sorted = rows.slice().sort((a, b) => compare(column.key(a), column.key(b), state.ascending));
      body.replaceChildren(...sorted.map((row) => {
        const line = make("tr", { class: row.role || null });
        columns.forEach((one) => line.append(one.cell(row, state)));
        return line;
      }));
      heads.forEach((head, position) => {
        const active = position === state.column;
        head.setAttribute("aria-sort", active ? (state.ascending ? "ascending" : "descending") : "none");
        head.firstChild.lastChild.textContent = active ? (state.ascending ? " \u25b2" : " \u25bc") : "";
      });
    }
    const line = make("tr");
    columns.forEach((column, position) => {
      const button = make("button", { type: "button" }, column.name, make("span", { "aria-hidden": "true" }));
      button.addEventListener("click", () => {
        state.ascending = state.column === position ? !state.ascending : column.ascending;
        state.column = position;
        draw();
      });
      const head = make("th", { scope: "col", class: column.text ? "text" : null, title: column.title }, button);
      heads.push(head);
      line.append(head);
    });
    draw();
    return make("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": caption },
      make("table", {}, make("thead", {}, line), body));
  }

  // -- measured here

  const ROLES = { ceiling: "ceiling: real images", floor: "floor: text only" };

  function nameCell(row) {
    const cell = make("th", { scope: "row" }, make("bdi", { class: "name", dir: "auto" }, row.model));
    if (row.role) cell.append(make("span", { class: "badge role" }, ROLES[row.role]));
    cell.append(make("span", { class: "badge" + (row.badge === "reproduced here" ? " good" : "") }, row.badge));
    if (row.report) cell.append(make("a", { href: row.report }, "report"));
    return cell;
  }

  function rankText(row, metric) {
    const rank = metric && row.numbers[metric] ? row.numbers[metric].rank : null;
    if (!rank) return "\u2013";
    return rank[0] === rank[1] ? String(rank[0]) : rank[0] + "\u2013" + rank[1];
  }

  function boardView(board) {
    const first = board.metrics[0];
    const state = { column: 2, ascending: true, metric: first };
    const columns = [
      { name: "rank", ascending: true, key: (row) => (row.numbers[state.metric] || {}).rank ? row.numbers[state.metric].rank[0] * 1e6 + row.numbers[state.metric].rank[1] : null,
        cell: (row) => {
          if (state.column > 1) state.metric = columns[state.column].metric;
          return make("td", { class: "rank", title: "ranks that the intervals allow, by " + state.metric }, rankText(row, state.metric));
        } },
      { name: "model", text: true, ascending: true, key: (row) => row.model, cell: nameCell },
    ];
    for (const metric of board.metrics) {
      const sample = board.rows.map((row) => row.numbers[metric]).find((one) => one);
      columns.push({
        metric: metric,
        name: metric + (sample.higher_is_better ? "" : " \u2193"),
        title: sample.higher_is_better ? "higher is better" : "lower is better",
        ascending: !sample.higher_is_better,
        key: (row) => (row.numbers[metric] ? row.numbers[metric].value : null),
        cell: (row) => {
          const one = row.numbers[metric];
          if (!one) return make("td", {}, "\u2013");
          const cell = make("td", { title: one.n_scored + " scored, " + one.n_unscored + " not scored" }, show(one.value));
          if (one.ci95) cell.append(make("span", { class: "interval" }, "[" + show(one.ci95[0], one.value) + ", " + show(one.ci95[1], one.value) + "]"));
          if (one.n_unscored) cell.append(make("span", { class: "interval" }, one.n_unscored + " of " + (one.n_scored + one.n_unscored) + " not scored"));
          return cell;
        },
      });
    }
    state.ascending = columns[2].ascending;
    const networks = Object.entries(board.evaluators).map(([role, name]) => role.replace("_", "-") + " " + name).join(", ");
    return make("section", { class: "board", "data-board": board.id },
      make("h2", {}, board.benchmark + " v" + board.version + ", " + board.edition + " edition"),
      make("p", { class: "facts" }, board.images + " images, " + board.instances + " objects" + (networks ? "; " + networks : "")),
      table(columns, board.rows, state, board.benchmark));
  }

  const filters = {};
  function drawBoards() {
    const chosen = data.boards.filter((board) => Object.entries(filters).every(([key, list]) => !list.value || String(board[key]) === list.value));
    byId("boards").replaceChildren(...chosen.map(boardView));
    byId("measured-status").textContent = data.boards.length ? chosen.length + " of " + data.boards.length + " tables" : "No run is filed yet.";
  }
  for (const key of ["dataset", "condition", "benchmark", "edition"]) {
    filters[key] = select(byId("measured-filters"), key, ["", ...unique(data.boards.map((board) => board[key]))], "", drawBoards);
  }
  drawBoards();

  // -- published

  const best = (group) => group.numbers[0].value * (group.numbers[0].unit === "ratio" ? 100 : 1);
  const publishedColumns = [
    { name: "method", text: true, ascending: true, key: (row) => row.method,
      cell: (row) => {
        const cell = make("th", { scope: "row" }, make("bdi", { class: "name", dir: "auto" }, row.method));
        if (row.conflict) cell.append(make("span", { class: "badge conflict" }, "sources differ"));
        return cell;
      } },
    { name: "benchmark", text: true, ascending: true, key: (row) => row.benchmark, cell: (row) => make("td", { class: "text" }, row.benchmark) },
    { name: "metric", text: true, ascending: true, key: (row) => row.metric, cell: (row) => make("td", { class: "text" }, row.metric + (row.higher_is_better ? " \u2191" : " \u2193")) },
    { name: "numbers and sources", text: true, ascending: false, key: best,
      cell: (row) => {
        const cell = make("td", { class: "text sources" });
        for (const one of row.numbers) {
          const facts = [one.benchmark === row.benchmark ? "" : one.benchmark, one.evaluator, one.resolution, one.n_images].filter((text) => text).join("; ");
          const source = /^https:\/\//.test(one.url) ? make("a", { href: one.url, rel: "noopener noreferrer" }, one.source) : one.source;
          cell.append(make("span", { class: "number" }, make("b", {}, one.value + (one.unit ? " " + one.unit : "")), make("small", {}, source,
            (facts ? " (" + facts + ")" : "") + (one.confidence === "seen_verbatim" ? "" : " \u2013 from a secondary source"))));
        }
        return cell;
      } },
  ];
  const publishedState = { column: 0, ascending: true };
  function drawPublished() {
    const rows = data.published.filter((row) => (!publishedBenchmark.value || row.benchmark === publishedBenchmark.value)
      && (!publishedMetric.value || row.metric === publishedMetric.value) && (!conflicts.checked || row.conflict)
      && row.method.toLowerCase().includes(search.value.toLowerCase()));
    byId("published-table").replaceChildren(table(publishedColumns, rows, publishedState, "Published numbers"));
    byId("published-status").textContent = rows.length + " of " + data.published.length + " rows";
  }
  const form = byId("published-filters");
  const benchmarks = unique(data.published.map((row) => row.benchmark));
  const publishedBenchmark = select(form, "benchmark", ["", ...benchmarks], benchmarks.includes("coco-box") ? "coco-box" : "", drawPublished);
  const publishedMetric = select(form, "metric", ["", ...unique(data.published.map((row) => row.metric))], "", drawPublished);
  const search = make("input", { type: "search", name: "method" });
  search.addEventListener("input", drawPublished);
  const conflicts = make("input", { type: "checkbox", name: "conflicts" });
  conflicts.addEventListener("change", drawPublished);
  form.append(make("label", {}, "method", search), make("label", { class: "check" }, conflicts, "only where sources differ"));
  drawPublished();
  for (const one of document.querySelectorAll("form")) one.addEventListener("submit", (event) => event.preventDefault());

  // -- page

  function view(name) {
    for (const one of ["measured", "published"]) {
      byId(one).hidden = one !== name;
      byId("show-" + one).setAttribute("aria-pressed", String(one === name));
    }
  }
  for (const one of ["measured", "published"]) byId("show-" + one).addEventListener("click", () => view(one));

  const dark = window.matchMedia("(prefers-color-scheme: dark)");
  const isDark = () => (document.documentElement.dataset.theme ? document.documentElement.dataset.theme === "dark" : dark.matches);
  function label() {
    byId("theme").textContent = isDark() ? "Light" : "Dark";
  }
  byId("theme").addEventListener("click", () => {
    document.documentElement.dataset.theme = isDark() ? "light" : "dark";
    label();
  });
  dark.addEventListener("change", label);
  label();

  function download(name, text, type) {
    const button = make("button", { type: "button", "data-file": name }, name);
    button.addEventListener("click", () => {
      const link = make("a", { href: URL.createObjectURL(new Blob([text()], { type: type })), download: name });
      link.click();
      setTimeout(() => URL.revokeObjectURL(link.href), 1000);
    });
    byId("downloads").append(button);
  }
  download("measured.csv", () => data.files["measured.csv"], "text/csv");
  download("measured.json", () => JSON.stringify(data.boards, null, 2), "application/json");
  download("published.csv", () => data.files["published.csv"], "text/csv");
})();
