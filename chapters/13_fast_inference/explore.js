// Chapter 13: a draft that is kept or replaced so that the target's distribution comes out; and places in a batch that do not wait.
import { figure, fixed, label, random, shape } from "../../grader/book/static/kit.js";

export const defaults = { "p": [0.5, 0.3, 0.2], "q": [0.2, 0.7, 0.1], "cost": 0.1 };

/** For each token: the share kept as drafts, min(p, q), and the share lacking, max(p - q, 0), which the residual brings. */
export function shares(p, q) {
  return { kept: p.map((x, i) => Math.min(x, q[i])), lacking: p.map((x, i) => Math.max(x - q[i], 0)) };
}

/** What comes out when rejected drafts are replaced from the residual, or, wrongly, from p itself. */
export function outcome(p, q, wrong = false) {
  const { kept, lacking } = shares(p, q);
  const rejected = lacking.reduce((a, b) => a + b, 0);
  return kept.map((share, i) => share + (wrong ? rejected * p[i] : lacking[i]));
}

/** Mean tokens of a step whose gamma drafts are kept with probability alpha each: 1 + alpha + ... + alpha^gamma. */
export function expectedTokens(alpha, gamma) {
  return Array.from({ length: gamma + 1 }, (_, i) => alpha ** i).reduce((a, b) => a + b, 0);
}

/**
 * Steps of a scheduler; each is a list of [request, tokens processed, 1 if a token is emitted]. Requests are [arrival, prompt, new].
 * Continuous: first come first served, at most `seqs` at a time. Static: a batch starts only when the one before has ended.
 */
export function schedule(requests, maxTokens, seqs, continuous) {
  const state = requests.map(([arrival, prompt, fresh]) => ({ arrival, known: prompt, cached: 0, left: fresh, in: false }));
  const steps = [];
  while (state.some(({ left }) => left > 0)) {
    const here = state.filter(({ arrival, left, in: inside }) => left > 0 && !inside && arrival <= steps.length);
    const running = state.filter(({ left, in: inside }) => left > 0 && inside).length;
    const free = continuous ? seqs - running : running ? 0 : seqs;
    for (const each of here.slice(0, free)) each.in = true;
    let budget = maxTokens;
    const step = [];
    state.forEach((each, i) => {
      const tokens = each.in && each.left > 0 ? Math.min(each.known - each.cached, budget) : 0;
      if (tokens === 0) return;
      budget -= tokens;
      each.cached += tokens;
      const emits = each.cached === each.known ? 1 : 0;
      each.known += emits;
      each.left -= emits;
      step.push([i, tokens, emits]);
    });
    steps.push(step);
  }
  return steps;
}

const REQUESTS = 8;
const BUDGET = 8;

export default {
  render({ model, el }) {
    const f = figure({ el, model, defaults }, "A guess that costs no quality, and places that do not wait");
    const drafted = f.given("q");
    const size = drafted.length - 1;
    const token = f.slider({ name: "share", label: "Draft q of token 1", min: 0, max: 1, step: 0.05, value: drafted[1], show: fixed });
    const wrong = f.toggle({ name: "wrong", label: "rejected: draw from p" });
    const gamma = f.slider({ name: "gamma", label: "Drafts in a step, γ", min: 0, max: 12, value: 4 });
    const places = f.slider({ name: "places", label: "Places in the batch", min: 1, max: 4, value: 2 });
    const seed = f.slider({ name: "seed", label: "Requests: another draw", min: 1, max: 20, value: 5 });

    f.drawn((width) => {
      const p = f.given("p");
      // the other tokens of the draft share what token 1 leaves, in their old proportions
      const others = drafted.reduce((sum, x, i) => sum + (i === 1 ? 0 : x), 0);
      const q = drafted.map((x, i) => (i === 1 ? token() : others > 0 ? ((1 - token()) * x) / others : (1 - token()) / size));
      const out = outcome(p, q, wrong());
      drafts(f, width, p, q, out, wrong());
      const alpha = shares(p, q).kept.reduce((a, b) => a + b, 0);
      const mean = expectedTokens(alpha, gamma());
      step(f, width, alpha, gamma(), mean);
      const requests = arrivals(random(seed()));
      const [apart, together] = [false, true].map((continuous) => schedule(requests, BUDGET, places(), continuous));
      gantt(f, width, requests, apart, "Static batching", Math.max(apart.length, together.length));
      gantt(f, width, requests, together, "Continuous batching", Math.max(apart.length, together.length));
      const gap = Math.max(...out.map((x, i) => Math.abs(x - p[i])));
      const truth = gap < 1e-9 ? "p exactly" : `up to ${fixed(gap)} away from p`;
      const speed = mean / (gamma() * f.given("cost") + 1);
      f.say(`A draft is kept with probability ${fixed(alpha)}; what comes out is ${truth}. ` +
        `With γ = ${gamma()} a step brings ${fixed(mean)} tokens on average, ${fixed(speed)} times the speed ` +
        `if a draft costs ${fixed(f.given("cost"))} of a call. ` +
        `${REQUESTS} requests take ${apart.length} steps in static batches and ${together.length} in continuous ones.`);
    });
  },
};

/** Requests [arrival, prompt, new] in the order of arrival. */
function arrivals(uniform) {
  let at = 0;
  return Array.from({ length: REQUESTS }, (_, i) => {
    at += i && Math.floor(3 * uniform());
    return [at, 1 + Math.floor(20 * uniform() ** 2), 1 + Math.floor(9 * uniform() ** 2)];
  });
}

/** For each token: the target p, the draft q, and what comes out: kept drafts and replaced ones. */
function drafts(f, width, p, q, out, wrong) {
  const row = 66;
  const svg = f.svg(24 + p.length * row, "For each token: target, draft, and what comes out");
  const { kept } = shares(p, q);
  const [left, right] = [70, 62];
  const long = (share) => (width - left - right) * share;
  [["figure-bar", "kept draft", 0], ["figure-bar second", wrong ? "drawn from p" : "residual", 94]].forEach(([kind, text, x]) => {
    shape("rect", { x, y: 3, width: 12, height: 12, rx: 2, class: kind }, svg);
    label(svg, x + 17, 14, text, { kind: "soft" });
  });
  p.forEach((share, i) => {
    const y = 24 + i * row;
    [["p", share], ["q", q[i]], ["out", out[i]]].forEach(([name, value], n) => {
      label(svg, 26, y + 13 + n * 19, name, { anchor: "end", kind: "soft" });
      label(svg, left - 6, y + 13 + n * 19, fixed(value), { anchor: "end" });
      const place = { y: y + 2 + n * 19, height: 14, rx: 2 };
      if (n < 2) shape("rect", { ...place, x: left, width: long(value), class: "figure-chip" }, svg);
      if (n === 2) shape("rect", { ...place, x: left, width: long(kept[i]), class: "figure-bar" }, svg);
      if (n === 2) shape("rect", { ...place, x: left + long(kept[i]), width: long(value - kept[i]), class: "figure-bar second" }, svg);
    });
    shape("line", { x1: left + long(share), x2: left + long(share), y1: y, y2: y + 58, class: "figure-line soft dashed" }, svg);
    label(svg, width, y + 13, `token ${i}`, { anchor: "end", kind: "soft" });
  });
}

/** The tokens of one step: each place is filled as far as its token is likely to come. */
function step(f, width, alpha, gamma, mean) {
  const svg = f.svg(46, "The tokens of one step, each as wide as it is likely to come");
  const cell = width / 13;
  label(svg, 0, 14, `Tokens in a step: ${fixed(mean)} on average`, { kind: "strong" });
  for (let i = 0; i <= gamma; i++) {
    shape("rect", { x: i * cell + 1, y: 22, width: cell - 3, height: 18, rx: 2, class: "figure-chip" }, svg);
    shape("rect", { x: i * cell + 1, y: 22, width: (cell - 3) * alpha ** i, height: 18, rx: 2, class: "figure-bar" }, svg);
  }
}

/** Requests as lanes, steps from left to right: one colour while a prompt is read, another when a token is emitted. */
function gantt(f, width, requests, steps, title, most) {
  const row = 15;
  const svg = f.svg(44 + requests.length * row, `${title}: requests as lanes, steps from left to right`);
  const cell = (width - 2) / most;
  label(svg, 0, 14, `${title}: ${steps.length} steps`, { kind: "strong" });
  requests.forEach(([arrival], i) => {
    const y = 22 + i * row;
    const mine = steps.map((step) => step.find(([request]) => request === i));
    const last = mine.findLastIndex(Boolean);
    mine.forEach((entry, t) => {
      const place = { x: 1 + t * cell, y, width: Math.max(1, cell - 1.5), height: row - 4, rx: 2 };
      if (entry) shape("rect", { ...place, class: entry[2] ? "figure-bar" : "figure-bar second" }, svg);
      else if (t >= arrival && t < last) shape("rect", { ...place, class: "figure-line off", style: "opacity:.4" }, svg);
    });
  });
  const y = 22 + requests.length * row + 3;
  const words = [["figure-bar second", "prompt", 0], ["figure-bar", "token emitted", 72], ["figure-line off", "waiting", 186]];
  words.forEach(([kind, text, x]) => {
    shape("rect", { x: x + 1, y, width: 12, height: 12, rx: 2, class: kind }, svg);
    label(svg, x + 17, y + 11, text, { kind: "soft" });
  });
}
