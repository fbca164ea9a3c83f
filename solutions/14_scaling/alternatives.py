"""Right answers of chapter 14 written in other styles; a suite that fails one of them is wrong."""

import itertools
import math

import numpy as np
import torch
from torch.nn import functional as F

from grader.testing import alternative, reference_of

reference = reference_of(__file__)


# -- forward_flops, train_flops


@alternative("forward_flops", "a list of the shapes of all products")
def flops_of_shapes(cfg, T):
    V, D, L, W = (cfg[name] for name in "VDLF")
    layer = 4 * [(T, D, D)] + [(T, D, T), (T, T, D), (T, D, W), (T, W, D)]
    return sum(2 * m * n * p for m, n, p in L * layer + [(T, D, V)])


@alternative("forward_flops", "parameters first, then the pairs of tokens")
def flops_of_parameters(cfg, T):
    weights = cfg["L"] * (4 * cfg["D"] ** 2 + 2 * cfg["D"] * cfg["F"]) + cfg["V"] * cfg["D"]
    return 2 * weights * T + 4 * cfg["L"] * T**2 * cfg["D"]


@alternative("forward_flops", "forward and backward apart", replaces="train_flops")
def forward_and_backward(N, D):
    forward = 2 * N * D
    return forward + 2 * forward


# -- fit_power_law, fit_with_floor


@alternative("fit_power_law", "lstsq in base 2")
def power_law_in_base_2(x, y):
    columns = torch.stack([torch.ones_like(x), x.log2()], dim=1)
    intercept, slope = torch.linalg.lstsq(columns, y.log2().unsqueeze(1)).solution.flatten().tolist()
    return 2**intercept, -slope


@alternative("fit_power_law", "sums in plain Python")
def power_law_by_sums(x, y):
    u, v = [math.log(t) for t in x.tolist()], [math.log(t) for t in y.tolist()]
    n, mu, mv = len(u), math.fsum(u) / len(u), math.fsum(v) / len(v)
    slope = math.fsum((p - mu) * (q - mv) for p, q in zip(u, v, strict=True)) / math.fsum((p - mu) ** 2 for p in u)
    return math.exp(math.fsum(v) / n - slope * mu), -slope


@alternative("fit_power_law", "golden section in numpy, lstsq for each exponent", replaces="fit_with_floor")
def floor_by_golden_section(x, y):
    x, y = x.numpy(), y.numpy()
    scale = np.exp(np.log(x).mean())

    def line(b):
        columns = np.column_stack([np.ones_like(x), (x / scale) ** -b])
        solution = np.linalg.lstsq(columns, y, rcond=None)[0]
        return solution, float(((columns @ solution - y) ** 2).sum())

    grid = np.linspace(0.02, 2, 60)
    best = int(np.argmin([line(b)[1] for b in grid]))
    low, high = grid[max(best - 1, 0)], grid[min(best + 1, 59)]
    ratio = (math.sqrt(5) - 1) / 2
    for _ in range(45):
        one, two = high - ratio * (high - low), low + ratio * (high - low)
        low, high = (low, two) if line(one)[1] < line(two)[1] else (one, high)
    b = float((low + high) / 2)
    E, a = line(b)[0]
    return float(E), float(a * scale**b), b


@alternative("fit_power_law", "Gauss-Newton on E, ln a and b from several starts", replaces="fit_with_floor")
def floor_by_gauss_newton(x, y):
    u = x.log() - x.log().mean()
    best = None
    for b in (0.1, 0.4, 1.0):
        t = torch.tensor([y.min() * 0.8, (y.mean() - 0.8 * y.min()).log(), b], dtype=torch.float64)
        damping = 1e-2
        r = t[0] + (t[1] - t[2] * u).exp() - y
        for _ in range(200):
            power = (t[1] - t[2] * u).exp()
            J = torch.stack([torch.ones_like(u), power, -u * power], 1)
            H = J.T @ J
            trial = t - torch.linalg.solve(H + damping * torch.diag(H.diagonal()), J.T @ r)
            new = trial[0] + (trial[1] - trial[2] * u).exp() - y
            if new.isfinite().all() and new @ new < r @ r:
                t, r, damping = trial, new, damping / 5
            else:
                damping *= 5
        if best is None or r @ r < best[0]:
            best = r @ r, t
    E, log_a, b = best[1].tolist()
    return E, math.exp(log_a + b * x.log().mean().item()), b


# -- chinchilla_optimal, tokens_per_param, undertraining


@alternative("chinchilla_optimal", "bisection on the slope in ln N")
def optimum_by_bisection(C, A, B, alpha, beta):
    low, high = -50.0, 100.0
    for _ in range(200):
        n = (low + high) / 2
        d = math.log(C / 6) - n
        falling = math.log(alpha * A) - alpha * n > math.log(beta * B) - beta * d
        low, high = (n, high) if falling else (low, n)
    N = math.exp(low)
    return N, C / 6 / N


@alternative("chinchilla_optimal", "tokens first, in logarithms")
def optimum_tokens_first(C, A, B, alpha, beta):
    log_D = (math.log(beta * B) - math.log(alpha * A) + alpha * math.log(C / 6)) / (alpha + beta)
    D = math.exp(log_D)
    return C / (6 * D), D


@alternative("chinchilla_optimal", "the formula written out", replaces="undertraining")
def undertraining_written_out(N, D, A=482.01, B=2085.43, alpha=0.3478, beta=0.3658):
    return (beta * B / (alpha * A)) ** (1 / (alpha + beta)) * (N * D) ** (alpha / (alpha + beta)) / D


# -- fit_chinchilla, isoflop_minimum


@alternative("fit_chinchilla", "L-BFGS from eight starts, as in the paper")
def fit_by_lbfgs(N, D, L):
    n, d, y = N.log(), D.log(), L.log()
    u, v = n - n.mean(), d - d.mean()
    best = None
    for p, alpha, beta in itertools.product((-1.0, -0.3), (0.25, 0.6), (0.25, 0.6)):
        start = [y.mean().item() + p, y.mean().item() - 1.5, y.mean().item() - 1.5, alpha, beta]
        theta = torch.tensor(start, dtype=torch.float64, requires_grad=True)
        optimizer = torch.optim.LBFGS(
            [theta], max_iter=250, line_search_fn="strong_wolfe", tolerance_grad=1e-11, tolerance_change=1e-14
        )

        def objective(theta=theta):
            terms = torch.stack([theta[0] + 0 * u, theta[1] - theta[3] * u, theta[2] - theta[4] * v])
            return 1000 * F.huber_loss(terms.logsumexp(0), y, delta=1e-3)

        def closure(theta=theta, optimizer=optimizer, objective=objective):
            optimizer.zero_grad()
            value = objective()
            value.backward()
            return value

        optimizer.step(closure)
        if best is None or objective().item() < best[0]:
            best = objective().item(), theta.tolist()
    p, q, s, alpha, beta = best[1]
    return {
        "E": math.exp(p),
        "A": math.exp(q + alpha * n.mean().item()),
        "B": math.exp(s + beta * d.mean().item()),
        "alpha": alpha,
        "beta": beta,
    }


@alternative("fit_chinchilla", "polyfit in numpy, base 10", replaces="isoflop_minimum")
def bottom_by_polyfit(N, L):
    square, linear, _ = np.polyfit(np.log10(N.numpy()), L.numpy(), 2)
    if square <= 0:
        raise ValueError("no bottom")
    return float(10 ** (-linear / (2 * square)))


@alternative("fit_chinchilla", "normal equations without centring", replaces="isoflop_minimum")
def bottom_by_normal_equations(N, L):
    u = torch.log(N)
    X = torch.vander(u, 3)
    square, linear, _ = torch.linalg.solve(X.T @ X, X.T @ L)
    if not square > 0:
        raise ValueError("opens downwards")
    return torch.exp(-linear / (2 * square)).item()


# -- moe_forward


@alternative("moe_forward", "a loop over the tokens, one row at a time")
def moe_by_tokens(x, W_gate, experts, k):
    if k < 1 or k > len(experts):
        raise ValueError("impossible k")
    rows = []
    for row in x:
        scores = row @ W_gate
        chosen = torch.argsort(scores, descending=True)[:k]
        weights = torch.softmax(scores[chosen], 0)
        outputs = [w * experts[int(e)](row[None])[0] for w, e in zip(weights, chosen, strict=True)]
        rows.append(torch.stack(outputs).sum(0))
    return torch.stack(rows) if rows else torch.empty_like(x)


@alternative("moe_forward", "minus infinity elsewhere, a dense table of weights, boolean rows")
def moe_by_mask(x, W_gate, experts, k):
    E = W_gate.size(1)
    if k not in range(1, E + 1):
        raise ValueError("impossible k")
    scores = torch.einsum("nd,de->ne", x, W_gate)
    table = torch.full_like(scores, -torch.inf)
    values, indices = torch.topk(scores, k)
    weights = F.softmax(table.scatter(1, indices, values), dim=1)
    selected = torch.zeros_like(scores, dtype=torch.bool).scatter(1, indices, True)
    y = x * 0
    for e in range(E):
        rows = selected[:, e]
        if rows.any():
            y[rows] = y[rows] + weights[rows, e].unsqueeze(-1) * experts[e](x[rows])
    return y


@alternative("moe_forward", "softmax over all, then divided by the sum of the selected")
def moe_renormalised(x, W_gate, experts, k):
    if not 0 < k <= W_gate.shape[-1]:
        raise ValueError("impossible k")
    probabilities = (x @ W_gate).softmax(-1)
    top, chosen = probabilities.topk(k)
    top = top / top.sum(-1, keepdim=True)
    y = torch.zeros_like(x)
    for slot in range(k):
        for e in chosen[:, slot].unique().tolist():
            where = (chosen[:, slot] == e).nonzero().flatten()
            y = y.index_put((where,), top[where, slot].unsqueeze(1) * experts[e](x[where]), accumulate=True)
    return y


# -- load_balancing_loss


@alternative("load_balancing_loss", "bincount, layer by layer")
def balance_by_bincount(router_probs, topk_idx, E):
    if router_probs.dim() == 3:
        return torch.stack([one_layer(p, i, E) for p, i in zip(router_probs, topk_idx, strict=True)]).mean()
    return one_layer(router_probs, topk_idx, E)


def one_layer(probs, idx, E):
    f = torch.bincount(idx.flatten(), minlength=E) / idx.numel()
    return E * torch.dot(f.to(probs.dtype), probs.mean(0))


@alternative("load_balancing_loss", "one-hot and einsum")
def balance_by_einsum(router_probs, topk_idx, E):
    if router_probs.dim() == 2:
        router_probs, topk_idx = router_probs[None], topk_idx[None]
    layers, N, k = topk_idx.shape
    f = F.one_hot(topk_idx, E).to(router_probs.dtype).sum((1, 2)) / (N * k)
    return torch.einsum("le,lne->", f, router_probs) * E / (N * layers)


# -- dispatch, moe_params


@alternative("dispatch", "one expert after another")
def dispatch_by_expert(idx, weights, capacity_factor, E):
    N, k = idx.shape
    room = math.ceil(capacity_factor * N * k / E)
    assignment = []
    for e in range(E):
        token, slot = torch.where(idx == e)
        queue = [(int(t), float(weights[t, j])) for t, j in zip(token, slot, strict=True)]
        assignment.append(sorted(queue)[:room])
    served = {t for queue in assignment for t, _ in queue}
    return assignment, sorted(set(range(N)) - served)


@alternative("dispatch", "places in the queue by a running count")
def dispatch_by_cumsum(idx, weights, capacity_factor, E):
    N, k = idx.shape
    capacity = -int(-(capacity_factor * N * k) // E)
    asked = torch.nn.functional.one_hot(idx, E).sum(1)  # (N, E)
    place = asked.cumsum(0) - asked
    kept = (asked > 0) & (place < capacity)  # (N, E)
    weight = torch.zeros(N, E, dtype=weights.dtype).scatter(1, idx, weights)
    queues = tuple([(t, weight[t, e].item()) for t in kept[:, e].nonzero().flatten().tolist()] for e in range(E))
    return queues, (~kept.any(1)).nonzero().flatten().tolist()


@alternative("dispatch", "a list of shapes, each with the copies held and used", replaces="moe_params")
def params_by_shapes(cfg):
    D, wide, narrow = cfg["D"], cfg["H"] * cfg["hd"], cfg["Hk"] * cfg["hd"]
    parts = [
        (D * wide, 2, 2),
        (D * narrow, 2, 2),
        (D * cfg["E"], 1, 1),
        (D, 2, 2),
        (D * cfg["F"], 3 * cfg["E"], 3 * cfg["k"]),
    ]
    around = 2 * cfg["V"] * D + D
    total = cfg["L"] * sum(size * held for size, held, _ in parts) + around
    active = cfg["L"] * sum(size * used for size, _, used in parts) + around
    return total, active


# -- exact_match_rate, emergence_point


@alternative("exact_match_rate", "repeated multiplication")
def rate_by_products(p_token, length):
    rate = p_token * 0 + 1
    for _ in range(length):
        rate = rate * p_token
    return rate


@alternative("exact_match_rate", "minimum of those that reach the level", replaces="emergence_point")
def emergence_by_minimum(params, p_of_N, length, level):
    able = [N for N in params if p_of_N(N) ** length >= level]
    return min(able) if able else None
