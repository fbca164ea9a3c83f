// Chapter 14: divide a budget between size and text, and keep a router from having favourites.
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

export default {
  render({ model, el }) {
    const f = figure({ el, model, defaults }, "One budget, and one router");
    const C = f.slider({ name: "budget", label: "Budget in FLOPs", min: 20, max: 26, step: 0.25, value: 23.5,
      show: (v) => power(10 ** v) });
    const N = f.slider({ name: "size", label: "Parameters of your model", min: 8, max: 13, step: 0.05, value: 10,
      show: (v) => words(10 ** v) });
    const law = f.choice({ name: "law", label: "Constants of the law",
      options: [["epoch", "refit, 2024"], ["hoffmann", "as printed in 2022"]] });
    const bias = f.slider({ name: "bias", label: "Head start of expert 1 in the router", min: -2, max: 3, step: 0.25, value: 1.5,
      show: fixed });
    const k = f.slider({ name: "k", label: "Experts of a token", min: 1, max: 3, value: 1 });
    const pushed = { from: "", by: [], steps: 0 };
    const biased = () => f.given("scores").map((row) => row.map((score, e) => score + (e === 0 ? bias() : 0) + (pushed.by[e] ?? 0)));
    f.button({ name: "step", label: "A step down the balance loss" }, () => {
      const gradient = push(biased(), k());
      pushed.by = gradient.map((slope, e) => (pushed.by[e] ?? 0) - slope);
      pushed.steps += 1;
    });

    f.drawn((width) => {
      if (pushed.from !== `${bias()} ${k()}`) Object.assign(pushed, { from: `${bias()} ${k()}`, by: [], steps: 0 });
      const [budget, size, constants] = [10 ** C(), 10 ** N(), LAWS[law()]];
      curves(f, budget, size, constants);
      const routed = route(biased(), k());
      shares(f, width, routed);
      const D = budget / (6 * size);
      const [bestN, bestD] = optimal(budget, constants);
      const most = routed.f.indexOf(Math.max(...routed.f));
      f.say(`A model of ${words(size)} parameters can read ${words(D)} tokens, ${Number((D / size).toPrecision(3))} for each parameter: ` +
        `loss ${fixed(loss(size, D, constants), 3)}. The best has ${words(bestN)} and D/N ${Number((bestD / bestN).toPrecision(3))}: ` +
        `loss ${fixed(loss(bestN, bestD, constants), 3)}. ` +
        `Expert ${most + 1} is the busiest with ${fixed(100 * routed.f[most], 0)} % of the ` +
        `assignments; the balance loss is ${fixed(routed.loss)}${after(pushed.steps)}.`);
    });

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
  },
};

/** A bar for the share of the assignments of each expert, and a dot at the router's mean probability. */
function shares(f, width, { f: share, P }) {
  const svg = f.svg(share.length * 28 + 26, "Share of the assignments of each expert, and its mean probability");
  const [left, right] = [70, width - 48];
  const X = (value) => left + value * (right - left);
  const even = X(1 / share.length);
  shape("line", { x1: even, x2: even, y1: 4, y2: share.length * 28, class: "figure-line off dashed" }, svg);
  share.forEach((value, e) => {
    const y = 4 + e * 28;
    label(svg, left - 8, y + 16, `expert ${e + 1}`, { anchor: "end" });
    shape("rect", { x: left, y: y + 3, width: X(value) - left, height: 18, rx: 3, class: "figure-bar" }, svg);
    shape("circle", { cx: X(P[e]), cy: y + 12, r: 5, class: "figure-dot second" }, svg);
    label(svg, width - 2, y + 16, `${fixed(100 * value, 0)} %`, { anchor: "end" });
  });
  label(svg, 0, share.length * 28 + 20, "bar: share f · dot: mean probability P", { kind: "soft" });
}
