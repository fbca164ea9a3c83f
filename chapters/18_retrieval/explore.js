// Chapter 18: from a query to a context. Words and vectors rank the documents, the rankings are fused, thinned out and packed.
// And what an inverted file finds when it reads few of its lists.
import { axes, dot, figure, fixed, label, line, node, normal, random, shape } from "../../grader/book/static/kit.js";

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

const squared = (a, b) => a.reduce((sum, x, d) => sum + (x - b[d]) ** 2, 0);
const nearest = (x, centroids) => centroids.reduce((best, c, j) => (squared(x, c) < squared(x, centroids[best]) ? j : best), 0);

/** An inverted file of X (n, D): centroids after so many rounds of k-means from those given, and the list of ids nearest to each. */
export function invertedFile(X, start, rounds = 10) {
  let centroids = start;
  const file = () => {
    const lists = centroids.map(() => []);
    X.forEach((x, i) => lists[nearest(x, centroids)].push(i));
    return lists;
  };
  for (let round = 0; round < rounds; round++) {
    const lists = file();
    const mean = (ids, d) => ids.reduce((sum, i) => sum + X[i][d], 0) / ids.length;
    centroids = centroids.map((c, j) => (lists[j].length ? c.map((_, d) => mean(lists[j], d)) : c));
  }
  return { centroids, lists: file() };
}

/** The lists that a search for q reads: those of the n_probe nearest centroids, the nearest first. */
export function read({ centroids }, q, probes) {
  const distances = centroids.map((c) => squared(c, q));
  return distances.map((_, j) => j).sort((i, j) => distances[i] - distances[j]).slice(0, probes);
}

/** The ids of the k vectors nearest to q, (D,), among those in the n_probe lists that are read, the nearest first. */
export function probe(X, index, q, k, probes) {
  const distances = X.map((x) => squared(x, q));
  return read(index, q, probes).flatMap((j) => index.lists[j]).sort((i, j) => distances[i] - distances[j]).slice(0, k);
}

/** The part of the first k of the truth that is among the first k found. */
export function recall(found, truth, k) {
  const wanted = truth.slice(0, k);
  return wanted.filter((id) => found.slice(0, k).includes(id)).length / wanted.length;
}

/** Rows of so many normal numbers, or, if gathered, of 16 centres and less than a third of that around them. */
function drawn(count, width, gathered, uniform) {
  const row = () => Array.from({ length: width }, () => normal(uniform));
  const centres = Array.from({ length: 16 }, row);
  return Array.from({ length: count }, () => {
    const centre = centres[Math.floor(uniform() * 16)];
    return row().map((x, d) => (gathered ? centre[d] + 0.3 * x : x));
  });
}

/** Vectors, queries, index and recall at each number of lists read: 400 vectors, 50 queries, 16 lists, begun at the first 16 vectors. */
function experiment(width, gathered) {
  const all = drawn(450, width, gathered, random(width));
  const [X, Q] = [all.slice(0, 400), all.slice(400)];
  const index = invertedFile(X, X.slice(0, 16));
  const truth = Q.map((q) => probe(X, index, q, NEIGHBOURS, 16));
  const recalled = (q, n, probes) => recall(probe(X, index, q, NEIGHBOURS, probes), truth[n], NEIGHBOURS);
  const curve = index.lists.map((_, j) => Q.reduce((sum, q, n) => sum + recalled(q, n, j + 1), 0) / Q.length);
  return { X, Q, index, truth, curve };
}

const NEIGHBOURS = 10;
const PANELS = { search: "words and vectors", lists: "an index of lists" };
const words = (text) => text.split(/\s+/).filter(Boolean).length;
const terms = (text) => text.toLowerCase().match(/[\p{L}\p{N}]+/gu) ?? [];
const KINDS = { both: "both, fused", words: "words alone (BM25)", vectors: "vectors alone" };

export default {
  render({ model, el }) {
    const f = figure({ el, model, defaults }, "From a query to a context");
    const panel = f.choice({ name: "panel", label: "Look at", options: Object.entries(PANELS) });
    const at = (name) => () => panel() === name;
    const ask = f.text({ name: "query", label: "The query, such as “vehicle” or “E0428”", value: "car repair E0428", when: at("search") });
    const kind = f.choice({ name: "search", label: "Rank by", options: Object.entries(KINDS), when: at("search") });
    const k = f.slider({ name: "k", label: "k of the fusion", min: 0, max: 60, step: 1, value: 60, when: at("search") });
    const lam = f.slider({ name: "lam", label: "Relevance against difference, λ", min: 0, max: 1, step: 0.05, value: 0.6, show: fixed,
      when: at("search") });
    const budget = f.slider({ name: "budget", label: "Budget in words", min: 5, max: 50, value: 20, when: at("search") });
    const probes = f.slider({ name: "probes", label: "Lists read", min: 1, max: 16, value: 1, when: at("lists") });
    const asked = f.slider({ name: "asked", label: "Query number", min: 1, max: 50, value: 12, when: at("lists") });
    const gathered = f.toggle({ name: "gathered", label: "the vectors lie in clusters", when: at("lists") });
    const done = new Map();
    const once = (width, kind) => {
      if (!done.has(`${width} ${kind}`)) done.set(`${width} ${kind}`, experiment(width, kind));
      return done.get(`${width} ${kind}`);
    };

    f.drawn((width) => (panel() === "search" ? fromWords(width) : fromLists(width)));

    function fromLists(width) {
      const [flat, wide] = [2, 16].map((size) => once(size, gathered()));
      const n = asked() - 1;
      const found = probe(flat.X, flat.index, flat.Q[n], NEIGHBOURS, probes());
      const lists = read(flat.index, flat.Q[n], probes());
      const half = width < 520 ? width : Math.floor(width / 2) - 8;
      map(f, half, flat, n, lists, found);
      curves(f, half, [wide.curve, flat.curve], probes());
      const compared = lists.reduce((sum, j) => sum + flat.index.lists[j].length, 16);
      const right = found.filter((i) => flat.truth[n].includes(i)).length;
      const recalls = [flat, wide].map(({ curve }) => fixed(curve[probes() - 1], 3));
      f.say(`Query ${asked()} reads ${probes()} of 16 lists. It is compared with ${compared} vectors, centroids included, ` +
        `instead of 400, and finds ${right} of its 10 nearest. Over 50 queries, recall@10 is ${recalls[0]} in width 2, ` +
        `and ${recalls[1]} in width 16.`);
    }

    function fromWords(width) {
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
    }
  },
};

/** The vectors in the plane: those that are read, those that are found, and the neighbours that are missed. */
function map(f, wide, { X, Q, index, truth }, n, lists, found) {
  const size = Math.min(wide, 300);
  const svg = f.svg(size + 70, "Vectors, centroids, the query, and which of its neighbours were found", wide);
  const most = Math.max(...[...X, Q[n]].flat().map(Math.abs)) * 1.03;
  const place = ([x, y]) => [wide / 2 + (x / most) * (size / 2), size / 2 - (y / most) * (size / 2)];
  const circle = (at, r, kind) => shape("circle", { cx: at[0], cy: at[1], r, class: kind }, svg);
  const cross = ([x, y], kind) => shape("path", { d: `M${x - 4} ${y - 4}l8 8m0 -8l-8 8`, class: `figure-line ${kind}` }, svg);
  const near = new Set(lists.flatMap((j) => index.lists[j]));
  const point = (at, isRead) => (isRead ? circle(at, 2.5, "figure-dot") : circle(at, 0.8, "figure-line soft"));
  const square = ([x, y]) => shape("rect", { x: x - 4, y: y - 4, width: 8, height: 8, class: "figure-line soft" }, svg);
  X.forEach((x, i) => !truth[n].includes(i) && point(place(x), near.has(i)));
  index.centroids.forEach((c) => square(place(c)));
  truth[n].forEach((i) => (found.includes(i) ? circle(place(X[i]), 4, "figure-dot third") : cross(place(X[i]), "second")));
  circle(place(Q[n]), 7, "figure-line");
  const key = (x, y, mark, text) => (mark([x + 6, y - 4]), label(svg, x + 18, y, text));
  const column = Math.min(110, wide / 2);
  key(0, size + 20, (at) => circle(at, 6, "figure-line"), "the query");
  key(column, size + 20, square, "a centroid");
  key(0, size + 42, (at) => circle(at, 4, "figure-dot third"), "found");
  key(column, size + 42, (at) => cross(at, "second"), "missed");
  key(0, size + 64, (at) => point(at, true), "read");
  key(column, size + 64, (at) => point(at, false), "not read");
}

/** Recall against the number of lists that are read, in two widths. */
function curves(f, wide, both, probes) {
  const plane = axes({ svg: (height, title) => f.svg(height, title, wide) }, { x: [1, 16], y: [0, 1], height: 300,
    ticks: { x: [1, 4, 8, 12, 16] }, names: ["lists read", "recall@10"], title: "Recall against the number of lists read" });
  both.forEach((curve, i) => {
    const kind = i ? "" : "second";
    line(plane, curve.map((value, j) => [j + 1, value]), kind);
    dot(plane, [probes, curve[probes - 1]], kind);
    const y = plane.Y(0.2 - 0.1 * i);
    shape("line", { x1: plane.X(9), x2: plane.X(10), y1: y - 4, y2: y - 4, class: `figure-line ${kind}` }, plane.svg);
    label(plane.svg, plane.X(10) + 6, y, `width ${i ? 2 : 16}`);
  });
}

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
