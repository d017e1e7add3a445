// The script of the live page, after what all pages share and the modules of the model: it runs the model on what is
// typed, and draws what the pass has computed. A side is one of the texts that are compared.
//
// Indices: i query, j key.

// ------------------------------------------------------------------------------------------------ the model, the texts

const { config } = shown;
const weights = readTensors(fromBase64(shown.weights));
const tokenizer = makeTokenizer(shown.tokenizer);
const [LAYERS, HEADS, REACH] = [config.num_hidden_layers, config.num_attention_heads, config.max_relative_position];
const MOST = 48; // tokens; a map of more is too fine to read beside another, and a pass no longer follows the typing
const TOP = 8; // guesses, and neurons

const state = { layer: 0, head: 0, side: 0, key: 0, reach: REACH, inKeys: true, inValues: true, off: new Set() };
const sides = [makeSide(shown.text)];

function makeSide(text) {
  return { text, token: null, tokens: [], isCut: false, trained: null, now: null, guesses: [] };
}

const letter = (index) => "AB"[index];
const atHead = (layer, head) => `${layer}.${head}`;
const isOff = (layer, head) => state.off.has(atHead(layer, head));
const isChanged = () => state.off.size > 0 || state.reach < REACH || !state.inKeys || !state.inValues;

function change() {
  const headsOff = {};
  for (let layer = 0; layer < LAYERS; layer++) {
    headsOff[layer] = Array.from({ length: HEADS }, (_, head) => head).filter((head) => isOff(layer, head));
  }
  return { headsOff, reach: state.reach, inKeys: state.inKeys, inValues: state.inValues };
}

let lastPass = 0; // milliseconds
function run(side) {
  const ids = side.tokens.map(({ id }) => id);
  const pass = (taken) => {
    const start = performance.now();
    const arrays = forward(weights, config, ids, ids.map(() => 0), taken);
    lastPass = performance.now() - start;
    return arrays;
  };
  side.trained ??= pass({});
  side.now = isChanged() ? pass(change()) : side.trained;
  side.guesses = side.tokens.map((_, token) => guessAt(side.now, token));
}

// The likeliest word piece at a token, and its probability.
function guessAt(arrays, token) {
  const probs = softmax(row(arrays["cls.predictions"], token));
  let best = 0;
  for (let id = 1; id < probs.length; id++) if (probs[id] > probs[best]) best = id;
  return { id: best, prob: probs[best] };
}

const largest = (values, count) => Array.from(values, (value, at) => [value, at]).sort((a, b) => b[0] - a[0]).slice(0, count);
const piece = (id) => shown.tokenizer.vocabulary[id] ?? `#${id}`;
const isUnknown = ({ token, word }) => token === shown.tokenizer.unknown && ![null, token].includes(word);
const called = (token) => (isUnknown(token) ? `${token.token} for ${token.word}` : token.token);
const of = (side, layer, name) => side.now[`encoder.layer.${layer}.${name}`];
const block = (array, head, L) => array.data.subarray(head * L * L, (head + 1) * L * L);

// Read a text anew. The chosen token stays where it was; at first it is the first [MASK].
function read(side, text) {
  const tokens = tokenize(text, tokenizer);
  side.text = text;
  side.isCut = tokens.length > MOST;
  side.tokens = side.isCut ? [...tokens.slice(0, MOST - 1), tokens.at(-1)] : tokens;
  side.trained = null;
  const mask = side.tokens.findIndex(({ token }) => token === "[MASK]");
  if (side.token === null) side.token = mask >= 0 ? mask : Math.min(1, side.tokens.length - 1);
  side.token = Math.min(side.token, side.tokens.length - 1);
  run(side);
}

// ------------------------------------------------------------------------------------------------ what is chosen

function show(choice) {
  const runs = ["reach", "inKeys", "inValues", "off"].some((name) => name in choice);
  Object.assign(state, choice);
  state.layer = Math.min(Math.max(state.layer, 0), LAYERS - 1);
  state.head = Math.min(Math.max(state.head, 0), HEADS - 1);
  state.side = Math.min(state.side, sides.length - 1);
  const side = sides[state.side];
  if ("token" in choice) side.token = choice.token;
  side.token = Math.min(Math.max(side.token, 0), side.tokens.length - 1);
  delete state.token;
  if (!("key" in choice)) state.key = strongestKey(side);
  state.key = Math.min(Math.max(state.key, 0), side.tokens.length - 1);
  if (runs) sides.forEach(run);
  draw();
}

function choose(choice) {
  show(choice);
  writeLink();
}

function strongestKey(side) {
  const L = side.tokens.length;
  const probs = block(of(side, state.layer, "attention.self.probs"), state.head, L).subarray(side.token * L, (side.token + 1) * L);
  return largest(probs, 1)[0][1];
}

function setHeads(heads, areOff) {
  const off = new Set(state.off);
  for (const [layer, head] of heads) off[areOff ? "add" : "delete"](atHead(layer, head));
  choose({ off });
}

// The address: page.html#text=…&with=…&layer=2&head=0&token=5, where needed with &key=, &side=1, &k=4, &keys=0, &values=0,
// &off=2.0,2.1 and &theme=dark.
function link() {
  const side = sides[state.side];
  const parts = new URLSearchParams({ text: sides[0].text });
  if (sides[1]) parts.set("with", sides[1].text);
  for (const [name, value] of Object.entries({ layer: state.layer, head: state.head, token: side.token })) parts.set(name, value);
  if (state.key !== strongestKey(side)) parts.set("key", state.key);
  if (state.side) parts.set("side", state.side);
  if (state.reach < REACH) parts.set("k", state.reach);
  if (!state.inKeys) parts.set("keys", 0);
  if (!state.inValues) parts.set("values", 0);
  if (state.off.size) parts.set("off", [...state.off].join(","));
  return parts;
}

function follow(parts) {
  const texts = [parts.get("text") ?? shown.text, ...(parts.has("with") ? [parts.get("with")] : [])];
  sides.splice(0, sides.length, ...texts.map(makeSide));
  buildFields();
  const index = (name, otherwise) => (/^\d+$/.test(parts.get(name) ?? "") ? Number(parts.get(name)) : otherwise);
  state.reach = Math.min(index("k", REACH), REACH);
  state.inKeys = parts.get("keys") !== "0";
  state.inValues = parts.get("values") !== "0";
  state.off = new Set((parts.get("off") ?? "").split(",").filter((name) => /^\d+\.\d+$/.test(name)));
  sides.forEach((side) => { read(side, side.text); });
  const choice = { layer: index("layer", 0), head: index("head", 0), side: index("side", 0) };
  for (const name of ["token", "key"]) if (index(name, null) !== null) choice[name] = index(name);
  show(choice);
}

// ------------------------------------------------------------------------------------------------ 1: the texts

function buildFields() {
  $("fields").replaceChildren(...sides.map((side, index) => element("div", { class: "field" },
    element("label", { for: `text-${index}`, "aria-label": `Text ${letter(index)}` }, letter(index)),
    element("input", {
      id: `text-${index}`, type: "text", lang: "zh", value: side.text, autocomplete: "off", spellcheck: "false",
      oninput: (event) => { read(side, event.target.value); show({ side: index }); writeLink(false); },
      onfocus: () => { state.side = index; },
    }))));
  $("compare").setAttribute("aria-pressed", String(sides.length > 1));
}

function toggleSecond() {
  if (sides.length > 1) sides.pop(); else sides.push(makeSide(sides[0].text));
  const side = sides.at(-1);
  if (side.now === null) read(side, side.text);
  buildFields();
  choose({ side: sides.length - 1 });
  $(`text-${sides.length - 1}`).focus();
}

function insertMask() {
  const input = $(`text-${state.side}`);
  const [start, end] = [input.selectionStart, input.selectionEnd];
  input.value = `${input.value.slice(0, start)}[MASK]${input.value.slice(end)}`;
  const side = sides[state.side];
  side.token = null;
  read(side, input.value);
  choose({});
  input.focus();
  input.setSelectionRange(start + 6, start + 6);
}

function drawChips() {
  const focus = document.activeElement?.closest?.(".chip")?.id;
  $("chips").replaceChildren(...sides.map((side, index) => {
    const chips = element("div", { class: "chips", role: "radiogroup", "aria-label": `Tokens of text ${letter(index)}` },
      ...side.tokens.map((token, at) => makeChip(side, index, token, at)));
    const move = (to) => {
      choose({ side: index, token: (to + side.tokens.length) % side.tokens.length });
      $(`chip-${index}-${side.token}`).focus();
    };
    const moves = {
      ArrowLeft: () => move(side.token - 1), ArrowRight: () => move(side.token + 1), ArrowUp: () => move(side.token - 1),
      ArrowDown: () => move(side.token + 1), Home: () => move(0), End: () => move(side.tokens.length - 1),
    };
    chips.addEventListener("keydown", (event) => arrows(event, moves));
    return chips;
  }));
  if (focus) $(focus)?.focus();
}

function makeChip(side, index, token, at) {
  const guess = side.guesses[at];
  const isRight = guess.id === token.id;
  return element("button", {
    type: "button", role: "radio", class: "chip", id: `chip-${index}-${at}`, "aria-checked": String(at === side.token),
    tabindex: at === side.token ? 0 : -1, "aria-label": `${called(token)}, id ${token.id}, the model would write ${piece(guess.id)}, ${number(guess.prob)}`,
    onclick: () => choose({ side: index, token: at }),
  }, element("b", language(token.token), token.token),
    ...(isUnknown(token) ? [element("small", language(token.word), short(token.word))] : []),
    element("small", { class: isRight ? "" : "wrong", ...language(piece(guess.id)) }, `${isRight ? "=" : "→"} ${short(piece(guess.id))}`),
    element("small", {}, number(guess.prob)));
}

function tell(side) {
  const { id, prob } = side.guesses[side.token];
  return [element("b", language(called(side.tokens[side.token])), called(side.tokens[side.token])), ": the model says ",
    element("b", language(piece(id)), piece(id)), ` (${number(prob, 3)})`];
}

function drawSaid() {
  const parts = sides.flatMap((side, index) => [...(index ? [" · "] : []), ...(sides.length > 1 ? [`${letter(index)}, `] : []), ...tell(side)]);
  if (sides.some(({ isCut }) => isCut)) parts.push(` — of a longer text, the first ${MOST} tokens are read.`);
  $("said").replaceChildren(...parts);
}

// ------------------------------------------------------------------------------------------------ 2: the guesses

const title = (side, index, ...more) =>
  element("h3", language(called(side.tokens[side.token])), `${sides.length > 1 ? `${letter(index)}: ` : ""}${called(side.tokens[side.token])}`, ...more);

function makeBars(rows, hue) {
  return element("table", { class: "bars" }, element("tbody", {}, ...rows.map(({ name, share, was, text }) => element("tr", {},
    element("th", { scope: "row", ...language(name) }, name),
    element("td", {}, element("div", { class: "bar-of", style: `--hue: var(--${hue})`, "aria-hidden": "true" },
      element("i", { style: `width: ${(100 * share).toFixed(1)}%` }),
      ...(was === undefined ? [] : [element("s", { style: `left: calc(${(100 * was).toFixed(1)}% - 1px)` })]))),
    element("td", {}, text)))));
}

function drawGuesses() {
  $("guesses").replaceChildren(...sides.map((side, index) => {
    const now = softmax(row(side.now["cls.predictions"], side.token));
    const trained = isChanged() ? softmax(row(side.trained["cls.predictions"], side.token)) : null;
    const rows = largest(now, TOP).map(([prob, id]) => ({
      name: short(piece(id)), share: prob, was: trained?.[id],
      text: number(prob, 3) + (trained ? `, was ${number(trained[id], 3)}` : ""),
    }));
    return element("figure", {}, element("figcaption", {}, title(side, index)), makeBars(rows, "both"));
  }));
}

// ------------------------------------------------------------------------------------------------ 3: the changes

function drawChanges() {
  const { layer, head } = state;
  const heads = Array.from({ length: HEADS }, (_, at) => [layer, at]);
  const areOff = heads.every(([, at]) => isOff(layer, at));
  $("in-keys").checked = state.inKeys;
  $("in-values").checked = state.inValues;
  $("reach").value = state.reach;
  $("reach-number").textContent = state.reach;
  $("switch-head").textContent = `Layer ${layer}, head ${head}: ${isOff(layer, head) ? "off" : "on"}`;
  $("switch-head").setAttribute("aria-pressed", String(isOff(layer, head)));
  $("switch-layer").textContent = `All heads of layer ${layer}: ${areOff ? "off" : heads.some(([, at]) => isOff(layer, at)) ? "some off" : "on"}`;
  $("switch-layer").setAttribute("aria-pressed", String(areOff));
  $("reset").disabled = !isChanged();
  if (!isChanged()) {
    $("effect").replaceChildren("The model is as it was trained.");
    return;
  }
  const told = sides.flatMap((side) => {
    const before = guessAt(side.trained, side.token);
    return [...tell(side), "; as trained ", element("b", language(piece(before.id)), piece(before.id)), ` (${number(before.prob, 3)}). `];
  });
  const off = state.off.size ? `${state.off.size} of ${LAYERS * HEADS} heads ${state.off.size > 1 ? "are" : "is"} off. ` : "";
  $("effect").replaceChildren(off, ...told);
}

function buildChanges() {
  $("reach").max = REACH;
  $("reach").addEventListener("input", (event) => choose({ reach: Number(event.target.value) }));
  $("in-keys").addEventListener("change", (event) => choose({ inKeys: event.target.checked }));
  $("in-values").addEventListener("change", (event) => choose({ inValues: event.target.checked }));
  $("switch-head").addEventListener("click", () => setHeads([[state.layer, state.head]], !isOff(state.layer, state.head)));
  $("switch-layer").addEventListener("click", () => {
    const heads = Array.from({ length: HEADS }, (_, head) => [state.layer, head]);
    setHeads(heads, !heads.every(([layer, head]) => isOff(layer, head)));
  });
  $("reset").addEventListener("click", () => {
    choose({ reach: REACH, inKeys: true, inValues: true, off: new Set() });
    $("in-keys").focus(); // the button cannot be pressed again
  });
}

// ------------------------------------------------------------------------------------------------ 4: attention

function buildHeads() {
  const grid = $("heads");
  grid.style.gridTemplateColumns = `auto repeat(${HEADS}, minmax(0, 64px))`;
  const heading = (text, role = "columnheader") => element("span", { class: "name", role }, text);
  grid.append(element("div", { role: "row" }, heading("layer"), ...Array.from({ length: HEADS }, (_, head) => heading(String(head)))));
  for (let layer = 0; layer < LAYERS; layer++) {
    grid.append(element("div", { role: "row" }, heading(String(layer), "rowheader"), ...Array.from({ length: HEADS }, (_, head) => element("div", {
      role: "gridcell", id: `head-${layer}-${head}`, onclick: () => choose({ layer, head }),
    }, element("canvas", { "aria-hidden": "true" })))));
  }
  const move = (layer, head) => {
    choose({ layer: state.layer + layer, head: state.head + head });
    $(`head-${state.layer}-${state.head}`).focus();
  };
  const toggle = () => setHeads([[state.layer, state.head]], !isOff(state.layer, state.head));
  const moves = {
    ArrowLeft: () => move(0, -1), ArrowRight: () => move(0, 1), ArrowUp: () => move(-1, 0), ArrowDown: () => move(1, 0),
    Home: () => move(0, -state.head), End: () => move(0, HEADS), x: toggle, X: toggle,
  };
  grid.addEventListener("keydown", (event) => arrows(event, moves));
}

function drawHeads() {
  const side = sides[state.side];
  const L = side.tokens.length;
  const shades = Array.from({ length: 256 }, (_, at) => [...byProbability(at / 255), 255]);
  $("heads-of").textContent = sides.length > 1 ? `text ${letter(state.side)}` : "the text";
  for (let layer = 0; layer < LAYERS; layer++) {
    const probs = of(side, layer, "attention.self.probs");
    for (let head = 0; head < HEADS; head++) {
      const cell = $(`head-${layer}-${head}`);
      const isChosen = layer === state.layer && head === state.head;
      cell.setAttribute("aria-selected", String(isChosen));
      cell.setAttribute("aria-label", `layer ${layer}, head ${head}${isOff(layer, head) ? ", off" : ""}`);
      cell.classList.toggle("off", isOff(layer, head));
      cell.tabIndex = isChosen ? 0 : -1;
      const canvas = cell.firstChild;
      [canvas.width, canvas.height] = [L, L];
      const image = new ImageData(L, L);
      block(probs, head, L).forEach((prob, at) => { image.data.set(shades[Math.round(255 * prob)], 4 * at); });
      canvas.getContext("2d").putImageData(image, 0, 0);
    }
  }
}

// Softmax depends only on the differences within a row, so the maps of scores show each row without its mean.
function scaledScores(side, part) {
  const L = side.tokens.length;
  const scale = Math.sqrt(config.hidden_size / HEADS);
  const scores = block(of(side, state.layer, `attention.self.${part}_scores`), state.head, L);
  const differences = Float64Array.from(scores, (score) => score / scale);
  for (let i = 0; i < L; i++) {
    const of_i = differences.subarray(i * L, (i + 1) * L);
    const mean = of_i.reduce((sum, score) => sum + score, 0) / L;
    of_i.forEach((score, j) => { of_i[j] = score - mean; });
  }
  return differences;
}

const MAPS = { content: "Content", position: "Position", both: "Probability" };

function buildMaps() {
  $("maps").replaceChildren(...sides.map((_, index) => element("div", { class: "columns" }, ...Object.entries(MAPS).map(([part, name]) => {
    const canvas = element("canvas", {
      class: "map", id: `map-${index}-${part}`, tabindex: "0", role: "application", "aria-roledescription": "heat map",
      "aria-describedby": "readout",
      onclick: (event) => {
        const place = canvas.place(event);
        if (place) choose({ side: index, token: place.row, key: place.column });
      },
    });
    const move = (token, key) => choose({ side: index, token: sides[index].token + token, key: state.key + key });
    canvas.addEventListener("keydown", (event) => arrows(event, {
      ArrowLeft: () => move(0, -1), ArrowRight: () => move(0, 1), ArrowUp: () => move(-1, 0), ArrowDown: () => move(1, 0),
    }));
    return element("figure", {}, element("figcaption", {}, element("h3", { class: `in-${part}`, "data-title": name })), canvas);
  }))));
}

function drawMaps() {
  if ($("maps").children.length !== sides.length) buildMaps();
  sides.forEach((side, index) => {
    const L = side.tokens.length;
    const labels = side.tokens.map(({ token }) => token);
    const scores = { content: scaledScores(side, "content"), position: scaledScores(side, "position") };
    const bound = Math.max(greatest(scores.content), greatest(scores.position)); // both parts on one scale
    const probs = block(of(side, state.layer, "attention.self.probs"), state.head, L);
    for (const [part, name] of Object.entries(MAPS)) {
      const canvas = $(`map-${index}-${part}`);
      const at = (i, j) => (part === "both" ? byProbability(probs[i * L + j]) : bySign(scores[part][i * L + j], bound, part));
      const where = `${sides.length > 1 ? `${letter(index)}, ` : ""}layer ${state.layer}, head ${state.head}`;
      canvas.previousSibling.firstChild.textContent = `${name}: ${where}`;
      canvas.setAttribute("aria-label", `${name} of ${where}`);
      drawMap(canvas, {
        rows: L, columns: L, colour: at, rowLabels: labels, columnLabels: labels, row: side.token,
        column: index === state.side ? state.key : undefined,
      });
    }
  });
}

function drawReadout() {
  const side = sides[state.side];
  const L = side.tokens.length;
  const [i, j] = [side.token, state.key];
  const at = (state.head * L + i) * L + j;
  const scale = Math.sqrt(config.hidden_size / HEADS);
  const [content, position] = ["content", "position"].map((part) => of(side, state.layer, `attention.self.${part}_scores`).data[at] / scale);
  const prob = of(side, state.layer, "attention.self.probs").data[at];
  const [from, to] = [called(side.tokens[i]), called(side.tokens[j])];
  $("readout").replaceChildren(element("b", language(from), from), " → ", element("b", language(to), to), ` (distance ${signed(j - i)}): `,
    element("b", { class: "in-content" }, "content"), ` ${number(content)} + `, element("b", { class: "in-position" }, "position"),
    ` ${number(position)} = ${number(content + position)} → `, element("b", { class: "in-both" }, "probability"), ` ${number(prob, 3)}`);
}

// ------------------------------------------------------------------------------------------------ 5: feed-forward

function drawNeurons() {
  $("neurons").replaceChildren(...sides.map((side, index) => {
    const neurons = row(of(side, state.layer, "intermediate"), side.token);
    const most = greatest(neurons) || 1;
    const canvas = element("canvas", { class: "strip", width: neurons.length, height: 1, role: "img",
      "aria-label": `${neurons.length} neurons of layer ${state.layer}` });
    const context = canvas.getContext("2d");
    neurons.forEach((value, at) => {
      context.fillStyle = css(bySign(value, most, "forward"));
      context.fillRect(at, 0, 1, 1);
    });
    const rows = largest(neurons, TOP).map(([value, at]) => ({ name: `#${at}`, share: Math.max(value, 0) / most, text: number(value) }));
    const norm = Math.sqrt(neurons.reduce((sum, value) => sum + value * value, 0));
    const active = neurons.reduce((count, value) => count + (value > 0), 0);
    return element("figure", {}, element("figcaption", {}, title(side, index, `, layer ${state.layer}`),
      `${active} of ${neurons.length} neurons are positive; the norm of all is ${number(norm)}.`), canvas, makeBars(rows, "forward"));
  }));
}

// ------------------------------------------------------------------------------------------------ all of it

function saveArrays() {
  const file = new Blob([writeTensors(sides[state.side].now)]);
  const address = URL.createObjectURL(file);
  element("a", { href: address, download: "nezha.safetensors" }).click();
  setTimeout(() => URL.revokeObjectURL(address), 1000);
}

function draw() {
  $("bar-layer").textContent = state.layer;
  $("bar-head").textContent = state.head;
  $("bar-token").textContent = sides[state.side].tokens[sides[state.side].token].token;
  drawChips();
  drawSaid();
  drawGuesses();
  drawChanges();
  drawHeads();
  drawMaps();
  drawReadout();
  drawNeurons();
  $("time").textContent = `The last pass, of ${sides[state.side].tokens.length} tokens, took ${number(lastPass, 0)} ms in this browser.`;
}

$("title").textContent = "NEZHA, live";
$("model").textContent = `A language model for Chinese that runs in this page: ${LAYERS} layers, ${HEADS} heads, ${config.hidden_size} features.`;
$("steppers").append(
  stepper("layer", "Layer", (by) => choose({ layer: (state.layer + by + LAYERS) % LAYERS })),
  stepper("head", "Head", (by) => choose({ head: (state.head + by + HEADS) % HEADS })),
  stepper("token", "Token", (by) => {
    const { token, tokens } = sides[state.side];
    choose({ token: (token + by + tokens.length) % tokens.length });
  }));
$("compare").addEventListener("click", toggleSecond);
$("mask").addEventListener("click", insertMask);
$("save").addEventListener("click", saveArrays);
buildChanges();
buildHeads();
start();
