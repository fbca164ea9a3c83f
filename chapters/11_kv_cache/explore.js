// Chapter 11: the wait for the first token and the pace of the others, with the cache and without it; and what each pass computes.
import { bars, figure, fixed, label, shape } from "../../grader/book/static/kit.js";

export const defaults = {
  "models": {
    "GPT-2": { "L": 12, "Hk": 12, "hd": 64, "params": 124439808 },
    "Llama 2 7B": { "L": 32, "Hk": 32, "hd": 128, "params": 6738415616 },
    "Llama 3 8B": { "L": 32, "Hk": 8, "hd": 128, "params": 8030261248 }
  },
  "flops_per_s": 989e12
};

/** Bytes of the keys and values of `batch` sequences of `seq` tokens, in 16 bits: 2 L B S Hk d 2. */
export function cacheBytes(cfg, batch, seq) {
  return 2 * cfg.L * batch * seq * cfg.Hk * cfg.hd * 2;
}

/** Seconds that a pass computes and reads: it feeds m tokens of each of B sequences and leaves s in each cache. */
export function pass(cfg, m, s, flops, bytes, batch) {
  return { feeds: m, compute: (2 * cfg.params * batch * m) / flops, memory: (cfg.params * 2 + cacheBytes(cfg, batch, s)) / bytes };
}

/** The passes that make `n` tokens. With a cache: the prompt, then one token each; without: everything so far, again and again. */
export function passes(cfg, prompt, n, flops, bytes, batch, cached) {
  return Array.from({ length: n }, (_, i) => pass(cfg, cached && i > 0 ? 1 : prompt + i, prompt + i, flops, bytes, batch));
}

/** Time to the first token, mean time of the others, and their sum; a pass takes as long as the slower of its two sides. */
export function latency(all) {
  const times = all.map(({ compute, memory }) => Math.max(compute, memory));
  const total = times.reduce((a, b) => a + b, 0);
  return { ttft: times[0], tpot: times.length > 1 ? (total - times[0]) / (times.length - 1) : 0, total };
}

/** The tokens [first, after the last] that each pass feeds. With a cache: chunks of the prompt, then one each; without: all so far. */
export function feeds(prompt, n, chunk, cached) {
  if (!cached) return Array.from({ length: n }, (_, i) => [0, prompt + i]);
  const pieces = Array.from({ length: Math.ceil(prompt / chunk) }, (_, i) => [i * chunk, Math.min(prompt, (i + 1) * chunk)]);
  return [...pieces, ...Array.from({ length: n - 1 }, (_, i) => [prompt + i, prompt + i + 1])];
}

/** Scores that a pass over these tokens computes in one head: token i meets the i + 1 keys up to its own. */
export function scores([from, to]) {
  return (to * (to + 1) - from * (from + 1)) / 2;
}

/** A whole number with commas. */
const grouped = (n) => n.toLocaleString("en-US");

/** Seconds as milliseconds, with as many decimals as their size needs. */
function ms(seconds) {
  const size = seconds * 1000;
  return `${size >= 1000 ? grouped(Math.round(size)) : fixed(size, size >= 100 ? 0 : size >= 10 ? 1 : 2)} ms`;
}

const PANELS = { time: "the time of every token", table: "what a pass computes" };

export default {
  render({ model, el }) {
    const f = figure({ el, model, defaults }, "The first token, and the next");
    const panel = f.choice({ name: "panel", label: "Look at", options: Object.entries(PANELS) });
    const draw = { time: timePanel(f, () => panel() === "time"), table: tablePanel(f, () => panel() === "table") };
    f.drawn((width) => draw[panel()](width));
  },
};

/** How long each pass of a real model takes, and why. */
function timePanel(f, when) {
  const models = f.given("models");
  const names = Object.keys(models);
  const which = f.choice({ name: "model", label: "Model", options: names.map((name) => [name, name]), value: names.at(-1), when });
  const prompt = f.slider({ name: "prompt", label: "Prompt, tokens", min: 100, max: 8000, step: 100, value: 2000, show: grouped, when });
  const fresh = f.slider({ name: "new", label: "New tokens", min: 2, max: 8, value: 5, when });
  const bandwidth = f.slider({ name: "bandwidth", label: "Memory, TB/s", min: 0.25, max: 8, step: 0.05, value: 3.35, show: fixed, when });
  const doublings = f.slider({ name: "doublings", label: "Batch", min: 0, max: 9, value: 0, show: (n) => String(2 ** n), when });
  const cached = f.toggle({ name: "cache", label: "keep keys and values", checked: true, when });
  return (width) => {
    const [cfg, batch] = [models[which()], 2 ** doublings()];
    const all = passes(cfg, prompt(), fresh(), f.given("flops_per_s"), bandwidth() * 1e12, batch, cached());
    const { ttft, tpot, total } = latency(all);
    lanes(f, width, all, total, cached());
    tokens(f, width, all);
    const last = all.at(-1);
    const share = cacheBytes(cfg, batch, prompt() + fresh() - 1) / (cfg.params * 2);
    f.say(
      `Time to the first token ${ms(ttft)}, then ${ms(tpot)} a token; ${ms(total)} in all. ` +
      `Each sequence feeds ${grouped(all.reduce((sum, each) => sum + each.feeds, 0))} tokens. ` +
      `The last pass is bound by ${last.memory > last.compute ? "memory" : "computing"}; ` +
      (cached() ? `the cache is ${fixed(100 * share, share < 0.1 ? 1 : 0)} % of the size of the weights.` : "nothing is kept.")
    );
  };
}

/** Which keys, values and scores a pass computes, which it finds in the cache, and which it computes once more. */
function tablePanel(f, when) {
  const prompt = f.slider({ name: "read", label: "Prompt, tokens", min: 1, max: 6, value: 3, when });
  const fresh = f.slider({ name: "written", label: "New tokens", min: 2, max: 6, value: 3, when });
  const now = f.slider({ name: "pass", label: "Pass", min: 1, max: 11, value: 2, when });
  const cached = f.toggle({ name: "kept", label: "keep keys and values", checked: true, when });
  const chunk = f.slider({ name: "chunk", label: "Tokens of a chunk", min: 1, max: 6, value: 6, when: () => when() && cached() });
  return (width) => {
    const all = feeds(prompt(), fresh(), chunk(), cached());
    const n = Math.min(now(), all.length);
    const [from, to] = all[n - 1];
    const before = n > 1 ? all[n - 2][1] : 0;
    const beside = width >= 600;
    table(f, beside ? 336 : width, prompt() + fresh() - 1, from, to, before);
    const side = { svg: (height, title) => f.svg(height, title, beside ? width - 352 : width) };
    bars(side, { values: all.map(scores), names: all.map((_, i) => `pass ${i + 1}`), shown: all.map((each) => String(scores(each))),
      kinds: all.map((_, i) => (i < n ? "" : "off")), title: "Scores that each pass computes" });
    f.html("p", {}, "Top: keys and values. Below, for each token, its scores. Blue: computed now; orange: once more; " +
      "pale: in an earlier pass; empty: not yet. Bars: the scores of each pass.");
    const sum = (list) => list.reduce((total, [a, b]) => total + b - a, 0);
    const count = (k, one) => `${k} ${one}${k === 1 ? "" : "s"}`;
    f.say(`Pass ${n} of ${all.length} feeds ${count(to - from, "token")} and computes ${count(scores([from, to]), "score")}; ` +
      (cached() ? `the keys and values of ${count(from, "token")} are there already. ` : `${before} of its tokens were fed before. `) +
      `All passes feed ${count(sum(all), "token")} and compute ${count(all.map(scores).reduce((a, b) => a + b, 0), "score")}.`);
  };
}

/** Two lanes along the time: passes that read many tokens, and passes that read one. */
function lanes(f, width, all, total, cached) {
  const svg = f.svg(112, "Along the time: passes that read the prompt, and passes that read one token");
  let time = 0;
  const X = (seconds) => ((width - 2) * seconds) / total;
  [["Prefill: many tokens in a pass", 14], ["Decode: one token in a pass", 62]].forEach(([text, y]) => {
    label(svg, 0, y, text, { kind: "soft" });
    shape("line", { x1: 0, x2: width, y1: y + 31, y2: y + 31, class: "figure-grid" }, svg);
  });
  all.forEach((each, i) => {
    const long = Math.max(each.compute, each.memory);
    const y = cached && i > 0 ? 69 : 21;
    const place = { x: X(time), y, width: Math.max(1.5, X(long) - 1.5), height: 22, rx: 2 };
    shape("rect", { ...place, class: each.memory > each.compute ? "figure-chip second" : "figure-chip" }, svg);
    if (X(long) > 18) label(svg, X(time + long / 2), y + 16, String(i + 1), { anchor: "middle" });
    time += long;
  });
  label(svg, 0, 110, "0", { kind: "soft" });
  label(svg, width, 110, ms(total), { anchor: "end", kind: "soft" });
}

/** For every new token: what it feeds, how long that computes and how long it reads; the longer one counts. */
function tokens(f, width, all) {
  const row = 44;
  const svg = f.svg(26 + all.length * row, "For every new token: the time to compute and the time to read");
  const most = Math.max(...all.flatMap(({ compute, memory }) => [compute, memory]));
  [["figure-bar", "computing", 0], ["figure-bar second", "reading memory", 98]].forEach(([kind, text, x]) => {
    shape("rect", { x, y: 3, width: 12, height: 12, rx: 2, class: kind }, svg);
    label(svg, x + 17, 14, text, { kind: "soft" });
  });
  all.forEach((each, i) => {
    const y = 26 + i * row;
    const long = (seconds) => Math.max(1, (width * seconds) / most);
    label(svg, 0, y + 13, `Token ${i + 1} feeds ${grouped(each.feeds)}: ${ms(Math.max(each.compute, each.memory))}`);
    shape("rect", { x: 0, y: y + 18, width: long(each.compute), height: 8, rx: 2, class: "figure-bar" }, svg);
    shape("rect", { x: 0, y: y + 28, width: long(each.memory), height: 8, rx: 2, class: "figure-bar second" }, svg);
  });
}

/** Keys and values along the top, the table of scores below: one row for each token that looks. */
function table(f, wide, size, from, to, before) {
  const left = 36;
  const cell = Math.min(30, (wide - left - 2) / size);
  const tall = Math.min(24, cell);
  const svg = f.svg(54 + size * tall, "Keys and values, and the table of scores: computed now, once more, before, or not yet", wide);
  const kind = (t) => (t >= to ? "figure-chip off" : t < from ? "figure-chip" : t < before ? "figure-bar second" : "figure-bar");
  label(svg, left - 6, 36, "K, V", { anchor: "end", kind: "soft" });
  for (let t = 0; t < size; t++) {
    const y = 50 + t * tall;
    label(svg, left + (t + 0.5) * cell, 15, `${t}`, { anchor: "middle", kind: "soft" });
    label(svg, left - 6, y + tall / 2 + 4, `${t}`, { anchor: "end", kind: t >= from && t < to ? "strong" : "soft" });
    shape("rect", { x: left + t * cell + 1, y: 22, width: cell - 2, height: 20, rx: 4, class: kind(t) }, svg);
    for (let j = 0; j <= t; j++) {
      shape("rect", { x: left + j * cell + 1, y: y + 1, width: cell - 2, height: tall - 2, rx: 2, class: kind(t) }, svg);
    }
  }
}
