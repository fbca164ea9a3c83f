"""The same conversation in process and through the sandbox: by value, with handles, callbacks and drivers."""

from __future__ import annotations

import types
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch

from grader.sandbox.agent import Agent
from grader.sandbox.policy import Plan, in_force, probe
from grader.sandbox.proxy import Handle, Link, LocalTransport, Proxy, SandboxEnd
from grader.sandbox.session import Limits, Zygote
from grader.sandbox.twins import start_alone
from grader.testing import close, counting, driver, exact, pure, stand_in
from grader.verdict import Verdict

STUDENT = """
import builtins
import collections
import torch
import torch.nn.functional as F
from torch.nn.functional import softmax as borrowed

def echo(x): return x
def kind(x): return type(x).__name__
def scale(x): x *= 2; return x
def twice(f, x): return f(f(x))
def read(model): return [model.T_max, model.cfg.heads, model(3)]
def total(items): return sum(items)
def sum_of(functions, numbers):
    result = sum(f() for f in functions) + numbers[0]
    if len(numbers) > 1: numbers[0] = 0.0
    return result
def first(items): return next(iter(items))
def draw(generator): return torch.rand(3, generator=generator, dtype=torch.float64)
def numbers(n):
    for i in range(n): yield i
def named(): return collections.namedtuple("Point", "x y")(1, 2)
def ordered(): return collections.OrderedDict(b=1, a=2)
def parameter(): return torch.nn.Parameter(torch.ones(2))
def fail(name): raise getattr(builtins, name)("because")
class Own(LookupError): pass
def own(): raise Own("mine")
def library(x): return F.softmax(x, -1)
def imported(x): return borrowed(x, -1)
def quiet(x):
    try: return F.softmax(x, -1)
    except Exception: return x
class Lying(torch.Tensor): pass
def lying(): return torch.ones(2).as_subclass(Lying)
class Bag:
    def __init__(self, *items): self.items = list(items)
    def add(self, item): self.items.append(item); return self
    def __len__(self): return len(self.items)
    def __getitem__(self, i): return self.items[i]
    def __iter__(self): return iter(self.items)
    def __contains__(self, item): return item in self.items
    def merge(self, other): return self.items + other.items
    def apply(self, f): return f(self)
def huge(): return [0] * 2_000_000
NAME = "a constant"
def annotated(x: int) -> list[int]: return x
def annotations(): return {name: str(kind) for name, kind in annotated.__annotations__.items()}
"""


@pytest.fixture(scope="module")
def zygote() -> Iterator[Zygote]:
    zygote = Zygote(Plan(layers=in_force(probe())), start_alone())
    yield zygote
    zygote.close()


@pytest.fixture(params=["desk", "sandbox"])
def link(request: pytest.FixtureRequest, zygote: Zygote) -> Iterator[Link]:
    if request.param == "desk":
        yield loaded(Link(LocalTransport(Agent())))
        return
    supervisor = zygote.supervisor()
    child = supervisor.child(Limits(20.0, 512 << 20))
    yield loaded(Link(child))
    child.end()
    supervisor.close()


def loaded(link: Link) -> Link:
    link.request("load", "student", "student.py", "py", STUDENT.encode())
    link.begin(7, ())
    return link


@pytest.fixture
def student(link: Link) -> Proxy:
    return Proxy(link)


VALUES: list[Any] = [
    *(None, True, False, 0, -7, 1 << 80, 0.1, float("inf"), "häß 漢 \ud800", b"\x00\xff", [], (), {}, set()),
    *([1, [2, (3, "x")]], {"a": 1, (1, 2): [3]}, {1, 2}, 1 + 2j, slice(1, None, 2), torch.float32, {b"k": None}),
]


@pytest.mark.parametrize("value", VALUES, ids=repr)
def test_plain_values_come_back_as_they_went(student: Proxy, value: Any) -> None:
    got = student.echo(value)
    assert type(got) is type(value)
    assert got == value


@pytest.mark.parametrize(
    "dtype", [torch.float64, torch.bfloat16, torch.float16, torch.int64, torch.bool, torch.complex64]
)
@pytest.mark.parametrize("shape", [(), (0,), (3, 0, 2), (2, 3)])
def test_tensors_keep_dtype_shape_and_bits(student: Proxy, dtype: torch.dtype, shape: tuple[int, ...]) -> None:
    value = (torch.arange(6.0).reshape(2, 3) if shape == (2, 3) else torch.ones(shape)).to(dtype)
    got = student.echo(value.T if value.ndim == 2 else value)
    assert torch.equal(got, value.T if value.ndim == 2 else value)
    assert got.dtype == dtype
    assert type(got) is torch.Tensor


def test_arrays_cross_in_any_memory_order(student: Proxy) -> None:
    value = np.arange(12, dtype=">f8").reshape(3, 4).T[::-1]
    got = student.echo(value)
    assert got.dtype == np.float64
    assert np.array_equal(got, value)


def test_relatives_of_plain_types_become_plain(student: Proxy) -> None:
    assert student.named() == (1, 2)
    assert type(student.named()) is tuple
    assert type(student.ordered()) is dict
    assert type(student.parameter()) is torch.Tensor
    assert not student.parameter().requires_grad
    assert student.kind(np.float64(0.5)) == "float"


def test_a_tensor_subclass_never_crosses(student: Proxy) -> None:
    assert isinstance(student.lying(), Handle)


def test_arguments_are_copies_and_changes_are_seen_only_when_asked_for(student: Proxy) -> None:
    x = torch.ones(2)
    student.scale(x)
    assert x.tolist() == [1, 1]
    with pytest.raises(AssertionError, match="argument 1 of scale was changed"):
        pure(student.scale, x)


def test_a_list_of_callables_is_held_pure_by_its_other_items(student: Proxy) -> None:
    assert pure(student.sum_of, [lambda: 1, lambda: 2], [3.0]) == 6
    with pytest.raises(AssertionError, match="argument 2 of sum_of was changed"):
        pure(student.sum_of, [lambda: 1, lambda: 2], [3.0, 4.0])


def test_callables_stay_here_and_are_counted(student: Proxy) -> None:
    f = counting(lambda x: x + 1)
    assert student.twice(f, 3) == 5
    assert f.arguments == [(3,), (4,)]


def test_a_stand_in_has_attributes(student: Proxy) -> None:
    model = stand_in(lambda x: 2 * x, T_max=8, cfg={"heads": 4})
    assert student.read(model) == [8, 4, 6]


def test_iterators_are_pulled_one_by_one(student: Proxy) -> None:
    pulled: list[int] = []

    def source() -> Iterator[int]:
        for i in range(5):
            pulled.append(i)
            yield i

    assert student.first(source()) == 0
    assert pulled == [0]
    assert student.total(source()) == 10


def test_a_students_generator_is_lazy(student: Proxy) -> None:
    numbers = student.numbers(3)
    assert next(numbers) == 0
    assert list(numbers) == [1, 2]
    with pytest.raises(StopIteration):
        next(numbers)


def test_a_random_generator_moves_on(student: Proxy) -> None:
    ours, theirs = (torch.Generator().manual_seed(5) for _ in range(2))
    drawn = [student.draw(ours), student.draw(ours)]
    for got in drawn:
        exact(got, torch.rand(3, generator=theirs, dtype=torch.float64))


def test_objects_stay_there_behind_handles(student: Proxy) -> None:
    bag = student.Bag(1, 2)
    assert (len(bag), bag[1], list(bag), 2 in bag, bag.items) == (2, 2, [1, 2], True, [1, 2])
    bag.items = [9]
    assert bag.add(4).merge(student.Bag("x")) == [9, 4, "x"]
    assert student.echo(bag).items == [9, 4]


def test_a_callback_may_use_the_handle_it_is_given(student: Proxy) -> None:
    assert student.Bag(1).apply(lambda bag: bag.add(2).merge(bag)) == [1, 2, 1, 2]


@pytest.mark.parametrize("name", ["ValueError", "KeyError", "IndexError", "TypeError", "ZeroDivisionError"])
def test_exceptions_keep_their_built_in_type(student: Proxy, name: str) -> None:
    import builtins

    with pytest.raises(getattr(builtins, name), match="because"):
        student.fail(name)


def test_a_class_of_the_students_own_arrives_as_its_nearest_base(student: Proxy) -> None:
    with pytest.raises(LookupError, match="mine"):
        student.own()


def test_a_failing_callback_tells_no_secret(student: Proxy) -> None:
    def oracle(x: int) -> int:
        raise ValueError("the expected value is 42")

    with pytest.raises(RuntimeError) as caught:
        student.twice(oracle, 1)
    assert "42" not in str(caught.value)


@driver
def count_items(module: types.ModuleType, n: int) -> Any:
    import collections

    return collections.Counter(len(module.Bag(*range(i))) for i in range(n))


def test_a_driver_runs_beside_the_student(student: Proxy) -> None:
    assert student.run(count_items, 3) == {0: 1, 1: 1, 2: 1}


def test_annotations_are_what_the_student_wrote(student: Proxy) -> None:
    assert student.annotations() == {"x": "<class 'int'>", "return": "list[int]"}


def test_a_constant_is_read_by_value(student: Proxy) -> None:
    assert student.value("NAME") == "a constant"


@pytest.mark.parametrize("name", ["library", "imported", "quiet"])
def test_forbidden_calls_are_refused_while_the_test_may_use_them(link: Link, name: str) -> None:
    x = torch.ones(1, 2)
    close(getattr(Proxy(link), name)(x), torch.softmax(x, -1))
    link.begin(7, ("torch.nn.functional.softmax",))
    with pytest.raises(SandboxEnd) as caught:
        getattr(Proxy(link), name)(x)
    assert caught.value.verdict is Verdict.FORBIDDEN
    torch.nn.functional.softmax(x, -1)


def test_the_guard_is_lifted_during_callbacks(link: Link) -> None:
    link.begin(7, ("torch.nn.functional.softmax",))
    x = torch.ones(1, 2)
    close(Proxy(link).twice(lambda v: torch.nn.functional.softmax(v, -1), x), torch.full((1, 2), 0.5))


def test_what_is_too_large_is_output_not_a_crash(student: Proxy) -> None:
    with pytest.raises(SandboxEnd) as caught:
        student.huge()
    assert caught.value.verdict is Verdict.OUTPUT
    assert student.echo(1) == 1
