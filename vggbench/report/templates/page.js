"use strict";
(() => {
  const root = document.documentElement;

  // Colour scheme: the system's until the button is used; storage may be forbidden, and then it lasts for this visit.
  const button = document.getElementById("scheme");
  const system = matchMedia("(prefers-color-scheme: dark)");
  const isDark = () => (root.dataset.scheme || (system.matches ? "dark" : "light")) === "dark";
  const name = () => { button.textContent = isDark() ? "Light" : "Dark"; button.setAttribute("aria-label", `Change to the ${isDark() ? "light" : "dark"} colour scheme`); };
  try { const kept = localStorage.getItem("vggbench-scheme"); if (kept === "dark" || kept === "light") root.dataset.scheme = kept; } catch { /* private mode, or a file: page */ }
  button.addEventListener("click", () => {
    root.dataset.scheme = isDark() ? "light" : "dark";
    try { localStorage.setItem("vggbench-scheme", root.dataset.scheme); } catch { /* as above */ }
    name();
  });
  system.addEventListener("change", name);
  name();
  button.hidden = false;

  // Sortable tables: a button in each column head; equal rows keep their order; a third press restores the paper's.
  const value = (row, column) => {
    const cell = row.cells[column];
    const text = cell.dataset.sort ?? cell.textContent.trim();
    const number = Number(text.replaceAll(",", ""));
    return text !== "" && !Number.isNaN(number) ? number : text;
  };
  const isMissing = (x) => x === "–" || x === "";
  const compare = (a, b) => typeof a === "number" && typeof b === "number" ? a - b
    : typeof a === "number" ? -1 : typeof b === "number" ? 1 : a.localeCompare(b, "en", { numeric: true });
  for (const table of document.querySelectorAll("table.sortable")) {
    const body = table.tBodies[0];
    const original = [...body.rows];
    const heads = [...table.tHead.rows[0].cells];
    heads.forEach((head, column) => {
      const press = document.createElement("button");
      press.type = "button";
      press.append(...head.childNodes);
      head.append(press);
      press.addEventListener("click", () => {
        const next = { undefined: "ascending", ascending: "descending", descending: undefined }[head.getAttribute("aria-sort") ?? undefined];
        for (const other of heads) other.removeAttribute("aria-sort");
        if (next) head.setAttribute("aria-sort", next);
        const sign = next === "descending" ? -1 : 1;
        const rows = !next ? original : [...original].sort((a, b) => {
          const [x, y] = [value(a, column), value(b, column)];
          if (isMissing(x) || isMissing(y)) return isMissing(x) - isMissing(y);
          return sign * compare(x, y);
        });
        body.append(...rows);
      });
    });
  }

  // A link to a record opens it; printing opens the comparisons of the findings.
  const reveal = () => {
    const target = location.hash.length > 1 && document.getElementById(decodeURIComponent(location.hash.slice(1)));
    if (target instanceof HTMLDetailsElement) { target.open = true; target.scrollIntoView({ block: "start" }); }
  };
  addEventListener("hashchange", reveal);
  document.addEventListener("click", (event) => { if (event.target.closest?.('a[href^="#record-"]')) setTimeout(reveal); });
  reveal();
  const records = document.querySelectorAll("details.record");
  const all = document.getElementById("open-records");
  all.hidden = false;
  all.addEventListener("click", () => {
    const open = ![...records].every((r) => r.open);
    records.forEach((r) => { r.open = open; });
    all.textContent = open ? "Close all" : "Open all";
  });
  let opened = [];
  addEventListener("beforeprint", () => { opened = [...document.querySelectorAll(".card details:not([open])")]; opened.forEach((d) => { d.open = true; }); });
  addEventListener("afterprint", () => opened.forEach((d) => { d.open = false; }));
})();
