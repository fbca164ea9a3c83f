// Chapter 12: what still fits of a conversation and what it costs; and how stretched positions keep far tokens on trained angles.
import { axes, figure, fixed, label, line, shape } from "../../grader/book/static/kit.js";

export const defaults = {
  "system": 100,
  "turns": [
    [100, 300], [200, 300], [200, 300], [200, 300], [200, 300], [200, 300], [200, 300], [200, 300], [200, 300], [200, 300],
    [200, 300], [200, 300], [200, 300], [200, 300], [200, 300], [200, 300], [200, 300], [200, 300], [200, 300], [200, 300]
  ],
  "head_width": 128,
  "base": 10000,
  "trained": 4096
};

/** The first turn that a budget keeps: whole turns, newest first, behind the head; stops at the first that does not fit. */
export function firstKept(head, turns, budget) {
  let left = budget - head;
  let first = turns.length;
  while (first > 0 && left - turns[first - 1] >= 0) left -= turns[--first];
  return first;
}

/** The bill of each turn when every request sends all that came before: new, old and written tokens, each at its price. */
export function bills(turns, priceIn, priceOut, cachedPrice) {
  let past = 0;
  return turns.map(([read, written]) => {
    const bill = read * priceIn + past * cachedPrice + written * priceOut;
    past += read + written;
    return bill;
  });
}

/** Rotary frequencies (d / 2), radians a position, stretched for a window `scale` times as long as the trained one. */
export function frequencies(d, base, scale, mode, trained, alpha = 1, beta = 32) {
  const raised = mode === "ntk" ? base * scale ** (d / (d - 2)) : base;
  const plain = Array.from({ length: d / 2 }, (_, m) => raised ** ((-2 * m) / d));
  if (mode === "linear") return plain.map((f) => f / scale);
  if (mode !== "yarn") return plain;
  return plain.map((f) => {
    const gamma = Math.min(1, Math.max(0, ((trained * f) / (2 * Math.PI) - alpha) / (beta - alpha)));
    return gamma * f + ((1 - gamma) * f) / scale;
  });
}

/** How many pairs do not get round once within the trained length and, stretched, still pass the angle that they had at its end. */
export function untrained(plain, stretched, scale, trained) {
  return plain.filter((f, m) => f * trained < 2 * Math.PI && stretched[m] * scale > f * (1 + 1e-9)).length;
}

const MODES = { none: "unchanged", linear: "linear", ntk: "NTK-aware", yarn: "YaRN" };
const MILLION = 1e6;

export default {
  render({ model, el }) {
    const f = figure({ el, model, defaults }, "What still fits, what it costs, and how to see further");
    const size = f.given("turns").length;
    const now = f.slider({ name: "turn", label: "Turn of the conversation", min: 1, max: size, value: Math.min(8, size) });
    const budget = f.slider({ name: "budget", label: "Budget, tokens", min: 400, max: 10000, step: 100, value: 2000, show: grouped });
    const cached = f.toggle({ name: "cached", label: "cached tokens at a tenth" });
    const mode = f.choice({ name: "mode", label: "Rotary positions", options: Object.entries(MODES), value: "yarn" });
    const scale = f.slider({ name: "scale", label: "Window, times trained", min: 1, max: 16, value: 4 });

    f.drawn((width) => {
      const head = f.given("system");
      const turns = f.given("turns").slice(0, now());
      // the answer of this turn is not yet there when the request is sent
      const sizes = turns.map(([read, written], i) => (i === turns.length - 1 ? read : read + written));
      const first = firstKept(head, sizes, budget());
      const sent = sizes.slice(first).reduce((a, b) => a + b, head);
      tape(f, width, head, f.given("turns"), turns.length, first);
      // the first request reads the system message as well; prices are for a million tokens
      const read = f.given("turns").map(([tokens, written], i) => [tokens + (i ? 0 : head), written]);
      const costs = bills(read, 3 / MILLION, 15 / MILLION, (cached() ? 0.3 : 3) / MILLION);
      bill(f, costs, turns.length, Math.max(...bills(read, 3 / MILLION, 15 / MILLION, 3 / MILLION)));
      const [d, base, trained] = [f.given("head_width"), f.given("base"), f.given("trained")];
      const plain = frequencies(d, base, 1, "none", trained);
      const stretched = frequencies(d, base, scale(), mode(), trained);
      wavelengths(f, plain, stretched, trained);
      const forgotten = first === 0 ? "nothing is forgotten" : `turns 1 to ${first} are forgotten, and your name with them`;
      const spent = costs.slice(0, now()).reduce((a, b) => a + b, 0);
      const beyond = untrained(plain, stretched, scale(), trained);
      const slower = plain.filter((x, m) => stretched[m] < x * (1 - 1e-9)).length;
      f.say(`Request ${now()} sends ${grouped(sent)} tokens; ${first === 1 ? "turn 1 is forgotten, and your name with it" : forgotten}. ` +
        `Sending everything, this turn costs ${fixed(costs[now() - 1], 4)} and all so far ${fixed(spent, 4)}. ` +
        `At ${scale()} times the trained length ${beyond} of ${d / 2} pairs reach angles never trained; ` +
        `${slower} turn more slowly than in training.`);
    });
  },
};

/** A whole number with commas. */
function grouped(n) {
  return n.toLocaleString("en-US");
}

/** The conversation as a tape: system message, questions and answers, as long as they are; what is not sent is empty. */
function tape(f, width, head, turns, now, first) {
  const svg = f.svg(84, "The conversation so far as a tape; turns that are not sent are empty");
  const total = turns.reduce((sum, [read, written]) => sum + read + written, head);
  let at = 0;
  const block = (tokens, kind) => {
    const long = ((width - 2) * tokens) / total;
    const style = kind.endsWith("off") ? "opacity:.4" : "";
    shape("rect", { x: 1 + at, y: 24, width: Math.max(1, long - 1), height: 30, rx: 2, class: kind, style }, svg);
    at += long;
  };
  label(svg, 0, 14, "What this request sends", { kind: "soft" });
  block(head, "figure-chip third");
  turns.slice(0, now).forEach(([read, written], i) => {
    block(read, i < first ? "figure-line off" : "figure-chip");
    if (i < now - 1) block(written, i < first ? "figure-line off" : "figure-chip second");
  });
  const words = [
    ["figure-chip third", "system", 0], ["figure-chip", "you", 66],
    ["figure-chip second", "answer", 110], ["figure-line off", "forgotten", 177],
  ];
  for (const [kind, text, x] of words) {
    shape("rect", { x: x + 1, y: 65, width: 12, height: 12, rx: 2, class: kind }, svg);
    label(svg, x + 17, 76, text, { kind: "soft" });
  }
}

/** The bill of every turn; those to come are pale. */
function bill(f, costs, now, most) {
  const names = ["turn", "bill, everything sent"];
  const plot = axes(f, { x: [0, costs.length + 0.5], y: [0, most * 1.05], height: 190, names, title: "The bill of each turn" });
  costs.forEach((cost, i) => {
    const [left, right, top] = [plot.X(i + 0.65), plot.X(i + 1.35), plot.Y(cost)];
    const place = { x: left, y: top, width: right - left, height: plot.box.bottom - top };
    shape("rect", { ...place, class: i < now ? "figure-bar" : "figure-chip" }, plot.svg);
  });
}

/** How many tokens each pair takes for one turn, trained and stretched; above the trained length it never gets round. */
function wavelengths(f, plain, stretched, trained) {
  const length = (freq) => (2 * Math.PI) / freq;
  const top = Math.max(...stretched.map(length), ...plain.map(length), trained) * 2;
  const names = ["pair of the head", "tokens for one turn"];
  const title = "Tokens that each rotary pair takes for one turn";
  const plot = axes(f, { x: [0, plain.length - 1], y: [5, top], height: 230, log: { y: true }, names, title });
  line(plot, [[0, trained], [plain.length - 1, trained]], "soft");
  label(plot.svg, plot.box.left + 6, plot.Y(trained) - 6, "trained length", { kind: "soft" });
  line(plot, plain.map((freq, m) => [m, length(freq)]), "second dashed");
  line(plot, stretched.map((freq, m) => [m, length(freq)]));
  label(plot.svg, plot.box.right - 4, plot.box.bottom - 24, "dashed: as trained", { anchor: "end", kind: "soft" });
  label(plot.svg, plot.box.right - 4, plot.box.bottom - 8, "line: stretched", { anchor: "end", kind: "soft" });
}
