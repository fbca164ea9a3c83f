// Chapter 3: the same text in three tokenizers, what it costs in other languages, and which letters disappear inside tokens.
import { figure, fixed, label, shape } from "../../grader/book/static/kit.js";

// The most frequent words of Python's help texts (pydoc_data.topics) in small letters, and a Unigram model trained on them.
export const defaults = {
  "text": "how many r are in strawberry",
  "words": {
    "the":4585, "is":1835, "a":1958, "of":1371, "in":1326, "to":1217, "and":1059, "for":803, "are":636, "object":628, "be":627,
    "class":578, "that":576, "an":553, "as":538, "or":534, "not":435, "with":435, "by":413, "if":720, "x":390, "s":378, "value":358,
    "it":433, "function":312, "method":306, "can":282, "name":277, "statement":266, "exception":261, "list":260, "self":247, "type":242,
    "expression":227, "from":226, "module":225, "instance":215, "string":211, "used":209, "other":198, "this":380, "attribute":195,
    "on":192, "will":184, "objects":181, "sequence":178, "defined":177, "one":175, "which":175, "code":172, "pattern":171, "when":260,
    "arguments":169, "only":169, "return":169, "may":168, "same":168, "all":165, "y":161, "should":156, "also":156, "argument":156,
    "except":148, "at":147, "values":146, "dictionary":145, "i":145, "python":141, "types":140, "key":135, "any":135, "set":133,
    "new":126, "clause":126, "its":125, "methods":125, "version":124, "built":123, "none":123, "must":121, "no":119, "called":119,
    "have":116, "dict":113, "using":111, "block":108, "suite":108, "number":105, "f":105, "but":104, "following":104, "e":104,
    "default":103, "format":103, "str":101, "namespace":99, "note":97, "see":169, "first":95, "tuple":94, "executed":94, "names":93,
    "try":93, "example":92, "call":92, "has":91, "item":91, "assignment":90, "then":89, "they":89, "raised":87, "keyword":87, "case":86,
    "such":86, "definition":84, "operations":84, "hash":83, "characters":82, "given":81, "getitem":81, "parameter":80, "attributes":79,
    "items":79, "section":76, "result":76, "global":75, "functions":75, "context":75, "classes":74, "import":74, "keys":74,
    "character":74, "raise":73, "true":73, "target":73, "does":73, "than":73, "implementation":72, "there":71, "mapping":71, "current":70,
    "identifier":70, "two":70, "more":70, "base":70, "stmt":69, "line":69, "range":69, "expressions":69, "was":68, "length":68
  },
  "logp": {
    "▁":-4.0, "e":-5.0, "t":-4.1, "a":-5.5, "n":-4.9, "s":-4.1, "i":-5.3, "o":-6.5, "h":-6.4, "▁t":-5.7, "th":-6.6, "r":-5.3, "▁a":-3.2,
    "▁i":-5.2, "c":-6.1, "▁the":-2.3, "l":-6.1, "f":-14.0, "u":-10.1, "d":-5.0, "m":-6.6, "▁o":-6.4, "b":-5.9, "▁s":-4.9, "y":-5.8,
    "p":-5.7, "▁is":-3.3, "▁c":-5.8, "▁f":-6.0, "▁an":-4.5, "as":-6.6, "or":-6.2, "▁in":-3.6, "w":-6.0, "▁n":-6.2, "▁b":-5.7, "ar":-6.5,
    "re":-5.7, "▁of":-3.6, "g":-6.3, "x":-14.0, "▁to":-3.7, "▁w":-6.6, "al":-6.7, "tion":-6.4, "▁m":-6.0, "es":-5.9, "▁and":-3.9,
    "er":-5.2, "▁fo":-6.2, "▁e":-6.2, "ec":-6.3, "nt":-6.3, "ex":-6.5, "▁for":-4.0, "ce":-6.2, "ent":-6.0, "▁ex":-5.6, "v":-14.0,
    "▁object":-4.4, "j":-14.0, "▁se":-6.5, "▁no":-5.3, "ue":-6.5, "ment":-5.7, "be":-7.2, "▁it":-4.5, "▁if":-4.2, "ame":-6.4, "▁d":-6.6,
    "ed":-6.1, "le":-6.5, "ne":-5.6, "▁class":-4.3, "▁tha":-6.5, "▁st":-6.7, "▁are":-4.4, "ng":-5.9, "▁as":-4.6, "▁v":-6.0, "▁be":-4.4,
    "ction":-6.5, "▁that":-4.5, "us":-6.0, "ra":-6.7, "▁on":-5.6, "▁or":-4.5, "▁not":-4.6, "▁value":-4.9, "ing":-5.2, "▁name":-5.2,
    "pe":-6.6, "▁with":-4.8, "▁method":-4.8, "um":-6.2, "fi":-5.8, "▁at":-6.1, "sion":-6.0, "ch":-6.4, "▁by":-4.8, "▁except":-5.8,
    "ter":-6.5, "k":-6.1, "▁x":-4.9, "▁function":-4.9, "ssi":-6.3, "▁type":-5.3, "▁this":-4.9, "but":-8.0, "res":-6.5, "ute":-6.3,
    "▁def":-6.2, "ite":-6.1, "pa":-6.2, "ma":-6.2, "▁li":-6.6, "▁argument":-5.8, "ve":-5.5, "▁us":-6.1, "▁str":-6.2, "il":-6.0, "rs":-6.3,
    "expression":-5.1, "▁key":-5.1, "▁mo":-6.6, "▁ha":-6.0, "lo":-5.2, "▁can":-5.2, "▁attribute":-5.2, "▁statement":-5.2, "tu":-6.3,
    "▁exception":-5.3, "▁defin":-6.4, "▁list":-5.3, "▁when":-5.3, "▁dict":-6.1, "ple":-6.3, "▁pa":-6.5, "item":-6.4, "▁self":-5.3,
    "▁co":-6.5, "ur":-6.6, "▁ma":-6.6, "ry":-7.4, "▁g":-5.8, "▁ra":-6.6, "▁bu":-5.5, "▁from":-5.4, "▁module":-5.4, "▁instance":-5.5,
    "▁string":-5.5, "▁call":-5.5, "▁used":-5.5, "▁other":-5.5, "▁su":-5.6, "▁names":-5.6, "▁will":-5.6, "▁objects":-5.7, "ult":-5.6,
    "▁sequence":-5.6, "q":-14.0, "▁defined":-5.7, "▁one":-5.7, "▁which":-5.7, "▁has":-5.7, "▁code":-5.7, "▁pattern":-5.7, "▁item":-5.7,
    "▁arguments":-5.7, "▁only":-5.7, "▁return":-5.7, "▁see":-5.7, "▁may":-5.7, "▁same":-5.7, "▁tr":-5.9, "▁all":-5.7, "mple":-5.8,
    "▁y":-5.8, "▁raise":-5.8, "tions":-6.7, "wo":-5.9, "▁should":-5.8, "▁also":-5.8, "ase":-5.8, "ation":-6.3, "▁character":-5.8,
    "get":-5.8, "▁values":-5.9, "▁imp":-6.4, "dictionary":-5.8, "ba":-8.4, "▁python":-5.9, "▁types":-5.9, "▁any":-5.9, "▁set":-5.9,
    "▁new":-6.0, "▁claus":-6.0
  }
};

/** Counts of symbols and of pairs of neighbours in [symbols, count] rows; a pair is [left, right, count] under "left\nright". */
function counted(rows) {
  const [f, pairs] = [{}, new Map()];
  for (const [symbols, count] of rows) {
    symbols.forEach((symbol, i) => {
      f[symbol] = (f[symbol] ?? 0) + count;
      if (!i) return;
      const key = `${symbols[i - 1]}\n${symbol}`;
      pairs.set(key, [symbols[i - 1], symbol, (pairs.get(key)?.[2] ?? 0) + count]);
    });
  }
  return [f, pairs];
}

/** Replace left, right by `made` in a row of symbols, from left to right without overlap. */
function joined(symbols, left, right, made) {
  const row = [];
  for (let i = 0; i < symbols.length; i++) {
    const both = symbols[i] === left && symbols[i + 1] === right;
    row.push(both ? made : symbols[i]);
    if (both) i++;
  }
  return row;
}

/** The pair of highest score(f(a, b), f(a), f(b)), among equals of highest count, then the greatest (side 1) or smallest (−1). */
function leading(rows, score, side) {
  const [f, pairs] = counted(rows);
  const order = (a, b) => (a < b ? -1 : a > b ? 1 : 0);
  const value = ([a, b, count]) => score(count, f[a], f[b]);
  const ahead = (x, y) => value(x) - value(y) || x[2] - y[2] || side * (order(x[0], y[0]) || order(x[1], y[1]));
  return [...pairs.values()].reduce((best, pair) => (best && ahead(pair, best) <= 0 ? best : pair), null);
}

/** BPE: `most` times join the most frequent pair, among equals the greatest, in the UTF-8 bytes of " " + word. */
export function trainBpe(words, most) {
  let [merges, rows] = [[], Object.entries(words).map(([word, count]) => [[...bytes(` ${word}`)], count])];
  for (let best; merges.length < most && (best = leading(rows, (count) => count, 1));) {
    merges.push(best.slice(0, 2));
    rows = rows.map(([symbols, count]) => [joined(symbols, best[0], best[1], best[0] + best[1]), count]);
  }
  return merges;
}

/** WordPiece: the vocabulary after joining the pair of highest f(a, b) / (f(a) f(b)), or f(a, b), until it has `size` symbols. */
export function trainWordpiece(words, size, byScore) {
  const score = byScore ? (count, a, b) => count / (a * b) : (count) => count;
  let rows = Object.entries(words).map(([word, count]) => [[...word].map((c, i) => (i ? `##${c}` : c)), count]);
  const vocab = new Set(rows.flatMap(([symbols]) => symbols));
  for (let best; vocab.size < size && (best = leading(rows, score, -1));) {
    const made = best[0] + best[1].slice(2);
    vocab.add(made);
    rows = rows.map(([symbols, count]) => [joined(symbols, best[0], best[1], made), count]);
  }
  return [...vocab].sort();
}

/** The UTF-8 bytes of a text, each as the character of Latin-1 with its number. */
export function bytes(text) {
  return Array.from(new TextEncoder().encode(text), (byte) => String.fromCharCode(byte)).join("");
}

/** BPE: join the pair that was learned first, again and again, in the bytes of a piece. */
export function applyMerges(piece, merges) {
  let parts = [...piece];
  const ranks = new Map(merges.map(([a, b], rank) => [`${a}\n${b}`, rank]));
  for (;;) {
    const rank = Math.min(...parts.slice(1).map((part, i) => ranks.get(`${parts[i]}\n${part}`) ?? Infinity));
    if (rank === Infinity) return parts;
    parts = joined(parts, ...merges[rank], merges[rank].join(""));
  }
}

/** WordPiece: from the left the longest piece that fits, with ## on all but the first; one gap makes the word [UNK]. */
export function wordpieceEncode(word, vocab) {
  const [known, pieces, letters] = [new Set(vocab), [], [...word]];
  for (let start = 0; start < letters.length;) {
    const piece = (end) => (start ? "##" : "") + letters.slice(start, end).join("");
    let end = letters.length;
    while (end > start && !known.has(piece(end))) end--;
    if (end === start) return ["[UNK]"];
    pieces.push(piece(end));
    start = end;
  }
  return pieces;
}

/** Unigram: the cut whose log-probabilities have the largest sum, by a table of the best score up to each place. */
export function viterbiSegment(text, logp, unknown = -20) {
  const letters = [...text];
  const [best, from] = [[0], [0]];
  for (let j = 1; j <= letters.length; j++) {
    for (let i = j - 1; i >= 0; i--) {
      const score = best[i] + (logp[letters.slice(i, j).join("")] ?? (i === j - 1 ? unknown : -Infinity));
      if (i === j - 1 || score > best[j]) [best[j], from[j]] = [score, i];
    }
  }
  const pieces = [];
  for (let j = letters.length; j > 0; j = from[j]) pieces.unshift(letters.slice(from[j], j).join(""));
  return pieces;
}

/** SentencePiece: ▁ for each space and one in front; a character that no piece covers is spelt in byte tokens. */
export function spEncode(text, pieces) {
  const spelt = (piece) => [...bytes(piece)].map((c) => `<0x${c.charCodeAt(0).toString(16).toUpperCase().padStart(2, "0")}>`);
  const stretch = (part) => viterbiSegment(part.replaceAll(" ", "▁"), pieces).flatMap((each) => (each in pieces ? [each] : spelt(each)));
  return text ? ` ${text}`.split("▁").flatMap((part, n) => [...(n ? spelt("▁") : []), ...stretch(part)]) : [];
}

/** How often a letter stands in tokens of two or more characters, where a model cannot see it. */
export function hiddenLetters(tokens, letter) {
  return tokens.reduce((sum, token) => sum + ([...token].length > 1 ? token.split(letter).length - 1 : 0), 0);
}

const SENTENCES = {
  English: "The water is cold and the bread is warm.", German: "Das Wasser ist kalt und das Brot ist warm.",
  Spanish: "El agua está fría y el pan está caliente.", Chinese: "水是冷的，面包是热的。",
  Russian: "Вода холодная, а хлеб тёплый.", Hindi: "पानी ठंडा है और रोटी गरम है।",
  Greek: "Το νερό είναι κρύο και το ψωμί είναι ζεστό.",
};
const NAMES = ["BPE", "WordPiece", "Unigram"];
const RULES = { score: "most exclusive", count: "most frequent" };
const [SIZE, MERGES] = [250, 200];

export default {
  render({ model, el }) {
    const f = figure({ el, model, defaults }, "The same text in three tokenizers");
    const read = [["typed", "the text below"], ...Object.keys(SENTENCES).map((name) => [name, `a sentence in ${name}`])];
    const which = f.choice({ name: "read", label: "What is read", options: read });
    const typed = f.text({ name: "text", label: "Text", value: f.given("text"), length: 80 });
    const letter = f.choice({ name: "letter", label: "Letter to look for", options: [..."raeinost"].map((c) => [c, c]) });
    const rule = f.choice({ name: "rule", label: "WordPiece joins the pair that is", options: Object.entries(RULES) });
    const loud = f.toggle({ name: "capitals", label: "in capitals" });
    const once = ((kept) => (name, train) => (kept[name] ??= train()))({});  // what was trained, by name

    f.drawn((width) => {
      const words = f.given("words");
      const key = JSON.stringify(words);
      const merges = once(`bpe ${key}`, () => trainBpe(words, MERGES));
      const vocab = once(`${rule()} ${key}`, () => trainWordpiece(words, SIZE, rule() === "score"));
      const encode = [(text) => bpe(text, merges), (text) => wordpiece(text, vocab), (text) => spEncode(text, f.given("logp"))];
      const text = loud() ? (SENTENCES[which()] ?? typed()).toUpperCase() : SENTENCES[which()] ?? typed();
      const look = loud() ? letter().toUpperCase() : letter();
      const there = text.split(look).length - 1;
      const tokens = encode.map((each) => each(text));
      const premiums = encode.map((each, i) => fixed(tokens[i].length / each(SENTENCES.English).length));
      f.html("p", {}, `“${text}” Orange: “${look}” is inside a longer token. Green: it is a token of its own.`);
      tokens.forEach((row, i) => chips(f, width, NAMES[i], row, look));
      const each = (values) => NAMES.map((name, i) => `${name} ${values[i]}`).join(", ");
      const lost = tokens[1].filter((token) => token === "[UNK]").length;
      const hidden = tokens.map((row) => hiddenLetters(spelt(row), look));
      f.say(`Tokens: ${each(tokens.map((row) => row.length))}. ` +
        (which() === "typed" ? "" : `Times the English sentence: ${each(premiums)}. `) +
        (there ? `Of ${there} “${look}”, so many are hidden inside tokens: ${each(hidden)}.` : `There is no “${look}” in it.`) +
        (lost ? ` WordPiece has lost ${lost} ${lost === 1 ? "word or sign" : "words and signs"}.` : ""));
    });
  },
};

/** BPE on text: pieces with the space in front, their bytes, the merges. */
function bpe(text, merges) {
  const pieces = text.match(/ ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+/gu) ?? [];
  return pieces.flatMap((piece) => applyMerges(bytes(piece), merges)).map(readable);
}

/** WordPiece on text: words and signs, without the spaces. */
function wordpiece(text, vocab) {
  return (text.match(/[\p{L}\p{M}\p{N}]+|[^\s\p{L}\p{M}\p{N}]/gu) ?? []).flatMap((word) => wordpieceEncode(word, vocab));
}

/** Bytes as text, or their hexadecimal numbers if they are none. */
function readable(token) {
  try {
    return new TextDecoder("utf-8", { fatal: true }).decode(Uint8Array.from(token, (c) => c.charCodeAt(0)));
  } catch {
    return Array.from(token, (c) => `<0x${c.charCodeAt(0).toString(16).toUpperCase()}>`).join("");
  }
}

/** Tokens as they spell the text: without marks, without lost words and bytes. */
function spelt(tokens) {
  return tokens.filter((token) => !/^(\[UNK\]|<0x..>.*)$/.test(token)).map((token) => token.replace(/^##/, ""));
}

/** The tokens of one tokenizer in boxes: coloured where the letter is hidden in a longer token, or stands alone. */
function chips(f, width, name, tokens, letter) {
  let [x, y] = [0, 22];
  const placed = tokens.map((token) => {
    const shown = token.replaceAll(" ", "_").replace(/^<0x(..)>$/, "$1");
    const wide = 10 + 8 * [...shown].length;
    if (x + wide > width && x) [x, y] = [0, y + 28];
    x += wide + 3;
    const [plain] = spelt([token]);
    const kind = !plain?.includes(letter) ? "off" : hiddenLetters([plain], letter) ? "second" : "third";
    return [shown, x - wide - 3, y, wide, kind];
  });
  const svg = f.svg(y + 32, `${name}: ${tokens.length} tokens`);
  label(svg, 0, 14, `${name}: ${tokens.length} ${tokens.length === 1 ? "token" : "tokens"}`, { kind: "strong" });
  for (const [text, left, top, wide, kind] of placed) {
    shape("rect", { x: left + 1, y: top, width: wide - 2, height: 24, rx: 4, class: `figure-chip ${kind}` }, svg);
    label(svg, left + wide / 2, top + 17, text, { anchor: "middle", kind: "mono" });
  }
}
