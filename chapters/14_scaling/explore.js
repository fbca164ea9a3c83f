// Chapter 14: divide a budget between size and text, keep a router from having favourites, and see a smooth gain look like a leap.
import { axes, dot, figure, fixed, label, line, shape } from "../../grader/book/static/kit.js";

export const defaults = {
  "models": [["GPT-3", 175e9, 300e9], ["Chinchilla", 70e9, 1.4e12]],
  "scores": [
    [-0.82, -0.56, -0.83, -1.3], [-0.2, -0.96, -0.51, 2.63], [-0.75, 1.01, -0.26, 0.48], [-0.67, -0.36, -1.45, -0.25],
    [0.83, 1.12, 1.0, 1.06], [1.08, -0.07, 0.13, 0.17], [0.06, 0.25, 0.95, 0.36], [0.21, -0.34, -0.35, -0.27],
    [1.33, 1.2, -1.26, -0.43], [-2.18, -1.11, -2.04, 0.03], [-1.08, -0.88, 0.97, 0.56], [-1.12, 0.15, -1.09, -1.46],
    [-0.48, -1.08, 0.32, 2.75], [0.37, 1.34, -0.92, -0.96], [-0.01, 0.35, -0.36, -0.77], [0.43, 0.15, -0.25, -1.46],
    [0.59, -1.16, 1.0, -0.57], [0.59, -1.37, -1.33, 0.15], [1.21, -2.28, 1.25, 0.55], [0.02, -1.58, 2.44, 0.77],
    [0.63, -0.29, 0.6, 1.22], [0.23, -0.44, -0.22, -1.72], [0.09, 0.84, 1.52, -0.15], [-2.3, 0.76, 0.91, -2.48]
  ]
};

const LAWS = {
  epoch: { E: 1.8172, A: 482.01, B: 2085.43, alpha: 0.3478, beta: 0.3658 },
  hoffmann: { E: 1.69, A: 406.4, B: 410.7, alpha: 0.34, beta: 0.28 },
};

/** The law: E + A / N^alpha + B / D^beta for N parameters and D tokens. */
export function loss(N, D, { E, A, B, alpha, beta }) {
  return E + A / N ** alpha + B / D ** beta;
}

/** Size and tokens [N, D] of lowest loss with 6 N D = C: there the slopes of the two terms balance. */
export function optimal(C, { A, B, alpha, beta }) {
  const G = ((alpha * A) / (beta * B)) ** (1 / (alpha + beta));
  const N = G * (C / 6) ** (beta / (alpha + beta));
  return [N, C / (6 * N)];
}

/** Route tokens by their scores (N, E) to k experts each: the shares f, the mean probabilities P, and the loss E sum f P. */
export function route(scores, k) {
  const E = scores[0].length;
  const probs = scores.map(softmax);
  const f = Array(E).fill(0);
  for (const row of scores) for (const e of best(row, k)) f[e] += 1 / (scores.length * k);
  const P = f.map((_, e) => probs.reduce((sum, row) => sum + row[e], 0) / scores.length);
  return { f, P, loss: E * f.reduce((sum, share, e) => sum + share * P[e], 0) };
}

/** Gradient (E,) of that loss with respect to a bias on each expert's scores; it flows through P alone. */
export function push(scores, k) {
  const { f } = route(scores, k);
  const [N, E] = [scores.length, f.length];
  const gradient = Array(E).fill(0);
  for (const p of scores.map(softmax)) {
    const mean = p.reduce((sum, value, e) => sum + value * f[e], 0);
    p.forEach((value, e) => (gradient[e] += (E * value * (f[e] - mean)) / N));
  }
  return gradient;
}

/** First come, first served: the capacity of an expert, the tokens that each serves, and how many tokens no expert serves. */
export function queues(scores, k, factor) {
  const E = scores[0].length;
  const capacity = Math.ceil((factor * scores.length * k) / E);
  const served = Array(E).fill(0);
  let dropped = 0;
  for (const row of scores) {
    const found = best(row, k).filter((e) => served[e] < capacity);
    for (const e of found) served[e] += 1;
    if (found.length === 0) dropped += 1;
  }
  return { capacity, served, dropped };
}

/** Probability that a model of N parameters gets one token right, in the example of the notes: 1 / (1 + sqrt(10^8 / N)). */
export function tokenRight(N) {
  return 1 / (1 + Math.sqrt(1e8 / N));
}

/** Probability that all tokens of an answer are right: p^length. */
export function allRight(p, length) {
  return p ** length;
}

/** The size at which the rate of exact answers reaches a level: there p is the length-th root of the level. */
export function sizeFor(level, length) {
  const p = level ** (1 / length);
  return 1e8 * (p / (1 - p)) ** 2;
}

function softmax(row) {
  const top = Math.max(...row);
  const powers = row.map((score) => Math.exp(score - top));
  const sum = powers.reduce((a, b) => a + b, 0);
  return powers.map((power) => power / sum);
}

function best(row, k) {
  return row.map((_, e) => e).sort((a, b) => row[b] - row[a] || a - b).slice(0, k);
}

const RISEN = { "-": "⁻", 0: "⁰", 1: "¹", 2: "²", 3: "³", 4: "⁴", 5: "⁵", 6: "⁶", 7: "⁷", 8: "⁸", 9: "⁹", ".": "·" };
const power = (value) => `${fixed(value / 10 ** Math.floor(Math.log10(value * 1.0001)), 1)} · 10${
  [...String(Math.floor(Math.log10(value * 1.0001)))].map((c) => RISEN[c]).join("")}`;

/** A count in words: 53 billion. */
function words(value) {
  const [unit, name] = [[1e12, "trillion"], [1e9, "billion"], [1e6, "million"]].find(([unit]) => value >= unit * 0.99995) ?? [1, ""];
  return `${Number((value / unit).toPrecision(3))} ${name}`.trim();
}

const after = (steps) => (steps ? ` after ${steps} step${steps > 1 ? "s" : ""}` : "");

const PANELS = { budget: "a budget, size and text", router: "a router and its experts", leap: "a gain and a leap" };

export default {
  render({ model, el }) {
    const f = figure({ el, model, defaults }, "One budget, one router, and one leap");
    const panel = f.choice({ name: "panel", label: "Look at", options: Object.entries(PANELS) });
    const draw = { budget: budgetPanel(f, () => panel() === "budget"), router: routerPanel(f, () => panel() === "router"),
      leap: leapPanel(f, () => panel() === "leap") };
    f.drawn((width) => draw[panel()](width));
  },
};

/** The isoFLOP curve of a budget, with the reader's model on it and the best one. */
function budgetPanel(f, when) {
  const C = f.slider({ name: "budget", label: "Budget in FLOPs", min: 20, max: 26, step: 0.25, value: 23.5,
    show: (v) => power(10 ** v), when });
  const N = f.slider({ name: "size", label: "Parameters of your model", min: 8, max: 13, step: 0.05, value: 10,
    show: (v) => words(10 ** v), when });
  const law = f.choice({ name: "law", label: "Constants of the law",
    options: [["epoch", "refit, 2024"], ["hoffmann", "as printed in 2022"]], when });
  return () => {
    const [budget, size, constants] = [10 ** C(), 10 ** N(), LAWS[law()]];
    curves(f, budget, size, constants);
    const D = budget / (6 * size);
    const [bestN, bestD] = optimal(budget, constants);
    f.say(`A model of ${words(size)} parameters can read ${words(D)} tokens, ${Number((D / size).toPrecision(3))} for each parameter: ` +
      `loss ${fixed(loss(size, D, constants), 3)}. The best has ${words(bestN)} and D/N ${Number((bestD / bestN).toPrecision(3))}: ` +
      `loss ${fixed(loss(bestN, bestD, constants), 3)}.`);
  };
}

/** A router with a head start for each expert, the balance loss, and the tokens for which there is no room. */
function routerPanel(f, when) {
  const biases = f.given("scores")[0].map((_, e) => f.slider({ name: `bias${e + 1}`, label: `Head start of expert ${e + 1}`,
    min: -2, max: 3, step: 0.25, value: e ? 0 : 1.5, show: fixed, when }));
  const k = f.slider({ name: "k", label: "Experts of a token", min: 1, max: 3, value: 1, when });
  const factor = f.slider({ name: "factor", label: "Room, × mean load", min: 0.5, max: 3, step: 0.25, value: 1.25, show: fixed, when });
  const pushed = { from: "", by: [], steps: 0 };
  const biased = () => f.given("scores").map((row) => row.map((score, e) => score + biases[e]() + (pushed.by[e] ?? 0)));
  f.button({ name: "step", label: "A step down the balance loss", when }, () => {
    const gradient = push(biased(), k());
    pushed.by = gradient.map((slope, e) => (pushed.by[e] ?? 0) - slope);
    pushed.steps += 1;
  });
  return (width) => {
    const from = [...biases, k].map((read) => read()).join(" ");
    if (pushed.from !== from) Object.assign(pushed, { from, by: [], steps: 0 });
    const routed = route(biased(), k());
    const queued = queues(biased(), k(), factor());
    const count = f.given("scores").length;
    shares(f, width, routed, queued, count * k());
    f.html("p", {}, "Bar: share f of the assignments, pale where the expert has no room. Dot: mean probability P. Dashed: even shares.");
    const most = routed.f.indexOf(Math.max(...routed.f));
    f.say(`Expert ${most + 1} is the busiest with ${fixed(100 * routed.f[most], 0)} % of the ` +
      `assignments; the balance loss is ${fixed(routed.loss)}${after(pushed.steps)}. ` +
      `Each expert has room for ${queued.capacity}; no expert serves ${queued.dropped} of ${count} tokens.`);
  };
}

/** The rate of right tokens and of right answers against size, on an even scale or a logarithmic one. */
function leapPanel(f, when) {
  const N = f.slider({ name: "model", label: "Parameters", min: 8, max: 12, step: 0.1, value: 10, show: (v) => words(10 ** v), when });
  const length = f.slider({ name: "length", label: "Tokens of an answer", min: 1, max: 40, value: 20, when });
  const log = f.toggle({ name: "log", label: "logarithmic scale", when });
  return () => {
    const [size, n] = [10 ** N(), length()];
    const y = log() ? [1e-6, 1] : [0, 1];
    const plot = axes(f, { x: [1e8, 1e12], y, height: 260, log: { x: true, y: log() }, names: ["parameters N (G: billions)", "right"],
      ticks: log() ? { y: [1, 0.01, 1e-4, 1e-6] } : {}, title: "Rate of right tokens and of right answers against size" });
    const sizes = Array.from({ length: 81 }, (_, i) => 10 ** (8 + i / 20));
    line(plot, sizes.map((N) => [N, tokenRight(N)]), "second dashed");
    line(plot, sizes.map((N) => [N, allRight(tokenRight(N), n)]).filter(([, rate]) => rate >= y[0] * (1 - 1e-9)));
    const p = tokenRight(size);
    dot(plot, [size, p], "second");
    if (allRight(p, n) >= y[0]) dot(plot, [size, allRight(p, n)], "", 7);
    f.html("p", {}, `Dashed: one token is right. Line: all ${n} tokens of an answer are right.`);
    const rate = (value) => (value < 0.0005 ? "less than 0.001" : fixed(value, 3));
    f.say(`With ${words(size)} parameters one token is right with probability ${rate(p)}, ` +
      `and a whole answer with ${rate(allRight(p, n))}. ` +
      `Every second answer is right from ${words(sizeFor(0.5, n))} parameters on, every tenth from ${words(sizeFor(0.1, n))} on. ` +
      (log() ? `On this scale the lower curve is the upper one, drawn ${n} times as deep: nothing leaps.`
        : "The rate of right tokens rises smoothly all the way."));
  };
}

/** IsoFLOP curves of three budgets, the line of their bottoms, published models, and the reader's own. */
function curves(f, budget, size, constants) {
  const [x, y] = [[1e8, 1e13], [1.7, 3.2]];
  const plot = axes(f, { x, y, height: 270, log: { x: true }, names: ["parameters N (G: billions)", "loss"],
    title: "IsoFLOP curves: loss against size" });
  const sizes = Array.from({ length: 101 }, (_, i) => 10 ** (8 + i / 20));
  const inside = (points) => points.filter(([n, L]) => n >= x[0] && n <= x[1] && L >= y[0] && L <= y[1]);
  for (const other of [budget / 100, budget * 100]) {
    line(plot, inside(sizes.map((n) => [n, loss(n, other / (6 * n), constants)])), "off");
  }
  line(plot, inside(sizes.map((n) => [n, loss(n, budget / (6 * n), constants)])));
  const bottoms = Array.from({ length: 61 }, (_, i) => optimal(10 ** (17 + i / 5), constants));
  line(plot, inside(bottoms.map(([n, d]) => [n, loss(n, d, constants)])), "third dashed");
  f.given("models").forEach(([name, n, d], i) => {
    const L = loss(n, d, constants);
    dot(plot, [n, L], "second", 4);
    label(plot.svg, plot.X(n) + (i % 2 ? -7 : 8), plot.Y(L) + (i % 2 ? 14 : -7), name, { anchor: i % 2 ? "end" : "start" });
  });
  const own = loss(size, budget / (6 * size), constants);
  dot(plot, [size, Math.min(own, y[1])], "", 7);
  const at = optimal(budget, constants);
  dot(plot, [at[0], loss(...at, constants)], "third", 5);
  f.html("p", {}, "Thick: your budget, with your model on it. Thin: a hundredth of it, and a hundred times. Dashed: the best sizes.");
}

/** A bar for the share of the assignments of each expert, what it serves in full colour; a dot at the router's mean probability. */
function shares(f, width, { f: share, P }, { served }, assignments) {
  const svg = f.svg(share.length * 28 + 8, "Share of the assignments of each expert, and its mean probability");
  const [left, right] = [70, width - 48];
  const X = (value) => left + value * (right - left);
  const even = X(1 / share.length);
  shape("line", { x1: even, x2: even, y1: 4, y2: share.length * 28, class: "figure-line off dashed" }, svg);
  share.forEach((value, e) => {
    const y = 4 + e * 28;
    label(svg, left - 8, y + 16, `expert ${e + 1}`, { anchor: "end" });
    const place = { x: left, y: y + 3, height: 18, rx: 3 };
    shape("rect", { ...place, width: X(value) - left, class: "figure-chip" }, svg);
    shape("rect", { ...place, width: X(served[e] / assignments) - left, class: "figure-bar" }, svg);
    shape("circle", { cx: X(P[e]), cy: y + 12, r: 5, class: "figure-dot second" }, svg);
    label(svg, width - 2, y + 16, `${fixed(100 * value, 0)} %`, { anchor: "end" });
  });
}
