// Chapter 5: a query and a key on a line of positions. Move one, or both together, and see which scores notice.
import { axes, dot, figure, fixed, label, line, shape } from "../../grader/book/static/kit.js";

export const defaults = {
  "q": [1, 0.9, 0, 0.3],
  "k": [0.6, 0.7, 0.8, -0.5],
  "base": 100,
  "t5": [0.6, 0.4, 0.5, 0.2, 0.1, 0.2, -0.1, 0, -0.2, -0.1, -0.3, -0.2, -0.4, -0.3, -0.4, -0.5,
    -0.4, -0.6, -0.5, -0.7, -0.6, -0.8, -0.7, -0.9, -0.8, -1, -0.9, -1.1, -1, -1.1, -1.2, -1.3]
};

/** Speeds of the d/2 pairs, in radians per position: base^(-2i/d). */
export function frequencies(d, base) {
  return Array.from({ length: d / 2 }, (_, i) => base ** ((-2 * i) / d));
}

/** Row t of the sinusoidal table, (D): sine and cosine alternate. */
export function sinusoidal(t, D, base) {
  return frequencies(D, base).flatMap((speed) => [Math.sin(t * speed), Math.cos(t * speed)]);
}

/** Turn each pair of x (d) by position times its frequency; feature i pairs with i + d/2 (half-split). */
export function rope(x, position, freqs) {
  const half = x.length / 2;
  const turned = freqs.map((speed, i) => {
    const [cos, sin] = [Math.cos(position * speed), Math.sin(position * speed)];
    return [x[i] * cos - x[i + half] * sin, x[i] * sin + x[i + half] * cos];
  });
  return [...turned.map((pair) => pair[0]), ...turned.map((pair) => pair[1])];
}

/** ALiBi's slopes for H heads: 2^(-8(h+1)/P) for the largest power of two P up to H, then every other one of 2P heads. */
export function slopes(H) {
  const P = 2 ** Math.floor(Math.log2(H));
  return Array.from({ length: H }, (_, h) => 2 ** (-8 * (h < P ? (h + 1) / P : (2 * (h - P) + 1) / (2 * P))));
}

/** T5's bucket of a relative position (key minus query) in a causal model: near distances alone, far ones in widening bins. */
export function bucket(relative, buckets = 32, furthest = 128) {
  const distance = Math.max(0, -relative);
  const exact = Math.floor(buckets / 2);
  if (distance < exact) return distance;
  const share = Math.log(distance / exact) / Math.log(furthest / exact);
  return Math.min(buckets - 1, exact + Math.floor(share * (buckets - exact)));
}

/** The score of a query at m and a key at n: their product over the root of d, with positions got in by one of five doors. */
export function score(scheme, q, k, m, n, { base, slope, t5 }) {
  const product = (a, b) => a.reduce((sum, x, i) => sum + x * b[i], 0) / Math.sqrt(a.length);
  const placed = (x, t) => x.map((value, i) => value + sinusoidal(t, x.length, base)[i]);
  const freqs = frequencies(q.length, base);
  if (scheme === "sines") return product(placed(q, m), placed(k, n));
  if (scheme === "turned") return product(rope(q, m, freqs), rope(k, n, freqs));
  if (scheme === "alibi") return product(q, k) - slope * Math.max(0, m - n);
  if (scheme === "t5") return product(q, k) + t5[bucket(n - m, t5.length)];
  return product(q, k);
}

const SCHEMES = { none: "no positions", sines: "sines added", turned: "turned (RoPE)", alibi: "ALiBi", t5: "T5" };
const SHOWN = { hands: "what RoPE turns", sines: "sines by distance", turned: "RoPE by distance",
  alibi: "ALiBi by distance", t5: "T5 by distance" };

export default {
  render({ model, el }) {
    const f = figure({ el, model, defaults }, "Which scores notice where two tokens stand");
    const query = f.slider({ name: "query", label: "The query stands at", min: 0, max: 30, value: 5 });
    const key = f.slider({ name: "key", label: "The key stands at", min: 0, max: 30, value: 2 });
    const both = f.slider({ name: "both", label: "Move both on by", min: 0, max: 30, value: 0 });
    const head = f.slider({ name: "head", label: "ALiBi: head", min: 0, max: 7, value: 2, show: (h) => `${h}, slope 1/${2 ** (h + 1)}` });
    const below = f.choice({ name: "below", label: "Draw below", options: Object.entries(SHOWN), value: "hands" });

    f.drawn((width) => {
      const given = { base: f.given("base"), slope: slopes(8)[head()], t5: f.given("t5") };
      const [q, k, m, n] = [f.given("q"), f.given("k"), query() + both(), key() + both()];
      const at = (scheme, shift, back = query() - key()) => score(scheme, q, k, key() + back + shift, key() + shift, given);
      places(f, width, m, n);
      rows(f, width, Object.keys(SCHEMES).map((scheme) => [SCHEMES[scheme], at(scheme, both()), at(scheme, 0)]));
      if (below() === "hands") hands(f, width, q, k, m, n, frequencies(q.length, given.base));
      else curve(f, below(), (back, shift) => at(below(), shift, back), both(), query() - key());
      f.html("p", {}, "A stroke or a dashed line shows the score before both moved.");
      const order = m === n ? "both at the same place" : `the key ${Math.abs(m - n)} ${m > n ? "before" : "after"} the query`;
      const moved = both() === 0 ? "" : ` Moved on by ${both()}, the score with sines added goes from ${fixed(at("sines", 0))} to ` +
        `${fixed(at("sines", both()))}; all others stay: what they know is the distance, or nothing.`;
      f.say(`Query at ${m}, key at ${n}: ${order}. Scores: without positions ${fixed(at("none", 0))}, with sines added ` +
        `${fixed(at("sines", both()))}, turned ${fixed(at("turned", both()))}, with ALiBi ${fixed(at("alibi", both()))}, ` +
        `with T5 ${fixed(at("t5", both()))} (bucket ${bucket(n - m, given.t5.length)}).${moved}`);
    });
  },
};

/** The line of positions with the two tokens on it. */
function places(f, width, m, n) {
  const svg = f.svg(84, `A line of positions with the query at ${m} and the key at ${n}`);
  const X = (t) => 20 + (t * (width - 40)) / 60;
  shape("line", { x1: X(0), x2: X(60), y1: 38, y2: 38, class: "figure-grid" }, svg);
  for (const t of [0, 15, 30, 45, 60]) label(svg, X(t), 78, String(t), { anchor: "middle", kind: "soft" });
  for (let t = 0; t <= 60; t += 5) shape("line", { x1: X(t), x2: X(t), y1: 34, y2: 42, class: "figure-line soft" }, svg);
  shape("line", { x1: X(m), x2: X(n), y1: 38, y2: 38, class: "figure-line" }, svg);
  shape("circle", { cx: X(m), cy: 38, r: 7, class: "figure-dot" }, svg);
  shape("circle", { cx: X(n), cy: 38, r: 7, class: "figure-dot second" }, svg);
  label(svg, X(m), 22, "query", { anchor: m > 55 ? "end" : m < 4 ? "start" : "middle", kind: "strong" });
  label(svg, X(n), 58, "key", { anchor: "middle", kind: "strong" });
}

/** The score of each scheme as a bar to the left or right of 0; a stroke marks where it was before both moved. */
function rows(f, width, all) {
  const svg = f.svg(all.length * 26 + 6, "The score under each scheme; a stroke marks the score before both tokens moved");
  const [left, right, low, high] = [104, width - 46, -2, 3];
  const X = (value) => left + ((Math.max(low, Math.min(high, value)) - low) / (high - low)) * (right - left);
  all.forEach(([name, now, before], i) => {
    const y = 4 + i * 26;
    label(svg, left - 8, y + 15, name, { anchor: "end" });
    shape("line", { x1: X(0), x2: X(0), y1: y - 2, y2: y + 24, class: "figure-grid" }, svg);
    const noticed = Math.abs(now - before) > 1e-9;
    const place = { x: Math.min(X(0), X(now)), y: y + 2, width: Math.abs(X(now) - X(0)), height: 17, rx: 2 };
    shape("rect", { ...place, class: `figure-bar ${noticed ? "second" : ""}`.trim() }, svg);
    shape("line", { x1: X(before), x2: X(before), y1: y - 1, y2: y + 22, class: "figure-line soft" }, svg);
    label(svg, width - 2, y + 15, fixed(now), { anchor: "end", kind: noticed ? "strong" : "" });
  });
}

/** For each pair a circle with the turned query and key as hands, and what the pair adds to the product. */
function hands(f, width, q, k, m, n, freqs) {
  const svg = f.svg(178, "The turned pairs of the query and the key as hands on circles");
  const [half, room] = [q.length / 2, width / freqs.length];
  const [Q, K] = [rope(q, m, freqs), rope(k, n, freqs)];
  const longest = Math.max(...freqs.flatMap((_, i) => [Math.hypot(q[i], q[i + half]), Math.hypot(k[i], k[i + half])]));
  freqs.forEach((speed, i) => {
    const [x, y, radius] = [(i + 0.5) * room, 80, Math.min(58, room / 2 - 8)];
    label(svg, x, 14, `pair ${i}: ${fixed(speed, speed < 0.1 ? 3 : 1)} a place`, { anchor: "middle", kind: "soft" });
    shape("circle", { cx: x, cy: y, r: radius, class: "figure-chip off" }, svg);
    for (const [vector, kind] of [[Q, ""], [K, "second"]]) {
      const tip = [x + (vector[i] * radius) / longest, y - (vector[i + half] * radius) / longest];
      shape("line", { x1: x, y1: y, x2: tip[0], y2: tip[1], class: `figure-line ${kind}` }, svg);
      shape("circle", { cx: tip[0], cy: tip[1], r: 4, class: `figure-dot ${kind}` }, svg);
    }
    label(svg, x, 160, `product ${fixed(Q[i] * K[i] + Q[i + half] * K[i + half], 4)}`, { anchor: "middle" });
  });
}

/** The score against the distance, where the tokens stand now and, dashed, before both moved. */
function curve(f, scheme, at, shift, back) {
  const all = Array.from({ length: 31 }, (_, distance) => distance);
  const values = all.flatMap((distance) => [at(distance, 0), at(distance, shift)]);
  const [low, high] = [Math.min(...values), Math.max(...values)];
  const pad = 0.1 * (high - low) + 0.1;
  const plot = axes(f, { x: [0, 30], y: [low - pad, high + pad], height: 200, names: ["places between key and query", "score"],
    title: `The score with ${SCHEMES[scheme]} against the distance` });
  line(plot, all.map((distance) => [distance, at(distance, shift)]));
  line(plot, all.map((distance) => [distance, at(distance, 0)]), "second dashed");
  if (back >= 0) dot(plot, [back, at(back, shift)]);
}
