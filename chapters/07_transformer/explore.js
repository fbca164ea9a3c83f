// Chapter 7: the residual stream as a river. Leave out a branch or a norm, and look at how deep stacks grow.
import { axes, bars, dot, figure, fixed, label, line, normal, random, shape } from "../../grader/book/static/kit.js";

export const defaults = { "tokens": ["the", "cat", "saw", "a", "dog", "run"], "text": [0, 1, 2, 3] };

/** Divide a vector by its root mean square; gamma is 1. */
export function rmsNorm(x, eps = 1e-6) {
  const root = Math.sqrt(x.reduce((sum, value) => sum + value * value, 0) / x.length + eps);
  return x.map((value) => value / root);
}

/** The tanh form of GELU: x/2 (1 + tanh(sqrt(2/pi) (x + 0.044715 x^3))). */
export function gelu(x) {
  return (x / 2) * (1 + Math.tanh(Math.sqrt(2 / Math.PI) * (x + 0.044715 * x ** 3)));
}

/** Causal attention of one head over x (T, D): softmax(q k / sqrt(D)) v, then W_o; all matrices (D, D). */
export function attention(x, { W_q, W_k, W_v, W_o }) {
  const [q, k, v] = [W_q, W_k, W_v].map((W) => x.map((row) => times(W, row)));
  return q.map((query, i) => {
    const scores = k.slice(0, i + 1).map((key) => product(query, key) / Math.sqrt(query.length));
    const powers = scores.map((score) => Math.exp(score - Math.max(...scores)));
    const sum = powers.reduce((a, b) => a + b, 0);
    return times(W_o, query.map((_, d) => powers.reduce((total, power, j) => total + (power / sum) * v[j][d], 0)));
  });
}

/** The streams after embedding and after each branch: x (T, D), then x plus attention, plus FFN, for every block.
 *  `out` names branches that are left out, such as "attention 1" or "ffn 2"; `pre` says whether branches read a normed stream. */
export function river(x, blocks, { out = [], pre = true } = {}) {
  const streams = [x];
  const join = (name, branch) => {
    const now = streams.at(-1);
    if (out.includes(name)) return streams.push(now);
    const written = branch(pre ? now.map((row) => rmsNorm(row)) : now);
    return streams.push(now.map((row, t) => row.map((value, d) => value + written[t][d])));
  };
  blocks.forEach((block, i) => {
    join(`attention ${i + 1}`, (read) => attention(read, block));
    join(`ffn ${i + 1}`, (read) => read.map((row) => times(block.down, times(block.up, row).map(gelu))));
  });
  return streams;
}

/** Probabilities of the next token from a stream (D) and the head (V, D), with or without the last norm. */
export function readOut(x, head, last = true) {
  const logits = times(head, last ? rmsNorm(x) : x);
  const powers = logits.map((logit) => Math.exp(logit - Math.max(...logits)));
  return powers.map((power) => power / powers.reduce((a, b) => a + b, 0));
}

/** Divide what writes into the stream, W_o and down, by the root of 2 L. */
export function shrunk(blocks) {
  const smaller = (W) => W.map((row) => row.map((value) => value / Math.sqrt(2 * blocks.length)));
  return blocks.map((block) => ({ ...block, W_o: smaller(block.W_o), down: smaller(block.down) }));
}

/** Root mean square of all entries of x (T, D). */
export function size(x) {
  return Math.sqrt(x.flat().reduce((sum, value) => sum + value * value, 0) / x.flat().length);
}

const product = (a, b) => a.reduce((sum, value, i) => sum + value * b[i], 0);
const times = (W, x) => W.map((row) => product(row, x));
const matrix = (draw, rows, columns, std) => Array.from({ length: rows }, () => Array.from({ length: columns }, () => std * normal(draw)));

/** L blocks of width D drawn with one standard deviation. */
function drawn(draw, L, D, std) {
  const square = () => matrix(draw, D, D, std);
  return Array.from({ length: L }, () => ({ W_q: square(), W_k: square(), W_v: square(), W_o: square(),
    up: matrix(draw, 4 * D, D, std), down: matrix(draw, D, 4 * D, std) }));
}

const OUT = ["nothing", "attention 1", "ffn 1", "attention 2", "ffn 2", "attention 3", "ffn 3", "all attention", "all networks"];

export default {
  render({ model, el }) {
    const f = figure({ el, model, defaults }, "A stream that is only ever added to");
    const out = f.choice({ name: "out", label: "Leave out", options: OUT.map((name) => [name, name.replace("ffn", "network")]) });
    const pre = f.toggle({ name: "norms", label: "Norm before each branch", checked: true });
    const last = f.toggle({ name: "last", label: "Last norm", checked: true });
    const seed = f.slider({ name: "seed", label: "Random weights, number", min: 1, max: 20, value: 1 });
    const depth = f.slider({ name: "blocks", label: "Deep stack: blocks", min: 4, max: 64, step: 4, value: 24 });

    f.drawn((width) => {
      const [D, tokens, draw] = [8, f.given("tokens"), random(seed())];
      const [blocks, head] = [drawn(draw, 3, D, 0.4), matrix(draw, tokens.length, D, 0.4)];
      const [text, table] = [f.given("text"), matrix(draw, tokens.length, D, 0.6)];
      const x = text.map((id) => table[id]);
      const whole = { "all attention": "attention", "all networks": "ffn" }[out()] ?? out();
      const left = OUT.slice(1, 7).filter((name) => name.startsWith(whole));
      const streams = river(x, blocks, { out: left, pre: pre() }).map((stream) => stream.at(-1));
      flow(f, width, streams, left);
      const chances = readOut(streams.at(-1), head, last());
      bars(f, { values: chances, names: tokens, shown: chances.map((p) => fixed(p)), most: 1, title: "Probabilities of the next token" });
      const [plain, small] = deep(f, depth(), seed());
      const best = chances.indexOf(Math.max(...chances));
      const [first, end] = [streams[0], streams.at(-1)].map((stream) => fixed(size([stream])));
      f.say(`After “${text.map((id) => tokens[id]).join(" ")}” the stream of the last token has the size ${first} at first and ` +
        `${end} at the end; the next token is “${tokens[best]}” with probability ${fixed(chances[best])}. ` +
        `A new stack of ${depth()} blocks ends at ${fixed(plain)}, and with 1/√(2L) at ${fixed(small)}.`);
    });
  },
};

/** The river: as thick as the stream is large; what a branch adds flows in from above (attention) or below (network). */
function flow(f, width, streams, left) {
  const svg = f.svg(246, "The stream as a band, as thick as it is large, and the branches that flow into it");
  const sizes = streams.map((stream) => size([stream]));
  const [step, middle, scale] = [width / streams.length, 118, 84 / Math.max(3, ...sizes)];
  const X = (i) => i * step;
  const half = (i) => Math.max(1, (sizes[i] * scale) / 2);
  const bank = (i, sign) => [[X(i) + (i ? 0.3 * step : 0), middle + sign * half(i)], [X(i + 1), middle + sign * half(i)]];
  const edge = (sign) => streams.flatMap((_, i) => bank(i, sign));
  const points = [...edge(-1), ...edge(1).reverse()].map(([x, y]) => `${x.toFixed(1)} ${y.toFixed(1)}`);
  streams.forEach((stream, i) => {
    if (i === 0) return;
    const above = i % 2 === 1;
    const number = Math.ceil(i / 2);
    const added = size([stream.map((value, d) => value - streams[i - 1][d])]) * scale;
    const off = left.includes(`${above ? "attention" : "ffn"} ${number}`);
    const [from, to] = above ? [32, middle - half(i - 1)] : [192, middle + half(i - 1)];
    const kind = off ? "soft dashed" : above ? "second" : "third";
    const thick = off ? "" : `stroke-width:${Math.max(1, added).toFixed(1)};stroke-linecap:butt;opacity:0.75`;
    shape("line", { x1: X(i) + 2, x2: X(i) + 0.25 * step, y1: from, y2: to, class: `figure-line ${kind}`, style: thick }, svg);
    const name = width < 520 ? (above ? "A" : "N") : above ? "attention " : "network ";
    label(svg, X(i) + 2, above ? 18 : 216, name + number, { anchor: "middle", kind: off ? "off" : "" });
  });
  shape("path", { d: `M${points.join("L")}Z`, class: "figure-area", style: "opacity:0.85" }, svg);
  sizes.forEach((value, i) => label(svg, X(i) + 0.6 * step, 240, fixed(value, value < 10 ? 2 : 1), { anchor: "middle" }));
  f.html("p", {}, `${width < 520 ? "A: attention, N: network. " : ""}The numbers are the size of the stream, its root mean square.`);
}

/** How large the stream is after each block of a new stack, as drawn and with 1/sqrt(2L); gives both sizes at the end. */
function deep(f, L, seed) {
  const [D, draw] = [16, random(seed)];
  const x = matrix(draw, 4, D, 0.03);
  const blocks = drawn(draw, L, D, 0.08); // sums over 16 entries of deviation 0.08 spread as those over 256 of 0.02 do
  const both = [blocks, shrunk(blocks)].map((stack) => river(x, stack).filter((_, i) => i % 2 === 0).map(size));
  const plot = axes(f, { x: [0, 64], y: [0, 1.6], height: 200, names: ["after block", "size of the stream"],
    title: "The size of a new stream, block by block" });
  both.forEach((sizes, i) => {
    line(plot, sizes.map((value, block) => [block, value]), i ? "" : "second dashed");
    dot(plot, [L, sizes.at(-1)], i ? "" : "second");
  });
  f.html("p", {}, "Dashed: all weights drawn alike. Line: W_o and down divided by √(2L).");
  return both.map((sizes) => sizes.at(-1));
}
