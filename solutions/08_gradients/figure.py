"""What the figure of chapter 8 computes and says, held against the reference."""

import numpy as np

from grader.testing import mirror, reference_of, shown

reference = reference_of(__file__)


def nodes_of(a, b):
    """Build the graph of the worked example; give the nodes a, b, c, d and L."""
    a, b = reference.Value(a), reference.Value(b)
    c = a * b
    d = c + 10
    return a, b, c, d, d * a


def descent(start, curvatures, lr, momentum, steps):
    points, state = [np.array(start, float)], {}
    for _ in range(steps):
        (point,), state = reference.sgd_step([points[-1]], [curvatures * points[-1]], state, lr, momentum)
        points.append(point)
    return points


def number(value):
    return f"{value:g}".replace("-", "−")


@mirror("backward")
def the_whole_walk(rng):
    a, b = (float(x) for x in 3 * rng.normal(2))
    nodes = nodes_of(a, b)
    nodes[-1].backward()
    return [a, b, 4], {"values": [node.data for node in nodes], "grads": [node.grad for node in nodes]}


@mirror("backward")
def a_part_of_the_walk(rng):
    a, b = (float(x) for x in 3 * rng.normal(2))
    nodes, steps = nodes_of(a, b), int(rng.integers(0, 4))
    flow = {id(nodes[-1]): 1.0} if steps else {}
    inner = [node for node in reversed(reference.topological_order(nodes[-1])) if node.parents]
    for node in inner[: max(0, steps - 1)]:
        for parent, slope in zip(node.parents, node.slopes, strict=True):
            flow[id(parent)] = flow.get(id(parent), 0.0) + flow[id(node)] * slope
    return [a, b, steps], {"values": [node.data for node in nodes], "grads": [flow.get(id(node)) for node in nodes]}


@mirror("descend")
def descend(rng):
    start, curvatures = rng.normal(2).numpy(), 20 * rng.uniform(2).numpy()
    lr, momentum = 0.1 * float(rng.uniform(1)), 0.9 * float(rng.uniform(1))
    return [start, curvatures, lr, momentum, 30], descent(start, curvatures, lr, momentum, 30)


@mirror("loss")
def loss(rng):
    point, curvatures = rng.normal(3), rng.uniform(3)
    return [point, curvatures], float((curvatures * point**2).sum() / 2)


@mirror("limit")
def limit(rng):
    """Halve the range of rates in which the matrix of (x, x before) begins to stretch."""
    curvature, momentum = 1 + 40 * float(rng.uniform(1)), 0.9 * float(rng.uniform(1))
    low, high = 0.0, 10.0
    for _ in range(80):
        lr = (low + high) / 2
        step = [[1 + momentum - lr * curvature, -momentum], [1, 0]]
        low, high = (lr, high) if max(abs(np.linalg.eigvals(step))) < 1 else (low, lr)
    return [curvature, momentum], low


@mirror("arrival")
def the_steps_that_the_notes_count(rng):
    lr, momentum, steps = [(2 / 101, 0.0, 346), (4 / 121, (9 / 11) ** 2, 58)][int(rng.integers(0, 2))]
    return [descent([1, 1], np.array([1, 100]), lr, momentum, 400)], steps


@mirror("arrival")
def too_few_steps(rng):
    return [descent([1, 1], np.array([1, 100]), 2 / 101, 0.0, 345)], -1


@shown(back=4, a=2, b=-3)
def the_worked_example():
    nodes = nodes_of(2, -3)
    nodes[-1].backward()
    return f"a has 4 − 6 = {number(nodes[0].grad)}, b has {number(nodes[1].grad)}."


@shown(back=2, a=2, b=-3)
def the_product_hands_on():
    *_, d, L = nodes_of(2, -3)
    return f"hands 1 · {number(L.slopes[0])} = 2 to d, and 1 · {number(L.slopes[1])} = {number(d.data)} to a."


@shown(lr=0.1, momentum=0, curvature=10)
def the_steps_of_a_good_rate():
    points = descent([1, 1], np.array([1, 10]), 0.1, 0.0, 200)
    return f"after {next(i for i, point in enumerate(points) if (abs(point) < 0.001).all())} steps both"


@shown(lr=0.17, momentum=0.3, curvature=10)
def the_steps_with_momentum():
    points = descent([1, 1], np.array([1, 10]), 0.17, 0.3, 200)
    return f"after {next(i for i, point in enumerate(points) if (abs(point) < 0.001).all())} steps both"


@shown(lr=0.21, momentum=0, curvature=10)
def a_rate_above_two_over_the_curvature():
    return f"above 2/curvature = {2 / 10:.3f}, and the descent explodes."
