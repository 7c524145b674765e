"use strict";
// The page is whole without this: here are only search, moving by arrow keys, and opening what a link leads to.
(() => {
  const all = (selector, from = document) => Array.from(from.querySelectorAll(selector));
  const by = (id) => document.getElementById(id);
  const folded = (text) => text.normalize("NFKD").toLowerCase().trim();
  const many = Boolean(by("q"));

  const rows = all(".row").map((body) => ({
    body, series: body.closest(".series"),
    text: folded(body.querySelector("th .release").textContent + " " + body.querySelector("th .package").textContent),
    cells: all("td[data-o]", body.rows[0]).map((cell) => ({
      outcome: cell.dataset.o, column: cell.cellIndex, who: folded(cell.querySelector(".who bdi").textContent) })),
  }));
  const tables = all(".matrix").map((table) => ({
    table, names: Array.from(table.tHead.rows[0].cells).map((cell) => folded(cell.textContent)), shown: "" }));

  const columns = (who) => {
    for (const each of tables) {
      // The first column names the release; the last one, which is empty, takes up what room is left.
      const hidden = each.names.map((name, number) =>
        number > 0 && number < each.names.length - 1 && who !== "" && !name.includes(who));
      const state = hidden.join();
      if (state === each.shown) continue;
      each.shown = state;
      for (const line of [each.table.tHead.rows[0], ...Array.from(each.table.tBodies, (body) => body.rows[0])])
        Array.from(line.cells).forEach((cell, number) => { cell.hidden = hidden[number]; });
    }
  };

  const filter = () => {
    const what = folded(by("q").value), who = folded(by("s").value), outcome = by("o").value;
    const verdict = document.querySelector("input[name=v]:checked").value;
    const shown = new Map();
    let count = 0;
    for (const row of rows) {
      const cells = who || outcome;
      const fits = row.text.includes(what) && (!cells || row.cells.some((cell) =>
        cell.who.includes(who) && (outcome ? cell.outcome === outcome : true)));
      row.body.hidden = !fits;
      const seen = fits && (verdict === "all" || row.body.classList.contains(verdict));
      count += seen ? 1 : 0;
      shown.set(row.series, (shown.get(row.series) || 0) + (seen ? 1 : 0));
    }
    columns(who);
    for (const [series, seen] of shown) {
      series.hidden = seen === 0;
      if (seen && (what || who || outcome || verdict !== "all")) series.open = true;
    }
    by("count").textContent = `${count} of ${rows.length} shown`;
  };

  const reveal = (id) => {
    const found = id && by(id);
    if (!found) return;
    for (let at = found; at; at = at.parentElement) if (at.tagName === "DETAILS") at.open = true;
    found.scrollIntoView({ block: "nearest" });
    found.focus({ preventScroll: true });
  };
  addEventListener("hashchange", () => reveal(location.hash.slice(1)));
  document.addEventListener("click", (event) => {
    const link = event.target.closest && event.target.closest("a[href^='#']");
    if (link && link.hash === location.hash) reveal(link.hash.slice(1));
  });

  // One stop for the tab key in each matrix; the arrow keys go on from there.
  for (const { table } of tables) {
    const first = table.querySelector("td > a");
    if (first) first.tabIndex = 0;
    table.addEventListener("focusin", (event) => {
      if (!event.target.matches("td > a")) return;
      for (const other of all("td > a[tabindex='0']", table)) other.tabIndex = -1;
      event.target.tabIndex = 0;
    });
    table.addEventListener("keydown", (event) => {
      const from = event.target;
      if (!from.matches("td > a") || event.ctrlKey || event.altKey || event.metaKey) return;
      const to = next(table, from.parentElement, event.key);
      if (to === undefined) return;
      event.preventDefault();
      if (to) to.focus();
    });
  }
  function next(table, cell, key) {
    const usable = (line) => line ? all("td > a", line).filter((link) => link.offsetParent !== null) : [];
    const line = cell.parentElement, own = usable(line), at = own.indexOf(cell.firstElementChild);
    if (key === "ArrowRight") return own[at + 1];
    if (key === "ArrowLeft") return own[at - 1] || null;
    if (key === "Home") return own[0];
    if (key === "End") return own[own.length - 1];
    if (key !== "ArrowDown" && key !== "ArrowUp") return undefined;
    const bodies = Array.from(table.tBodies).filter((body) => body.offsetParent !== null || body.rows[0].offsetParent);
    const step = key === "ArrowDown" ? 1 : -1;
    for (let number = bodies.indexOf(line.parentElement) + step; bodies[number]; number += step) {
      const links = usable(bodies[number].rows[0]);
      if (links.length) return links.reduce((best, link) =>
        Math.abs(link.parentElement.cellIndex - cell.cellIndex) < Math.abs(best.parentElement.cellIndex - cell.cellIndex)
          ? link : best);
    }
    return null;
  }

  if (many) {
    for (const each of all(".js")) each.hidden = false;
    let waiting = 0;
    for (const id of ["q", "s"]) by(id).addEventListener("input", () => {
      clearTimeout(waiting);
      waiting = setTimeout(filter, 80);
    });
    by("o").addEventListener("change", filter);
    for (const each of all("input[name=v]")) each.addEventListener("change", filter);
    filter();
  }
  reveal(location.hash.slice(1));
})();
