// BERT's tokenizer, from a text to tokens, in three steps:
//
//     normalise      clean the text, put spaces around every Chinese character, strip accents, put it in lower case
//     split          into words, at white space and at punctuation
//     WordPiece      cut each word, from its start, into the longest pieces that the vocabulary has
//
// Special tokens such as [MASK] are found in the text before it is normalised, and are tokens as they stand.
//
// settings: { vocabulary, special_tokens, unknown, prefix, longest_word, clean_text, chinese_characters, strip_accents,
// lower_case }, where `vocabulary` lists the tokens by their ids.
//
// Which characters are marks and punctuation is what the JavaScript engine's Unicode says. The tokenizers library has
// older tables: some marks and punctuation of rare scripts, added to Unicode after 2015, are letters there.

// What `tokenize` needs, made once: the ids of the tokens, and how to find special tokens.
export function makeTokenizer(settings) {
  const ids = new Map(settings.vocabulary.map((token, id) => [token, id]));
  const literal = settings.special_tokens.map((token) => token.replace(/[\\^$.*+?()[\]{}|]/g, "\\$&"));
  return { ...settings, ids, special: new RegExp(`(${literal.join("|")})`, "u") };
}

// The tokens of a text, [CLS] and [SEP] among them: a list of { token, id, word }, where `word` is the part of the
// normalised text that the token stands for; null: the tokenizer has added the token.
export function tokenize(text, tokenizer) {
  const tokens = [added("[CLS]", tokenizer)];
  text.split(tokenizer.special).forEach((part, at) => {
    if (at % 2) tokens.push({ token: part, id: tokenizer.ids.get(part), word: part }); // what the pattern has found
    else for (const word of splitWords(normalise(part, tokenizer))) tokens.push(...cutWord(word, tokenizer));
  });
  return [...tokens, added("[SEP]", tokenizer)];
}

const added = (token, { ids }) => ({ token, id: ids.get(token), word: null });

// ------------------------------------------------------------------------------------------------ normalise

export function normalise(text, { clean_text, chinese_characters, strip_accents, lower_case }) {
  let characters = [...text]; // by code point
  if (clean_text) characters = characters.filter((c) => !isControl(c)).map((c) => (isSpace(c) ? " " : c));
  if (chinese_characters) characters = characters.map((c) => (isChinese(c) ? ` ${c} ` : c));
  let normal = characters.join("");
  if (strip_accents) normal = normal.normalize("NFD").replace(/\p{Mn}/gu, ""); // é is e and a mark, which goes
  // One character at a time: a Σ at the end of a word is no other letter here.
  return lower_case ? Array.from(normal, (c) => c.toLowerCase()).join("") : normal;
}

const isSpace = (c) => /\p{White_Space}/u.test(c);
// Controls, invisible formats, private use and lone surrogates; of the controls, those that are white space are kept.
const isControl = (c) => c === "\0" || c === "\ufffd" || (/[\p{Cc}\p{Cf}\p{Co}\p{Cs}]/u.test(c) && !"\t\n\r".includes(c));

// The blocks of Chinese characters that BERT names. (2B920: as the library has it; the block starts at 2B820.)
const CHINESE = [
  [0x4e00, 0x9fff], [0x3400, 0x4dbf], [0x20000, 0x2a6df], [0x2a700, 0x2b73f], [0x2b740, 0x2b81f], [0x2b920, 0x2ceaf],
  [0xf900, 0xfaff], [0x2f800, 0x2fa1f],
];
function isChinese(c) {
  const code = c.codePointAt(0);
  return CHINESE.some(([first, last]) => first <= code && code <= last);
}

// ------------------------------------------------------------------------------------------------ split

// Each character of punctuation is a word of its own; of ASCII all that is no letter or digit counts, such as + and $.
const PUNCTUATION = /([!-/:-@[-`{-~]|\p{P})/u;
export function splitWords(text) {
  return text.split(/\p{White_Space}+/u).flatMap((word) => word.split(PUNCTUATION)).filter((word) => word !== "");
}

// ------------------------------------------------------------------------------------------------ WordPiece

// The longest piece of the vocabulary that the word begins with, then the longest that follows, and so on; a piece
// within a word begins with ##. Where no piece fits, the whole word is unknown.
function cutWord(word, { ids, prefix, unknown, longest_word }) {
  const characters = [...word];
  const whole = [{ token: unknown, id: ids.get(unknown), word }];
  if (characters.length > longest_word) return whole;
  const pieces = [];
  for (let start = 0; start < characters.length;) {
    let end = characters.length;
    let token = "";
    for (; end > start; end--) {
      token = (start ? prefix : "") + characters.slice(start, end).join("");
      if (ids.has(token)) break;
    }
    if (end === start) return whole;
    pieces.push({ token, id: ids.get(token), word: characters.slice(start, end).join("") });
    start = end;
  }
  return pieces;
}
