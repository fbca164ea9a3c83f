"""The whole contract of chapter 8, against PyTorch's autograd, closed forms, brute force and finite differences."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from grader.testing import close, counting, driver, exact, exercise, holds, numerical_gradient, pure, roughly
from grader.testing.strategies import seeds

LR, MOMENTUM, IGNORE = 0.3, 0.9, -100


def floats(tensor):
    """A tensor as a list of Python floats."""
    return [float(value) for value in tensor.flatten()]


# --------------------------------------------------------------------------------------------------- central_difference


@exercise("central_difference", weight=2)
def test_difference_of_a_cubic_has_a_known_error(exercises, rng):
    """On x^3 it is 3x^2 + h^2 to the last digit, whatever the step."""
    for x, h in zip(floats(rng.normal(6)), (0.5, 0.25, 0.125, 1.0, 2.0, 0.7), strict=True):
        # with steps this large rounding plays no part, so the error of order h^2 is seen exactly
        close(exercises.central_difference(lambda x: x**3, [x], 0, h=h), 3 * x * x + h * h, f"x^3 at {x:g}, h={h}")


@exercise("central_difference", weight=2)
def test_difference_moves_one_argument(exercises, rng):
    """It moves the argument asked for and keeps the others still."""
    a, b, c = point = floats(rng.uniform(3) + 0.5)
    f = lambda a, b, c: a * a * b + 5 * b * c * c - a * c  # noqa: E731
    expected = (2 * a * b - c, a * a + 5 * c * c, 10 * b * c - a)
    for args in (point, tuple(point)):
        for i in range(3):  # quadratic in each argument, so the difference is exact for every h
            got = pure(exercises.central_difference, f, args, i, 0.3)
            close(got, expected[i], f"central_difference of a polynomial by argument {i}")


@exercise("central_difference")
def test_difference_takes_two_looks_at_the_right_places(exercises):
    """It calls f twice, h above and h below, and asks nothing else."""
    f = counting(lambda x, y: x * y)
    close(exercises.central_difference(f, [3.0, 7.0], 1, 0.5), 3.0, "central_difference of x * y by y")
    exact(sorted(f.arguments), [(3.0, 6.5), (3.0, 7.5)], "the points at which f was evaluated")


@exercise("central_difference")
def test_difference_has_a_small_step_by_default(exercises, rng):
    """Without h it is good to eight digits for smooth functions."""
    for x in floats(rng.uniform(3)):
        for f, slope in ((math.exp, math.exp(x)), (math.sin, math.cos(x)), (math.tanh, 1 - math.tanh(x) ** 2)):
            # h^2 / 6 = 2e-11 from the formula, about 1e-11 from rounding; a one-sided difference would be off by 1e-6
            got = exercises.central_difference(f, [x], 0)
            roughly(got, slope, 1e-8, f"central_difference of {f.__name__} at {x:g}")


@exercise("central_difference", weight=2)
def test_check_accepts_right_gradients(exercises, rng):
    """It says True to right gradients, in arrays of one, two and three axes."""
    for shape in ((5,), (2, 3), (2, 1, 3)):
        x = rng.normal(*shape).numpy()
        got = exercises.grad_check(lambda x: float(np.sin(x).sum() + (x**2).prod()), lambda x: slope_of(x), x, 1e-6)
        holds(got is True, f"grad_check of a right gradient at a point of shape {shape} gave {got!r}, expected True")


def slope_of(x):
    """The gradient of sum sin x + prod x^2."""
    return np.cos(x) + 2 * (x**2).prod() / x


@exercise("central_difference", weight=2)
def test_check_finds_one_wrong_entry(exercises, rng):
    """One entry that is wrong by one percent, up or down, is found."""
    x = rng.uniform(3, 5).numpy() + 1
    f, slope = lambda x: float((x**2).sum()), lambda x: 2 * x  # noqa: E731
    for place, factor in (((0, 0), 1.01), ((2, 4), 0.99), ((1, 3), -1.0)):

        def planted(x, place=place, factor=factor):
            gradient = slope(x)
            gradient[place] *= factor
            return gradient

        holds(exercises.grad_check(f, planted, x, 1e-3) is False, f"An error at {place} by {factor} must be found.")
    holds(exercises.grad_check(f, slope, x, 1e-3) is True, "Without an error the check is True.")


@exercise("central_difference")
def test_check_forgives_as_much_as_tol_says(exercises, rng):
    """The same error passes a wide tolerance and fails a narrow one."""
    x = rng.uniform(7).numpy() + 1
    for tol, verdict in ((0.1, True), (0.03, True), (0.005, False), (1e-5, False)):
        got = exercises.grad_check(lambda x: float((x**2).sum()), lambda x: 2 * x * 1.01, x, tol)
        exact(got, verdict, f"grad_check of a gradient that is 1 percent off, tol={tol}")
    for factor, verdict in ((1.008, True), (1.013, False), (0.987, False)):  # the slope is 1: tol * max(1, 1, factor)
        got = exercises.grad_check(lambda x: float(x.sum()), lambda x, f=factor: f * np.ones(7), x, 0.01)
        exact(got, verdict, f"grad_check of slopes of 1, claimed to be {factor}, tol=0.01")


@exercise("central_difference")
def test_check_at_a_gradient_of_zero(exercises, rng):
    """Where the gradient is 0 the check works, for noise and for errors."""
    x = np.array([0.0, 0.0, 2.0])
    exact(exercises.grad_check(lambda x: 7.5, lambda x: 0 * x, x, 1e-6), True, "grad_check of a constant")
    noisy = lambda x: float((x - x.mean()).sum() + x[2] ** 2 + 3)  # noqa: E731 - slope 0, 0, 4, up to rounding
    exact(exercises.grad_check(noisy, lambda x: np.array([0.0, 0.0, 2 * x[2]]), x, 1e-6), True, "a slope of 0 and 4")
    wrong = lambda x: np.array([0.0, 0.01, 2 * x[2]])  # noqa: E731
    exact(exercises.grad_check(noisy, wrong, x, 1e-3), False, "a claimed slope of 0.01 where it is 0")
    exact(exercises.grad_check(lambda x: 1e-3 * float(x.sum()), lambda x: 0 * x, x, 1e-2), True, "1e-3 off, tol 1e-2")


@exercise("central_difference")
def test_check_is_relative_for_large_gradients(exercises, rng):
    """A gradient of a million may be off by rounding, not by a percent."""
    x = rng.uniform(4).numpy() + 1
    f = lambda x: 3e7 * float((x**2).sum())  # noqa: E731 - rounding alone makes differences of about 1e-3 here
    exact(exercises.grad_check(f, lambda x: 6e7 * x, x, 1e-6), True, "grad_check of a right gradient near 1e8")
    exact(exercises.grad_check(f, lambda x: 6.06e7 * x, x, 1e-3), False, "grad_check, 1 percent off near 1e8")


@exercise("central_difference")
def test_check_refuses_what_is_no_gradient(exercises, rng):
    """NaN, infinity and a shape that only broadcasts are wrong."""
    x = np.array([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]])
    f = lambda x: 4 * float(x.sum())  # noqa: E731
    exact(exercises.grad_check(f, lambda x: np.full((2, 3), 4.0), x, 1e-6), True, "grad_check of 4s, right shape")
    for shape in ((3,), (1, 3), (2, 1), (6,), (1, 2, 3)):
        exact(exercises.grad_check(f, lambda x, s=shape: np.full(s, 4.0), x, 1e-6), False, f"4s of shape {shape}")
    for bad in (math.nan, math.inf, -math.inf):
        claimed = np.full((2, 3), 4.0)
        claimed[1, 1] = bad
        exact(exercises.grad_check(f, lambda x, c=claimed: c, x, 1e-6), False, f"a gradient with one {bad}")


@exercise("central_difference")
def test_check_leaves_the_point_alone(exercises, rng):
    """x is the same afterwards, to the last bit."""
    x = rng.normal(3, 2).numpy()
    exact(pure(exercises.grad_check, lambda x: float((x**2).sum()), lambda x: 2 * x, x, 1e-6), True, "grad_check")


# ---------------------------------------------------------------------------------------------------- topological_order


@driver
def orders(module, graphs, kind="plain", again=False):
    """The order of each graph, as positions; a graph lists the positions of each node's parents, the root is last."""

    class Node:
        def __init__(self, parents):
            self.parents = parents

    class Alike(Node):  # all are equal to each other, and none has a hash
        def __eq__(self, other):
            return True

    answers = []
    for graph in graphs:
        nodes = []
        for parents in graph:
            chosen = [nodes[p] for p in parents]
            nodes.append(Alike(tuple(chosen)) if kind == "alike" else Node(chosen))
        place = {id(node): position for position, node in enumerate(nodes)}
        if again:
            module.topological_order(nodes[-1])
        answers.append([place[id(node)] for node in module.topological_order(nodes[-1])])
    return answers


def ancestors(graph):
    """The positions that lead to the last node, found by marking backwards."""
    found = {len(graph) - 1}
    for position in reversed(range(len(graph))):
        if position in found:
            found.update(graph[position])
    return found


def check_order(order, graph, what):
    """Assert that an order is valid: every ancestor once, parents first."""
    exact(sorted(order), sorted(ancestors(graph)), f"{what}: the nodes of the order, sorted")
    place = {node: k for k, node in enumerate(order)}
    late = [(p, n) for n in order for p in graph[n] if place[p] > place[n]]
    holds(not late, f"{what}: in the order {order} parent {late[:1]} comes after the node it helps to compute.")


def some_graph(rng, n):
    """A random graph: each node has none to three parents among the nodes before it, some of them twice."""
    return [[rng.random.randrange(i) for _ in range(rng.random.randrange(4))] if i else [] for i in range(n)]


@exercise("topological_order", weight=2)
def test_order_of_small_graphs(exercises):
    """A fork, a diamond, a shortcut: parents always come first."""
    graphs = [
        [[], [0], [0, 1]],  # the root uses a leaf directly and through another node
        [[], [0], [1, 0]],
        [[], [0], [0], [1, 2]],  # a diamond
        [[], [0], [1], [0, 2]],  # a short way and a long way
        [[], [0], [1], [2, 0]],
        [[], [0], [1], [2], [1, 3, 0]],
        [[], [0, 0], [1, 1]],
        [[]],
    ]
    for graph, order in zip(graphs, exercises.run(orders, graphs), strict=True):
        check_order(order, graph, f"the graph with parents {graph}")


@exercise("topological_order", weight=3)
def test_order_of_random_graphs(exercises, rng):
    """In every random graph each ancestor appears once, parents first."""
    graphs = [some_graph(rng, n) for n in range(2, 42)]
    for graph, order in zip(graphs, exercises.run(orders, graphs), strict=True):
        check_order(order, graph, f"a random graph of {len(graph)} nodes")


@exercise("topological_order")
def test_order_leaves_out_what_does_not_lead_to_the_root(exercises):
    """Nodes that the root was not computed from are not listed."""
    graph = [[], [], [0, 1], [1], [2, 0]]  # node 3 hangs on node 1 and leads nowhere
    [order] = exercises.run(orders, [graph])
    exact(sorted(order), [0, 1, 2, 4], "the nodes listed for root 4")
    exact(order[-1], 4, "the last node of the order")


@exercise("topological_order")
def test_order_tells_nodes_apart_by_identity(exercises, rng):
    """Nodes that compare equal and have no hash are still different nodes."""
    graphs = [[[], [0], [], [1, 2]], *(some_graph(rng, n) for n in (6, 12))]
    for graph, order in zip(graphs, exercises.run(orders, graphs, kind="alike"), strict=True):
        check_order(order, graph, f"a graph of {len(graph)} nodes that compare equal")


@exercise("topological_order")
def test_order_of_a_deep_chain(exercises):
    """A chain of 10,000 nodes is no problem."""
    chain = [[]] + [[i] for i in range(9_999)]
    [order] = exercises.run(orders, [chain])
    exact(order == list(range(10_000)), True, "the chain came out from its leaf to its root")


@exercise("topological_order")
def test_order_of_a_graph_with_very_many_paths(exercises):
    """Two to the power of 200 paths, and still each node once."""
    doubling = [[]] + [[i, i] for i in range(200)]
    ladder = [[], [0]] + [[i + 1, i] for i in range(200)]
    for graph, order in zip((doubling, ladder), exercises.run(orders, [doubling, ladder]), strict=True):
        check_order(order, graph, f"a graph of {len(graph)} nodes with very many paths")


@exercise("topological_order")
def test_order_is_the_same_each_time(exercises, rng):
    """The same graph, walked again or built again, gives the same order."""
    graphs = [some_graph(rng, n) for n in (9, 17, 33)]
    first = exercises.run(orders, graphs)
    exact(exercises.run(orders, graphs * 3), first * 3, "the orders of the same graphs, built again")
    exact(exercises.run(orders, graphs, again=True), first, "the orders of the same nodes at the second call")


# ---------------------------------------------------------------------------------------------------------------- Value


@driver
def play(module, leaves, program, roots=(-1,)):
    """Run a program of operations on Values; give all data and all grads after backward from each root in turn."""
    nodes = [module.Value(data) for data in leaves]
    for name, *operands in program:
        a, *rest = [nodes[o] if isinstance(o, int) else o for o in operands]
        if name in ("exp", "log", "tanh", "relu"):
            nodes.append(getattr(a, name)())
        elif name == "neg":
            nodes.append(-a)
        else:
            [b] = rest
            operations = {
                "+": lambda a, b: a + b,
                "-": lambda a, b: a - b,
                "*": lambda a, b: a * b,
                "/": lambda a, b: a / b,
                "**": lambda a, b: a**b,
            }
            nodes.append(operations[name](a, b))
    before = [node.grad for node in nodes]
    for root in roots:
        nodes[root].backward()
    return {"before": before, "data": [node.data for node in nodes], "grad": [node.grad for node in nodes]}


def truth(leaves, program, roots=(-1,)):
    """The same by PyTorch: the data of each node, and for each the sum of the derivatives of the roots."""
    with torch.enable_grad():
        nodes = [torch.tensor(data, dtype=torch.float64, requires_grad=True) for data in leaves]
        for name, *operands in program:
            a, *rest = [nodes[o] if isinstance(o, int) else o for o in operands]
            steps = {
                "+": lambda a, b: a + b,
                "-": lambda a, b: a - b,
                "*": lambda a, b: a * b,
                "/": lambda a, b: a / b,
                "**": lambda a, b: a**b,
                "neg": lambda a: -a,
            }
            nodes.append(steps[name](a, *rest) if name in steps else getattr(torch, name)(a))
        grads = [0.0] * len(nodes)
        for root in roots:
            found = torch.autograd.grad(nodes[root], nodes, retain_graph=True, allow_unused=True)
            grads = [g + (0.0 if d is None else d.item()) for g, d in zip(grads, found, strict=True)]
    return {"before": [0.0] * len(nodes), "data": [node.item() for node in nodes], "grad": grads}


def agrees(exercises, leaves, program, roots=(-1,), what=""):
    """Assert that data and grads of all nodes are those of PyTorch."""
    got, expected = exercises.run(play, leaves, program, roots), truth(leaves, program, roots)
    for key in ("before", "data", "grad"):
        named = f"{key} of the nodes of {what or program}, leaves {leaves}"
        # an absolute 1e-9 would mean nothing for values of 1e6; these programs keep all values below 1e4
        roughly(got[key], expected[key], 1e-9 * max(1.0, *map(abs, expected[key])), named)


@exercise("Value", weight=2)
def test_each_operation_alone(exercises, rng):
    """Each operation has the right value and the right slopes."""
    for a, b in zip(floats(rng.uniform(3) + 0.3), floats(rng.uniform(3) + 1.4), strict=True):
        for name in ("+", "-", "*", "/"):
            agrees(exercises, [a, -b], [(name, 0, 1)])
            agrees(exercises, [-a, b], [(name, 1, 0)])
        for name in ("exp", "tanh", "relu"):
            agrees(exercises, [a], [(name, 0)])
            agrees(exercises, [-b], [(name, 0)])
        agrees(exercises, [a], [("log", 0)])
        agrees(exercises, [b], [("neg", 0)])


@exercise("Value")
def test_powers(exercises, rng):
    """Powers may be whole, negative, fractional, of a negative base."""
    a, b = floats(rng.uniform(2) + 0.5)
    for n in (2.0, 3.0, 1.0, -1.0, -2.0, 0.5, -1.5, 2.7):
        agrees(exercises, [a], [("**", 0, n)])
    for n in (2.0, 3.0, -1.0, -3.0):
        agrees(exercises, [-b], [("**", 0, n)])
    got = exercises.run(play, [0.0], [("**", 0, 2.0)])
    close(got["grad"], [0.0, 1.0], "grads of x and x ** 2.0 at x = 0")


@exercise("Value")
def test_ordinary_numbers_are_constants(exercises, rng):
    """Numbers on either side count as constants, whole or not."""
    [x] = floats(rng.uniform(1) + 0.5)
    for name in ("+", "-", "*", "/"):
        for constant in (2.5, -0.75):
            agrees(exercises, [x], [(name, 0, constant)])
            agrees(exercises, [x], [(name, constant, 0)])
    value, slope = exercises.run(whole_numbers, x)
    close(value, 2 * (1 - x) / (3 + x**2) + 4 - x / 5, "a formula with whole numbers on both sides")
    exact(slope == 0.0, False, "the derivative of it is 0")
    expected = numerical_gradient(lambda x: 2 * (1 - x) / (3 + x**2) + 4 - x / 5, torch.tensor([x])).item()
    roughly(slope, expected, 1e-7, "the derivative of it")  # central differences in float64 are good to 1e-9 here


@driver
def whole_numbers(module, x):
    """A formula with Python ints left and right of a Value."""
    x = module.Value(x)
    y = 2 * (1 - x) / (3 + x**2) + 4 - x / 5
    y.backward()
    return y.data, x.grad


@exercise("Value", weight=3)
def test_a_number_used_twice_gets_the_sum(exercises, rng):
    """x + x, x * x, diamonds and shortcuts: the gradients of all uses add up."""
    a, b = floats(rng.uniform(2) + 0.5)
    for program in (
        [("+", 0, 0)],
        [("*", 0, 0)],
        [("/", 0, 0), ("+", 1, 0)],
        [("*", 0, 0), ("*", 1, 0)],
        [("*", 0, 0), ("+", 1, 1), ("*", 2, 1)],
    ):
        agrees(exercises, [a], program)
    # in each of these a node that is not a leaf is used both directly and through something longer
    agrees(exercises, [a, b], [("*", 0, 1), ("+", 2, 1), ("*", 3, 2)])
    agrees(exercises, [a, b], [("*", 0, 1), ("tanh", 2), ("exp", 3), ("*", 2, 4)])
    agrees(exercises, [a, b], [("+", 0, 1), ("exp", 2), ("*", 3, 2), ("+", 2, 4), ("*", 5, 3), ("+", 6, 2)])
    agrees(exercises, [a, b], [("*", 0, 1), ("+", 2, 2), ("+", 3, 3), ("*", 4, 0)])


def some_program(rng, length):
    """A random program on three leaves, in which every value stays moderate; nodes are used again and again."""
    leaves = [float(v) for v in rng.normal(3)]
    program, values = [], list(leaves)
    while len(program) < length:
        name = rng.random.choice(("+", "-", "*", "/", "**", "neg", "exp", "log", "tanh", "relu"))
        i, j = rng.random.randrange(len(values)), rng.random.randrange(max(0, len(values) - 4), len(values))
        a, b = values[i], values[j]
        if name in ("neg", "exp", "tanh", "relu"):
            step = (name, j)
            fits = name != "exp" or b < 2
        elif name == "log":
            step, fits = ("log", j), b > 0.2
        elif name == "**":
            step, fits = ("**", j, rng.random.choice((2.0, 3.0, -1.0))), abs(b) > 0.4
        else:
            step, fits = (name, j, i), name != "/" or abs(a) > 0.4
        if fits:
            value = truth(leaves, [*program, step])["data"][-1]
            if 1e-3 < abs(value) < 30:
                program.append(step)
                values.append(value)
    return leaves, program


@exercise("Value", weight=3)
def test_random_programs_agree_with_torch(exercises, rng):
    """On random programs all values and all gradients are PyTorch's."""
    for length in (3, 5, 8, 12, 12, 12, 16, 20):
        leaves, program = some_program(rng, length)
        agrees(exercises, leaves, program)


@exercise("Value")
def test_other_nodes_are_left_alone(exercises, rng):
    """Only the ancestors of the root receive a gradient."""
    a, b = floats(rng.uniform(2) + 0.5)
    program = [("*", 0, 1), ("exp", 2), ("tanh", 2), ("+", 1, 1)]
    agrees(exercises, [a, b], program, roots=(3,))
    agrees(exercises, [a, b], program, roots=(5,))
    agrees(exercises, [a, b], program, roots=(0,))


@exercise("Value")
def test_order_of_construction_is_irrelevant(exercises, rng):
    """Sums built in another order give the same gradients."""
    a, b = floats(rng.uniform(2) + 0.5)
    one = [("*", 0, 1), ("exp", 0), ("+", 2, 3), ("*", 4, 2)]
    two = [("exp", 0), ("*", 1, 0), ("+", 2, 3), ("*", 3, 4)]
    agrees(exercises, [a, b], one)
    agrees(exercises, [a, b], two)
    first, second = exercises.run(play, [a, b], one), exercises.run(play, [a, b], two)
    close(first["grad"][:2], second["grad"][:2], "the leaves' grads of the same formula built in two orders")


@exercise("Value", weight=2)
def test_backward_accumulates(exercises, rng):
    """A second backward adds the same again, in every node."""
    leaves = floats(rng.uniform(2) + 0.5)
    program = [("*", 0, 1), ("+", 2, 0), ("*", 3, 2), ("tanh", 4)]
    agrees(exercises, leaves, program, roots=(-1, -1), what="a program after two calls of backward")
    agrees(exercises, leaves, program, roots=(-1, -1, -1), what="a program after three calls of backward")


@exercise("Value")
def test_backward_from_two_roots(exercises, rng):
    """The gradients of two results that share nodes add up."""
    leaves = floats(rng.uniform(2) + 0.5)
    program = [("*", 0, 1), ("exp", 2), ("+", 2, 0), ("*", 4, 3)]
    agrees(exercises, leaves, program, roots=(3, 4), what="a program with two roots")
    agrees(exercises, leaves, program, roots=(5, 2, 3), what="a program with a root inside another's graph")


@exercise("Value")
def test_relu_at_its_kink(exercises):
    """At exactly zero the slope of relu is zero."""
    got = exercises.run(play, [0.0], [("relu", 0), ("+", 1, 0)])
    close(got["data"], [0.0, 0.0, 0.0], "x, relu(x) and relu(x) + x at x = 0")
    close(got["grad"], [1.0, 1.0, 1.0], "the grads of x, relu(x) and relu(x) + x at x = 0")


@exercise("Value")
def test_tanh_far_out(exercises):
    """tanh of plus or minus 1000 is 1 or -1, with slope 0."""
    for x, t in ((1000.0, 1.0), (-1000.0, -1.0)):
        got = exercises.run(play, [x], [("tanh", 0)])
        close(got["data"][1], t, f"tanh of {x:g}")
        close(got["grad"], [0.0, 1.0], f"the grads of x and tanh(x) at {x:g}")


@driver
def long_chain(module, n):
    """x + 1/1000 + 1/1000 + ..., n times, then squared."""
    x = module.Value(0.5)
    y = x
    for _ in range(n):
        y = y + 0.001
    z = y * y
    z.backward()
    return z.data, y.grad, x.grad


@exercise("Value")
def test_a_long_chain(exercises):
    """10,000 operations in a row are differentiated."""
    expected = 0.5 + 10.0
    close(exercises.run(long_chain, 10_000), [expected**2, 2 * expected, 2 * expected], "a chain of 10,000 additions")


@driver
def doubling(module, n):
    """x + x, doubled again and again."""
    x = module.Value(1.5)
    y = x
    for _ in range(n):
        y = y + y
    y.backward()
    return y.data / 2**n, x.grad / 2**n


@exercise("Value")
def test_very_many_paths(exercises):
    """With two to the power of 100 paths it still handles each node once."""
    close(exercises.run(doubling, 100), [1.5, 1.0], "x doubled 100 times, and its slope, both over 2^100")


# -------------------------------------------------------------------------------------------------------- cross_entropy


def some_rows(rng, N=7, V=5, ignored=(), by=IGNORE, scale=1.5):
    """Logits and targets as arrays, some targets replaced by `by`."""
    logits, targets = (scale * rng.normal(N, V)).numpy(), rng.integers(0, V, N).numpy()
    targets[list(ignored)] = by
    return logits, targets


def torch_loss(logits, targets, ignore_index=IGNORE):
    return F.cross_entropy(torch.from_numpy(logits), torch.from_numpy(targets), ignore_index=ignore_index).item()


@exercise("cross_entropy", weight=2)
def test_loss_agrees_with_torch(exercises, rng):
    """It is the mean of -log p of the right classes, for all sizes."""
    for N, V in ((7, 5), (1, 4), (6, 1), (3, 11), (5, 5)):
        logits, targets = some_rows(rng, N, V)
        got = pure(exercises.cross_entropy, logits, targets)
        close(got, torch_loss(logits, targets), f"cross_entropy of logits ({N}, {V})")
        holds(type(got) is float, f"cross_entropy gave a {type(got).__name__}, expected a Python float.")


@exercise("cross_entropy", weight=2)
def test_loss_skips_ignored_rows(exercises, rng):
    """Ignored rows count neither in the sum nor in the divisor."""
    for ignored in ((2,), (0, 1, 6), (0, 2, 3, 4, 5, 6)):
        logits, targets = some_rows(rng, ignored=ignored)
        close(exercises.cross_entropy(logits, targets), torch_loss(logits, targets), f"with rows {ignored} ignored")
    logits[list(ignored)] = 1e3 * rng.normal(6, 5).numpy()
    close(exercises.cross_entropy(logits, targets), torch_loss(logits, targets), "with huge logits in ignored rows")


@exercise("cross_entropy")
def test_loss_ignores_the_index_it_is_told(exercises, rng):
    """ignore_index may be a class, -1, or beyond the vocabulary."""
    for index in (-1, 3, 0, 5, 255):
        logits, targets = some_rows(rng, N=9, ignored=(1, 4), by=index)
        expected = torch_loss(logits, targets, index)
        close(exercises.cross_entropy(logits, targets, ignore_index=index), expected, f"with ignore_index={index}")
        close(exercises.cross_entropy(logits, targets, index), expected, f"with a third argument of {index}")


@exercise("cross_entropy")
def test_loss_of_nothing_is_zero(exercises, rng):
    """If every row is ignored the loss is 0, not NaN."""
    logits, targets = some_rows(rng, N=3, ignored=(0, 1, 2))
    exact(exercises.cross_entropy(logits, targets), 0.0, "cross_entropy with every row ignored")
    logits, targets = some_rows(rng, N=3, ignored=(0, 1, 2), by=2)
    exact(exercises.cross_entropy(logits, targets, 2), 0.0, "cross_entropy with every target equal to ignore_index=2")


@exercise("cross_entropy", weight=2)
def test_loss_is_finite_for_any_logits(exercises, rng):
    """An error of 1000 nats costs 1000 nats, and no row harms another."""
    logits = np.array([[0.0, 1000.0, 3.0], [1000.0, 999.0, 998.5], [-1000.0, -1001.0, -1000.5]])
    for targets in ([0, 1, 2], [1, 0, 0], [2, 2, 1]):
        targets = np.array(targets)
        close(exercises.cross_entropy(logits, targets), torch_loss(logits, targets), f"logits of ±1000, {targets}")
        got = exercises.cross_entropy(1e6 * logits, targets)
        close(got, torch_loss(1e6 * logits, targets), f"logits of ±1e9, {targets}")


@exercise("cross_entropy")
def test_loss_of_uniform_logits(exercises, rng):
    """Equal logits cost log V, whatever they equal."""
    for V in (1, 2, 7, 1000):
        got = exercises.cross_entropy(np.full((2, V), 3.25), np.array([0, V - 1]))
        close(got, math.log(V), f"cross_entropy of equal logits over {V} classes")


@exercise("cross_entropy")
@settings(max_examples=15)
@given(seed=seeds, shift=st.floats(-700, 700))
def test_loss_ignores_a_common_shift(exercises, seed, shift):
    """Adding one number to all logits of a row changes nothing."""
    numbers = np.random.default_rng(seed)
    logits, targets = numbers.normal(size=(4, 3)), numbers.integers(0, 3, 4)
    shifts = np.array([[shift], [0.0], [-shift], [shift / 2]])
    expected = torch_loss(logits, targets)
    close(exercises.cross_entropy(logits + shifts, targets), expected, "cross_entropy after a shift of each row")


@exercise("cross_entropy")
def test_loss_adds_nothing_to_probabilities(exercises):
    """A probability of 1e-13 costs its 29.9 nats, a certain one nothing."""
    logits = np.array([[0.0, math.log(1e-13)], [0.0, math.log(1e-13)]])
    close(exercises.cross_entropy(logits, np.array([1, 1])), torch_loss(logits, np.array([1, 1])), "p = 1e-13")
    got = exercises.cross_entropy(np.array([[0.0, -800.0], [5.0, -900.0]]), np.array([0, 0]))
    exact(abs(got) < 1e-15, True, "the loss of certainty is below 1e-15")


@exercise("cross_entropy")
def test_loss_with_impossible_classes(exercises, rng):
    """A logit of -inf removes a class and makes no NaN."""
    logits, targets = some_rows(rng, N=4, V=5)
    targets[:] = [0, 1, 0, 3]
    logits[0, 2] = logits[1, 0] = logits[1, 4] = logits[3, 2] = -math.inf
    close(exercises.cross_entropy(logits, targets), torch_loss(logits, targets), "cross_entropy with logits of -inf")


@exercise("cross_entropy")
def test_loss_refuses_impossible_targets(exercises, rng):
    """A target outside the classes is a ValueError, unless it is ignored."""
    logits, _ = some_rows(rng, N=3, V=4)
    for targets in ([0, 4, 1], [0, -1, 1], [9, 0, 0], [-100, -2, 1]):
        with pytest.raises(ValueError):
            exercises.cross_entropy(logits, np.array(targets))
    for targets in ([0, -100, 1], [-100, -100, -100]):
        with pytest.raises(ValueError):
            exercises.cross_entropy(logits, np.array(targets), ignore_index=-1)


# --------------------------------------------------------------------------------- linear_backward, softmax_ce_backward


def layer(rng, N=6, Din=4, Dout=3, dtype=torch.float64):
    """The inputs of linear_backward as tensors, every axis of its own size."""
    shapes = ((N, Din), (Dout, Din), (Dout,), (N, Dout))
    return [rng.normal(*shape).to(dtype) for shape in shapes]


@exercise("linear_backward", weight=3)
def test_linear_gradients_agree_with_autograd(exercises, rng):
    """dx, dW and db are those that autograd finds, for all sizes."""
    for sizes in ({}, {"N": 1}, {"Din": 1, "Dout": 5}, {"N": 2, "Dout": 1}, {"N": 5, "Din": 5, "Dout": 5}):
        x, W, b, dY = layer(rng, **sizes)
        leaves = [t.clone().requires_grad_() for t in (x, W, b)]
        with torch.enable_grad():
            expected = torch.autograd.grad(F.linear(*leaves), leaves, dY)
        got = exercises.linear_backward(x.numpy(), W.numpy(), b.numpy(), dY.numpy())
        holds(isinstance(got, tuple) and len(got) == 3, "linear_backward returns a tuple of three arrays.")
        for name, mine, right in zip(("dx", "dW", "db"), got, expected, strict=True):
            close(mine, right.numpy(), f"{name} of linear_backward, sizes {sizes or 'N=6, Din=4, Dout=3'}")


@exercise("linear_backward")
def test_linear_gradients_agree_with_small_steps(exercises, rng):
    """A small step in x, W or b changes the loss as the gradients say."""
    x, W, b, dY = layer(rng, N=3, Din=2, Dout=4)
    got = exercises.linear_backward(x.numpy(), W.numpy(), b.numpy(), dY.numpy())
    loss = lambda x, W, b: ((x @ W.T + b) * dY).sum()  # noqa: E731
    numeric = (
        numerical_gradient(lambda t: loss(t, W, b), x),
        numerical_gradient(lambda t: loss(x, t, b), W),
        numerical_gradient(lambda t: loss(x, W, t), b),
    )
    for name, mine, expected in zip(("dx", "dW", "db"), got, numeric, strict=True):
        # linear in each argument, so only rounding remains: about 1e-9
        roughly(mine, expected.numpy(), 1e-7, f"{name}, by finite differences")


@exercise("linear_backward")
def test_linear_gradients_add_up_over_the_batch(exercises, rng):
    """The gradients of a batch are the sums of those of its pieces."""
    x, W, b, dY = (t.numpy() for t in layer(rng, N=7))
    whole = exercises.linear_backward(x, W, b, dY)
    first, second = exercises.linear_backward(x[:2], W, b, dY[:2]), exercises.linear_backward(x[2:], W, b, dY[2:])
    close(np.concatenate([first[0], second[0]]), whole[0], "dx of two unequal pieces, joined")
    close(first[1] + second[1], whole[1], "dW of two unequal pieces, added")
    close(first[2] + second[2], whole[2], "db of two unequal pieces, added")


@exercise("linear_backward")
def test_linear_gradients_keep_dtype_and_inputs(exercises, rng):
    """The gradients have the dtype of x, and no argument is changed."""
    for dtype in (torch.float32, torch.float64):
        x, W, b, dY = (t.numpy() for t in layer(rng, dtype=dtype))
        got = pure(exercises.linear_backward, x, W, b, dY)
        close(got, (dY @ W, dY.T @ x, dY.sum(0)), f"linear_backward of {dtype} arrays")


def torch_dlogits(logits, targets):
    leaf = torch.from_numpy(logits).clone().requires_grad_()
    with torch.enable_grad():
        loss = F.cross_entropy(leaf, torch.from_numpy(targets), ignore_index=IGNORE)
        return torch.autograd.grad(loss, leaf)[0].numpy()


@exercise("linear_backward", weight=3)
def test_softmax_gradient_agrees_with_autograd(exercises, rng):
    """It is the gradient of the mean cross-entropy that autograd finds."""
    for N, V in ((6, 4), (1, 5), (3, 9), (4, 4), (2, 1)):
        logits, targets = some_rows(rng, N, V)
        got = pure(exercises.softmax_ce_backward, logits, targets)
        close(got, torch_dlogits(logits, targets), f"softmax_ce_backward of logits ({N}, {V})")


@exercise("linear_backward", weight=2)
def test_softmax_gradient_skips_ignored_rows(exercises, rng):
    """Ignored rows get exact zeros and do not count in the divisor."""
    for ignored in ((1,), (0, 3, 6), (0, 1, 2, 3, 5, 6)):
        logits, targets = some_rows(rng, ignored=ignored)
        got = exercises.softmax_ce_backward(logits, targets)
        close(got, torch_dlogits(logits, targets), f"softmax_ce_backward with rows {ignored} ignored")
        exact(got[list(ignored)], np.zeros((len(ignored), 5)), "the gradient of the ignored rows")


@exercise("linear_backward")
def test_softmax_gradient_of_nothing(exercises, rng):
    """If every row is ignored the gradient is all zeros."""
    logits, targets = some_rows(rng, N=3, ignored=(0, 1, 2))
    exact(exercises.softmax_ce_backward(logits, targets), np.zeros((3, 5)), "the gradient with every row ignored")


@exercise("linear_backward")
def test_softmax_gradient_of_extreme_logits(exercises, rng):
    """Logits of ±1000, in rows of very different size, stay finite."""
    logits = np.array([[0.0, 1000.0, 3.0], [1000.0, 999.0, 998.5], [-1000.0, -1001.0, -1000.5]])
    targets = np.array([0, 1, 2])
    close(exercises.softmax_ce_backward(logits, targets), torch_dlogits(logits, targets), "logits of ±1000")


@exercise("linear_backward")
def test_softmax_gradient_rows_cancel(exercises, rng):
    """Each row sums to zero: what one class gains the others lose."""
    logits, targets = some_rows(rng, N=8, V=6, ignored=(2,))
    got = exercises.softmax_ce_backward(logits, targets)
    holds(float(abs(got).max()) > 0.01, "The gradient is not zero.")
    roughly(got.sum(1), np.zeros(8), 1e-12, "the rows of dlogits, summed")  # six terms below 1/7: rounding is 1e-17
    lifted = exercises.softmax_ce_backward(logits + np.arange(8.0)[:, None], targets)
    close(lifted, got, "dlogits after each row of logits was shifted")


@exercise("linear_backward")
def test_softmax_gradient_keeps_the_dtype(exercises, rng):
    """float32 logits give a float32 gradient."""
    logits, targets = some_rows(rng, ignored=(3,))
    got = exercises.softmax_ce_backward(logits.astype(np.float32), targets)
    close(got, torch_dlogits(logits.astype(np.float32), targets), "softmax_ce_backward of float32 logits")


# ------------------------------------------------------------------------------------------------------------- sgd_step


SHAPES = ((3,), (2, 4), (1, 2, 3))


def torch_run(starts, all_grads, rates, **options):
    """The parameters after each step of PyTorch's SGD; None leaves a parameter without a gradient."""
    params = [torch.from_numpy(p).clone() for p in starts]
    optimizer, history = torch.optim.SGD(params, lr=1.0, **options), []
    for grads, lr in zip(all_grads, rates, strict=True):
        optimizer.param_groups[0]["lr"] = lr
        for p, g in zip(params, grads, strict=True):
            p.grad = None if g is None else torch.from_numpy(g).clone()
        optimizer.step()
        history.append([p.clone().numpy() for p in params])
    return history


def follow(exercises, starts, all_grads, rates, what, **options):
    """Assert that each step of the student's is PyTorch's."""
    params, state = starts, {}
    expected = torch_run(starts, all_grads, rates, **options)
    for step, (grads, lr) in enumerate(zip(all_grads, rates, strict=True)):
        params, state = exercises.sgd_step(params, grads, state, lr, **options)
        close(params, expected[step], f"{what}: the params after step {step + 1}")


def some_steps(rng, n, dtype=np.float64):
    draw = lambda: [rng.normal(*shape).numpy().astype(dtype) for shape in SHAPES]  # noqa: E731
    return draw(), [draw() for _ in range(n)]


@exercise("sgd_step", weight=2)
def test_plain_descent(exercises, rng):
    """Without momentum each step is p - lr g."""
    starts, grads = some_steps(rng, 2)
    params, state = exercises.sgd_step(starts, grads[0], {}, 0.3)
    close(params, [p - 0.3 * g for p, g in zip(starts, grads[0], strict=True)], "the params after one step")
    params, _ = exercises.sgd_step(params, grads[1], state, 0.1)
    expected = [p - 0.3 * g - 0.1 * h for p, g, h in zip(starts, *grads, strict=True)]
    close(params, expected, "the params after two steps")


@exercise("sgd_step", weight=3)
def test_momentum_agrees_with_torch(exercises, rng):
    """With momentum five steps are those of PyTorch."""
    for momentum in (0.9, 0.4, 1.0):
        starts, grads = some_steps(rng, 5)
        follow(exercises, starts, grads, [0.2] * 5, f"momentum={momentum}", momentum=momentum)


@exercise("sgd_step", weight=2)
def test_decay_agrees_with_torch(exercises, rng):
    """Weight decay pulls towards zero, with and without momentum."""
    for options in ({"weight_decay": 0.3}, {"momentum": 0.8, "weight_decay": 0.3}):
        starts, grads = some_steps(rng, 5)
        follow(exercises, starts, grads, [0.2] * 5, f"{options}", **options)


@exercise("sgd_step", weight=2)
def test_rate_may_change(exercises, rng):
    """A new learning rate applies to the whole velocity at once."""
    starts, grads = some_steps(rng, 5)
    rates = [0.3, 0.3, 0.01, 0.2, 0.0]
    follow(exercises, starts, grads, rates, "a changing lr", momentum=0.9, weight_decay=0.1)


@exercise("sgd_step", weight=2)
def test_parameters_without_a_gradient(exercises, rng):
    """A gradient of None leaves parameter and velocity as they are."""
    starts, grads = some_steps(rng, 6)
    for step, k in ((0, 1), (1, 0), (2, 0), (2, 2), (4, 1)):
        grads[step][k] = None
    follow(exercises, starts, grads, [0.2] * 6, "some None", momentum=0.9, weight_decay=0.2)
    params, _ = exercises.sgd_step(starts, [None, None, None], {}, 0.5, 0.9, 0.3)
    exact(params, starts, "the params when no parameter has a gradient")


@exercise("sgd_step", weight=2)
def test_convergence_depends_on_curvature(exercises, rng):
    """On a parabola of curvature c it converges below lr = 2/c, not above."""
    for c, share in ((4.0, 0.5), (4.0, 1.0), (4.0, 1.9), (0.5, 1.9), (4.0, 2.1), (0.5, 2.1)):
        x, state, factor = [np.array([1.0])], {}, 1 - share  # lr = share / c makes x grow by 1 - lr c each step
        for step in range(1, 31):
            x, state = exercises.sgd_step(x, [c * x[0]], state, share / c)
            roughly(x[0], np.array([factor**step]), 1e-9 * 1.1**step, f"x on c/2 x^2, c={c}, lr={share / c:g}")
        exact(abs(float(x[0][0])) < 1, share < 2, f"whether it came closer in 30 steps, c={c}, lr={share / c:g}")


@exercise("sgd_step")
def test_step_changes_nothing_in_place(exercises, rng):
    """Params, grads and state are the same afterwards."""
    starts, grads = some_steps(rng, 2)
    params, state = pure(exercises.sgd_step, starts, grads[0], {}, 0.2, 0.9, 0.1)
    again = pure(exercises.sgd_step, params, grads[1], state, 0.2, 0.9, 0.1)
    twice = exercises.sgd_step(params, grads[1], state, 0.2, 0.9, 0.1)
    exact(again[0], twice[0], "the same step taken twice from the same state")
    expected = torch_run(starts, grads, [0.2, 0.2], momentum=0.9, weight_decay=0.1)
    close(again[0], expected[1], "the params after two steps")


@exercise("sgd_step")
def test_step_keeps_dtype(exercises, rng):
    """float32 parameters stay float32."""
    starts, grads = some_steps(rng, 3, np.float32)
    follow(exercises, starts, grads, [0.2] * 3, "float32", momentum=0.9, weight_decay=0.1)


# ------------------------------------------------------------------------------------------------------------ train_mlp


XOR = np.array([[0.0, 0.0], [0.0, 1.0], [1.0, 0.0], [1.0, 1.0]]), np.array([0, 1, 1, 0])


def moons(rng, n):
    """Two interleaved half circles with a little noise, and which of the two each point is from."""
    t, y = math.pi * rng.uniform(n), rng.integers(0, 2, n)
    x = torch.stack([torch.where(y == 0, t.cos(), 1 - t.cos()), torch.where(y == 0, t.sin(), 0.5 - t.sin())], 1)
    return (x + 0.1 * rng.normal(n, 2)).numpy(), y.numpy()


def blobs(rng, N=23, Din=3, C=3):
    """Random points, and random labels of which each class occurs."""
    y = rng.integers(0, C, N)
    y[:C] = torch.arange(C)
    return rng.normal(N, Din).numpy(), y.numpy()


def forward(params, X):
    """The network by PyTorch."""
    W1, b1, W2, b2 = (torch.as_tensor(p) for p in params)
    return F.linear(torch.tanh(F.linear(torch.as_tensor(X), W1, b1)), W2, b2)


def accuracy(params, X, y):
    return float((forward(params, X).argmax(1).numpy() == y).mean())


@exercise("train_mlp", weight=3)
def test_training_agrees_with_torch(exercises, rng):
    """Losses and weights are those of PyTorch from the same start."""
    for C, width, steps in ((3, 5, 12), (2, 1, 7), (4, 8, 1)):
        X, y = blobs(rng, C=C)
        start = exercises.train_mlp(X, y, width, 0, 3)["params"]
        exact([tuple(p.shape) for p in start], [(width, 3), (width,), (C, width), (C,)], "the shapes of the params")
        close(start, exercises.initial_params(3, width, C, 3), "the params before any step")
        params = [torch.from_numpy(p).requires_grad_() for p in start]
        optimizer, losses = torch.optim.SGD(params, lr=LR, momentum=MOMENTUM), []
        for _ in range(steps):
            with torch.enable_grad():
                loss = F.cross_entropy(forward(params, X), torch.from_numpy(y))
            losses.append(loss.item())
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        got = exercises.train_mlp(X, y, width, steps, 3)
        what = f"train_mlp with {C} classes, width {width}, {steps} steps"
        close(got["loss"], losses, f"the losses of {what}")
        close(got["params"], [p.detach().numpy() for p in params], f"the params of {what}")


@exercise("train_mlp")
def test_accuracy_is_that_of_the_final_weights(exercises, rng):
    """acc is measured after the last update, on the whole of X."""
    for steps in (0, 1, 2, 3, 5, 9):
        X, y = blobs(rng, N=57)
        got = exercises.train_mlp(X, y, 6, steps, 1)
        close(got["acc"], accuracy(got["params"], X, y), f"acc after {steps} steps")
        exact(len(got["loss"]), steps, f"the number of losses of {steps} steps")


@exercise("train_mlp")
def test_first_loss_is_that_of_guessing(exercises, rng):
    """Before any update the loss is near log C."""
    for C in (2, 3, 7):
        X, y = blobs(rng, N=90, C=C)
        first = exercises.train_mlp(X, y, 16, 1, 5)["loss"][0]
        # W2 starts with a spread of 0.1 / sqrt(width), so the logits are within about 0.1 of each other
        roughly(first, math.log(C), 0.05, f"the first loss with {C} classes")


@exercise("train_mlp", weight=2)
def test_network_learns_xor(exercises):
    """From any seed it learns what no straight line can separate."""
    for seed in range(4):
        got = exercises.train_mlp(*XOR, 8, 300, seed)
        exact(got["acc"], 1.0, f"the accuracy on XOR, width 8, seed {seed}")
        holds(got["loss"][-1] < 0.1, f"The last loss on XOR is {got['loss'][-1]:.3g}; it should be below 0.1.")


@exercise("train_mlp", weight=2)
def test_network_learns_two_moons(exercises, rng):
    """It separates two moons, and new points from the same moons too."""
    X, y = moons(rng, 150)
    got = exercises.train_mlp(X, y, 16, 600, 2)
    holds(got["acc"] >= 0.98, f"The accuracy on the moons is {got['acc']:.3f}; it should be 0.98 or more.")
    fresh = accuracy(got["params"], *moons(rng, 400))
    holds(fresh >= 0.95, f"On 400 new points of the moons the accuracy is {fresh:.3f}; it should be 0.95 or more.")


@exercise("train_mlp")
def test_training_is_repeatable(exercises, rng):
    """The seed decides everything, and no input is changed."""
    X, y = blobs(rng)
    one, two = pure(exercises.train_mlp, X, y, 4, 15, 7), exercises.train_mlp(X, y, width=4, steps=15, seed=7)
    exact(one, two, "two runs with the same arguments")
    other = exercises.train_mlp(X, y, 4, 15, 8)
    holds(one["loss"] != other["loss"], "Another seed must give other losses.")


@exercise("train_mlp", weight=2)
def test_wide_networks_learn_coin_tosses_by_heart(exercises):
    """Width 32 gets all 64 coin tosses right, width 1 cannot."""
    one, four, wide = curve = exercises.capacity_curve([1, 4, 32])
    holds(one < four < wide, f"More hidden units must fit more, but the accuracies are {curve}.")
    holds(one < 0.75, f"With one hidden unit the accuracy is {one:.3f}; a single cut cannot reach 0.75 here.")
    holds(0.75 < four < 0.98, f"With four hidden units the accuracy is {four:.3f}; it should lie in between.")
    exact(wide, 1.0, "the accuracy of width 32")


@exercise("train_mlp")
def test_curve_follows_the_widths_it_is_given(exercises):
    """Each entry is train_mlp's accuracy for that width, in the order given."""
    points, labels = exercises.value("POINTS"), exercises.value("LABELS")
    widths = (3, 1, 12)
    expected = [exercises.train_mlp(points, labels, width, 600, 0)["acc"] for width in widths]
    got = exercises.capacity_curve(widths)
    exact(got, expected, f"capacity_curve({widths})")
    holds(type(got) is list, "capacity_curve returns a list.")
    exact(exercises.capacity_curve([]), [], "capacity_curve of no widths")
