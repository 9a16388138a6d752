/* The page of a report: its tree, the pages of its layers, and its charts by Observable Plot. */
"use strict";
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  document.documentElement.classList.add("js");

  // ---- the tree: a treegrid whose rows fold, sort among their siblings, and are searched
  const table = document.getElementById("tree");
  if (table) setUpTree(table);

  function setUpTree(table) {
    const body = table.tBodies[0], status = document.getElementById("found");
    const rows = Array.from(body.rows, (tr) => ({
      tr, parts: [], up: null, open: tr.getAttribute("aria-expanded") !== "false",
      text: `${tr.dataset.name} ${tr.textContent}`.toLowerCase(), keys: [],
    }));
    const trail = [];
    for (const row of rows) {
      trail.length = row.tr.getAttribute("aria-level") - 1;
      row.up = trail.at(-1) ?? null;
      row.up?.parts.push(row);
      trail.push(row);
    }
    const state = { column: -1, down: true, flat: false, query: "" };

    const key = (row) => row.keys[state.column] ??= (() => {
      const cell = row.tr.cells[state.column], value = cell.dataset.v;
      return value === undefined ? cell.textContent.toLowerCase() : Number(value);
    })();
    const empty = (value) => value === "" || Number.isNaN(value);
    function compare(a, b) {
      const one = key(a), two = key(b);
      if (empty(one) || empty(two)) return empty(one) - empty(two); // what has no figure comes last
      return (one < two ? -1 : one > two ? 1 : 0) * (state.down ? -1 : 1);
    }
    const sorted = (list) => (state.column < 0 ? list : list.slice().sort(compare));

    function render() {
      const listed = state.flat ? rows.filter((row) => row.tr.dataset.page) : rows;
      const hits = listed.filter((row) => row.text.includes(state.query));
      const shown = new Set(hits);
      if (!state.flat && state.query)
        for (let row of hits) while ((row = row.up)) shown.add(row);
      if (!state.flat && !state.query)
        for (const row of rows)
          for (let up = row.up; up; up = up.up) if (!up.open) shown.delete(row);
      const order = [];
      const walk = (list) => { for (const row of sorted(list)) order.push(row), walk(row.parts); };
      if (state.flat) order.push(...sorted(rows)); else walk(rows.filter((row) => !row.up));
      for (const row of order) {
        row.tr.hidden = !shown.has(row);
        if (row.parts.length) row.tr.setAttribute("aria-expanded", String(row.open || !!state.query));
      }
      body.replaceChildren(...order.map((row) => row.tr));
      table.classList.toggle("flat", state.flat);
      status.textContent = state.query ? `${hits.length} of ${listed.length} rows match` : "";
    }

    const of = new Map(rows.map((row) => [row.tr, row]));
    function fold(row, open) {
      if (row.parts.length) row.open = open, render();
    }
    function focus(tr) {
      body.querySelector('tr[tabindex="0"]')?.setAttribute("tabindex", "-1");
      tr.tabIndex = 0;
      tr.focus();
    }
    for (const button of body.querySelectorAll("a, summary, button")) button.tabIndex = -1;
    rows[0].tr.tabIndex = 0;
    body.addEventListener("click", (event) => {
      const button = event.target.closest(".fold");
      if (button) { const row = of.get(button.closest("tr")); fold(row, !row.open); }
    });
    body.addEventListener("keydown", (event) => {
      const tr = event.target.closest("tr"), row = of.get(tr);
      const seen = Array.from(body.rows).filter((one) => !one.hidden), at = seen.indexOf(tr);
      const go = { ArrowDown: seen[at + 1], ArrowUp: seen[at - 1], Home: seen[0], End: seen.at(-1) };
      if (event.key in go) go[event.key] && focus(go[event.key]);
      else if (event.key === "ArrowRight" && row.parts.length)
        row.open ? focus(seen[at + 1] ?? tr) : fold(row, true);
      else if (event.key === "ArrowLeft")
        row.open && row.parts.length ? fold(row, false) : row.up && focus(row.up.tr);
      else if (event.key === "Enter" && event.target === tr)
        (tr.querySelector("a") ?? tr.querySelector("summary"))?.click();
      else if (event.key === " " && event.target === tr) tr.querySelector("summary")?.click();
      else return;
      event.preventDefault();
      if (event.key.startsWith("Arrow") && document.activeElement === document.body) focus(tr);
    });
    for (const button of table.tHead.querySelectorAll("button"))
      button.addEventListener("click", () => {
        const head = button.closest("th"), column = head.cellIndex;
        if (state.column !== column) state.column = column, state.down = "down" in head.dataset;
        else if (state.down === "down" in head.dataset) state.down = !state.down;
        else state.column = -1; // the model's own order again
        for (const th of table.tHead.rows[0].cells)
          if (th.hasAttribute("aria-sort")) th.setAttribute("aria-sort", "none");
        if (state.column >= 0) head.setAttribute("aria-sort", state.down ? "descending" : "ascending");
        render();
      });
    document.getElementById("search").addEventListener("input", (event) => {
      state.query = event.target.value.trim().toLowerCase();
      render();
    });
    document.getElementById("flat").addEventListener("change", (event) => {
      state.flat = event.target.checked;
      render();
    });
    for (const [name, open] of [["expand", true], ["collapse", false]])
      document.getElementById(name).addEventListener("click", () => {
        for (const row of rows) row.open = open || !row.up;
        render();
      });
    render();
  }

  // ---- a layer's page: its own part and its region's, shown as a dialog
  const dialog = document.getElementById("page"), store = document.getElementById("layers");
  function openPage(id) {
    const layer = document.getElementById(id);
    if (!layer?.matches(".layer")) return;
    const region = document.getElementById(layer.dataset.region);
    dialog.append(layer, ...(region ? [region] : []));
    dialog.setAttribute("aria-labelledby", layer.querySelector("h2").id);
    dialog.showModal();
    dialog.scrollTop = 0;
  }
  if (dialog) {
    document.addEventListener("click", (event) => {
      const link = event.target.closest("a[href^='#layer']");
      if (!link) return;
      event.preventDefault();
      openPage(link.getAttribute("href").slice(1));
    });
    dialog.addEventListener("close", () => store.append(...dialog.querySelectorAll("article")));
    document.getElementById("close").addEventListener("click", () => dialog.close());
    if (location.hash) openPage(location.hash.slice(1));
  }
  window.addEventListener("beforeprint", () => {
    for (const part of document.querySelectorAll("details")) part.open = true;
  });

  // ---- the charts
  const log = (label) => ({ type: "log", label, tickFormat: "~g" });
  const MARKS = { "as it is": ["square", "var(--ink)"], chosen: ["star", "var(--good)"],
    "best on the line": ["diamond", "var(--after)"], another: ["circle", "var(--bar)"] };
  function legend(points) {
    const domain = Object.keys(MARKS).filter((what) => points.some((one) => one.what === what));
    const scale = (part) => ({ domain, range: domain.map((what) => MARKS[what][part]) });
    return Plot.legend({ symbol: scale(0), color: { type: "categorical", ...scale(1) }, fill: "color" });
  }
  const marked = (points, x, y, tip) => [
    ...points.map((one) => Plot.dot([one], {
      x, y, symbol: MARKS[one.what][0], fill: MARKS[one.what][1], stroke: "var(--paper)", r: 7 })),
    Plot.tip(points, Plot.pointer({ x, y, title: tip, maxRadius: 24 })),
  ];
  const four = (value) => Number(value).toLocaleString("en", { maximumSignificantDigits: 4 });

  function front(figure, width) {
    const { points, across, up } = data.front;
    return [legend(points), Plot.plot({
      width, height: 340, marginLeft: 60, marginTop: 30, marginRight: 60, grid: true,
      x: log(across), y: log(up), ariaLabel: `${up} against ${across}, one point a plan`,
      marks: [
        Plot.line(points, { x: "x", y: "y", sort: "x", stroke: "var(--dim)", strokeDasharray: "2,4" }),
        Plot.text(points, { x: "x", y: "y", text: "name", dy: -14, fill: "currentColor" }),
        ...marked(points, "x", "y", "tip"),
      ],
    })];
  }

  function edges(values) {
    if (values.length < 2) return [values[0] / 1.5, values[0] * 1.5];
    const middle = values.slice(1).map((value, i) => Math.sqrt(value * values[i]));
    return [values[0] ** 2 / middle[0], ...middle, values.at(-1) ** 2 / middle.at(-1)];
  }

  function map(figure, width) {
    const { widths, members, values, costs, cost, measure, curve, points } = data.maps[figure.dataset.map];
    const across = edges(widths), up = edges(members);
    const cells = widths.flatMap((n, i) => members.map((m, j) => ({
      n, m, value: values[i][j], x1: across[i], x2: across[i + 1], y1: up[j], y2: up[j + 1],
      tip: `${m} x ${n}\n${measure} ${four(values[i][j])}\n${costs[i][j].toLocaleString("en")} ${cost}`,
    }))).filter((cell) => cell.value > 0);
    const tip = (one) => `${one.what}: ${one.m} x ${one.n}\n${measure} ${four(one.value)}`;
    const x = log("width of a member, channels");
    const line = { stroke: "var(--after)", strokeWidth: 2 };
    const shared = { width, marginLeft: 60, marginTop: 30, x: { ...x, domain: [across[0], across.at(-1)] } };
    return [
      Plot.legend({ color: { type: "log", scheme: "YlGnBu", reverse: true, label: measure,
        domain: d3.extent(cells, (cell) => cell.value) }, width: Math.min(width, 320), ticks: 4, tickFormat: "~g" }),
      legend(points),
      Plot.plot({
        ...shared, height: 320, y: log("members"),
        color: { type: "log", scheme: "YlGnBu", reverse: true },
        ariaLabel: `${measure} over members and width; the line is the most members that the limit allows`,
        marks: [
          Plot.rect(cells, { x1: "x1", x2: "x2", y1: "y1", y2: "y2", fill: "value" }),
          Plot.line(curve, { x: "n", y: "m", ...line }),
          Plot.tip(cells, Plot.pointer({ x: "n", y: "m", title: "tip" })),
          ...marked(points, "n", "m", tip).slice(0, -1),
        ],
      }),
      Plot.plot({
        ...shared, height: 220, y: log(measure), grid: true,
        ariaLabel: `${measure} along that line, over the width of a member`,
        marks: [
          Plot.line(curve, { x: "n", y: "value", ...line }),
          ...marked(points, "n", "value", tip),
        ],
      }),
    ];
  }

  function signal(figure, width) {
    const here = Number(figure.dataset.at), { up, down, names } = data.signal;
    const rows = [["forward", up], ["backward", down]].flatMap(([which, values]) =>
      values.map((value, i) => ({ i, value, which, tip: `${names[i]}\n${which} ${value}` })));
    return [Plot.plot({
      width, height: 220, marginLeft: 60, marginTop: 30, grid: true,
      x: { label: "layer, in execution order", tickFormat: "d" },
      y: { label: "d log K / d log second moment" },
      color: { legend: true, domain: ["forward", "backward"], range: ["var(--bar)", "var(--after)"] },
      ariaLabel: "How much of the kernel follows each layer's forward and backward second moment",
      marks: [
        Plot.ruleX([here], { stroke: "currentColor", strokeDasharray: "2,2" }),
        Plot.lineY(rows, { x: "i", y: "value", z: "which", stroke: "which", marker: rows.length < 60 ? "dot" : null }),
        Plot.tip(rows, Plot.pointer({ x: "i", y: "value", title: "tip" })),
      ],
    })];
  }

  function race(figure, width) {
    const by = figure.dataset.by, label = "held-out loss", points = data.race;
    return [Plot.plot({
      width, height: 260, marginLeft: 60, marginTop: 30, grid: true,
      x: { label: by, zero: true }, y: points.every((one) => one.loss > 0) ? log(label) : { label },
      color: { legend: true, domain: [...new Set(points.map((one) => one.name))] },
      ariaLabel: `${label} over ${by}, one line a design`,
      marks: [
        Plot.line(points, { x: by, y: "loss", stroke: "name", marker: "dot" }),
        Plot.tip(points, Plot.pointer({ x: by, y: "loss",
          title: (one) => `${one.name}: ${four(one.loss)} at ${four(one[by])} ${by}` })),
      ],
    })];
  }

  const charts = { front, map, signal, race };
  const drawn = new WeakMap();
  const watch = new ResizeObserver((entries) => {
    for (const { target } of entries) {
      const width = Math.floor(target.clientWidth);
      if (!width || drawn.get(target) === width) continue;
      drawn.set(target, width);
      const made = charts[target.dataset.chart](target, width);
      target.querySelector(".plot").replaceChildren(...made);
      for (const svg of target.querySelectorAll("svg[aria-label]")) svg.setAttribute("role", "img");
      for (const part of target.querySelectorAll("g[aria-label]")) { // an image has no parts to name
        part.dataset.mark = part.getAttribute("aria-label");
        part.removeAttribute("aria-label");
      }
    }
  });
  for (const figure of document.querySelectorAll("figure[data-chart]")) watch.observe(figure);
})();
