// Chapter 22: how sure one may be. A row of battles rated in two ways, an arena of several models, and two scores on the same
// questions with their intervals.
import { axes, dot, figure, fixed, label, line, random, shape } from "../../grader/book/static/kit.js";

export const defaults = {
  "results": [],
  "lead": 70,
  "k": 32,
  "accuracy": 0.712,
  "strengths": [100, 70, 50, 20, 0, -30, -80, -160]
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
  return middle95(wins.map((won) => bradleyTerry(won, results.length - won)));
}

/** The quantiles 0.025 and 0.975, linearly interpolated. */
function middle95(numbers) {
  const values = numbers.slice().sort((a, b) => a - b);
  return [0.025, 0.975].map((part) => {
    const [at, below] = [part * (values.length - 1), Math.floor(part * (values.length - 1))];
    return values[below] + (at - below) * (values[Math.min(below + 1, values.length - 1)] - values[below]);
  });
}

/** Elo of every model after all battles [a, b, score of a] in their order; all begin with 0. */
export function eloTable(battles, models, k) {
  const ratings = Array(models).fill(0);
  for (const [a, b, score] of battles) {
    const step = k * (score - 1 / (1 + 10 ** ((ratings[b] - ratings[a]) / 400)));
    ratings[a] += step;
    ratings[b] -= step;
  }
  return ratings;
}

/** Bradley-Terry for several: ratings (M) that maximise Σ wins_ij ln σ(r_i − r_j) − l2/2 Σ r_i², by Newton's method. */
export function ratings(wins, l2 = 1e-6) {
  const all = wins.map((_, i) => i);
  let r = all.map(() => 0);
  for (let round = 0; round < 200; round++) {
    const p = all.map((i) => all.map((j) => 1 / (1 + Math.exp(r[j] - r[i]))));
    const games = (i, j) => wins[i][j] + wins[j][i];
    const slope = all.map((i) => all.reduce((sum, j) => sum + wins[i][j] - games(i, j) * p[i][j], 0) - l2 * r[i]);
    const weights = all.map((i) => all.map((j) => games(i, j) * p[i][j] * (1 - p[i][j])));
    const H = weights.map((row, i) => row.map((w, j) => (i === j ? row.reduce((a, b) => a + b) - w + l2 : -w)));
    const step = solved(H, slope);
    const middle = step.reduce((a, b) => a + b) / step.length;
    const largest = Math.max(...step.map((x) => Math.abs(x - middle)));
    r = r.map((x, i) => x + (step[i] - middle) * Math.min(1, 0.5 / Math.max(largest, 1e-300)));
    if (largest < 1e-6) break;
  }
  return r;
}

/** For every model its rating, and the middle 95 % of those from resamples; each row of `draws` holds indices of battles. */
export function leaderboard(battles, models, draws) {
  const rate = (ids) => {
    const wins = Array.from({ length: models }, () => Array(models).fill(0));
    for (const [a, b, score] of ids.map((i) => battles[i])) {
      wins[a][b] += score;
      wins[b][a] += 1 - score;
    }
    return ratings(wins);
  };
  const [whole, again] = [rate(battles.map((_, i) => i)), draws.map(rate)];
  return whole.map((rating, m) => [rating, ...middle95(again.map((r) => r[m]))]);
}

/** x with A x = b, by Gauss's elimination; A is symmetric and positive, so that no rows need be exchanged. */
function solved(A, b) {
  const rows = A.map((row, i) => [...row, b[i]]);
  rows.forEach((pivot, i) => {
    for (const row of rows.slice(i + 1)) {
      const times = row[i] / pivot[i];
      row.forEach((_, j) => (row[j] -= times * pivot[j]));
    }
  });
  const x = [];
  for (let i = b.length - 1; i >= 0; i--) {
    x[i] = (rows[i][b.length] - x.reduce((sum, value, j) => sum + rows[i][j] * value, 0)) / rows[i][i];
  }
  return x;
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

/** Battles [a, b, score of a] of models drawn by lot. */
function fought(count, strengths, uniform) {
  return Array.from({ length: count }, () => {
    const a = Math.floor(uniform() * strengths.length);
    const other = Math.floor(uniform() * (strengths.length - 1));
    const b = other + (other >= a ? 1 : 0);
    return [a, b, uniform() < 1 / (1 + 10 ** ((strengths[b] - strengths[a]) / 400)) ? 1 : 0];
  });
}

const PANELS = { two: "two models in battle", many: "an arena of models", scores: "two scores" };
const FOUGHT = [100, 200, 400, 800, 1600, 3200];
const QUESTIONS = [100, 200, 500, 1000, 2000, 5000, 10000, 20000, 50000, 100000];
const LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ";
const ORDERS = { came: "as they came", first: "the wins of A first", last: "the wins of A last" };
const signed = (value, decimals = 0) => (value > 0 ? "+" : "") + fixed(value, decimals);
const number = (n) => String(n).replace(/\B(?=(\d{3})+$)/g, ",");

export default {
  render({ model, el }) {
    const f = figure({ el, model, defaults }, "How sure may one be?");
    const given = f.given("results").length;
    const most = given || 400;
    const panel = f.choice({ name: "panel", label: "Look at", options: Object.entries(PANELS) });
    const at = (...names) => () => names.includes(panel());
    const count = f.slider({ name: "battles", label: "Battles of A and B", min: Math.min(20, most), max: most,
      step: given ? 1 : 20, value: Math.min(100, most), when: at("two") });
    const order = f.choice({ name: "order", label: "Their order", options: Object.entries(ORDERS), value: "came", when: at("two") });
    const fights = f.slider({ name: "fights", label: "Battles of all", min: 0, max: FOUGHT.length - 1, value: 1,
      show: (i) => number(FOUGHT[i]), when: at("many") });
    const models = f.slider({ name: "models", label: "Models", min: 3, max: f.given("strengths").length, value: 6, when: at("many") });
    const seed = f.slider({ name: "seed", label: "Tournament number", min: 1, max: 20, value: 1, when: at("two", "many") });
    const questions = f.slider({ name: "questions", label: "Questions asked", min: 0, max: 9, value: 2,
      show: (i) => number(QUESTIONS[i]), when: at("scores") });
    const lead = f.slider({ name: "lead", label: "Lead of the first model", min: 0.4, max: 6, step: 0.4, value: 0.4,
      show: (x) => `${fixed(x, 1)} points`, when: at("scores") });
    const differ = f.slider({ name: "differ", label: "Answered differently", min: 6, max: 40, value: 15, show: (x) => `${x} %`,
      when: at("scores") });

    f.drawn((width) => ({ two, many, scores })[panel()](width));

    function two() {
      const all = given ? f.given("results").slice(0, count()) : played(count(), f.given("lead"), seed());
      const results = order() === "came" ? all : all.slice().sort((a, b) => (order() === "first" ? b - a : a - b));
      const elo = eloPath(results, f.given("k"));
      const fitted = results.map((_, i) => results.slice(0, i + 1).reduce((a, b) => a + b)).map((won, i) => [won, i + 1 - won]);
      const uniform = random(given ? seed() : 99);
      const draws = Array.from({ length: 200 }, () => all.map(() => Math.floor(uniform() * all.length)));
      const interval = bootstrap(all, draws).map((d) => d * POINTS);
      arena(f, elo, fitted, interval, given ? null : f.given("lead"));
      const [won, lost] = fitted.at(-1);
      const points = bradleyTerry(won, lost) * POINTS;
      f.say(`A won ${won} of ${won + lost} battles: Elo ends at ${signed(elo.at(-1))}, Bradley-Terry says ${signed(points)} in any order ` +
        `(${signed(interval[0])} to ${signed(interval[1])}).`);
    }

    function many(width) {
      const M = models();
      const average = f.given("strengths").slice(0, M).reduce((a, b) => a + b) / M;
      const strengths = f.given("strengths").slice(0, M).map((x) => x - average);
      const battles = fought(FOUGHT[fights()], strengths, random(seed()));
      const uniform = random(99);
      const draws = Array.from({ length: 100 }, () => battles.map(() => Math.floor(uniform() * battles.length)));
      const rated = leaderboard(battles, M, draws).map((row) => row.map((r) => r * POINTS));
      const elo = eloTable(battles, M, f.given("k"));
      const table = rated.map((row, m) => ({ name: LETTERS[m], row, elo: elo[m], truth: strengths[m] }));
      table.sort((a, b) => b.row[0] - a.row[0]);
      board(f, width, table);
      const [best, ...others] = table;
      const [rating, low, high] = best.row.map((x) => signed(x));
      const close = others.filter(({ row }) => row[2] > best.row[1]).map(({ name }) => name);
      f.say(`After ${number(battles.length)} battles of ${M} models Bradley-Terry puts ${best.name} first, ` +
        `at ${rating} (${low} to ${high}). Intervals that overlap with this one: ${close.join(", ") || "none"}. ` +
        `Elo puts ${LETTERS[elo.indexOf(Math.max(...elo))]} first; in truth A is the best.`);
    }

    function scores(width) {
      const [n, p, gap, part] = [QUESTIONS[questions()], f.given("accuracy"), lead() / 100, differ() / 100];
      const ranges = [[p, margin(p, n)], [p - gap, margin(p - gap, n)], [gap, pairedMargin(part, gap, n)]];
      examination(f, width, ranges.map(([middle, half]) => [100 * middle, 100 * half]));

      const verdict = gap > ranges[2][1] ? "the first model is better" : "who is better stays open";
      f.say(`With ${number(n)} questions each accuracy is known to within ${fixed(100 * ranges[0][1], 1)} points, ` +
        `the lead of ${fixed(100 * gap, 1)} to within ${fixed(100 * ranges[2][1], 1)}: ${verdict}.`);
    }
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

/** Models in the order of their ratings: Bradley-Terry with its interval, Elo, and the true strength. */
function board(f, width, table) {
  const svg = f.svg(62 + 34 * table.length, "Ratings of all models with their intervals, Elo ratings, and true strengths");
  const most = 400;
  const X = (value) => 26 + ((Math.max(-most, Math.min(most, value)) + most) / (2 * most)) * (width - 40);
  const tick = (x, y, size, kind) => shape("line", { x1: x, x2: x, y1: y - size, y2: y + size, class: `figure-line ${kind}` }, svg);
  const ring = (x, y) => shape("circle", { cx: x, cy: y, r: 6, class: "figure-line second" }, svg);
  shape("circle", { cx: 8, cy: 12, r: 5, class: "figure-dot" }, svg);
  label(svg, 18, 16, "Bradley-Terry");
  ring(120, 12);
  label(svg, 131, 16, "Elo");
  tick(170, 12, 8, "third");
  label(svg, 178, 16, "true");
  const bottom = 34 + 34 * table.length;
  for (const value of [-300, -150, 0, 150, 300]) {
    shape("line", { x1: X(value), x2: X(value), y1: 30, y2: bottom, class: "figure-grid" }, svg);
    label(svg, X(value), bottom + 18, signed(value), { anchor: "middle", kind: "soft" });
  }
  table.forEach(({ name, row: [rating, low, high], elo, truth }, place) => {
    const y = 50 + 34 * place;
    label(svg, 0, y + 5, name, { kind: "strong" });
    shape("line", { x1: X(low), x2: X(high), y1: y, y2: y, class: "figure-line" }, svg);
    for (const end of [low, high]) tick(X(end), y, 5, "");
    tick(X(truth), y, 12, "third");
    shape("circle", { cx: X(rating), cy: y, r: 5, class: "figure-dot" }, svg);
    ring(X(elo), y);
  });
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
