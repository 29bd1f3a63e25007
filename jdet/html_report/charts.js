// Line charts, drawn at the width that there is. Values are read by pointer, or by arrow keys once the
// chart has the focus. Lines differ in dashes as well as in colour.
const DASHES = ["", "8 4", "2 3", "10 3 2 3", "5 2", "14 4", "2 6", "6 3 1 3 1 3"];
const drawings = new Map();
const resized = new ResizeObserver((entries) => {
  for (const { target, contentRect } of entries) {
    if (contentRect.width) drawings.get(target)(contentRect.width);
  }
});

function niceTicks(low, high, count) {
  const raw = (high - low) / Math.max(count, 1) || 1;
  const power = 10 ** Math.floor(Math.log10(raw));
  const step = [1, 2, 2.5, 5, 10].map((x) => x * power).find((x) => x >= raw * 0.999);
  const ticks = [];
  for (let i = Math.ceil(low / step - 1e-9); i * step <= high + step * 1e-6; i++) ticks.push(i * step + 0);
  return ticks;
}

function logTicks(low, high) {
  const ticks = [];
  const first = Math.floor(Math.log10(low)), last = Math.ceil(Math.log10(high));
  for (let i = first; i <= last; i++) {
    for (const x of last - first > 3 ? [1] : [1, 2, 5]) {
      const tick = x * 10 ** i;
      if (tick >= low * 0.999 && tick <= high * 1.001) ticks.push(tick);
    }
  }
  return ticks;
}

function tickLabel(value) {
  const size = Math.abs(value);
  if (size >= 1e4) return digits(value / 1e3, 1) + "k";
  if (size && size < 1e-3) return value.toExponential(0);
  return value.toLocaleString("en", { maximumSignificantDigits: 3 });
}

function nearest(sorted, value) {
  let low = 0, high = sorted.length - 1;
  while (high - low > 1) {
    const middle = (low + high) >> 1;
    if (sorted[middle] <= value) low = middle; else high = middle;
  }
  return value - sorted[low] <= sorted[high] - value ? low : high;
}

// spec: title, x and y (labels), lines ({name, x, y, faint, note}), marks, log (may be shown so),
// yRange, xRange, diagonal. note(i) is said beside a value, value stands in the legend for the last one.
function lineChart(spec) {
  const firm = spec.lines.filter((line) => !line.faint);
  const order = new Map(firm.map((line, i) => [line.name, i]));
  const color = (line) => `var(--c${order.get(line.name) % 8})`;
  const dash = (line) => (line.faint ? "" : DASHES[order.get(line.name) % DASHES.length]);
  const xs = [...new Set(firm.flatMap((line) => line.x))].sort((a, b) => a - b);
  const positive = spec.log && spec.lines.some((line) => line.y.some((y) => y > 0));
  let log = false, at = -1, scale = null;

  const plot = el("div", {
    class: "plot", tabindex: "0", role: "group",
    "aria-label": `Chart: ${spec.title}. Arrow keys read its values.`,
  });
  const readout = el("p", { class: "readout" });
  const toggle = positive
    ? el("button", { class: "small", "aria-pressed": "false", onclick: () => {
        log = !log;
        toggle.setAttribute("aria-pressed", String(log));
        draw(plot.clientWidth);
      } }, "log scale")
    : null;

  function draw(width) {
    const height = width < 420 ? 210 : 250;
    const box = { left: 50, right: width - 12, top: 18, bottom: height - 34 };
    const values = spec.lines.flatMap((line) => line.y).filter((y) => y !== null && (!log || y > 0));
    const [x0, x1] = spec.xRange ?? [Math.min(0, xs[0]), Math.max(xs[xs.length - 1], xs[0] + 1)];
    let low = values.reduce((a, b) => Math.min(a, b), Infinity);
    let high = values.reduce((a, b) => Math.max(a, b), -Infinity);
    if (spec.yRange && !log) [low, high] = spec.yRange;
    else if (!log) {
      const room = (high - Math.min(low, 0) || 1) * 0.05;
      [low, high] = [low < 0 ? low - room : 0, high + room];
    } else if (low === high) [low, high] = [low / 2, high * 2];
    const y01 = log ? (y) => Math.log(y / low) / Math.log(high / low) : (y) => (y - low) / (high - low);
    const px = (x) => box.left + ((x - x0) / (x1 - x0 || 1)) * (box.right - box.left);
    const py = (y) => box.bottom - y01(y) * (box.bottom - box.top);
    scale = { px, py, box, x0, x1 };

    const art = svg("svg", { viewBox: `0 0 ${width} ${height}`, height, "aria-hidden": "true" });
    for (const tick of log ? logTicks(low, high) : niceTicks(low, high, 4)) {
      art.append(
        svg("line", { class: "grid", x1: box.left, x2: box.right, y1: py(tick), y2: py(tick) }),
        svg("text", { x: box.left - 6, y: py(tick) + 4, "text-anchor": "end" }, tickLabel(tick)),
      );
    }
    for (const tick of niceTicks(x0, x1, Math.max(2, Math.floor(width / 90)))) {
      const end = px(tick) > box.right - 14;
      art.append(svg("text", { x: end ? box.right : px(tick), y: box.bottom + 16, "text-anchor": end ? "end" : "middle" }, tickLabel(tick)));
    }
    art.append(
      svg("text", { x: box.right, y: height - 3, "text-anchor": "end" }, spec.x),
      svg("text", { x: 2, y: 11 }, spec.y),
    );
    for (const mark of spec.marks ?? []) {
      art.append(
        svg("line", { class: "mark", x1: px(mark.x), x2: px(mark.x), y1: box.top, y2: box.bottom }),
        svg("text", { x: px(mark.x) + 4, y: box.top + 10 }, mark.label),
      );
    }
    if (spec.diagonal) {
      art.append(svg("line", { class: "mark", x1: px(x0), y1: py(low), x2: px(x1), y2: py(high) }));
    }
    for (const line of spec.lines) {
      let path = "", pen = false;
      line.y.forEach((y, i) => {
        const there = y !== null && (!log || y > 0);
        if (there) path += `${pen ? "L" : "M"}${px(line.x[i]).toFixed(1)} ${py(y).toFixed(1)}`;
        pen = there;
      });
      art.append(svg("path", {
        class: line.faint ? "line faint" : "line", d: path,
        stroke: color(line), "stroke-dasharray": dash(line),
      }));
      if (!line.faint && line.x.length <= 25) {
        line.y.forEach((y, i) => {
          if (y === null || (log && y <= 0)) return;
          art.append(svg("circle", { cx: px(line.x[i]), cy: py(y), r: 3, fill: color(line) }));
        });
      }
    }
    art.append(svg("line", { class: "cursor", y1: box.top, y2: box.bottom, visibility: "hidden" }));
    plot.replaceChildren(art);
    if (at >= 0) read(at);
  }

  function read(index) {
    at = Math.max(0, Math.min(index, xs.length - 1));
    const cursor = plot.querySelector(".cursor"), x = scale.px(xs[at]);
    cursor.setAttribute("x1", x);
    cursor.setAttribute("x2", x);
    cursor.setAttribute("visibility", "visible");
    const parts = firm.map((line) => {
      const i = nearest(line.x, xs[at]), y = line.y[i];
      if (y === null) return null;
      return `${line.name} ${significant(y)}${line.note ? ` (${line.note(i)})` : ""}`;
    });
    readout.textContent = `${spec.x} ${significant(xs[at])}: ${parts.filter(Boolean).join(", ")}`;
  }

  function leave() {
    at = -1;
    plot.querySelector(".cursor")?.setAttribute("visibility", "hidden");
    readout.textContent = "";
  }
  plot.addEventListener("pointermove", (event) => {
    const x = event.clientX - plot.getBoundingClientRect().left;
    const { box, x0, x1 } = scale;
    read(nearest(xs, x0 + ((x - box.left) / (box.right - box.left)) * (x1 - x0)));
  });
  plot.addEventListener("pointerleave", leave);
  plot.addEventListener("blur", leave);
  plot.addEventListener("keydown", (event) => {
    const far = Math.max(1, Math.round(xs.length / 10)), here = at < 0 ? xs.length : at;
    const to = { ArrowLeft: here - 1, ArrowRight: at + 1, Home: 0, End: xs.length - 1,
      PageUp: at + far, PageDown: here - far }[event.key];
    if (to === undefined) return;
    event.preventDefault();
    readout.setAttribute("aria-live", "polite");
    read(to);
  });

  const legend = el("ul", { class: "legend" }, ...firm.map((line) => {
    const last = line.value ?? line.y.findLast((y) => y !== null);
    return el("li", {},
      svg("svg", { viewBox: "0 0 26 10", "aria-hidden": "true" }, svg("line", {
        x1: 0, x2: 26, y1: 5, y2: 5, stroke: color(line), "stroke-width": 2.5, "stroke-dasharray": dash(line),
      })),
      name(line.name), last === undefined ? null : ` ${significant(last)}`);
  }));
  const figure = el("figure", { class: "chart" },
    el("figcaption", {}, el("span", {}, spec.title), toggle), plot, readout, legend, valueTable(spec, firm, xs));
  drawings.set(plot, draw);
  resized.observe(plot);
  return figure;
}

// The values of a chart as a table, made when it is opened.
function valueTable(spec, lines, xs) {
  const details = el("details", {}, el("summary", {}, "Values as a table"));
  details.addEventListener("toggle", () => {
    if (details.children.length > 1) return;
    const count = Math.min(25, xs.length);
    const picked = [...new Set(Array.from({ length: count }, (_, i) =>
      xs[Math.round((i * (xs.length - 1)) / Math.max(count - 1, 1))]))];
    details.append(scrolling(`Values: ${spec.title}`, "", el("table", {},
      el("thead", {}, el("tr", {}, el("th", { scope: "col" }, spec.x),
        ...lines.map((line) => el("th", { scope: "col", class: "number" }, name(line.name))))),
      el("tbody", {}, ...picked.map((x) => el("tr", {}, el("th", { scope: "row" }, significant(x)),
        ...lines.map((line) => {
          const y = line.y[nearest(line.x, x)];
          return el("td", { class: "number" }, y === null ? "–" : significant(y));
        })))))));
  });
  return details;
}
