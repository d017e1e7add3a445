// The script of the oracle's report, after what all pages share.

// ------------------------------------------------------------------------------------------------ what is shown

const { model } = shown;
// A pass of which nothing was given is not drawn: mostly the gradients.
const drawn = new Set(shown.steps.filter((step) => step.agrees !== undefined).map((step) => step.group));
const steps = shown.steps.filter((step) => drawn.has(step.group));
const byName = new Map(steps.map((step, index) => [step.name, index]));
const given = steps.filter((step) => step.agrees !== undefined);
const [LOWEST, HIGHEST] = [-3, 9]; // levels: the logarithm of an error over what rounding explains

// The maps of a step: `at(map, row, column)` is the level of a cell, null where there is no difference.
function unpack({ shape, cells: [rows, columns], data, axes }) {
  const bytes = Uint8Array.from(atob(data), (character) => character.charCodeAt(0));
  const at = (map, row, column) => {
    const byte = bytes[(map * rows + row) * columns + column];
    return byte ? LOWEST + ((byte - 1) / 254) * (HIGHEST - LOWEST) : null;
  };
  return { shape, rows, columns, axes, count: bytes.length / (rows * columns), at };
}
for (const step of steps) if (step.map) step.map = unpack(step.map);

// The page opens at the step that the doctor names, else at the first that differs, else at that which comes nearest to it.
const opening = () => {
  const [nearest] = [...given].sort((one, other) => other.level - one.level);
  const wanted = [byName.get(shown.step), steps.findIndex((step) => step.agrees === false), steps.indexOf(nearest)];
  return wanted.find((index) => index !== undefined && index >= 0) ?? 0;
};
const state = { step: opening(), map: 0, row: 0, column: 0 };

// The cell with the largest error of a map, and the map with the largest error of a step.
function worst({ map }) {
  let best = { map: 0, row: 0, column: 0, level: -Infinity };
  for (let m = 0; m < map.count; m++) {
    for (let i = 0; i < map.rows; i++) {
      for (let j = 0; j < map.columns; j++) {
        const level = map.at(m, i, j) ?? -Infinity;
        if (level > best.level) best = { map: m, row: i, column: j, level };
      }
    }
  }
  return { map: best.map, row: best.row, column: best.column };
}

function show(change) {
  const other = "step" in change && change.step !== state.step;
  Object.assign(state, change);
  const { map } = steps[state.step];
  if (map) {
    if (other || state.map >= map.count) Object.assign(state, worst(steps[state.step]), "map" in change ? { map: change.map } : {});
    state.map = Math.min(Math.max(state.map, 0), map.count - 1);
    state.row = Math.min(Math.max(state.row, 0), map.rows - 1);
    state.column = Math.min(Math.max(state.column, 0), map.columns - 1);
  }
  draw();
}

function choose(change) {
  show(change);
  writeLink();
}

// page.html#step=encoder.layer.0.attention.self.probs&map=1&theme=dark
function link() {
  const parts = new URLSearchParams({ step: steps[state.step].name });
  if (steps[state.step].map && state.map !== worst(steps[state.step]).map) parts.set("map", state.map);
  return parts;
}

function follow(parts) {
  const change = { step: byName.get(parts.get("step")) ?? opening() };
  state.step = -1;
  if (/^\d+$/.test(parts.get("map") ?? "")) change.map = Number(parts.get("map"));
  show(change);
}

// ------------------------------------------------------------------------------------------------ colours, words

function byLevel(level) {
  if (level === null) return colours.panel;
  if (level <= 0) return mix(colours.panel, colours.forward, 0.2 + 0.5 * (1 + Math.max(level, LOWEST) / 3));
  return mix(colours.inherited, colours.wrong, level / 4);
}

// How many times what rounding explains: 0.02, 3.1, 4·10⁵.
function times(level) {
  if (level >= HIGHEST) return "10⁹ or more";
  const value = 10 ** level;
  if (value < 1000) return String(Number(value.toPrecision(2)));
  const power = Math.floor(level);
  const raised = [...String(power)].map((digit) => "⁰¹²³⁴⁵⁶⁷⁸⁹"[digit]).join("");
  return `${Number((10 ** (level - power)).toPrecision(2))}·10${raised}`;
}

// Whether a difference is a number: that from NaN is none.
const isNumber = (step) => Number.isFinite(Number(step.absolute));

function said(step) {
  if (step.agrees === undefined) return step.given_as ? `not given by this name: it is ${step.given_as}` : "not given";
  if (String(step.their_shape) !== String(step.shape)) return `of shape (${step.their_shape.join(", ")}), expected (${step.shape.join(", ")})`;
  if (!isNumber(step)) return "differs: it has numbers that are NaN or infinite";
  const sign = step.level <= LOWEST ? "at most 0.001" : times(step.level);
  const little = step.agrees && !step.telling ? "; that says little, because rounding explains most of it" : "";
  return `${step.agrees ? "agrees" : "differs"}: ${sign} times what rounding explains${little}`;
}

// ------------------------------------------------------------------------------------------------ 1: what was found

function buildVerdict() {
  $("title").textContent = shown.title;
  $("model").textContent = `${model.layers} layers, ${model.hidden_size} features, ${model.heads} heads; compared in ${shown.dtype}.`;
  $("verdict").textContent = shown.verdict;
  $("verdict").classList.toggle("right", shown.agrees);
  $("notes").append(...shown.notes.map((line) => element("p", { class: "soft" }, line)));
  const { words, notes } = shown.doctor;
  $("doctor").append(...words.map((line) => element("p", { class: line.startsWith("  ") ? "more" : "" }, line.trim())),
    ...notes.map((line) => element("p", { class: "soft" }, line)));
  $("findings").append(...shown.findings.map(buildFinding));
}

function buildFinding(finding) {
  const title = [finding.name, finding.way].filter(Boolean).join(", ");
  const columns = finding.code.map(({ layer, theirs, right }) => element("div", { class: "columns two" },
    element("div", {}, element("h4", { class: "theirs" }, `What these numbers follow, in place of ${layer}`), element("pre", { tabindex: "0" }, theirs)),
    element("div", {}, element("h4", { class: "right" }, `What is right: ${layer}`), element("pre", { tabindex: "0" }, right))));
  return element("figure", { class: "mistake" }, element("h3", {}, `${title}${finding.place}`),
    element("p", {}, element("b", {}, "This port: "), `${finding.does}.`),
    element("p", {}, element("b", {}, "Right is "), `${finding.right}.`), element("p", {}, finding.effect), ...columns);
}

// ------------------------------------------------------------------------------------------------ 2: the diagram

// Steps that stand next to each other in a pass, a block, a part.
function runs(items, key) {
  const found = [];
  for (const item of items) {
    if (found.at(-1)?.key === item[key]) found.at(-1).items.push(item); else found.push({ key: item[key], items: [item] });
  }
  return found;
}

const GROUPS = { forward: "Forward: from the embeddings to the result", backward: "Backward: gradients, from the loss back" };

function buildDiagram() {
  const missing = steps.filter((step) => step.agrees === undefined && !step.given_as).length;
  const nothing = [...new Set(shown.steps.map((step) => step.group))].filter((group) => !drawn.has(group));
  $("diagram-text").textContent = `${steps.length} arrays in the order in which they are made` +
    (missing ? `; ${missing} of them were not given.` : ".") + (nothing.length ? ` Nothing was given of: ${nothing.join(", ")}.` : "") + " Choose one, by mouse or by arrow keys, and the pictures below show it.";
  const sample = (text, level, kind = "") => element("li", {}, element("span", { class: `step ${kind}` },
    element("i", level === undefined ? {} : { "data-level": level }), text));
  $("legend").append(sample("agrees", -1.5), sample("agrees, but says little", -1.5, "little"), sample("10 times what rounding explains", 1),
    sample("10,000 times and more", 4), sample("does not follow from its inputs", 4, "wrong"), sample("not given", undefined, "missing"));
  for (const group of runs(steps, "group")) {
    const blocks = runs(group.items, "block").map((block) => element("div", { class: "block" }, element("b", {}, block.key),
      element("div", { class: "parts" }, ...runs(block.items, "part").map((part) => element("div", { class: "part" },
        ...(part.key ? [element("span", {}, part.key)] : []), ...part.items.map(buildStep))))));
    $("diagram").append(element("div", { class: "group" }, element("h3", {}, GROUPS[group.key] ?? `Training, ${group.key}`), ...blocks));
  }
  const move = (to) => { choose({ step: (to + steps.length) % steps.length }); chipOf(state.step).focus(); };
  $("diagram").addEventListener("keydown", (event) => arrows(event, {
    ArrowLeft: () => move(state.step - 1), ArrowUp: () => move(state.step - 1), ArrowRight: () => move(state.step + 1),
    ArrowDown: () => move(state.step + 1), Home: () => move(0), End: () => move(steps.length - 1),
  }));
}

const chipOf = (index) => $(`step-${index}`);

function buildStep(step) {
  const index = byName.get(step.name);
  const seen = steps[byName.get(step.given_as)] ?? step; // the same numbers, by the name by which they were given
  const kinds = [["missing", seen.agrees === undefined], ["wrong", step.wrong], ["little", seen.agrees && !seen.telling]];
  return element("button", {
    type: "button", role: "radio", id: `step-${index}`, class: ["step", ...kinds.filter(([, is]) => is).map(([kind]) => kind)].join(" "),
    title: `${step.name}: ${said(step)}`, "aria-label": `${step.name}: ${said(step)}${step.wrong ? "; it does not follow from its inputs" : ""}`,
    onclick: () => choose({ step: index }),
  }, element("i", seen.level === undefined ? {} : { "data-level": seen.level }), step.short);
}

function drawDiagram() {
  steps.forEach((_, index) => {
    chipOf(index).setAttribute("aria-checked", String(index === state.step));
    chipOf(index).tabIndex = index === state.step ? 0 : -1;
  });
  for (const dot of document.querySelectorAll("[data-level]")) dot.style.background = css(byLevel(Number(dot.dataset.level)));
}

// ------------------------------------------------------------------------------------------------ 3: along the way

function drawDepth() {
  const svg = $("depth");
  const [width, height, left, right, top, bottom] = [room(svg), 260, 44, 10, 12, 34];
  const levels = given.map((step) => step.level);
  const [low, high] = [Math.floor(Math.min(-1, ...levels)), Math.ceil(Math.max(1, ...levels))];
  const x = (index) => left + ((index + 0.5) / steps.length) * (width - left - right);
  const y = (level) => top + ((high - level) / (high - low)) * (height - top - bottom);
  svg.replaceChildren();
  svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
  for (let level = low; level <= high; level++) {
    svg.append(element("svg:line", { class: "axis", x1: left, x2: width - right, y1: y(level), y2: y(level), ...(level ? {} : { style: "stroke: var(--ink)" }) }));
    svg.append(element("svg:text", { x: left - 6, y: y(level) + 4, "text-anchor": "end" }, level ? `10${level < 0 ? "⁻" : ""}${"⁰¹²³⁴⁵⁶⁷⁸⁹"[Math.abs(level)]}` : "1"));
  }
  let lastEnd = -Infinity;
  for (const block of runs(steps.map((step, index) => ({ ...step, index, key: `${step.group} ${step.block}` })), "key")) {
    const [from, to] = [block.items[0].index, block.items.at(-1).index];
    const at = (x(from) + x(to)) / 2;
    svg.append(element("svg:line", { class: "axis", x1: x(from - 0.5), x2: x(from - 0.5), y1: top, y2: height - bottom }));
    const name = block.items[0].block;
    if (at - 3.2 * name.length > lastEnd) {
      svg.append(element("svg:text", { x: at, y: height - bottom + 16, "text-anchor": "middle" }, name));
      lastEnd = at + 3.2 * name.length + 6;
    }
  }
  const places = given.map((step) => [byName.get(step.name), step.level]);
  svg.append(element("svg:polyline", {
    points: places.map(([index, level]) => `${x(index).toFixed(1)},${y(level).toFixed(1)}`).join(" "), fill: "none",
    stroke: "var(--soft)", "stroke-opacity": 0.5,
  }));
  for (const [index, level] of places) {
    const chosen = index === state.step;
    svg.append(element("svg:circle", {
      cx: x(index), cy: y(level), r: chosen ? 6 : 3, fill: css(byLevel(level)), stroke: chosen ? "var(--ink)" : "var(--panel)", "stroke-width": chosen ? 2 : 0.5,
    }, element("svg:title", {}, `${steps[index].name}: ${said(steps[index])}`)));
  }
  svg.onclick = (event) => {
    const box = svg.getBoundingClientRect();
    const px = ((event.clientX - box.left) / box.width) * width;
    const nearest = places.reduce((best, [index]) => (Math.abs(x(index) - px) < Math.abs(x(best) - px) ? index : best), places[0]?.[0] ?? 0);
    choose({ step: nearest });
  };
  const first = given.find((step) => !step.agrees);
  svg.setAttribute("aria-label", `Errors of ${given.length} steps; ${first ? `the first beyond what rounding explains is ${first.name}` : "none is beyond what rounding explains"}.`);
}

// ------------------------------------------------------------------------------------------------ 4: where

// What a map is of: text 1, head 3.
function nameOfMap(map, index) {
  const axes = map.shape.slice(0, -2);
  let rest = index;
  return axes.map((_, axis) => {
    const size = axes.slice(axis + 1).reduce((product, length) => product * length, 1);
    const at = Math.floor(rest / size);
    rest %= size;
    return `${map.axes[axis]} ${at}`;
  }).join(", ");
}

// The numbers of an axis that a cell holds: 3, or 12 to 15.
function numbersOf(length, cells, at) {
  const start = (index) => Math.floor((index * length) / cells);
  const [from, to] = [start(at), Math.max(start(at), start(at + 1) - 1)];
  return from === to ? String(from) : `${from} to ${to}`;
}

const lengths = (map) => [map.shape.length > 1 ? map.shape.at(-2) : 1, map.shape.at(-1)];
const titles = (map) => [map.shape.length > 1 ? map.axes.at(-2) : "", map.axes.at(-1)];
const TOKENS = ["token", "query", "key"];

// The text that a map is of, for its masked tokens; null where it is of none.
function textOf(map, index) {
  if (map.axes[0] !== "text" || map.shape.length < 2) return null;
  return map.shape.length === 2 ? null : Math.floor(index / map.shape.slice(1, -2).reduce((product, length) => product * length, 1));
}

function labelsOf(map, axis) {
  const [length, cells, title] = [lengths(map)[axis], axis ? map.columns : map.rows, titles(map)[axis]];
  const masked = TOKENS.includes(title) ? shown.masked[textOf(map, state.map)] ?? [] : [];
  return Array.from({ length: cells }, (_, at) => {
    const text = numbersOf(length, cells, at).split(" ")[0];
    return masked.includes(Number(text)) && length === cells ? `(${text})` : text;
  });
}

function drawWhere() {
  const step = steps[state.step];
  $("map-title").textContent = step.name;
  const { map } = step;
  for (const part of ["map", "readout"]) $(part).hidden = !map;
  if (!map) {
    const why = step.agrees === undefined ? `It was ${said(step)}.` : String(step.their_shape) !== String(step.shape) ? "It has another shape."
      : step.shape.length ? "There is no map of it: maps of the arrays that differ come first, and fill this page." : "It is one number.";
    $("map-text").textContent = why;
  } else {
    const [rows, columns] = titles(map);
    const masked = (shown.masked[textOf(map, state.map)] ?? []).length && [rows, columns].some((title) => TOKENS.includes(title));
    const axes = rows ? `rows are ${plural(rows)}, columns ${plural(columns)}` : `columns are ${plural(columns)}`;
    const sentence = [nameOfMap(map, state.map), axes, "green: within what rounding explains; orange to red: beyond it",
      ...(masked ? ["tokens in brackets are masked"] : [])].filter(Boolean).join("; ");
    $("map-text").textContent = `${sentence}.`;
    $("map").setAttribute("aria-label", `${step.name}, ${nameOfMap(map, state.map)}: ${map.rows} by ${map.columns} cells; arrow keys move the choice`);
    const labels = [labelsOf(map, 0), labelsOf(map, 1)];
    const sparse = (texts, every) => texts.map((text, at) => (at % every === 0 ? text : ""));
    drawMap($("map"), {
      rows: map.rows, columns: map.columns, row: state.row, column: state.column, cellHeight: map.rows === 1 ? 26 : map.rows > 24 ? 12 : undefined,
      rowLabels: map.shape.length > 1 ? labels[0] : [""], columnLabels: map.columns <= 40 ? labels[1] : sparse(labels[1], 8),
      colour: (i, j) => byLevel(map.at(state.map, i, j)),
    });
    drawReadout(state.row, state.column);
  }
  drawFacts(step);
}

const plural = (axis) => ({ query: "queries" })[axis] ?? `${axis}s`;

function drawReadout(row, column) {
  const { map } = steps[state.step];
  const [rows, columns] = titles(map);
  const [rowLength, columnLength] = lengths(map);
  const at = [...(rows ? [`${rows} ${numbersOf(rowLength, map.rows, row)}`] : []), `${columns} ${numbersOf(columnLength, map.columns, column)}`];
  const level = map.at(state.map, row, column);
  $("readout").replaceChildren(`${at.join(", ")}: `, element("b", {},
    level === null ? "the same number" : level >= HIGHEST && !isNumber(steps[state.step]) ? "NaN, infinite, or far away"
      : `${level <= LOWEST ? "at most 0.001" : times(level)} times what rounding explains`));
}

function drawFacts(step) {
  const facts = [["shape", `(${step.shape.join(", ")})`]];
  if (step.agrees !== undefined) {
    facts.push(["what it is", said(step)]);
    if (step.theirs !== step.name) facts.push(["called", step.theirs]);
    if (String(step.their_shape) === String(step.shape)) {
      if (isNumber(step)) facts.push(["largest difference", `${step.absolute}, ${step.relative} of the largest number`]);
      facts.push(["rounding explains", step.tolerance], [step.where.length ? "there" : "it", `${step.where.length ? `[${step.where.join(", ")}] ` : ""}is ${step.is}, expected ${step.expected}`]);
    }
  }
  if (step.wrong) facts.push(["by itself", "it does not follow from its inputs"]);
  else if (step.agrees === false) facts.push(["by itself", "it follows from its inputs: the error came with them"]);
  $("facts").replaceChildren(...facts.flatMap(([key, value]) => [element("dt", {}, key), element("dd", {}, value)]));
  const made = [];
  if (step.sources.length) {
    made.push(element("p", { class: "links" }, "made of ", ...step.sources.map((name) => (byName.has(name)
      ? element("button", { type: "button", onclick: () => choose({ step: byName.get(name) }) }, name) : element("code", {}, `${name} `)))));
  }
  const layer = shown.layers[step.layer];
  if (layer) {
    made.push(element("h4", {}, `by ${step.layer}`), element("pre", { tabindex: "0" }, layer.code ?? ""),
      element("details", {}, element("summary", {}, "its formula, and where it comes from"), element("pre", { class: "text", tabindex: "0" }, layer.text)));
  }
  $("definition").replaceChildren(...made);
}

function buildMap() {
  const canvas = $("map");
  canvas.addEventListener("click", (event) => {
    const place = canvas.place(event);
    if (place) choose(place);
  });
  canvas.addEventListener("mousemove", (event) => {
    const place = canvas.place(event);
    if (place) drawReadout(place.row, place.column);
  });
  canvas.addEventListener("mouseleave", () => drawReadout(state.row, state.column));
  const move = (row, column) => choose({ row: state.row + row, column: state.column + column });
  canvas.addEventListener("keydown", (event) => arrows(event, {
    ArrowLeft: () => move(0, -1), ArrowRight: () => move(0, 1), ArrowUp: () => move(-1, 0), ArrowDown: () => move(1, 0),
  }));
}

// ------------------------------------------------------------------------------------------------ the bar

// layer 0 query, layer 1 LayerNorm weight, loss
function titleOf({ block, part, short }) {
  const of = ["weight", "bias"].includes(short) ? part.split(".").at(-1) : "";
  return [block, of, short].filter((word, at, words) => word && word !== words[at - 1]).join(" ");
}

const CHOICES = [
  ["step", "Step", () => steps.length, () => titleOf(steps[state.step])],
  ["map", "Map", () => steps[state.step].map?.count ?? 1, () => (steps[state.step].map ? nameOfMap(steps[state.step].map, state.map) || "all" : "–")],
];

function buildBar() {
  for (const [key, title, count] of CHOICES) {
    const step = (by) => choose({ [key]: (state[key] + by + count()) % count() });
    const button = (by, sign, word) => element("button", { type: "button", "aria-label": `${word} ${key}`, onclick: () => step(by) }, sign);
    const group = element("div", { class: "stepper wide", role: "group", "aria-label": title }, element("span", { "aria-hidden": "true" }, title),
      button(-1, "‹", "Previous"), element("output", { id: `bar-${key}` }), button(1, "›", "Next"));
    group.addEventListener("keydown", (event) => arrows(event, { ArrowLeft: () => step(-1), ArrowRight: () => step(1) }));
    $("steppers").append(group);
  }
}

// ------------------------------------------------------------------------------------------------ all of it

function draw() {
  for (const [key, , , text] of CHOICES) $(`bar-${key}`).textContent = text();
  drawDiagram();
  drawDepth();
  drawWhere();
}

buildBar();
buildVerdict();
buildDiagram();
buildMap();
start();
