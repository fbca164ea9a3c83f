// Chapter 24: a picture is cut into patches that line up as tokens, and pictures and captions choose each other.
import { cells, figure, fixed, label, shape } from "../../grader/book/static/kit.js";

export const defaults = {
  "pictures": {
    "digit 7": [[0, 0, 0, 0, 0, 0, 0, 0],
      [0, 0.6, 0.7, 0.8, 0.8, 0.8, 0, 0],
      [0, 0.4, 0.4, 0.4, 0.5, 0.6, 0, 0],
      [0, 0, 0, 0, 0.7, 0.4, 0, 0],
      [0, 0, 0, 0.2, 0.8, 0.2, 0, 0],
      [0, 0, 0, 0.4, 0.8, 0, 0, 0],
      [0, 0, 0, 0.6, 0.5, 0, 0, 0],
      [0, 0, 0.2, 0.8, 0.5, 0, 0, 0]],
    "digit 3": [[0, 0.6, 0.9, 1, 1, 1, 0.6, 0],
      [0.1, 1, 1, 0.8, 0.6, 1, 1, 0.3],
      [0, 0.2, 0.6, 0.7, 0.8, 0.9, 1, 0.1],
      [0, 0.4, 1, 1, 1, 1, 0.8, 0],
      [0.2, 0.1, 0.3, 0.6, 0.9, 1, 0.7, 0],
      [1, 1, 0.8, 0.6, 0.6, 1, 0.5, 0],
      [0.8, 0.9, 1, 1, 1, 1, 0.3, 0],
      [0, 0, 0.2, 0.3, 0.3, 0.3, 0, 0]],
    "digit 0": [[0, 0, 0, 0, 0.1, 0, 0, 0],
      [0, 0.1, 0.5, 0.6, 0.8, 0.3, 0, 0],
      [0, 0.3, 0.9, 0.6, 0.6, 0.7, 0, 0],
      [0, 0.6, 0.6, 0, 0.2, 0.9, 0.2, 0],
      [0, 0.8, 0.4, 0, 0.1, 0.8, 0.4, 0],
      [0, 0.4, 0.8, 0.1, 0.4, 0.8, 0.1, 0],
      [0, 0.1, 0.7, 0.8, 0.9, 0.5, 0, 0],
      [0, 0, 0.1, 0.4, 0.2, 0, 0, 0]]
  },
  "img": [[2, 0], [0, 1]],
  "txt": [[1, 0], [3, 4]]
};

/** Cut a picture (H, W) into squares of p by p: (N, p p), patches in reading order, and the pixels of each in reading order. */
export function patchify(image, p) {
  const [rows, columns] = [image.length / p, image[0].length / p];
  return Array.from({ length: rows * columns }, (_, n) => {
    const [top, left] = [Math.floor(n / columns) * p, (n % columns) * p];
    return image.slice(top, top + p).flatMap((row) => row.slice(left, left + p));
  });
}

/** Where a pixel, counted row by row in a picture so wide, goes: [patch, entry of the patch]. */
export function place(pixel, width, p) {
  const [row, column] = [Math.floor(pixel / width), pixel % width];
  return [Math.floor(row / p) * (width / p) + Math.floor(column / p), (row % p) * p + (column % p)];
}

/** Cosines (B, B) of features (B, D): row = picture, column = caption. */
export function cosines(img, txt) {
  const direction = (x) => x.map((value) => value / Math.hypot(...x));
  return img.map((x) => txt.map((y) => direction(x).reduce((sum, value, d) => sum + value * direction(y)[d], 0)));
}

/** How each picture chooses among the captions, softmax(s cosines) along rows, or each caption among the pictures, along columns. */
export function chosen(matrix, scale, who) {
  const flip = (m) => m[0].map((_, j) => m.map((row) => row[j]));
  if (who === "captions") return flip(chosen(flip(matrix), scale, "pictures"));
  return matrix.map((row) => {
    const powers = row.map((x) => Math.exp(scale * (x - Math.max(...row))));
    return powers.map((power) => power / powers.reduce((a, b) => a + b, 0));
  });
}

/** CLIP's loss: the mean of −ln of what each picture gives its own caption, and each caption its own picture; s is at most 100. */
export function clipLoss(img, txt, scale) {
  const matrix = cosines(img, txt);
  const loss = (who) => chosen(matrix, Math.min(scale, 100), who).reduce((sum, row, i) => sum - Math.log(row[i]), 0) / img.length;
  return (loss("pictures") + loss("captions")) / 2;
}

const WHO = { pictures: "each picture, a caption", captions: "each caption, a picture" };

const many = (count, thing) => `${count} ${thing}${count === 1 ? "" : "s"}`;
const turned = ([x, y], degrees) => {
  const [c, s] = [Math.cos((degrees * Math.PI) / 180), Math.sin((degrees * Math.PI) / 180)];
  return [c * x - s * y, s * x + c * y];
};

export default {
  render({ model, el }) {
    const f = figure({ el, model, defaults }, "A picture becomes tokens, and meets its caption");
    const pictures = f.given("pictures");
    const which = f.choice({ name: "picture", label: "The picture", options: Object.keys(pictures).map((name) => [name, name]) });
    const power = f.slider({ name: "side", label: "Side of a patch", min: 0, max: 3, value: 1, show: (i) => many(2 ** i, "pixel") });
    const pixel = f.slider({ name: "pixel", label: "Follow pixel", min: 0, max: 63, value: 28 });
    const who = f.choice({ name: "who", label: "CLIP: who chooses", options: Object.entries(WHO) });
    const scale = f.slider({ name: "scale", label: "Scale of the cosines", min: 1, max: 30, value: 4 });
    const turn = f.slider({ name: "turn", label: "Turn caption 1 by", min: -60, max: 60, step: 5, value: 0,
      show: (x) => `${fixed(x, 0)}°` });

    f.drawn((width) => {
      const [image, p] = [pictures[which()], 2 ** power()];
      const [tokens, [patch, entry]] = [patchify(image, p), place(pixel(), image[0].length, p)];
      const wide = width < 520 ? width : Math.floor(width / 2) - 8;
      cut(f, wide, image, p, pixel());
      row(f, wide, tokens, p, patch, entry);

      const img = f.given("img");
      const txt = f.given("txt").map((x, i) => (i === 1 ? turned(x, turn()) : x));
      const matrix = cosines(img, txt);
      circle(f, wide, img, txt);
      cells({ ...f, svg: (height, title) => f.svg(height, title, wide) }, { matrix: chosen(matrix, scale(), who()), most: 1, size: 44,
        rows: img.map((_, i) => `picture ${i}`), columns: txt.map((_, i) => `caption ${i}`),
        title: `Weights when CLIP lets ${WHO[who()].replace(",", " choose")}` });

      const own = (side, i) => fixed(chosen(matrix, scale(), side)[i][i], 4);
      f.say(`Patches of ${p} by ${p} make ${many(tokens.length, "token")} of ${many(p * p, "number")}, and ` +
        `attention compares ${many(tokens.length ** 2, "pair")}; ` +
        `pixel ${pixel()} is entry ${entry} of patch ${patch}. Picture 1 gives its own caption ${own("pictures", 1)}, ` +
        `caption 1 its own picture ${own("captions", 1)}; CLIP's loss is ${fixed(clipLoss(img, txt, scale()), 4)}.`);
    });
  },
};

/** A square of one pixel, as dark as it is bright in the picture. */
function spot(svg, x, y, size, value, marked) {
  const style = `--strength:${(90 * Math.min(1, Math.max(0, value))).toFixed(0)}%`;
  shape("rect", { x, y, width: size, height: size, class: "figure-cell", style }, svg);
  if (marked) shape("rect", { x: x + 1, y: y + 1, width: size - 2, height: size - 2, class: "figure-line second" }, svg);
}

/** The picture, its patches a little apart. */
function cut(f, wide, image, p, pixel) {
  const side = Math.min(wide, 240);
  const svg = f.svg(side + 22, "The picture, cut into patches", wide);
  const size = (side - 35) / image.length;
  label(svg, 0, 13, "The picture, cut", { kind: "soft" });
  image.forEach((line, y) => line.forEach((value, x) => {
    const at = (k) => k * size + 5 * Math.floor(k / p);
    spot(svg, at(x), 22 + at(y), size, value, y * line.length + x === pixel);
  }));
}

/** The tokens in their order, and the numbers of one of them in theirs. */
function row(f, wide, tokens, p, patch, entry) {
  const [size, gap] = [{ 1: 17, 2: 11, 4: 10, 8: 9 }[p], 6];
  const columns = Math.max(1, Math.floor((wide + gap) / (p * size + gap)));
  const below = 24 + Math.ceil(tokens.length / columns) * (p * size + gap);
  const entryWidth = Math.min(24, wide / (p * p));
  const svg = f.svg(below + 50, "The patches as a row of tokens, and one of them flattened", wide);
  label(svg, 0, 13, `${many(tokens.length, "token")}, line by line`, { kind: "soft" });
  tokens.forEach((token, n) => {
    const [left, top] = [(n % columns) * (p * size + gap), 24 + Math.floor(n / columns) * (p * size + gap)];
    token.forEach((value, i) => spot(svg, left + (i % p) * size, top + Math.floor(i / p) * size, size, value, false));
    const around = { x: left - 1, y: top - 1, width: p * size + 2, height: p * size + 2 };
    if (n === patch) shape("rect", { ...around, class: "figure-line second" }, svg);
  });
  label(svg, 0, below + 16, `Patch ${patch}, flattened`, { kind: "soft" });
  tokens[patch].forEach((value, i) => {
    const style = `--strength:${(90 * value).toFixed(0)}%`;
    shape("rect", { x: i * entryWidth, y: below + 24, width: entryWidth, height: 22, class: "figure-cell", style }, svg);
  });
  shape("rect", { x: entry * entryWidth, y: below + 23, width: entryWidth, height: 24, class: "figure-line second" }, svg);
}

/** Directions of pictures and captions on the unit circle. */
function circle(f, wide, img, txt) {
  const [X, Y] = [(x) => wide / 2 + 74 * x, (y) => 128 - 74 * y];
  const svg = f.svg(240, "Directions of the pictures and of the captions", wide);
  label(svg, 0, 13, "u: pictures, v: captions (dashed)", { kind: "soft" });
  shape("circle", { cx: X(0), cy: Y(0), r: 74, class: "figure-chip off" }, svg);
  for (const [features, kind, name, out] of [[img, "", "u", 1.45], [txt, "second", "v", 1.17]]) {
    features.forEach((feature, i) => {
      const [x, y] = feature.map((value) => value / Math.hypot(...feature));
      shape("line", { x1: X(0), y1: Y(0), x2: X(x), y2: Y(y), class: `figure-line ${kind && "second dashed"}` }, svg);
      shape("circle", { cx: X(x), cy: Y(y), r: kind ? 4 : 6, class: `figure-dot ${kind}` }, svg);
      label(svg, X(x * out), Y(y * out) + 4, `${name}${i}`, { anchor: "middle", kind: "strong" });
    });
  }
}
