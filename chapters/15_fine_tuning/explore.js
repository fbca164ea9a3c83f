// Chapter 15: a small update of a large weight, and sixteen levels for a block of numbers.
import { axes, bars, dot, figure, fixed, label, shape } from "../../grader/book/static/kit.js";

export const defaults = {
  "A": [
    [1.8, 0.5, -1.7, -1.7, 2.0, -0.3, -0.1, -1.4], [0.4, 0.0, -1.4, -0.7, 1.0, -0.4, -0.6, -0.8],
    [2.8, 1.2, -0.3, -1.0, -0.1, -0.6, 0.1, -0.1], [-0.4, 0.8, -0.1, -2.0, 1.5, 0.5, 0.2, 1.7],
    [-0.3, -0.7, 1.7, -0.2, 1.9, 0.3, 0.9, -2.4], [-0.1, 0.9, 0.5, -1.6, -1.8, -0.2, -0.5, -1.7]
  ],
  "B": [
    [0.4, 0.2, 0.1, 0.5, 0.1, 0.1], [-0.6, -0.4, -0.9, 0.4, 1.1, -0.1],
    [0.5, 0.4, 0.6, 0.7, -0.3, 0.8], [0.6, 0.7, 0.2, 0.3, -0.4, -0.4],
    [0.1, -0.7, -0.2, -0.3, -1.0, -0.1], [0.9, 0.1, -0.4, -0.2, 0.2, -0.7],
    [0.0, -0.3, 0.2, -0.3, -0.2, 0.5], [0.5, 0.5, 1.0, 0.0, 0.3, 0.3]
  ],
  "W": [
    [-0.8, -0.2, 1.2, -1.4, -0.9, -0.3, -0.2, 0.4], [0.3, 1.0, 1.7, -1.2, -0.2, 0.1, 0.5, -0.2],
    [-0.1, -0.2, 0.9, -0.7, 0.0, 1.0, -1.5, -1.3], [-0.2, 1.1, -1.3, 1.8, 0.4, -0.3, -1.6, 0.0],
    [0.4, 1.0, 0.2, 0.2, 0.9, 1.3, -0.1, -1.5], [-0.4, 0.2, -0.5, 0.6, 0.6, -0.3, 0.4, 2.5],
    [-1.2, 0.0, -0.5, 1.0, -0.9, 0.7, -0.5, -0.1], [-0.4, -1.7, 1.1, 0.0, 0.9, 0.1, 0.1, -1.4]
  ],
  "alpha": 2,
  "block": [
    0.48, 1.54, 0.77, 1.58, -1.43, -1.18, 1.28, 0.84, -1.16, -0.85, 1.1, -0.15, -1.99, 0.55, 0.35, 0.0,
    -0.46, -0.36, -0.5, 0.36, 0.06, 0.08, -0.53, -0.41, 0.13, -0.21, -0.34, -0.86, -0.42, 0.41, 0.94, -0.03,
    0.76, -1.64, 0.38, -0.69, 0.53, -1.5, 0.07, 0.21, 2.13, -0.18, 0.59, -0.83, -1.23, 0.05, -0.87, -0.29,
    1.47, 0.11, 1.7, -1.38, -0.06, -0.31, 0.57, 1.76, -1.12, 0.19, 1.8, -0.31, 0.07, -1.36, 0.12, -1.86
  ],
  "cfg": { "vocab_size": 32000, "d_model": 4096, "n_layers": 32, "n_heads": 32, "n_kv_heads": 32, "d_ff": 11008 }
};

const NF4 = [
  -1, -0.6961929202079773, -0.5250730514526367, -0.39491748809814453, -0.28444135189056396, -0.18477343022823334,
  -0.09104999154806137, 0, 0.07958032935857773, 0.16093017160892487, 0.24611228704452515, 0.33791518211364746,
  0.44070979952812195, 0.5626169443130493, 0.7229567170143127, 1,
];

/** The update (out, in) of rank r: alpha / r times the first r columns of B (out, R) and the first r rows of A (R, in). */
export function update(A, B, r, alpha) {
  return B.map((row) => A[0].map((_, j) => (alpha / r) * row.slice(0, r).reduce((sum, b, i) => sum + b * A[i][j], 0)));
}

/** Rank of a matrix, by elimination: how many rows are no mixture of the others. */
export function rank(matrix) {
  const rows = matrix.map((row) => [...row]);
  let found = 0;
  for (let j = 0; j < rows[0].length && found < rows.length; j++) {
    const sizes = rows.map((row, i) => (i < found ? 0 : Math.abs(row[j])));
    const at = sizes.indexOf(Math.max(...sizes));
    if (sizes[at] < 1e-9) continue;
    [rows[found], rows[at]] = [rows[at], rows[found]];
    for (let i = found + 1; i < rows.length; i++) {
      const factor = rows[i][j] / rows[found][j];
      rows[i] = rows[i].map((value, k) => value - factor * rows[found][k]);
    }
    found += 1;
  }
  return found;
}

/** Adapters' share of all numbers in a model of Llama's shape; `targets` are the projections that have an adapter of rank r. */
export function fraction({ vocab_size: V, d_model: D, n_layers: L, n_heads: H, n_kv_heads: G, d_ff: F }, targets, r) {
  const kv = (G * D) / H;
  const shapes = { q_proj: [D, D], k_proj: [D, kv], v_proj: [D, kv], o_proj: [D, D],
    gate_proj: [D, F], up_proj: [D, F], down_proj: [F, D] };
  const base = L * (Object.values(shapes).reduce((sum, [i, o]) => sum + i * o, 0) + 2 * D) + 2 * V * D + D;
  const adapters = L * targets.reduce((sum, name) => sum + r * (shapes[name][0] + shapes[name][1]), 0);
  return adapters / (base + adapters);
}

/** Sixteen levels from -1 to 1: those of NF4, or evenly spaced ones. */
export function levels(kind) {
  return kind === "nf4" ? NF4 : NF4.map((_, i) => -1 + (2 * i) / 15);
}

/** Round a block to the nearest level times its absmax: the codes, and the numbers that they give back. */
export function quantize(block, sixteen) {
  const absmax = Math.max(...block.map(Math.abs));
  const far = (x, code) => Math.abs(x / (absmax || 1) - sixteen[code]);
  const codes = block.map((x) => sixteen.reduce((best, _, code) => (far(x, code) < far(x, best) ? code : best), 0));
  return { codes, back: codes.map((code) => sixteen[code] * absmax) };
}

/** Mean squared error of a block that was quantised. */
export function error(block, back) {
  return block.reduce((sum, x, i) => sum + (x - back[i]) ** 2, 0) / block.length;
}

const TARGETS = { two: ["q_proj", "v_proj"], seven: ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"] };
const NAMES = { two: "queries and values", seven: "all seven projections" };
const SHOWN = { update: "(α/r) B A, the update", base: "W, frozen", merged: "W + (α/r) B A, merged" };

export default {
  render({ model, el }) {
    const f = figure({ el, model, defaults }, "A thin update, and sixteen levels");
    const r = f.slider({ name: "rank", label: "Rank r", min: 1, max: f.given("A").length, value: 2 });
    const view = f.choice({ name: "view", label: "The square shows", options: Object.entries(SHOWN) });
    const layers = f.choice({ name: "layers", label: "In Llama-2-7B, adapters on", options: Object.entries(NAMES) });
    const outlier = f.slider({ name: "outlier", label: "First number of the block", min: 0, max: 12, step: 0.25, value: 1,
      show: fixed });
    const kind = f.choice({ name: "levels", label: "Levels drawn", options: [["nf4", "NF4"], ["even", "evenly spaced"]] });
    const data = f.choice({ name: "data", label: "Numbers of the block",
      options: [["normal", "normal"], ["uniform", "uniform, −2 to 2"]] });

    f.drawn((width) => {
      const [A, B, W] = [f.given("A"), f.given("B"), f.given("W")];
      const change = update(A, B, r(), f.given("alpha"));
      const merged = W.map((row, i) => row.map((w, j) => w + change[i][j]));
      const square = { update: change, base: W, merged }[view()];
      const [left, right] = width > 600 ? [400, width - 416] : [width, width];
      product(f, left, A.slice(0, r()), B.map((row) => row.slice(0, r())), square, SHOWN[view()].split(",")[0], A.length);
      const [full, lora] = [W.length * W[0].length, r() * (W.length + W[0].length)];
      bars({ svg: (height, title) => f.svg(height, title, right) }, { values: [full, lora], names: ["W", "A and B"],
        shown: [full, lora].map(String), kinds: ["off", "second"], most: Math.max(full, f.given("A").length * (W.length + W[0].length)),
        title: "How many numbers W has, and A and B together" });

      const rest = f.given("block").map((x, i, all) => (data() === "normal" ? x : (4 * i + 2) / all.length - 2));
      const block = [outlier(), ...rest.slice(1)];
      const found = Object.fromEntries(["nf4", "even"].map((each) => [each, quantize(block, levels(each))]));
      histogram(f, block, found[kind()].codes, levels(kind()));
      f.html("p", {}, "Squares: blue above zero, orange below. Bars: how many numbers a level gets. Dots: the numbers.");
      const used = new Set(found[kind()].codes).size;
      const share = 100 * fraction(f.given("cfg"), TARGETS[layers()], r());
      f.say(`The update has rank ${rank(change)}, and A and B hold ${lora} numbers ` +
        `where W holds ${full}; on ${NAMES[layers()]} of Llama-2-7B rank ${r()} trains ${fixed(share, 3)} % of all. ` +
        `The block uses ${used} of the 16 levels; its mean squared error is ${fixed(error(block, found.nf4.back), 4)} with NF4 ` +
        `and ${fixed(error(block, found.even.back), 4)} with even spacing.`);
    });
  },
};

/** B at the left, A at the top, and where row and column meet the square that they make. */
function product(f, width, A, B, square, name, most) {
  const size = Math.floor((width - 8) / (most + square[0].length));
  const [x0, y0] = [most * size + 6, Math.max(2, A.length) * size + 6];
  const svg = f.svg(y0 + square.length * size + 24, `B, A, and ${name} as colours`, width);
  const top = Math.max(...[...A, ...B, ...square].flat().map(Math.abs));
  const grid = (matrix, x, y) => matrix.forEach((row, i) => row.forEach((value, j) => shape("rect", {
    x: x + j * size, y: y + i * size, width: size - 2, height: size - 2, rx: 2, class: `figure-cell${value < 0 ? " negative" : ""}`,
    style: `--strength:${((90 * Math.abs(value)) / top).toFixed(1)}%` }, svg)));
  grid(A, x0, y0 - 6 - A.length * size);
  grid(B, x0 - 6 - B[0].length * size, y0);
  grid(square, x0, y0);
  label(svg, x0 - 8, y0 - 6 - (A.length * size) / 2 + 4, `A: ${A.length} × ${A[0].length}`, { anchor: "end" });
  label(svg, x0 - 8, y0 + square.length * size + 15, `B: ${B.length} × ${B[0].length}`, { anchor: "end" });
  label(svg, x0 + (square[0].length * size) / 2, y0 + square.length * size + 15, name, { anchor: "middle" });
}

/** How many numbers of the block each level gets, at the place of the level; below the axis the numbers themselves. */
function histogram(f, block, codes, sixteen) {
  const absmax = Math.max(...block.map(Math.abs));
  const counts = sixteen.map((_, code) => codes.filter((each) => each === code).length);
  const most = Math.max(12, ...counts);
  const plot = axes(f, { x: [-absmax, absmax], y: [-0.16 * most, most], height: 220, names: ["value", "numbers at a level"],
    title: "Numbers of the block at each of the sixteen levels", ticks: { y: [0, Math.round(most / 2), most] } });
  sixteen.forEach((level, code) => {
    const [x, y] = [plot.X(level * absmax), plot.Y(counts[code])];
    shape("rect", { x: x - 3, y, width: 6, height: Math.max(1.5, plot.Y(0) - y), class: "figure-bar" }, plot.svg);
  });
  block.forEach((x, i) => dot(plot, [x, -0.08 * most], "second", i === 0 ? 6 : 2.5));
}
