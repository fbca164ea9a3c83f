"""Wrong answers of chapter 14, each with what it says about the student's idea."""

import math

import torch

from grader.testing import misconception, reference_of

reference = reference_of(__file__)


# -- forward_flops, train_flops


def flops(cfg, T, product=2, pairs=2, head=1, embedding=0, projections=4, layers=None, feed_forward=2):
    """The right count, but for the factors given."""
    V, D, L, F = cfg["V"], cfg["D"], cfg["L"], cfg["F"]
    layer = T * projections * D * D + pairs * T * T * D + T * feed_forward * D * F
    return product * ((L if layers is None else layers) * layer + (head + embedding) * T * D * V)


@misconception("forward_flops", "You count a multiplication and its addition as one; a product of matrices takes 2mnp.")
def counts_multiplications_only(cfg, T):
    return flops(cfg, T, product=1)


@misconception(
    "forward_flops", "Attention has two products over pairs of tokens: the scores and the mix of the values."
)
def one_product_of_pairs(cfg, T):
    return flops(cfg, T, pairs=1)


@misconception("forward_flops", "You leave out the products of tokens with tokens, which grow with the square of T.")
def no_pairs(cfg, T):
    return flops(cfg, T, pairs=0)


@misconception("forward_flops", "The head is missing: making the logits is a product with a D x V matrix.")
def no_head(cfg, T):
    return flops(cfg, T, head=0)


@misconception("forward_flops", "You charge for the embeddings; looking up a row is no arithmetic and counts as 0.")
def embedding_costs(cfg, T):
    return flops(cfg, T, embedding=1)


@misconception(
    "forward_flops", "A causal mask hides half of the scores, but they are computed all the same: count T x T."
)
def masked_pairs_are_free(cfg, T):
    V, D, L, F = cfg["V"], cfg["D"], cfg["L"], cfg["F"]
    return L * (8 * T * D * D + 4 * T * (T + 1) // 2 * D + 4 * T * D * F) + 2 * T * D * V


@misconception("forward_flops", "A layer has four D x D projections; you forgot the one after the heads.")
def three_projections(cfg, T):
    return flops(cfg, T, projections=3)


@misconception("forward_flops", "You take F as 4 D; the width of the feed-forward part is given in cfg.")
def assumes_four_times(cfg, T):
    return flops(cfg | {"F": 4 * cfg["D"]}, T)


@misconception(
    "forward_flops", "2 N D is the forward pass alone; the backward pass costs twice as much again.", "train_flops"
)
def forward_only(N, D):
    return 2 * N * D


@misconception("forward_flops", "The backward pass costs two forward passes, not one: 6 N D altogether.", "train_flops")
def backward_as_forward(N, D):
    return 4 * N * D


# -- fit_power_law, fit_with_floor


@misconception("fit_power_law", "The sign of your exponent is reversed: b is positive when y falls as x grows.")
def sign_of_exponent(x, y):
    a, b = reference.fit_power_law(x, y)
    return a, -b


@misconception("fit_power_law", "Your a is still a logarithm; take the exponential of the intercept.")
def a_is_a_logarithm(x, y):
    a, b = reference.fit_power_law(x, y)
    return math.log(a), b


@misconception("fit_power_law", "You fit in linear space, where large values drown the small ones; fit the logarithms.")
def fits_in_linear_space(x, y):
    grid = torch.linspace(-2, 4, 6001, dtype=torch.float64)[:, None]
    z = (x / x.log().mean().exp()) ** -grid
    a = (z * y).sum(-1) / (z * z).sum(-1)
    best = ((a[:, None] * z - y) ** 2).sum(-1).argmin()
    return a[best].item() * math.exp(grid[best].item() * x.log().mean()), grid[best].item()


@misconception(
    "fit_power_law", "You draw the line through the first and the last point; use all points by least squares."
)
def line_through_the_ends(x, y):
    b = -((y[-1] / y[0]).log() / (x[-1] / x[0]).log()).item()
    return (y[0] * x[0] ** b).item(), b


@misconception("fit_power_law", "You mix logarithms: the intercept is in base 10, so a is 10 to its power, not e.")
def mixes_bases(x, y):
    a, b = reference.fit_power_law(x, y)
    return math.exp(math.log10(a)), b


@misconception("fit_power_law", "Your floor is always 0; E must be fitted together with a and b.", "fit_with_floor")
def no_floor(x, y):
    a, b = reference.fit_power_law(x, y)
    return 0.0, a, b


@misconception("fit_power_law", "You take the lowest y as the floor; the floor lies below all data.", "fit_with_floor")
def floor_is_the_minimum(x, y):
    E = y.min().item()
    above = y > E
    a, b = reference.fit_power_law(x[above], y[above] - E)
    return E, a, b


@misconception("fit_power_law", "Your exponent comes from a coarse grid; refine it around the best.", "fit_with_floor")
def coarse_grid(x, y):
    best = None
    for b in (0.1 * i for i in range(1, 21)):
        z = x**-b
        dz = z - z.mean()
        a = ((dz * y).sum() / (dz * dz).sum()).item()
        E = (y.mean() - a * z.mean()).item()
        value = ((E + a * z - y) ** 2).sum().item()
        if best is None or value < best[0]:
            best = value, E, a, b
    return best[1:]


@misconception("fit_power_law", "Your b has the wrong sign: the law is E + a x^(-b).", "fit_with_floor")
def floor_with_reversed_exponent(x, y):
    E, a, b = reference.fit_with_floor(x, y)
    return E, a, -b


# -- chinchilla_optimal, tokens_per_param, undertraining


def split(C, A, B, alpha, beta, power):
    N = (alpha * A / (beta * B)) ** (1 / (alpha + beta)) * (C / 6) ** power
    return N, C / (6 * N)


@misconception("chinchilla_optimal", "You exchange the exponents: N grows as C to the beta / (alpha + beta).")
def exponents_exchanged(C, A, B, alpha, beta):
    return split(C, A, B, alpha, beta, alpha / (alpha + beta))


@misconception("chinchilla_optimal", "The 6 is missing: training costs C = 6 N D, not N D.")
def six_missing(C, A, B, alpha, beta):
    N, D = reference.chinchilla_optimal(6 * C, A, B, alpha, beta)
    return N, D


@misconception("chinchilla_optimal", "You exchange A and B: A belongs to the parameters, B to the tokens.")
def constants_exchanged(C, A, B, alpha, beta):
    return reference.chinchilla_optimal(C, B, A, alpha, beta)


@misconception("chinchilla_optimal", "Setting the two terms equal is not the minimum; their slopes must be equal.")
def equal_terms(C, A, B, alpha, beta):
    N = (A / B) ** (1 / (alpha + beta)) * (C / 6) ** (beta / (alpha + beta))
    return N, C / (6 * N)


@misconception(
    "chinchilla_optimal", "You use 20 tokens per parameter for every law; derive the split from its constants."
)
def always_twenty(C, A, B, alpha, beta):
    N = math.sqrt(C / 120)
    return N, 20 * N


@misconception("chinchilla_optimal", "You give tokens and parameters in the wrong order; return (N, D).")
def order_exchanged(C, A, B, alpha, beta):
    N, D = reference.chinchilla_optimal(C, A, B, alpha, beta)
    return D, N


@misconception("chinchilla_optimal", "You divide the wrong way round: tokens by parameters, D / N.", "tokens_per_param")
def params_per_token(N, D):
    return N / D


@misconception(
    "chinchilla_optimal", "Your ratio is upside down: it is the best tokens over the tokens seen.", "undertraining"
)
def overtraining(N, D, A=482.01, B=2085.43, alpha=0.3478, beta=0.3658):
    return D / reference.chinchilla_optimal(6 * N * D, A, B, alpha, beta)[1]


@misconception("chinchilla_optimal", "You keep N and ask for its tokens; compare at the same compute.", "undertraining")
def same_size_instead_of_same_compute(N, D, A=482.01, B=2085.43, alpha=0.3478, beta=0.3658):
    tokens = (beta * B / (alpha * A)) ** (1 / beta) * N ** (alpha / beta)
    return tokens / D


@misconception(
    "chinchilla_optimal", "You measure against 20 tokens per parameter; use the law that is given.", "undertraining"
)
def measured_against_twenty(N, D, A=482.01, B=2085.43, alpha=0.3478, beta=0.3658):
    return 20 * N / D


@misconception(
    "chinchilla_optimal", "Your default constants are those of 2022; the docstring asks for EPOCH.", "undertraining"
)
def old_defaults(N, D, A=406.4, B=410.7, alpha=0.34, beta=0.28):
    return reference.chinchilla_optimal(6 * N * D, A, B, alpha, beta)[1] / D


# -- fit_chinchilla, isoflop_minimum


def fitted(N, D, L, penalty, space=torch.log, steps=100, share=(0.6, 0.2, 0.2), exponents=(0.15, 0.3, 0.5, 0.8)):
    """Damped Newton-like descent with another penalty's weights, another space, or too few steps or starts."""
    u, v = N.log() - N.log().mean(), D.log() - D.log().mean()

    def model(t):
        terms = torch.stack([t[0] + 0 * u, t[1] - t[3] * u, t[2] - t[4] * v], -1).exp()
        total = terms.sum(-1)
        J = torch.stack([terms[:, 0], terms[:, 1], terms[:, 2], -terms[:, 1] * u, -terms[:, 2] * v], -1)
        return space(total), J / total[:, None] if space is torch.log else J

    def value(t):
        r = model(t)[0] - space(L)
        return penalty(r.abs()).mean()

    best = None
    for alpha in exponents:
        for beta in exponents:
            t = torch.tensor([*(L.log().mean().item() + math.log(w) for w in share), alpha, beta], dtype=torch.float64)
            damping, now = 1.0, value(t)
            for _ in range(steps):
                predicted, J = model(t)
                r = predicted - space(L)
                w = penalty(r.abs(), slope=True)[:, None]
                H = J.T @ (w * J)
                H = H + damping * torch.diag(H.diagonal()) + 1e-15 * torch.eye(5, dtype=torch.float64)
                trial = t - torch.linalg.solve(H, J.T @ (w[:, 0] * r))
                new = value(trial)
                t, now, damping = (trial, new, damping / 4) if new < now else (t, now, min(damping * 4, 1e9))
            if best is None or now < best[0]:
                best = now, t
    p, q, s, alpha, beta = best[1].tolist()
    A, B = math.exp(q + alpha * N.log().mean()), math.exp(s + beta * D.log().mean())
    return {"E": math.exp(p), "A": A, "B": B, "alpha": alpha, "beta": beta}


def squared(size, slope=False):
    return torch.ones_like(size) if slope else size * size / 2


def huber(size, slope=False):
    if slope:
        return (1e-3 / size).clamp(max=1.0)
    return torch.where(size <= 1e-3, size * size / 2, 1e-3 * (size - 5e-4))


@misconception("fit_chinchilla", "Your E is still a logarithm; take its exponential, as for A and B.")
def floor_not_exponentiated(N, D, L):
    law = reference.fit_chinchilla(N, D, L)
    return law | {"E": math.log(law["E"])}


@misconception(
    "fit_chinchilla", "With squared errors a single bad run bends the law; use the Huber loss with d = 0.001."
)
def squared_errors(N, D, L):
    return fitted(N, D, L, squared, exponents=(0.3, 0.6))


@misconception("fit_chinchilla", "Your Huber loss compares the losses themselves; compare their logarithms.")
def losses_not_logarithms(N, D, L):
    return fitted(N, D, L, huber, space=lambda x: x, exponents=(0.3, 0.6))


@misconception("fit_chinchilla", "Your descent stops long before the minimum; iterate until nothing changes.")
def stops_early(N, D, L):
    return fitted(N, D, L, huber, steps=4, exponents=(0.3, 0.6))


@misconception("fit_chinchilla", "You leave out the floor E; the loss does not go to zero.")
def law_without_a_floor(N, D, L):
    return fitted(N, D, L, huber, share=(1e-9, 0.5, 0.5), exponents=(0.1,), steps=40)


@misconception("fit_chinchilla", "You exchange A and alpha with B and beta: the first pair belongs to N.")
def pairs_exchanged(N, D, L):
    law = reference.fit_chinchilla(N, D, L)
    return {"E": law["E"], "A": law["B"], "B": law["A"], "alpha": law["beta"], "beta": law["alpha"]}


def bottom(u, L):
    """The bottom of the parabola of least squares in u."""
    scale = u.abs().max()
    columns = torch.stack([torch.ones_like(u), u / scale, (u / scale) ** 2], -1)
    _, linear, square = torch.linalg.lstsq(columns, L[:, None]).solution[:, 0].tolist()
    if square <= 0:
        raise ValueError("no bottom")
    return scale.item() * -linear / (2 * square)


@misconception(
    "fit_chinchilla", "Your parabola is in N; sizes are spread over factors, so use ln N.", "isoflop_minimum"
)
def parabola_in_N(N, L):
    reference.isoflop_minimum(N, L)
    return abs(bottom(N - N.mean(), L) + N.mean().item()) + 1e-9


@misconception(
    "fit_chinchilla", "You return the best size tried; the bottom usually lies between two.", "isoflop_minimum"
)
def best_size_tried(N, L):
    reference.isoflop_minimum(N, L)
    return N[L.argmin()].item()


@misconception("fit_chinchilla", "You return ln N; take the exponential of the bottom.", "isoflop_minimum")
def bottom_is_a_logarithm(N, L):
    return math.log(reference.isoflop_minimum(N, L))


@misconception("fit_chinchilla", "A parabola that opens downwards has a top, not a bottom: raise.", "isoflop_minimum")
def accepts_a_top(N, L):
    u = N.log() - N.log().mean()
    columns = torch.stack([torch.ones_like(u), u, u * u], -1)
    _, linear, square = torch.linalg.lstsq(columns, L[:, None]).solution[:, 0].tolist()
    return math.exp(-linear / (2 * square) + N.log().mean())


# -- moe_forward


def routed(x, W_gate, experts, k, weigh=None, first=0, largest=True):
    """The right layer, but for the weights, the numbering of the experts or the choice."""
    if not 1 <= k <= W_gate.shape[1]:
        raise ValueError("k")
    scores = x @ W_gate
    top, chosen = scores.topk(k, dim=-1, largest=largest)
    weights = torch.softmax(top, -1) if weigh is None else weigh(scores, top, chosen)
    y = torch.zeros_like(x)
    for e in range(len(experts)):
        token, slot = torch.where(chosen == e)
        if len(token):
            expert = experts[(e + first) % len(experts)]
            y = y.index_add(0, token, weights[token, slot, None] * expert(x[token]))
    return y


@misconception("moe_forward", "You take the plain mean of the experts; weight each by the softmax of its score.")
def plain_mean(x, W_gate, experts, k):
    return routed(x, W_gate, experts, k, lambda scores, top, chosen: torch.full_like(top, 1 / k))


@misconception("moe_forward", "You add the experts' outputs without weights; weight each by the softmax of its score.")
def no_weights(x, W_gate, experts, k):
    return routed(x, W_gate, experts, k, lambda scores, top, chosen: torch.ones_like(top))


@misconception("moe_forward", "Your softmax runs over all scores, so the weights sum to less than one; select first.")
def softmax_over_all(x, W_gate, experts, k):
    return routed(x, W_gate, experts, k, lambda scores, top, chosen: scores.softmax(-1).gather(-1, chosen))


@misconception("moe_forward", "Your experts are off by one: column e of the router belongs to experts[e].")
def off_by_one(x, W_gate, experts, k):
    return routed(x, W_gate, experts, k, first=1)


@misconception("moe_forward", "You run every expert on every token and throw most away; call only the selected ones.")
def runs_all_experts(x, W_gate, experts, k):
    if not 1 <= k <= len(experts):
        raise ValueError("k")
    if len(x) == 0:
        return x.clone()
    scores = x @ W_gate
    top, chosen = scores.topk(k, dim=-1)
    weights = torch.zeros_like(scores).scatter(-1, chosen, top.softmax(-1))
    return sum(weights[:, e, None] * expert(x) for e, expert in enumerate(experts))


@misconception("moe_forward", "You select the k smallest scores; the best experts are those with the largest.")
def worst_experts(x, W_gate, experts, k):
    return routed(x, W_gate, experts, k, largest=False)


@misconception("moe_forward", "The weights are cut off from the gradient, so the router never learns; do not detach.")
def gate_detached(x, W_gate, experts, k):
    return routed(x, W_gate, experts, k, lambda scores, top, chosen: top.detach().softmax(-1))


@misconception("moe_forward", "The exponentials of large scores overflow; subtract the largest first, as softmax does.")
def overflows(x, W_gate, experts, k):
    return routed(x, W_gate, experts, k, lambda scores, top, chosen: top.exp() / top.exp().sum(-1, keepdim=True))


@misconception("moe_forward", "A k below 1 or above the number of experts must raise a ValueError.")
def any_k(x, W_gate, experts, k):
    return routed(x, W_gate, experts, max(1, min(k, len(experts))))


# -- load_balancing_loss


def balance(probs, idx, E, f=None, P=None, factor=None):
    """The right loss, but for the parts given."""
    chosen = (idx.unsqueeze(-1) == torch.arange(E)).to(probs.dtype)  # (..., N, k, E)
    f = chosen.mean((-3, -2)) if f is None else f(chosen)
    P = probs.mean(-2) if P is None else P(probs, chosen)
    return ((E if factor is None else factor) * (f * P).sum(-1)).mean()


@misconception("load_balancing_loss", "The factor E is missing, so even routing gives 1 / E instead of one.")
def factor_missing(router_probs, topk_idx, E):
    return balance(router_probs, topk_idx, E, factor=1)


@misconception("load_balancing_loss", "Divide the counts by N times k; with N alone the loss grows with k.")
def not_divided_by_k(router_probs, topk_idx, E):
    return balance(router_probs, topk_idx, E, f=lambda chosen: chosen.sum(-2).mean(-2))


@misconception("load_balancing_loss", "You square the shares; a count has no gradient, so multiply f by the mean P.")
def squares_the_shares(router_probs, topk_idx, E):
    return balance(router_probs, topk_idx, E, P=lambda probs, chosen: chosen.mean((-3, -2)) + 0 * probs.mean(-2))


@misconception("load_balancing_loss", "You square the mean probabilities; one of the factors is the share of choices.")
def squares_the_probabilities(router_probs, topk_idx, E):
    P = router_probs.mean(-2)
    return (E * (P * P).sum(-1)).mean()


@misconception("load_balancing_loss", "P is cut off from the gradient, so the loss cannot change the router.")
def probabilities_detached(router_probs, topk_idx, E):
    return balance(router_probs, topk_idx, E, P=lambda probs, chosen: probs.detach().mean(-2))


@misconception(
    "load_balancing_loss", "You pool all layers into one, where opposite faults cancel; take each by itself."
)
def pooled_over_layers(router_probs, topk_idx, E):
    return balance(router_probs.reshape(-1, E), topk_idx.reshape(-1, topk_idx.shape[-1]), E)


@misconception("load_balancing_loss", "P is the mean over all tokens; you count only those that selected the expert.")
def probabilities_of_the_selected(router_probs, topk_idx, E):
    return balance(router_probs, topk_idx, E, P=lambda probs, chosen: (probs * chosen.sum(-2)).mean(-2))


@misconception("load_balancing_loss", "You add up the layers; return their mean.")
def sums_over_layers(router_probs, topk_idx, E):
    layers = router_probs.shape[0] if router_probs.dim() == 3 else 1
    return layers * balance(router_probs, topk_idx, E)


@misconception("load_balancing_loss", "You count only the first choice of each token; all k choices are assignments.")
def first_choice_only(router_probs, topk_idx, E):
    return balance(router_probs, topk_idx[..., :1], E)


# -- dispatch, moe_params


def queue(idx, weights, capacity, E, order=None, whole=False, rescale=False, partial=False):
    """The right queues, but for the capacity, the order, or what becomes of the rest of a token."""
    N, k = idx.shape
    requests = [(t, j) for t in range(N) for j in range(k)]
    if order is not None:
        requests.sort(key=order)
    lists, lost = [[] for _ in range(E)], set()
    for t, j in requests:
        e = int(idx[t, j])
        if len(lists[e]) < capacity:
            lists[e].append((t, float(weights[t, j])))
        else:
            lost.add(t)
    lists = [sorted(entries) for entries in lists]
    if whole:
        lists = [[entry for entry in entries if entry[0] not in lost] for entries in lists]
    kept = {t: sum(w for entries in lists for s, w in entries if s == t) for t in range(N)}
    served = {t for entries in lists for t, _ in entries}
    if rescale:
        total = weights.sum(-1).tolist()
        lists = [[(t, w if kept[t] == total[t] else w / kept[t]) for t, w in entries] for entries in lists]
    return lists, sorted(lost) if partial else [t for t in range(N) if t not in served]


def room(idx, factor, E):
    return math.ceil(factor * idx.numel() / E)


@misconception("dispatch", "You round the capacity down, so that few tokens find no room at all; round up.")
def capacity_rounded_down(idx, weights, capacity_factor, E):
    return queue(idx, weights, int(capacity_factor * idx.numel() / E), E)


@misconception("dispatch", "Your capacity forgets that each token asks k experts; it is factor * N * k / E.")
def capacity_without_k(idx, weights, capacity_factor, E):
    return queue(idx, weights, math.ceil(capacity_factor * len(idx) / E), E)


@misconception("dispatch", "You drop the lightest; here earlier tokens win, whatever their weights.")
def heaviest_first(idx, weights, capacity_factor, E):
    return queue(idx, weights, room(idx, capacity_factor, E), E, order=lambda r: -float(weights[r]))


@misconception("dispatch", "You serve the later tokens and drop the earlier ones; go through them in order.")
def latest_first(idx, weights, capacity_factor, E):
    return queue(idx, weights, room(idx, capacity_factor, E), E, order=lambda r: -r[0])


@misconception("dispatch", "You drop a token that loses one of its experts; it keeps the others.")
def all_or_nothing(idx, weights, capacity_factor, E):
    return queue(idx, weights, room(idx, capacity_factor, E), E, whole=True)


@misconception("dispatch", "You rescale the weights of a token that lost an expert; they stay as they are.")
def rescales(idx, weights, capacity_factor, E):
    return queue(idx, weights, room(idx, capacity_factor, E), E, rescale=True)


@misconception("dispatch", "You call a token dropped as soon as one expert refuses it; only all of them count.")
def dropped_too_soon(idx, weights, capacity_factor, E):
    return queue(idx, weights, room(idx, capacity_factor, E), E, partial=True)


@misconception("dispatch", "All tokens' first choices go before any second choice; here tokens go in order.")
def first_choices_first(idx, weights, capacity_factor, E):
    return queue(idx, weights, room(idx, capacity_factor, E), E, order=lambda r: (r[1], r[0]))


def counted(cfg, active_experts, router=True, norms=True, matrices=3, heads=2, kv="Hk"):
    V, D, L, H, hd, F, E = (cfg[name] for name in ("V", "D", "L", "H", "hd", "F", "E"))
    attention = 2 * D * H * hd + 2 * D * cfg[kv] * hd
    rest = attention + (D * E if router else 0) + (2 * D if norms else 0)
    return L * (rest + active_experts * matrices * D * F) + heads * V * D + (D if norms else 0)


def both(cfg, **parts):
    return counted(cfg, cfg["E"], **parts), counted(cfg, cfg["k"], **parts)


@misconception("dispatch", "Your active count holds all experts; a token uses k of them in each layer.", "moe_params")
def all_are_active(cfg):
    return counted(cfg, cfg["E"]), counted(cfg, cfg["E"])


@misconception("dispatch", "The router is missing: D x E weights in each layer, all active.", "moe_params")
def no_router(cfg):
    return both(cfg, router=False)


@misconception("dispatch", "An expert has three D x F matrices: gate, up and down; you count two.", "moe_params")
def two_matrices(cfg):
    return both(cfg, matrices=2)


@misconception("dispatch", "You give keys and values as many heads as the queries; they have Hk.", "moe_params")
def all_heads_have_keys(cfg):
    return both(cfg, kv="H")


@misconception("dispatch", "Embeddings and head are two matrices of V x D; you count one.", "moe_params")
def tied_head(cfg):
    return both(cfg, heads=1)


@misconception("dispatch", "The norms are missing: two of D weights in a layer and one at the end.", "moe_params")
def no_norms(cfg):
    return both(cfg, norms=False)


# -- exact_match_rate, emergence_point


@misconception("exact_match_rate", "That is the chance of at least one right token; all of them must be right.")
def at_least_one(p_token, length):
    return 1 - (1 - p_token) ** length


@misconception("exact_match_rate", "You average over the tokens; an answer counts only if all of them are right.")
def average_over_tokens(p_token, length):
    return p_token * 1.0


@misconception("exact_match_rate", "You multiply p by the length; independent events multiply their probabilities.")
def proportional_loss(p_token, length):
    return 1.0 - length * (1 - p_token)


@misconception("exact_match_rate", "Your answer has one token too many: p to the power of length.")
def one_token_more(p_token, length):
    return p_token ** (length + 1)


@misconception(
    "exact_match_rate", "Compare the rate of the whole answer with the level, not that of a token.", "emergence_point"
)
def level_of_a_token(params, p_of_N, length, level):
    return next((N for N in sorted(params) if p_of_N(N) >= level), None)


@misconception("exact_match_rate", "Sizes come in any order; go through them from the smallest.", "emergence_point")
def order_as_given(params, p_of_N, length, level):
    return next((N for N in params if p_of_N(N) ** length >= level), None)


@misconception("exact_match_rate", "Reaching the level is enough; your comparison is strict.", "emergence_point")
def strictly_above(params, p_of_N, length, level):
    return next((N for N in sorted(params) if p_of_N(N) ** length > level), None)


@misconception("exact_match_rate", "Where no model reaches the level the answer is None.", "emergence_point")
def largest_if_none(params, p_of_N, length, level):
    able = [N for N in sorted(params) if p_of_N(N) ** length >= level]
    return able[0] if able else max(params, default=0)


@misconception("exact_match_rate", "Bisection needs a curve that always rises; this one may fall.", "emergence_point")
def bisection(params, p_of_N, length, level):
    sizes = sorted(params)
    low, high = 0, len(sizes)
    while low < high:
        middle = (low + high) // 2
        if p_of_N(sizes[middle]) ** length >= level:
            high = middle
        else:
            low = middle + 1
    return sizes[low] if low < len(sizes) else None
