"use strict";

const data = JSON.parse(document.getElementById("data").textContent);
const byId = (id) => document.getElementById(id);

/** An element. A run's data become text and attributes, never markup. */
function el(tag, attributes = {}, ...children) {
  return fill(document.createElement(tag), attributes, children);
}

function svg(tag, attributes = {}, ...children) {
  return fill(document.createElementNS("http://www.w3.org/2000/svg", tag), attributes, children);
}

function fill(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (typeof value === "function") element.addEventListener(name, value);
    else if (name.startsWith("--")) element.style.setProperty(name, value);
    else element.setAttribute(name, value);
  }
  element.append(...children.filter((child) => child !== null && child !== undefined));
  return element;
}

const percent = (part) => `${(100 * part).toFixed(3)}%`;
const count = (number, one, many = `${one}s`) => `${number.toLocaleString()} ${number === 1 ? one : many}`;

function size(bytes) {
  const units = ["B", "KiB", "MiB", "GiB"];
  let n = 0;
  while (bytes >= 1000 && n < 3) {
    bytes /= 1024;
    n += 1;
  }
  return `${bytes.toFixed(n === 3 ? 2 : bytes < 10 && n ? 1 : 0)} ${units[n]}`;
}

function duration(seconds) {
  if (seconds < 60) return `${seconds.toFixed(seconds < 1 ? 2 : 1)} s`;
  const whole = Math.round(seconds);
  const minutes = Math.floor(whole / 60);
  const pad = (n) => String(n).padStart(2, "0");
  return minutes < 60 ? `${minutes} min ${pad(whole % 60)} s` : `${Math.floor(minutes / 60)} h ${pad(minutes % 60)} min`;
}

function clock(time, style = { hour: "2-digit", minute: "2-digit", second: "2-digit" }) {
  return new Intl.DateTimeFormat(undefined, style).format(new Date(time));
}

const date = (time) => clock(time, { dateStyle: "medium", timeStyle: "short" });

/** State that outlives reloads of the page; the browser may refuse to store it. */
const session = {
  get(name) {
    try {
      return JSON.parse(sessionStorage.getItem(`runner-${name}`));
    } catch {
      return null;
    }
  },
  set(name, value) {
    try {
      sessionStorage.setItem(`runner-${name}`, JSON.stringify(value));
    } catch {
      // then a reload forgets it
    }
  },
};
