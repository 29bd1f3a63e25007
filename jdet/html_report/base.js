"use strict";
// Elements, numbers and sections: what the other scripts are made of. Text is always set as text, never
// as markup, so that a name of a class or file can hold anything.
const data = JSON.parse(document.getElementById("contents").textContent);
const SVG = "http://www.w3.org/2000/svg";

function fill(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else node.setAttribute(name, value === true ? "" : value);
  }
  node.append(...children.filter((child) => child !== null && child !== undefined));
  return node;
}

const el = (tag, attributes = {}, ...children) =>
  fill(document.createElement(tag), attributes, children);
const svg = (tag, attributes = {}, ...children) =>
  fill(document.createElementNS(SVG, tag), attributes, children);
// Names may be written from right to left; the text around them is not.
const name = (text) => el("bdi", {}, String(text));

const digits = (value, most) => value.toLocaleString("en", { maximumFractionDigits: most });

function significant(value) {
  if (value === 0) return "0";
  const size = Math.abs(value);
  if (size >= 1e6 || size < 1e-4) return value.toExponential(2);
  return value.toLocaleString("en", { maximumSignificantDigits: 4 });
}

function seconds(value) {
  const [h, m, s] = [Math.floor(value / 3600), Math.floor(value / 60) % 60, Math.round(value % 60)];
  return h ? `${h} h ${m} min` : m ? `${m} min ${s} s` : `${s} s`;
}

const FORMATS = {
  text: String,
  count: (value) => digits(value, 0),
  percent: (value) => `${(100 * value).toFixed(1)} %`,
  points: (value) => `${(100 * value).toFixed(1)}`,
  score: (value) => value.toFixed(2),
  number: significant,
  seconds,
  bytes: (value) => `${digits(value / 2 ** 20, 0)} MiB`,
};

function shown(value, kind) {
  return value === null || value === undefined ? "–" : FORMATS[kind](value);
}

const plural = (count, one, many = `${one}s`) => `${digits(count, 0)} ${count === 1 ? one : many}`;

// Adds a section to the page and to the navigation; one without content is left out.
function section(id, title, lead, ...content) {
  if (!content.some(Boolean)) return null;
  const heading = `${id}-title`;
  document.getElementById("main").append(
    el("section", { id, "aria-labelledby": heading }, el("h2", { id: heading }, title),
      lead ? el("p", { class: "lead" }, lead) : null, ...content),
  );
  document.getElementById("sections").append(el("li", {}, el("a", { href: `#${id}` }, title)));
  return document.getElementById(id);
}

// A region that scrolls by itself must be reachable by keyboard, and have a name.
const scrolling = (label, className, ...content) =>
  el("div", { class: `scroll ${className}`, role: "region", "aria-label": label, tabindex: "0" }, ...content);

const facts = (pairs) =>
  el("dl", { class: "facts" }, ...pairs.flatMap(([label, value]) => [
    el("dt", {}, name(label)), el("dd", {}, name(value)),
  ]));
