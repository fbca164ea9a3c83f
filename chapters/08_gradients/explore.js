// Chapter 8: walk a small graph backwards, one node at a time; then go downhill in a valley, with a rate and a momentum.
import { axes, dot, figure, fixed, label, line, shape } from "../../grader/book/static/kit.js";

export const defaults = { "a": 2, "b": -3, "start": [1, 1] };

/** The graph L = (a b + 10) a: values and gradients of [a, b, c, d, L], c = a b and d = c + 10, when the walk back has
 *  taken so many of its four steps: dL = 1, then L, d and c hand on. What nothing has reached has the gradient null. */
export function backward(a, b, steps) {
  const [c, d] = [a * b, a * b + 10];
  const grads = [null, null, null, null, null];
  if (steps > 0) grads[4] = 1;
  if (steps > 1) [grads[3], grads[0]] = [a, d];
  if (steps > 2) grads[2] = grads[3];
  if (steps > 3) [grads[0], grads[1]] = [grads[0] + grads[2] * b, grads[2] * a];
  return { values: [a, b, c, d, d * a], grads };
}

/** Points of gradient descent on the sum of curvature x^2 / 2, start included: v = momentum v + g, then x = x - lr v. */
export function descend(start, curvatures, lr, momentum, steps) {
  const [points, velocity] = [[start], start.map(() => 0)];
  for (let step = 0; step < steps; step++) {
    points.push(points.at(-1).map((x, i) => {
      velocity[i] = momentum * velocity[i] + curvatures[i] * x;
      return x - lr * velocity[i];
    }));
  }
  return points;
}

/** The sum of curvature x^2 / 2 at a point. */
export function loss(point, curvatures) {
  return point.reduce((sum, x, i) => sum + (curvatures[i] * x * x) / 2, 0);
}

/** The rate from which on descent with momentum does not come to rest: 2 (1 + momentum) / curvature. */
export function limit(curvature, momentum) {
  return (2 * (1 + momentum)) / curvature;
}

/** The first of the points of which all coordinates are nearer to 0 than `near`, or -1. */
export function arrival(points, near = 0.001) {
  return points.findIndex((point) => point.every((x) => Math.abs(x) < near));
}

const NODES = ["a", "b", "c = a·b", "d = c + 10", "L = d·a"];
const plain = (value) => String(value).replace("-", "−"); // whole numbers and their products: nothing to round
const STEPS = 60;
const FAR = 1.5;

export default {
  render({ model, el }) {
    const f = figure({ el, model, defaults }, "Where a gradient comes from, and where it leads");
    const back = f.slider({ name: "back", label: "Steps of the walk back", min: 0, max: 4, value: 1 });
    const a = f.slider({ name: "a", label: "a", min: -4, max: 4, value: f.given("a"), show: plain });
    const b = f.slider({ name: "b", label: "b", min: -4, max: 4, value: f.given("b"), show: plain });
    const lr = f.slider({ name: "lr", label: "Learning rate", min: 0.01, max: 0.3, step: 0.01, value: 0.1, show: fixed });
    const momentum = f.slider({ name: "momentum", label: "Momentum", min: 0, max: 0.95, step: 0.05, value: 0, show: fixed });
    const curvature = f.slider({ name: "curvature", label: "Curvature across the valley", min: 1, max: 40, value: 10 });

    f.drawn((width) => {
      const walk = backward(a(), b(), back());
      graph(f, width, walk, back());
      const curvatures = [1, curvature()];
      const points = descend(f.given("start"), curvatures, lr(), momentum(), STEPS);
      valley(f, width, points, curvatures);
      losses(f, points.map((point) => loss(point, curvatures)));
      f.say(`${told(walk, back())} ${travelled(f.given("start"), curvatures, lr(), momentum())}`);
    });
  },
};

/** What the last step of the walk back did. */
function told({ values: [a, b, , d], grads }, steps) {
  const [A, B, D] = [a, b, d].map((value) => (value < 0 ? `(${plain(value)})` : plain(value)));
  if (steps === 0) return "Only the values are known.";
  if (steps === 1) return "The walk starts at L, whose gradient is 1.";
  if (steps === 2) return `L = d·a hands 1 · ${A} = ${plain(a)} to d, and 1 · ${D} = ${plain(d)} to a.`;
  if (steps === 3) return `d = c + 10 hands ${A} · 1 = ${plain(a)} to c.`;
  return `c = a·b hands ${A} · ${B} = ${plain(a * b)} to a and ${A} · ${A} = ${plain(a * a)} to b. ` +
    `All is known: a has ${plain(d)} ${a * b < 0 ? "−" : "+"} ${plain(Math.abs(a * b))} = ${plain(grads[0])}, b has ${plain(grads[1])}.`;
}

/** How the descent ends. */
function travelled(start, curvatures, lr, momentum) {
  const most = limit(Math.max(...curvatures), momentum);
  const rule = `${momentum > 0 ? "2(1 + momentum)/curvature" : "2/curvature"} = ${fixed(most, 3)}`;
  if (lr > most + 1e-9) return `Downhill: the rate ${fixed(lr)} is above ${rule}, and the descent explodes.`;
  if (lr > most - 1e-9) return `Downhill: the rate ${fixed(lr)} is exactly ${rule}, and the point jumps to and fro for ever.`;
  const steps = arrival(descend(start, curvatures, lr, momentum, 2000));
  const when = steps < 0 ? "even 2000 steps do not bring both" : `after ${steps} steps both`;
  return `Downhill: the rate ${fixed(lr)} is below ${rule}, and ${when} coordinates ${steps < 0 ? "below" : "are below"} 0.001.`;
}

/** The graph: each node with its value and, below, its gradient. */
function graph(f, width, { values, grads }, steps) {
  const svg = f.svg(214, "The graph of L = (ab + 10) a with values and gradients");
  const box = { width: Math.min(116, width / 4 - 6), height: 64 };
  const X = (column) => (column * (width - box.width)) / 3;
  const places = [[X(0), 12], [X(0), 138], [X(1), 76], [X(2), 76], [X(3), 76]];
  const right = (i) => places[i][0] + box.width;
  const [top, bottom] = [(i) => places[i][1], (i) => places[i][1] + box.height];
  const edges = [[`M${right(0)} 66L${X(1) + 12} 76`, 4], [`M${right(1)} 150L${X(1) + 12} ${bottom(2)}`, 4],
    [`M${right(2)} 108L${X(2)} 108`, 3], [`M${right(3)} 108L${X(3)} 108`, 2],
    [`M${right(0)} 30L${X(3) + box.width / 2} 30L${X(3) + box.width / 2} ${top(4)}`, 2]];
  for (const [path, when] of edges) shape("path", { d: path, class: `figure-line ${steps >= when ? "second" : "soft"}` }, svg);
  NODES.forEach((name, i) => {
    const [x, y] = places[i];
    shape("rect", { x, y, ...box, rx: 8, class: `figure-chip ${grads[i] === null ? "" : "second"}` }, svg);
    const middle = { anchor: "middle" };
    label(svg, x + box.width / 2, y + 18, width < 420 ? name[0] : name, { ...middle, kind: "soft" });
    label(svg, x + box.width / 2, y + 36, plain(values[i]), middle);
    label(svg, x + box.width / 2, y + 55, grads[i] === null ? "–" : plain(grads[i]), { ...middle, kind: "strong" });
  });
  const made = width < 420 ? "c = a·b, d = c + 10, L = d·a. " : "";
  f.html("p", {}, `${made}In each box: the value, and below it the gradient once it has arrived.`);
}

/** The valley from above: lines of equal loss, and the points of the descent as long as they are in sight. */
function valley(f, width, points, curvatures) {
  const range = [-FAR, FAR];
  const plot = axes(f, { x: range, y: range, height: 260, names: ["along the valley, curvature 1", "across"],
    ticks: { x: [-1, 0, 1], y: [-1, 0, 1] }, title: "The valley from above with the way of the descent" });
  for (const share of [0.02, 0.1, 0.3, 0.6, 1]) {
    const most = 2 * share * loss([1, 1], curvatures);
    const reach = Math.min(FAR, Math.sqrt(most));
    const xs = Array.from({ length: 81 }, (_, i) => reach * Math.sin(((i - 40) / 40) * (Math.PI / 2)));
    for (const sign of [1, -1]) {
      const level = xs.map((x) => [x, sign * Math.sqrt(Math.max(0, most - x * x) / curvatures[1])]);
      line(plot, level, "off").setAttribute("style", "opacity:0.45");
    }
  }
  const lost = points.findIndex((point) => point.some((x) => Math.abs(x) > FAR));
  const seen = lost < 0 ? points : points.slice(0, lost);
  line(plot, lost <= 0 ? seen : [...seen, border(points[lost - 1], points[lost])]);
  seen.forEach((point, i) => dot(plot, point, i ? "" : "second", i ? 3 : 6));
  if (lost >= 0) f.html("p", {}, `In step ${lost} the point leaves the picture.`);
}

/** Where the way from a point inside the picture to one outside crosses its border. */
function border(inside, outside) {
  const shares = inside.map((x, i) => (Math.abs(outside[i]) > FAR ? (Math.sign(outside[i]) * FAR - x) / (outside[i] - x) : 1));
  return inside.map((x, i) => x + Math.min(...shares) * (outside[i] - x));
}

/** The loss, step by step. */
function losses(f, all) {
  const plot = axes(f, { x: [0, STEPS], y: [1e-8, 100], height: 180, names: ["step", "loss"], log: { y: true },
    title: "The loss, step by step" });
  line(plot, all.map((value, step) => [step, Math.min(100, Math.max(1e-8, value))]));
}
