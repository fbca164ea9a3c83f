"""Right answers of chapter 8 written in other styles; a suite that fails one of them is wrong."""

import math

import numpy as np
import torch

from grader.testing import alternative, reference_of

reference = reference_of(__file__)


# -- central_difference, grad_check


@alternative("central_difference", "tuples put together from slices, and the distance as the machine sees it")
def by_slices(f, args, i, h=1e-5):
    point = tuple(args)
    low, high = point[i] - h, point[i] + h
    below, above = (f(*point[:i], x, *point[i + 1 :]) for x in (low, high))
    return (above - below) / (high - low)


@alternative("central_difference", "an index loop that puts each entry back", replaces="grad_check")
def check_in_place(f, grad_f, x, tol):
    claimed, point, h = np.array(grad_f(x)), np.array(x, dtype=np.float64), 1e-5
    if claimed.shape != point.shape:
        return False
    for index in np.ndindex(*point.shape):
        kept = point[index]
        point[index] = kept + h
        above = f(point)
        point[index] = kept - h
        below = f(point)
        point[index] = kept
        a, n = float(claimed[index]), (above - below) / (2 * h)
        if not math.isfinite(a) or not abs(a - n) <= tol * max(1.0, abs(a), abs(n)):
            return False
    return True


@alternative("central_difference", "unit vectors, and a numpy bool in the end", replaces="grad_check")
def check_by_unit_vectors(f, grad_f, x, tol):
    claimed = grad_f(x)
    if np.shape(claimed) != np.shape(x):
        return False
    steps = 1e-5 * np.eye(x.size).reshape(x.size, *x.shape)
    numeric = np.array([(f(x + step) - f(x - step)) / 2e-5 for step in steps]).reshape(x.shape)
    size = np.stack([np.ones(x.shape), abs(claimed), abs(numeric)]).max(axis=0)
    return np.all(np.isfinite(claimed)) and np.max(abs(claimed - numeric) / size) <= tol


# -- topological_order


@alternative("topological_order", "a stack of (node, are its parents done?) pairs")
def by_two_visits(root):
    order, placed, stack = [], set(), [(root, False)]
    while stack:
        node, parents_done = stack.pop()
        if id(node) in placed:
            continue
        if parents_done:
            placed.add(id(node))
            order.append(node)
        else:
            stack.append((node, True))
            stack.extend((parent, False) for parent in node.parents if id(parent) not in placed)
    return order


@alternative("topological_order", "counting uses and taking away from the root, Kahn's way")
def by_counting_uses(root):
    uses, found = {id(root): 0}, [root]
    for node in found:
        for parent in node.parents:
            if id(parent) not in uses:
                uses[id(parent)] = 0
                found.append(parent)
            uses[id(parent)] += 1
    order, ready = [], [root]
    while ready:
        node = ready.pop(0)
        order.append(node)
        for parent in node.parents:
            uses[id(parent)] -= 1
            if uses[id(parent)] == 0:
                ready.append(parent)
    order.reverse()
    return order


# -- Value


@alternative("Value", "closures that push to the operands' grads; earlier grads are put aside and added back")
class ByClosures:
    def __init__(self, data, parents=(), slopes=()):
        self.data, self.grad, self.parents = float(data), 0.0, tuple(parents)
        self._push = lambda: None

    @staticmethod
    def wrap(x):
        return x if isinstance(x, ByClosures) else ByClosures(x)

    def __add__(self, other):
        other = ByClosures.wrap(other)
        out = ByClosures(self.data + other.data, (self, other))

        def push():
            self.grad += out.grad
            other.grad += out.grad

        out._push = push
        return out

    def __mul__(self, other):
        other = ByClosures.wrap(other)
        out = ByClosures(self.data * other.data, (self, other))

        def push():
            self.grad += other.data * out.grad
            other.grad += self.data * out.grad

        out._push = push
        return out

    def _unary(self, data, slope):
        out = ByClosures(data, (self,))

        def push():
            self.grad += slope * out.grad

        out._push = push
        return out

    def __pow__(self, n):
        return self._unary(math.pow(self.data, n), n * math.pow(self.data, n - 1))

    def __truediv__(self, other):
        other = ByClosures.wrap(other)
        return self * other._unary(1 / other.data, -1 / other.data / other.data)

    def exp(self):
        return self._unary(math.exp(self.data), math.exp(self.data))

    def log(self):
        return self._unary(math.log(self.data), 1 / self.data)

    def tanh(self):
        return self._unary(math.tanh(self.data), (1 - math.tanh(self.data)) * (1 + math.tanh(self.data)))

    def relu(self):
        return self._unary(self.data, 1.0) if self.data > 0 else self._unary(0.0, 0.0)

    def __neg__(self):
        return self._unary(-self.data, -1.0)

    def __sub__(self, other):
        return self + (-ByClosures.wrap(other))

    def __rsub__(self, other):
        return ByClosures.wrap(other) + (-self)

    def __rtruediv__(self, other):
        return ByClosures.wrap(other) / self

    __radd__, __rmul__ = __add__, __mul__

    def backward(self):
        order = reference.topological_order(self)
        earlier = [node.grad for node in order]
        for node in order:
            node.grad = 0.0
        self.grad = 1.0
        for node in reversed(order):
            node._push()
        for node, grad in zip(order, earlier, strict=True):
            node.grad += grad


@alternative("Value", "uses are counted first, and a node is handled when the last of them has reported")
class ByCountingUses(reference.Value):
    def backward(self):
        uses, stack, seen = {}, [self], {self}
        while stack:
            for parent in stack.pop().parents:
                uses[parent] = uses.get(parent, 0) + 1
                if parent not in seen:
                    seen.add(parent)
                    stack.append(parent)
        arrived, ready = {self: 1}, [self]
        while ready:
            node = ready.pop()
            node.grad += arrived[node]
            for parent, slope in zip(node.parents, node.slopes, strict=True):
                arrived[parent] = arrived.get(parent, 0) + arrived[node] * slope
                uses[parent] -= 1
                if not uses[parent]:
                    ready.append(parent)


# -- cross_entropy


@alternative("cross_entropy", "plain loops with math.log and math.exp")
def loss_by_loops(logits, targets, ignore_index=-100):
    losses = []
    for row, target in zip(logits.tolist(), targets.tolist(), strict=True):
        if target == ignore_index:
            continue
        if not 0 <= target < len(row):
            raise ValueError(target)
        top = max(row)
        losses.append(top + math.log(sum(math.exp(z - top) for z in row)) - row[target])
    return math.fsum(losses) / len(losses) if losses else 0.0


@alternative("cross_entropy", "the reductions of numpy: logaddexp and take_along_axis, a where for the rows that count")
def loss_by_logaddexp(logits, targets, ignore_index=-100):
    N, V = logits.shape
    counts = targets != ignore_index
    if np.any(counts & ~((targets >= 0) & (targets < V))):
        raise ValueError("a target is no class")
    safe = np.where(counts, targets, 0)
    losses = np.logaddexp.reduce(logits, axis=-1) - np.take_along_axis(logits, safe[:, None], axis=-1)[:, 0]
    return np.where(counts, losses, 0.0).sum() / max(counts.sum(), 1)


@alternative("cross_entropy", "torch inside, without its losses")
def loss_by_torch(logits, targets, ignore_index=-100):
    z, t = torch.as_tensor(logits), torch.as_tensor(targets)
    keep = t.ne(ignore_index)
    z, t = z[keep], t[keep]
    if t.numel() == 0:
        return 0.0
    if t.min() < 0 or t.max() >= z.shape[1]:
        raise ValueError("a target is no class")
    z = z - z.amax(1, keepdim=True)
    return (z.exp().sum(1).log() - z.gather(1, t[:, None]).squeeze(1)).mean().item()


# -- linear_backward, softmax_ce_backward


@alternative("linear_backward", "einsum")
def linear_by_einsum(x, W, b, dY):
    return np.einsum("no,oi->ni", dY, W), np.einsum("no,ni->oi", dY, x), np.einsum("no->o", dY)


@alternative("linear_backward", "a sum of outer products over the rows, in float64 with a cast back")
def linear_by_rows(x, W, b, dY):
    dx, dW, db = np.zeros(x.shape), np.zeros(W.shape), np.zeros(b.shape)
    for n in range(x.shape[0]):
        dx[n] = W.T.astype(np.float64) @ dY[n]
        dW += np.outer(dY[n], x[n])
        db += dY[n]
    return dx.astype(x.dtype), dW.astype(x.dtype), db.astype(x.dtype)


@alternative("linear_backward", "plain loops over rows and classes", replaces="softmax_ce_backward")
def softmax_gradient_by_loops(logits, targets):
    counted = [n for n, t in enumerate(targets) if t != reference.IGNORE]
    dlogits = np.zeros(logits.shape, dtype=logits.dtype)
    for n in counted:
        exps = [math.exp(z - max(logits[n])) for z in logits[n]]
        for v, e in enumerate(exps):
            dlogits[n, v] = (e / sum(exps) - (v == targets[n])) / len(counted)
    return dlogits


@alternative(
    "linear_backward", "a table of onehots and a column of ones for the rows that count", "softmax_ce_backward"
)
def softmax_gradient_by_onehot(logits, targets):
    onehot = (targets[:, None] == np.arange(logits.shape[1])).astype(logits.dtype)
    counts = (targets != -100).astype(logits.dtype)[:, None]
    log_p = logits - logits.max(1, keepdims=True)
    log_p = log_p - np.log(np.exp(log_p).sum(1, keepdims=True))
    return counts * (np.exp(log_p) - onehot) / np.maximum(counts.sum(), 1).astype(logits.dtype)


# -- sgd_step


@alternative("sgd_step", "a list of velocities under a name, each copied and changed in place")
def step_by_velocity_list(params, grads, state, lr, momentum=0.0, weight_decay=0.0):
    velocities = [v.copy() for v in state.get("velocity", [np.zeros_like(p) for p in params])]
    moved = [p.copy() for p in params]
    for p, g, v in zip(moved, grads, velocities, strict=True):
        if g is None:
            continue
        v *= momentum
        v += g
        v += weight_decay * p
        p -= lr * v
    return moved, {"velocity": velocities, "steps": state.get("steps", 0) + 1}


@alternative("sgd_step", "no velocity is kept without momentum; the first velocity is the gradient, as in PyTorch")
def step_like_torch(params, grads, state, lr, momentum=0.0, weight_decay=0.0):
    after, moved = {key: value.copy() for key, value in state.items()}, []
    for name, (p, g) in enumerate(zip(params, grads, strict=True)):
        if g is None:
            moved.append(p.copy())
            continue
        d = g if weight_decay == 0 else g + weight_decay * p
        if momentum != 0:
            d = after[f"p{name}"] = momentum * after[f"p{name}"] + d if f"p{name}" in after else np.array(d)
        moved.append(p - lr * d)
    return moved, after


# -- train_mlp, capacity_curve


@alternative("train_mlp", "everything written out, the velocities in a list and the accuracy by a function of its own")
def written_out(X, y, width, steps, seed):
    N, start = len(X), reference.initial_params(X.shape[1], width, len(set(y.tolist())), seed)
    weights = dict(zip(("W1", "b1", "W2", "b2"), start, strict=True))
    velocity = {name: np.zeros_like(w) for name, w in weights.items()}

    def forward():
        hidden = np.tanh(np.einsum("ni,hi->nh", X, weights["W1"]) + weights["b1"])
        return hidden, hidden.dot(weights["W2"].T) + weights["b2"]

    losses = []
    for _ in range(steps):
        hidden, z = forward()
        z = z - z.max(1)[:, None]
        p = np.exp(z) / np.exp(z).sum(1)[:, None]
        losses.append(float(-np.log(p[range(N), y]).mean()))
        dz = p
        dz[range(N), y] -= 1
        dz = dz / N
        da = (dz @ weights["W2"]) * (1 - np.square(hidden))
        grads = {"W1": da.T @ X, "b1": da.sum(0), "W2": dz.T @ hidden, "b2": dz.sum(0)}
        for name in weights:
            velocity[name] = 0.9 * velocity[name] + grads[name]
            weights[name] = weights[name] - 0.3 * velocity[name]
    acc = np.mean(forward()[1].argmax(1) == y)
    return {"loss": losses, "acc": acc, "params": [weights[name] for name in ("W1", "b1", "W2", "b2")]}


@alternative("train_mlp", "a loop that appends", replaces="capacity_curve")
def curve_by_appending(widths):
    curve = []
    for width in widths:
        result = reference.train_mlp(
            X=reference.POINTS, y=reference.LABELS, width=width, steps=reference.CURVE_STEPS, seed=0
        )
        curve.append(result["acc"])
    return curve
