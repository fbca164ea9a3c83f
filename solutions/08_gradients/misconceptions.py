"""Wrong answers of chapter 8 that people really give, each with the sentence that sets them right."""

import math

import numpy as np

from grader.testing import misconception, reference_of

reference = reference_of(__file__)


# -- central_difference, grad_check


@misconception(
    "central_difference",
    "You look only ahead, from x to x + h; take one point on each side, so that the errors cancel.",
)
def looks_only_ahead(f, args, i, h=1e-5):
    moved = list(args)
    moved[i] += h
    return (f(*moved) - f(*args)) / h


@misconception("central_difference", "You divide by h; the two points lie 2h apart, so divide by 2h.")
def divides_by_h(f, args, i, h=1e-5):
    return 2 * reference.central_difference(f, args, i, h)


@misconception(
    "central_difference", "You move all arguments together; only args[i] may move, the others stay where they are."
)
def moves_everything(f, args, i, h=1e-5):
    return (f(*[a + h for a in args]) - f(*[a - h for a in args])) / (2 * h)


@misconception("central_difference", "You use a step of your own in place of h; use the h that you are given.")
def uses_its_own_step(f, args, i, h=1e-5):
    return reference.central_difference(f, args, i, 1e-5)


@misconception("central_difference", "You move the caller's own list and leave it moved; work on a copy of args.")
def moves_the_callers_list(f, args, i, h=1e-5):
    moved = args if isinstance(args, list) else list(args)
    moved[i] += h
    above = f(*moved)
    moved[i] -= 2 * h
    return (above - f(*moved)) / (2 * h)


def slopes(f, x):
    """The gradient of f at x by central differences."""
    at = lambda *entries: f(np.reshape(entries, x.shape))  # noqa: E731
    return np.reshape([reference.central_difference(at, x.ravel(), k) for k in range(x.size)], x.shape)


@misconception(
    "central_difference",
    "Your check divides by the gradients' size, which fails where both are 0; put the 1 into the maximum.",
    replaces="grad_check",
)
def divides_by_zero(f, grad_f, x, tol):
    a, n = grad_f(x.copy()), slopes(f, x)
    if np.shape(a) != x.shape or not np.isfinite(a).all():
        return False
    with np.errstate(divide="ignore", invalid="ignore"):
        return bool((abs(a - n) / np.maximum(abs(a), abs(n)) <= tol).all())


@misconception(
    "central_difference",
    "Your check compares absolute differences only; rounding grows with the gradient, so scale the tolerance with it.",
    replaces="grad_check",
)
def absolute_only(f, grad_f, x, tol):
    a = grad_f(x.copy())
    return np.shape(a) == x.shape and bool((abs(a - slopes(f, x)) <= tol).all())


@misconception(
    "central_difference",
    "Your check averages the errors, so that one wrong entry hides among right ones; every entry has to pass.",
    replaces="grad_check",
)
def averages_the_errors(f, grad_f, x, tol):
    a, n = grad_f(x.copy()), slopes(f, x)
    if np.shape(a) != x.shape or not np.isfinite(a).all():
        return False
    return bool((abs(a - n) / np.maximum(1, np.maximum(abs(a), abs(n)))).mean() <= tol)


@misconception(
    "central_difference",
    "Your check forgets the absolute value, so a gradient that is too small passes; compare sizes.",
    replaces="grad_check",
)
def forgets_the_absolute_value(f, grad_f, x, tol):
    a, n = grad_f(x.copy()), slopes(f, x)
    if np.shape(a) != x.shape or not np.isfinite(a).all():
        return False
    return bool((a - n <= tol * np.maximum(1, np.maximum(abs(a), abs(n)))).all())


@misconception(
    "central_difference",
    "Your check asks whether an error is too large, and for NaN the answer is no; ask that each error be small enough.",
    replaces="grad_check",
)
def nan_passes(f, grad_f, x, tol):
    a, n = grad_f(x.copy()), slopes(f, x)
    if np.shape(a) != x.shape or np.isinf(a).any():
        return False
    return not (abs(a - n) > tol * np.maximum(1, np.maximum(abs(a), abs(n)))).any()


@misconception(
    "central_difference",
    "Your check lets a gradient of another shape broadcast; compare the shapes before the numbers.",
    replaces="grad_check",
)
def shapes_broadcast(f, grad_f, x, tol):
    a, n = np.asarray(grad_f(x.copy())), slopes(f, x)
    try:
        difference, size = abs(a - n), np.maximum(1, np.maximum(abs(a), abs(n)))
    except ValueError:
        return False
    return bool(np.isfinite(a).all() and (difference <= tol * size).all())


@misconception(
    "central_difference",
    "Your check ignores tol and uses a tolerance of its own; how much is forgiven is the caller's choice.",
    replaces="grad_check",
)
def ignores_tol(f, grad_f, x, tol):
    return reference.grad_check(f, grad_f, x, 1e-6)


@misconception(
    "central_difference",
    "Your check adds two tolerances, as allclose does, and forgives twice as much; take the maximum, once.",
    replaces="grad_check",
)
def adds_two_tolerances(f, grad_f, x, tol):
    a, n = grad_f(x.copy()), slopes(f, x)
    if np.shape(a) != x.shape or not np.isfinite(a).all():
        return False
    return np.allclose(a, n, rtol=tol, atol=tol)


# -- topological_order


@misconception(
    "topological_order", "You recurse, and Python stops after about a thousand levels; keep a stack of your own."
)
def recurses(root):
    order, seen = [], set()

    def visit(node):
        if id(node) not in seen:
            seen.add(id(node))
            for parent in node.parents:
                visit(parent)
            order.append(node)

    visit(root)
    return order


@misconception(
    "topological_order",
    "You list a node each time that a path reaches it; remember what was seen, and list each node once.",
)
def lists_nodes_again(root):
    order, stack = [], [(root, iter(root.parents))]
    while stack:
        if len(order) > 10_000:
            raise RecursionError("too many nodes")
        node, left = stack[-1]
        for parent in left:
            stack.append((parent, iter(parent.parents)))
            break
        else:
            order.append(node)
            stack.pop()
    return order


@misconception(
    "topological_order",
    "You go by distance from the root (breadth first); a shortcut then puts a parent behind its child.",
)
def breadth_first(root):
    order, seen = [root], {id(root)}
    for node in order:
        for parent in node.parents:
            if id(parent) not in seen:
                seen.add(id(parent))
                order.append(parent)
    return order[::-1]


@misconception(
    "topological_order",
    "You list a node when you first meet it and reverse the list; list it only after all its parents are listed.",
)
def in_the_order_met(root):
    order, seen, stack = [], set(), [root]
    while stack:
        node = stack.pop()
        if id(node) not in seen:
            seen.add(id(node))
            order.append(node)
            stack.extend(node.parents)
    return order[::-1]


@misconception("topological_order", "Your order runs from the root to the leaves; parents come first, the root last.")
def root_first(root):
    return reference.topological_order(root)[::-1]


@misconception(
    "topological_order", "You leave the root out; it belongs to its own graph and is the last node of the order."
)
def without_the_root(root):
    return reference.topological_order(root)[:-1]


@misconception(
    "topological_order",
    "You compare nodes with ==, so different nodes that look alike count as one; compare them by id().",
)
def compares_by_equality(root):
    order, placed, stack = [], [], [(root, iter(root.parents))]
    ids = {id(root)}
    while stack:
        node, left = stack[-1]
        for parent in left:
            # an id seen before is surely the same; for others this asks whether an equal node is placed
            if id(parent) not in ids and not (type(parent).__eq__ is not object.__eq__ and parent in placed):
                ids.add(id(parent))
                stack.append((parent, iter(parent.parents)))
                break
        else:
            order.append(node)
            placed.append(node)
            stack.pop()
    return order


@misconception(
    "topological_order",
    "You leave marks on the nodes, so a second walk finds nothing left; keep what was seen in a set of your own.",
)
def marks_the_nodes(root):
    order, stack = [], [(root, iter(root.parents))]
    root._seen = True
    while stack:
        node, left = stack[-1]
        for parent in left:
            if not hasattr(parent, "_seen"):
                parent._seen = True
                stack.append((parent, iter(parent.parents)))
                break
        else:
            order.append(node)
            stack.pop()
    return order


# -- Value


class Engine:
    """A right Value written once more, so that each wrong one below changes a single thing."""

    def __init__(self, data, parents=(), slopes=()):
        self.data, self.grad = float(data), 0.0
        self.parents, self.slopes = tuple(parents), tuple(slopes)

    def of(self, x):
        return x if isinstance(x, Engine) else type(self)(x)

    def node(self, data, *edges):
        return type(self)(data, [parent for parent, _ in edges], [slope for _, slope in edges])

    def __add__(self, other):
        other = self.of(other)
        return self.node(self.data + other.data, (self, 1.0), (other, 1.0))

    def __sub__(self, other):
        other = self.of(other)
        return self.node(self.data - other.data, (self, 1.0), (other, -1.0))

    def __mul__(self, other):
        other = self.of(other)
        return self.node(self.data * other.data, (self, other.data), (other, self.data))

    def __truediv__(self, other):
        other = self.of(other)
        return self.node(
            self.data / other.data, (self, 1 / other.data), (other, -self.data / (other.data * other.data))
        )

    def __pow__(self, n):
        return self.node(self.data**n, (self, n * self.data ** (n - 1)))

    def exp(self):
        return self.node(math.exp(self.data), (self, math.exp(self.data)))

    def log(self):
        return self.node(math.log(self.data), (self, 1 / self.data))

    def tanh(self):
        return self.node(math.tanh(self.data), (self, 1 - math.tanh(self.data) ** 2))

    def relu(self):
        return self.node(max(0.0, self.data), (self, float(self.data > 0)))

    def __neg__(self):
        return self.node(-self.data, (self, -1.0))

    def __radd__(self, other):
        return self + other

    def __rmul__(self, other):
        return self * other

    def __rsub__(self, other):
        return self.of(other) - self

    def __rtruediv__(self, other):
        return self.of(other) / self

    def backward(self):
        flow = {id(self): 1.0}
        for node in reversed(reference.topological_order(self)):
            node.grad += flow[id(node)]
            for parent, slope in zip(node.parents, node.slopes, strict=True):
                flow[id(parent)] = flow.get(id(parent), 0.0) + slope * flow[id(node)]


@misconception(
    "Value", "You assign a gradient where another use has left one; each use of a node adds to it, so write +=."
)
class Assigns(Engine):
    def backward(self):
        flow = {id(self): 1.0}
        for node in reversed(reference.topological_order(self)):
            node.grad += flow[id(node)]
            for parent, slope in zip(node.parents, node.slopes, strict=True):
                flow[id(parent)] = slope * flow[id(node)]


@misconception(
    "Value",
    "You hand on the local slope alone; the chain rule multiplies it by the derivative that arrives from above.",
)
class IgnoresWhatArrives(Engine):
    def backward(self):
        self.grad += 1.0
        for node in reversed(reference.topological_order(self)):
            for parent, slope in zip(node.parents, node.slopes, strict=True):
                parent.grad += slope


@misconception(
    "Value",
    "You compute the slope of tanh from its input; it is 1 minus the square of the output.",
)
class TanhSlopeFromInput(Engine):
    def tanh(self):
        return self.node(math.tanh(self.data), (self, 1 - self.data**2))


@misconception(
    "Value",
    "You walk breadth first from the result, so a node hands on its gradient before all of it has arrived.",
)
class BreadthFirst(Engine):
    def backward(self):
        flow, queue, seen = {id(self): 1.0}, [self], {id(self)}
        for node in queue:
            for parent, slope in zip(node.parents, node.slopes, strict=True):
                flow[id(parent)] = flow.get(id(parent), 0.0) + slope * flow[id(node)]
                if id(parent) not in seen:
                    seen.add(id(parent))
                    queue.append(parent)
        for node in queue:  # what arrived late counts in the node itself, but was not handed on
            node.grad += flow[id(node)]


@misconception(
    "Value",
    "You let each node call its parents again with all that it has, so early arrivals are handed on twice.",
)
class HandsOnTwice(Engine):
    def backward(self):
        self.grad += 1.0
        stack, steps = [self], 0
        while stack and steps < 20_000:
            node, steps = stack.pop(), steps + 1
            for parent, slope in zip(node.parents, node.slopes, strict=True):
                parent.grad += slope * node.grad
                stack.append(parent)


@misconception(
    "Value", "You start the walk with a gradient of 0, so nothing flows; the derivative of a number by itself is 1."
)
class StartsWithZero(Engine):
    def backward(self):
        pass


@misconception(
    "Value",
    "On a second call you hand on old gradients together with new ones; keep the derivatives of each call apart.",
)
class HandsOnOldGradients(Engine):
    def backward(self):
        self.grad = 1.0
        for node in reversed(reference.topological_order(self)):
            for parent, slope in zip(node.parents, node.slopes, strict=True):
                parent.grad += slope * node.grad


@misconception("Value", "You set all gradients back to 0 before each walk; backward adds to what is there.")
class SetsBack(Engine):
    def backward(self):
        for node in reference.topological_order(self):
            node.grad = 0.0
        super().backward()


@misconception("Value", "The slope of a / b by b is -a / b^2; you forget the minus sign.")
class DivisionWithoutMinus(Engine):
    def __truediv__(self, other):
        other = self.of(other)
        return self.node(self.data / other.data, (self, 1 / other.data), (other, self.data / other.data**2))


@misconception("Value", "The right side of a difference has slope -1; you give both sides a slope of 1.")
class DifferenceWithoutMinus(Engine):
    def __sub__(self, other):
        other = self.of(other)
        return self.node(self.data - other.data, (self, 1.0), (other, 1.0))


@misconception("Value", "The slopes of a product are crossed: by a it is b, and by b it is a.")
class ProductNotCrossed(Engine):
    def __mul__(self, other):
        other = self.of(other)
        return self.node(self.data * other.data, (self, self.data), (other, other.data))


@misconception("Value", "Your slope of x^n keeps the exponent n; it is n times x to the power of n - 1.")
class PowerKeepsItsExponent(Engine):
    def __pow__(self, n):
        return self.node(self.data**n, (self, n * self.data**n))


@misconception("Value", "Your slope of exp is that of the input; exp is its own derivative.")
class ExpSlopeFromInput(Engine):
    def exp(self):
        return self.node(math.exp(self.data), (self, self.data))


@misconception("Value", "Your relu has slope 1 at exactly 0; here it is 0, as in PyTorch.")
class ReluOpenAtZero(Engine):
    def relu(self):
        return self.node(max(0.0, self.data), (self, float(self.data >= 0)))


@misconception("Value", "Your relu hands everything on; where the input is negative its slope is 0.")
class ReluAlwaysOpen(Engine):
    def relu(self):
        return self.node(max(0.0, self.data), (self, 1.0))


@misconception("Value", "You write tanh with exponentials of 2x, which overflow; math.tanh does not.")
class TanhOverflows(Engine):
    def tanh(self):
        e = math.exp(2 * self.data)
        t = (e - 1) / (e + 1)
        return self.node(t, (self, 1 - t * t))


@misconception("Value", "Your backward recurses, and a long computation exhausts Python's stack; walk a list instead.")
class Recurses(Engine):
    def backward(self):
        order, seen = [], set()

        def visit(node):
            if id(node) not in seen:
                seen.add(id(node))
                for parent in node.parents:
                    visit(parent)
                order.append(node)

        visit(self)
        flow = {id(self): 1.0}
        for node in reversed(order):
            node.grad += flow[id(node)]
            for parent, slope in zip(node.parents, node.slopes, strict=True):
                flow[id(parent)] = flow.get(id(parent), 0.0) + slope * flow[id(node)]


# -- cross_entropy


def losses_of(logits, targets):
    """-log p of each row's target, without a check."""
    z = logits - logits.max(axis=1, keepdims=True)
    return np.log(np.exp(z).sum(axis=1)) - z[np.arange(len(targets)), targets]


def checked(logits, targets, ignore_index):
    """The rows that count; raises ValueError for an impossible target."""
    reference.cross_entropy(np.zeros_like(logits), targets, ignore_index)
    return targets != ignore_index


@misconception(
    "cross_entropy",
    "You add a small constant before the logarithm, which caps the loss of gross errors; take logsumexp minus logit.",
)
def adds_epsilon(logits, targets, ignore_index=-100):
    counted = checked(logits, targets, ignore_index)
    if not counted.any():
        return 0.0
    z, t = logits[counted], targets[counted]
    p = np.exp(z - z.max(axis=1, keepdims=True))
    p /= p.sum(axis=1, keepdims=True)
    return float(-np.log(p[np.arange(len(t)), t] + 1e-9).mean())


@misconception("cross_entropy", "You exponentiate raw logits, which overflow; subtract each row's maximum first.")
def overflows(logits, targets, ignore_index=-100):
    counted = checked(logits, targets, ignore_index)
    if not counted.any():
        return 0.0
    z, t = logits[counted], targets[counted]
    with np.errstate(all="ignore"):
        return float((np.log(np.exp(z).sum(axis=1)) - z[np.arange(len(t)), t]).mean())


@misconception(
    "cross_entropy", "You take the logarithm of a softmax that has underflowed to 0; subtract logarithms instead."
)
def logarithm_of_softmax(logits, targets, ignore_index=-100):
    counted = checked(logits, targets, ignore_index)
    if not counted.any():
        return 0.0
    z, t = logits[counted], targets[counted]
    p = np.exp(z - z.max(axis=1, keepdims=True))
    with np.errstate(divide="ignore"):
        return float(-np.log(p[np.arange(len(t)), t] / p.sum(axis=1)).mean())


@misconception(
    "cross_entropy",
    "You subtract the maximum of the whole table; a row of low logits then underflows. Use each row's own.",
)
def subtracts_global_maximum(logits, targets, ignore_index=-100):
    counted = checked(logits, targets, ignore_index)
    if not counted.any():
        return 0.0
    z, t = logits[counted] - logits[counted].max(), targets[counted]
    with np.errstate(divide="ignore"):
        return float((np.log(np.exp(z).sum(axis=1)) - z[np.arange(len(t)), t]).mean())


@misconception("cross_entropy", "You divide by all rows, ignored ones too; divide by the number of rows that count.")
def divides_by_all_rows(logits, targets, ignore_index=-100):
    counted = checked(logits, targets, ignore_index)
    return float(losses_of(logits[counted], targets[counted]).sum() / len(targets))


@misconception("cross_entropy", "You ignore no row; rows whose target is ignore_index must be left out.")
def ignores_nothing(logits, targets, ignore_index=-100):
    checked(logits, targets, ignore_index)
    return float(losses_of(logits, targets % logits.shape[1]).mean())


@misconception("cross_entropy", "You always ignore -100; the caller says which target is ignored.")
def ignores_only_minus_100(logits, targets, ignore_index=-100):
    return reference.cross_entropy(logits, targets, -100)


@misconception("cross_entropy", "The mean of no rows is NaN; if every row is ignored, return 0.")
def nothing_is_nan(logits, targets, ignore_index=-100):
    counted = checked(logits, targets, ignore_index)
    with np.errstate(invalid="ignore"):
        return float(np.sum(losses_of(logits[counted], targets[counted])) / np.float64(counted.sum()))


@misconception("cross_entropy", "You return the sum over the rows; the loss is their mean.")
def sums(logits, targets, ignore_index=-100):
    counted = checked(logits, targets, ignore_index)
    return float(losses_of(logits[counted], targets[counted]).sum())


@misconception(
    "cross_entropy",
    "You apply softmax to the logits before the loss, which applies it again; pass the logits as they are.",
)
def softmax_twice(logits, targets, ignore_index=-100):
    p = np.exp(logits - logits.max(axis=1, keepdims=True))
    return reference.cross_entropy(p / p.sum(axis=1, keepdims=True), targets, ignore_index)


@misconception("cross_entropy", "You measure the loss in bits, with a logarithm to base 2; this course uses nats.")
def in_bits(logits, targets, ignore_index=-100):
    return reference.cross_entropy(logits, targets, ignore_index) / math.log(2)


@misconception(
    "cross_entropy", "A target of -1 silently picks the last class; check that targets lie between 0 and V - 1."
)
def negative_targets_wrap(logits, targets, ignore_index=-100):
    counted = targets != ignore_index
    if not counted.any():
        return 0.0
    return float(losses_of(logits[counted], targets[counted] % logits.shape[1]).mean())


@misconception(
    "cross_entropy", "You multiply a logit of -inf by 0, which is NaN; pick the target's logit by its index."
)
def multiplies_by_onehot(logits, targets, ignore_index=-100):
    counted = checked(logits, targets, ignore_index)
    if not counted.any():
        return 0.0
    z = logits[counted] - logits[counted].max(axis=1, keepdims=True)
    onehot = np.eye(logits.shape[1])[targets[counted]]
    with np.errstate(invalid="ignore"):
        return float((np.log(np.exp(z).sum(axis=1)) - (onehot * z).sum(axis=1)).mean())


# -- linear_backward, softmax_ce_backward


def summed_gradient(logits, targets):
    """softmax minus onehot in the rows that count, not divided."""
    return reference.softmax_ce_backward(logits, targets) * max(1, int((targets != reference.IGNORE).sum()))


@misconception("linear_backward", "Your dW is transposed; it has the shape of W, (Dout, Din), so it is dY^T x.")
def dw_transposed(x, W, b, dY):
    dx, dW, db = reference.linear_backward(x, W, b, dY)
    return dx, dW.T, db


@misconception("linear_backward", "You average the bias gradient over the batch; each row uses the bias, so sum.")
def db_averaged(x, W, b, dY):
    dx, dW, db = reference.linear_backward(x, W, b, dY)
    return dx, dW, db / x.dtype.type(len(x))


@misconception(
    "linear_backward", "You divide dW by the batch size; whether the loss is a mean is already in dY, so only add up."
)
def dw_averaged(x, W, b, dY):
    dx, dW, db = reference.linear_backward(x, W, b, dY)
    return dx, dW / x.dtype.type(len(x)), db


@misconception("linear_backward", "Your db keeps the batch axis; its shape is that of b, (Dout,).")
def db_keeps_an_axis(x, W, b, dY):
    dx, dW, _ = reference.linear_backward(x, W, b, dY)
    return dx, dW, dY.sum(axis=0, keepdims=True)


@misconception("linear_backward", "Your db is dY of a single row; every row of the batch uses the bias, so add them.")
def db_of_one_row(x, W, b, dY):
    dx, dW, _ = reference.linear_backward(x, W, b, dY)
    return dx, dW, dY[-1].copy()


@misconception("linear_backward", "You return the gradients in another order; it is (dx, dW, db), as the inputs are.")
def in_another_order(x, W, b, dY):
    dx, dW, db = reference.linear_backward(x, W, b, dY)
    return dW, db, dx


@misconception(
    "linear_backward",
    "You forget to divide by the number of rows: the loss is a mean, so its gradient is one too.",
    replaces="softmax_ce_backward",
)
def without_the_mean(logits, targets):
    return summed_gradient(logits, targets)


@misconception(
    "linear_backward",
    "You divide by all rows; the loss is a mean over the rows that count, so divide by their number.",
    replaces="softmax_ce_backward",
)
def mean_over_all_rows(logits, targets):
    return summed_gradient(logits, targets) / len(targets)


@misconception(
    "linear_backward",
    "Your ignored rows keep their softmax as a gradient; a row that does not count has a gradient of 0.",
    replaces="softmax_ce_backward",
)
def ignored_rows_keep_softmax(logits, targets):
    p = np.exp(logits - logits.max(axis=1, keepdims=True))
    p /= p.sum(axis=1, keepdims=True)
    rows = np.flatnonzero(targets != reference.IGNORE)
    p[rows, targets[rows]] -= 1
    return p / max(1, len(rows))


@misconception(
    "linear_backward",
    "Your gradient is onehot minus softmax; raising the target's logit lowers the loss: softmax minus onehot.",
    replaces="softmax_ce_backward",
)
def the_other_sign(logits, targets):
    return -reference.softmax_ce_backward(logits, targets)


@misconception(
    "linear_backward",
    "If no row counts you divide by 0; the gradient of a loss that is always 0 is 0.",
    replaces="softmax_ce_backward",
)
def nothing_becomes_nan(logits, targets):
    counted = (targets != reference.IGNORE).sum()
    with np.errstate(invalid="ignore"):
        return summed_gradient(logits, targets) / logits.dtype.type(counted)


@misconception(
    "linear_backward",
    "You exponentiate raw logits, which overflow; subtract the maximum of each row first.",
    replaces="softmax_ce_backward",
)
def softmax_overflows(logits, targets):
    rows = np.flatnonzero(targets != reference.IGNORE)
    with np.errstate(all="ignore"):
        p = np.exp(logits)
        p /= p.sum(axis=1, keepdims=True)
    dlogits = np.zeros_like(logits)
    dlogits[rows] = p[rows]
    dlogits[rows, targets[rows]] -= 1
    return dlogits / max(1, len(rows))


@misconception(
    "linear_backward",
    "You give the gradient of -log p by p, -1/p at the target; go on through the softmax, where it becomes p - onehot.",
    replaces="softmax_ce_backward",
)
def stops_at_the_probabilities(logits, targets):
    p = reference.softmax_ce_backward(logits, targets)
    rows = np.flatnonzero(targets != reference.IGNORE)
    share = p[rows, targets[rows]] * len(rows) + 1  # the target's probability
    dp = np.zeros_like(logits)
    with np.errstate(divide="ignore"):
        dp[rows, targets[rows]] = -1 / share / max(1, len(rows))
    return dp


# -- sgd_step


def stepped(params, grads, state, update):
    """Apply update(p, g, v or None) -> (p, v) to each parameter that has a gradient."""
    params, state = list(params), dict(state)
    for k, g in enumerate(grads):
        if g is not None:
            params[k], state[k] = update(params[k], g, state.get(k))
    return params, state


@misconception(
    "sgd_step",
    "You put lr into the velocity, so old steps keep their old rate; the velocity sums gradients, lr multiplies it.",
)
def rate_in_the_velocity(params, grads, state, lr, momentum=0.0, weight_decay=0.0):
    def update(p, g, v):
        v = momentum * (0.0 if v is None else v) + lr * (g + weight_decay * p)
        return p - v, v

    return stepped(params, grads, state, update)


@misconception(
    "sgd_step",
    "You weight the new gradient by 1 - momentum, a running mean; here the velocity adds the whole gradient.",
)
def running_mean(params, grads, state, lr, momentum=0.0, weight_decay=0.0):
    def update(p, g, v):
        v = momentum * (0.0 if v is None else v) + (1 - momentum) * (g + weight_decay * p)
        return p - lr * v, v

    return stepped(params, grads, state, update)


@misconception("sgd_step", "Your decay pushes weights away from zero; weight_decay * p is added to the gradient.")
def decay_grows(params, grads, state, lr, momentum=0.0, weight_decay=0.0):
    return reference.sgd_step(params, grads, state, lr, momentum, -weight_decay)


@misconception(
    "sgd_step",
    "You decay the parameter beside the velocity; here decay is added to the gradient and enters the velocity.",
)
def decay_beside_the_velocity(params, grads, state, lr, momentum=0.0, weight_decay=0.0):
    def update(p, g, v):
        v = momentum * (0.0 if v is None else v) + g
        return p - lr * v - lr * weight_decay * p, v

    return stepped(params, grads, state, update)


@misconception("sgd_step", "Your decay is not part of the gradient's step: it must be scaled by lr as well.")
def decay_without_rate(params, grads, state, lr, momentum=0.0, weight_decay=0.0):
    def update(p, g, v):
        v = momentum * (0.0 if v is None else v) + g
        return p - lr * v - weight_decay * p, v

    return stepped(params, grads, state, update)


@misconception("sgd_step", "You add the step; the gradient points uphill, so subtract it.")
def climbs(params, grads, state, lr, momentum=0.0, weight_decay=0.0):
    def update(p, g, v):
        v = momentum * (0.0 if v is None else v) + g + weight_decay * p
        return p + lr * v, v

    return stepped(params, grads, state, update)


@misconception("sgd_step", "You look ahead as Nesterov does; plain momentum steps along the velocity alone.")
def looks_ahead(params, grads, state, lr, momentum=0.0, weight_decay=0.0):
    def update(p, g, v):
        g = g + weight_decay * p
        v = momentum * (0.0 if v is None else v) + g
        return p - lr * (g + momentum * v), v

    return stepped(params, grads, state, update)


@misconception("sgd_step", "A parameter without a gradient still decays; None means that it stays as it is.")
def decays_without_a_gradient(params, grads, state, lr, momentum=0.0, weight_decay=0.0):
    new, after = reference.sgd_step(params, grads, state, lr, momentum, weight_decay)
    return [
        q if g is not None else p - lr * weight_decay * p for p, q, g in zip(params, new, grads, strict=True)
    ], after


@misconception(
    "sgd_step", "You treat a gradient of None as zeros, so the velocity goes on moving the parameter; leave both alone."
)
def none_is_zero(params, grads, state, lr, momentum=0.0, weight_decay=0.0):
    def update(p, g, v):
        v = momentum * (0.0 if v is None else v) + g + weight_decay * p
        return p - lr * v, v

    filled = [-weight_decay * p if g is None else g for p, g in zip(params, grads, strict=True)]
    return stepped(params, filled, state, update)


@misconception(
    "sgd_step", "You change the arrays in place; the caller's params must stay as they are, so build new ones."
)
def changes_in_place(params, grads, state, lr, momentum=0.0, weight_decay=0.0):
    new, after = reference.sgd_step(params, grads, state, lr, momentum, weight_decay)
    for p, q in zip(params, new, strict=True):
        p[...] = q
    return new, after


@misconception("sgd_step", "You forget the velocity between steps; return it in the state and use it next time.")
def forgets_the_velocity(params, grads, state, lr, momentum=0.0, weight_decay=0.0):
    return reference.sgd_step(params, grads, {}, lr, momentum, weight_decay)[0], {}


# -- train_mlp, capacity_curve


def run(X, y, width, steps, seed, change=lambda name, value, context: value):
    """Train like the reference; `change` may alter each named quantity on its way."""
    params = reference.train_mlp(X, y, width, 0, seed)["params"]
    loss, state = [], {}
    for step in range(steps):
        W1, b1, W2, b2 = params
        h = np.tanh(X @ W1.T + b1)
        logits = h @ W2.T + b2
        labels = change("labels", y, step)
        loss.append(reference.cross_entropy(logits, labels))
        dh, dW2, db2 = reference.linear_backward(h, W2, b2, reference.softmax_ce_backward(logits, labels))
        dz = change("dz", dh * (1 - h * h), (dh, h))
        _, dW1, db1 = reference.linear_backward(X, W1, b1, dz)
        grads = change("grads", [dW1, db1, dW2, db2], len(X))
        params, state = reference.sgd_step(
            params, grads, change("state", state, step), reference.LR, change("momentum", reference.MOMENTUM, step)
        )
    W1, b1, W2, b2 = params
    acc = float(((np.tanh(X @ W1.T + b1) @ W2.T + b2).argmax(axis=1) == y).mean())
    return {"loss": loss, "acc": acc, "params": params}


@misconception("train_mlp", "Your biases never move; they have gradients too, db1 and db2.")
def biases_stand_still(X, y, width, steps, seed):
    def change(name, value, context):
        return [value[0], None, value[2], None] if name == "grads" else value

    return run(X, y, width, steps, seed, change)


@misconception("train_mlp", "On the way back you skip the tanh; multiply dh by 1 - h^2.")
def skips_the_tanh(X, y, width, steps, seed):
    return run(X, y, width, steps, seed, lambda name, value, context: context[0] if name == "dz" else value)


@misconception("train_mlp", "You start each step with an empty state, so there is no momentum; hand the state on.")
def state_is_lost(X, y, width, steps, seed):
    return run(X, y, width, steps, seed, lambda name, value, context: {} if name == "state" else value)


@misconception("train_mlp", "You train only the upper layer; the gradient goes on through the tanh to W1 and b1.")
def only_the_upper_layer(X, y, width, steps, seed):
    def change(name, value, context):
        return [None, None, value[2], value[3]] if name == "grads" else value

    return run(X, y, width, steps, seed, change)


@misconception("train_mlp", "You shuffle the labels away from their examples; row i of X belongs to entry i of y.")
def labels_shuffled_away(X, y, width, steps, seed):
    order = np.random.default_rng(seed).permutation(len(y))
    return run(X, y, width, steps, seed, lambda name, value, context: value[order] if name == "labels" else value)


@misconception("train_mlp", "Your gradients are sums over the examples; the loss is a mean, so divide by N once.")
def gradients_are_sums(X, y, width, steps, seed):
    def change(name, value, context):
        return [g * context for g in value] if name == "grads" else value

    return run(X, y, width, steps, seed, change)


@misconception("train_mlp", "You record each loss after its update; record it before, from the same forward pass.")
def loss_after_the_update(X, y, width, steps, seed):
    longer = reference.train_mlp(X, y, width, steps + 1, seed)
    return {**reference.train_mlp(X, y, width, steps, seed), "loss": longer["loss"][1:]}


@misconception("train_mlp", "Your accuracy is that of the weights before the last update; look once more after it.")
def accuracy_before_the_last_update(X, y, width, steps, seed):
    right = reference.train_mlp(X, y, width, steps, seed)
    return {**right, "acc": reference.train_mlp(X, y, width, max(0, steps - 1), seed)["acc"]}


@misconception("train_mlp", "You take one step too many; there are exactly `steps` updates and as many losses.")
def one_step_too_many(X, y, width, steps, seed):
    return reference.train_mlp(X, y, width, steps + 1, seed)


@misconception(
    "train_mlp",
    "You sort the widths; the accuracies come in the order in which the widths were given.",
    "capacity_curve",
)
def sorts_the_widths(widths):
    return reference.capacity_curve(sorted(widths))


@misconception(
    "train_mlp",
    "You report the best accuracy so far; each width stands for itself, without a running maximum.",
    "capacity_curve",
)
def running_maximum(widths):
    curve = reference.capacity_curve(widths)
    return [max(curve[: k + 1]) for k in range(len(curve))]


@misconception(
    "train_mlp", "Your curve holds the last losses; it is made of accuracies, between 0 and 1.", "capacity_curve"
)
def losses_instead(widths):
    return [
        reference.train_mlp(reference.POINTS, reference.LABELS, width, reference.CURVE_STEPS, 0)["loss"][-1]
        for width in widths
    ]


@misconception(
    "train_mlp", "You train each width from another seed; the curve uses seed 0 for all of them.", "capacity_curve"
)
def another_seed_for_each(widths):
    return [
        reference.train_mlp(reference.POINTS, reference.LABELS, width, reference.CURVE_STEPS, k + 1)["acc"]
        for k, width in enumerate(widths)
    ]
