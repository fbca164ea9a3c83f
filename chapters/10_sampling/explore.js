// Chapter 10: from logits to one token. Sharpen or flatten, cut off the tail in three ways, and draw.
import { figure, fixed, label, random, shape } from "../../grader/book/static/kit.js";

export const defaults = {
  "tokens": ["mat", "sofa", "roof", "moon", "piano", "stove", "lake", "idea", "Monday", "seven", "of", "qua"],
  "logits": [2.0794415416798357, 1.3862943611198906, 0.6931471805599453, 0, 0, -0.2, -0.4, -0.7, -1, -1.2, -1.5, -1.8]
};

/** Probabilities (V) of logits (V) at a temperature: the softmax of z / T; at 0 the largest takes all, the lowest id of several. */
export function probabilities(logits, temperature = 1) {
  const top = Math.max(...logits);
  if (temperature === 0) return logits.map((_, i) => (i === logits.indexOf(top) ? 1 : 0));
  const powers = logits.map((logit) => Math.exp((logit - top) / temperature));
  const sum = powers.reduce((a, b) => a + b, 0);
  return powers.map((power) => power / sum);
}

/** Keep the k largest logits and all that tie with the last of them; the others become -Infinity. */
export function topK(logits, k) {
  const border = [...logits].sort((a, b) => b - a)[Math.min(k, logits.length) - 1];
  return logits.map((logit) => (logit < border ? -Infinity : logit));
}

/** Keep the shortest beginning of the ranking with mass at least p: a token goes if those ranked above it already hold p. */
export function topP(logits, p) {
  if (p === 1) return [...logits];
  const probs = probabilities(logits);
  const order = probs.map((_, i) => i).sort((a, b) => logits[b] - logits[a]);
  const kept = [...logits];
  let mass = 0;
  order.forEach((token, rank) => {
    mass += probs[token];
    if (rank > 0 && mass - probs[token] >= p) kept[token] = -Infinity;
  });
  return kept;
}

/** Keep what is at least p times as likely as the favourite: a logit of at least the largest plus ln p. */
export function minP(logits, p) {
  const border = Math.max(...logits) + Math.log(p);
  return logits.map((logit) => (p > 0 && logit < border ? -Infinity : logit));
}

/** The logits after each step of the usual order: temperature, top-k, top-p, min-p; each works on what the one before left. */
export function pipeline(logits, temperature, k, p, fraction) {
  const cooled = temperature === 0 ? topP(logits, 0) : logits.map((logit) => logit / temperature);
  const first = topK(cooled, k);
  const second = topP(first, p);
  return [cooled, first, second, minP(second, fraction)];
}

/** The id whose segment the number u in [0, 1) hits when the probabilities lie end to end. */
export function draw(probs, u) {
  let end = 0;
  const ends = probs.map((p) => (end += p));
  return ends.filter((place) => place <= u * end).length;
}

/** Entropy of probabilities, in nats. */
export function entropy(probs) {
  return probs.reduce((sum, p) => sum - (p > 0 ? p * Math.log(p) : 0), 0);
}

const DRAWS = 200;
const STEPS = ["T = 0", "top-k", "top-p", "min-p"];

export default {
  render({ model, el }) {
    const f = figure({ el, model, defaults }, "The cat sat on the …");
    const size = f.given("logits").length;
    let seed = 1;
    const tenths = (T) => fixed(T, 1);
    const some = (n) => (n === size ? "all" : String(n));
    const temperature = f.slider({ name: "temperature", label: "Temperature", min: 0, max: 3, step: 0.1, value: 1, show: tenths });
    const k = f.slider({ name: "k", label: "Top-k: how many", min: 1, max: size, value: size, show: some });
    const p = f.slider({ name: "p", label: "Top-p: mass", min: 0, max: 1, step: 0.05, value: 0.8, show: fixed });
    const fraction = f.slider({ name: "min_p", label: "Min-p: fraction", min: 0, max: 1, step: 0.05, value: 0, show: fixed });
    const five = f.toggle({ name: "five", label: "only the five tokens of the worked example" });
    f.button({ name: "draw", label: `Draw ${DRAWS} again` }, () => (seed += 1));

    f.drawn((width) => {
      const logits = f.given("logits").slice(0, five() ? 5 : undefined);
      const names = f.given("tokens");
      const steps = pipeline(logits, temperature(), k(), p(), fraction());
      const before = probabilities(logits, temperature());
      const after = probabilities(steps[3]);
      const [uniform, counts] = [random(seed), logits.map(() => 0)];
      for (let n = 0; n < DRAWS; n++) counts[draw(after, uniform())] += 1;
      // the first step after which a token is gone
      const cut = logits.map((_, i) => steps.findIndex((step) => step[i] === -Infinity));
      rows(f, width, { names, before, after, counts, cut });
      const kept = cut.filter((step) => step < 0).length;
      const mass = before.reduce((sum, share, i) => sum + (cut[i] < 0 ? share : 0), 0);
      const best = after.indexOf(Math.max(...after));
      const [is, they] = kept === 1 ? ["is", "it"] : ["are", "they"];
      f.say(`${kept} of ${logits.length} tokens ${is} left; at this temperature ${they} held ${fixed(mass)} of the mass. ` +
        `“${names[best]}” now has ${fixed(after[best])} and was drawn ${counts[best]} times of ${DRAWS}. ` +
        `The entropy is ${fixed(entropy(after))} nats.`);
    });
  },
};

/** One row for each token: its probability before and after the cuts, how often it was drawn, or what cut it off. */
function rows(f, width, { names, before, after, counts, cut }) {
  const row = 30;
  const top = width < 420 ? 48 : 28;
  const svg = f.svg(top + before.length * row, "For each token: its probability before and after the cuts, and the share of the draws");
  const [left, right] = [16 + 7.5 * Math.max(...before.map((_, i) => names[i].length)), 82];
  const most = Math.max(...after, ...before, ...counts.map((count) => count / DRAWS));
  const long = (share) => ((width - left - right) * share) / most;
  legend(svg, width);
  before.forEach((share, i) => {
    const y = top + i * row;
    const gone = cut[i] >= 0;
    label(svg, left - 8, y + 14, names[i], { anchor: "end", kind: gone ? "off" : "" });
    shape("rect", { x: left, y, width: long(gone ? share : after[i]), height: 12, rx: 2, class: gone ? "figure-chip" : "figure-bar" }, svg);
    if (!gone) shape("rect", { x: left, y: y + 14, width: long(counts[i] / DRAWS), height: 6, rx: 2, class: "figure-bar second" }, svg);
    const end = Math.min(width - right, left + long(gone ? share : Math.max(after[i], counts[i] / DRAWS)));
    label(svg, end + 6, y + 13, gone ? `cut: ${STEPS[cut[i]]}` : `${fixed(after[i])} · ${counts[i]}`, { kind: gone ? "off" : "" });
  });
}

/** What the colours mean: three squares with words, on two lines where there is little room. */
function legend(svg, width) {
  const [away, under] = width < 420 ? [0, 1] : [270, 0];
  const drawn = ["figure-bar second", `share of ${DRAWS} draws`, 106, 0];
  for (const [kind, text, x, down] of [["figure-bar", "probability", 0, 0], drawn, ["figure-chip", "cut off", away, under]]) {
    shape("rect", { x, y: 3 + 20 * down, width: 12, height: 12, rx: 2, class: kind }, svg);
    label(svg, x + 17, 14 + 20 * down, text, { kind: "soft" });
  }
}
