// What every figure is made of: native controls with labels, SVG in the colours of the page, and one sentence in words.
//
// A figure's module imports from here by its relative path, so that Node can run it as it stands. For a page or a notebook
// the import is replaced by this file's text, because a module carried as text cannot import another one.

const NAMESPACE = "http://www.w3.org/2000/svg";
let figures = 0;

/** A figure in `el`: controls above, the drawing below, and under it the sentence that says what the drawing shows. */
export function figure({ el, model, defaults }, title) {
  const own = `figure-${++figures}`;
  const frame = node("div", { class: "figure", role: "group", "aria-labelledby": own });
  const controls = node("div", { class: "figure-controls" });
  const stage = node("div", { class: "figure-stage" });
  const words = node("p", { class: "figure-words", "aria-live": "polite" });
  frame.append(node("p", { class: "figure-title", id: own }, title), controls, stage, words);
  el.append(frame);

  let draw = () => {};
  let width = 0;
  const made = [];
  // Controls that what is drawn does not use are taken out, so that neither eye nor key meets one without effect.
  const place = (wrap, when = () => true) => (made.push([wrap, when]), sift());
  const sift = () => {
    let before = null;
    for (const [wrap, when] of made) {
      if (!when()) wrap.remove();
      else if (wrap.parentNode !== controls) before ? before.after(wrap) : controls.prepend(wrap);
      if (when()) before = wrap;
    }
  };
  const refresh = () => {
    sift();
    width = Math.max(260, Math.min(720, Math.floor(stage.clientWidth || 640)));
    stage.replaceChildren();
    draw(width);
  };
  const parts = {
    /** The value of a trait: what the notebook passed, else the figure's own. */
    given: (name) => model.get(name) ?? defaults[name],
    /** Set how the stage is drawn; `draw(width)` runs at once, and whenever a control, a trait or the width changes. */
    drawn(how) {
      draw = how;
      refresh();
      for (const name of Object.keys(defaults)) model.on(`change:${name}`, refresh);
      if (globalThis.ResizeObserver) {
        new ResizeObserver(() => Math.abs(stage.clientWidth - width) > 8 && width < 720 && refresh()).observe(stage);
      }
    },
    refresh,
    /** Say in words what is drawn. */
    say(sentence) {
      if (words.textContent !== sentence) words.textContent = sentence;
    },
    /** Add an SVG to the stage; `label` is its text alternative. */
    svg(height, label, wide = width) {
      const svg = shape("svg", { viewBox: `0 0 ${wide} ${height}`, width: wide, height, role: "img", "aria-label": label });
      stage.append(svg);
      return svg;
    },
    /** Add an HTML element to the stage. */
    html(tag, attributes = {}, text = "") {
      const added = node(tag, attributes, text);
      stage.append(added);
      return added;
    },
    /** A slider; gives a function that reads it. `show` turns the number into text. Every control takes `when`: is it there? */
    slider({ name, label, min, max, step = 1, value, show = String, when }) {
      const input = node("input", { type: "range", name, min, max, step, value });
      const shown = node("output", {}, show(Number(value)));
      place(labelled(label, input, shown), when);
      const update = () => {
        shown.textContent = show(Number(input.value));
        input.setAttribute("aria-valuetext", shown.textContent);
      };
      input.addEventListener("input", () => (update(), refresh()));
      update();
      return () => Number(input.value);
    },
    /** A list to choose one from: options are [value, text]; gives a function that reads the value. */
    choice({ name, label, options, value, when }) {
      const select = node("select", { name });
      for (const [key, text] of options) select.append(node("option", { value: key }, text));
      select.value = value ?? options[0][0];
      place(labelled(label, select), when);
      select.addEventListener("input", refresh);
      return () => select.value;
    },
    /** A box to tick; gives a function that reads it. */
    toggle({ name, label, checked = false, when }) {
      const box = node("input", { type: "checkbox", name });
      box.checked = checked;
      const wrap = node("label", { class: "figure-toggle" });
      wrap.append(box, ` ${label}`);
      place(wrap, when);
      box.addEventListener("input", refresh);
      return () => box.checked;
    },
    /** A line of text to edit; gives a function that reads it. */
    text({ name, label, value, length = 60, when }) {
      const input = node("input", { type: "text", name, value, maxlength: length, autocomplete: "off", spellcheck: "false" });
      place(labelled(label, input), when);
      input.addEventListener("input", refresh);
      return () => input.value;
    },
    /** A button; `press` runs before the figure is drawn again. */
    button({ name, label, when }, press) {
      const button = node("button", { type: "button", name }, label);
      place(button, when);
      button.addEventListener("click", () => (press(), refresh()));
      return button;
    },
  };
  return parts;
}

function labelled(label, control, output) {
  const wrap = node("label", { class: "figure-control" });
  const line = node("span", {}, label);
  if (output) line.append(" ", output);
  wrap.append(line, control);
  return wrap;
}

/** An HTML element. */
export function node(tag, attributes = {}, text = "") {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  if (text !== "") made.textContent = text;
  return made;
}

/** An SVG element, added to `parent` when there is one. Classes: see figure.css. */
export function shape(tag, attributes = {}, parent = null, text = "") {
  const made = document.createElementNS(NAMESPACE, tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  if (text !== "") made.textContent = text;
  if (parent) parent.append(made);
  return made;
}

/** Text in an SVG; `anchor` is start, middle or end. */
export function label(svg, x, y, text, { anchor = "start", kind = "" } = {}) {
  return shape("text", { x, y, "text-anchor": anchor, class: `figure-text ${kind}`.trim() }, svg, text);
}

/** Horizontal bars with a name in front and a number behind; `kinds` gives a class to each, "off" greys one out. */
export function bars(f, { values, names, shown, kinds = [], most = Math.max(...values, 1e-9), title, row = 24 }) {
  const svg = f.svg(values.length * row + 4, title);
  const wide = Number(svg.getAttribute("width"));
  const left = 10 + 7.5 * Math.max(...names.map((name) => name.length));
  const right = 10 + 7.5 * Math.max(...shown.map((text) => text.length));
  values.forEach((value, i) => {
    const y = 4 + i * row;
    label(svg, left - 8, y + row / 2 + 3, names[i], { anchor: "end", kind: kinds[i] ?? "" });
    const length = Math.max(0, ((wide - left - right) * value) / most);
    shape("rect", { x: left, y: y + 2, width: length, height: row - 8, rx: 3, class: `figure-bar ${kinds[i] ?? ""}`.trim() }, svg);
    label(svg, left + length + 6, y + row / 2 + 3, shown[i], { kind: kinds[i] ?? "" });
  });
  return svg;
}

/** A matrix as a table of cells; the colour is stronger the nearer |value| is to `most`, negative ones have another. */
export function cells(f, { matrix, rows, columns, shown = (value) => fixed(value), most, title, size = 34, hidden = () => false }) {
  const left = 12 + 7.5 * Math.max(...rows.map((name) => name.length));
  const svg = f.svg(26 + matrix.length * size, title);
  const wide = (Number(svg.getAttribute("width")) - left - 2) / columns.length;
  const cell = Math.min(wide, size * 1.8);
  const top = most ?? Math.max(...matrix.flat().map(Math.abs), 1e-9);
  columns.forEach((name, j) => label(svg, left + (j + 0.5) * cell, 16, name, { anchor: "middle" }));
  matrix.forEach((line, i) => {
    const y = 24 + i * size;
    label(svg, left - 8, y + size / 2 + 4, rows[i], { anchor: "end" });
    line.forEach((value, j) => {
      const strength = hidden(i, j) ? 0 : Math.min(1, Math.abs(value) / top);
      const kind = hidden(i, j) ? "figure-cell off" : value < 0 ? "figure-cell negative" : "figure-cell";
      const place = { x: left + j * cell, y, width: cell - 2, height: size - 2, rx: 3 };
      shape("rect", { ...place, class: kind, style: `--strength:${(strength * 70).toFixed(1)}%` }, svg);
      const text = hidden(i, j) ? "" : shown(value);
      if (text && cell > 7 * text.length) label(svg, left + (j + 0.5) * cell - 1, y + size / 2 + 4, text, { anchor: "middle" });
    });
  });
  return svg;
}

/** Axes with names; gives the SVG, and X and Y, which turn a value into a place. `log` makes an axis logarithmic. */
export function axes(f, { x, y, height = 240, names, title, log = {}, ticks = {} }) {
  const svg = f.svg(height, title);
  const wide = Number(svg.getAttribute("width"));
  const box = { left: 52, right: wide - 12, top: 10, bottom: height - 38 };
  const along = (range, isLog) => (value) =>
    isLog ? Math.log(value / range[0]) / Math.log(range[1] / range[0]) : (value - range[0]) / (range[1] - range[0]);
  const [ax, ay] = [along(x, log.x), along(y, log.y)];
  const X = (value) => box.left + ax(value) * (box.right - box.left);
  const Y = (value) => box.bottom - ay(value) * (box.bottom - box.top);
  for (const value of ticks.x ?? steps(x, log.x, wide < 420 ? 3 : 5)) {
    shape("line", { x1: X(value), x2: X(value), y1: box.top, y2: box.bottom, class: "figure-grid" }, svg);
    label(svg, X(value), box.bottom + 16, short(value), { anchor: "middle", kind: "soft" });
  }
  for (const value of ticks.y ?? steps(y, log.y, 4)) {
    shape("line", { x1: box.left, x2: box.right, y1: Y(value), y2: Y(value), class: "figure-grid" }, svg);
    label(svg, box.left - 6, Y(value) + 4, short(value), { anchor: "end", kind: "soft" });
  }
  label(svg, (box.left + box.right) / 2, height - 6, names[0], { anchor: "middle", kind: "soft" });
  const up = label(svg, 0, 0, names[1], { anchor: "middle", kind: "soft" });
  up.setAttribute("transform", `translate(12 ${(box.top + box.bottom) / 2}) rotate(-90)`);
  return { svg, X, Y, box };
}

/** A line through points [x, y] in the axes' own units; kinds: "", "second", "third", "dashed", "off". */
export function line({ svg, X, Y }, points, kind = "") {
  const path = points.map(([x, y], i) => `${i ? "L" : "M"}${X(x).toFixed(1)} ${Y(y).toFixed(1)}`).join("");
  return shape("path", { d: path, class: `figure-line ${kind}`.trim() }, svg);
}

/** A dot at a point in the axes' own units. */
export function dot({ svg, X, Y }, [x, y], kind = "", radius = 5) {
  return shape("circle", { cx: X(x), cy: Y(y), r: radius, class: `figure-dot ${kind}`.trim() }, svg);
}

function steps([from, to], isLog, count) {
  if (isLog) {
    const [first, last] = [Math.ceil(Math.log10(from) - 1e-9), Math.floor(Math.log10(to) + 1e-9)];
    const stride = Math.max(1, Math.ceil((last - first) / count));
    return Array.from({ length: Math.floor((last - first) / stride) + 1 }, (_, i) => 10 ** (first + i * stride));
  }
  const raw = (to - from) / count;
  const unit = 10 ** Math.floor(Math.log10(raw));
  const stride = [1, 2, 5, 10].map((m) => m * unit).find((s) => s >= raw * 0.999);
  const found = [];
  for (let k = Math.ceil(from / stride - 1e-9); k * stride <= to + 1e-9 * stride; k++) found.push(k * stride);
  return found;
}

/** A number with so many decimals, with a real minus sign. */
export function fixed(value, decimals = 2) {
  const text = value.toFixed(decimals);
  return (Number(text) === 0 ? (0).toFixed(decimals) : text).replace("-", "−");
}

/** A number for an axis: short, with k, M, G and so on where it is large. */
export function short(value) {
  const size = Math.abs(value);
  if (size >= 1e15 || (size < 1e-3 && size > 0)) return value.toExponential(0).replace("e+", "e").replaceAll("-", "−");
  for (const [unit, sign] of [[1e12, "T"], [1e9, "G"], [1e6, "M"], [1e3, "k"]]) {
    if (size >= unit) return `${Number((value / unit).toPrecision(3))}${sign}`.replace("-", "−");
  }
  return String(Number(value.toPrecision(3))).replace("-", "−");
}

/** Uniform random numbers in [0, 1) from a seed: a linear congruence with the constants of Numerical Recipes. */
export function random(seed) {
  let state = (Math.imul(seed, 2654435761) ^ 0x5bd1e995) >>> 0;
  return () => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return state / 4294967296;
  };
}

/** Normal random numbers from uniform ones (Box and Muller, 1958). */
export function normal(uniform) {
  return Math.sqrt(-2 * Math.log(1 - uniform())) * Math.cos(2 * Math.PI * uniform());
}
