// Chapter 16: a policy over six answers is pushed towards what scores well, and held by a leash to the reference.
import { axes, dot, figure, fixed, label, line, shape } from "../../grader/book/static/kit.js";

export const defaults = {
  "answers": ["reasons", "one source", "hedging", "filler", "insult", "pile of links"],
  "ref": [0.25, 0.09, 0.25, 0.25, 0.15, 0.01],
  "reward": [1.2, 3, -0.8, -0.2, -1.6, 6],
  "true": [1.5, 4, -0.5, 0, -1.5, -3]
};

const ROUNDS = 40;
const PASSES = 4;
const BETAS = [2, 1, 0.5, 0.2, 0.1, 0.05];

function softmax(logits) {
  const top = Math.max(...logits);
  const powers = logits.map((x) => Math.exp(x - top));
  const sum = powers.reduce((a, b) => a + b, 0);
  return powers.map((power) => power / sum);
}

const mean = (p, values) => p.reduce((sum, x, i) => sum + (x > 0 ? x * values[i] : 0), 0);
const sigmoid = (z) => 1 / (1 + Math.exp(-z));

/** The best policy under the bargain, in proportion to ref e^(reward / beta). */
export function optimum(ref, reward, beta) {
  return softmax(ref.map((q, i) => Math.log(q) + reward[i] / beta));
}

/** KL(p || ref) in nats: the mean of log p - log ref over answers drawn from p. */
export function kl(p, ref) {
  return mean(p, p.map((x, i) => Math.log(x / ref[i])));
}

/** Advantages (K,) of the answers under p: reward less beta (log p - log ref), less the mean of that. */
export function advantages(p, ref, reward, beta) {
  const shaped = p.map((x, i) => reward[i] - beta * Math.log(x / ref[i]));
  const value = mean(p, shaped);
  return shaped.map((x) => x - value);
}

/** Gradient by the logits of PPO's clipped loss, the mean over answers drawn from `old`; zero where the minimum is the clipped term. */
export function ppoGradient(logits, old, adv, eps) {
  const p = softmax(logits);
  const flat = (ratio, A) => (A > 0 ? ratio > 1 + eps : ratio < 1 - eps);
  const slopes = p.map((x, i) => (flat(x / old[i], adv[i]) ? 0 : -x * adv[i]));
  const sum = slopes.reduce((a, b) => a + b, 0);
  return slopes.map((slope, i) => slope - p[i] * sum);
}

/** Shares (K, K) of comparisons of answer i, chosen, with j, rejected: drawn from ref, judged by a Bradley-Terry coin on true worth. */
export function comparisons(ref, worth) {
  const shares = ref.map((a, i) => ref.map((b, j) => (i === j ? 0 : a * b * sigmoid(worth[i] - worth[j]))));
  const sum = shares.flat().reduce((a, b) => a + b, 0);
  return shares.map((row) => row.map((share) => share / sum));
}

/** Gradient by the logits of the DPO loss, the mean over comparisons with the given shares. */
export function dpoGradient(logits, ref, shares, beta) {
  const gain = softmax(logits).map((x, i) => Math.log(x / ref[i]));
  const gradient = logits.map(() => 0);
  shares.forEach((row, i) => row.forEach((share, j) => {
    const pull = share * beta * sigmoid(-beta * (gain[i] - gain[j]));
    gradient[i] -= pull; // the chosen one up
    gradient[j] += pull; // the rejected one down
  }));
  return gradient;
}

/** The policies before the first round and after each, from the reference on, by "ppo" or "dpo". */
export function train(method, { ref, reward, worth, beta, eps }, rounds) {
  let logits = ref.map(Math.log);
  const policies = [softmax(logits)];
  const shares = comparisons(ref, worth);
  for (let round = 0; round < rounds; round++) {
    const old = softmax(logits); // what drew the answers stays fixed in the round
    const adv = advantages(old, ref, reward, beta);
    for (let pass = 0; pass < PASSES; pass++) {
      const rate = method === "ppo" ? 1 : 2 / beta ** 2;
      const slopes = method === "ppo" ? ppoGradient(logits, old, adv, eps) : dpoGradient(logits, ref, shares, beta);
      logits = logits.map((x, i) => x - rate * slopes[i]);
    }
    policies.push(softmax(logits));
  }
  return policies;
}

export default {
  render({ model, el }) {
    const f = figure({ el, model, defaults }, "How far should a policy follow its score?");
    const names = f.given("answers");
    const last = names.length - 1;
    const method = f.choice({ name: "method", label: "Learn by",
      options: [["ppo", "PPO, on the score"], ["dpo", "DPO, on comparisons"]] });
    const leash = f.slider({ name: "beta", label: "Price of distance β", min: 0, max: BETAS.length - 1, value: 1,
      show: (i) => String(BETAS[i]) });
    const now = f.slider({ name: "round", label: "Round", min: 0, max: ROUNDS, value: 6 });
    const score = f.slider({ name: "score", label: `What the reward model gives the ${names[last]}`, min: -3, max: 8, step: 0.5,
      value: f.given("reward")[last], show: (v) => fixed(v, 1) });
    const eps = f.slider({ name: "eps", label: "PPO's ratio may move by ε", min: 0.05, max: 0.5, step: 0.05, value: 0.2, show: fixed });

    f.drawn((width) => {
      const [ref, worth, beta] = [f.given("ref"), f.given("true"), BETAS[leash()]];
      const reward = f.given("reward").map((x, i) => (i === last ? score() : x));
      const policies = train(method(), { ref, reward, worth, beta, eps: eps() }, ROUNDS);
      const best = optimum(ref, method() === "ppo" ? reward : worth, beta);
      rows(f, width, { names, ref, reward, worth, policy: policies[now()], best });
      f.html("p", {}, "Thick: the policy. Thin: the reference. Dot: the optimum, where the rounds lead.");
      const curves = [policies.map((p) => mean(p, reward)), policies.map((p) => mean(p, worth)), policies.map((p) => kl(p, ref))];
      history(f, curves, now());
      const [proxy, truth, distance] = curves.map((curve) => curve[now()]);
      const top = curves[1].indexOf(Math.max(...curves[1]));
      f.say(`In round ${now()} the mean score is ${fixed(proxy)}, the true worth ${fixed(truth)} and the KL ${fixed(distance)} nats; ` +
        `the ${names[last]} has probability ${fixed(policies[now()][last])}. The best true worth of the run is ` +
        `${fixed(curves[1][top])}, in round ${top}; at the optimum it is ${fixed(mean(best, worth))}.`);
    });
  },
};

/** One row for each answer: name, score and worth above, bars of reference and policy below. */
function rows(f, width, { names, ref, reward, worth, policy, best }) {
  const svg = f.svg(names.length * 46 + 2, "Probabilities of the six answers under policy and reference");
  const X = (p) => p * (width - 56);
  names.forEach((name, i) => {
    const y = i * 46;
    label(svg, 0, y + 14, name, { kind: "strong" });
    label(svg, width - 1, y + 14, `score ${fixed(reward[i], 1)}, worth ${fixed(worth[i], 1)}`, { anchor: "end", kind: "soft" });
    shape("rect", { x: 0, y: y + 20, width: Math.max(1, X(policy[i])), height: 12, rx: 3, class: "figure-bar" }, svg);
    shape("rect", { x: 0, y: y + 34, width: Math.max(1, X(ref[i])), height: 4, rx: 2, class: "figure-bar second" }, svg);
    shape("circle", { cx: X(best[i]), cy: y + 26, r: 5, class: "figure-dot third" }, svg);
    label(svg, X(Math.max(policy[i], best[i])) + 10, y + 31, fixed(policy[i]));
  });
}

/** Mean score, true worth and KL over the rounds, with the round of the slider marked. */
function history(f, curves, now) {
  const all = curves.flat();
  const y = [Math.floor(Math.min(0, ...all)), Math.ceil(Math.max(1, ...all))];
  const plot = axes(f, { x: [0, ROUNDS], y, height: 230, names: ["round", "mean"],
    title: "Mean score, true worth and KL over the rounds" });
  shape("line", { x1: plot.X(now), x2: plot.X(now), y1: plot.box.top, y2: plot.box.bottom, class: "figure-line off dashed" }, plot.svg);
  ["", "second", "third dashed"].forEach((kind, k) => {
    line(plot, curves[k].map((value, i) => [i, value]), kind);
    dot(plot, [now, curves[k][now]], kind.split(" ")[0]);
  });
  const key = f.svg(20, "Key: score, true worth, KL");
  ["score", "true worth", "KL"].forEach((name, k) => {
    const x = [4, 78, 182][k];
    shape("path", { d: `M${x} 10H${x + 20}`, class: `figure-line ${["", "second", "third dashed"][k]}`.trim() }, key);
    label(key, x + 26, 14, name);
  });
}
