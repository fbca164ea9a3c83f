// Chapter 17: a prompt leans before it has read the query; divide the lean out. And a vote of several samples.
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
  "priors": { "bad": -3.6, "good": -3, "awful": -5.2, "superb": -5.6, "negative": -5, "positive": -4.4 }
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

export default {
  render({ model, el }) {
    const f = figure({ el, model, defaults }, "What the prompt thinks before it reads the query");
    const query = f.text({ name: "query", label: "The query, a review", value: QUERY });
    const order = f.choice({ name: "shots", label: "Labels of the shots, in order", options: Object.entries(ORDERS), value: "0111" });
    const word = f.choice({ name: "words", label: "Words for the labels",
      options: Object.entries(WORDS).map(([key, pair]) => [key, pair.join(", ")]) });
    const p = f.slider({ name: "p", label: "A sample is right with", min: 0.3, max: 0.9, step: 0.05, value: 0.6, show: fixed });
    const n = f.slider({ name: "n", label: "Samples that vote", min: 1, max: 41, value: 5 });

    f.drawn((width) => {
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
      vote(f, p(), n());
      const verdict = mended[1] > 0.5 ? words[1] : words[0];
      f.say(`“${words[1]}” gets ${fixed(plain[1])} for the query and ${fixed(lean[1])} for ${EMPTY}; ` +
        `calibrated it is ${fixed(mended[1])}, so the verdict is “${verdict}”. ` +
        `Of ${reviews.length} reviews ${before} are right as they stand and ${after} calibrated. ` +
        `A vote of ${n()}, each right with ${fixed(p())}, is right with ${fixed(majority(p(), n()), 3)}.`);
    });
  },
};

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
