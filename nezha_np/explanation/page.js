// The script of the page that nezha_np.explain writes, after what all pages share. It is longer than other files, because
// a page that loads nothing holds one script: parts of it could not import each other.
//
// Lengths: L tokens. Indices: i query, j key.

// ------------------------------------------------------------------------------------------------ what is shown

const { tokens, model } = shown;
const L = tokens.length;
const hasPosition = shown.layers.some((layer) => layer.position);

// An unknown token does not say what it was: sentences name it with the piece of the text that it stands for.
const isUnknown = (index) => tokens[index] === shown.unknown && ![null, shown.unknown].includes(shown.written[index]);
const called = (index) => (isUnknown(index) ? `${tokens[index]} for ${shown.written[index]}` : tokens[index]);

// An array that was rounded to whole numbers of 8 or 16 bits: value = low + step * number, for each block.
function unpack({ shape, bits, low, step, data }) {
  const bytes = Uint8Array.from(atob(data), (character) => character.charCodeAt(0));
  const size = shape.slice(1).reduce((product, axis) => product * axis, 1);
  const view = new DataView(bytes.buffer);
  const values = new Float64Array(shape[0] * size);
  for (let i = 0; i < values.length; i++) {
    const block = Math.floor(i / size);
    values[i] = low[block] + step[block] * (bits === 8 ? bytes[i] : view.getUint16(2 * i, true));
  }
  return { shape, block: (index) => values.subarray(index * size, (index + 1) * size) };
}

const layers = shown.layers.map((layer) =>
  Object.fromEntries(Object.entries(layer).map(([name, packed]) => [name, unpack(packed)])));
const embeddings = shown.embeddings.map((part) => ({ ...part, values: unpack(part.values) }));
const heads = (layer) => layers[layer].probs.shape[0];

// The probabilities of a head: its own (both), or those that one part of its scores alone would give.
function attention(layer, head, part) {
  const { probs, content, position } = layers[layer];
  if (part === "both" || !(part === "position" ? position : content)) return probs.block(head);
  const scores = (part === "position" ? position : content).block(head);
  const result = new Float64Array(L * L);
  for (let i = 0; i < L; i++) {
    const keys = model.is_decoder ? i + 1 : L;
    const row = scores.subarray(i * L, i * L + keys);
    const most = Math.max(...row);
    const total = row.reduce((sum, score) => sum + Math.exp(score - most), 0);
    row.forEach((score, j) => { result[i * L + j] = Math.exp(score - most) / total; });
  }
  return result;
}

// Softmax depends only on the differences within a row, so the maps of scores show each row without its mean.
function withoutRowMeans(scores) {
  const result = new Float64Array(L * L);
  for (let i = 0; i < L; i++) {
    const keys = model.is_decoder ? i + 1 : L;
    const mean = scores.subarray(i * L, i * L + keys).reduce((sum, score) => sum + score, 0) / keys;
    for (let j = 0; j < keys; j++) result[i * L + j] = scores[i * L + j] - mean;
  }
  return result;
}

// How much of the sum of squares of the two parts, without the means of their rows, is the position part's.
function positionShare(layer, head) {
  const { content, position } = layers[layer];
  const square = (part) => withoutRowMeans(part.block(head)).reduce((sum, score) => sum + score * score, 0);
  const [ofContent, ofPosition] = [square(content), square(position)];
  return ofContent + ofPosition ? ofPosition / (ofContent + ofPosition) : 0;
}

// The page opens at the head whose largest probabilities are highest, and at the first [MASK] of the text.
function sharpestHead() {
  let best = { layer: 0, head: 0, sharpness: -1 };
  layers.forEach((_, layer) => {
    for (let head = 0; head < heads(layer); head++) {
      const probs = attention(layer, head, "both");
      let sharpness = 0;
      for (let i = 0; i < L; i++) sharpness += Math.max(...probs.subarray(i * L, i * L + L));
      if (sharpness > best.sharpness) best = { layer, head, sharpness };
    }
  });
  return best;
}

const opening = {
  ...sharpestHead(), token: tokens.includes("[MASK]") ? tokens.indexOf("[MASK]") : Math.min(1, L - 1), part: "both",
};
const state = { ...opening, key: 0 };

function strongestKey() {
  const probs = attention(state.layer, state.head, "both");
  let best = 0;
  for (let j = 1; j < L; j++) if (probs[state.token * L + j] > probs[state.token * L + best]) best = j;
  return best;
}

// Change what is shown. An index beyond the end becomes the last: a layer with pruned heads has fewer than others.
function show(change) {
  Object.assign(state, change);
  state.layer = Math.min(Math.max(state.layer, 0), layers.length - 1);
  state.head = Math.min(Math.max(state.head, 0), heads(state.layer) - 1);
  state.token = Math.min(Math.max(state.token, 0), L - 1);
  state.key = "key" in change ? Math.min(Math.max(state.key, 0), L - 1) : strongestKey();
  draw();
}

function choose(change) {
  show(change);
  writeLink();
}

// The address says what is shown, so that a page that is loaded again, and a link that is sent, show the same:
// page.html#layer=2&head=0&token=5, where needed with &key=3, &part=position and &theme=dark.
function link() {
  const parts = new URLSearchParams({ layer: state.layer, head: state.head, token: state.token });
  if (state.key !== strongestKey()) parts.set("key", state.key);
  if (state.part !== "both") parts.set("part", state.part);
  return parts;
}

function follow(parts) {
  const change = { ...opening };
  for (const name of ["layer", "head", "token", "key"]) if (/^\d+$/.test(parts.get(name) ?? "")) change[name] = Number(parts.get(name));
  if (hasPosition && ["content", "position"].includes(parts.get("part"))) change.part = parts.get("part");
  show(change);
}

// ------------------------------------------------------------------------------------------------ elements, colours

function inkOn(rgb) {
  const light = rgb.map((value) => value / 255).reduce((sum, value, i) => sum + value ** 2.2 * [0.2126, 0.7152, 0.0722][i], 0);
  return light > 0.2 ? "#16181c" : "#ffffff";
}
const percent = (share) => `${Math.round(100 * share)} %`;
const CLASSES = { content: "in-content", position: "in-position", both: "in-both" };
const named = (part, text = part) => element("b", { class: CLASSES[part] }, text);

// ------------------------------------------------------------------------------------------------ drawing

function ticks(low, high, count = 4) {
  const rough = (high - low || 1) / count;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((factor) => factor * power).find((candidate) => candidate >= rough);
  const digits = Math.max(0, -Math.floor(Math.log10(step) + 1e-9));
  const found = [];
  for (let value = Math.ceil(low / step - 1e-9) * step; value <= high + 1e-9 * step; value += step) found.push([value, digits]);
  return found;
}

// A line chart. Each line has points [x, y] and a colour; the bold one is the chosen token's. A click on another line
// chooses its token.
function drawChart(svg, { lines, xTicks, low, high, dots = [], height = 210, xTitle = "", choose: picked }) {
  const width = room(svg);
  const [left, right, top, bottom] = [38, 12, dots.length ? 22 : 10, 40];
  const xs = lines.flatMap(({ points }) => points.map(([x]) => x));
  const [first, last] = [Math.min(...xs), Math.max(...xs)];
  const [from, to] = [left + 18, width - right - 12];
  const x = (value) => from + ((value - first) / (last - first || 1)) * (to - from);
  const y = (value) => top + ((high - value) / (high - low || 1)) * (height - top - bottom);
  svg.replaceChildren();
  svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
  for (const [value, digits] of ticks(low, high)) {
    svg.append(element("svg:line", { class: "axis", x1: left, x2: width - right, y1: y(value), y2: y(value) }));
    svg.append(element("svg:text", { x: left - 6, y: y(value) + 4, "text-anchor": "end" }, number(value, digits)));
  }
  for (const [value, text, chosen] of xTicks) {
    svg.append(element("svg:text", {
      x: x(value), y: height - bottom + 17, "text-anchor": "middle", class: chosen ? "chosen" : "",
    }, text));
  }
  svg.append(element("svg:text", { x: (left + width - right) / 2, y: height - 5, "text-anchor": "middle" }, xTitle));
  for (const { points, hue, bold, dashed, token } of lines) {
    const path = element("svg:polyline", {
      points: points.map(([px, py]) => `${x(px).toFixed(1)},${y(py).toFixed(1)}`).join(" "), fill: "none",
      stroke: `var(--${hue})`, "stroke-width": bold ? 3 : 1.2, "stroke-opacity": bold ? 1 : 0.3, "stroke-linejoin": "round",
      ...(dashed ? { "stroke-dasharray": "5 4", "stroke-opacity": 0.9, "stroke-width": 1.6 } : {}),
    });
    svg.append(path);
    if (bold && points.length === 1) {
      svg.append(element("svg:circle", { cx: x(points[0][0]), cy: y(points[0][1]), r: 3.5, fill: `var(--${hue})` }));
    }
    if (picked && token !== undefined) {
      const wide = path.cloneNode();
      wide.setAttribute("stroke-width", 10); wide.setAttribute("stroke-opacity", 0); wide.style.cursor = "pointer";
      wide.addEventListener("click", () => picked(token));
      wide.append(element("svg:title", {}, called(token)));
      svg.append(wide);
    }
  }
  for (const { at: [px, py], text, hue, chosen } of dots) {
    svg.append(element("svg:circle", { cx: x(px), cy: y(py), r: chosen ? 5 : 3.2, fill: `var(--${hue})` }));
    if (text) svg.append(element("svg:text", { x: x(px), y: y(py) - 9, "text-anchor": "middle", class: chosen ? "chosen" : "" }, text));
  }
}

// ------------------------------------------------------------------------------------------------ the bar

const CHOICES = [
  ["layer", "Layer", () => layers.length, () => String(state.layer)],
  ["head", "Head", () => heads(state.layer), () => String(state.head)],
  ["token", "Token", () => L, () => tokens[state.token]],
];

function buildBar() {
  for (const [key, title, count] of CHOICES) {
    const group = stepper(key, title, (by) => choose({ [key]: (state[key] + by + count()) % count() }));
    $("steppers").append(group);
  }
}

function drawBar() {
  for (const [key, , , text] of CHOICES) $(`bar-${key}`).textContent = text();
}

// ------------------------------------------------------------------------------------------------ 1 and 2

// The tooltip of a token that differs from what it stands for in the text: an unknown one, one in lower case.
function ofText(index) {
  const written = shown.written[index];
  return [null, tokens[index], tokens[index].replace(/^##/, "")].includes(written) ? {} : { title: `for “${written}” in the text` };
}

function describeUnknown() {
  const lost = [...new Set(shown.written.filter((_, index) => isUnknown(index)))];
  if (!lost.length) return;
  const listed = lost.flatMap((text, at) => [
    ...(at ? [at === lost.length - 1 ? " and " : ", "] : []), element("b", language(text), text)]);
  $("unknown-text").append("The vocabulary has no piece for ", ...listed,
    `: the model gets ${shown.unknown} in ${lost.length > 1 ? "their" : "its"} place, and cannot tell what the text says there.`);
}

function buildTokens() {
  $("title").textContent = shown.pair === null ? shown.text : `${shown.text} · ${shown.pair}`;
  Object.assign($("title"), language($("title").textContent));
  $("model").textContent = `through ${model.title}: ${model.layers} layers, ${heads(0)} heads, ${model.hidden_size} features, ` +
    `computed in ${model.dtype}.`;
  $("tokens-text").textContent = `The tokenizer splits the text into ${L} tokens. Below each is its id, its index in a ` +
    `vocabulary of ${model.vocab_size.toLocaleString("en")}` +
    (shown.pair === null ? "." : "; a double line marks the second text (token type 1).") +
    " Choose a token, and all pictures show it.";
  describeUnknown();
  $("chips").append(...tokens.map((token, index) => element("button", {
    type: "button", role: "radio", class: `chip${shown.types[index] ? " second" : ""}`, ...ofText(index),
    "aria-label": [token, ofText(index).title, `id ${shown.ids[index]}`, `token type ${shown.types[index]}`]
      .filter(Boolean).join(", "),
    onclick: () => choose({ token: index }),
  }, element("b", language(token), token), element("small", {}, String(shown.ids[index])),
    ...(isUnknown(index) ? [element("small", { class: "was", ...language(shown.written[index]) }, short(shown.written[index]))] : []))));
  const move = (to) => { choose({ token: (to + L) % L }); $("chips").children[state.token].focus(); };
  const moves = {
    ArrowLeft: () => move(state.token - 1), ArrowRight: () => move(state.token + 1), ArrowUp: () => move(state.token - 1),
    ArrowDown: () => move(state.token + 1), Home: () => move(0), End: () => move(L - 1),
  };
  $("chips").addEventListener("keydown", (event) => arrows(event, moves));
  const positions = model.adds_positions
    ? `${model.title} also adds a learned vector for the position of the token.`
    : `${model.title} adds nothing for the position here: a token has the same vector at every position.`;
  $("embeddings-text").textContent =
    `Each id selects a row of the word embeddings, a vector for the token type is added, and the sum is normalised. ${positions}`;
}

function drawTokens() {
  [...$("chips").children].forEach((chip, index) => {
    chip.setAttribute("aria-checked", String(index === state.token));
    chip.tabIndex = index === state.token ? 0 : -1;
  });
  $("strips-title").textContent = `The vector of ${called(state.token)}`;
  const summed = (part) => !["norm", "projection"].includes(part);
  const bounds = embeddings.filter(({ part }) => summed(part)).map(({ values }) => greatest(values.block(state.token)));
  const bound = Math.max(...bounds); // one scale for what is added and for the sum
  const signs = { word: "", "token type": "+ ", position: "+ ", sum: "= ", norm: "→ ", projection: "→ " };
  $("strips").replaceChildren(...embeddings.map(({ name, part, norms, values }) => {
    const vector = values.block(state.token);
    const norm = norms[state.token];
    const canvas = element("canvas", {
      width: vector.length, height: 1, role: "img", "aria-label": `${part}: ${vector.length} features, norm ${number(norm)}`,
    });
    const context = canvas.getContext("2d");
    vector.forEach((value, feature) => {
      context.fillStyle = css(bySign(value, summed(part) ? bound : greatest(vector), "both"));
      context.fillRect(feature, 0, 1, 1);
    });
    return element("div", { class: "strip", title: name }, element("span", {}, signs[part] + part), canvas,
      element("span", {}), element("small", { class: "soft" }, `norm ${number(norm)} · `, element("code", {}, name)));
  }));
  const { values, name } = embeddings.at(-1);
  const width = values.shape[1];
  const all = greatest(Array.from({ length: L }, (_, index) => greatest(values.block(index)))) * 0.7;
  $("matrix").setAttribute("aria-label", `${L} tokens, ${width} features each`);
  drawMap($("matrix"), {
    rows: L, columns: width, rowLabels: tokens, columnLabels: [], row: state.token,
    cellHeight: Math.max(6, Math.min(24, 320 / L)),
    colour: (i, j) => bySign(values.block(i)[j], all, "both"),
  });
  $("matrix-where").textContent = `${name}: (1, ${L}, ${width})`;
}

// ------------------------------------------------------------------------------------------------ 3

const SCALE = `√${model.head_size}`;
const LETTER = model.learns_distances ? "E" : "T";
const OF_POSITION = model.keys_score_distances ? "(q·E + k·E)" : `q·${LETTER}`;
const SCORERS = model.keys_score_distances ? "query and key score" : "the query of the token on the left scores";
// The maps of a head: name, title, text, and the name of the array in the trace.
const MAPS = [
  ["content", "Content", `How well the query of the token on the left matches the key of the token above: q·k / ${SCALE}`,
    "content_scores"],
  ["position", "Position", `How ${SCORERS} the distance to the token above: ${OF_POSITION} / ${SCALE}`,
    "position_scores"],
  ["probs", "Probability", `The softmax of ${hasPosition ? "the sum of both parts" : "the scores"}: each row sums to 1.`,
    "probs"],
];

function describePositions() {
  if (hasPosition) {
    const vectors = model.learns_distances
      ? "E, a learned vector for each distance."
      : "T, a table with a row for each distance, which is computed once and not trained.";
    return ["In every head the score of two tokens is a sum of two parts: ", named("content", "content"), ", what the tokens are, and ",
      named("position", "position"), `, how far apart they are. ${model.title} computes the position part with ${vectors}`];
  }
  const why = model.adds_positions
    ? ", because the positions were added to the embeddings before the first layer."
    : " that can be shown by itself.";
  const convolution = layers.some((layer) => layer.kernels)
    ? " Each head has a convolution over a few neighbouring tokens too; its kernels are drawn below." : "";
  return ["In a head each token compares its query with the keys of all tokens, and attends to those that match. The scores have a ",
    named("content", "content"), ` part alone: ${model.title}'s heads have no position part${why}${convolution}`];
}

function buildAttention() {
  $("attention-text").append(...describePositions());
  if (model.is_decoder) $("attention-text").append(" This model is a decoder: no token attends to the tokens after it.");
  buildParts();
  for (const map of MAPS) if (map[0] !== "position" || hasPosition) buildMap(...map);
  buildFurtherPictures();
}

function buildParts() {
  if (!hasPosition) {
    $("parts").remove();
    return;
  }
  for (const [part, text] of [["both", "both parts"], ["content", "content alone"], ["position", "position alone"]]) {
    const input = element("input", { type: "radio", name: "part", value: part, onchange: () => choose({ part }) });
    $("parts").append(element("label", { class: CLASSES[part] }, input, text));
  }
}

function buildMap(name, title, text, where) {
  const canvas = element("canvas", {
    class: "map", id: `map-${name}`, tabindex: "0", role: "application", "aria-roledescription": "heat map",
    "aria-describedby": "readout",
  });
  canvas.addEventListener("click", (event) => {
    const place = canvas.place(event);
    if (place) choose({ token: place.row, key: place.column });
  });
  canvas.addEventListener("mousemove", (event) => {
    const place = canvas.place(event);
    if (place) drawReadout(place.row, place.column);
  });
  canvas.addEventListener("mouseleave", () => drawReadout(state.token, state.key));
  const move = (token, key) => choose({ token: state.token + token, key: state.key + key });
  const moves = {
    ArrowLeft: () => move(0, -1), ArrowRight: () => move(0, 1), ArrowUp: () => move(-1, 0), ArrowDown: () => move(1, 0),
  };
  canvas.addEventListener("keydown", (event) => arrows(event, moves));
  $("maps").append(element("figure", {},
    element("figcaption", {}, element("h3", { class: CLASSES[name] ?? "in-both" }, title), text),
    canvas, element("code", { class: "where", "data-name": where })));
}

function buildFurtherPictures() {
  const figure = (caption, ...content) => $("more").append(element("figure", {},
    element("figcaption", {}, ...caption), ...content));
  if (hasPosition) {
    figure([element("h3", {}, "Position against distance"),
      "The position part of the scores as a curve for each token: the chosen token's is bold, the mean of all is dashed.",
      element("div", { id: "share" })], element("svg:svg", { id: "curve", role: "img" }));
  }
  if (layers.some((layer) => layer.context)) {
    figure([element("h3", {}, "The context vector in its two parts"),
      "The probabilities average the value vectors (content) and the rows of the table T (position); each bar is the norm " +
      "of one average."], element("svg:svg", { id: "context", role: "img" }));
  }
  if (layers.some((layer) => layer.kernels)) {
    figure([element("h3", { id: "kernels-title" }),
      "The weight of each neighbour. Each token has a kernel of its own, computed from the tokens around it and its query."],
      element("canvas", { class: "map", id: "kernels", role: "img" }),
      element("code", { class: "where", "data-name": "conv_kernels" }));
    $("kernels").addEventListener("click", (event) => {
      const place = $("kernels").place(event);
      if (place) choose({ token: place.row });
    });
  }
}

function drawParts() {
  for (const input of document.querySelectorAll("#parts input")) input.checked = input.value === state.part;
}

let drawnHeads = null; // part and colours of the small maps as they are drawn
function buildHeads() {
  const most = Math.max(...layers.map((_, layer) => heads(layer)));
  const grid = $("heads");
  grid.style.gridTemplateColumns = `auto repeat(${most}, minmax(0, ${Math.max(20, Math.min(104, 480 / most))}px))`;
  const heading = (text) => element("span", { class: "name", role: "columnheader" }, text);
  grid.replaceChildren(element("div", { role: "row" }, heading("layer"),
    ...Array.from({ length: most }, (_, head) => heading(most > 8 ? String(head) : `head ${head}`))));
  layers.forEach((_, layer) => {
    const cells = Array.from({ length: most }, (_, head) => {
      if (head >= heads(layer)) return element("span", {});
      const canvas = element("canvas", { width: L, height: L, "aria-hidden": "true" });
      return element("div", {
        role: "gridcell", id: `head-${layer}-${head}`, "aria-label": `layer ${layer}, head ${head}`,
        onclick: () => choose({ layer, head }),
      }, canvas);
    });
    grid.append(element("div", { role: "row" }, element("span", { class: "name", role: "rowheader" }, String(layer)), ...cells));
  });
  const move = (layer, head) => {
    choose({ layer: state.layer + layer, head: state.head + head });
    $(`head-${state.layer}-${state.head}`).focus();
  };
  const moves = {
    ArrowLeft: () => move(0, -1), ArrowRight: () => move(0, 1), ArrowUp: () => move(-1, 0), ArrowDown: () => move(1, 0),
    Home: () => move(0, -state.head), End: () => move(0, heads(state.layer)),
  };
  grid.addEventListener("keydown", (event) => arrows(event, moves));
}

function drawHeads() {
  const shades = Array.from({ length: 256 }, (_, at) => [...byProbability(at / 255, state.part), 255]);
  const drawn = `${state.part} ${colours.panel} ${colours.both}`;
  layers.forEach((_, layer) => {
    for (let head = 0; head < heads(layer); head++) {
      const cell = $(`head-${layer}-${head}`);
      const chosen = layer === state.layer && head === state.head;
      cell.setAttribute("aria-selected", String(chosen));
      cell.tabIndex = chosen ? 0 : -1;
      if (drawnHeads === drawn) continue;
      const image = new ImageData(L, L);
      attention(layer, head, state.part).forEach((prob, at) => { image.data.set(shades[Math.round(255 * prob)], 4 * at); });
      cell.firstChild.getContext("2d").putImageData(image, 0, 0);
    }
  });
  drawnHeads = drawn;
}

function drawLines() {
  const svg = $("lines");
  const probs = attention(state.layer, state.head, state.part);
  const width = room(svg);
  const tall = L <= 48 ? Math.max(16, Math.min(40, 420 / L)) : 12;
  const [from, to] = [Math.min(78, width * 0.22), width - Math.min(118, width * 0.33)];
  const y = (index) => (index + 0.5) * tall;
  const reach = (to - from) / 2.2;
  svg.replaceChildren();
  svg.setAttribute("viewBox", `0 0 ${width} ${L * tall + 4}`);
  svg.setAttribute("aria-label", describeRow(probs));
  const chosen = [];
  for (let i = 0; i < L; i++) {
    for (let j = 0; j < L; j++) {
      const prob = probs[i * L + j];
      if (prob < (i === state.token ? 0.01 : 0.06)) continue;
      const line = element("svg:path", {
        d: `M${from},${y(i)} C${from + reach},${y(i)} ${to - reach},${y(j)} ${to},${y(j)}`,
        fill: "none", "stroke-linecap": "round",
        stroke: `var(--${i === state.token ? state.part : "soft"})`,
        "stroke-width": (i === state.token ? 1 + 6 * prob : 0.6 + 1.6 * prob).toFixed(2),
        "stroke-opacity": (i === state.token ? 0.3 + 0.7 * prob : 0.06 + 0.22 * prob).toFixed(3),
      });
      if (i === state.token) chosen.push(line); else svg.append(line);
    }
  }
  svg.append(...chosen);
  tokens.forEach((token, index) => {
    const prob = probs[state.token * L + index];
    const left = element("svg:text", {
      x: from - 10, y: y(index) + 4.5, "text-anchor": "end", class: index === state.token ? "chosen" : "",
    }, short(token));
    const right = element("svg:text", { x: to + 10, y: y(index) + 4.5, class: prob >= 0.05 ? "chosen" : "" },
      short(token), element("svg:tspan", { dx: 6, "font-weight": 400 }, prob >= 0.01 ? number(prob) : ""));
    for (const text of [left, right]) text.style.fontSize = tall >= 22 ? "15px" : tall > 12 ? "12px" : "10px";
    right.lastChild.style.fontSize = "11px";
    const area = element("svg:rect", {
      x: 0, y: index * tall, width: from, height: tall, fill: "transparent", onclick: () => choose({ token: index }),
    });
    area.style.cursor = "pointer";
    area.append(element("svg:title", {}, called(index)));
    svg.append(left, right, area);
  });
  $("lines-title").textContent = `Layer ${state.layer}, head ${state.head}`;
  const explanation = {
    both: "Each token on the left attends to all tokens on the right: the thicker the line, the higher the probability.",
    content: "The probabilities that the scores would have with their content alone.",
    position: "The probabilities that the scores would have with their position part alone.",
  }[state.part];
  $("lines-text").textContent = `${explanation} ${describeRow(probs)}`;
}

function describeRow(probs) {
  const row = Array.from(probs.subarray(state.token * L, state.token * L + L), (prob, index) => [prob, index]);
  const most = row.sort((a, b) => b[0] - a[0]).slice(0, 2).map(([prob, index]) => `${called(index)} (${number(prob)})`);
  return `${called(state.token)} looks most at ${most.join(", then at ")}.`;
}

function drawReadout(token, key) {
  const { content, position, probs } = layers[state.layer];
  const at = token * L + key;
  const [c, p] = [content.block(state.head)[at], position?.block(state.head)[at]];
  const prob = probs.block(state.head)[at];
  $("readout").replaceChildren(
    element("b", language(called(token)), called(token)), " → ", element("b", language(called(key)), called(key)),
    ` (distance ${signed(key - token)}):  `, named("content", `content ${number(c)}`),
    ...(position ? [" + ", named("position", `position ${number(p)}`), ` = ${number(c + p)}`] : []),
    "  →  ", named("both", `probability ${number(prob, 3)}`),
    ...(model.is_decoder && key > token ? [" (hidden by the causal mask)"] : []));
}

function drawMaps() {
  const layer = layers[state.layer];
  const scores = Object.fromEntries(["content", "position"].filter((name) => layer[name])
    .map((name) => [name, withoutRowMeans(layer[name].block(state.head))]));
  const bound = Math.max(...Object.values(scores).map(greatest)); // one scale, so that the two parts can be compared
  for (const [name, title] of MAPS) {
    const canvas = $(`map-${name}`);
    if (!canvas) continue;
    const probs = layer.probs.block(state.head);
    canvas.setAttribute("aria-label", `${title}, ${L} by ${L} tokens: arrow keys move the choice`);
    drawMap(canvas, {
      rows: L, columns: L, rowLabels: tokens, columnLabels: tokens, row: state.token, column: state.key,
      colour: (i, j) => (name === "probs" ? byProbability(probs[i * L + j]) : bySign(scores[name][i * L + j], bound, name)),
    });
  }
  for (const where of document.querySelectorAll("code[data-name]")) {
    const divided = where.dataset.name.endsWith("scores") ? ` / ${SCALE}` : "";
    const index = where.dataset.name === "conv_kernels" ? `[0, :, ${state.head}]` : `[0, ${state.head}]`;
    where.textContent = `encoder.layer.${state.layer}.attention.self.${where.dataset.name}${index}${divided}`;
  }
}

function drawCurve() {
  const position = layers[state.layer].position.block(state.head);
  // A decoder's token does not attend to later keys, so the curve ends at its own position.
  const line = (i) => Array.from({ length: model.is_decoder ? i + 1 : L }, (_, j) => [j - i, position[i * L + j]]);
  const sums = new Map();
  for (let i = 0; i < L; i++) {
    for (const [distance, score] of line(i)) sums.set(distance, [...(sums.get(distance) ?? []), score]);
  }
  const mean = [...sums].sort((a, b) => a[0] - b[0])
    .map(([distance, all]) => [distance, all.reduce((a, b) => a + b) / all.length]);
  const seen = [...sums.values()].flat(), [low, high] = [Math.min(...seen), Math.max(...seen)];
  const step = Math.ceil((2 * L - 1) / (room($("curve")) / 45));
  const few = L <= 16;
  drawChart($("curve"), {
    low, high, height: 250, xTitle: "distance: key − query",
    lines: [...Array.from({ length: L }, (_, i) => ({ points: line(i), hue: "position", token: i })),
      { points: mean, hue: "ink", dashed: true }, { points: line(state.token), hue: "position", bold: true }],
    dots: line(state.token).map((at, j) => (
      { at, hue: "position", text: few || j === state.key ? short(tokens[j], 5) : "", chosen: j === state.key })),
    xTicks: mean.filter(([distance]) => distance % step === 0)
      .map(([distance]) => [distance, signed(distance), distance === state.key - state.token]),
    choose: (token) => choose({ token }),
  });
  const share = positionShare(state.layer, state.head);
  const often = mean.filter(([distance]) => sums.get(distance).length >= L / 2); // means over few pairs say little
  const best = often.reduce((most, point) => (point[1] > most[1] ? point : most));
  const [content, part] = [element("i"), element("i")];
  content.style.flex = 1 - share; part.style.flex = share;
  $("share").replaceChildren(element("div", { class: "share", "aria-hidden": "true" }, content, part),
    "In this head ", named("position", `position makes ${percent(share)}`), " of the differences between scores, ",
    named("content", `content ${percent(1 - share)}`), `; on average it likes distance ${signed(best[0])} best.`);
  $("curve").setAttribute("aria-label",
    `Position part against distance, from ${number(low)} to ${number(high)}; on average highest at distance ${best[0]}`);
}

// Two bars for each label. `pair` gives their heights, `describe` says them; a click chooses what stands below.
function drawBars(svg, { labels, pair, hues, describe, chosen: at, choose: picked }) {
  const width = room(svg);
  const areNumbers = labels.every((label) => label.length <= 2); // numbers of layers: they are not rotated
  const [height, left, bottom] = [250, 38, areNumbers ? 26 : 56];
  const most = greatest(labels.flatMap((_, index) => pair(index))) || 1;
  const y = (value) => 10 + (1 - value / most) * (height - bottom - 10);
  const slot = (width - left) / labels.length;
  const wide = Math.min(slot, 60); // of a pair
  svg.replaceChildren();
  svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
  svg.setAttribute("aria-label", describe(at));
  for (const [value, digits] of ticks(0, most)) {
    svg.append(element("svg:line", { class: "axis", x1: left, x2: width, y1: y(value), y2: y(value) }));
    svg.append(element("svg:text", { x: left - 6, y: y(value) + 4, "text-anchor": "end" }, number(value, digits)));
  }
  labels.forEach((text, index) => {
    const chosen = index === at;
    const middle = left + slot * (index + 0.5);
    svg.append(...hues.map((hue, which) => element("svg:rect", {
      x: middle + wide * 0.38 * (which - 1), width: wide * 0.36,
      y: y(pair(index)[which]), height: height - bottom - y(pair(index)[which]),
      fill: `var(--${hue})`, "fill-opacity": chosen ? 1 : 0.45, rx: Math.min(2, slot * 0.1),
    })));
    if (slot >= (areNumbers ? 16 : 10) || chosen) {
      const flat = areNumbers || upright(text);
      const place = `translate(${middle} ${height - bottom + (flat ? 16 : 8)})`;
      svg.append(element("svg:text", {
        transform: flat ? place : `${place} rotate(-60)`, "text-anchor": flat ? "middle" : "end", class: chosen ? "chosen" : "",
      }, short(text)));
    }
    svg.append(element("svg:rect", {
      x: left + slot * index, width: slot, y: 0, height, fill: "transparent", onclick: () => picked(index),
    }, element("svg:title", {}, describe(index))));
  });
}

function drawContext() {
  const norms = layers[state.layer].context.block(state.head);
  const pair = (index) => [norms[2 * index], norms[2 * index + 1]];
  drawBars($("context"), {
    labels: tokens, pair, hues: ["content", "position"], chosen: state.token, choose: (token) => choose({ token }),
    describe: (index) => `${called(index)}: content ${number(pair(index)[0])}, position ${number(pair(index)[1])}`,
  });
}

function drawKernels() {
  const { kernels } = layers[state.layer];
  const size = kernels.shape[2];
  const values = kernels.block(state.head);
  $("kernels-title").textContent = `Convolution kernels, head ${state.head}`;
  $("kernels").setAttribute("aria-label", `Kernels of ${size} weights for ${L} tokens`);
  drawMap($("kernels"), {
    rows: L, columns: size, rowLabels: tokens,
    columnLabels: Array.from({ length: size }, (_, at) => signed(at - (size - 1) / 2)),
    row: state.token, cellHeight: Math.max(10, Math.min(26, 360 / L)), colour: (i, j) => byProbability(values[i * size + j]),
  });
}

// ------------------------------------------------------------------------------------------------ 4 and 5

const stages = ["emb.", ...layers.map((_, layer) => String(layer))];

function drawHidden() {
  const chart = (svg, values, first, low, high) => {
    const line = (token) => values.map((row, at) => [at + first, row[token]]);
    const wide = room(svg) / values.length; // the width of one layer
    const every = Math.ceil(34 / wide); // each how many layers a label fits
    drawChart(svg, {
      low, high, xTitle: "after layer", choose: (token) => choose({ token }),
      lines: [...tokens.map((_, token) => ({ points: line(token), hue: "soft", token })),
        { points: line(state.token), hue: "both", bold: true }],
      dots: line(state.token).map((at) => {
        const chosen = at[0] === state.layer + 1;
        return { at, hue: "both", text: chosen || wide >= 38 ? number(at[1]) : "", chosen };
      }),
      xTicks: values.map((_, at) => [at + first, stages[at + first], at + first === state.layer + 1])
        .filter(([at,, chosen]) => chosen || (at % every === 0 && Math.abs(at - state.layer - 1) * wide >= 24)),
    });
    const told = values.map((row, at) => `${stages[at + first]}: ${number(row[state.token])}`);
    svg.setAttribute("aria-label", `${called(state.token)}: ${told.join(", ")}`);
  };
  const flat = shown.cosines.flat();
  chart($("cosines"), shown.cosines, 1, Math.min(...flat, 0.9), 1);
  chart($("norms"), shown.norms, 0, Math.min(...shown.norms.flat()), Math.max(...shown.norms.flat()));
}

const STEPS = { attention: "both", "feed-forward": "forward" }; // their names and colours
const degrees = (cosine) => `${Math.round((180 / Math.PI) * Math.acos(Math.min(Math.max(cosine, -1), 1)))}°`;

function drawSteps() {
  const added = (layer, token) => Object.keys(STEPS).map((step) => shown.steps[layer][step].added[token]);
  const told = (layer, token) => Object.keys(STEPS).map((step, at) => `${step} ${number(added(layer, token)[at])}`).join(", ");
  const hues = Object.values(STEPS);
  drawBars($("steps-layers"), {
    labels: stages.slice(1), pair: (layer) => added(layer, state.token), hues, chosen: state.layer,
    choose: (layer) => choose({ layer }), describe: (layer) => `layer ${layer}: ${told(layer, state.token)}`,
  });
  drawBars($("steps-tokens"), {
    labels: tokens, pair: (token) => added(state.layer, token), hues, chosen: state.token,
    choose: (token) => choose({ token }), describe: (token) => `${called(token)}: ${told(state.layer, token)}`,
  });
  $("steps-layers-title").textContent = `${called(state.token)} in every layer`;
  $("steps-tokens-title").textContent = `All tokens in layer ${state.layer}`;
  const { attention: gathers, "feed-forward": computes } = shown.steps[state.layer];
  const moves = ({ added: lengths, cosines }, name, hue) => [
    element("b", { class: `in-${hue}` }, name), ` adds a vector ${number(lengths[state.token])} times as long as the token's own ` +
    `and turns it by ${degrees(cosines[state.token])}`];
  $("steps-text").replaceChildren(`In layer ${state.layer}, for `, element("b", language(called(state.token)), called(state.token)), ": ",
    ...moves(gathers, "attention", "both"), "; ", ...moves(computes, "the feed-forward network", "forward"), ".");
}

const piece = (id) => shown.pieces[id];

function buildLens() {
  if (!shown.lens) {
    $("lens-text").textContent = "These weights have no language-model head, so there are no predictions to show.";
    $("lens").remove();
    return;
  }
  const head = model.is_decoder ? "The head that predicts the next token" : "The head that fills masks";
  $("lens-text").textContent = `${head} is applied to the last layer. Here it is applied after every layer, as if the model ended ` +
    "there (the logit lens), which shows at which layer a prediction appears. It was trained for the last layer alone.";
  const headings = element("tr", {}, element("th", { scope: "col" }, "token"),
    ...stages.map((stage, at) => element("th", { scope: "col", "data-stage": at }, stage)));
  const table = element("table", { id: "overview" }, element("thead", {}, headings)); // on paper, above the rows of each page
  table.append(element("tbody", {}, ...tokens.map((token, index) => element("tr", { onclick: () => choose({ token: index }) },
    element("th", { scope: "row", ...language(token), ...ofText(index) }, token),
    ...shown.lens.map((guesses) => {
      const [id, prob] = guesses[index][0];
      const title = `${piece(id)} ${number(prob, 4)}`;
      return element("td", { ...language(piece(id)), "data-prob": prob, title }, short(piece(id)));
    })))));
  $("lens").append(
    element("figure", {},
      element("figcaption", {}, element("h3", { id: "guesses-title" }),
        "The five likeliest word pieces after the embeddings and after each layer, with their probabilities."),
      element("table", { class: "guesses", id: "guesses" })),
    element("figure", {},
      element("figcaption", {}, element("h3", {}, "All tokens"),
        "The likeliest word piece for each token: the stronger the colour, the higher its probability."),
      element("div", {
        class: "scroll", tabindex: "0", role: "region", "aria-label": "The likeliest word piece for each token and layer",
      }, table)));
}

function paint(cell, probability) {
  const rgb = byProbability(probability);
  cell.style.background = css(rgb);
  cell.style.color = inkOn(rgb);
}

function drawLens() {
  const last = shown.lens.at(-1)[state.token][0];
  $("guesses-title").textContent = `${called(state.token)}: the model says ${piece(last[0])} (${number(last[1], 3)})`;
  $("guesses").replaceChildren(...shown.lens.map((guesses, stage) => {
    const row = element("tr", { "aria-selected": String(stage === state.layer + 1) },
      element("th", { scope: "row" }, stage ? `layer ${stage - 1}` : "emb."));
    for (const [id, prob] of guesses[state.token]) {
      const cell = element("td", { ...language(piece(id)), title: `${piece(id)}, id ${id}` },
        short(piece(id)), element("small", {}, number(prob, 3)));
      paint(cell, prob);
      row.append(cell);
    }
    return row;
  }));
  [...$("overview").rows].slice(1).forEach((row, index) => {
    row.setAttribute("aria-selected", String(index === state.token));
  });
  for (const heading of $("overview").querySelectorAll("[data-stage]")) {
    heading.setAttribute("aria-selected", String(Number(heading.dataset.stage) === state.layer + 1));
  }
  for (const cell of $("overview").querySelectorAll("td")) paint(cell, Number(cell.dataset.prob));
}

// ------------------------------------------------------------------------------------------------ all of it

function draw() {
  drawBar();
  drawTokens();
  drawParts();
  drawHeads();
  drawLines();
  drawMaps();
  drawReadout(state.token, state.key);
  if ($("curve") && layers[state.layer].position) drawCurve();
  if ($("context")) drawContext();
  if ($("kernels")) drawKernels();
  drawSteps();
  drawHidden();
  if (shown.lens) drawLens();
}

buildBar();
buildTokens();
buildAttention();
buildHeads();
buildLens();
$("rounding").textContent = `Attention is rounded to 1/${(2 ** shown.bits - 1).toLocaleString("en")} of the range of each head's numbers, ` +
  "embeddings to 1/255 of each token's; norms, cosines and probabilities of word pieces to four decimals. Colours of scores are " +
  "differences from their row's mean, which is all that softmax sees; content and position share one scale.";
start();
