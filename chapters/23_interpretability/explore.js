// Chapter 23: what each part of a small model writes towards its answer, what silencing it does, and six features in two neurons.
import { figure, fixed, label, shape } from "../../grader/book/static/kit.js";

export const defaults = {
  "words": ["start", "3", "and", "5", "met", "then", "3", "gave", "to"],
  "answer": 5,
  "giver": 3,
  "parts": {"tokens": [-0.0648,-1.2208,0.6667,0.5694,0.8286,0.5487,1.743,-0.9539,1.0026,-1.0308,-0.8259,1.0085,0.7571,0.0918,-0.6251,
    0.7241,1.2643,-0.2839,-0.0536,-0.2612,0.3688,-0.562,0.1766,0.0392,-0.5878,-0.0643,-0.7687,0.5059,-0.4879,-0.8377,0.0175,-0.0622],
    "positions": [-1.5976,-1.964,-0.905,2.0561,1.4107,-0.1313,-0.3416,0.6318,-2.0438,-0.6468,-0.5982,-0.7285,0.4137,0.3168,0.0805,-0.696,
    0.5782,0.9115,0.4762,0.9368,-0.2489,-0.0867,0.5786,0.4931,-0.1347,0.2526,0.0473,0.6672,0.2233,0.1919,-1.3146,-0.1428],
    "blocks.0.head.0": [0.8112,0.7415,0.3926,-0.2799,-0.5824,0.0492,-0.117,0.2211,-0.5819,0.025,-0.3576,0.5564,0.0121,-0.0227,-0.7823,
    0.0834,-0.5518,-0.418,0.1359,0.0305,0.0249,0.5999,0.4972,0.162,0.5135,-0.7095,-0.5444,-0.4132,-0.4498,0.0283,0.1399,-0.1611],
    "blocks.0.head.1": [0.3247,0.1869,0.1051,-0.0573,-0.5864,0.2686,-0.4155,0.0162,0.0169,0.2528,0.0566,0.0396,0.0208,0.0429,-0.1266,
    -0.2644,-0.1238,0.0049,-0.3878,0.1683,-0.41,0.0394,0.0207,-0.234,-0.067,0.0037,-0.0841,-0.0513,-0.0719,0.1487,0.3728,-0.3224],
    "blocks.0.attn.bias": [0.0538,0.1165,-0.0053,-0.0613,-0.046,0.0068,0.0002,0.0457,0.0192,0.0264,-0.0027,-0.035,-0.0315,0.0345,0.0134,
    -0.0348,0.0141,-0.0149,-0.0498,-0.0088,-0.0075,0.0028,-0.0251,-0.0178,0.036,0.0096,-0.0063,-0.0521,0.0275,-0.0013,0.0327,-0.0185],
    "blocks.0.mlp": [0.5814,1.3758,-0.3471,-0.7739,-0.7919,-0.1136,-0.6514,0.3834,0.1042,0.4886,0.4279,-0.036,0.083,0.5342,-0.2216,
    -0.2883,-0.2426,0.0341,-0.7312,0.1662,-0.1556,-0.3272,-0.5862,0.0057,0.3921,-0.3928,-0.2247,-0.6157,0.2351,-0.0688,0.486,0.544],
    "blocks.0.mlp.bias": [0.0557,0.1245,-0.0075,-0.0591,-0.0466,0.0096,-0.0076,0.0352,0.0161,0.0297,-0.0073,-0.0356,-0.0206,0.0479,0.0107,
    -0.0358,0.0109,-0.0119,-0.0473,0.0018,-0.0195,-0.0073,-0.0274,-0.0078,0.0297,0.0091,0.001,-0.0302,0.0208,-0.0005,0.0268,-0.0127],
    "blocks.1.head.0": [0.425,-0.4184,0.3819,-1.2023,0.7811,-0.9129,-0.0226,0.9528,0.9042,1.802,-0.2154,-0.6395,0.0959,0.7794,0.0975,
    1.0609,-0.4282,-0.3941,0.1457,-1.1395,-1.161,0.931,1.0932,1.2357,-1.2433,-0.5838,0.1927,-0.9419,0.0986,0.1784,-0.463,-0.5206],
    "blocks.1.head.1": [0.2469,0.5265,0.6826,-0.1793,-0.2782,-0.0606,-0.7942,0.3767,0.0086,0.5007,0.1104,-0.076,-0.1688,-0.0124,0.2939,
    -0.4906,0.5419,0.3053,0.5263,0.2692,0.0216,0.3421,-0.38,-0.6662,0.1002,0.2704,0.6061,-0.8962,-0.4486,0.1814,0.6494,-0.7991],
    "blocks.1.attn.bias": [0.0529,0.1355,-0.0166,-0.0714,-0.0822,-0.014,-0.045,0.0151,0.0106,0.0435,0.0339,-0.042,-0.0168,0.0208,-0.0001,
    -0.0254,-0.0057,-0.0186,-0.0318,0.0084,-0.0176,0.0029,-0.0335,-0.033,0.0393,-0.0061,0.0423,-0.0368,0.038,0.0094,0.0518,-0.0007],
    "blocks.1.mlp": [-0.7811,0.1513,0.5133,-0.7634,-1.0644,-1.9093,-2.6801,-1.1566,1.8824,0.1864,0.9636,1.0697,-0.6387,-2.2641,0.4617,
    -1.3003,0.8168,0.58,-0.2012,0.447,1.1287,-1.402,-0.9995,-2.726,0.6394,1.2586,-0.7146,0.5876,0.3789,-0.3775,1.6047,0.3297],
    "blocks.1.mlp.bias": [0.0726,0.1034,0.0036,-0.058,-0.0918,-0.0156,-0.0326,0.0188,0.0444,0.0403,0.0105,-0.0249,-0.0061,0.0119,-0.018,
    -0.0371,-0.0043,-0.0183,0.0059,0.0343,-0.0371,0.0026,-0.0069,-0.0247,0.0308,-0.0271,0.0181,-0.0301,0.023,0.0133,0.0503,-0.0182]},
  "attention": {"blocks.0.head.0": [0.002,0.817,0.004,0.112,0.016,0.005,0.017,0.003,0.024],"blocks.0.head.1": [0.054,0.264,0.06,0.038,
    0.007,0.001,0.196,0.008,0.372],"blocks.1.head.0": [0.0,0.126,0.0,0.001,0.0,0.0,0.874,0.0,0.0],"blocks.1.head.1": [0.019,0.122,0.028,
    0.685,0.037,0.035,0.003,0.047,0.024]},
  "silenced": {"blocks.0.head.0": [9.5156,-0.2013],"blocks.0.head.1": [8.9338,1.0431],"blocks.0.mlp": [8.3523,2.332],
    "blocks.1.head.0": [6.7691,5.7177],"blocks.1.head.1": [7.1734,2.5871],"blocks.1.mlp": [4.753,6.1757]},
  "norm": {"weight": [1.256,1.1312,1.3565,1.2112,1.3069,1.5198,1.3755,1.3667,1.4028,1.3373,1.2307,1.333,1.2498,1.3676,1.3125,1.3389,
    1.3423,1.2659,1.4419,1.3706,1.4283,1.3135,1.3866,1.3941,1.3792,1.3698,1.3706,1.2592,1.4409,1.358,1.3553,1.3795],"bias": [0.0063,
    -0.0048,-0.1113,0.1281,0.0845,-0.0504,0.0704,0.1026,0.0081,0.0356,-0.1893,-0.1443,0.2237,0.1678,-0.0639,-0.1265,0.1777,0.1393,-0.2632,
    0.1347,-0.0505,-0.1316,-0.0261,0.1732,0.1159,-0.1512,-0.023,-0.0965,0.1355,0.0483,0.0082,-0.2043],"eps": 1e-05},
  "unembed": [[-0.1491,0.1836,0.0364,0.2896,-0.009,-0.3996,-0.2866,-0.3399,-0.2256,-0.069,0.1518,0.0433,0.2569,-0.0016,0.2917,-0.1654,
    -0.3132,0.2469,-0.1445,0.1267,0.1224,0.0292,-0.367,0.0787,0.3594,-0.2292,0.2186,0.0037,0.3229,-0.0034,0.0463,0.0948],[0.0768,0.0455,
    -0.1626,0.1478,-0.0369,0.4363,0.0743,0.0336,0.1482,-0.3747,0.0393,-0.3716,0.2454,0.3441,-0.0498,-0.112,0.0314,-0.0685,-0.045,0.3308,
    -0.299,-0.1451,-0.2598,-0.184,0.2255,-0.1905,0.1752,0.2437,0.1352,0.1504,-0.0043,-0.2454],[-0.338,-0.2553,-0.1419,-0.0387,0.3764,
    -0.2818,0.1402,0.2147,0.2018,0.2844,-0.0585,0.0778,-0.0581,0.2018,0.176,0.457,0.1133,0.1622,-0.2112,-0.4041,-0.1002,0.1441,0.1034,
    0.0762,-0.2528,-0.0369,-0.1425,-0.1547,0.2485,-0.5421,-0.1237,-0.0274],[0.3229,0.0011,0.2419,0.0797,-0.1278,0.0182,-0.1841,0.0871,
    -0.3073,0.013,-0.2746,0.187,0.1914,0.2472,-0.4677,0.0383,-0.0248,-0.3307,0.0587,-0.0004,-0.2349,0.252,0.3169,0.2256,0.2792,-0.2101,
    -0.3693,-0.1172,-0.345,-0.0935,-0.2995,-0.0565],[-0.1869,0.0368,-0.1155,0.3324,-0.1555,0.4127,0.2497,-0.2364,0.0572,-0.1736,0.0119,
    0.3154,-0.0094,-0.3473,-0.0221,-0.3454,0.1431,0.1187,-0.1159,0.0131,0.3907,-0.1954,-0.2054,-0.2572,0.3339,0.4652,-0.1527,0.1894,
    -0.044,-0.4953,-0.1246,0.3311],[0.0162,-0.0537,0.2954,-0.0721,-0.0349,-0.2978,-0.563,0.215,0.3783,0.3501,-0.154,0.1322,0.1489,0.0504,
    -0.0137,-0.2536,0.3053,0.1681,-0.0021,0.1798,-0.2275,-0.1215,0.032,-0.2399,-0.0111,0.1529,-0.2147,-0.2099,-0.1591,0.0362,0.4388,
    -0.3024],[0.1648,0.0516,-0.3567,-0.0786,0.1457,-0.3113,0.3402,0.2945,0.2749,0.0199,-0.062,0.0023,-0.016,-0.0289,-0.2515,-0.0328,
    0.0279,-0.1117,-0.104,-0.0751,-0.0692,-0.2388,0.2972,0.1233,-0.2372,0.0092,-0.3393,0.2674,0.0976,0.4264,0.3153,0.2292],[-0.199,
    -0.1394,-0.1256,0.0806,0.3026,0.2803,0.3032,0.0131,-0.2498,0.2296,-0.2169,-0.3117,-0.1301,-0.1742,0.3177,-0.0168,-0.115,-0.1162,
    0.2097,-0.1906,0.2563,-0.0904,0.08,0.282,-0.1003,0.1083,0.2724,-0.3644,-0.31,0.219,-0.2772,-0.2211],[-0.1116,0.0716,0.211,-0.1695,
    0.0477,0.1453,-0.1988,-0.09,0.2291,-0.0061,-0.0845,0.1339,-0.3352,-0.1877,0.1648,0.1455,-0.2969,-0.2679,0.1937,-0.1177,-0.0567,0.1633,
    -0.031,-0.175,-0.1043,0.1756,0.0232,0.3255,-0.2164,-0.1752,-0.0176,0.2527],[0.1762,-0.0896,0.1559,-0.1682,-0.0213,0.0104,-0.1933,
    -0.1107,0.1801,0.0139,0.1625,0.0798,-0.3645,-0.1342,0.0759,0.1936,-0.1168,-0.3433,0.2586,-0.0874,-0.0888,0.0071,-0.0466,-0.247,
    -0.0513,0.2966,0.1519,0.1611,-0.0257,-0.1597,-0.1281,0.397],[0.0505,0.1034,0.2186,0.0082,-0.0948,0.1359,-0.1903,-0.1483,0.1129,0.0567,
    0.2649,0.1118,-0.146,-0.305,0.1677,0.2113,-0.3741,-0.2082,0.1876,-0.2261,-0.1233,0.0614,0.1037,-0.2431,-0.0769,0.2943,-0.0395,0.0542,
    -0.1651,-0.0408,0.0868,0.2305],[-0.0646,-0.019,0.1866,0.0776,-0.0884,0.0967,-0.1343,-0.2821,0.1208,0.0213,0.1114,-0.0566,0.0425,
    -0.1121,0.0849,0.1586,-0.2119,-0.2222,0.3086,-0.1824,-0.0443,0.2572,0.0158,-0.0384,-0.2681,0.2519,-0.0288,0.0909,-0.2233,-0.1384,
    0.2039,0.3639],[0.0067,0.0761,0.0927,-0.0402,-0.0961,0.1522,-0.2376,-0.027,0.0427,-0.1566,0.188,0.2967,-0.2253,-0.2957,0.394,0.2835,
    -0.1728,-0.18,0.2418,-0.2209,-0.2147,-0.0379,0.073,-0.1886,-0.1119,0.1019,0.0099,0.0927,-0.3123,-0.1367,0.074,0.1878],[0.1277,0.1292,
    0.0504,-0.0991,-0.0402,0.1846,-0.2836,-0.1203,-0.0452,0.078,0.2943,0.1098,-0.1969,-0.2207,0.0598,0.3033,-0.2283,-0.0409,0.0925,
    -0.2309,-0.0575,0.1679,0.0672,-0.3185,-0.1304,0.3121,0.209,0.1167,-0.2296,-0.0138,0.15,0.2323]],
  "biases": [0.0437, 0.0917, 0.0423, 0.0396, 0.0647, 0.0486, 0.0329, 0.0836, -0.1877, -0.2219, -0.2268, -0.1595, -0.184, -0.2414],
  "sparsities": [0, 0.5, 0.8, 0.9, 0.95, 0.98],
  "W": [[[0.284,0.957,-0.005,-0.003,-0.012,-0.006],[-0.959,0.285,-0.006,-0.003,-0.001,0.002]],[[0.531,0.855,-0.756,0.009,-0.006,0.003],
    [-0.849,0.533,-0.472,0.01,0.006,0.001]],[[0.715,0.726,-0.716,0.009,-0.66,0.0],[-0.733,0.711,-0.7,-0.004,0.672,-0.003]],[[0.759,0.681,
    -0.673,-0.433,-0.569,0.005],[-0.694,0.744,-0.742,0.391,0.521,0.001]],[[0.45,0.173,-0.891,1.077,-0.868,-0.218],[-1.036,1.12,-0.686,
    0.165,0.492,0.102]],[[0.812,0.929,-0.577,0.239,-1.088,-0.291],[-0.771,0.625,-0.981,0.122,0.219,1.006]]]
};

const inner = (a, b) => a.reduce((sum, x, i) => sum + x * b[i], 0);
const mean = (x) => x.reduce((a, b) => a + b, 0) / x.length;
const sum = (vectors) => vectors[0].map((_, d) => vectors.reduce((total, vector) => total + vector[d], 0));

/** The scale of a state, √(variance + eps), as the final norm takes it. */
function scaleOf(x, eps) {
  const middle = mean(x);
  return Math.sqrt(mean(x.map((value) => (value - middle) ** 2)) + eps);
}

/** Logits (V) of a state (D) as if the model ended there: norm(x) · u_v + b_v, with the state's own mean and scale. */
export function lens(x, norm, unembed, biases) {
  const [middle, scale] = [mean(x), scaleOf(x, norm.eps)];
  const normed = x.map((value, d) => ((value - middle) / scale) * norm.weight[d] + norm.bias[d]);
  return unembed.map((u, v) => inner(normed, u) + biases[v]);
}

/** The logit with row u and bias b in summands: for each part ((c − its mean) ⊙ γ / σ) · u, and at the end β · u + b. */
export function attribution(parts, norm, u, b) {
  const scale = scaleOf(sum(parts), norm.eps);
  const written = parts.map((c) => {
    const middle = mean(c);
    return inner(c.map((value, d) => (value - middle) * norm.weight[d]), u) / scale;
  });
  return [...written, inner(norm.bias, u) + b];
}

/** For each feature, a column of W (m, n): |W_i|² / Σ_j (u_i · W_j)², its share of a dimension; 0 for a column of zeros. */
export function dimensionality(W) {
  return W[0].map((_, i) => {
    const square = W.reduce((total, row) => total + row[i] ** 2, 0);
    return square > 0 ? square / along(W, i).reduce((total, x) => total + x ** 2, 0) : 0;
  });
}

/** What is found in the direction of feature i: u_i · W_j for every feature j, where u_i = W_i / |W_i|. */
export function along(W, i) {
  const length = Math.sqrt(W.reduce((total, row) => total + row[i] ** 2, 0));
  return W[0].map((_, j) => W.reduce((total, row) => total + row[i] * row[j], 0) / length);
}

const PARTS = {
  "blocks.1.head.0": "Head 0 of block 1", "blocks.1.head.1": "Head 1 of block 1", "blocks.1.mlp": "The MLP of block 1",
  "blocks.0.head.0": "Head 0 of block 0", "blocks.0.head.1": "Head 1 of block 0", "blocks.0.mlp": "The MLP of block 0",
};
const ROWS = {
  embedding: /^(tokens|positions)$/, "head 0.0": /^blocks.0.head.0$/, "head 0.1": /^blocks.0.head.1$/, "MLP 0": /^blocks.0.mlp$/,
  "head 1.0": /^blocks.1.head.0$/, "head 1.1": /^blocks.1.head.1$/, "MLP 1": /^blocks.1.mlp$/, biases: /bias$/,
};
const signed = (value, decimals = 1) => (Number(value.toFixed(decimals)) > 0 ? "+" : "") + fixed(value, decimals);

export default {
  render({ model, el }) {
    const f = figure({ el, model, defaults }, "What was written, and what it does");
    const [answer, giver] = [f.given("answer"), f.given("giver")];
    const logits = { difference: `${answer} less that of ${giver}`, answer: `${answer}, the answer`, giver: `${giver}, the giver` };
    const part = f.choice({ name: "part", label: "The part in question", options: Object.entries(PARTS) });
    const logit = f.choice({ name: "logit", label: "The logit of", options: Object.entries(logits) });
    const [S, last] = [f.given("sparsities"), f.given("W")[0][0].length];
    const sparsity = f.slider({ name: "sparsity", label: "Features are absent with probability", min: 0, max: S.length - 1, value: 4,
      show: (i) => fixed(S[i]) });
    const feature = f.slider({ name: "feature", label: "Feature", min: 1, max: last, value: 1 });

    f.drawn((width) => {
      const [parts, norm, unembed, biases] = ["parts", "norm", "unembed", "biases"].map(f.given);
      sentence(f, width, f.given("words"), f.given("attention")[part()]);
      river(f, width, parts, (state) => lens(state, norm, unembed, biases));

      const weight = { difference: [1, -1], answer: [1, 0], giver: [0, 1] }[logit()];
      const of = (pair) => weight[0] * pair[0] + weight[1] * pair[1];
      const both = [answer, giver].map((v) => attribution(Object.values(parts), norm, unembed[v], biases[v]));
      const written = Object.fromEntries([...Object.keys(parts), "bias"].map((name, i) => [name, of([both[0][i], both[1][i]])]));
      const values = Object.values(ROWS).map((names) => Object.keys(written).filter((name) => names.test(name))
        .reduce((total, name) => total + written[name], 0));
      const kinds = Object.values(ROWS).map((names) => (names.test(part()) ? "second" : ""));
      signedBars(f, width, { values, names: Object.keys(ROWS), kinds, title: `Logit of ${logits[logit()]}, by part` });

      const [W, i] = [f.given("W")[sparsity()], feature() - 1];
      const wide = width < 520 ? width : Math.floor(width / 2) - 8;
      directions(f, wide, W, i);
      const names = W[0].map((_, j) => `feature ${j + 1}`);
      signedBars(f, wide, { values: along(W, i), names, kinds: names.map((_, j) => (j === i ? "second" : "")), decimals: 2,
        title: `In the direction of feature ${i + 1}` });

      const kept = W[0].filter((_, j) => Math.hypot(...W.map((row) => row[j])) > 0.5).length;
      const total = values.reduce((a, b) => a + b);
      f.say(`${PARTS[part()]} writes ${signed(written[part()])} of the ${signed(total)}. Silenced, it leaves ` +
        `${signed(of(f.given("silenced")[part()]))}; by what it wrote alone it would leave ${signed(total - written[part()])}. ` +
        `The toy model keeps ${kept} of ${last} features in ${W.length} neurons; ` +
        `feature ${i + 1} has ${fixed(dimensionality(W)[i])} of a dimension.`);
    });
  },
};

/** The words of the input, shaded by how much a head at the last position looks at them. */
function sentence(f, width, words, weights) {
  const svg = f.svg(46, "The input, each word shaded by the attention that the head at the end gives to it");
  const room = words.reduce((total, word) => total + 7 * word.length + 9, 0);
  let x = 0;
  label(svg, 0, 12, weights ? "Its attention, from the last word" : "An MLP reads the last position only", { kind: "soft" });
  words.forEach((word, i) => {
    const size = (7 * word.length + 9) * Math.min(1.7, width / room);
    const strength = weights ? 85 * weights[i] : i === words.length - 1 ? 85 : 0;
    shape("rect", { x, y: 20, width: size - 2, height: 24, rx: 3, class: "figure-cell", style: `--strength:${strength.toFixed(1)}%` }, svg);
    label(svg, x + size / 2 - 1, 37, word, { anchor: "middle" });
    x += size;
  });
}

/** The residual stream at the last position, and what a lens reads behind the embedding and behind each block. */
function river(f, width, parts, read) {
  const svg = f.svg(88, "What the lens reads in the residual stream: the likeliest next word and its probability");
  const stations = ["embedding", "block 0", "block 1"];
  label(svg, 0, 12, "Lens at the end: word, probability", { kind: "soft" });
  stations.forEach((name, i) => {
    const before = Object.keys(parts).filter((key) => /^(tokens|positions)$/.test(key) || Number(key.split(".")[1]) < i);
    const logits = read(sum(before.map((key) => parts[key])));
    const powers = logits.map((logit) => Math.exp(logit - Math.max(...logits)));
    const best = powers.indexOf(Math.max(...powers));
    const [x, wide] = [((i + 0.5) * width) / 3, Math.min(110, width / 3 - 12)];
    if (i) shape("line", { x1: x - width / 3 + wide / 2, x2: x - wide / 2, y1: 54, y2: 54, class: "figure-line" }, svg);
    shape("rect", { x: x - wide / 2, y: 38, width: wide, height: 32, rx: 8, class: "figure-chip" }, svg);
    label(svg, x, 59, `${best}: ${fixed(1 / powers.reduce((a, b) => a + b, 0))}`, { anchor: "middle", kind: "strong" });
    label(svg, x, 86, name, { anchor: "middle", kind: "soft" });
  });
}

/** Horizontal bars to both sides of a zero line, the numbers in a column of their own. */
function signedBars(f, wide, { values, names, kinds, title, decimals = 1 }) {
  const svg = f.svg(values.length * 22 + 26, title, wide);
  const left = 12 + 7.7 * Math.max(...names.map((name) => name.length));
  const [low, high] = [Math.min(0, ...values), Math.max(0, ...values)];
  const X = (value) => left + ((value - low) / (high - low)) * (wide - left - 52);
  label(svg, 0, 14, title, { kind: "soft" });
  values.forEach((value, i) => {
    const y = 24 + 22 * i;
    label(svg, left - 8, y + 15, names[i], { anchor: "end", kind: kinds[i] ? "strong" : "" });
    const place = { x: Math.min(X(0), X(value)), y: y + 3, width: Math.abs(X(value) - X(0)), height: 15, rx: 2 };
    shape("rect", { ...place, class: `figure-bar ${kinds[i]}` }, svg);
    label(svg, wide - 4, y + 15, signed(value, decimals), { anchor: "end", kind: kinds[i] ? "strong" : "" });
  });
  shape("line", { x1: X(0), x2: X(0), y1: 22, y2: 24 + 22 * values.length, class: "figure-line off" }, svg);
}

/** The columns of W as arrows in the plane of the two neurons. */
function directions(f, wide, W, chosen) {
  const size = Math.min(wide, 250);
  const svg = f.svg(size, "The direction in which each feature is stored", wide);
  const [X, Y] = [(x) => wide / 2 + (x / 1.4) * (size / 2), (y) => size / 2 - (y / 1.4) * (size / 2)];
  for (const t of [-1, 0, 1]) {
    shape("line", { x1: X(t), x2: X(t), y1: Y(-1.3), y2: Y(1.3), class: "figure-grid" }, svg);
    shape("line", { x1: X(-1.3), x2: X(1.3), y1: Y(t), y2: Y(t), class: "figure-grid" }, svg);
  }
  W[0].forEach((x, j) => {
    const [y, length] = [W[1][j], Math.hypot(x, W[1][j])];
    shape("line", { x1: X(0), y1: Y(0), x2: X(x), y2: Y(y), class: `figure-line ${j === chosen ? "second" : ""}` }, svg);
    shape("circle", { cx: X(x), cy: Y(y), r: 4, class: `figure-dot ${j === chosen ? "second" : ""}` }, svg);
    const out = 1 + 0.14 / Math.max(length, 0.14);
    if (length > 0.1) label(svg, X(x * out), Y(y * out) + 4, j + 1, { anchor: "middle", kind: j === chosen ? "strong" : "" });
  });
}
