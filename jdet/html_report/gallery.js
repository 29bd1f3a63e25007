// Evaluated images with what is there and what was found. Boxes are drawn over each image by the page;
// detections are in order of score, so that a threshold shows the first few of them.
const BATCH = 24;
const OUTCOMES = { "-1": "false: nothing there", "-2": "in an ignored object, counts neither way",
  "-3": "false: another class is there", "-4": "false: the object is found already", "-5": "false: badly placed" };
const KINDS = { unlabelled: "object without a label", wrong_class: "label of another class",
  badly_placed: "badly placed box", nothing_there: "label of nothing" };
const className = (label) => data.classes[label] ?? `class ${label}`;

function unpack(record) {
  const objects = [], detections = [];
  for (let i = 0; i < record.objects.length; i += 6) {
    const [x1, y1, x2, y2, label, ignored] = record.objects.slice(i, i + 6);
    objects.push({ box: [x1, y1, x2, y2].map((x) => x / 10), label, ignored: ignored === 1, by: -1 });
  }
  for (let i = 0; i < record.detections.length; i += 7) {
    const [x1, y1, x2, y2, label, score, outcome] = record.detections.slice(i, i + 7);
    detections.push({ box: [x1, y1, x2, y2].map((x) => x / 10), label, score: score / 1000, outcome });
    if (outcome >= 0 && objects[outcome]) objects[outcome].by = score / 1000;
  }
  objects.forEach((one, i) => (one.path = record.object_outlines?.[i]));
  detections.forEach((one, i) => (one.path = record.outlines?.[i]));
  return { ...record, objects, detections };
}

// Found, false and missed of an image; of one class where that is asked for.
function tally(image, level, label = null) {
  const counts = { found: 0, false: 0, missed: 0 };
  for (const one of image.detections) {
    if (one.score < level - 1e-9) break;
    if (label !== null && one.label !== label) continue;
    if (one.outcome >= 0) counts.found++;
    else if (one.outcome !== -2) counts.false++;
  }
  for (const one of image.objects) {
    if (label !== null && one.label !== label) continue;
    if (!one.ignored && one.by < level - 1e-9) counts.missed++;
  }
  return counts;
}

const f1 = ({ found, false: wrong, missed }) =>
  found + wrong + missed ? (2 * found) / (2 * found + wrong + missed) : 1;
const said = (counts) => `${counts.found} found, ${counts.false} false, ${counts.missed} missed`;

// The image with its boxes; show(level) leaves those from this score on.
function stage(image, alt) {
  const [width, height] = image.size;
  const art = svg("svg", { viewBox: `0 0 ${width} ${height}`, "aria-hidden": "true" });
  const shape = (one, kind) => {
    const [x1, y1, x2, y2] = one.box;
    const rect = svg("rect", { class: `box ${kind}`, x: x1, y: y1, width: Math.max(x2 - x1, 0), height: Math.max(y2 - y1, 0) });
    return one.path ? svg("g", {}, svg("path", { class: `box ${kind}`, d: one.path }), rect) : rect;
  };
  const objects = image.objects.map((one) => shape(one, `object${one.ignored ? " ignored" : ""}`));
  const found = image.detections.map((one) =>
    shape(one, one.outcome >= 0 ? "found" : one.outcome === -2 ? "neither" : "false"));
  art.append(...objects, ...found.slice().reverse()); // the best on top
  const node = el("span", { class: "stage" },
    el("img", { alt, width, height, decoding: "async", src: `data:image/jpeg;base64,${image.jpeg}` }), art);
  node.style.maxWidth = width < 200 ? "100%" : null;
  let before = found.length;
  const show = (level) => {
    let count = image.detections.findIndex((one) => one.score < level - 1e-9);
    if (count < 0) count = found.length;
    for (let i = Math.min(before, count); i < Math.max(before, count); i++) {
      found[i].style.display = i < count ? "" : "none";
    }
    before = count;
    image.objects.forEach((one, i) => {
      const missed = !one.ignored && one.by < level - 1e-9;
      for (const part of objects[i].tagName === "g" ? objects[i].children : [objects[i]]) part.classList.toggle("missed", missed);
    });
  };
  return { node, art, show };
}

function key(kind, text) {
  const art = svg("svg", { viewBox: "0 0 30 18", "aria-hidden": "true" },
    svg("rect", { class: `box ${kind}`, x: 3, y: 3, width: 24, height: 12 }));
  return el("li", {}, el("span", { class: "stage" }, art), text);
}

function makeGallery(gallery) {
  const images = gallery.images.map(unpack);
  let level = gallery.threshold, shownCount = BATCH, pending = false;
  const cards = new Map();
  const list = el("ul", { class: "grid-of-images" });
  const counts = el("p", { class: "counts", "aria-live": "polite", id: "counts" });
  const more = el("button", { type: "button", onclick: () => { shownCount += BATCH; arrange(); } });
  const slider = scoreSlider((value) => setLevel(value), "score");
  const order = el("select", { onchange: arrange }, ...[
    ["worst", "worst first"], ["best", "best first"], ["false", "most false detections first"],
    ["missed", "most missed objects first"], ["objects", "most objects first"], ["name", "by name"],
  ].map(([value, text]) => el("option", { value }, text)));
  const present = new Set(images.flatMap((image) => [...image.objects, ...image.detections.filter((one) =>
    one.score >= level)].map((one) => one.label)));
  const chosen = el("select", { onchange: arrange }, el("option", { value: "" }, "all classes"),
    ...[...present].sort((a, b) => className(a).localeCompare(className(b))).map((label) =>
      el("option", { value: label }, className(label))));
  const boxes = [["objects", "labelled objects"], ["found", "found"], ["false", "false"]].map(([kind, text]) =>
    el("label", {}, el("input", { type: "checkbox", checked: true, onchange: (event) =>
      list.classList.toggle(`without-${kind}`, !event.target.checked) }), ` ${text}`));

  const label = () => (chosen.value === "" ? null : Number(chosen.value));

  function card(image) {
    if (!cards.has(image)) {
      const held = stage(image, `Image ${image.name} with ${plural(image.objects.length, "labelled object")}`);
      const tallied = el("span", { class: "tally" });
      const node = el("li", {}, el("figure", {},
        el("button", { type: "button", class: "open", onclick: () => viewer.open(images.indexOf(image)),
          "aria-label": `Enlarge image ${image.name}` }, held.node),
        el("figcaption", {}, name(image.name), el("br"), tallied)));
      cards.set(image, { node, show: () => {
        held.show(level);
        tallied.textContent = said(tally(image, level, label()));
      } });
    }
    return cards.get(image);
  }

  function arrange() {
    const wanted = label();
    const kept = images.filter((image) => wanted === null ||
      [...image.objects, ...image.detections.filter((one) => one.score >= level - 1e-9)].some((one) => one.label === wanted));
    const counted = new Map(kept.map((image) => [image, tally(image, level, wanted)]));
    const by = {
      worst: (image) => [f1(counted.get(image)), -counted.get(image).false - counted.get(image).missed],
      best: (image) => [-f1(counted.get(image)), -counted.get(image).found],
      false: (image) => [-counted.get(image).false, 0],
      missed: (image) => [-counted.get(image).missed, 0],
      objects: (image) => [-image.objects.length, 0],
    }[order.value];
    kept.sort((a, b) => {
      if (!by) return a.name.localeCompare(b.name, undefined, { numeric: true });
      const [x, y] = [by(a), by(b)];
      return x[0] - y[0] || x[1] - y[1];
    });
    list.replaceChildren(...kept.slice(0, shownCount).map((image) => card(image).node));
    more.hidden = kept.length <= shownCount;
    more.textContent = `Show ${Math.min(BATCH, kept.length - shownCount)} more of ${kept.length}`;
    refresh();
  }

  function refresh() {
    pending = false;
    for (const image of images) if (cards.get(image)?.node.isConnected) card(image).show();
    const i = Math.round(level * 100), found = gallery.found[i], wrong = gallery.false[i];
    const recall = gallery.objects ? shown(found / gallery.objects, "percent") : "–";
    const precision = found + wrong ? shown(found / (found + wrong), "percent") : "–";
    counts.textContent = `Score ${level.toFixed(2)} and above, all ${plural(gallery.total, "image")}: ` +
      `${digits(found, 0)} of ${plural(gallery.objects, "object")} found (recall ${recall}), ` +
      `${plural(wrong, "false detection")} (precision ${precision}).`;
    viewer.refresh();
  }

  function setLevel(value) {
    level = value;
    for (const one of [slider, viewer.slider]) one.set(level);
    if (!pending) {
      pending = true;
      requestAnimationFrame(refresh);
    }
  }

  const viewer = makeViewer(images, () => level, setLevel);
  for (const one of [slider, viewer.slider]) one.set(level);
  const partly = images.length < gallery.total
    ? `The page holds ${images.length} of ${gallery.total} images: the worst, some of the best, and others so that every class is seen. `
    : "";
  const cut = images.some((image) => image.left_out)
    ? `Of each image the ${Math.max(...images.map((image) => image.detections.length))} detections with the highest scores are here. ` : "";
  const node = section("images", "Images",
    `${partly}${cut}A detection counts as found if its box overlaps an object of its class with an IoU of ${data.iou} at least. ` +
      `At first the score is the one with the best F1 of all images. Open an image to see names and scores.`,
    el("div", { class: "sticky" }, slider.node, counts),
    el("div", { class: "tools" }, el("label", {}, "Order ", order), el("label", {}, "Class ", chosen), ...boxes),
    el("ul", { class: "key" }, key("found", "found"), key("false", "false detection"),
      key("object missed", "object that is missed"), key("object", "labelled object"), key("neither", "ignored")),
    list, more);
  arrange();
  return { node, openSuspect: (i) => viewer.open(gallery.of_suspect[i], data.suspects[i]) };
}

function scoreSlider(changed, id) {
  const output = el("output", { for: id });
  const input = el("input", { type: "range", id, min: 0, max: 1, step: 0.01,
    oninput: () => changed(Number(input.value)) });
  return {
    node: el("div", { class: "slider" }, el("label", { for: id }, "Lowest score"), input, output),
    set: (value) => { input.value = value; output.textContent = value.toFixed(2); },
  };
}

// One image, large, with names, scores and a list of what is there.
function makeViewer(images, level, setLevel) {
  const dialog = document.getElementById("viewer");
  const title = el("h2", { id: "viewer-title" }), picture = el("div", { class: "picture" });
  const list = el("div", {}), slider = scoreSlider(setLevel, "viewer-score");
  let place = 0, held = null, suspect = null;
  const step = (by) => () => open((place + by + images.length) % images.length);
  dialog.append(
    el("div", { class: "viewer-head" }, title,
      el("button", { type: "button", onclick: step(-1) }, "← Previous"),
      el("button", { type: "button", onclick: step(1) }, "Next →"),
      el("button", { type: "button", onclick: () => dialog.close() }, "Close")),
    slider.node, el("div", { class: "viewer-body" }, picture, list));
  dialog.addEventListener("keydown", (event) => {
    if (event.target.matches("input")) return;
    if (event.key === "ArrowLeft") step(-1)();
    if (event.key === "ArrowRight") step(1)();
  });
  new ResizeObserver(() => refresh()).observe(picture);

  function open(to, doubt = null) {
    [place, suspect] = [to, doubt];
    const image = images[place];
    title.replaceChildren(name(image.name));
    held = stage(image, `Image ${image.name}, enlarged`);
    held.node.style.maxWidth = `calc(80vh * ${image.size[0] / image.size[1]})`;
    picture.replaceChildren(held.node);
    if (!dialog.open) dialog.showModal();
    refresh();
  }

  function refresh() {
    if (!dialog.open || !held) return;
    const image = images[place], at = level();
    held.show(at);
    held.art.querySelectorAll("text, .suspect").forEach((node) => node.remove());
    const em = (12 * image.size[0]) / Math.max(held.node.clientWidth, 1);
    const kept = image.detections.filter((one) => one.score >= at - 1e-9);
    const missed = image.objects.filter((one) => !one.ignored && one.by < at - 1e-9);
    const write = (one, text) => held.art.append(svg("text", { x: one.box[0], y: Math.max(one.box[1] - em * 0.3, em), "font-size": em }, text));
    if (kept.length <= 60) kept.slice().reverse().forEach((one) => write(one, `${className(one.label)} ${one.score.toFixed(2)}`));
    if (suspect) {
      const [x1, y1, x2, y2] = suspect.box.map((x) => x * image.scale);
      held.art.append(svg("rect", { class: "box suspect", x: x1, y: y1, width: x2 - x1, height: y2 - y1 }));
    }
    const row = (one, what, score) => el("tr", {}, el("th", { scope: "row" }, name(className(one.label))),
      el("td", {}, what), el("td", { class: "number" }, score));
    list.replaceChildren(
      suspect ? el("p", { class: "note" }, `Suspected: ${KINDS[suspect.kind] ?? suspect.kind}, `, name(suspect.class),
        suspect.other ? " or " : null, suspect.other ? name(suspect.other) : null) : "",
      el("p", { class: "counts" }, said(tally(image, at))),
      scrolling("Objects and detections", "", el("table", {},
        el("thead", {}, el("tr", {}, ...["Class", "What", "Score"].map((text) => el("th", { scope: "col" }, text)))),
        el("tbody", {}, ...missed.map((one) => row(one, "missed", "–")),
          ...kept.map((one) => row(one, one.outcome >= 0 ? "found" : OUTCOMES[one.outcome], one.score.toFixed(2)))))));
  }
  return { open, refresh, slider };
}
