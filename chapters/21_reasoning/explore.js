// Chapter 21: think longer, or try more often? Both curves rise, and both can fall.
import { axes, dot, figure, fixed, label, line, normal, random, shape } from "../../grader/book/static/kit.js";

export const defaults = { "others": 10, "step": 0.95, "guess": 0.1, "needs": [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12] };

/**
 * The accuracy after each number of thinking steps, 0 to `most`, of a solver that is held back (or made to go on) until then.
 * A question needs `need` steps, each right with probability `step`. Before that the answer is a guess. After it, each further step
 * spoils a right answer with probability 1 - step, and mends a wrong one with probability `check`. The mean over `needs`.
 */
export function thinking(step, check, guess, needs, most) {
  const curve = Array(most + 1).fill(0);
  for (const need of needs) {
    let right = step ** need;
    for (let steps = 0; steps <= most; steps++) {
      if (steps > need) right = right * step + (1 - right) * check;
      curve[steps] += (steps < need ? guess : right) / needs.length;
    }
  }
  return curve;
}

/** Answers for uniform draws: 0 is the right one, 1 the popular wrong one, and 2, 3, ... share what is left. */
export function answer(draws, right, wrong, others) {
  const rest = 1 - right - wrong;
  const other = (u) => 2 + Math.min(others - 1, Math.floor(((u - right - wrong) / rest) * others));
  return draws.map((u) => (u < right ? 0 : u < right + wrong ? 1 : other(u)));
}

/** The answer with the largest total score; of several, the one that comes first. */
export function vote(answers, scores) {
  const totals = new Map();
  answers.forEach((name, i) => totals.set(name, (totals.get(name) ?? 0) + scores[i]));
  return [...totals].reduce((best, pair) => (pair[1] > best[1] ? pair : best))[0];
}

/** The answer with the highest score; of several, the one that comes first. */
export function bestOf(answers, scores) {
  return answers[scores.indexOf(Math.max(...scores))];
}

/** The chance that at least one of n answers is right, if each is right with probability p: 1 − (1 − p)ⁿ. */
export function passAt(p, n) {
  return 1 - (1 - p) ** n;
}

const SIZES = [1, 2, 4, 8, 16, 32, 64];
const GROUPS = 400;
const JUDGES = { any: "at least one is right", best: "best by the scorer", weighted: "weighted vote", majority: "majority" };
const KINDS = { any: "dashed soft", best: "", weighted: "second", majority: "third" };

/** The share of right choices of each judge for each N: over 400 groups of 64 solutions, each cut into 64 / N blocks. */
function tried(right, wrong, noise, others) {
  const [uniform, won] = [random(21), { best: [], weighted: [], majority: [] }];
  for (const judge of Object.values(won)) SIZES.forEach(() => judge.push(0));
  for (let group = 0; group < GROUPS; group++) {
    const answers = answer(Array.from({ length: 64 }, uniform), right, wrong, others);
    // the chapter's scorer: 0.65 for a right solution, 0.4 for a wrong one, with noise, kept between 0 and 1
    const scores = answers.map((a) => Math.min(1, Math.max(0, (a === 0 ? 0.65 : 0.4) + noise * normal(uniform))));
    SIZES.forEach((n, i) => {
      for (let from = 0; from < 64; from += n) {
        const [some, marks] = [answers.slice(from, from + n), scores.slice(from, from + n)];
        const weight = n / 64 / GROUPS;
        won.best[i] += (bestOf(some, marks) === 0) * weight;
        won.weighted[i] += (vote(some, marks) === 0) * weight;
        won.majority[i] += (vote(some, some.map(() => 1)) === 0) * weight;
      }
    });
  }
  return { any: SIZES.map((n) => passAt(right, n)), ...won };
}

export default {
  render({ model, el }) {
    const f = figure({ el, model, defaults }, "Think longer, or try more often");
    const budget = f.slider({ name: "budget", label: "Steps of thinking", min: 0, max: 60, value: 12 });
    const check = f.slider({ name: "check", label: "A step mends a wrong answer", min: 0, max: 0.3, step: 0.02, value: 0, show: fixed });
    const size = f.slider({ name: "n", label: "Solutions drawn", min: 0, max: 6, value: 4, show: (i) => `N = ${SIZES[i]}` });
    const right = f.slider({ name: "right", label: "A solution is right", min: 0.1, max: 0.5, step: 0.05, value: 0.3, show: fixed });
    const wrong = f.slider({ name: "wrong", label: "It is wrong in the popular way", min: 0, max: 0.45, step: 0.05, value: 0.4, show: fixed });
    const noise = f.slider({ name: "noise", label: "Noise of the scorer", min: 0, max: 0.6, step: 0.05, value: 0.2, show: fixed });

    f.drawn((width) => {
      const curve = thinking(f.given("step"), check(), f.given("guess"), f.given("needs"), 60);
      const won = tried(right(), wrong(), noise(), f.given("others"));
      const wide = width < 520 ? width : (width - 8) / 2;
      longer(f, wide, curve, budget());
      oftener(f, wide, won, size());
      key(f, width, won, size());
      const top = curve.indexOf(Math.max(...curve));
      const shares = ["any", "best", "weighted", "majority"].map((judge) => `${JUDGES[judge]} ${fixed(won[judge][size()])}`);
      f.say(`After ${budget()} steps of thinking the accuracy is ${fixed(curve[budget()])}; ` +
        `it is highest, ${fixed(curve[top])}, after ${top}. With N = ${SIZES[size()]} solutions: ${shares.join(", ")}.`);
    });
  },
};

/** Axes of a given width, from 0 to 1 upwards. */
function plotted(f, width, options) {
  return axes({ svg: (height, title) => f.svg(height, title, width) }, { y: [0, 1], height: 250, ...options });
}

/** Accuracy over the steps of thinking. */
function longer(f, width, curve, at) {
  const [names, title] = [["steps of thinking", "accuracy"], "Accuracy over the steps of thinking"];
  const plot = plotted(f, width, { x: [0, curve.length - 1], names, title });
  line(plot, curve.map((y, x) => [x, y]));
  line(plot, [[at, 0], [at, 1]], "dashed soft");
  dot(plot, [at, curve[at]]);
}

/** The judges over the number of solutions, on a logarithmic axis. */
function oftener(f, width, won, at) {
  const [names, title] = [["solutions, N", "right"], "How often each judge is right, over N"];
  const plot = plotted(f, width, { x: [1, 64], log: { x: true }, ticks: { x: [1, 4, 16, 64] }, names, title });
  line(plot, [[SIZES[at], 0], [SIZES[at], 1]], "dashed soft");
  for (const [judge, kind] of Object.entries(KINDS)) {
    line(plot, won[judge].map((y, i) => [SIZES[i], y]), kind);
    dot(plot, [SIZES[at], won[judge][at]], kind);
  }
}

/** Which line is which, with its value. */
function key(f, width, won, at) {
  const across = width < 520 ? 1 : 2;
  const svg = f.svg(4 + (4 / across) * 22, "Which line is which");
  Object.entries(JUDGES).forEach(([judge, name], i) => {
    const [x, y] = [((i % across) * width) / across, 16 + Math.floor(i / across) * 22];
    shape("path", { d: `M${x + 2} ${y - 5}h26`, class: `figure-line ${KINDS[judge]}` }, svg);
    label(svg, x + 38, y, `${name}: ${fixed(won[judge][at])}`);
  });
}
