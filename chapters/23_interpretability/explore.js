// Chapter 23: what each part of a small model writes towards its answer, six features in two neurons, and the way back from them.
import { bars, cells, figure, fixed, label, shape } from "../../grader/book/static/kit.js";

export const defaults = {
  "words": ["start", "3", "and", "5", "met", "then", "3", "gave", "to"],
  "answer": 5,
  "giver": 3,
  "parts": {"tokens": [-0.065,-1.221,0.667,0.569,0.829,0.549,1.743,-0.954,1.003,-1.031,-0.826,1.008,0.757,0.092,-0.625,
    0.724,1.264,-0.284,-0.054,-0.261,0.369,-0.562,0.177,0.039,-0.588,-0.064,-0.769,0.506,-0.488,-0.838,0.018,-0.062],
    "positions": [-1.598,-1.964,-0.905,2.056,1.411,-0.131,-0.342,0.632,-2.044,-0.647,-0.598,-0.729,0.414,0.317,0.081,-0.696,
    0.578,0.911,0.476,0.937,-0.249,-0.087,0.579,0.493,-0.135,0.253,0.047,0.667,0.223,0.192,-1.315,-0.143],
    "blocks.0.head.0": [0.811,0.742,0.393,-0.28,-0.582,0.049,-0.117,0.221,-0.582,0.025,-0.358,0.556,0.012,-0.023,-0.782,
    0.083,-0.552,-0.418,0.136,0.03,0.025,0.6,0.497,0.162,0.513,-0.71,-0.544,-0.413,-0.45,0.028,0.14,-0.161],
    "blocks.0.head.1": [0.325,0.187,0.105,-0.057,-0.586,0.269,-0.415,0.016,0.017,0.253,0.057,0.04,0.021,0.043,-0.127,
    -0.264,-0.124,0.005,-0.388,0.168,-0.41,0.039,0.021,-0.234,-0.067,0.004,-0.084,-0.051,-0.072,0.149,0.373,-0.322],
    "blocks.0.attn.bias": [0.054,0.117,-0.005,-0.061,-0.046,0.007,0,0.046,0.019,0.026,-0.003,-0.035,-0.032,0.035,0.013,
    -0.035,0.014,-0.015,-0.05,-0.009,-0.007,0.003,-0.025,-0.018,0.036,0.01,-0.006,-0.052,0.028,-0.001,0.033,-0.018],
    "blocks.0.mlp": [0.581,1.376,-0.347,-0.774,-0.792,-0.114,-0.651,0.383,0.104,0.489,0.428,-0.036,0.083,0.534,-0.222,
    -0.288,-0.243,0.034,-0.731,0.166,-0.156,-0.327,-0.586,0.006,0.392,-0.393,-0.225,-0.616,0.235,-0.069,0.486,0.544],
    "blocks.0.mlp.bias": [0.056,0.124,-0.007,-0.059,-0.047,0.01,-0.008,0.035,0.016,0.03,-0.007,-0.036,-0.021,0.048,0.011,
    -0.036,0.011,-0.012,-0.047,0.002,-0.019,-0.007,-0.027,-0.008,0.03,0.009,0.001,-0.03,0.021,-0.001,0.027,-0.013],
    "blocks.1.head.0": [0.425,-0.418,0.382,-1.202,0.781,-0.913,-0.023,0.953,0.904,1.802,-0.215,-0.639,0.096,0.779,0.098,
    1.061,-0.428,-0.394,0.146,-1.139,-1.161,0.931,1.093,1.236,-1.243,-0.584,0.193,-0.942,0.099,0.178,-0.463,-0.521],
    "blocks.1.head.1": [0.247,0.526,0.683,-0.179,-0.278,-0.061,-0.794,0.377,0.009,0.501,0.11,-0.076,-0.169,-0.012,0.294,
    -0.491,0.542,0.305,0.526,0.269,0.022,0.342,-0.38,-0.666,0.1,0.27,0.606,-0.896,-0.449,0.181,0.649,-0.799],
    "blocks.1.attn.bias": [0.053,0.136,-0.017,-0.071,-0.082,-0.014,-0.045,0.015,0.011,0.043,0.034,-0.042,-0.017,0.021,-0,
    -0.025,-0.006,-0.019,-0.032,0.008,-0.018,0.003,-0.034,-0.033,0.039,-0.006,0.042,-0.037,0.038,0.009,0.052,-0.001],
    "blocks.1.mlp": [-0.781,0.151,0.513,-0.763,-1.064,-1.909,-2.68,-1.157,1.882,0.186,0.964,1.07,-0.639,-2.264,0.462,
    -1.3,0.817,0.58,-0.201,0.447,1.129,-1.402,-1,-2.726,0.639,1.259,-0.715,0.588,0.379,-0.378,1.605,0.33],
    "blocks.1.mlp.bias": [0.073,0.103,0.004,-0.058,-0.092,-0.016,-0.033,0.019,0.044,0.04,0.011,-0.025,-0.006,0.012,-0.018,
    -0.037,-0.004,-0.018,0.006,0.034,-0.037,0.003,-0.007,-0.025,0.031,-0.027,0.018,-0.03,0.023,0.013,0.05,-0.018]},
  "attention": {"blocks.0.head.0": [0.002,0.817,0.004,0.112,0.016,0.005,0.017,0.003,0.024],"blocks.0.head.1": [0.054,0.264,0.06,0.038,
    0.007,0.001,0.196,0.008,0.372],"blocks.1.head.0": [0.0,0.126,0.0,0.001,0.0,0.0,0.874,0.0,0.0],"blocks.1.head.1": [0.019,0.122,0.028,
    0.685,0.037,0.035,0.003,0.047,0.024]},
  "silenced": {"blocks.0.head.0": [9.5156,-0.2013],"blocks.0.head.1": [8.9338,1.0431],"blocks.0.mlp": [8.3523,2.332],
    "blocks.1.head.0": [6.7691,5.7177],"blocks.1.head.1": [7.1734,2.5871],"blocks.1.mlp": [4.753,6.1757]},
  "norm": {"weight": [1.256,1.131,1.357,1.211,1.307,1.52,1.375,1.367,1.403,1.337,1.231,1.333,1.25,1.368,1.312,1.339,
    1.342,1.266,1.442,1.371,1.428,1.313,1.387,1.394,1.379,1.37,1.371,1.259,1.441,1.358,1.355,1.379],"bias": [0.006,
    -0.005,-0.111,0.128,0.085,-0.05,0.07,0.103,0.008,0.036,-0.189,-0.144,0.224,0.168,-0.064,-0.127,0.178,0.139,-0.263,
    0.135,-0.051,-0.132,-0.026,0.173,0.116,-0.151,-0.023,-0.097,0.136,0.048,0.008,-0.204],"eps": 1e-05},
  "unembed": [[-0.149,0.184,0.036,0.29,-0.009,-0.4,-0.287,-0.34,-0.226,-0.069,0.152,0.043,0.257,-0.002,0.292,-0.165,
    -0.313,0.247,-0.144,0.127,0.122,0.029,-0.367,0.079,0.359,-0.229,0.219,0.004,0.323,-0.003,0.046,0.095],[0.077,0.045,
    -0.163,0.148,-0.037,0.436,0.074,0.034,0.148,-0.375,0.039,-0.372,0.245,0.344,-0.05,-0.112,0.031,-0.069,-0.045,0.331,
    -0.299,-0.145,-0.26,-0.184,0.226,-0.191,0.175,0.244,0.135,0.15,-0.004,-0.245],[-0.338,-0.255,-0.142,-0.039,0.376,
    -0.282,0.14,0.215,0.202,0.284,-0.059,0.078,-0.058,0.202,0.176,0.457,0.113,0.162,-0.211,-0.404,-0.1,0.144,0.103,
    0.076,-0.253,-0.037,-0.142,-0.155,0.248,-0.542,-0.124,-0.027],[0.323,0.001,0.242,0.08,-0.128,0.018,-0.184,0.087,
    -0.307,0.013,-0.275,0.187,0.191,0.247,-0.468,0.038,-0.025,-0.331,0.059,-0,-0.235,0.252,0.317,0.226,0.279,-0.21,
    -0.369,-0.117,-0.345,-0.093,-0.299,-0.057],[-0.187,0.037,-0.116,0.332,-0.155,0.413,0.25,-0.236,0.057,-0.174,0.012,
    0.315,-0.009,-0.347,-0.022,-0.345,0.143,0.119,-0.116,0.013,0.391,-0.195,-0.205,-0.257,0.334,0.465,-0.153,0.189,
    -0.044,-0.495,-0.125,0.331],[0.016,-0.054,0.295,-0.072,-0.035,-0.298,-0.563,0.215,0.378,0.35,-0.154,0.132,0.149,0.05,
    -0.014,-0.254,0.305,0.168,-0.002,0.18,-0.228,-0.121,0.032,-0.24,-0.011,0.153,-0.215,-0.21,-0.159,0.036,0.439,
    -0.302],[0.165,0.052,-0.357,-0.079,0.146,-0.311,0.34,0.294,0.275,0.02,-0.062,0.002,-0.016,-0.029,-0.252,-0.033,
    0.028,-0.112,-0.104,-0.075,-0.069,-0.239,0.297,0.123,-0.237,0.009,-0.339,0.267,0.098,0.426,0.315,0.229],[-0.199,
    -0.139,-0.126,0.081,0.303,0.28,0.303,0.013,-0.25,0.23,-0.217,-0.312,-0.13,-0.174,0.318,-0.017,-0.115,-0.116,
    0.21,-0.191,0.256,-0.09,0.08,0.282,-0.1,0.108,0.272,-0.364,-0.31,0.219,-0.277,-0.221],[-0.112,0.072,0.211,-0.17,
    0.048,0.145,-0.199,-0.09,0.229,-0.006,-0.085,0.134,-0.335,-0.188,0.165,0.145,-0.297,-0.268,0.194,-0.118,-0.057,0.163,
    -0.031,-0.175,-0.104,0.176,0.023,0.326,-0.216,-0.175,-0.018,0.253],[0.176,-0.09,0.156,-0.168,-0.021,0.01,-0.193,
    -0.111,0.18,0.014,0.163,0.08,-0.364,-0.134,0.076,0.194,-0.117,-0.343,0.259,-0.087,-0.089,0.007,-0.047,-0.247,
    -0.051,0.297,0.152,0.161,-0.026,-0.16,-0.128,0.397],[0.051,0.103,0.219,0.008,-0.095,0.136,-0.19,-0.148,0.113,0.057,
    0.265,0.112,-0.146,-0.305,0.168,0.211,-0.374,-0.208,0.188,-0.226,-0.123,0.061,0.104,-0.243,-0.077,0.294,-0.04,0.054,
    -0.165,-0.041,0.087,0.231],[-0.065,-0.019,0.187,0.078,-0.088,0.097,-0.134,-0.282,0.121,0.021,0.111,-0.057,0.043,
    -0.112,0.085,0.159,-0.212,-0.222,0.309,-0.182,-0.044,0.257,0.016,-0.038,-0.268,0.252,-0.029,0.091,-0.223,-0.138,
    0.204,0.364],[0.007,0.076,0.093,-0.04,-0.096,0.152,-0.238,-0.027,0.043,-0.157,0.188,0.297,-0.225,-0.296,0.394,0.283,
    -0.173,-0.18,0.242,-0.221,-0.215,-0.038,0.073,-0.189,-0.112,0.102,0.01,0.093,-0.312,-0.137,0.074,0.188],[0.128,0.129,
    0.05,-0.099,-0.04,0.185,-0.284,-0.12,-0.045,0.078,0.294,0.11,-0.197,-0.221,0.06,0.303,-0.228,-0.041,0.092,
    -0.231,-0.058,0.168,0.067,-0.319,-0.13,0.312,0.209,0.117,-0.23,-0.014,0.15,0.232]],
  "biases": [0.0437, 0.0917, 0.0423, 0.0396, 0.0647, 0.0486, 0.0329, 0.0836, -0.1877, -0.2219, -0.2268, -0.1595, -0.184, -0.2414],
  "sparsities": [0, 0.5, 0.8, 0.9, 0.95, 0.98],
  "W": [[[0.284,0.957,-0.005,-0.003,-0.012,-0.006],[-0.959,0.285,-0.006,-0.003,-0.001,0.002]],[[0.531,0.855,-0.756,0.009,-0.006,0.003],
    [-0.849,0.533,-0.472,0.01,0.006,0.001]],[[0.715,0.726,-0.716,0.009,-0.66,0.0],[-0.733,0.711,-0.7,-0.004,0.672,-0.003]],[[0.759,0.681,
    -0.673,-0.433,-0.569,0.005],[-0.694,0.744,-0.742,0.391,0.521,0.001]],[[0.45,0.173,-0.891,1.077,-0.868,-0.218],[-1.036,1.12,-0.686,
    0.165,0.492,0.102]],[[0.812,0.929,-0.577,0.239,-1.088,-0.291],[-0.771,0.625,-0.981,0.122,0.219,1.006]]],
  "truth": [[-0.37,0.43,0.38,0.48,0.55],[-0.34,-0.63,0.22,-0.63,0.19],[0.14,0.3,0.49,-0.75,-0.3],[-0.82,0.42,0,-0.38,0.1],[0.24,0.25,0.76,
    0.36,-0.41],[0.5,0.24,-0.3,0.07,0.77],[0.4,-0.14,0.69,-0.2,0.55],[-0.24,-0.68,0.49,0.48,0.08]],
  "penalties": [0, 0.05, 0.1, 0.2, 0.4, 0.8],
  "autoencoders": [{"W_enc":[[-0.28,0.27,-0.03,-0.42,0.23,0.03,-0.24,0.55,-0.43,0.12],[0.58,-0.63,0.48,0.03,0.03,-0.48,-0.19,0.22,0.15,
    -0.11],[-0.19,0.22,0.03,-0.3,0.93,-0.03,0.29,0.18,0.56,-0.05],[0.29,-0.31,-0.05,0.2,0.13,0.05,0.47,-0.05,-0.62,-0.12],[0.07,-0.05,
    -0.71,-0.36,0.07,0.71,-0.04,0.54,0.4,-0.2]],"b_enc":[-0.08,0.08,-0.02,-0.2,0.13,0.02,0.43,0.38,0.21,0.33],"W_dec":[[-0.37,0.79,-0.16,
    0.37,0.27],[0.36,-0.8,0.19,-0.36,-0.26],[0.14,0.61,0.15,-0.15,-0.75],[-0.86,0.47,-0.07,0.12,-0.15],[0.35,0.01,0.9,0.2,-0.18],[-0.15,
    -0.61,-0.15,0.15,0.75],[-0.58,-0.22,0.06,0.78,0],[0.69,0.51,-0.19,0.06,0.47],[-0.66,0.18,0.21,-0.66,0.24],[0.17,-0.19,-0.38,-0.65,
    -0.61]],"b_dec":[-0.16,0.08,-0.11,-0.06,0.14]},{"W_enc":[[-0.67,0.02,0.02,-0.53,0.37,0.04,-0.51,0.55,0.16,-0.21],[0.51,-0.27,0.27,
    0.14,-0.16,-0.24,-0.7,0.55,-0.06,-0.14],[0.25,0.23,0.6,-0.45,0.7,-0.57,0.22,-0.15,0.38,-0.61],[0.12,-0.22,-0.11,-0.41,0.52,0.14,0.14,
    -0.11,-0.55,-0.12],[0.41,0.32,-0.64,-0.19,0.16,0.58,-0.25,0.26,0.17,-0.58]],"b_enc":[-0.04,-0.07,-0.03,-0.01,-0.04,-0.01,-0.02,-0.03,
    -0.03,-0.05],"W_dec":[[-0.63,0.51,0.25,0.21,0.49],[0.07,-0.52,0.3,-0.49,0.63],[0.06,0.4,0.52,-0.21,-0.72],[-0.52,0.09,-0.27,-0.75,
    -0.31],[0.3,-0.06,0.57,0.73,0.21],[0.09,-0.15,-0.48,0.22,0.83],[-0.57,-0.79,0.16,0.12,-0.15],[0.7,0.56,-0.08,-0.14,0.41],[0.09,-0.06,
    0.38,-0.89,0.24],[-0.05,-0.05,-0.66,-0.44,-0.6]],"b_dec":[0,0,0.01,0,0.01]},{"W_enc":[[-0.62,0.11,0.1,-0.63,0.6,0.05,-0.48,0.46,0.26,
    -0.14],[0.55,-0.29,0.32,0.32,-0.33,-0.22,-0.69,0.64,0.06,-0.15],[0.27,0.13,0.59,-0.39,0.44,-0.46,0.34,-0.33,0.51,-0.64],[0.32,-0.47,
    -0.19,-0.63,0.63,0.16,0.04,-0.01,-0.26,-0.1],[0.43,0.13,-0.7,0.05,-0.1,0.58,-0.12,0.11,0.41,-0.74]],"b_enc":[-0.08,-0.01,-0.04,-0.05,
    -0.05,-0.03,-0.06,-0.04,-0.18,-0.06],"W_dec":[[-0.47,0.43,0.39,0.47,0.47],[0.28,-0.39,0.28,-0.72,0.42],[0.1,0.47,0.55,-0.28,-0.63],
    [-0.56,0.18,-0.24,-0.75,-0.15],[0.33,-0.22,0.47,0.78,0.09],[0.29,-0.12,-0.3,0.22,0.87],[-0.59,-0.74,0.32,0.02,0],[0.62,0.57,-0.36,
    -0.06,0.4],[0.29,0.11,0.6,-0.46,0.57],[0.17,-0.13,-0.43,-0.4,-0.78]],"b_dec":[0,0,0.02,0,0.01]},{"W_enc":[[-0.42,-0.24,0.35,-0.78,
    0.38,0.63,-0.25,0.42,-0.14,-0.15],[0.5,-0.75,0.36,0.39,0.36,-0.26,-0.76,0.27,0.22,-0.07],[0.27,-0.18,0.13,-0.41,0.41,0.65,0.18,-0.61,
    0.27,-0.59],[0.6,-0.67,-0.79,-0.26,0.57,-0.18,0.67,-0.09,-0.18,-0.1],[0.53,0.21,-0.45,-0.19,-0.61,0.51,-0.1,0.57,0.22,-0.69]],
    "b_enc":[-0.21,-0.13,-0.11,-0.08,-0.11,-0.24,-0.13,-0.06,-0.25,-0.13],"W_dec":[[-0.39,0.42,0.37,0.49,0.55],[-0.42,-0.61,0.17,-0.62,
    0.2],[0.14,0.37,0.47,-0.68,-0.4],[-0.77,0.42,-0.07,-0.47,0.03],[0.27,0.31,0.62,0.43,-0.5],[0.48,-0.19,0.63,-0.2,0.54],[-0.29,-0.64,
    0.47,0.53,0.03],[0.52,0.3,-0.46,0.08,0.65],[-0.38,0.4,0.45,-0.55,0.43],[0.02,-0.15,-0.28,-0.32,-0.89]],"b_dec":[-0.01,0,0.05,-0.01,
    0.03]},{"W_enc":[[-0.37,-0.32,0.25,-0.7,0.43,0.63,-0.25,0.49,-0.07,-0.07],[0.49,-0.67,0.33,0.47,0.35,-0.25,-0.71,0.33,0.24,-0.12],
    [0.29,-0.07,0.26,-0.3,0.35,0.63,0.3,-0.57,0.17,-0.63],[0.56,-0.62,-0.7,-0.29,0.58,-0.19,0.56,0,-0.26,-0.06],[0.54,0.16,-0.46,-0.1,
    -0.53,0.49,-0.11,0.53,0.27,-0.67]],"b_enc":[-0.27,-0.2,-0.2,-0.17,-0.19,-0.3,-0.2,-0.17,-0.29,-0.12],"W_dec":[[-0.39,0.41,0.4,0.49,
    0.53],[-0.46,-0.56,0.19,-0.61,0.24],[0.18,0.42,0.51,-0.58,-0.45],[-0.71,0.47,-0.07,-0.51,0.07],[0.32,0.36,0.53,0.5,-0.49],[0.5,-0.21,
    0.58,-0.26,0.55],[-0.32,-0.59,0.51,0.53,0.04],[0.55,0.35,-0.45,0.1,0.6],[-0.33,0.33,0.32,-0.54,0.62],[0.06,-0.06,-0.31,-0.33,-0.89]],
    "b_dec":[-0.02,-0.01,0.07,-0.02,0.04]},{"W_enc":[[-0.34,-0.4,0.34,-0.59,0.41,0.55,-0.25,0.48,-0.04,-0.09],[0.44,-0.55,0.34,0.45,0.29,
    -0.24,-0.56,0.37,0.21,-0.11],[0.3,0.06,0.25,-0.22,0.33,0.48,0.35,-0.46,0.08,-0.58],[0.42,-0.53,-0.56,-0.38,0.57,-0.22,0.48,0.16,-0.31,
    -0.07],[0.48,0.1,-0.54,-0.13,-0.42,0.43,-0.03,0.41,0.29,-0.62]],"b_enc":[-0.35,-0.35,-0.37,-0.32,-0.33,-0.36,-0.33,-0.3,-0.3,-0.15],
    "W_dec":[[-0.4,0.41,0.41,0.48,0.52],[-0.54,-0.5,0.23,-0.56,0.29],[0.29,0.47,0.48,-0.49,-0.47],[-0.62,0.48,-0.09,-0.61,0.06],[0.37,
    0.41,0.46,0.53,-0.44],[0.51,-0.25,0.55,-0.34,0.51],[-0.39,-0.54,0.52,0.52,0.1],[0.53,0.41,-0.47,0.18,0.54],[-0.24,0.24,0.22,-0.72,
    0.57],[0.04,-0.06,-0.32,-0.32,-0.89]],"b_dec":[-0.02,0,0.1,-0.02,0.06]}]
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

/** The codes (k) of an activation x (d): ReLU((x − b_dec) W_enc + b_enc). */
export function encode(x, { W_enc, b_enc, b_dec }) {
  return b_enc.map((b, i) => Math.max(0, b + x.reduce((total, value, d) => total + (value - b_dec[d]) * W_enc[d][i], 0)));
}

/** The activation (d) that codes f (k) stand for: f W_dec + b_dec. */
export function decode(f, { W_dec, b_dec }) {
  return b_dec.map((b, d) => b + f.reduce((total, code, i) => total + code * W_dec[i][d], 0));
}

/** The cosine of every planted direction (row) with every one that was found (column). */
export function alignment(planted, found) {
  return planted.map((a) => found.map((b) => inner(a, b) / (Math.hypot(...a) * Math.hypot(...b))));
}

const PANELS = { parts: "What each part writes", toy: "Superposition", sae: "A sparse autoencoder" };
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
    const panel = f.choice({ name: "panel", label: "Look at", options: Object.entries(PANELS) });
    const at = (name) => () => panel() === name;
    const part = f.choice({ name: "part", label: "The part in question", options: Object.entries(PARTS), when: at("parts") });
    const logit = f.choice({ name: "logit", label: "The logit of", options: Object.entries(logits), when: at("parts") });
    const [S, last] = [f.given("sparsities"), f.given("W")[0][0].length];
    const sparsity = f.slider({ name: "sparsity", label: "Features are absent with probability", min: 0, max: S.length - 1, value: 4,
      show: (i) => fixed(S[i]), when: at("toy") });
    const feature = f.slider({ name: "feature", label: "Feature", min: 1, max: last, value: 1, when: at("toy") });
    const [L, truth] = [f.given("penalties"), f.given("truth")];
    const penalty = f.slider({ name: "penalty", label: "Weight λ of the penalty", min: 0, max: L.length - 1, value: 0,
      show: (i) => fixed(L[i]), when: at("sae") });
    const planted = f.slider({ name: "planted", label: "Planted feature", min: 1, max: truth.length, value: 1, when: at("sae") });

    f.drawn((width) => {
      const wide = width < 520 ? width : Math.floor(width / 2) - 8;
      if (panel() === "parts") attributed(width);
      if (panel() === "toy") superposed(wide);
      if (panel() === "sae") recovered(wide);
    });

    function attributed(width) {
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

      const total = values.reduce((a, b) => a + b);
      f.say(`${PARTS[part()]} writes ${signed(written[part()])} of the ${signed(total)}. Silenced, it leaves ` +
        `${signed(of(f.given("silenced")[part()]))}; by what it wrote alone it would leave ${signed(total - written[part()])}.`);
    }

    function superposed(wide) {
      const [W, i] = [f.given("W")[sparsity()], feature() - 1];
      directions(f, wide, W, i);
      const names = W[0].map((_, j) => `feature ${j + 1}`);
      signedBars(f, wide, { values: along(W, i), names, kinds: names.map((_, j) => (j === i ? "second" : "")), decimals: 2,
        title: `In the direction of feature ${i + 1}` });
      const kept = W[0].filter((_, j) => Math.hypot(...W.map((row) => row[j])) > 0.5).length;
      f.say(`The toy model keeps ${kept} of ${last} features in ${W.length} neurons; ` +
        `feature ${i + 1} has ${fixed(dimensionality(W)[i])} of a dimension.`);
    }

    function recovered(wide) {
      const [sae, i] = [f.given("autoencoders")[penalty()], planted() - 1];
      const cosines = alignment(truth, sae.W_dec);
      const order = paired(cosines);
      const half = { svg: (height, title) => f.svg(height, title, wide) };
      const codes = encode(truth[i], sae);
      const back = decode(codes, sae);
      const error = back.reduce((total, value, d) => total + (value - truth[i][d]) ** 2, 0) / inner(truth[i], truth[i]);
      f.html("p", {}, `Planted directions (rows) and found ones (columns): their cosines. Bars: the codes when feature ${i + 1} alone is present.`);
      cells(half, { matrix: cosines.map((row) => order.map((j) => row[j])), rows: truth.map((_, n) => `${n + 1}`),
        columns: order.map((_, n) => `${n + 1}`), most: 1, size: 28, shown: (value) => (Math.abs(value) < 0.5 ? "" : fixed(value)),
        title: "Cosine of each planted direction with each found one" });
      bars(half, { values: order.map((j) => codes[j]), names: order.map((_, n) => `found ${n + 1}`), most: Math.max(1, ...codes),
        shown: order.map((j) => fixed(codes[j])), kinds: order.map((_, n) => (n === i ? "second" : "")),
        title: `The codes when planted feature ${i + 1} alone is present` });
      const right = cosines.filter((row) => Math.max(...row) > 0.9).length;
      f.say(`With λ = ${fixed(L[penalty()])}, ${right} of ${truth.length} planted directions are found, with a cosine above 0.9. ` +
        `For planted feature ${i + 1} alone, with strength 1, codes above 0.05: ${codes.filter((code) => code > 0.05).length}, ` +
        `the largest: ${fixed(Math.max(...codes))}, relative error: ${fixed(error, 3)}.`);
    }
  },
};

/** An order of the columns: beside each row's place the column that fits it best, the best fit first; the others behind. */
function paired(cosines) {
  const places = cosines.flatMap((row, i) => row.map((value, j) => [value, i, j])).sort((a, b) => b[0] - a[0]);
  const order = [];
  for (const [, i, j] of places) if (order[i] === undefined && !order.includes(j)) order[i] = j;
  return [...order, ...cosines[0].map((_, j) => j).filter((j) => !order.includes(j))];
}

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
