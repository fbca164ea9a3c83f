// Chapter 20: is the confidence honest, where does answering begin to pay, and how much did the text leave unsaid?
import { axes, dot, figure, fixed, label, line, normal, random, shape } from "../../grader/book/static/kit.js";

export const defaults = { "logits": [], "labels": [], "facts": 240 };

/** Rows of probabilities from logits (N, V), divided by the temperature T. */
export function softmax(logits, T = 1) {
  return logits.map((row) => {
    const top = Math.max(...row);
    const powers = row.map((z) => Math.exp((z - top) / T));
    const sum = powers.reduce((a, b) => a + b, 0);
    return powers.map((power) => power / sum);
  });
}

/** For each of M bins (m / M, (m + 1) / M], 0 in the first: how many answers, their mean confidence, their accuracy (NaN if empty). */
export function reliability(conf, correct, M) {
  const [counts, promised, kept] = [0, 0, 0].map(() => Array(M).fill(0));
  conf.forEach((c, i) => {
    const m = Math.min(M - 1, Math.max(0, Math.ceil(c * M) - 1));
    counts[m] += 1;
    promised[m] += c;
    kept[m] += correct[i] ? 1 : 0;
  });
  return [counts, promised.map((sum, m) => sum / counts[m]), kept.map((sum, m) => sum / counts[m])];
}

/** The expected calibration error: the gaps between accuracy and mean confidence, weighted by the answers in the bin. */
export function ece(conf, correct, M) {
  const [counts, promised, kept] = reliability(conf, correct, M);
  return counts.reduce((sum, n, m) => sum + (n ? (n / conf.length) * Math.abs(kept[m] - promised[m]) : 0), 0);
}

/** The confidence from which on answering pays: c / (r + c). */
export function threshold(reward, penalty) {
  return penalty / (reward + penalty);
}

/** What each question earns on average if those with a confidence above t are answered: 1 if right, minus the penalty if wrong. */
export function earned(conf, correct, t, penalty) {
  return conf.reduce((sum, c, i) => sum + (c > t ? (correct[i] ? 1 : -penalty) : 0), 0) / conf.length;
}

/** Good and Turing's estimate of the chance that the next statement is new: the facts stated just once, over all statements. */
export function goodTuring(counts) {
  return counts.filter((count) => count === 1).length / counts.reduce((a, b) => a + b, 0);
}

/** How often each fact is stated, when the draws (uniform, one a statement) choose facts with the probabilities p. */
export function told(p, draws) {
  const ends = p.map((sum => (x) => (sum += x))(0));
  const counts = p.map(() => 0);
  for (const u of draws) counts[Math.min(p.length - 1, ends.findIndex((end) => u < end) >>> 0)] += 1;
  return counts;
}

/** The true chance that the next statement is new: the probability of all that was not stated. */
export function missing(p, counts) {
  return p.reduce((sum, x, i) => sum + (counts[i] === 0 ? x : 0), 0);
}

/** A model that ranks well and is too sure: labels drawn from known probabilities over 6 classes, logits 2.5 times too large. */
function simulated(N) {
  const uniform = random(20);
  const honest = Array.from({ length: N }, () => Array.from({ length: 6 }, () => 1.3 * normal(uniform)));
  const labels = softmax(honest).map((row) => told(row, [uniform()]).indexOf(1));
  return [honest.map((row) => row.map((z) => 2.5 * z)), labels];
}

export default {
  render({ model, el }) {
    const f = figure({ el, model, defaults }, "Honest, silent, or made up");
    const T = f.slider({ name: "temperature", label: "Logits divided by", min: 0.5, max: 5, step: 0.25, value: 1, show: fixed });
    const M = f.slider({ name: "bins", label: "Bins", min: 4, max: 20, value: 10 });
    const penalty = f.slider({ name: "penalty", label: "A wrong answer costs", min: 0, max: 5, step: 0.25, value: 1, show: fixed });
    const n = f.slider({ name: "statements", label: "Statements in the text", min: 20, max: 2000, step: 20, value: 300 });
    const made = simulated(800);

    f.drawn((width) => {
      const [logits, labels] = f.given("logits").length ? [f.given("logits"), f.given("labels")] : made;
      const conf = softmax(logits, T()).map((row) => Math.max(...row));
      const correct = logits.map((row, i) => row.indexOf(Math.max(...row)) === labels[i]);
      const wide = width < 520 ? width : (width - 8) / 2;
      diagram(f, wide, reliability(conf, correct, M()));
      const t = threshold(1, penalty());
      const here = earned(conf, correct, t, penalty());
      const points = Array.from({ length: 101 }, (_, i) => [i / 100, earned(conf, correct, i / 100, penalty())]);
      const best = points.reduce((a, b) => (b[1] > a[1] ? b : a));
      scores(f, wide, points, [t, here], best);
      const raw = Array.from({ length: f.given("facts") }, (_, i) => 1 / (i + 1));
      const sum = raw.reduce((a, b) => a + b, 0);
      const p = raw.map((x) => x / sum);
      const counts = told(p, Array.from({ length: n() }, random(7)));
      urn(f, width, counts);
      const mean = conf.reduce((a, b) => a + b, 0) / conf.length;
      const right = correct.filter(Boolean).length / conf.length;
      f.say(`Mean confidence ${fixed(mean)}, accuracy ${fixed(right)}, calibration error ${fixed(ece(conf, correct, M()), 3)}. ` +
        `Answering above a confidence of ${fixed(t)} earns ${fixed(here, 3)} a question; ` +
        `the best line, ${fixed(best[0])}, earns ${fixed(best[1], 3)}. After ${n()} statements the next one is new with a chance of ` +
        `${fixed(missing(p, counts), 3)}; the estimate is ${fixed(goodTuring(counts), 3)}.`);
    });
  },
};

/** The reliability diagram: a bar for each bin, and the diagonal where promises are kept. */
function diagram(f, width, [counts, promised, kept]) {
  const title = "The accuracy of each bin, and the diagonal";
  const plot = axesOf(f, width, { x: [0, 1], y: [0, 1], names: ["confidence", "accuracy"], title });
  const M = counts.length;
  kept.forEach((share, m) => {
    if (!counts[m]) return;
    const [left, top] = [plot.X(m / M), plot.Y(share)];
    const place = { x: left + 1, y: top, width: plot.X((m + 1) / M) - left - 2, height: plot.box.bottom - top };
    shape("rect", { ...place, class: "figure-chip" }, plot.svg);
    dot(plot, [promised[m], share], "", 2.5 + 6 * Math.sqrt(counts[m] / counts.reduce((a, b) => a + b, 0)));
  });
  line(plot, [[0, 0], [1, 1]], "dashed soft");
}

/** What a question earns, over the confidence from which on the model answers: the line of the rule, and the best one. */
function scores(f, width, points, rule, best) {
  const y = [-0.4, Math.max(0.6, best[1] + 0.1)];
  const [names, title] = [["answers above this confidence", "earned"], "What a question earns, for each line"];
  const plot = axesOf(f, width, { x: [0, 1], y, names, title });
  line(plot, points.filter(([, value]) => value >= y[0]));
  line(plot, [[rule[0], y[0]], [rule[0], y[1]]], "dashed second");
  dot(plot, best, "third");
  dot(plot, [rule[0], Math.max(rule[1], y[0])], "second");
  label(plot.svg, plot.X(rule[0]) + (rule[0] > 0.5 ? -8 : 8), plot.box.bottom - 8, "the rule", { anchor: rule[0] > 0.5 ? "end" : "start" });
  label(plot.svg, plot.X(best[0]) + (best[0] > 0.5 ? 0 : 8), plot.Y(best[1]) - 12, "the best", { anchor: best[0] > 0.5 ? "end" : "start" });
}

/** Axes of a given width. */
function axesOf(f, width, options) {
  return axes({ svg: (height, title) => f.svg(height, title, width) }, { height: 230, ...options });
}

/** The urn: a square for each fact, the most frequent first. */
function urn(f, width, counts) {
  const size = 15;
  const across = Math.floor(width / size);
  const svg = f.svg(30 + Math.ceil(counts.length / across) * size, "The facts: not stated, stated once, stated more often");
  const [none, once] = [0, 1].map((k) => counts.filter((count) => count === k).length);
  const told = `never ${none}, once ${once}, more often ${counts.length - none - once}`;
  label(svg, 0, 16, width > 400 ? `Facts stated ${told}` : told);
  counts.forEach((count, i) => {
    const place = { x: (i % across) * size, y: 26 + Math.floor(i / across) * size, width: size - 3, height: size - 3, rx: 3 };
    shape("rect", { ...place, class: count === 0 ? "figure-bar off" : count === 1 ? "figure-bar second" : "figure-chip" }, svg);
  });
}
