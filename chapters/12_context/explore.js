// Chapter 12: what still fits of a conversation and what it costs; what a window with sinks sees and holds; and how stretched
// positions keep far tokens on trained angles.
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

/** The mask (T, T) of a window that counts the token itself and of sinks: j <= i, and i - j < window or j < sinks. */
export function visible(T, window, sinks) {
  return Array.from({ length: T }, (_, i) => Array.from({ length: T }, (_, j) => j <= i && (i - j < window || j < sinks)));
}

/** Which tokens have an influence on token i through so many layers: in each, a token hears all that it sees. */
export function reach(mask, i, layers) {
  let heard = mask.map((_, j) => j === i);
  for (let layer = 0; layer < layers; layer++) heard = mask.map((_, j) => heard.some((on, t) => on && mask[t][j]));
  return heard;
}

/** The token in each of the sinks + window slots after n tokens, -1 if empty: token t goes to sinks + (t - sinks) mod window. */
export function slots(n, window, sinks) {
  const held = Array(sinks + window).fill(-1);
  for (let t = 0; t < n; t++) held[t < sinks ? t : sinks + ((t - sinks) % window)] = t;
  return held;
}

/** The position inside the cache of what is in each slot: the tokens held, counted without a gap; -1 for an empty slot. */
export function inside(held) {
  return held.map((token) => (token < 0 ? -1 : held.filter((other) => other >= 0 && other < token).length));
}

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

const PANELS = { chat: "a conversation", window: "a window and sinks", turn: "stretched positions" };
const READ = 12;

export default {
  render({ model, el }) {
    const f = figure({ el, model, defaults }, "What still fits, what is still seen, and how to see further");
    const panel = f.choice({ name: "panel", label: "Look at", options: Object.entries(PANELS) });
    const draw = { chat: chatPanel(f, () => panel() === "chat"), window: windowPanel(f, () => panel() === "window"),
      turn: turnPanel(f, () => panel() === "turn") };
    f.drawn((width) => draw[panel()](width));
  },
};

/** What a request sends of the conversation, and the bill of each turn. */
function chatPanel(f, when) {
  const size = f.given("turns").length;
  const now = f.slider({ name: "turn", label: "Turn of the conversation", min: 1, max: size, value: Math.min(8, size), when });
  const budget = f.slider({ name: "budget", label: "Budget, tokens", min: 400, max: 10000, step: 100, value: 2000, show: grouped, when });
  const cached = f.toggle({ name: "cached", label: "cached tokens at a tenth", when });
  return (width) => {
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
    const forgotten = first === 0 ? "nothing is forgotten" : `turns 1 to ${first} are forgotten, and your name with them`;
    const spent = costs.slice(0, now()).reduce((a, b) => a + b, 0);
    f.say(`Request ${now()} sends ${grouped(sent)} tokens; ${first === 1 ? "turn 1 is forgotten, and your name with it" : forgotten}. ` +
      `Sending everything, this turn costs ${fixed(costs[now() - 1], 4)} and all so far ${fixed(spent, 4)}.`);
  };
}

/** What a window with sinks lets each token see, what the cache then holds, and how far influence reaches through layers. */
function windowPanel(f, when) {
  const newest = f.slider({ name: "newest", label: "Newest token", min: 0, max: READ - 1, value: 8, when });
  const span = f.slider({ name: "window", label: "Window", min: 1, max: 6, value: 3, when });
  const sinks = f.slider({ name: "sinks", label: "Sinks", min: 0, max: 4, value: 2, when });
  const layers = f.slider({ name: "layers", label: "Layers", min: 1, max: 6, value: 1, when });
  return (width) => {
    const i = newest();
    const mask = visible(READ, span(), sinks());
    const heard = reach(mask, i, layers());
    const held = slots(i + 1, span(), sinks());
    const positions = inside(held);
    const beside = width >= 600;
    seen(f, beside ? 336 : width, mask, heard, i, sinks());
    cache(f, beside ? width - 352 : width, held, positions, sinks());
    f.html("p", {}, "Rows: who looks; columns: what is seen; orange: sinks. Framed: the newest token; pale there: heard through layers.");
    const kept = held.filter((token) => token >= 0);
    const oldest = Math.min(...kept);
    const far = Math.max(...positions) - positions[held.indexOf(oldest)];
    const others = heard.filter(Boolean).length;
    f.say(`Token ${i} sees ${kept.length} of ${i + 1} tokens; ${i + 1 - kept.length} ${kept.length === i ? "is" : "are"} dropped. ` +
      `The oldest that it sees, ${oldest}, is ${i - oldest} away in the text and ${far} inside the cache. ` +
      `Through ${layers()} layer${layers() > 1 ? "s" : ""} it is reached from ${others} token${others > 1 ? "s" : ""}.`);
  };
}

/** Tokens for one turn of each rotary pair, as trained and stretched. */
function turnPanel(f, when) {
  const mode = f.choice({ name: "mode", label: "Rotary positions", options: Object.entries(MODES), value: "yarn", when });
  const scale = f.slider({ name: "scale", label: "Window, times trained", min: 1, max: 16, value: 4, when });
  return () => {
    const [d, base, trained] = [f.given("head_width"), f.given("base"), f.given("trained")];
    const plain = frequencies(d, base, 1, "none", trained);
    const stretched = frequencies(d, base, scale(), mode(), trained);
    wavelengths(f, plain, stretched, trained);
    const beyond = untrained(plain, stretched, scale(), trained);
    const slower = plain.filter((x, m) => stretched[m] < x * (1 - 1e-9)).length;
    f.say(`At ${scale()} times the trained length ${beyond} of ${d / 2} pairs reach angles never trained; ` +
      `${slower} turn more slowly than in training.`);
  };
}

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

/** The mask; the row of the newest token is framed, and in it what it hears through other layers is pale. */
function seen(f, wide, mask, heard, i, sinks) {
  const left = 24;
  const cell = (wide - left - 2) / mask.length;
  const tall = Math.min(24, cell);
  const svg = f.svg(24 + mask.length * tall, "Which tokens each token sees under the window and the sinks", wide);
  mask.forEach((row, t) => {
    const y = 22 + t * tall;
    label(svg, left - 6, y + tall / 2 + 4, `${t}`, { anchor: "end", kind: t === i ? "strong" : "soft" });
    if (t % 2 === 0 || cell > 20) label(svg, left + (t + 0.5) * cell, 15, `${t}`, { anchor: "middle", kind: "soft" });
    row.forEach((on, j) => {
      const colour = j < sinks ? " second" : "";
      const kind = on ? `figure-bar${colour}` : t === i && heard[j] ? `figure-chip${colour}` : "figure-chip off";
      const style = on && t > i ? "opacity:.25" : "";
      const place = { x: left + j * cell + 1, y: y + 1, width: cell - 2, height: tall - 2, rx: 2 };
      if (j <= t) shape("rect", { ...place, class: kind, style }, svg);
    });
  });
  const frame = { x: left - 1, y: 22 + i * tall - 1, width: (i + 1) * cell + 2, height: tall + 2, rx: 3 };
  shape("rect", { ...frame, class: "figure-line soft" }, svg);
}

/** The slots of the cache: the token that is in each, and its position inside the cache. */
function cache(f, wide, held, positions, sinks) {
  const svg = f.svg(112, "The slots of the cache, their tokens, and the positions inside the cache", wide);
  const left = 62;
  const cell = Math.min(34, (wide - left) / held.length);
  label(svg, 0, 14, "The cache after the newest token", { kind: "strong" });
  [["slot", 40], ["token", 67], ["position", 97]].forEach(([name, y]) => label(svg, left - 8, y, name, { anchor: "end", kind: "soft" }));
  held.forEach((token, n) => {
    const middle = left + (n + 0.5) * cell;
    const kind = token < 0 ? "figure-chip off" : n < sinks ? "figure-chip second" : "figure-chip";
    shape("rect", { x: left + n * cell + 1, y: 50, width: cell - 2, height: 26, rx: 3, class: kind }, svg);
    label(svg, middle, 40, `${n}`, { anchor: "middle", kind: "soft" });
    if (token >= 0) label(svg, middle, 67, `${token}`, { anchor: "middle", kind: "strong" });
    if (token >= 0) label(svg, middle, 97, `${positions[n]}`, { anchor: "middle" });
  });
}
