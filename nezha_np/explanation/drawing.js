// What the two pages of this room share, after what all pages share.

// The page is in English; texts and tokens in Chinese are marked, so that they are read aloud and drawn as Chinese.
const language = (text) => (/\p{Script=Han}/u.test(text) ? { lang: "zh" } : {});

const byProbability = (probability, hue = "both") => mix(colours.panel, colours[hue], Math.sqrt(probability));
const bySign = (value, bound, hue) =>
  mix(colours.panel, colours[value > 0 ? hue : "minus"], bound ? (Math.abs(value) / bound) ** 0.75 : 0);
const greatest = (values) => values.reduce((most, value) => Math.max(most, Math.abs(value)), 0);

const number = (value, digits = 2) => value.toFixed(digits).replace("-", "−");
const signed = (value) => (value > 0 ? `+${value}` : String(value).replace("-", "−"));

// A value between two buttons, which arrow keys change too: `change` is called with −1 or 1.
function stepper(key, title, change) {
  const button = (by, sign, word) =>
    element("button", { type: "button", "aria-label": `${word} ${key}`, onclick: () => change(by) }, sign);
  const group = element("div", { class: "stepper", role: "group", "aria-label": title },
    element("span", { "aria-hidden": "true" }, title), button(-1, "‹", "Previous"),
    element("output", { id: `bar-${key}` }), button(1, "›", "Next"));
  const moves = {
    ArrowLeft: () => change(-1), ArrowDown: () => change(1), ArrowRight: () => change(1), ArrowUp: () => change(-1),
  };
  group.addEventListener("keydown", (event) => arrows(event, moves));
  return group;
}
