// Chapter 13: drafts that are kept or replaced so that the target's distribution comes out; scores that are read in tiles; and
// places in a batch that do not wait.
import { figure, fixed, label, random, shape } from "../../grader/book/static/kit.js";

export const defaults = {
  "p": [0.5, 0.3, 0.2], "q": [0.2, 0.7, 0.1], "cost": 0.1,
  "scores": [
    [0.5, 1.2, -0.4, 0.3, 0.8, -1.1], [1.5, 0.2, 0.6, -0.7, 0.1, 0.9], [0, 0.6931, 1.3863, 0.4, -0.3, 2.1],
    [-0.6, 0.1, 0.4, 1.8, 0.7, -0.2], [2.2, -0.5, 0.3, 0.9, 1.1, 0.6], [-1.2, 0.8, -0.3, 0.2, 1.6, 2.4]
  ],
  "values": [7, 14, 21, 28, 35, 42]
};

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

/** The keys of each tile as [first, after the last], in the order in which they are read. */
export function tiles(S, block, backwards = false) {
  const all = Array.from({ length: Math.ceil(S / block) }, (_, i) => [i * block, Math.min(S, (i + 1) * block)]);
  return backwards ? all.reverse() : all;
}

/** One query's pass over tiles of its scores (S,) and of the values (S,): what is kept after each tile. */
export function online(scores, values, read) {
  let [top, sum, mix] = [-Infinity, 0, 0];
  return read.map(([from, to]) => {
    const old = top;
    top = Math.max(old, ...scores.slice(from, to));
    const safe = top === -Infinity ? 0 : top; // nothing seen yet: -inf - -inf would be NaN
    const shrink = Math.exp(old - safe);
    const w = scores.slice(from, to).map((score) => Math.exp(score - safe));
    sum = sum * shrink + w.reduce((a, b) => a + b, 0);
    mix = mix * shrink + w.reduce((a, b, j) => a + b * values[from + j], 0);
    return { top, shrink, sum, mix };
  });
}

/** The same mixture from all scores at once: softmax(scores) times the values. */
export function atOnce(scores, values) {
  const top = Math.max(...scores);
  const powers = scores.map((score) => Math.exp(score - top));
  return powers.reduce((a, b, j) => a + b * values[j], 0) / powers.reduce((a, b) => a + b, 0);
}

const REQUESTS = 8;
const BUDGET = 8;

const PANELS = { draft: "drafts that are judged", tiles: "scores in tiles", batch: "places in a batch" };

export default {
  render({ model, el }) {
    const f = figure({ el, model, defaults }, "Faster, and the result stays the same");
    const panel = f.choice({ name: "panel", label: "Look at", options: Object.entries(PANELS) });
    const draw = { draft: draftPanel(f, () => panel() === "draft"), tiles: tilesPanel(f, () => panel() === "tiles"),
      batch: batchPanel(f, () => panel() === "batch") };
    f.drawn((width) => draw[panel()](width));
  },
};

/** Drafts: the distribution of what comes out, and the tokens of one step. */
function draftPanel(f, when) {
  const drafted = f.given("q");
  const size = drafted.length - 1;
  const token = f.slider({ name: "share", label: "Draft q of token 1", min: 0, max: 1, step: 0.05, value: drafted[1], show: fixed, when });
  const wrong = f.toggle({ name: "wrong", label: "rejected: draw from p", when });
  const gamma = f.slider({ name: "gamma", label: "Drafts in a step, γ", min: 0, max: 12, value: 4, when });
  return (width) => {
    const p = f.given("p");
    // the other tokens of the draft share what token 1 leaves, in their old proportions
    const others = drafted.reduce((sum, x, i) => sum + (i === 1 ? 0 : x), 0);
    const q = drafted.map((x, i) => (i === 1 ? token() : others > 0 ? ((1 - token()) * x) / others : (1 - token()) / size));
    const out = outcome(p, q, wrong());
    drafts(f, width, p, q, out, wrong());
    const alpha = shares(p, q).kept.reduce((a, b) => a + b, 0);
    const mean = expectedTokens(alpha, gamma());
    step(f, width, alpha, gamma(), mean);
    const gap = Math.max(...out.map((x, i) => Math.abs(x - p[i])));
    const truth = gap < 1e-9 ? "p exactly" : `up to ${fixed(gap)} away from p`;
    const speed = mean / (gamma() * f.given("cost") + 1);
    f.say(`A draft is kept with probability ${fixed(alpha)}; what comes out is ${truth}. ` +
      `With γ = ${gamma()} a step brings ${fixed(mean)} tokens on average, ${fixed(speed)} times the speed ` +
      `if a draft costs ${fixed(f.given("cost"))} of a call.`);
  };
}

/** Tiles: which scores are there at the moment, and what every query keeps. */
function tilesPanel(f, when) {
  const T = f.given("scores").length;
  const S = f.given("values").length;
  const block = f.slider({ name: "block", label: "Keys in a tile", min: 1, max: S, value: Math.min(2, S), when });
  const read = f.slider({ name: "read", label: "Tiles read", min: 1, max: S, value: Math.min(2, S), when });
  const who = f.slider({ name: "query", label: "Query", min: 0, max: T - 1, value: Math.min(2, T - 1), when });
  const causal = f.toggle({ name: "causal", label: "causal", checked: true, when });
  const backwards = f.toggle({ name: "backwards", label: "last tile first", when });
  return (width) => {
    const values = f.given("values");
    const visible = (i, j) => !causal() || j <= S - T + i;
    const scores = f.given("scores").map((row, i) => row.map((score, j) => (visible(i, j) ? score : -Infinity)));
    const order = tiles(S, block(), backwards());
    const now = Math.min(read(), order.length);
    const kept = scores.map((row) => online(row, values, order.slice(0, now)));
    const beside = width >= 560;
    matrix(f, beside ? 292 : width, scores, values, order, now, who());
    running(f, beside ? width - 308 : width, kept.map((each) => each.at(-1)), who());
    f.html("p", {}, "Rows are queries, columns keys; v is a key's value. Of the tiles let go only the numbers of the table are left.");
    const [mine, before] = [kept[who()].at(-1), kept[who()].at(-2)];
    const moved = before && before.top > -Infinity && mine.top > before.top;
    const told = mine.top === -Infinity ? `query ${who()} has seen nothing: its maximum is still −∞`
      : moved ? `the maximum of query ${who()} rises from ${fixed(before.top)} to ${fixed(mine.top)}, ` +
          `so what it had summed shrinks by ${fixed(mine.shrink)}`
      : before && before.top > -Infinity ? `the maximum of query ${who()} stays ${fixed(mine.top)}, so nothing is rescaled`
      : `query ${who()} begins with the maximum ${fixed(mine.top)}`;
    const result = mine.sum ? `${fixed(mine.mix)} / ${fixed(mine.sum)} = ${fixed(mine.mix / mine.sum)}` : "nothing";
    f.say(`Tile ${now} of ${order.length}: ${told}. Its result so far is ${result}; ` +
      `all scores at once give ${fixed(atOnce(scores[who()], values))}. ` +
      (order.length > 1 ? `At most ${T * block()} scores are held at a time, not ${T * S}.` : `One tile holds all ${T * S} scores.`));
  };
}

/** A batch: the same requests, served in static batches and in continuous ones. */
function batchPanel(f, when) {
  const places = f.slider({ name: "places", label: "Places in the batch", min: 1, max: 4, value: 2, when });
  const seed = f.slider({ name: "seed", label: "Requests: another draw", min: 1, max: 20, value: 5, when });
  return (width) => {
    const requests = arrivals(random(seed()));
    const [apart, together] = [false, true].map((continuous) => schedule(requests, BUDGET, places(), continuous));
    gantt(f, width, requests, apart, "Static batching", Math.max(apart.length, together.length));
    gantt(f, width, requests, together, "Continuous batching", Math.max(apart.length, together.length));
    f.say(`${REQUESTS} requests take ${apart.length} steps in static batches and ${together.length} in continuous ones. ` +
      `A step processes at most ${BUDGET} tokens, for at most ${places()} request${places() > 1 ? "s" : ""}.`);
  };
}

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

const ROW = 30;

/** The matrix of scores: numbers stand in the tile that is read now; those before are let go, those to come are not there yet. */
function matrix(f, wide, scores, values, order, now, who) {
  const height = 26 + scores.length * ROW;
  const svg = f.svg(height + 48, "Scores of queries and keys; only the tile that is read now is held", wide);
  const left = 26;
  const cell = (wide - left - 4) / values.length;
  const tile = order[now - 1];
  scores.forEach((row, i) => {
    const y = 26 + i * ROW;
    label(svg, left - 8, y + 19, `${i}`, { anchor: "end", kind: i === who ? "strong" : "soft" });
    row.forEach((score, j) => {
      const past = order.slice(0, now - 1).some(([from, to]) => from <= j && j < to);
      const held = tile[0] <= j && j < tile[1];
      const place = { x: left + j * cell + 1, y: y + 1, width: cell - 2, height: ROW - 2, rx: 3 };
      const strength = `--strength:${Math.min(70, 28 * Math.abs(score)).toFixed(1)}%`;
      if (!held) shape("rect", { ...place, class: past ? "figure-chip" : "figure-chip off" }, svg);
      else if (score === -Infinity) shape("rect", { ...place, class: "figure-cell off" }, svg);
      else shape("rect", { ...place, class: score < 0 ? "figure-cell negative" : "figure-cell", style: strength }, svg);
      if (held) label(svg, left + (j + 0.5) * cell, y + 20, score === -Infinity ? "−∞" : fixed(score, 1), { anchor: "middle" });
    });
  });
  const frame = { x: left + tile[0] * cell, y: 26, width: (tile[1] - tile[0]) * cell, height: scores.length * ROW, rx: 4 };
  shape("rect", { ...frame, class: "figure-line" }, svg);
  label(svg, left - 8, height + 18, "v", { anchor: "end", kind: "soft" });
  values.forEach((value, j) => {
    label(svg, left + (j + 0.5) * cell, 16, `${j}`, { anchor: "middle", kind: "soft" });
    label(svg, left + (j + 0.5) * cell, height + 18, `${value}`, { anchor: "middle", kind: "soft" });
  });
  [["figure-line", "held", 0], ["figure-chip", "let go", 58], ["figure-chip off", "to come", 126]].forEach(([kind, text, x]) => {
    shape("rect", { x: left + x, y: height + 31, width: 12, height: 12, rx: 2, class: kind }, svg);
    label(svg, left + x + 17, height + 42, text, { kind: "soft" });
  });
}

/** What each query keeps after the tile: maximum, factor for the old, sum, mixture; and the result so far. */
function running(f, wide, kept, who) {
  const svg = f.svg(26 + kept.length * ROW, "What each query keeps: maximum, factor for the old, sum, mixture, result so far", wide);
  const left = wide < 300 ? 22 : 30;
  const cell = (wide - left) / 5;
  const right = (n) => left + (n + 1) * cell - 4;
  ["max", "× old", "sum", "mix", "result"].forEach((name, n) => label(svg, right(n), 16, name, { anchor: "end", kind: "soft" }));
  kept.forEach(({ top, shrink, sum, mix }, i) => {
    const y = 26 + i * ROW;
    const kind = i === who ? "strong" : "";
    shape("line", { x1: 0, x2: wide, y1: y, y2: y, class: "figure-grid" }, svg);
    label(svg, left - 8, y + 20, `${i}`, { anchor: "end", kind: kind || "soft" });
    const numbers = [top === -Infinity ? "−∞" : fixed(top), fixed(shrink), fixed(sum), fixed(mix), sum ? fixed(mix / sum) : "none"];
    numbers.forEach((text, n) => label(svg, right(n), y + 20, text, { anchor: "end", kind }));
  });
}
