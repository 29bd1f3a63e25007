// The page, from top to bottom.
const main = document.getElementById("main");
document.getElementById("status").textContent = data.status;
for (const note of data.notes) main.append(el("p", { class: "note" }, name(note)));

const TIDE = {
  classification: "in the right place, of another class",
  localisation: "of the right class, badly placed",
  both: "of another class and badly placed",
  duplicate: "found a second time",
  background: "found where nothing is",
  missed: "not found at all",
};

function tiles() {
  const { metrics, gallery } = data, found = [];
  for (const [key, value] of Object.entries(metrics)) {
    if (/^(tta\/)?[^/]+\/(m?AP|AP50|AP75)$/.test(key) && value !== null && found.length < 4) found.push([key, shown(value, "percent")]);
  }
  if (gallery?.objects) {
    const i = Math.round(gallery.threshold * 100), right = gallery.found[i], wrong = gallery.false[i];
    found.push([`recall at ${gallery.threshold.toFixed(2)}`, shown(right / gallery.objects, "percent")]);
    if (right + wrong) found.push([`precision at ${gallery.threshold.toFixed(2)}`, shown(right / (right + wrong), "percent")]);
    found.push(["objects", shown(gallery.objects, "count")], ["images", shown(gallery.total, "count")]);
  }
  if (found.length) {
    main.append(el("dl", { class: "tiles" }, ...found.map(([label, value]) => el("div", {}, el("dt", {}, label), el("dd", {}, value)))));
  }
}

function curves() {
  const charts = data.charts.map((chart) => lineChart({ ...chart, log: !chart.percent }));
  section("curves", "Training", charts.length
    ? "What the run logged, over optimiser steps. Pale lines are single batches, firm ones their moving average."
    : "Nothing is logged yet.", el("div", { class: "charts" }, ...charts));
}

function classes() {
  const { columns, rows } = data.per_class;
  if (!rows.length) return;
  const made = columns.map(([key, label, kind]) => ({ key, label, kind, bar: kind === "percent" && /^(ap|f1)/.test(label.toLowerCase()) ? 1 : 0 }));
  const first = made.find((column) => column.kind === "percent");
  section("classes", "Classes",
    made.some((column) => column.key === "score")
      ? `Best score: the threshold with the best F1 at an IoU of ${data.iou}, and precision and recall there; jdet.predict takes it where no other is asked for.`
      : "Average precision as the metrics of the run have it. A header sorts.",
    table("Classes", made, rows, { sorted: first?.key ?? null, filter: rows.length > 15 }), precisionRecall());
}

function precisionRecall() {
  const all = data.precision_recall.slice().sort((a, b) => b.area - a.area);
  if (!all.length) return null;
  const few = all.length <= 8 ? all : [...all.slice(0, 3), ...all.slice(-3)];
  const holder = el("div", {});
  const draw = (some) => holder.replaceChildren(lineChart({
    title: "Precision over recall", x: "recall", y: "precision", xRange: [0, 1], yRange: [0, 1.02],
    lines: some.map((one) => ({ ...one, value: one.area, note: one.score ? (i) => `score ${significant(one.score[i])}` : null })),
  }));
  const pick = el("select", { onchange: () => draw(pick.value === "" ? few : [all[Number(pick.value)]]) },
    el("option", { value: "" }, all.length > 8 ? "three best and three worst" : "all classes"),
    ...all.map((one, i) => el("option", { value: i }, one.name)));
  draw(few);
  return el("div", {}, el("h3", {}, "Precision and recall"),
    el("p", { class: "lead" }, "The number beside a class is the area below its curve."),
    all.length > 1 ? el("div", { class: "tools" }, el("label", {}, "Classes ", pick)) : null, holder);
}

function errors() {
  const parts = [];
  if (data.tide) {
    const rows = Object.entries(data.tide).map(([kind, gain]) => ({ kind, gain, what: TIDE[kind] ?? "" }));
    const most = Math.max(...rows.map((row) => row.gain ?? 0), 1e-9);
    parts.push(el("h3", {}, "Kinds of errors"), table(
      `Points of AP at IoU ${data.iou} to be won if all errors of a kind were gone (TIDE)`,
      [{ key: "kind", label: "Error", kind: "text" }, { key: "gain", label: "Points of AP", kind: "points", bar: most },
        { key: "what", label: "What it is", kind: "text" }], rows, { sorted: "gain", short: true }));
  }
  if (data.confusion) {
    const { pairs, classes: count, labels, score } = data.confusion;
    parts.push(el("h3", {}, "Confusions"),
      el("p", { class: "lead" }, `Objects by what was found in their place, at scores from ${shown(score, "score")}.` +
        (count > labels.length - 1 ? ` Of ${count} classes those ${labels.length - 1} that are confused most.` : "")),
      confusionMatrix(data.confusion));
    if (pairs.length) {
      parts.push(el("h3", {}, "Taken for another class most often"), table("Largest confusions",
        [{ key: "is", label: "Is", kind: "text" }, { key: "as", label: "Taken for", kind: "text" },
          { key: "count", label: "Objects", kind: "count" }, { key: "share", label: "Of its class", kind: "percent", bar: 1 }],
        pairs.map(([is, as, count, share]) => ({ is, as, count, share })), { sorted: "count", short: true }));
    }
  }
  if (parts.length) section("errors", "Errors", null, ...parts);
}

function calibration() {
  const bins = (data.calibration?.bins ?? []).filter((bin) => bin.count && bin.precision !== null);
  if (!bins.length) return;
  const { ece } = data.calibration;
  section("calibration", "Calibration",
    `Whether a score says how likely a detection is right: on the dashed line it does; below it, scores promise too much.` +
      (ece === null || ece === undefined ? "" : ` On average they are off by ${(100 * ece).toFixed(1)} points (expected calibration error).`),
    lineChart({ title: "Share of right detections by score", x: "score", y: "share right", xRange: [0, 1], yRange: [0, 1.02], diagonal: true,
      lines: [{ name: "right", x: bins.map((bin) => bin.score), y: bins.map((bin) => bin.precision), note: (i) => plural(bins[i].count, "detection") }] }));
}

function parts() {
  const ap = (label) => [{ key: "objects", label: "Objects", kind: "count" }, { key: "ap", label: "AP", kind: "percent", bar: 1 },
    { key: "ap50", label: "AP50", kind: "percent", bar: 1 }].toSpliced(0, 0, { key: "name", label, kind: "text" });
  const content = [];
  if (data.by_size) {
    const SIZES = { small: "small, below 32² pixels", medium: "medium, below 96²", large: "large" };
    const rows = Object.entries(data.by_size).map(([size, row]) => ({ ...row, name: SIZES[size] ?? size }));
    content.push(el("h3", {}, "By size"), table("Average precision by the area of objects", ap("Size"), rows, { short: true }));
  }
  if (data.slices?.length) {
    content.push(el("h3", {}, "By slice"), table("Average precision by parts of the set",
      ap("Slice").toSpliced(1, 0, { key: "images", label: "Images", kind: "count" }), data.slices, { short: true, filter: data.slices.length > 15 }));
  }
  if (content.length) section("sizes", data.slices?.length ? "Sizes and slices" : "Sizes", null, ...content);
}

function suspects(gallery) {
  if (!data.suspects.length) return;
  const rows = data.suspects.map((one, i) => ({ ...one, i, kind: KINDS[one.kind] ?? one.kind,
    what: one.other ? `${one.class}, found: ${one.other}` : one.class, where: one.box.map((x) => Math.round(x)).join(", ") }));
  const more = data.suspects_total - rows.length;
  section("labels", "Suspect labels",
    `Labels that confident detections contradict: worth a look, not proven wrong.` +
      (more > 0 ? ` The first ${rows.length} of ${data.suspects_total}.` : ""),
    table("Suspect labels", [{ key: "file", label: "Image", kind: "text" }, { key: "kind", label: "What", kind: "text" },
      { key: "what", label: "Class", kind: "text" }, { key: "score", label: "Score", kind: "score" },
      { key: "where", label: "Box: x1, y1, x2, y2", kind: "text" }, { key: "i", label: "Look", kind: "text" }],
    rows, { filter: rows.length > 15, cells: { i: (row) =>
      typeof data.gallery?.of_suspect[row.i] === "number"
        ? el("button", { type: "button", class: "small", "aria-label": `Show in image ${row.file}`, onclick: () => gallery.openSuspect(row.i) }, "show")
        : el("span", {}, "not in this page") } }));
}

function dataSection() {
  const { facts: pairs, defects, defects_total: total, findings } = data.data;
  const content = [];
  if (pairs.length) content.push(facts(pairs.map(([label, value]) => [label, typeof value === "number" ? digits(value, 2) : value])));
  if (findings.length) {
    content.push(el("h3", {}, `Findings of jdet.doctor (${findings.length})`), ...findings.map((one) =>
      el("details", {}, el("summary", {}, `${one.severity ?? "note"}: `, name(one.title ?? "")),
        facts([["Consequence", one.consequence], ["Remedy", one.remedy], ["Cases", one.count]].filter(([, value]) => value)))));
  }
  if (defects.length) {
    content.push(el("h3", {}, "Defects of the labels"),
      el("p", { class: "lead" }, total > defects.length ? `The first ${defects.length} of ${total}; defects.txt has all.` : "As in defects.txt."),
      table("Defects of the labels", [{ key: "id", label: "Image", kind: "text" }, { key: "role", label: "Set", kind: "text" },
        { key: "what", label: "What", kind: "text" }, { key: "detail", label: "Detail", kind: "text" }],
      defects.map(([role, id, what, detail]) => ({ role, id, what, detail }))));
  }
  section("data", "Data", null, ...(content.length ? content : [el("p", {}, "Nothing is on record of the data: no image was left out and no label corrected.")]));
}

function settings() {
  const groups = new Map();
  for (const [key, value] of data.config) {
    const group = key.includes(".") ? key.split(".")[0] : "general";
    groups.set(group, [...(groups.get(group) ?? []), [key, value]]);
  }
  const boxes = [...groups].map(([group, pairs]) => el("details", {}, el("summary", {}, `${group} (${pairs.length})`),
    el("dl", { class: "facts mono" }, ...pairs.flatMap(([key, value]) => [el("dt", { "data-key": key }, key), el("dd", {}, name(value))]))));
  const search = el("input", { type: "search", oninput: () => {
    const wanted = search.value.trim().toLowerCase();
    for (const box of boxes) {
      let any = false;
      for (const term of box.querySelectorAll("dt")) {
        const hit = !wanted || `${term.textContent} ${term.nextSibling.textContent}`.toLowerCase().includes(wanted);
        term.hidden = term.nextSibling.hidden = !hit;
        any ||= hit;
      }
      box.hidden = !any;
      box.open = Boolean(wanted) && any;
    }
  } });
  section("config", "Config", null, el("div", { class: "tools" }, el("label", {}, "Find a key or value ", search)), ...boxes);
}

tiles();
classes();
errors();
const gallery = data.gallery ? makeGallery(data.gallery) : null;
calibration();
parts();
suspects(gallery);
curves();
dataSection();
settings();
section("cost", "Cost and versions", null,
  facts(data.cost.map(([label, value, kind]) => [label, shown(value, kind)])),
  el("h3", {}, "Versions"), facts(data.versions),
  Object.keys(data.protocols).length ? el("h3", {}, "Protocols of the metrics") : null,
  Object.keys(data.protocols).length ? facts(Object.entries(data.protocols)) : null,
  Object.keys(data.metrics).length ? el("details", {}, el("summary", {}, "All metrics"),
    facts(Object.entries(data.metrics).map(([key, value]) => [key, value === null ? "–" : significant(value)]))) : null);
main.append(el("footer", {}, "This page is one file and loads nothing: it can be moved, mailed and opened without a network."));

// The section in view is marked in the navigation.
const links = new Map([...document.querySelectorAll("nav a")].map((link) => [link.hash.slice(1), link]));
const watched = new IntersectionObserver((entries) => {
  for (const { target, isIntersecting } of entries) {
    if (!isIntersecting) continue;
    for (const link of links.values()) link.removeAttribute("aria-current");
    links.get(target.id)?.setAttribute("aria-current", "true");
  }
}, { rootMargin: "-20% 0px -70% 0px" });
document.querySelectorAll("main > section").forEach((one) => watched.observe(one));
