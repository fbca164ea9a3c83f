"""Self-checks of chapter 8: worked examples and the laws that teach."""

import math

import numpy as np
import pytest

from grader.testing import close, driver, exact, exercise, holds, numerical_gradient, roughly


@exercise("central_difference")
def test_difference_is_exact_on_a_parabola(exercises):
    """On the worked example a step as large as 0.1 gives the slope exactly."""
    f = lambda a, b: (a * b + 10) * a  # noqa: E731
    close(exercises.central_difference(f, [2.0, -3.0], 0, h=0.1), -2.0, "central_difference by a at (2, -3)")
    close(exercises.central_difference(f, [2.0, -3.0], 1, h=0.1), 4.0, "central_difference by b at (2, -3)")


@exercise("central_difference")
def test_halving_the_step_quarters_the_error(exercises):
    """Half the step leaves a quarter of the error."""
    errors = [exercises.central_difference(math.exp, [0.0], 0, h) - 1 for h in (0.02, 0.01)]
    roughly(errors[0] / errors[1], 4.0, 0.01, "error at h=0.02 over error at h=0.01")  # 4 + O(h^2)


@exercise("central_difference")
def test_check_tells_right_from_wrong(exercises):
    """It accepts the right gradient and finds one entry that is off."""
    x = np.array([1.0, -2.0, 0.0])
    f = lambda x: float((x**2).sum())  # noqa: E731
    exact(exercises.grad_check(f, lambda x: 2 * x, x, 1e-6), True, "grad_check of the gradient 2x")
    wrong = lambda x: 2 * x + np.array([0.0, 0.01, 0.0])  # noqa: E731
    exact(exercises.grad_check(f, wrong, x, 1e-3), False, "grad_check of a gradient with one wrong entry")


@driver
def order_of(module, graph):
    """Order a graph given as name -> names of parents, the root last; give the names."""
    from types import SimpleNamespace

    nodes = {}
    for name, parents in graph.items():
        nodes[name] = SimpleNamespace(name=name, parents=tuple(nodes[parent] for parent in parents))
    return [node.name for node in module.topological_order(nodes[name])]


@exercise("topological_order")
def test_parents_come_first(exercises):
    """In the graph of the worked example every parent comes before its child."""
    graph = {"a": "", "b": "", "c": "ab", "d": "c", "L": "da"}
    order = exercises.run(order_of, graph)
    exact(sorted(order), sorted(graph), "the nodes of the order, sorted")
    for child, parents in graph.items():
        for parent in parents:
            holds(order.index(parent) < order.index(child), f"In {order}, {parent} must come before {child}.")


@exercise("topological_order")
def test_a_deep_graph_needs_no_recursion(exercises):
    """A chain of 3,000 nodes comes out whole."""
    graph = {str(k): [str(k - 1)] if k else [] for k in range(3000)}
    exact(exercises.run(order_of, graph) == list(graph), True, "the chain came out from its leaf to its root")


@driver
def worked_example(module):
    """L = (a b + 10) a at a = 2, b = -3: the value and both gradients, after one and after two calls."""
    a, b = module.Value(2.0), module.Value(-3.0)
    L = (a * b + 10) * a
    L.backward()
    once = [a.grad, b.grad]
    L.backward()
    return L.data, once, [a.grad, b.grad]


@exercise("Value")
def test_gradients_of_the_worked_example(exercises):
    """The worked example of the notes: a is used twice, so two paths add up."""
    L, once, twice = exercises.run(worked_example)
    close(L, 8.0, "L at a = 2, b = -3")
    close(once, [-2.0, 4.0], "the grads of a and b")
    close(twice, [-4.0, 8.0], "the grads of a and b after a second backward")


@driver
def slopes(module, x):
    """The slope of each operation with one operand, at x."""
    found = {}
    for name in ("exp", "log", "tanh", "relu"):
        leaf = module.Value(x)
        getattr(leaf, name)().backward()
        found[name] = leaf.grad
    leaf = module.Value(x)
    (leaf**3).backward()
    found["cube"] = leaf.grad
    return found


@exercise("Value")
def test_slopes_agree_with_small_steps(exercises):
    """The slope of each operation is what a small step says."""
    functions = {"exp": math.exp, "log": math.log, "tanh": math.tanh, "relu": lambda x: max(0.0, x)}
    functions["cube"] = lambda x: x**3
    got = exercises.run(slopes, 0.7)
    for name, f in functions.items():
        step = (f(0.7 + 1e-6) - f(0.7 - 1e-6)) / 2e-6
        roughly(got[name], step, 1e-8, f"the slope of {name} at 0.7")  # central differences are good to 1e-10


@exercise("cross_entropy")
def test_loss_of_the_worked_example(exercises):
    """Probabilities 1/8, 2/8 and 5/8: the second class costs ln 4."""
    logits = np.log([[1.0, 2.0, 5.0], [1.0, 2.0, 5.0]])
    close(exercises.cross_entropy(logits[:1], np.array([1])), math.log(4), "the loss of class 1")
    both = exercises.cross_entropy(logits, np.array([1, 0]))
    close(both, (math.log(4) + math.log(8)) / 2, "the mean loss of classes 1 and 0")


@exercise("cross_entropy")
def test_loss_of_ignored_rows(exercises):
    """A row with target -100 does not count at all."""
    logits = np.log([[1.0, 2.0, 5.0], [1.0, 1.0, 1.0], [3.0, 3.0, 3.0]])
    close(exercises.cross_entropy(logits, np.array([1, -100, -100])), math.log(4), "the loss with two rows ignored")
    close(exercises.cross_entropy(logits, np.array([-100] * 3)), 0.0, "the loss with all rows ignored")


@exercise("cross_entropy")
def test_loss_survives_a_gross_error(exercises):
    """A target 1000 below the best logit costs 1000 nats."""
    close(exercises.cross_entropy(np.array([[1000.0, 0.0]]), np.array([1])), 1000.0, "logits 1000 and 0, target 1")


@exercise("linear_backward")
def test_linear_gradients_agree_with_small_steps(exercises, rng):
    """A small step in the weights changes the loss as dW says."""
    x, W, b, dY = rng.normal(3, 2), rng.normal(4, 2), rng.normal(4), rng.normal(3, 4)
    _, dW, db = exercises.linear_backward(x.numpy(), W.numpy(), b.numpy(), dY.numpy())
    numeric = numerical_gradient(lambda W: ((x @ W.T + b) * dY).sum(), W)
    roughly(dW, numeric.numpy(), 1e-7, "dW")  # linear in W, so only rounding remains: about 1e-9
    close(db, dY.sum(0).numpy(), "db")


@exercise("linear_backward")
def test_softmax_gradient_of_the_worked_example(exercises):
    """Probabilities 1/8, 2/8, 5/8 and target 1: what is predicted minus what is."""
    got = exercises.softmax_ce_backward(np.log([[1.0, 2.0, 5.0]]), np.array([1]))
    close(got, np.array([[0.125, -0.75, 0.625]]), "softmax_ce_backward")


@exercise("sgd_step")
def test_two_steps_by_hand(exercises):
    """Two steps with momentum one half, worked out on paper."""
    params, state = exercises.sgd_step([np.array([1.0])], [np.array([2.0])], {}, lr=0.1, momentum=0.5)
    close(params[0], np.array([0.8]), "p after the first step: 1 - 0.1 * 2")
    params, _ = exercises.sgd_step(params, [np.array([2.0])], state, lr=0.1, momentum=0.5)
    close(params[0], np.array([0.5]), "p after the second step: 0.8 - 0.1 * (0.5 * 2 + 2)")


@exercise("sgd_step")
@pytest.mark.parametrize("lr", [0.19, 0.21])
def test_the_border_of_convergence(exercises, lr):
    """On a parabola of curvature 10, a rate below 0.2 converges, one above does not."""
    x, state = [np.array([1.0])], {}
    for _ in range(40):
        x, state = exercises.sgd_step(x, [10 * x[0]], state, lr)
    holds(bool(abs(x[0][0]) < 1) is (lr < 0.2), f"With lr={lr} x went from 1 to {x[0][0]:.3g} in 40 steps.")


@exercise("train_mlp")
def test_xor_is_learned(exercises):
    """The network learns XOR, which no straight line separates."""
    X, y = np.array([[0.0, 0.0], [0.0, 1.0], [1.0, 0.0], [1.0, 1.0]]), np.array([0, 1, 1, 0])
    got = exercises.train_mlp(X, y, width=8, steps=300, seed=0)
    roughly(got["loss"][0], math.log(2), 0.05, "the first loss")  # the logits start within about 0.1 of each other
    exact(len(got["loss"]), 300, "the number of losses")
    close(got["acc"], 1.0, "the accuracy on XOR")


@exercise("train_mlp")
def test_width_decides_what_can_be_learned_by_heart(exercises):
    """One hidden unit fails on 64 coin tosses, thirty-two get all right."""
    narrow, wide = exercises.capacity_curve([1, 32])
    holds(narrow < 0.75, f"With one hidden unit the accuracy is {narrow:.3f}; a single cut cannot reach 0.75 here.")
    close(wide, 1.0, "the accuracy with 32 hidden units")
