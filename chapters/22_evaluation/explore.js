// Chapter 22: how sure one may be. A row of battles rated in two ways, and two scores on the same questions with their intervals.
import { axes, dot, figure, fixed, label, line, random, shape } from "../../grader/book/static/kit.js";

export const defaults = {
  "results": [],
  "lead": 70,
  "k": 32,
  "accuracy": 0.712
};

const POINTS = 400 / Math.log(10);
const Z = 1.959963984540054;

/** Elo: rating of A less that of B after each battle; both begin alike, and A moves by k (score − expected). */
export function eloPath(results, k) {
  let [a, b] = [1500, 1500];
  return results.map((score) => {
    const step = k * (score - 1 / (1 + 10 ** ((b - a) / 400)));
    [a, b] = [a + step, b - step];
    return a - b;
  });
}

/** Bradley-Terry for two: the difference d that maximises wins ln σ(d) + losses ln σ(−d) − l2 d² / 4, by Newton's method. */
export function bradleyTerry(wins, losses, l2 = 1e-6) {
  let d = 0;
  for (let i = 0; i < 200; i++) {
    const p = 1 / (1 + Math.exp(-d));
    const step = (wins - (wins + losses) * p - (l2 / 2) * d) / ((wins + losses) * p * (1 - p) + l2 / 2);
    d += Math.max(-1, Math.min(1, step));
    if (Math.abs(step) < 1e-9) break;
  }
  return d;
}

/** The middle 95 % of the Bradley-Terry differences of resamples; each row of `draws` holds as many indices as there are battles. */
export function bootstrap(results, draws) {
  const wins = draws.map((row) => row.reduce((sum, i) => sum + results[i], 0));
  const values = wins.map((won) => bradleyTerry(won, results.length - won)).sort((a, b) => a - b);
  return [0.025, 0.975].map((part) => {
    const [at, below] = [part * (values.length - 1), Math.floor(part * (values.length - 1))];
    return values[below] + (at - below) * (values[Math.min(below + 1, values.length - 1)] - values[below]);
  });
}

/** Half the width of the 95 % interval of an accuracy p on n questions: z √(p (1 − p) / n). */
export function margin(p, n) {
  return Z * Math.sqrt((p * (1 - p)) / n);
}

/** The same for the difference of two accuracies on the same n questions, of which the part `differ` has one right, one wrong. */
export function pairedMargin(differ, lead, n) {
  return Z * Math.sqrt((differ - lead ** 2) / n);
}

/** Scores of A, 1 or 0, in so many battles; it wins with the probability that its lead in Elo points gives. */
function played(count, lead, seed) {
  const uniform = random(seed);
  return Array.from({ length: count }, () => (uniform() < 1 / (1 + 10 ** (-lead / 400)) ? 1 : 0));
}

const QUESTIONS = [100, 200, 500, 1000, 2000, 5000, 10000, 20000, 50000, 100000];
const ORDERS = { came: "as they came", first: "the wins of A first", last: "the wins of A last" };
const signed = (value, decimals = 0) => (value > 0 ? "+" : "") + fixed(value, decimals);
const number = (n) => String(n).replace(/\B(?=(\d{3})+$)/g, ",");

export default {
  render({ model, el }) {
    const f = figure({ el, model, defaults }, "How sure may one be?");
    const given = f.given("results").length;
    const most = given || 400;
    const count = f.slider({ name: "battles", label: "Battles of A and B", min: Math.min(20, most), max: most,
      step: given ? 1 : 20, value: Math.min(100, most) });
    const order = f.choice({ name: "order", label: "Their order", options: Object.entries(ORDERS), value: "came" });
    const seed = f.slider({ name: "seed", label: "Tournament number", min: 1, max: 20, value: 1 });
    const questions = f.slider({ name: "questions", label: "Questions asked", min: 0, max: 9, value: 2,
      show: (i) => number(QUESTIONS[i]) });
    const lead = f.slider({ name: "lead", label: "Lead of the first model", min: 0.4, max: 6, step: 0.4, value: 0.4,
      show: (x) => `${fixed(x, 1)} points` });
    const differ = f.slider({ name: "differ", label: "Answered differently", min: 6, max: 40, value: 15, show: (x) => `${x} %` });

    f.drawn((width) => {
      const all = given ? f.given("results").slice(0, count()) : played(count(), f.given("lead"), seed());
      const results = order() === "came" ? all : all.slice().sort((a, b) => (order() === "first" ? b - a : a - b));
      const elo = eloPath(results, f.given("k"));
      const fitted = results.map((_, i) => results.slice(0, i + 1).reduce((a, b) => a + b)).map((won, i) => [won, i + 1 - won]);
      const uniform = random(given ? seed() : 99);
      const draws = Array.from({ length: 200 }, () => all.map(() => Math.floor(uniform() * all.length)));
      const interval = bootstrap(all, draws).map((d) => d * POINTS);
      arena(f, elo, fitted, interval, given ? null : f.given("lead"));

      const [n, p, gap, part] = [QUESTIONS[questions()], f.given("accuracy"), lead() / 100, differ() / 100];
      const ranges = [[p, margin(p, n)], [p - gap, margin(p - gap, n)], [gap, pairedMargin(part, gap, n)]];
      examination(f, width, ranges.map(([middle, half]) => [100 * middle, 100 * half]));

      const [won, lost] = fitted.at(-1);
      const points = bradleyTerry(won, lost) * POINTS;
      const verdict = gap > ranges[2][1] ? "the first model is better" : "who is better stays open";
      f.say(`A won ${won} of ${won + lost} battles: Elo ends at ${signed(elo.at(-1))}, Bradley-Terry says ${signed(points)} in any order ` +
        `(${signed(interval[0])} to ${signed(interval[1])}). With ${number(n)} questions each accuracy is known to within ` +
        `${fixed(100 * ranges[0][1], 1)} points, the lead of ${fixed(100 * gap, 1)} to within ` +
        `${fixed(100 * ranges[2][1], 1)}: ${verdict}.`);
    });
  },
};

/** The difference of the ratings after each battle, by Elo and by Bradley-Terry, and the interval of the latter at the end. */
function arena(f, elo, fitted, interval, truth) {
  const [low, high] = [Math.min(-200, ...elo), Math.max(400, ...elo)];
  const inside = (value) => Math.max(low, Math.min(high, value));
  const names = [["", "Bradley-Terry"], ["second", "Elo"], ...(truth === null ? [] : [["off dashed", `true, ${truth}`]])];
  const legend = f.svg(22, "Lines: Bradley-Terry with its interval at the end, Elo, and the true lead");
  names.forEach(([kind, name], i) => {
    const x = [0, 112, 166][i];
    shape("line", { x1: x, x2: x + 16, y1: 12, y2: 12, class: `figure-line ${kind}` }, legend);
    label(legend, x + 20, 16, name);
  });
  const plane = axes(f, { x: [0, elo.length * 1.06], y: [low, high], height: 250, names: ["battles", "A less B, in Elo points"],
    title: "Difference of the ratings after each battle" });
  line(plane, [[0, 0], ...elo.map((value, i) => [i + 1, inside(value)])], "second");
  const rated = fitted.map(([won, lost]) => [won + lost, inside(bradleyTerry(won, lost) * POINTS), won * lost > 0]);
  line(plane, rated.filter(([n, , both]) => n > 9 && both));
  if (truth !== null) line(plane, [[0, truth], [elo.length * 1.06, truth]], "off dashed");
  const end = elo.length * 1.03;
  line(plane, interval.map((value) => [end, inside(value)]));
  for (const value of interval) line(plane, [[elo.length * 1.015, inside(value)], [elo.length * 1.045, inside(value)]]);
  dot(plane, [end, inside(bradleyTerry(...fitted.at(-1)) * POINTS)]);
}

/** Intervals of the two accuracies on one scale, and that of their difference, with a line at zero, on another. */
function examination(f, width, [first, second, difference]) {
  const svg = f.svg(190, "Intervals of both accuracies, and of their difference");
  const row = (y, [middle, half], [from, to], name, kind) => {
    const X = (value) => 14 + ((value - from) / (to - from)) * (width - 28);
    const [a, b] = [Math.max(from, middle - half), Math.min(to, middle + half)];
    label(svg, 14, y, `${name}: ${fixed(middle, 1)} ± ${fixed(half, 1)}`);
    shape("line", { x1: 14, x2: width - 14, y1: y + 16, y2: y + 16, class: "figure-grid" }, svg);
    shape("line", { x1: X(a), x2: X(b), y1: y + 16, y2: y + 16, class: `figure-line ${kind}` }, svg);
    for (const x of [X(a), X(b)]) shape("line", { x1: x, x2: x, y1: y + 10, y2: y + 22, class: `figure-line ${kind}` }, svg);
    shape("circle", { cx: X(middle), cy: y + 16, r: 5, class: `figure-dot ${kind}` }, svg);
    return X;
  };
  const range = [first[0] - 18, first[0] + 12];
  row(18, first, range, "First model, %", "");
  row(66, second, range, "Second model, %", "second");
  const X = row(122, difference, [-9, 15], "Lead, same questions", "third");
  shape("line", { x1: X(0), x2: X(0), y1: 129, y2: 160, class: "figure-line off dashed" }, svg);
  label(svg, X(0), 178, "0: equal", { anchor: "middle", kind: "soft" });
}
