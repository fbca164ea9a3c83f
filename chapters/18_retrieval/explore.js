// Chapter 18: from a query to a context. Words and vectors rank the documents, the rankings are fused, thinned out and packed.
import { figure, fixed, label, node, shape } from "../../grader/book/static/kit.js";

export const defaults = {
  "documents": [
    "the mill on the river grinds wheat", "a watermill turns by the stream", "error E0425 means a name was not found",
    "error E0428 means a name was defined twice", "the car needs a new brake", "the car needs a new tyre",
    "repair of an automobile costs more than the automobile", "a bird sings by the river"
  ],
  "vectors": {
    "mill": [1, 0, 0, 0.5], "watermill": [1, 0, 0, 0.75], "wheat": [0.75, 0, 0, 0], "grinds": [0.75, 0, 0, 0], "river": [0, 0, 0, 1],
    "stream": [0, 0, 0, 1], "brook": [0, 0, 0, 1], "bird": [0, 0, 0, 0.5], "error": [0, 0.75, 0, 0], "fault": [0, 0.75, 0.25, 0],
    "e0425": [0, 0.5, 0, 0], "e0428": [0, 0.5, 0, 0], "name": [0, 0.5, 0, 0], "car": [0, 0, 1, 0], "automobile": [0, 0, 1, 0],
    "vehicle": [0, 0, 1, 0], "brake": [0, 0.25, 0.75, 0], "tyre": [0, 0, 0.75, 0], "repair": [0, 0.5, 0.5, 0]
  }
};

/** BM25 of every document, lists of terms, for a query: the sum over its terms of idf · tf (k1 + 1) / (tf + k1 (1 − b + b |d| / avg)). */
export function bm25(docs, query, k1 = 1.5, b = 0.75) {
  const average = docs.reduce((sum, doc) => sum + doc.length, 0) / Math.max(docs.length, 1) || 1;
  const times = (doc, term) => doc.filter((word) => word === term).length;
  const idf = query.map((term) => {
    const df = docs.filter((doc) => doc.includes(term)).length;
    return Math.log(1 + (docs.length - df + 0.5) / (df + 0.5));
  });
  return docs.map((doc) => {
    const norm = k1 * (1 - b + (b * doc.length) / average);
    return query.reduce((sum, term, i) => sum + (idf[i] * times(doc, term) * (k1 + 1)) / (times(doc, term) + norm), 0);
  });
}

/** Vectors divided by their lengths; zeros stay zeros. */
export function unit(X) {
  return X.map((x) => x.map((value) => value / Math.max(Math.hypot(...x), 1e-12)));
}

/** The dot product of q, (D,), with every row of X, (n, D): the cosine if all have length 1. */
export function dots(q, X) {
  return X.map((x) => x.reduce((sum, value, d) => sum + value * q[d], 0));
}

/** The indices of the positive scores, the highest first, ties by rising index. */
export function ranking(scores) {
  return scores.map((_, i) => i).filter((i) => scores[i] > 0).sort((i, j) => scores[j] - scores[i] || i - j);
}

/** Reciprocal rank fusion: pairs [id, sum over rankings of 1 / (k + rank)], the highest first. */
export function rrf(rankings, k = 60) {
  const scores = new Map();
  for (const ids of rankings) ids.forEach((id, place) => scores.set(id, (scores.get(id) ?? 0) + 1 / (k + place + 1)));
  return [...scores].sort((a, b) => b[1] - a[1]);
}

/** The order in which maximal marginal relevance chooses: lam · score less (1 − lam) · the likeness to the most similar one chosen. */
export function mmr(scores, sims, lam) {
  const chosen = [];
  while (chosen.length < scores.length) {
    const worth = scores.map((score, i) => (chosen.length ? lam * score - (1 - lam) * Math.max(...chosen.map((j) => sims[i][j])) : score));
    const left = scores.map((_, i) => i).filter((i) => !chosen.includes(i));
    chosen.push(left.reduce((best, i) => (worth[i] > worth[best] ? i : best)));
  }
  return chosen;
}

/** The ids, in this order, of the chunks that fit in full into a budget of words; a chunk costs its words and one for its id. */
export function pack(chunks, order, budget) {
  const [taken, texts] = [[], new Set()];
  let used = 0;
  for (const i of order) {
    const cost = words(chunks[i]) + 1;
    if (!texts.has(chunks[i]) && used + cost <= budget) {
      taken.push(i);
      used += cost;
    }
    texts.add(chunks[i]);
  }
  return taken;
}

const words = (text) => text.split(/\s+/).filter(Boolean).length;
const terms = (text) => text.toLowerCase().match(/[\p{L}\p{N}]+/gu) ?? [];
const KINDS = { both: "both, fused", words: "words alone (BM25)", vectors: "vectors alone" };

export default {
  render({ model, el }) {
    const f = figure({ el, model, defaults }, "From a query to a context");
    const ask = f.text({ name: "query", label: "The query, such as “vehicle” or “E0428”", value: "car repair E0428" });
    const kind = f.choice({ name: "search", label: "Rank by", options: Object.entries(KINDS) });
    const k = f.slider({ name: "k", label: "k of the fusion", min: 0, max: 60, step: 1, value: 60 });
    const lam = f.slider({ name: "lam", label: "Relevance against difference, λ", min: 0, max: 1, step: 0.05, value: 0.6, show: fixed });
    const budget = f.slider({ name: "budget", label: "Budget in words", min: 5, max: 50, value: 20 });

    f.drawn((width) => {
      const [documents, table] = [f.given("documents"), f.given("vectors")];
      const zero = Object.values(table)[0].map(() => 0);
      const encode = (text) => terms(text).reduce((sum, term) => sum.map((x, d) => x + (table[term] ?? zero)[d]), zero);
      const [X, [q]] = [unit(documents.map(encode)), unit([encode(ask())])];
      const scores = { words: bm25(documents.map(terms), terms(ask())), vectors: dots(q, X) };
      const ranks = { words: ranking(scores.words), vectors: ranking(scores.vectors) };
      const fused = rrf(kind() === "both" ? [ranks.words, ranks.vectors] : [ranks[kind()]], k());
      const found = fused.map(([i]) => i);
      // relative to the best, so that relevance and likeness are of one size
      const relevance = fused.map(([, score]) => score / fused[0][1]);
      const order = mmr(relevance, found.map((i) => dots(X[i], found.map((j) => X[j]))), lam()).map((place) => found[place]);
      const taken = pack(documents, order, budget());
      const used = taken.reduce((sum, i) => sum + words(documents[i]) + 1, 0);
      rankings(f, width, [
        ["words", ranks.words.map((i) => [i, fixed(scores.words[i])])],
        [kind() === "both" ? "fused" : "used", fused.map(([i, score]) => [i, fixed(score, 4)])],
        ["vectors", ranks.vectors.map((i) => [i, fixed(scores.vectors[i])])],
      ]);
      filled(f, width, documents, taken, budget());
      list(f, documents, order, taken);
      const first = (name) => (ranks[name].length ? `${name} put [${ranks[name][0]}] first` : `${name} find nothing`);
      f.say(`“${ask()}”: ${first("words")}, ${first("vectors")}. ` + (found.length
        ? `Ranked by ${KINDS[kind()]}, [${found[0]}] leads with ${fixed(fused[0][1], 4)}. ` +
          `The context holds ${taken.map((i) => `[${i}]`).join(", ") || "nothing"}: ${used} of ${budget()} words.`
        : "No document was found, so the model is not asked."));
    });
  },
};

/** Three columns of documents, the best on top; a line joins a document's places. */
function rankings(f, width, columns) {
  const rows = Math.max(1, ...columns.map(([, ranked]) => ranked.length));
  const svg = f.svg(30 + rows * 32, "The ranking by words, the one that is used, and the ranking by vectors");
  const gap = width < 400 ? 12 : 70;
  const wide = (width - 2 * gap - 2) / 3;
  const [X, Y] = [(c) => 1 + c * (wide + gap), (place) => 28 + place * 32];
  for (const c of [0, 2]) {
    columns[1][1].forEach(([i], place) => {
      const there = columns[c][1].findIndex(([other]) => other === i);
      if (there < 0) return;
      const [from, to] = c ? [X(1) + wide, X(2)] : [X(1), X(0) + wide];
      shape("line", { x1: from, x2: to, y1: Y(place) + 13, y2: Y(there) + 13, class: place ? "figure-line soft" : "figure-line" }, svg);
    });
  }
  columns.forEach(([name, ranked], c) => {
    label(svg, X(c) + wide / 2, 16, name, { anchor: "middle", kind: "strong" });
    ranked.forEach(([i, shown], place) => {
      shape("rect", { x: X(c), y: Y(place), width: wide, height: 26, rx: 5, class: `figure-chip ${c === 1 ? "" : "off"}` }, svg);
      label(svg, X(c) + wide / 2, Y(place) + 18, `[${i}] ${shown}`, { anchor: "middle" });
    });
  });
}

/** The budget as a bar, filled by the chosen documents. */
function filled(f, width, documents, taken, budget) {
  const svg = f.svg(40, `The budget of ${budget} words, filled by the documents chosen`);
  const one = (width - 2) / budget;
  let x = 1;
  shape("rect", { x, y: 6, width: budget * one, height: 28, rx: 4, class: "figure-chip off" }, svg);
  for (const i of taken) {
    const wide = (words(documents[i]) + 1) * one;
    shape("rect", { x, y: 6, width: wide, height: 28, rx: 4, class: "figure-chip third" }, svg);
    if (wide > 26) label(svg, x + wide / 2, 25, `[${i}]`, { anchor: "middle" });
    x += wide;
  }
}

/** The documents in the order of choice, then those that were not found, and what became of each. */
function list(f, documents, order, taken) {
  const table = f.html("table");
  const row = (tag, texts) => {
    const line = node("tr");
    for (const text of texts) line.append(node(tag, tag === "th" ? { scope: "col" } : {}, text));
    table.append(line);
  };
  row("th", ["Document, in the order of choice", "Context"]);
  const rest = documents.map((_, i) => i).filter((i) => !order.includes(i));
  for (const i of [...order, ...rest]) {
    const cost = words(documents[i]) + 1;
    row("td", [`[${i}] ${documents[i]}`, taken.includes(i) ? `${cost} words` : order.includes(i) ? `no room for ${cost}` : "not found"]);
  }
}
