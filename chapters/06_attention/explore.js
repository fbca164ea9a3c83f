// Chapter 6: one token looks at the others. Choose who looks, how sharply, and what the mask hides.
import { bars, figure, fixed, label, shape } from "../../grader/book/static/kit.js";

export const defaults = {
  "tokens": ["the", "lamp", "is", "too", "tall"],
  "q": [[0.4, 0.1], [0.9, 0.8], [1.2, -0.6], [-0.5, 1.1], [1.6, 1.2]],
  "k": [[0.1, 0.3], [1.4, 0.9], [0.2, -0.8], [-0.6, 0.7], [0.8, 1.3]]
};

/** Weights from scores: exponentials over their sum, shifted by the largest score so that none overflows. */
export function softmax(scores) {
  const top = Math.max(...scores);
  if (top === -Infinity) return scores.map(() => 0);
  const powers = scores.map((score) => Math.exp(score - top));
  const sum = powers.reduce((a, b) => a + b, 0);
  return powers.map((power) => power / sum);
}

/** Which keys each of T queries may see: all, the causal ones, or the last `window` of those. */
export function mask(T, kind, window = 2) {
  const sees = (i, j) => kind === "all" || (j <= i && (kind === "causal" || j > i - window));
  return Array.from({ length: T }, (_, i) => Array.from({ length: T }, (_, j) => sees(i, j)));
}

/** Attention weights (T, T) of queries and keys (T, d); the scores are divided by the square root of d, and by `temperature`. */
export function weights(q, k, visible, temperature = 1) {
  const scale = Math.sqrt(q[0].length) * temperature;
  const dot = (a, b) => a.reduce((sum, x, i) => sum + x * b[i], 0);
  return q.map((query, i) => softmax(k.map((key, j) => (visible[i][j] ? dot(query, key) / scale : -Infinity))));
}

/** Entropy of one row of weights, in nats. */
export function entropy(row) {
  return row.reduce((sum, p) => sum - (p > 0 ? p * Math.log(p) : 0), 0);
}

const KINDS = { all: "everything", causal: "itself and what comes before", window: "itself and one before" };

export default {
  render({ model, el }) {
    const f = figure({ el, model, defaults }, "Who listens to whom");
    const tokens = f.given("tokens");
    const last = tokens.length - 1;
    const who = f.slider({ name: "query", label: "The token that looks", min: 0, max: last, value: last - 1, show: (i) => `“${tokens[i]}”` });
    const temperature = f.slider({ name: "temperature", label: "Scores divided by √d times", min: 0.25, max: 4, step: 0.25, value: 1, show: fixed });
    const kind = f.choice({ name: "mask", label: "It may see", options: Object.entries(KINDS), value: "causal" });
    const pull = f.slider({ name: "pull", label: `Push the key of “${tokens[1]}” along the query`, min: -2, max: 2, step: 0.25, value: 0, show: fixed });

    f.drawn((width) => {
      const [q, i] = [f.given("q"), who()];
      const k = f.given("k").map((key, j) => (j === 1 ? key.map((x, d) => x + pull() * q[i][d]) : key));
      const visible = mask(tokens.length, kind());
      const row = weights(q, k, visible, temperature())[i];
      arcs(f, width, tokens, i, row, visible[i]);
      bars(f, { values: row, names: tokens, shown: row.map((p, j) => (visible[i][j] ? fixed(p) : "hidden")), most: 1, title: "The weights",
        kinds: row.map((_, j) => (visible[i][j] ? "" : "off")) });
      const best = row.indexOf(Math.max(...row));
      f.say(`“${tokens[i]}” gives most weight, ${fixed(row[best])}, to “${tokens[best]}”. The entropy of its weights is ${fixed(entropy(row))} nats ` +
        `of at most ${fixed(Math.log(visible[i].filter(Boolean).length))}.`);
    });
  },
};

/** Arcs from the token that looks to the tokens it sees, as thick as their weights. */
function arcs(f, width, tokens, i, row, visible) {
  const svg = f.svg(130, `Arcs from “${tokens[i]}” to the tokens it sees, as thick as the weights`);
  const place = (j) => ((j + 0.5) * width) / tokens.length;
  row.forEach((weight, j) => {
    if (!visible[j]) return;
    const lift = 96 - Math.min(84, 26 + Math.abs(i - j) * 22);
    const path = i === j ? `M${place(i) - 9} 96C${place(i) - 26} 60 ${place(i) + 26} 60 ${place(i) + 9} 96` : `M${place(i)} 96Q${(place(i) + place(j)) / 2} ${2 * lift - 96} ${place(j)} 96`;
    shape("path", { d: path, class: "figure-line", style: `stroke-width:${(0.5 + 11 * weight).toFixed(2)};opacity:${(0.25 + 0.6 * weight).toFixed(2)}` }, svg);
  });
  tokens.forEach((token, j) => label(svg, place(j), 118, token, { anchor: "middle", kind: j === i ? "strong" : visible[j] ? "" : "off" }));
}
