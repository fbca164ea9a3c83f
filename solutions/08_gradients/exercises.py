# %% [markdown]
# # Chapter 8: How it learns: gradients
#
# Seven exercises, in plain Python and numpy. By the end a small network learns from its mistakes, and every derivative
# on the way is one that you have written and checked. The teaching is in the notes (`README.md`); here stand only the
# promises that each function must keep.
#
# Axes are named N examples, V classes, Din and Dout the widths of a layer. A gradient dX has the shape of X.

# %%
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy import ndarray

# %% [markdown]
# ## central_difference, grad_check
#
# Before you derive a single formula, build the instrument that will tell you whether it is right.


# %%
def central_difference(f: Callable[..., float], args: Sequence[float], i: int, h: float = 1e-5) -> float:
    """Estimate the derivative of f(*args) with respect to args[i] from two nearby values.

    Args:
        f: takes len(args) numbers, gives a number.
        args: the point, a list or tuple of floats.
        i: which argument moves, 0 to len(args) - 1; the others stay.
        h: half the distance between the two points, positive; it need not be small.

    Returns:
        f with args[i] raised by h, minus f with args[i] lowered by h, divided by the distance of the two points.

    Example:
        >>> central_difference(lambda a, b: a * a * b, [3.0, 2.0], 0, h=0.5)
        12.0

    Notes:
        f is called exactly twice, with numbers. args is not changed.
    """
    ### BEGIN SOLUTION
    above, below = list(args), list(args)
    above[i] += h
    below[i] -= h
    return (f(*above) - f(*below)) / (2 * h)
    ### END SOLUTION


# %%
def grad_check(f: Callable[[ndarray], float], grad_f: Callable[[ndarray], ndarray], x: ndarray, tol: float) -> bool:
    """Say whether grad_f gives the gradient of f at x, judged by central differences.

    Args:
        f: takes a float64 array of the shape of x, gives a number.
        grad_f: takes the same, gives the claimed gradient.
        x: the point, float64, of any shape with at least one axis and one entry.
        tol: how much disagreement is forgiven, positive.

    Returns:
        True if the claimed gradient has the shape of x, all its entries are finite, and in *every* entry its value a
        and the central difference n (with h = 1e-5) satisfy |a - n| <= tol * max(1, |a|, |n|).

    Example:
        >>> x = np.array([1.0, -2.0])
        >>> grad_check(lambda x: (x**2).sum(), lambda x: 2 * x, x, tol=1e-6)
        True
        >>> grad_check(lambda x: (x**2).sum(), lambda x: x, x, tol=1e-6)
        False

    Notes:
        The 1 in the maximum makes a gradient of exactly 0 checkable: a quotient of two numbers near 0 says nothing.
        A gradient that is NaN anywhere is wrong, and so is one that would only broadcast to the shape of x. x is not
        changed.
    """
    ### BEGIN SOLUTION
    a = np.asarray(grad_f(x.copy()))
    if a.shape != x.shape or not np.isfinite(a).all():
        return False
    at = lambda *entries: f(np.reshape(entries, x.shape))  # noqa: E731 - f as a function of x.size numbers
    n = np.reshape([central_difference(at, x.ravel(), k) for k in range(x.size)], x.shape)
    size = np.maximum(1, np.maximum(abs(a), abs(n)))
    return bool((abs(a - n) <= tol * size).all())
    ### END SOLUTION


# %% [markdown]
# ## topological_order
#
# A computation is a graph: each number points to the numbers it was made from. To walk it backwards without getting
# ahead of yourself, you need its nodes in order.


# %%
def topological_order(root: Any) -> list[Any]:
    """List a graph's nodes so that each comes after all the nodes it was computed from.

    Args:
        root: the node to begin at. Each node has an attribute `parents`, a tuple or list of the nodes that it was
            computed from, empty for a leaf. The same parent may stand in it twice. There are no cycles.

    Returns:
        The root and all its ancestors, each exactly once, parents before what they help to compute; so the root is
        last.

    Example:
        >>> from types import SimpleNamespace
        >>> x = SimpleNamespace(name="x", parents=())
        >>> y = SimpleNamespace(name="y", parents=(x, x))
        >>> z = SimpleNamespace(name="z", parents=(y, x))
        >>> [node.name for node in topological_order(z)]
        ['x', 'y', 'z']

    Notes:
        A node is the object itself: use its id(), for it may compare equal to another or have no hash. A chain of
        10,000 nodes is handled, so recurse nowhere; and each node is expanded once, however many paths lead to it.
        Of several valid orders any will do, if the same graph, built or walked again, gives the same one. No node is
        changed, not even by a mark.
    """
    ### BEGIN SOLUTION
    order: list[Any] = []
    seen = {id(root)}
    stack = [(root, iter(root.parents))]
    while stack:
        node, parents_left = stack[-1]
        for parent in parents_left:
            if id(parent) not in seen:
                seen.add(id(parent))
                stack.append((parent, iter(parent.parents)))
                break  # go down first, and come back to this node's other parents later
        else:  # every parent is placed already
            order.append(node)
            stack.pop()
    return order
    ### END SOLUTION


# %% [markdown]
# ## Value
#
# A number that remembers where it came from. With eight operations and one walk backwards you have the engine that
# every deep-learning library is built around.


# %%
class Value:
    """Hold one number, how it was made, and the derivative of a later result with respect to it.

    Args:
        data: the number.
        parents: the Values that it was computed from; none for a leaf.
        slopes: for each parent, the derivative of this number with respect to that parent alone.

    Example:
        >>> x = Value(3.0)
        >>> y = x * x + 2 * x
        >>> y.backward()
        >>> y.data, x.grad
        (15.0, 8.0)

    Notes:
        `data` is a float and `grad` a float that starts at 0.0; nothing but `backward` changes a grad, and nothing
        changes the data. In +, -, * and / either side may be an ordinary number instead of a Value; it counts as a
        constant.
    """

    def __init__(self, data: float, parents: Sequence["Value"] = (), slopes: Sequence[float] = ()) -> None:
        self.data = float(data)
        self.grad = 0.0
        self.parents = tuple(parents)
        self.slopes = tuple(slopes)

    @staticmethod
    def of(x: "Value | float") -> "Value":
        """Give x itself if it is a Value, else a leaf that holds it."""
        return x if isinstance(x, Value) else Value(x)

    def __add__(self, other: "Value | float") -> "Value":
        """self + other."""
        ### BEGIN SOLUTION
        other = Value.of(other)
        return Value(self.data + other.data, (self, other), (1.0, 1.0))
        ### END SOLUTION

    def __mul__(self, other: "Value | float") -> "Value":
        """self * other."""
        ### BEGIN SOLUTION
        other = Value.of(other)
        return Value(self.data * other.data, (self, other), (other.data, self.data))
        ### END SOLUTION

    def __pow__(self, n: float) -> "Value":
        """self ** n for an ordinary number n, whole, negative or fractional, where power and derivative exist."""
        ### BEGIN SOLUTION
        return Value(self.data**n, (self,), (n * self.data ** (n - 1),))
        ### END SOLUTION

    def exp(self) -> "Value":
        """e to the power of self."""
        ### BEGIN SOLUTION
        e = math.exp(self.data)
        return Value(e, (self,), (e,))
        ### END SOLUTION

    def log(self) -> "Value":
        """The natural logarithm of self, for positive data."""
        ### BEGIN SOLUTION
        return Value(math.log(self.data), (self,), (1 / self.data,))
        ### END SOLUTION

    def tanh(self) -> "Value":
        """The hyperbolic tangent of self, for data of any size: at 1000 it is 1, not an overflow."""
        ### BEGIN SOLUTION
        t = math.tanh(self.data)
        return Value(t, (self,), (1 - t * t,))
        ### END SOLUTION

    def relu(self) -> "Value":
        """self where it is positive, else 0; the slope at exactly 0 is 0."""
        ### BEGIN SOLUTION
        return Value(max(0.0, self.data), (self,), (float(self.data > 0),))
        ### END SOLUTION

    def backward(self) -> None:
        """Add to the grad of self and of every ancestor the derivative of self with respect to it.

        A node that is used several times receives the sum over its uses; self receives 1. Nothing is set back: a second
        call, on the same root or another, adds its derivatives to what is there, in every node, and they are not
        disturbed by the grads that it finds. Nodes that are no ancestors are left alone. Graphs of 10,000 operations in
        a row work, and each operation is handled once, however many paths lead through it. `topological_order` helps.
        """
        ### BEGIN SOLUTION
        flow = {id(self): 1.0}  # the derivatives of this call alone, apart from the grads of earlier calls
        for node in reversed(topological_order(self)):
            g = flow[id(node)]  # complete: everything that uses node has been handled already
            node.grad += g
            for parent, slope in zip(node.parents, node.slopes, strict=True):
                flow[id(parent)] = flow.get(id(parent), 0.0) + g * slope
        ### END SOLUTION

    # The rest follows from what you have written.

    def __neg__(self) -> "Value":
        return self * -1

    def __sub__(self, other: "Value | float") -> "Value":
        return self + (-Value.of(other))

    def __truediv__(self, other: "Value | float") -> "Value":
        return self * Value.of(other) ** -1

    def __radd__(self, other: float) -> "Value":
        return self + other

    def __rmul__(self, other: float) -> "Value":
        return self * other

    def __rsub__(self, other: float) -> "Value":
        return Value.of(other) - self

    def __rtruediv__(self, other: float) -> "Value":
        return Value.of(other) / self


# %% [markdown]
# ## cross_entropy
#
# The number that training makes small: how surprised the model was by what really came, on average.

# %%
IGNORE = -100  # the target of a row that does not count


# %%
def cross_entropy(logits: ndarray, targets: ndarray, ignore_index: int = -100) -> float:
    """Compute the mean of -log softmax(logits)[target] over the rows that count, in nats.

    Args:
        logits: (N, V) float64; a logit of -inf gives its class probability 0.
        targets: (N,) int64, the right class of each row, or ignore_index.
        ignore_index: rows with this target do not count, neither in the sum nor in the number that divides it. It may
            be any integer, even one of the classes.

    Returns:
        A Python float; 0.0 if no row counts.

    Raises:
        ValueError: if a target that is not ignore_index lies outside 0 ... V - 1.

    Example:
        >>> round(cross_entropy(np.log([[1.0, 2.0, 5.0]]), np.array([1])), 4)  # the probability is 2/8
        1.3863

    Notes:
        Finite for logits of any finite size, also when rows are of very different size: a target 1000 below the largest
        logit of its row costs 1000 nats. Nothing is added to a probability before the logarithm. No input is changed.
    """
    ### BEGIN SOLUTION
    counted = targets != ignore_index
    z, t = logits[counted], targets[counted]  # (n, V), (n,)
    if ((t < 0) | (t >= logits.shape[1])).any():
        raise ValueError(f"targets must lie between 0 and {logits.shape[1] - 1} or be {ignore_index}")
    if len(t) == 0:
        return 0.0
    z = z - z.max(axis=1, keepdims=True)  # each row's largest logit becomes 0, so nothing overflows
    log_p = z[np.arange(len(t)), t] - np.log(np.exp(z).sum(axis=1))  # (n,) log of a quotient, never a quotient's log
    return float(-log_p.mean())
    ### END SOLUTION


# %% [markdown]
# ## linear_backward, softmax_ce_backward
#
# The same walk backwards, a whole layer at a time: what was a sum over paths becomes a matrix product.


# %%
def linear_backward(x: ndarray, W: ndarray, b: ndarray, dY: ndarray) -> tuple[ndarray, ndarray, ndarray]:
    """Compute the gradients of a loss with respect to the three inputs of Y = x W^T + b.

    Args:
        x: (N, Din) inputs, floating.
        W: (Dout, Din) weights, dtype of x.
        b: (Dout,) biases, dtype of x.
        dY: (N, Dout) gradient of the loss with respect to Y, dtype of x.

    Returns:
        The tuple (dx, dW, db), with the shapes of x, W and b and the dtype of x.

    Example:
        >>> x, W, b, dY = np.array([[1.0, 2.0]]), np.array([[3.0, 4.0]]), np.array([5.0]), np.array([[10.0]])
        >>> linear_backward(x, W, b, dY)
        (array([[30., 40.]]), array([[10., 20.]]), array([10.]))

    Notes:
        Every row of the batch adds to dW and db; nothing is averaged here, for whether the loss is a mean is already
        in dY. No input is changed.
    """
    ### BEGIN SOLUTION
    dx = dY @ W  # (N, Din)
    dW = dY.T @ x  # (Dout, Din)
    db = dY.sum(axis=0)  # (Dout,): b was used by every row
    return dx, dW, db
    ### END SOLUTION


# %%
def softmax_ce_backward(logits: ndarray, targets: ndarray) -> ndarray:
    """Compute the gradient of cross_entropy(logits, targets) with respect to the logits.

    Args:
        logits: (N, V) floating, finite.
        targets: (N,) int64, each 0 ... V - 1, or IGNORE (-100) for a row that does not count.

    Returns:
        (N, V), dtype of logits: (softmax(logits) - onehot(targets)) / n in the n rows that count, and exactly 0 in the
        others.

    Example:
        >>> softmax_ce_backward(np.log([[1.0, 2.0, 5.0]]), np.array([1]))
        array([[ 0.125, -0.75 ,  0.625]])

    Notes:
        If no row counts, the gradient is all zeros. Finite for logits of any finite size, also when rows are of very
        different size. No input is changed.
    """
    ### BEGIN SOLUTION
    rows = np.flatnonzero(targets != IGNORE)  # the rows that count
    p = np.exp(logits - logits.max(axis=1, keepdims=True))
    p /= p.sum(axis=1, keepdims=True)
    dlogits = np.zeros_like(logits)
    dlogits[rows] = p[rows]
    dlogits[rows, targets[rows]] -= 1
    return dlogits / max(1, len(rows))
    ### END SOLUTION


# %% [markdown]
# ## sgd_step
#
# The gradient says which way is up. Step the other way.


# %%
def sgd_step(
    params: Sequence[ndarray],
    grads: Sequence[ndarray | None],
    state: dict,
    lr: float,
    momentum: float = 0.0,
    weight_decay: float = 0.0,
) -> tuple[list[ndarray], dict]:
    """Take one step of gradient descent with momentum and weight decay.

    Args:
        params: arrays of at least one axis, floating, of any shapes.
        grads: for each parameter its gradient, of the same shape and dtype, or None if there is none.
        state: {} before the first step, later what the step before returned.
        lr, momentum, weight_decay: numbers; lr may differ from step to step.

    Returns:
        (new params, new state): a list of arrays with the shapes and dtypes of params, and a dict for the next step.

    Example:
        >>> params, state = sgd_step([np.array([1.0])], [np.array([2.0])], {}, lr=0.1, momentum=0.5)
        >>> params, state = sgd_step(params, [np.array([2.0])], state, lr=0.1, momentum=0.5)
        >>> params[0].round(4)
        array([0.5])

    Notes:
        For each parameter p with gradient g and velocity v, which is 0 before its first step:
        g + weight_decay * p takes the place of g; v becomes momentum * v + g; p becomes p - lr * v.
        A parameter whose gradient is None stays as it is, without decay, and its velocity stays too.
        What the state holds is yours to choose. Neither params, grads nor state is changed.
    """
    ### BEGIN SOLUTION
    new_params, velocity = list(params), dict(state)  # position in params -> v
    for k, (p, g) in enumerate(zip(params, grads, strict=True)):
        if g is None:
            continue
        g = g + weight_decay * p  # the slope of the penalty weight_decay / 2 * p**2
        velocity[k] = momentum * velocity.get(k, 0.0) + g
        new_params[k] = p - lr * velocity[k]  # lr stands here, not in v: v sums gradients, whatever lr was
    return new_params, velocity
    ### END SOLUTION


# %% [markdown]
# ## train_mlp, capacity_curve
#
# Everything together: a network with one hidden layer learns. Then the question of why bigger ones fit more: 64 points
# whose labels are coin tosses hold nothing to understand, so whoever gets them right has learned them by heart.

# %%
LR, MOMENTUM = 0.3, 0.9
CURVE_STEPS = 600
POINTS = np.random.default_rng(0).normal(size=(64, 4))
LABELS = np.random.default_rng(5).integers(0, 2, 64)


# %%
def initial_params(Din: int, width: int, C: int, seed: int) -> list[ndarray]:
    """Draw the first [W1, b1, W2, b2] of a network; this one is given."""
    rng = np.random.default_rng(seed)
    W1 = rng.normal(size=(width, Din)) / math.sqrt(Din)  # so that X W1^T spreads about as much as X
    W2 = 0.1 * rng.normal(size=(C, width)) / math.sqrt(width)  # small: at first all classes are about equally likely
    return [W1, np.zeros(width), W2, np.zeros(C)]


# %%
def train_mlp(X: ndarray, y: ndarray, width: int, steps: int, seed: int) -> dict[str, Any]:
    """Train a network of one hidden layer on all examples at once, by gradient descent with momentum.

    Args:
        X: (N, Din) float64 inputs.
        y: (N,) int64 labels, 0 ... C - 1.
        width: number of hidden units.
        steps: number of updates; may be 0.
        seed: decides the first weights: initial_params(Din, width, C, seed), where C is the largest label plus 1.

    Returns:
        A dict: "loss", a list of `steps` floats, the cross-entropy on X and y *before* each update; "acc", a float, the
        share of X that the network gets right after the last update; "params", the list [W1, b1, W2, b2] after it.

    Example:
        >>> X, y = np.array([[0.0, 0.0], [0.0, 1.0], [1.0, 0.0], [1.0, 1.0]]), np.array([0, 1, 1, 0])
        >>> train_mlp(X, y, width=8, steps=300, seed=0)["acc"]  # a straight line gets 0.75 at best
        1.0

    Notes:
        logits = tanh(X W1^T + b1) W2^T + b2, and a guess is the class of the largest logit. Each update is sgd_step on
        all four params with LR, MOMENTUM and no weight decay, all N rows in each. The same arguments give the same
        result. No input is changed.
    """
    ### BEGIN SOLUTION
    params = initial_params(X.shape[1], width, int(y.max()) + 1, seed)
    loss: list[float] = []
    state: dict[int, ndarray] = {}
    for step in range(steps + 1):
        W1, b1, W2, b2 = params
        h = np.tanh(X @ W1.T + b1)  # (N, width)
        logits = h @ W2.T + b2  # (N, C)
        if step == steps:  # the last round only looks
            break
        loss.append(cross_entropy(logits, y))
        dh, dW2, db2 = linear_backward(h, W2, b2, softmax_ce_backward(logits, y))
        _, dW1, db1 = linear_backward(X, W1, b1, dh * (1 - h * h))  # tanh' = 1 - tanh^2
        params, state = sgd_step(params, [dW1, db1, dW2, db2], state, LR, MOMENTUM)
    acc = float((logits.argmax(axis=1) == y).mean())
    return {"loss": loss, "acc": acc, "params": params}
    ### END SOLUTION


# %%
def capacity_curve(widths: Sequence[int]) -> list[float]:
    """Measure how much of 64 coin tosses a network of each width can learn by heart.

    Args:
        widths: numbers of hidden units, in any order.

    Returns:
        For each width, in the order given, the "acc" of train_mlp on POINTS and LABELS, CURVE_STEPS steps, seed 0.

    Example:
        >>> capacity_curve([32, 64])
        [1.0, 1.0]
    """
    ### BEGIN SOLUTION
    return [train_mlp(POINTS, LABELS, width, CURVE_STEPS, seed=0)["acc"] for width in widths]
    ### END SOLUTION
