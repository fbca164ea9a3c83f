// Chapter 1: a table of counts reads a text step by step, and its perplexity meets the floor of a source that we made ourselves.
import { axes, cells, dot, figure, fixed, label, line, random, shape } from "../../grader/book/static/kit.js";

export const defaults = {
  "docs": ["the cat sat .", "the cat ran .", "the dog sat ."],
  "source": [
    [[0.057, 0.0038, 0.5901, 0.0359, 0.2911, 0.0221], [0.1243, 0.0169, 0.4664, 0.0408, 0.3177, 0.0339],
     [0.0033, 0.0027, 0.5977, 0.107, 0.21, 0.0793], [0.0113, 0.645, 0.0135, 0.0045, 0.0549, 0.2708],
     [0.0019, 0.2567, 0.0352, 0.3747, 0.3196, 0.0119], [0.088, 0.6763, 0.0903, 0.0222, 0.0, 0.1232]],
    [[0.2146, 0.3427, 0.0003, 0.0003, 0.21, 0.2321], [0.0054, 0.0413, 0.1875, 0.5874, 0.0812, 0.0972],
     [0.4568, 0.1473, 0.0864, 0.053, 0.2549, 0.0016], [0.0502, 0.0388, 0.0477, 0.6983, 0.0386, 0.1264],
     [0.1514, 0.1376, 0.0047, 0.6604, 0.0398, 0.0061], [0.0057, 0.3664, 0.0105, 0.3235, 0.267, 0.0269]],
    [[0.1331, 0.3362, 0.1033, 0.3759, 0.0391, 0.0124], [0.0489, 0.2572, 0.0081, 0.4927, 0.0864, 0.1067],
     [0.0002, 0.0226, 0.3722, 0.4668, 0.1153, 0.0229], [0.2685, 0.0663, 0.0209, 0.0926, 0.5432, 0.0085],
     [0.0028, 0.0087, 0.0951, 0.1581, 0.0006, 0.7347], [0.0097, 0.1405, 0.5064, 0.0668, 0.0679, 0.2087]],
    [[0.0692, 0.105, 0.2558, 0.157, 0.0334, 0.3796], [0.1381, 0.0071, 0.0007, 0.0766, 0.3875, 0.39],
     [0.0005, 0.3602, 0.0034, 0.0576, 0.4753, 0.103], [0.132, 0.0101, 0.5273, 0.0083, 0.1354, 0.1869],
     [0.0848, 0.0164, 0.4621, 0.055, 0.0936, 0.2881], [0.0229, 0.034, 0.2358, 0.1046, 0.0007, 0.602]],
    [[0.2987, 0.0036, 0.2514, 0.067, 0.01, 0.3693], [0.5121, 0.0467, 0.0008, 0.1837, 0.0206, 0.2361],
     [0.0278, 0.2089, 0.0818, 0.5799, 0.09, 0.0116], [0.0876, 0.0325, 0.049, 0.2506, 0.4547, 0.1256],
     [0.02, 0.2283, 0.0054, 0.3986, 0.2524, 0.0953], [0.0008, 0.2299, 0.0159, 0.1936, 0.5016, 0.0582]],
    [[0.2331, 0.5867, 0.0681, 0.0354, 0.0767, 0.0], [0.013, 0.0252, 0.2587, 0.0001, 0.7028, 0.0002],
     [0.0644, 0.1083, 0.594, 0.1677, 0.0428, 0.0228], [0.5143, 0.1355, 0.0271, 0.0207, 0.2104, 0.092],
     [0.4005, 0.1813, 0.1602, 0.1297, 0.1245, 0.0038], [0.1661, 0.0077, 0.2321, 0.2076, 0.0144, 0.3721]]
  ]
};

/** How often each id came after each context of n - 1 ids: {"5,7": {8: 1}}. Each document is preceded by n - 1 copies of bos. */
export function countNgrams(docs, n, bos) {
  const counts = {};
  for (const doc of docs) {
    const ids = [...Array(n - 1).fill(bos), ...doc];
    for (let i = n - 1; i < ids.length; i++) {
      const after = (counts[ids.slice(i - n + 1, i).join()] ??= {});
      after[ids[i]] = (after[ids[i]] ?? 0) + 1;
    }
  }
  return counts;
}

/** The V probabilities (N(c, t) + k) / (N(c) + k V) after the context c; 1 / V each where nothing was seen or added. */
export function nextProbs(counts, context, V, k) {
  const seen = counts[context.join()] ?? {};
  const sum = Object.values(seen).reduce((a, b) => a + b, 0);
  return Array.from({ length: V }, (_, t) => (sum + k === 0 ? 1 / V : ((seen[t] ?? 0) + k) / (sum + k * V)));
}

/** ln p of each id of a document after the n - 1 before it; the first contexts hold bos. */
export function logProbs(counts, doc, n, bos, V, k) {
  const ids = [...Array(n - 1).fill(bos), ...doc];
  const known = {};  // each context is worked out once
  return doc.map((token, i) => {
    const context = ids.slice(i, i + n - 1);
    known[context.join()] ??= nextProbs(counts, context, V, k).map(Math.log);
    return known[context.join()][token];
  });
}

/** e to the power of the mean of -ln p. */
export function perplexity(logprobs) {
  return Math.exp(-logprobs.reduce((a, b) => a + b, 0) / logprobs.length);
}

/** The index on whose part of the line the point u falls: the first running sum above u times the whole. */
export function sampleCategorical(probs, u) {
  let end = 0;
  const ends = probs.map((p) => (end += p));
  return ends.findIndex((each) => each > u * end);
}

/** A document of the source, one id a draw: the first two ids are uniform, then source[a][b] gives what follows a, b. */
export function sampleSource(source, draws) {
  const ids = [];
  draws.forEach((u, i) => ids.push(i < 2 ? Math.floor(u * source.length) : sampleCategorical(source[ids[i - 2]][ids[i - 1]], u)));
  return ids;
}

/** The mean surprise, in nats an id, of someone who knows the source: the entropies of its rows, each as often as its context occurs. */
export function entropyRate(source) {
  const size = source.length;
  const grid = (value) => Array.from({ length: size }, () => Array(size).fill(value));
  let often = grid(1 / size ** 2);
  const each = (act) => source.forEach((rows, a) => rows.forEach((row, b) => row.forEach((p, c) => act(a, b, c, p))));
  for (let step = 0; step < 1000; step++) {
    const next = grid(0);
    each((a, b, c, p) => (next[b][c] += often[a][b] * p));
    often = next;
  }
  let rate = 0;
  each((a, b, _, p) => (rate -= p > 0 ? often[a][b] * p * Math.log(p) : 0));
  return rate;
}

const SIZES = [100, 200, 500, 1000, 2000, 5000, 10000];
const TOP = 8;
const words = (text) => text.toLowerCase().replaceAll(".", " . ").split(/\s+/).filter(Boolean);
const shown = (value) => (value === Infinity ? "infinite" : fixed(value));

export default {
  render({ model, el }) {
    const f = figure({ el, model, defaults }, "Counting what comes next");
    const order = f.slider({ name: "n", label: "Length of the window, n", min: 1, max: 6, value: 2 });
    const add = f.slider({ name: "k", label: "Added to each count, k", min: 0, max: 2, step: 0.1, value: 1, show: (k) => fixed(k, 1) });
    const typed = f.text({ name: "text", label: "Text that the model reads", value: "the dog ran .", length: 40 });
    const many = (i) => String(SIZES[i]);
    const size = f.slider({ name: "size", label: "Tokens drawn from the source", min: 0, max: SIZES.length - 1, value: 4, show: many });

    f.drawn((width) => {
      const [n, k, source] = [order(), add(), f.given("source")];
      const read = readText(f, f.given("docs"), typed(), n, k);
      const found = learnSource(source, SIZES[size()], k);
      f.html("p", {}, `A source of ${source.length} tokens that looks at two: perplexity against n` +
        ([...found.train, ...found.test].some((value) => value > TOP) ? ` (what is above ${TOP} stands at the edge)` : ""));
      drawCurves(f, width, found, n);
      f.say(`${read} On the source, n = ${n} has perplexity ${shown(found.train[n - 1])} on the ${SIZES[size()]} tokens that it counted ` +
        `and ${shown(found.test[n - 1])} on others. No model has less than ${fixed(found.floor, 3)}, except by luck.`);
    });
  },
};

/** The heat map: a row for each token read, a column for each that could come next; the one that came is framed. */
function readText(f, texts, typed, n, k) {
  const docs = texts.map(words);
  const vocabulary = [...new Set(docs.flat())];
  const V = vocabulary.length;
  const ids = (tokens) => tokens.map((token) => vocabulary.indexOf(token));
  const counts = countNgrams(docs.map(ids), n, V);
  const tokens = words(typed).filter((token) => vocabulary.includes(token)).slice(0, 8);
  const left = words(typed).filter((token) => !vocabulary.includes(token));
  const padded = [...Array(n - 1).fill(V), ...ids(tokens)];
  const matrix = [...tokens, ""].map((_, i) => nextProbs(counts, padded.slice(i, i + n - 1), V, k));
  const sees = ["no token", "one token", "two tokens", "three tokens", "four tokens", "five tokens"][n - 1];
  const from = texts.map((text) => `“${text}”`).join(" ");
  f.html("p", {}, `Learned from ${from} A row: what comes next after this token? The model sees ${sees} back.`);
  const title = "Probabilities of the next token after each token read";
  const svg = cells(f, { matrix, rows: ["‹s›", ...tokens], columns: vocabulary, most: 1, title, size: 28 });
  const frames = svg.querySelectorAll("rect");
  ids(tokens).forEach((token, i) => frames[i * V + token].classList.add("marked"));
  const logprobs = logProbs(counts, ids(tokens), n, V, V, k);
  const unknown = left.length ? ` Not in its vocabulary: ${left.map((token) => `“${token}”`).join(", ")}.` : "";
  if (!tokens.length) return `There is nothing to read.${unknown}`;
  const total = logprobs.reduce((a, b) => a + b, 0);
  return `“${tokens.join(" ")}” has probability ${total === -Infinity ? "0" : Math.exp(total).toPrecision(3)} and perplexity ` +
    `${shown(perplexity(logprobs))}.${unknown}`;
}

/** Perplexities for n = 1 to 6 on the tokens that were counted and on 4000 others, and the floor. */
function learnSource(source, size, k) {
  const drawn = (seed, length) => {
    const uniform = random(seed);
    return sampleSource(source, Array.from({ length }, uniform));
  };
  const [V, train, test] = [source.length, drawn(1, size), drawn(2, 4000)];
  const tables = [1, 2, 3, 4, 5, 6].map((n) => countNgrams([train], n, V));
  const on = (doc) => tables.map((counts, i) => perplexity(logProbs(counts, doc, i + 1, V, V, k)));
  return { train: on(train), test: on(test), floor: Math.exp(entropyRate(source)) };
}

/** Two curves over n and the dashed floor; what lies above the axis is drawn at its top edge. */
function drawCurves(f, width, { train, test, floor }, n) {
  legend(f, width, [["counted text", ""], ["other text", "second"], ["floor", "off dashed"]]);
  const [title, ticks] = ["Perplexity against n", { x: [1, 2, 3, 4, 5, 6] }];
  const space = axes(f, { x: [1, 6], y: [1, TOP], names: ["n", "perplexity"], title, ticks });
  line(space, [[1, floor], [6, floor]], "off dashed");
  for (const [values, kind] of [[train, ""], [test, "second"]]) {
    const points = values.map((value, i) => [i + 1, Math.min(TOP, value)]);
    line(space, points, kind);
    points.forEach((point, i) => dot(space, point, kind, i + 1 === n ? 7 : 3.5));
  }
}

/** Names of lines, side by side, or below each other where it is narrow. */
function legend(f, width, items) {
  const step = width < 420 ? width : 150;
  const across = Math.floor(width / step);
  const svg = f.svg(20 * Math.ceil(items.length / across), items.map(([name]) => name).join(", "));
  items.forEach(([name, kind], i) => {
    const [x, y] = [(i % across) * step, 20 * Math.floor(i / across) + 10];
    shape("line", { x1: x + 4, x2: x + 30, y1: y, y2: y, class: `figure-line ${kind}` }, svg);
    label(svg, x + 38, y + 4, name);
  });
}
