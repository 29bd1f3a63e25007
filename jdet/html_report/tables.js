// Tables: sorted by a button in each header, with bars behind shares, and the matrix of confusions.

// columns: {key, label, kind, bar}; the first one names the row. A bar shows the share of 1.
function table(label, columns, rows, { sorted = null, filter = false, short = false, cells = {} } = {}) {
  const body = el("tbody");
  let key = sorted, down = true;
  const heads = columns.map((column) => el("th", { scope: "col", class: column.kind === "text" ? null : "number" },
    el("button", { type: "button", onclick: () => {
      down = key === column.key ? !down : column.kind !== "text";
      key = column.key;
      show();
    } }, column.label)));

  function cell(column, row, i) {
    const value = row[column.key];
    const text = cells[column.key] ? cells[column.key](row) : name(shown(value, column.kind));
    if (i === 0) return el("th", { scope: "row" }, text);
    if (column.bar && typeof value === "number") {
      const bar = el("i", { "aria-hidden": "true" });
      bar.style.width = `${Math.max(0, Math.min(100, (100 * value) / column.bar))}%`;
      return el("td", { class: "number bar" }, bar, el("span", {}, text));
    }
    return el("td", { class: column.kind === "text" ? "text" : "number" }, text);
  }

  function show() {
    const wanted = search ? search.value.trim().toLowerCase() : "";
    const kept = rows.filter((row) => !wanted || String(row[columns[0].key]).toLowerCase().includes(wanted));
    if (key !== null) {
      kept.sort((a, b) => {
        const [x, y] = [a[key] ?? null, b[key] ?? null];
        if (x === null || y === null) return (x === null) - (y === null); // what is not known comes last
        const order = typeof x === "number" ? x - y : String(x).localeCompare(String(y));
        return down ? -order : order;
      });
    }
    heads.forEach((head, i) => {
      if (columns[i].key === key) head.setAttribute("aria-sort", down ? "descending" : "ascending");
      else head.removeAttribute("aria-sort");
    });
    body.replaceChildren(...kept.map((row) => el("tr", {}, ...columns.map((column, i) => cell(column, row, i)))));
    if (count) count.textContent = wanted ? `${plural(kept.length, "row")} of ${rows.length}` : "";
  }

  const count = filter ? el("span", { "aria-live": "polite" }) : null;
  const search = filter ? el("input", { type: "search", oninput: show }) : null;
  show();
  return el("div", {},
    filter ? el("div", { class: "tools" }, el("label", {}, "Filter by name ", search), count) : null,
    scrolling(label, short ? "short" : "", el("table", {}, el("caption", {}, label),
      el("thead", {}, el("tr", {}, ...heads)), body)));
}

function confusionMatrix(confusion) {
  const { labels, matrix } = confusion, last = labels.length - 1;
  const background = (i) => i === last;
  const row = (counts, i) => {
    const sum = counts.reduce((a, b) => a + b, 0);
    return el("tr", {}, el("th", { scope: "row" }, name(background(i) ? "nothing there" : labels[i])),
      ...counts.map((count, j) => {
        const right = i === j && !background(i);
        const cell = el("td", { class: right ? "right" : null }, count ? digits(count, 0) : "");
        const share = sum ? count / sum : 0;
        if (count) cell.style.backgroundColor = `color-mix(in srgb, var(--heat) ${Math.round(8 + 92 * share)}%, var(--card))`;
        cell.title = `${labels[i]} as ${labels[j]}: ${count}, ${(100 * share).toFixed(1)} % of the row`;
        return cell;
      }));
  };
  return scrolling("Confusion matrix", "", el("table", { class: "matrix" },
    el("caption", {}, "Rows: what is there. Columns: what was found. Outlined: right."),
    el("thead", {}, el("tr", {}, el("td"), ...labels.map((label, i) =>
      el("th", { scope: "col" }, name(background(i) ? "missed" : label))))),
    el("tbody", {}, ...matrix.map(row))));
}
