// Chapter 9: a small model is trained anew at every move of a control, on text whose entropy is known; and a mixture of sources.
import { axes, bars, figure, fixed, line, random } from "../../grader/book/static/kit.js";

export const defaults = {
  "chain": [[0.05, 0.7, 0.1, 0.05, 0.05, 0.05], [0.1, 0.05, 0.6, 0.15, 0.05, 0.05], [0.05, 0.1, 0.05, 0.4, 0.35, 0.05],
    [0.7, 0.1, 0.05, 0.05, 0.05, 0.05], [0.3, 0.05, 0.05, 0.5, 0.05, 0.05], [0.2, 0.2, 0.2, 0.2, 0.1, 0.1]],
  "sources": ["web", "books", "maths"],
  "sizes": [900, 90, 10],
  "drawn": 2000
};

/** How frequent each id of a Markov chain (V, V) is in the long run. */
export function frequencies(chain) {
  let share = chain.map(() => 1 / chain.length);
  for (let step = 0; step < 2000; step++) share = chain.map((_, j) => sum(chain.map((row, i) => share[i] * row[j])));
  return share;
}

/** Entropy of a Markov chain in nats an id: the floor of every loss. */
export function entropyRate(chain) {
  return sum(frequencies(chain).map((share, i) => -share * sum(chain[i].map((p) => (p > 0 ? p * Math.log(p) : 0)))));
}

/** Loss on endless fresh text of a table of logits (V, V), one row for each input; with `leak` the input is the target itself. */
export function freshLoss(table, chain, leak = false) {
  const logs = table.map(logSoftmax);
  return sum(frequencies(chain).map((share, i) => -share * (leak ? logs[i][i] : sum(chain[i].map((p, j) => p * logs[i][j])))));
}

/** Mean loss of pairs [input, target] under a table of logits (V, V), and its gradient. */
export function lossAndGradient(table, pairs) {
  const logs = table.map(logSoftmax);
  const gradient = table.map((row) => row.map(() => 0));
  for (const [x, y] of pairs) logs[x].forEach((log, j) => (gradient[x][j] += (Math.exp(log) - (j === y ? 1 : 0)) / pairs.length));
  return { loss: -sum(pairs.map(([x, y]) => logs[x][y])) / pairs.length, gradient };
}

/** One step of AdamW on a table, with means m and v of earlier gradients and t steps taken before. */
export function adamw({ p, m, v, t }, g, lr, { betas = [0.9, 0.95], eps = 1e-8, decay = 0.01 } = {}) {
  const [b1, b2] = betas;
  const mean = m.map((row, i) => row.map((value, j) => b1 * value + (1 - b1) * g[i][j]));
  const square = v.map((row, i) => row.map((value, j) => b2 * value + (1 - b2) * g[i][j] ** 2));
  const step = (i, j) => mean[i][j] / (1 - b1 ** (t + 1)) / (Math.sqrt(square[i][j] / (1 - b2 ** (t + 1))) + eps);
  return { p: p.map((row, i) => row.map((value, j) => value * (1 - lr * decay) - lr * step(i, j))), m: mean, v: square, t: t + 1 };
}

/** Rate of a step: a linear warm-up, half a cosine down, then constant. */
export function lrAt(step, maxLr, minLr, warmup, total) {
  if (step < warmup) return (maxLr * (step + 1)) / warmup;
  if (step >= total) return minLr;
  return minLr + ((maxLr - minLr) * (1 + Math.cos((Math.PI * (step - warmup)) / (total - warmup)))) / 2;
}

/** Shorten a gradient (V, V) to at most maxNorm; gives it with its length before. */
export function clip(gradient, maxNorm) {
  const norm = Math.hypot(...gradient.flat());
  return { norm, gradient: norm > maxNorm ? gradient.map((row) => row.map((g) => (g * maxNorm) / norm)) : gradient };
}

/** Train a table of V x V zeros on batches of pairs: the loss before each step, the lengths, and all tables. */
export function train(batches, V, { maxLr, minLr, warmup, maxNorm }) {
  const zeros = () => Array.from({ length: V }, () => Array(V).fill(0));
  let state = { p: zeros(), m: zeros(), v: zeros(), t: 0 };
  const history = { loss: [], norm: [], tables: [state.p] };
  batches.forEach((pairs, step) => {
    const { loss, gradient } = lossAndGradient(state.p, pairs);
    const clipped = clip(gradient, maxNorm);
    state = adamw(state, clipped.gradient, lrAt(step, maxLr, minLr, warmup, batches.length));
    history.loss.push(loss);
    history.norm.push(clipped.norm);
    history.tables.push(state.p);
  });
  return history;
}

/** Shares of sources, proportional to size^(1 / temperature). */
export function mixtureWeights(sizes, temperature = 1) {
  const powers = sizes.map((size) => (size / Math.max(...sizes)) ** (1 / temperature));
  return powers.map((power) => power / sum(powers));
}

const sum = (values) => values.reduce((a, b) => a + b, 0);
const [STEPS, BAD, RATES] = [200, 50, [0.003, 0.01, 0.03, 0.1, 0.3, 1]];

function logSoftmax(row) {
  const top = Math.max(...row);
  const log = top + Math.log(sum(row.map((logit) => Math.exp(logit - top))));
  return row.map((logit) => logit - log);
}

/** Batches of pairs from one walk along the chain; the bad batch is one rare pair, repeated. */
function text(chain, batch, bad) {
  const draw = random(1);
  let at = 0;
  const next = () => {
    let [u, id] = [draw(), 0];
    while (id < chain.length - 1 && u >= chain[at][id]) u -= chain[at][id++];
    const pair = [at, id];
    at = id;
    return pair;
  };
  const batches = Array.from({ length: STEPS }, () => Array.from({ length: batch }, next));
  return batches.map((pairs, step) => (bad && step === BAD ? pairs.map(() => [0, chain.length - 1]) : pairs));
}

export default {
  render({ model, el }) {
    const f = figure({ el, model, defaults }, "A loss, and the floor that it cannot pass");
    const rate = f.slider({ name: "lr", label: "Highest rate", min: 0, max: 5, value: 3, show: (i) => String(RATES[i]) });
    const warmup = f.slider({ name: "warmup", label: "Warm-up steps", min: 0, max: 100, step: 10, value: 20 });
    const batch = f.slider({ name: "batch", label: "Pairs in a batch", min: 2, max: 8, value: 5, show: (k) => String(2 ** k) });
    const tenths = (x) => fixed(x, 1);
    const most = f.slider({ name: "clip", label: "Clip gradients to", min: 0.1, max: 1.5, step: 0.1, value: 1.5, show: tenths });
    const leak = f.toggle({ name: "leak", label: "The model sees its target" });
    const temperature = f.slider({ name: "temperature", label: "Mixture temperature", min: 1, max: 8, step: 0.5, value: 1, show: tenths });

    f.drawn(() => {
      const chain = f.given("chain");
      const maxLr = RATES[rate()];
      const settings = { maxLr, minLr: maxLr / 10, warmup: warmup(), maxNorm: most() };
      const [run, clean] = [true, false].map((bad) => {
        const batches = text(chain, 2 ** batch(), bad).map((pairs) => pairs.map(([x, y]) => [leak() ? y : x, y]));
        return train(batches, chain.length, settings);
      });
      const [fresh, spared] = [run, clean].map(({ tables }) => tables.map((table) => freshLoss(table, chain, leak())));
      const floor = entropyRate(chain);
      losses(f, run.loss, fresh, floor);
      recipe(f, run.norm, most(), run.loss.map((_, step) => lrAt(step, maxLr, maxLr / 10, warmup(), STEPS)));
      const [sizes, sources] = [f.given("sizes"), f.given("sources")];
      const shares = mixtureWeights(sizes, temperature());
      const epochs = shares.map((share, i) => (share * f.given("drawn")) / sizes[i]);
      f.html("p", {}, "A mixture of sources: the share of each, and how often it is read.");
      bars(f, { values: shares, names: sources, shown: shares.map((share, i) => `${fixed(share, 3)}, ${fixed(epochs[i], 1)} times`),
        most: 1, title: "Shares of the sources, and how often each is read" });
      const [end, rare, bad] = [fresh.at(-1), sizes.indexOf(Math.min(...sizes)), run.norm[BAD]];
      const rise = Math.max(...fresh.map((value, step) => value - spared[step]));
      const verdict = end < floor ? "below the floor: something must be mended" : `${fixed(end - floor, 3)} above the floor`;
      f.say(`After ${STEPS} steps the loss on fresh text is ${fixed(end, 3)}; the entropy of the text is ${fixed(floor, 3)}, ` +
        `so it is ${verdict}. The bad batch has a gradient of length ${fixed(bad)}` +
        `${bad > most() ? `, clipped to ${fixed(most(), 1)}` : ""}, and it costs up to ${fixed(rise, 3)} nats. ` +
        `In the mixture, ${sources[rare]} has the share ${fixed(shares[rare], 3)} and is read ${fixed(epochs[rare], 1)} times.`);
    });
  },
};

/** The loss of each batch, thin, and on fresh text, thick, over the floor. */
function losses(f, batch, fresh, floor) {
  const plot = axes(f, { x: [0, STEPS], y: [0, 2.5], height: 250, names: ["step", "loss, nats an id"],
    title: "The loss, step by step, over its floor" });
  const points = (values) => values.map((value, step) => [step, Math.min(2.5, value)]);
  line(plot, points(batch), "off").setAttribute("style", "opacity:0.6");
  line(plot, points(fresh));
  line(plot, [[0, floor], [STEPS, floor]], "second dashed");
  f.html("p", {}, `Thick: the loss on fresh text. Thin: the loss of each batch; that of step ${BAD} is bad. Dashed: the entropy.`);
}

/** The rate and the length of the gradient, step by step. */
function recipe(f, norms, most, rates) {
  const x = [0, STEPS];
  const schedule = axes(f, { x, y: [0, 1.05 * Math.max(...rates)], height: 130, names: ["step", "rate"], title: "The rate of each step",
    ticks: { y: [0, Math.max(...rates)] } });
  line(schedule, rates.map((rate, step) => [step, rate]), "third");
  const lengths = axes(f, { x, y: [0, 1.6], height: 130, names: ["step", "gradient"],
    title: "The length of each gradient, and where it is clipped", ticks: { y: [0, 0.5, 1] } });
  line(lengths, norms.map((norm, step) => [step, Math.min(1.6, norm)]), "off");
  line(lengths, [[0, most], [STEPS, most]], "second dashed");
}
