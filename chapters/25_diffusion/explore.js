// Chapter 25: noise a picture to any level and guess it back; then draw points out of noise, in many calls or in few.
import { figure, fixed, label, normal, random, shape } from "../../grader/book/static/kit.js";

export const defaults = {
  "centres": [[0.0, 1.0], [-0.87, -0.5], [0.87, -0.5]],
  "spread": 0.6,
  "pictures": [
    [0,0,1,1,1,1,0,0,0,1,1,0,0,1,1,0,0,1,1,0,0,1,1,0,0,1,1,0,0,1,1,0,0,1,1,0,0,1,1,0,0,1,1,0,0,1,1,0,0,1,1,0,0,1,1,0,0,0,1,1,1,1,0,0],
    [0,0,0,1,1,0,0,0,0,0,1,1,1,0,0,0,0,0,0,1,1,0,0,0,0,0,0,1,1,0,0,0,0,0,0,1,1,0,0,0,0,0,0,1,1,0,0,0,0,0,0,1,1,0,0,0,0,0,1,1,1,1,0,0],
    [0,0,1,1,1,1,0,0,0,1,1,0,0,1,1,0,0,0,0,0,0,1,1,0,0,0,0,0,1,1,0,0,0,0,0,1,1,0,0,0,0,0,1,1,0,0,0,0,0,1,1,0,0,0,0,0,0,1,1,1,1,1,1,0],
    [0,0,1,1,1,1,0,0,0,1,1,0,0,1,1,0,0,0,0,0,0,1,1,0,0,0,0,1,1,1,0,0,0,0,0,0,0,1,1,0,0,0,0,0,0,1,1,0,0,1,1,0,0,1,1,0,0,0,1,1,1,1,0,0],
    [0,0,0,0,0,1,1,0,0,0,0,0,1,1,1,0,0,0,0,1,1,1,1,0,0,0,1,1,0,1,1,0,0,1,1,0,0,1,1,0,0,1,1,1,1,1,1,0,0,0,0,0,0,1,1,0,0,0,0,0,0,1,1,0],
    [0,1,1,1,1,1,1,0,0,1,1,0,0,0,0,0,0,1,1,0,0,0,0,0,0,1,1,1,1,1,0,0,0,0,0,0,0,1,1,0,0,0,0,0,0,1,1,0,0,1,1,0,0,1,1,0,0,0,1,1,1,1,0,0],
    [0,0,1,1,1,1,0,0,0,1,1,0,0,0,0,0,0,1,1,0,0,0,0,0,0,1,1,1,1,1,0,0,0,1,1,0,0,1,1,0,0,1,1,0,0,1,1,0,0,1,1,0,0,1,1,0,0,0,1,1,1,1,0,0],
    [0,1,1,1,1,1,1,0,0,0,0,0,0,1,1,0,0,0,0,0,0,1,1,0,0,0,0,0,1,1,0,0,0,0,0,0,1,1,0,0,0,0,0,1,1,0,0,0,0,0,0,1,1,0,0,0,0,0,0,1,1,0,0,0],
    [0,0,1,1,1,1,0,0,0,1,1,0,0,1,1,0,0,1,1,0,0,1,1,0,0,0,1,1,1,1,0,0,0,1,1,0,0,1,1,0,0,1,1,0,0,1,1,0,0,1,1,0,0,1,1,0,0,0,1,1,1,1,0,0],
    [0,0,1,1,1,1,0,0,0,1,1,0,0,1,1,0,0,1,1,0,0,1,1,0,0,0,1,1,1,1,1,0,0,0,0,0,0,1,1,0,0,0,0,0,0,1,1,0,0,0,0,0,1,1,0,0,0,0,1,1,1,0,0,0]
  ]
};

const T = 100;
const POINTS = 150;
const CALLS = [1, 2, 5, 10, 25, 50, 100];

/** Share (T,) of the variance that is still signal at each level, when the betas grow evenly from b0 to b1. */
export function alphaBar(T, b0 = 0.001, b1 = 0.15) {
  let share = 1;
  return Array.from({ length: T }, (_, t) => (share *= 1 - (b0 + ((b1 - b0) * t) / Math.max(1, T - 1))));
}

/** Noising in one jump: sqrt(a) x0 + sqrt(1 - a) eps, where a is alpha_bar of the level. */
export function noised(x0, eps, a) {
  return x0.map((x, i) => Math.sqrt(a) * x + Math.sqrt(1 - a) * eps[i]);
}

/**
 * The best guess of the clean sample in xt (d,), the one of smallest squared error, for data in equal Gaussian heaps around
 * `centres` (K, d) with deviation `spread`: the probability of each heap, and the mean of their guesses. A network learns to come near.
 */
export function bestGuess(xt, a, centres, spread) {
  const variance = a * spread ** 2 + 1 - a;
  const far = centres.map((c) => xt.reduce((sum, x, i) => sum + (x - Math.sqrt(a) * c[i]) ** 2, 0));
  const powers = far.map((d) => Math.exp((Math.min(...far) - d) / (2 * variance)));
  const sum = powers.reduce((x, y) => x + y, 0);
  const probs = powers.map((p) => p / sum);
  const pull = (Math.sqrt(a) * spread ** 2) / variance;
  const heap = (c) => xt.map((x, i) => c[i] + pull * (x - Math.sqrt(a) * c[i]));
  const guesses = centres.map(heap);
  return { probs, clean: xt.map((_, i) => probs.reduce((total, p, k) => total + p * guesses[k][i], 0)) };
}

/** The levels at which a walk of so many calls stops, evenly from T - 1 down to -1. */
export function stops(T, calls) {
  return Array.from({ length: calls + 1 }, (_, k) => Math.floor(T - 1 - (k * T) / calls + 0.5));
}

/**
 * Walks of points (n, 2) down the levels: the states at every level, (levels, n, 2). Each call guesses the noise, with guidance w towards
 * the heap `asked`, and steps as DDIM does, with fresh noise eta; z (calls, n, 2) is that noise.
 */
export function walk(start, levels, bar, { centres, spread, asked, w, eta, z }) {
  const share = (t) => (t < 0 ? 1 : bar[t]);
  const noise = (x, a, heaps) => {
    const { clean } = bestGuess(x, a, heaps, spread);
    return x.map((value, i) => (value - Math.sqrt(a) * clean[i]) / Math.sqrt(1 - a));
  };
  const states = [start];
  for (let k = 0; k + 1 < levels.length; k++) {
    const [a, p] = [share(levels[k]), share(levels[k + 1])];
    const sigma = eta * Math.sqrt(((1 - p) / (1 - a)) * (1 - a / p));
    const kept = Math.sqrt(Math.max(0, 1 - p - sigma ** 2));
    states.push(states[k].map((x, n) => {
      const [told, free] = [noise(x, a, [centres[asked]]), noise(x, a, centres)];
      const eps = free.map((e, i) => e + w * (told[i] - e));
      return x.map((value, i) => Math.sqrt(p) * ((value - Math.sqrt(1 - a) * eps[i]) / Math.sqrt(a)) + kept * eps[i] + sigma * z[k][n][i]);
    }));
  }
  return states;
}

/** For each point the number of the nearest centre. */
export function nearest(points, centres) {
  const far = (x, c) => Math.hypot(...x.map((value, i) => value - c[i]));
  return points.map((x) => centres.reduce((best, c, k) => (far(x, c) < far(x, centres[best]) ? k : best), 0));
}

/** Deviation of points (n, d) around their mean, over all axes alike. */
export function deviation(points) {
  const mean = points[0].map((_, i) => points.reduce((sum, x) => sum + x[i], 0) / points.length);
  const squares = points.reduce((sum, x) => sum + x.reduce((s, value, i) => s + (value - mean[i]) ** 2, 0), 0);
  return Math.sqrt(squares / (points.length * mean.length));
}

export default {
  render({ model, el }) {
    const f = figure({ el, model, defaults }, "From noise to a sample, a little at a time");
    const pictures = f.given("pictures");
    const level = f.slider({ name: "level", label: "Level of noise t", min: -1, max: T - 1, value: 50, show: (t) => fixed(t, 0) });
    const which = f.slider({ name: "picture", label: "The picture", min: 0, max: pictures.length - 1, value: 3 });
    const many = (i) => String(CALLS[i]);
    const calls = f.slider({ name: "calls", label: "Calls of the network", min: 0, max: CALLS.length - 1, value: 3, show: many });
    const eta = f.slider({ name: "eta", label: "Fresh noise η (0: DDIM, 1: DDPM)", min: 0, max: 1, step: 0.25, value: 0, show: fixed });
    const w = f.slider({ name: "guidance", label: "Guidance w", min: 0, max: 4, step: 0.5, value: 1, show: (x) => fixed(x, 1) });
    const seed = f.slider({ name: "seed", label: "Seed of the noise", min: 1, max: 9, value: 1 });
    const bar = alphaBar(T);

    f.drawn((width) => {
      const [t, uniform, n] = [level(), random(seed()), CALLS[calls()]];
      const draw = (count) => Array.from({ length: count }, () => normal(uniform));
      const a = t < 0 ? 1 : bar[t];
      const held = drawPictures(f, width, { pictures, which: which(), eps: draw(pictures[0].length), a, t });

      const [centres, spread, levels] = [f.given("centres"), f.given("spread"), stops(T, n)];
      const start = Array.from({ length: POINTS }, () => draw(2));
      const z = levels.slice(1).map(() => start.map(() => draw(2)));
      const states = walk(start, levels, bar, { centres, spread, asked: 0, w: w(), eta: eta(), z });
      const now = levels.filter((stop) => stop >= t).length - 1;
      const wide = width < 520 ? width : (width - 8) / 2;
      cloud(f, wide, states.slice(0, now + 1), centres, spread, `after ${now} of ${n}: level ${fixed(levels[now], 0)}`);
      cloud(f, wide, states, centres, spread, `at the end: level ${fixed(-1, 0)}`);
      const hits = nearest(states[n], centres).filter((k) => k === 0).length;
      f.say(`At level ${fixed(t, 0)} a share of ${fixed(a, 3)} of the variance is signal: ${fixed(Math.sqrt(a), 3)} of the picture plus ` +
        `${fixed(Math.sqrt(1 - a), 3)} of the noise. In the best guess the ${which()} has the weight ${fixed(held)}. After ${n} ` +
        `${n === 1 ? "call" : "calls"} ${hits} of ${POINTS} points end nearest to the heap asked for; the spread of all is ` +
        `${fixed(deviation(states[n]))} (within a heap of the data: ${fixed(spread)}).`);
    });
  },
};

/** The picture, the same noised, and the best guess of it; gives the probability of the right picture. */
function drawPictures(f, width, { pictures, which, eps, a, t }) {
  const pixels = pictures.flat();
  const mean = pixels.reduce((x, y) => x + y, 0) / pixels.length;
  const size = Math.sqrt(pixels.reduce((sum, x) => sum + (x - mean) ** 2, 0) / pixels.length);
  const data = pictures.map((picture) => picture.map((x) => (x - mean) / size));
  const xt = noised(data[which], eps, a);
  const { probs, clean } = a === 1 ? { probs: data.map((_, k) => Number(k === which)), clean: xt } : bestGuess(xt, a, data, 0);
  const side = Math.round(Math.sqrt(pictures[0].length));
  const cell = Math.floor(Math.min(width / 3 - 8, 144) / side);
  const svg = f.svg(24 + cell * side, "Three pictures: the clean one, the same with noise, and the best guess of what it was");
  [["the picture", data[which]], [`at level ${fixed(t, 0)}`, xt], ["best guess", clean]].forEach(([name, values], at) => {
    const left = (width * (at + 0.5)) / 3 - (cell * side) / 2;
    label(svg, left + (cell * side) / 2, 14, name, { anchor: "middle" });
    values.forEach((value, i) => {
      const ink = Math.max(0, Math.min(1, value * size + mean));
      const place = { x: left + (i % side) * cell, y: 22 + Math.floor(i / side) * cell, width: cell, height: cell };
      shape("rect", { ...place, class: "figure-cell", style: `--strength:${(100 * ink).toFixed(0)}%` }, svg);
    });
  });
  return probs[which];
}

/** Points after the last of `states` in the plane of the heaps, with the ways of the first few. */
function cloud(f, wide, states, centres, spread, title) {
  const height = Math.min(wide, 300);
  const svg = f.svg(height, `Points ${title}, around three heaps; blue ones are nearest to the heap asked for`, wide);
  const unit = height / 6.6;
  const clip = (value, most) => Math.max(4, Math.min(most - 4, value));
  const place = ([x, y]) => [clip(wide / 2 + unit * x, wide), clip(height / 2 + 8 - unit * y, height)];
  shape("rect", { x: 0.5, y: 0.5, width: wide - 1, height: height - 1, rx: 8, class: "figure-chip off" }, svg);
  const points = states.at(-1);
  const near = nearest(points, centres);
  points.forEach((point, i) => {
    const [cx, cy] = place(point);
    shape("circle", { cx, cy, r: 3, class: near[i] ? "figure-dot second" : "figure-dot", style: "opacity:.6" }, svg);
  });
  for (let i = 0; i < 3; i++) {
    const path = states.map((state, k) => `${k ? "L" : "M"}${place(state[i]).map((v) => v.toFixed(1)).join(" ")}`).join("");
    shape("path", { d: path, class: "figure-line off", style: "stroke-width:1.2" }, svg);
  }
  centres.forEach((centre, k) => {
    const [cx, cy] = place(centre);
    shape("circle", { cx, cy, r: 2 * spread * unit, class: k ? "figure-line off dashed" : "figure-line" }, svg);
  });
  label(svg, 10, 20, title, { kind: "strong" });
  label(svg, wide / 2, height - 8, "solid ring: the heap asked for", { anchor: "middle", kind: "soft" });
}
