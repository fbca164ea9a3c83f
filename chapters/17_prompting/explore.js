// Chapter 17: a prompt leans before it has read the query; divide the lean out. A vote of several samples. And a layer that
// learns from the shots without a change of its weights.
import { axes, dot, figure, fixed, label, line, shape } from "../../grader/book/static/kit.js";

export const defaults = {
  "lexicon": {
    "best": 1, "laughed": 1, "love": 1.5, "clever": 1, "great": 1.5, "moving": 0.5, "fun": 1,
    "dull": -1.5, "holes": -1, "worst": -1.5, "slept": -1, "loud": -0.5, "wooden": -1, "long": -0.5
  },
  "shots": {
    "bad": ["A plot with more holes than scenes.", "Two hours, and it felt long.", "Wooden from start to end."],
    "good": ["I laughed twice, and I am hard to please.", "A clever little film.", "Great fun for a rainy day."]
  },
  "reviews": [
    ["I love the old cinema scene.", 1], ["The best ending of the year.", 1],
    ["Moving, and never sweet.", 1], ["Fun, if a bit loud.", 1],
    ["I slept well.", 0], ["Dull, dull, dull.", 0], ["Loud and long.", 0], ["The worst wig in film.", 0]
  ],
  "priors": { "bad": -3.6, "good": -3, "awful": -5.2, "superb": -5.6, "negative": -5, "positive": -4.4 },
  "xs": [-1.6, 0.9, 1.7, -0.5, 0.3, -1.1, 1.2, -2],
  "ys": [-1.3, 1, 1.2, -0.2, 0.1, -1.2, 0.9, -1.4]
};

const QUERY = "A dull film, but I laughed.";
const EMPTY = "N/A";
const WORDS = { usual: ["bad", "good"], rare: ["awful", "superb"], formal: ["negative", "positive"] };
const ORDERS = { "0111": "bad, good, good, good", "1110": "good, good, good, bad", "01": "bad, good", "10": "good, bad",
  "1000": "good, bad, bad, bad", "": "no shots" };

/** The few-shot prompt: instruction, shots as [text, label], and the query with its answer left open, without a last space. */
export function prompt(instruction, shots, query, words) {
  const block = (text, answer) => `Review: ${text.trim()}\nMood:${answer}`;
  const head = instruction.trim() ? [instruction.trim()] : [];
  return [...head, ...shots.map(([text, which]) => block(text, ` ${words[which]}`)), block(query, "")].join("\n\n");
}

/** Stand-in for a model: each label's log-score, from how common its word is, its share of the shots, whether it stands last, the query. */
export function scores(query, labels, priors, lexicon) {
  const known = (query.toLowerCase().match(/[a-z]+/g) ?? []).filter((word) => Object.hasOwn(lexicon, word));
  const found = known.reduce((sum, word) => sum + lexicon[word], 0);
  return priors.map((prior, k) => {
    const share = labels.length ? labels.filter((each) => each === k).length / labels.length : 0;
    return prior + 1.2 * share + (labels.at(-1) === k ? 0.8 : 0) + (k === 1 ? found / 2 : -found / 2);
  });
}

/** Probabilities of the labels: the softmax of their scores, over the labels alone. */
export function classify(values) {
  const top = Math.max(...values);
  const powers = values.map((value) => Math.exp(value - top));
  const sum = powers.reduce((a, b) => a + b, 0);
  return powers.map((each) => each / sum);
}

/** Calibration: p / q, made to sum to one, where q is what a query without content gets. */
export function calibrate(p, q) {
  const ratio = p.map((each, k) => each / q[k]);
  const sum = ratio.reduce((a, b) => a + b, 0);
  return ratio.map((each) => each / sum);
}

/** How often a vote of n is right, each vote right with probability p; at a tie the first vote decides. */
export function majority(p, n) {
  let [total, ways] = [0, 1];
  for (let k = 0; k <= n; k++) {
    const chance = ways * p ** k * (1 - p) ** (n - k);
    total += 2 * k > n ? chance : 2 * k === n ? chance / 2 : 0;
    ways = (ways * (n - k)) / (k + 1);
  }
  return total;
}

/** Mean squared error of the line y = w x on the shots, halved, and its slope in w. */
export function shotLoss(w, xs, ys) {
  const off = xs.map((x, i) => w * x - ys[i]);
  const mean = (all) => all.reduce((a, b) => a + b, 0) / all.length;
  return { loss: mean(off.map((r) => (r * r) / 2)), slope: mean(off.map((r, i) => r * xs[i])) };
}

/** What each shot gives to the prediction, as attention without a softmax: (eta / n) y_i x_i x_query. */
export function linearAttention(xs, ys, query, eta) {
  return xs.map((x, i) => (eta / xs.length) * ys[i] * x * query);
}

/** The prediction of softmax attention: the targets, weighted by the softmax of x_i x_query. */
export function softmaxAttention(xs, ys, query) {
  const weights = classify(xs.map((x) => x * query));
  return weights.reduce((sum, weight, i) => sum + weight * ys[i], 0);
}

const PANELS = { lean: "a prompt that leans", vote: "a vote of samples", shots: "learning from shots" };

export default {
  render({ model, el }) {
    const f = figure({ el, model, defaults }, "What a prompt does, and how far to trust it");
    const panel = f.choice({ name: "panel", label: "Look at", options: Object.entries(PANELS) });
    const draw = { lean: leanPanel(f, () => panel() === "lean"), vote: votePanel(f, () => panel() === "vote"),
      shots: shotsPanel(f, () => panel() === "shots") };
    f.drawn((width) => draw[panel()](width));
  },
};

/** A prompt, what the stand-in makes of the query and of nothing, and both divided. */
function leanPanel(f, when) {
  const query = f.text({ name: "query", label: "The query, a review", value: QUERY, when });
  const order = f.choice({ name: "shots", label: "Labels of the shots, in order", options: Object.entries(ORDERS), value: "0111", when });
  const word = f.choice({ name: "words", label: "Words for the labels",
    options: Object.entries(WORDS).map(([key, pair]) => [key, pair.join(", ")]), when });
  return (width) => {
    const [labels, words] = [[...order()].map(Number), WORDS[word()]];
    const used = [0, 0];
    const shots = labels.map((k) => [f.given("shots")[["bad", "good"][k]][used[k]++], k]);
    f.html("pre", { style: "white-space:pre-wrap;width:100%;margin:0;padding:0.6rem;font-size:0.85rem" },
      prompt(`Say whether the review is ${words[1]} or ${words[0]}.`, shots, query(), words));
    const priors = words.map((each) => f.given("priors")[each]);
    const ask = (text) => classify(scores(text, labels, priors, f.given("lexicon")));
    const [plain, lean] = [ask(query()), ask(EMPTY)];
    const mended = calibrate(plain, lean);
    const reviews = f.given("reviews");
    const right = (how) => reviews.filter(([text, truth]) => how(ask(text))[truth] > 0.5).length;
    const [before, after] = [right((each) => each), right((each) => calibrate(each, lean))];
    rows(f, width, [
      [`“${words[1]}” after ${EMPTY}: the lean`, lean[1], fixed(lean[1]), "second"],
      [`“${words[1]}” after the query`, plain[1], fixed(plain[1]), ""],
      [`“${words[1]}” calibrated`, mended[1], fixed(mended[1]), "third"],
      [`${reviews.length} reviews as they stand`, before / reviews.length, `${before} right`, ""],
      [`${reviews.length} reviews calibrated`, after / reviews.length, `${after} right`, "third"],
    ]);
    f.html("p", {}, "A small stand-in for a model: its lean is the same for every query, so the division removes all of it.");
    const verdict = mended[1] > 0.5 ? words[1] : words[0];
    f.say(`“${words[1]}” gets ${fixed(plain[1])} for the query and ${fixed(lean[1])} for ${EMPTY}; ` +
      `calibrated it is ${fixed(mended[1])}, so the verdict is “${verdict}”. ` +
      `Of ${reviews.length} reviews ${before} are right as they stand and ${after} calibrated.`);
  };
}

/** Accuracy of a vote. */
function votePanel(f, when) {
  const p = f.slider({ name: "p", label: "A sample is right with", min: 0.3, max: 0.9, step: 0.05, value: 0.6, show: fixed, when });
  const n = f.slider({ name: "n", label: "Samples that vote", min: 1, max: 41, value: 5, when });
  return () => {
    vote(f, p(), n());
    f.say(`A vote of ${n()}, each right with ${fixed(p())}, is right with ${fixed(majority(p(), n()), 3)}. ` +
      (p() > 0.5 ? "In the end more votes lead to 1." : p() < 0.5 ? "In the end more votes lead to 0." : "No number of votes helps."));
  };
}

/** Shots (x, y): one gradient step on them, and the same prediction as a sum of what each shot gives. */
function shotsPanel(f, when) {
  const most = f.given("xs").length;
  const n = f.slider({ name: "seen", label: "Shots in the prompt", min: 1, max: most, value: Math.min(3, most), when });
  const query = f.slider({ name: "at", label: "The query x", min: -2, max: 2, step: 0.1, value: 1.5, show: (v) => fixed(v, 1), when });
  const eta = f.slider({ name: "eta", label: "Step size η", min: 0, max: 1.5, step: 0.05, value: 0.6, show: fixed, when });
  const moved = f.slider({ name: "target", label: "Target y of shot 1", min: -2, max: 2, step: 0.1, value: f.given("ys")[0],
    show: (v) => fixed(v, 1), when });
  return (width) => {
    const [xs, ys] = [f.given("xs").slice(0, n()), f.given("ys").map((y, i) => (i ? y : moved())).slice(0, n())];
    const parts = linearAttention(xs, ys, query(), eta());
    const given = parts.reduce((a, b) => a + b, 0);
    const [before, w] = [shotLoss(0, xs, ys), -eta() * shotLoss(0, xs, ys).slope];
    const beside = width >= 560;
    points(f, beside ? 380 : width, xs, ys, w, query());
    contributions(f, beside ? width - 396 : width, parts, given);
    f.html("p", {}, "Line: y = w x after one step from w = 0. Square: the query. Bars: what each shot gives to the prediction.");
    f.say(`The ${n() > 1 ? `${n()} shots give` : "one shot gives"} ${fixed(given)} in all for the query. ` +
      `One gradient step on them leads from w = 0 to w = ${fixed(w, 3)}, and w x is the same number; no weight of the layer has changed. ` +
      `The loss on the shots goes from ${fixed(before.loss)} to ${fixed(shotLoss(w, xs, ys).loss)}. ` +
      `With a softmax the prediction would be ${fixed(softmaxAttention(xs, ys, query()))}.`);
  };
}

/** Bars from 0 to 1, each under its name, with a line at one half. */
function rows(f, width, all) {
  const svg = f.svg(all.length * 40 + 2, "Probability of the second label, and accuracy on the reviews, before and after calibration");
  const X = (value) => value * width;
  all.forEach(([name, value, shown, kind], i) => {
    label(svg, 0, i * 40 + 14, name);
    shape("rect", { x: 0, y: i * 40 + 20, width: Math.max(1, X(value)), height: 13, rx: 3, class: `figure-bar ${kind}`.trim() }, svg);
    shape("line", { x1: X(0.5), x2: X(0.5), y1: i * 40 + 19, y2: i * 40 + 34, class: "figure-line off" }, svg);
    label(svg, width - 1, i * 40 + 14, shown, { anchor: "end" });
  });
}

/** Accuracy of a vote against the number of votes. */
function vote(f, p, n) {
  const plot = axes(f, { x: [1, 41], y: [0, 1], height: 210, names: ["samples that vote", "vote is right"],
    title: "Accuracy of a vote", ticks: { x: [1, 11, 21, 31, 41], y: [0, 0.5, 1] } });
  line(plot, Array.from({ length: 41 }, (_, i) => [i + 1, majority(p, i + 1)]));
  dot(plot, [n, majority(p, n)], "", 6);
}

/** The shots as dots, the line that one step has learned, and the query on it. */
function points(f, wide, xs, ys, w, query) {
  const plot = axes({ svg: (height, title) => f.svg(height, title, wide) }, { x: [-2.2, 2.2], y: [-3, 3], height: 230, names: ["x", "y"],
    ticks: { x: [-2, -1, 0, 1, 2], y: [-3, -2, -1, 0, 1, 2, 3] }, title: "Shots, and the line of one gradient step" });
  const reach = Math.min(2.2, 3 / Math.max(Math.abs(w), 1e-9));
  line(plot, [[-reach, -reach * w], [reach, reach * w]]);
  xs.forEach((x, i) => {
    dot(plot, [x, ys[i]], "second");
    label(plot.svg, plot.X(x) + 8, plot.Y(ys[i]) + (ys[i] > w * x ? -5 : 15), `${i + 1}`);
  });
  const end = Math.max(-3, Math.min(3, w * query));
  line(plot, [[query, 0], [query, end]], "soft dashed");
  shape("rect", { x: plot.X(query) - 6, y: plot.Y(end) - 6, width: 12, height: 12, rx: 2, class: "figure-bar third" }, plot.svg);
}

/** What each shot gives, to the right of the middle if positive; and the sum. */
function contributions(f, wide, parts, sum) {
  const rows = [...parts.map((part, i) => [`shot ${i + 1}`, part, ""]), ["sum", sum, "third"]];
  const svg = f.svg(10 + rows.length * 25, "What each shot gives to the prediction", wide);
  const [left, right] = [56, wide - 48];
  const most = Math.max(...rows.map(([, value]) => Math.abs(value)), 0.5);
  const X = (value) => (left + right) / 2 + (value / most) * ((right - left) / 2);
  shape("line", { x1: X(0), x2: X(0), y1: 4, y2: 4 + rows.length * 25, class: "figure-grid" }, svg);
  rows.forEach(([name, value, kind], i) => {
    const y = 6 + i * 25;
    label(svg, left - 8, y + 15, name, { anchor: "end", kind: kind && "strong" });
    const place = { x: Math.min(X(0), X(value)), y: y + 2, width: Math.max(1, Math.abs(X(value) - X(0))), height: 16, rx: 2 };
    shape("rect", { ...place, class: `figure-bar ${kind}`.trim() }, svg);
    label(svg, wide, y + 15, fixed(value), { anchor: "end", kind: kind && "strong" });
  });
}
