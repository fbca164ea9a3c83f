// Chapter 2: merges learned one by one turn bytes into tokens, and a piece is encoded by replaying them in the order learned.
import { bars, figure, fixed, label, shape } from "../../grader/book/static/kit.js";

// Bytes are written as the characters of Latin-1. The merges are the first 500 that Python's help texts (pydoc_data.topics) give.
export const defaults = {
  "text": "tin tins tint bin bins",
  "merges": [
    [" "," "], ["-","-"], [" ","t"], ["  ","  "], [" ","a"], ["h","e"], ["i","n"], ["--","--"], ["o","n"], ["t","e"], ["r","e"],
    [" t","he"], [" ","\""], [" ","i"], [" ","o"], ["s","e"], [" ","c"], ["t","i"], ["m","e"], ["\n","  "], ["l","e"], ["o","r"],
    ["s","t"], ["a","l"], ["=","="], ["ti","on"], ["----","----"], ["d","e"], [" ","b"], ["    ","    "], ["_","_"], [" ","f"], ["c","e"],
    ["in","g"], [" ","in"], [" i","s"], ["a","t"], [" ","e"], [" ","s"], ["a","r"], [" a","n"], ["n","t"], ["e","r"], ["*","*"],
    ["a","n"], [" ","n"], ["s","s"], ["t","h"], ["e","c"], ["l","a"], [" ","w"], [" o","f"], [" ","p"], [" t","o"], ["te","r"],
    ["==","=="], [" ","re"], [" ","m"], ["me","nt"], [" ","|"], ["r","i"], ["u","e"], [" ","de"], [" an","d"], [" e","x"], ["l","o"],
    ["u","n"], [")","\""], ["e","d"], [" t","h"], ["m","p"], ["ec","t"], ["a","me"], ["b","j"], ["l","i"], ["o","d"],
    ["--------","--------"], ["bj","ect"], [" ","*"], [" b","e"], ["a","te"], [" ","v"], ["c","tion"], ["\n","\n  "], ["T","he"],
    [" f","or"], [" ","st"], ["(",")\""], ["\n","    "], ["d","i"], [" ","("], ["l","y"], ["la","ss"], ["r","o"], ["p","e"], ["**","**"],
    ["a","tion"], ["i","s"], ["u","r"], ["o","t"], [" w","i"], [" a","re"], ["a","c"], ["u","l"], [" c","o"], ["        ","        "],
    [" ","se"], ["b","le"], ["g","e"], [" o","r"], ["\u00e2","\u0080"], ["te","d"], ["u","se"], [" o","bject"], [" th","at"], [" ","me"],
    ["i","on"], [" \"","__"], ["v","e"], ["al","ue"], [" a","s"], ["p","re"], ["i","t"], ["ce","p"], [" de","f"], [" s","u"], ["c","h"],
    [" i","t"], ["a","s"], [" ","The"], [">",">"], [" c","on"], ["u","t"], ["k","e"], ["e","x"], [" ","on"], ["r","a"], [" c","lass"],
    ["y","pe"], ["====","===="], [" wi","th"], [" b","y"], [" ","I"], ["th","od"], ["t","he"], [" a","l"], [" v","alue"], ["__","()\""],
    [" ","h"], ["a","ble"], ["b","u"], [" a","t"], ["un","ction"], [" n","ot"], ["n","ce"], ["mp","le"], ["g","u"], [" me","thod"],
    [" ","di"], ["\"",","], ["p","er"], [".","."], [" n","ame"], ["c","o"], [" ","li"], ["t","ur"], ["i","l"], ["t","ri"], ["e","s"],
    ["an","d"], ["\n    "," "], ["tur","n"], ["er","s"], ["f","i"], [" f","unction"], [" def","in"], ["r","ing"], [" i","f"],
    ["tri","bu"], ["tribu","te"], [".","__"], [" ","use"], ["cep","tion"], ["ke","y"], ["p","p"], [" a","r"], ["gu","ment"], ["i","se"],
    ["ate","ment"], ["an","ce"], ["od","u"], ["c","t"], [" c","an"], ["s","p"], [" ","d"], ["u","p"], ["pre","ss"], ["t","a"], ["lo","w"],
    ["te","m"], [" t","ype"], ["press","ion"], [" m","a"], ["st","ance"], ["\n"," "], ["the","r"], ["a","se"], ["\"","."], ["q","ue"],
    ["h","i"], [" st","atement"], ["in","t"], ["g","n"], [" ar","gument"], ["he","n"], ["ar","y"], ["****","****"], [" I","f"], [" ","T"],
    ["l","f"], ["\u00e2\u0080","\u0099"], [" ","A"], ["at","ter"], ["+","----------------"], ["u","s"], ["__","("], [" ","'"],
    ["se","lf"], [" c","al"], ["que","nce"], ["odu","le"], ["m","b"], ["atter","n"], [" re","turn"], ["v","er"], ["ss","i"],
    ["o","bject"], ["ul","t"], [" at","tribute"], ["lo","c"], ["  "," "], [" ","["], ["o","l"], [" ","S"], [" st","ring"], ["le","d"],
    [" in","stance"], [" ex","ception"], [" ","key"], [">>",">"], ["l","l"], [" o","per"], [" ","C"], ["ro","m"], ["ate","d"], [" n","e"],
    ["ec","i"], ["d","ing"], ["al","ly"], ["r","or"], [")","."], [" ","le"], ["f","or"], [" ","g"], [" ",">>>"], ["i","r"], ["h","o"],
    [" o","ther"], [" ","3"], ["s","i"], ["r","ror"], ["ra","ise"], [" p","o"], ["ge","t"], [" ","un"], [" ","F"], ["m","at"],
    [" li","st"], [" ","P"], ["u","st"], ["at","or"], ["ta","in"], [":","="], [" c","h"], ["or","t"], [":",":="], [" c","la"], [" ","N"],
    [" ","::="], [" ex","pression"], [" se","quence"], [" use","d"], ["s","c"], ["ec","u"], ["re","d"], ["q","u"], [" s","p"], ["s","o"],
    ["ul","d"], ["e","n"], ["ar","i"], [" m","odule"], [" f","rom"], ["on","e"], ["y","th"], [" p","ro"], [" ","raise"], ["ssi","gn"],
    ["ation","s"], [" n","u"], ["E","rror"], ["h","is"], [" w","hi"], ["..","."], ["__","\""], ["e","re"], ["yth","on"], ["t","r"],
    [" th","is"], [" i","mple"], [" co","mp"], [" ","y"], ["cep","t"], ["+----------------","----------------"], [" wi","ll"],
    [" ex","ecu"], ["un","d"], ["i","e"], [" object","s"], ["m","m"], [" p","re"], ["sc","ri"], ["s","se"], ["c","lass"], [" s","ho"],
    ["ar","ac"], ["arac","ter"], ["========","========"], [" w","hen"], [" d","o"], [" ","\u00e2\u0080"], ["il","t"], ["ac","k"],
    [" ma","y"], ["o","te"], ["v","al"], ["st","r"], [" a","ssign"], [" ","r"], [" ","="], [" sp","eci"], [" ","l"], ["t","s"],
    ["        ","  "], ["ers","ion"], ["(",")"], ["g","er"], [" ","..."], [" s","ame"], [" imple","ment"], [" b","u"], ["n","ti"],
    ["f","ere"], ["s","u"], ["ol","low"], ["o","re"], ["ction","ary"], [" sho","uld"], ["g","h"], [" t","r"], ["d","s"], ["--","-"],
    [" p","ar"], [" on","e"], [" ch","aracter"], ["        ","    "], ["n","ot"], ["a","d"], ["a","ce"], ["t","y"], ["o","und"],
    [" co","de"], [" argument","s"], [" T","his"], [" whi","ch"], [" al","so"], ["v","i"], [" al","l"], ["de","r"], [" con","tain"],
    ["n","ame"], [" h","a"], [" p","attern"], [" nu","mb"], [" defin","ed"], ["de","nti"], ["a","ult"], ["loc","k"], [" n","o"],
    ["~","~"], ["p","o"], ["ame","ter"], [" v","ersion"], ["val","u"], ["ti","c"], [" bu","ilt"], [" ","1"], ["li","c"], ["he","r"],
    ["c","on"], [" f","ollow"], [" cla","use"], ["in","e"], ["ari","able"], [" on","ly"], ["sse","s"], [" value","s"], [" re","s"],
    [" cal","l"], ["\n","\n"], ["tion","al"], ["de","d"], [" h","as"], [" ","us"], ["a","mple"], [" an","y"], ["\n    ","  "], ["y","s"],
    ["scri","p"], [" di","ctionary"], [" P","ython"], ["                ","    "], ["w","or"], ["se","nt"], ["f","in"], [" it","s"],
    ["m","a"], [" F","or"], ["re","nt"], ["p","ar"], [" su","b"], [" s","o"], ["ve","n"], [" \"","'"], ["i","te"], ["c","ce"],
    [" i","mp"], [" e","n"], ["an","ge"], [" e","valu"], ["pp","ing"], ["i","th"], [" m","ust"], [" c","re"], ["up","le"], ["i","tion"],
    [" type","s"], ["ut","able"], ["sp","ace"], ["m","al"], ["c","l"], [" method","s"], [" i","tem"], [" s","i"], [" ha","ve"],
    [" v","ariable"], [" m","at"], [" ","W"], ["y","nt"], ["ti","ve"], ["t","ing"], ["denti","fi"], [" su","ite"], [" ne","w"],
    [" i","ter"], [" cal","led"], [" ex","ample"], ["\u00e2\u0080","\u009d"], ["fere","nce"], [" su","pp"], [" se","t"], ["ie","l"],
    [" def","ault"], [" b","lock"], ["t","o"], ["o","ut"], ["i","z"], ["c","ur"], ["'","\""], [" ","R"], [" defin","ition"], [" p","r"],
    [" ","E"], ["ar","d"], [" us","ing"], [" res","ult"], [" key","wor"], [" e","qu"], [" assign","ment"], ["lo","b"]
  ]
};

/** The UTF-8 bytes of a text, each as the character of Latin-1 with its number. */
export function bytes(text) {
  return Array.from(new TextEncoder().encode(text), (byte) => String.fromCharCode(byte)).join("");
}

/** The pieces of a text under GPT-2's pattern; joined, they are the text. */
export function pretokenize(text) {
  return text.match(/'(?:[sdmt]|ll|ve|re)| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+/gu) ?? [];
}

/** Join the pair in a row of tokens wherever it stands, from left to right without overlap. */
export function join(parts, [left, right]) {
  const joined = [];
  for (let i = 0; i < parts.length; i++) {
    const both = parts[i] === left && parts[i + 1] === right;
    joined.push(both ? left + right : parts[i]);
    if (both) i++;
  }
  return joined;
}

/** Pairs of neighbours in rows of tokens, [left, right, count]: the most frequent first, among equals the greatest pair of bytes. */
export function leadingPairs(rows) {
  const counts = new Map();
  for (const row of rows) {
    for (let i = 1; i < row.length; i++) {
      const key = `${row[i - 1].length} ${row[i - 1]}${row[i]}`;
      const found = counts.get(key) ?? [row[i - 1], row[i], 0];
      counts.set(key, [found[0], found[1], found[2] + 1]);
    }
  }
  const later = (a, b) => (a < b ? 1 : a > b ? -1 : 0);
  return [...counts.values()].sort((a, b) => b[2] - a[2] || later(a[0], b[0]) || later(a[1], b[1]));
}

/** The first `most` merges that a text gives: again and again the leading pair; fewer if no pair is left. */
export function trainBpe(text, most) {
  let rows = pretokenize(text).map((piece) => [...bytes(piece)]);
  const merges = [];
  for (let pairs = leadingPairs(rows); merges.length < most && pairs.length; pairs = leadingPairs(rows)) {
    merges.push(pairs[0].slice(0, 2));
    rows = rows.map((row) => join(row, merges.at(-1)));
  }
  return merges;
}

/** How a piece is encoded: [rank, tokens] from the bytes on (rank −1), each time joining the pair that was learned first. */
export function replay(piece, merges) {
  const key = (left, right) => `${left.length} ${left}${right}`;
  const ranks = new Map(merges.map(([left, right], rank) => [key(left, right), rank]));
  const rows = [[-1, [...piece]]];
  for (;;) {
    const parts = rows.at(-1)[1];
    const found = parts.slice(1).map((part, i) => ranks.get(key(parts[i], part)) ?? Infinity);
    const rank = Math.min(...found);
    if (rank === Infinity) return rows;
    rows.push([rank, join(parts, merges[rank])]);
  }
}

/** Another rule, which is not BPE: from the left, always the longest token that fits. */
export function longestMatch(piece, merges) {
  const known = new Set(merges.map(([left, right]) => left + right));
  const tokens = [];
  for (let start = 0; start < piece.length; start += tokens.at(-1).length) {
    let end = piece.length;
    while (end > start + 1 && !known.has(piece.slice(start, end))) end--;
    tokens.push(piece.slice(start, end));
  }
  return tokens;
}

const NUMBERS = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 15, 20, 30, 50, 75, 100, 150, 200, 250, 300, 400, 500];
const SOURCES = { own: "the text itself", help: "Python’s help texts", three: "b c, then a b, then c d (type abcd)" };
const THREE = [["b", "c"], ["a", "b"], ["c", "d"]];

export default {
  render({ model, el }) {
    const f = figure({ el, model, defaults }, "From bytes to tokens, merge by merge");
    const typed = f.text({ name: "text", label: "Text", value: f.given("text") });
    const source = f.choice({ name: "source", label: "Merges learned from", options: Object.entries(SOURCES) });
    const last = NUMBERS.length - 1;
    const show = (i) => String(NUMBERS[i]);
    const many = f.slider({ name: "merges", label: "Merges used, at most", min: 0, max: last, value: 4, show });
    const which = f.slider({ name: "piece", label: "Piece to look into", min: 1, max: 12, value: 2 });

    f.drawn((width) => {
      const all = { own: trainBpe(typed(), 500), help: f.given("merges"), three: THREE }[source()];
      const merges = all.slice(0, NUMBERS[many()]);
      const pieces = pretokenize(typed()).map(bytes);
      if (!pieces.length) return f.say("There is no text: no bytes, no tokens.");
      const rows = pieces.map((piece) => replay(piece, merges).at(-1)[1]);
      const [size, tokens] = [bytes(typed()).length, rows.flat()];
      chips(f, width, [["", tokens]], "The text in tokens");
      const values = [size, tokens.length];
      bars(f, { values, names: ["bytes", "tokens"], shown: values.map(String), title: "Bytes and tokens", kinds: ["off", ""] });
      if (source() === "own") leaders(f, rows);
      const at = Math.min(which(), pieces.length) - 1;
      lookInto(f, width, pieces[at], at, merges);
      const other = pieces.filter((piece, i) => longestMatch(piece, merges).join("|") !== rows[i].join("|")).length;
      const newest = merges.length ? `The last merge learned is ${merges.at(-1).map(seen).join(" + ")}. ` : "";
      f.say(`With ${merges.length} ${merges.length === 1 ? "merge" : "merges"} the ${size} bytes are ${tokens.length} tokens, ` +
        `${fixed(size / tokens.length)} bytes a token. ${newest}` +
        `Longest match would cut ${other} of the ${pieces.length} pieces otherwise.`);
    });
  },
};

/** Bytes as one can read them: text where they are text, with _ for a space, else their hexadecimal numbers. */
function seen(token) {
  try {
    const text = new TextDecoder("utf-8", { fatal: true }).decode(Uint8Array.from(token, (c) => c.charCodeAt(0)));
    return text.length > 20 ? `${text.slice(0, 16)}…` : text.replaceAll(" ", "_").replaceAll(/\s/g, "↵");
  } catch {
    return Array.from(token, (c) => c.charCodeAt(0).toString(16).toUpperCase().padStart(2, "0")).join(" ");
  }
}

/** The pairs that training counts now; the first of them is joined next. */
function leaders(f, rows) {
  const pairs = leadingPairs(rows).slice(0, 5);
  if (!pairs.length) return f.html("p", {}, "No pair is left: training has ended.");
  f.html("p", {}, "Training counts the pairs of neighbours; the first is joined next:");
  const names = pairs.map(([left, right]) => `${seen(left)} + ${seen(right)}`);
  const shown = pairs.map(([, , count]) => String(count));
  const kinds = pairs.map((_, i) => (i ? "off" : "second"));
  bars(f, { values: pairs.map((pair) => pair[2]), names, shown, title: "The leading pairs", kinds });
}

/** How one piece is encoded, a row for each merge that is replayed, and what longest match would give. */
function lookInto(f, width, piece, at, merges) {
  f.html("p", {}, `Piece ${at + 1}, “${seen(piece)}”: each row joins the pair that was learned first.`);
  const rows = replay(piece, merges).map(([rank, parts]) => [rank < 0 ? "bytes" : `merge ${rank + 1}`, parts]);
  chips(f, width, [...rows, ["longest match", longestMatch(piece, merges)]], `How ${seen(piece)} is encoded`);
}

/** Rows of tokens in boxes, with a name in front (above, where it is narrow); single bytes are grey, longer tokens change colour. */
function chips(f, width, rows, title) {
  const placed = [];
  const [front, down] = [width < 420 || !rows[0][0] ? 0 : 110, 30];
  let y = 0;
  for (const [name, tokens] of rows) {
    if (name) placed.push([name, 0, y]);
    if (name && !front) y += 20;
    let x = front;
    tokens.forEach((token, i) => {
      const wide = 10 + 8 * seen(token).length;
      if (x + wide > width && x > front) [x, y] = [front, y + down];
      placed.push([seen(token), x, y, wide, token.length === 1 ? "off" : ["", "second", "third"][i % 3]]);
      x += wide + 3;
    });
    y += down + (name ? 4 : 0);
  }
  const svg = f.svg(y, title);
  for (const [text, x, top, wide, kind] of placed) {
    if (wide) shape("rect", { x: x + 1, y: top + 1, width: wide - 2, height: 24, rx: 4, class: `figure-chip ${kind}`.trim() }, svg);
    label(svg, wide ? x + wide / 2 : x, top + 18, text, { anchor: wide ? "middle" : "start", kind: wide ? "mono" : "soft" });
  }
}
