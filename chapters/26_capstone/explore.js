// Chapter 26: pick a family, change its settings, and see its parameters, its memory and the cards that it fits on.
import { bars, figure, fixed, label, shape } from "../../grader/book/static/kit.js";

export const defaults = {
  "families": {
    "gpt2": {
      "norm": "layer", "positions": "learned", "ffn": "gelu", "bias": true, "tied": true, "window": null, "full_every": 0,
      "n_experts": 0, "top_k": 0, "n_shared": 0, "vocab_size": 50257, "T_max": 1024, "d_model": 768, "n_layers": 12, "n_heads": 12,
      "n_kv_heads": 12, "head_dim": 64, "d_ff": 3072
    },
    "gpt2-xl": {
      "norm": "layer", "positions": "learned", "ffn": "gelu", "bias": true, "tied": true, "window": null, "full_every": 0,
      "n_experts": 0, "top_k": 0, "n_shared": 0, "vocab_size": 50257, "T_max": 1024, "d_model": 1600, "n_layers": 48, "n_heads": 25,
      "n_kv_heads": 25, "head_dim": 64, "d_ff": 6400
    },
    "llama-2-7b": {
      "norm": "rms", "positions": "rope", "ffn": "swiglu", "bias": false, "tied": false, "window": null, "full_every": 0,
      "n_experts": 0, "top_k": 0, "n_shared": 0, "vocab_size": 32000, "T_max": 4096, "d_model": 4096, "n_layers": 32, "n_heads": 32,
      "n_kv_heads": 32, "head_dim": 128, "d_ff": 11008
    },
    "llama-3-8b": {
      "norm": "rms", "positions": "rope", "ffn": "swiglu", "bias": false, "tied": false, "window": null, "full_every": 0,
      "n_experts": 0, "top_k": 0, "n_shared": 0, "vocab_size": 128256, "T_max": 8192, "d_model": 4096, "n_layers": 32, "n_heads": 32,
      "n_kv_heads": 8, "head_dim": 128, "d_ff": 14336
    },
    "mistral-7b": {
      "norm": "rms", "positions": "rope", "ffn": "swiglu", "bias": false, "tied": false, "window": 4096, "full_every": 0,
      "n_experts": 0, "top_k": 0, "n_shared": 0, "vocab_size": 32000, "T_max": 32768, "d_model": 4096, "n_layers": 32, "n_heads": 32,
      "n_kv_heads": 8, "head_dim": 128, "d_ff": 14336
    },
    "gemma-2b": {
      "norm": "rms", "positions": "rope", "ffn": "geglu", "bias": false, "tied": true, "window": null, "full_every": 0,
      "n_experts": 0, "top_k": 0, "n_shared": 0, "vocab_size": 256000, "T_max": 8192, "d_model": 2048, "n_layers": 18, "n_heads": 8,
      "n_kv_heads": 1, "head_dim": 256, "d_ff": 16384
    },
    "gemma-7b": {
      "norm": "rms", "positions": "rope", "ffn": "geglu", "bias": false, "tied": true, "window": null, "full_every": 0,
      "n_experts": 0, "top_k": 0, "n_shared": 0, "vocab_size": 256000, "T_max": 8192, "d_model": 3072, "n_layers": 28, "n_heads": 16,
      "n_kv_heads": 16, "head_dim": 256, "d_ff": 24576
    },
    "mixtral-8x7b": {
      "norm": "rms", "positions": "rope", "ffn": "swiglu", "bias": false, "tied": false, "window": null, "full_every": 0,
      "n_experts": 8, "top_k": 2, "n_shared": 0, "vocab_size": 32000, "T_max": 32768, "d_model": 4096, "n_layers": 32, "n_heads": 32,
      "n_kv_heads": 8, "head_dim": 128, "d_ff": 14336
    },
    "your own": {
      "norm": "rms", "positions": "rope", "ffn": "swiglu", "bias": false, "tied": true, "window": null, "full_every": 0,
      "n_experts": 0, "top_k": 0, "n_shared": 0, "vocab_size": 414, "head_dim": 12, "T_max": 40, "d_model": 48, "n_layers": 2,
      "n_heads": 4, "n_kv_heads": 4, "d_ff": 128
    }
  },
  "cards": [8, 16, 24, 80]
};

const GIB = 2 ** 30;

/** How many matrices a feed-forward network has of (F, D): the value, and a gate if there is one. */
const into = (config) => (config.ffn === "gelu" ? 1 : 2);

/** Parameters by part, their total, and the active ones: all but the experts that a token passes by. */
export function familyParams(config) {
  const { vocab_size: V, d_model: D, d_ff: F, n_layers: L, n_experts: E } = config;
  const [Q, K] = [config.n_heads * config.head_dim, config.n_kv_heads * config.head_dim];
  const bias = Number(config.bias);
  const ffn = (into(config) + 1) * D * F + bias * (into(config) * F + D);
  const counts = {
    embedding: V * D * (config.tied ? 1 : 2) + (config.positions === "learned" ? config.T_max * D : 0),
    attention: L * (2 * D * Q + 2 * D * K + bias * (Q + 2 * K + D)),
    mlp: L * (E ? (E + config.n_shared) * ffn + D * E : ffn),
    norm: (2 * L + 1) * (config.norm === "layer" ? 2 * D : D),
  };
  const total = counts.embedding + counts.attention + counts.mlp + counts.norm;
  return { ...counts, total, active: total - (E ? L * (E - config.top_k) * ffn : 0) };
}

/** Operations to read one token, about: a multiplication and an addition for each active parameter. */
export function tokenFlops(config) {
  return 2 * familyParams(config).active;
}

/** Bytes of the weights, of the cache of `batch` conversations of `seq` tokens, and of both; a window caps a layer's tokens. */
export function familyMemory(config, batch, seq, wBits = 16, kvBits = 16) {
  let tokens = 0;
  for (let layer = 0; layer < config.n_layers; layer++) {
    const whole = config.window === null || (config.full_every && (layer + 1) % config.full_every === 0);
    tokens += whole ? seq : Math.min(seq, config.window);
  }
  const weights = Math.ceil((familyParams(config).total * wBits) / 8);
  const kv = Math.ceil((batch * tokens * 2 * config.n_kv_heads * config.head_dim * kvBits) / 8);
  return { weights, kv, total: weights + kv };
}

/** The longest conversation, up to T_max, with which `batch` of them fit into so many GiB; 0 if the weights do not. */
export function fits(config, gib, batch = 1, wBits = 16, kvBits = 16) {
  let [low, high] = [0, config.T_max];
  while (low < high) {
    const middle = Math.floor((low + high + 1) / 2);
    if (familyMemory(config, batch, middle, wBits, kvBits).total <= gib * GIB) low = middle;
    else high = middle - 1;
  }
  return low;
}

const HEADS = { published: "as published", each: "one for each query head", one: "one for all query heads" };
const WINDOWS = { published: "as published", all: "1,024 tokens", some: "1,024, but every 4th layer all", none: "none" };
const BITS = { "16 16": "16 and 16", "4 16": "4 and 16", "16 4": "16 and 4", "4 4": "4 and 4" };

export default {
  render({ model, el }) {
    const f = figure({ el, model, defaults }, "One formula, many families");
    const families = Object.keys(f.given("families"));
    const start = families.includes("llama-3-8b") ? "llama-3-8b" : families[0];
    const family = f.choice({ name: "family", label: "Family", options: families.map((name) => [name, name]), value: start });
    const few = { min: 0.25, max: 2, step: 0.25, value: 1, show: fixed };
    const layers = f.slider({ name: "layers", label: "Layers, times those published", ...few });
    const heads = f.choice({ name: "heads", label: "Key-value heads", options: Object.entries(HEADS) });
    const window = f.choice({ name: "window", label: "Window", options: Object.entries(WINDOWS) });
    const bits = f.choice({ name: "bits", label: "Bits of weights and of cache", options: Object.entries(BITS) });
    const count = (k) => String(2 ** k);
    const chats = f.slider({ name: "chats", label: "Full conversations at once", min: 0, max: 6, value: 0, show: count });

    f.drawn((width) => {
      const config = changed(f.given("families")[family()], layers(), heads(), window());
      const [batch, [wBits, kvBits]] = [2 ** chats(), bits().split(" ").map(Number)];
      const counts = familyParams(config);
      const memory = familyMemory(config, batch, config.T_max, wBits, kvBits);
      const values = [counts.embedding, counts.attention, counts.mlp, counts.norm];
      f.html("p", {}, `Parameters in millions: ${millions(counts.total)}`);
      const names = ["embedding", "attention", "networks", "norms"];
      bars(f, { values, names, shown: values.map(millions), title: "Parameters by part, in millions" });
      const most = f.given("cards").map((gib) => [gib, fits(config, gib, batch, wBits, kvBits)]);
      drawCards(f, width, most, memory, config.T_max);
      const good = most.filter(([gib]) => memory.total <= gib * GIB).map(([gib]) => gib);
      const idle = counts.active < counts.total ? `, of which a token uses ${grouped(counts.active)}` : "";
      const token = familyMemory(config, 1, 1, wBits, kvBits).kv;
      f.say(`${config.n_layers} layers, ${grouped(counts.total)} parameters${idle}: about ` +
        `${grouped(tokenFlops(config) / 1e6, counts.total < 1e9 ? 1 : 0)} million operations a token. ` +
        `The weights take ${size(memory.weights)}; the cache takes ${size(token)} a token and ${size(memory.kv)} for ` +
        `${batch} × ${grouped(config.T_max)} tokens. ` +
        (good.length ? `All this fits on cards from ${good[0]} GiB.` : "All this fits on none of these cards."));
    });
  },
};

/** A configuration with other layers, key-value heads and windows. */
function changed(config, times, heads, window) {
  const other = { ...config, n_layers: Math.max(1, Math.round(config.n_layers * times)) };
  if (heads !== "published") other.n_kv_heads = heads === "one" ? 1 : config.n_heads;
  if (window !== "published") Object.assign(other, { window: window === "none" ? null : 1024, full_every: window === "some" ? 4 : 0 });
  return other;
}

const grouped = (value, decimals = 0) => value.toLocaleString("en", { minimumFractionDigits: decimals, maximumFractionDigits: decimals });
const millions = (value) => grouped(value / 1e6, value < 1e7 ? 2 : 0);

/** Bytes as GiB, MiB or KiB. */
function size(bytes) {
  const [unit, name] = bytes >= GIB / 100 ? [GIB, "GiB"] : bytes >= 2 ** 20 ? [2 ** 20, "MiB"] : [2 ** 10, "KiB"];
  return `${fixed(bytes / unit)} ${name}`;
}

/** For each card a bar as long as its memory, filled with weights and cache, and how long conversations on it may be. */
function drawCards(f, width, most, memory, T_max) {
  const svg = f.svg(28 + 50 * most.length, "How much of each card the weights and the cache fill");
  shape("rect", { x: 2, y: 5, width: 12, height: 12, rx: 3, class: "figure-bar" }, svg);
  label(svg, 20, 16, "weights");
  shape("rect", { x: 82, y: 5, width: 12, height: 12, rx: 3, class: "figure-bar second" }, svg);
  label(svg, 100, 16, "cache");
  most.forEach(([gib, tokens], row) => {
    const [y, long] = [28 + 50 * row, width - 68];
    const share = (bytes) => Math.min(1, bytes / (gib * GIB)) * long;
    const [end, filled] = [share(memory.weights), share(memory.total)];
    label(svg, 56, y + 15, `${gib} GiB`, { anchor: "end", kind: "strong" });
    shape("rect", { x: 64, y: y + 2, width: end, height: 18, class: "figure-bar" }, svg);
    shape("rect", { x: 64 + end, y: y + 2, width: filled - end, height: 18, class: "figure-bar second" }, svg);
    shape("rect", { x: 64, y: y + 2, width: long, height: 18, rx: 3, class: "figure-chip off" }, svg);
    const room = tokens === T_max ? `fits, all ${grouped(tokens)} tokens` : `room for ${grouped(tokens)} tokens each`;
    label(svg, 64, y + 37, memory.weights > gib * GIB ? "the weights alone do not fit" : room, { kind: "soft" });
  });
}
