// biome-ignore lint/suspicious/noRedundantUseStrict: this runs as a classic script, not as a module.
"use strict";
// The beginning of the script of every page: elements, colours, heat maps, the theme, the link that says what is shown.
// What follows it, in the same script, is the page's own, with three functions that are called from here:
//
//   draw()          draws all of the page anew, in the colours of the theme and the width of the window
//   link()          returns the parts of the address that say what is shown, as URLSearchParams
//   follow(parts)   shows what these parts say
//
// and its last line calls start().

const shown = JSON.parse(document.getElementById("data").textContent);

// ------------------------------------------------------------------------------------------------ elements, colours

const $ = (id) => document.getElementById(id);

function element(name, attributes = {}, ...children) {
  const made = name.startsWith("svg:")
    ? document.createElementNS("http://www.w3.org/2000/svg", name.slice(4)) : document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (key.startsWith("on")) made.addEventListener(key.slice(2), value); else made.setAttribute(key, value);
  }
  made.append(...children);
  return made;
}

const colours = {};
function readColours() {
  const style = getComputedStyle(document.documentElement);
  for (const name of ["panel", "ink", "soft", "line", "content", "position", "both", "minus", "forward", "wrong", "inherited"]) {
    const hex = style.getPropertyValue(`--${name}`).trim();
    colours[name] = [1, 3, 5].map((at) => parseInt(hex.slice(at, at + 2), 16));
  }
}
const mix = (from, to, share) => from.map((value, i) => Math.round(value + (to[i] - value) * Math.min(Math.max(share, 0), 1)));
const css = (rgb) => `rgb(${rgb.join(" ")})`;
const short = (token, most = 7) => ([...token].length > most ? `${[...token].slice(0, most - 1).join("")}…` : token);

// ------------------------------------------------------------------------------------------------ drawing

// The width of a picture: the inner width of the figure that is its parent.
function room(picture) {
  const figure = picture.parentElement;
  return Math.max(figure.clientWidth - 2 * parseFloat(getComputedStyle(figure).paddingLeft), 160);
}

// Give a canvas the width of its figure and the height that `height` computes from that; return its context.
function prepare(canvas, height) {
  const width = room(canvas);
  const scale = isPaper() ? 3 : window.devicePixelRatio || 1;
  const wanted = height(width);
  canvas.width = Math.round(width * scale);
  canvas.height = Math.round(wanted * scale);
  canvas.style.width = `${width}px`;
  canvas.style.height = `${wanted}px`;
  const context = canvas.getContext("2d");
  context.scale(scale, scale);
  return { context, width };
}

const FONT = '"PingFang SC", "Noto Sans CJK SC", "Microsoft YaHei", "WenQuanYi Zen Hei", system-ui, sans-serif';

const LABEL = 11; // the font size of a label of several characters
// A label of one character is not rotated.
const upright = (label) => [...label].length === 1 || /^[−+(]?\d\)?$/.test(label);

// A heat map with labels at its rows and columns. `canvas.place` returns the row and the column of a mouse event.
function drawMap(canvas, { rows, columns, colour, rowLabels, columnLabels, row, column, cellHeight }) {
  const measure = canvas.getContext("2d");
  measure.font = `${LABEL}px ${FONT}`;
  const widest = (labels) => Math.max(...labels.map((label) => measure.measureText(short(label)).width));
  const left = widest(rowLabels) + 8;
  const rotated = columnLabels.filter((label) => !upright(label));
  const top = columnLabels.length ? Math.max(widest([...rotated, ""]), LABEL) + 8 : 0;
  let size = 0;
  const { context, width } = prepare(canvas, (available) => {
    size = (available - left) / columns;
    if (!cellHeight) size = Math.min(size, 34);
    return top + rows * (cellHeight ?? size);
  });
  const tall = cellHeight ?? size;
  const gap = Math.min(size, tall) > 7 ? 1 : 0;
  for (let i = 0; i < rows; i++) {
    for (let j = 0; j < columns; j++) {
      context.fillStyle = css(colour(i, j));
      context.fillRect(left + j * size, top + i * tall, size - gap + (gap ? 0 : 0.5), tall - gap + (gap ? 0 : 0.5));
    }
  }
  const label = (text, chosen, extent, at) => {
    if (extent < 7.5 && !chosen) return;
    context.save();
    at();
    const fontSize = Math.min(upright(text) ? 14 : LABEL, Math.max(extent, 8));
    context.font = `${chosen ? "bold " : ""}${fontSize}px ${FONT}`;
    context.fillStyle = css(chosen ? colours.ink : colours.soft);
    context.textBaseline = "middle";
    context.fillText(short(text), 0, 0);
    context.restore();
  };
  rowLabels.forEach((text, i) => {
    label(text, i === row, tall, () => {
      context.textAlign = "right";
      context.translate(left - 6, top + (i + 0.5) * tall);
    });
  });
  columnLabels.forEach((text, j) => {
    label(text, j === column, size, () => {
      context.translate(left + (j + 0.5) * size, top - 5);
      if (upright(text)) { context.textAlign = "center"; context.translate(0, -5); } else context.rotate(-Math.PI / 2);
    });
  });
  context.strokeStyle = css(colours.ink);
  if (row !== undefined) context.strokeRect(left - 0.5, top + row * tall - 0.5, columns * size, tall);
  if (column !== undefined && row !== undefined) {
    context.lineWidth = 2;
    context.strokeRect(left + column * size, top + row * tall, size - gap, tall - gap);
  }
  canvas.place = (event) => {
    const box = canvas.getBoundingClientRect();
    const [i, j] = [Math.floor((event.clientY - box.top - top) / tall), Math.floor((event.clientX - box.left - left) / size)];
    return i >= 0 && i < rows && j < columns ? { row: i, column: Math.max(j, 0) } : null;
  };
  return width;
}

// ------------------------------------------------------------------------------------------------ keys, theme, link

// Arrow keys move the choice within a group of buttons; the Tab key stops at the chosen one alone. True: a key was used.
function arrows(event, moves) {
  const move = moves[event.key];
  if (!move || event.altKey || event.ctrlKey || event.metaKey) return false;
  event.preventDefault();
  move();
  return true;
}

const THEMES = ["auto", "light", "dark"]; // auto: that of the system
const theme = () => document.documentElement.dataset.theme ?? "auto";

function setTheme(wanted) {
  if (wanted === "auto") delete document.documentElement.dataset.theme; else document.documentElement.dataset.theme = wanted;
  redraw();
  writeLink(false);
}

function drawTheme() {
  $("theme").textContent = { auto: "◐ auto", light: "○ light", dark: "● dark" }[theme()];
  $("theme").setAttribute("aria-label", `Theme: ${theme()}`);
}

// A choice is a step for the browser's back button; one that follows within a second, as when an arrow key is held down,
// belongs to the same step.
let lastChoice = -Infinity;
function writeLink(newStep = true) {
  const parts = link();
  if (theme() !== "auto") parts.set("theme", theme());
  if (location.hash === `#${parts}`) return;
  const now = performance.now();
  try {
    history[newStep && now - lastChoice > 1000 ? "pushState" : "replaceState"](null, "", `#${parts}`);
  } catch {
    return; // a page within another page may have no address of its own
  }
  if (newStep) lastChoice = now;
}

function followLink() {
  const parts = new URLSearchParams(location.hash.slice(1));
  if (["light", "dark"].includes(parts.get("theme"))) document.documentElement.dataset.theme = parts.get("theme");
  lastChoice = -Infinity;
  readColours();
  drawTheme();
  follow(parts);
}

// ------------------------------------------------------------------------------------------------ all of it

function redraw() {
  readColours();
  drawTheme();
  draw();
}

// For paper everything is drawn anew: in the width of a page, in light colours, and fine.
const isPaper = () => document.documentElement.classList.contains("paper");
function drawForPaper(starts) {
  document.documentElement.classList.toggle("paper", starts);
  redraw();
}

function start() {
  $("theme").addEventListener("click", () => setTheme(THEMES[(THEMES.indexOf(theme()) + 1) % THEMES.length]));
  followLink();
  window.addEventListener("hashchange", followLink);
  window.addEventListener("resize", draw);
  window.addEventListener("beforeprint", () => drawForPaper(true));
  window.addEventListener("afterprint", () => drawForPaper(false));
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", redraw);
}

