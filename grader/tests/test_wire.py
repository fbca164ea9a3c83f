"""The codec: what goes in comes out exactly, and what nobody encoded is refused, whatever it is."""

from __future__ import annotations

import json
import math
import struct
import tracemalloc
from contextlib import suppress
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from grader.sandbox import wire
from grader.sandbox.agent import generator_state, restore_generator

QUICK = settings(max_examples=150, deadline=None, database=None, suppress_health_check=list(HealthCheck))


def refuse(value: Any) -> list[Any]:
    raise TypeError(f"{type(value).__name__} is outside the closed set")


def unknown(node: list[Any]) -> Any:
    raise wire.WireError(f"unknown tag {node[0]!r}")


def there_and_back(value: Any) -> Any:
    return wire.decode(wire.encode(value, refuse), unknown)


def frame(header: Any, body: bytes = b"") -> bytes:
    """Give a frame whose header may say anything."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return wire.PREFIX.pack(len(text), len(body)) + text + body


def identical(a: Any, b: Any) -> bool:
    """Tell whether two values are the same in type, structure and bits; one NaN is like another."""
    if type(a) is not type(b):
        return False
    if isinstance(a, torch.Tensor):
        return a.dtype == b.dtype and a.shape == b.shape and bits(a) == bits(b)
    if isinstance(a, np.ndarray):
        return bool(a.dtype == b.dtype) and a.shape == b.shape and a.tobytes() == b.tobytes()
    if isinstance(a, float):
        return struct.pack("d", a) == struct.pack("d", b) or (math.isnan(a) and math.isnan(b))
    if isinstance(a, complex):
        return identical(a.real, b.real) and identical(a.imag, b.imag)
    if isinstance(a, (list, tuple)):
        return len(a) == len(b) and all(map(identical, a, b))
    if isinstance(a, dict):  # the order counts
        return identical(list(a.items()), list(b.items()))
    return bool(a == b)


def bits(tensor: torch.Tensor) -> bytes:
    plain = tensor.detach().resolve_conj().resolve_neg().contiguous()
    return (plain.view(torch.int16) if plain.dtype == torch.bfloat16 else plain).numpy().tobytes()


# -- values --------------------------------------------------------------------------------------------------------

shapes = st.lists(st.integers(0, 4), max_size=4).map(tuple)
seeds = st.integers(0, 2**31 - 1)


@st.composite
def arrays(draw: st.DrawFn) -> np.ndarray[Any, Any]:
    """Draw an array of any dtype, NaN patterns, infinities and foreign memory layouts included."""
    dtype = wire.NUMPY_DTYPES[draw(st.sampled_from(sorted(wire.NUMPY_DTYPES)))]
    shape = draw(shapes)
    raw = np.random.default_rng(draw(seeds)).bytes(math.prod(shape) * dtype.itemsize)
    array = np.frombuffer(raw, dtype=np.uint8 if dtype.name == "bool" else dtype)
    array = (array % 2 == 1 if dtype.name == "bool" else array).reshape(shape)
    layout = draw(st.sampled_from(["plain", "transposed", "reversed", "strided"]))
    if layout == "transposed":
        return array.T
    if layout == "reversed" and array.ndim:
        return array[::-1]
    if layout == "strided" and array.ndim:
        return array[..., ::2]
    return array


@st.composite
def tensors(draw: st.DrawFn) -> torch.Tensor:
    """Draw a tensor of any dtype and layout."""
    dtype = wire.TORCH_DTYPES[draw(st.sampled_from(sorted(wire.TORCH_DTYPES)))]
    generator = torch.Generator().manual_seed(draw(seeds))
    shape = draw(shapes)
    tensor = (torch.randn(shape, generator=generator, dtype=torch.float64) * 100).to(dtype)
    if tensor.is_floating_point() and tensor.numel():
        tensor.view(-1)[0] = draw(st.sampled_from([-0.0, math.nan, math.inf, -math.inf, 1.0]))
    layout = draw(st.sampled_from(["plain", "transposed", "strided", "expanded", "grad", "conjugate"]))
    if layout == "transposed" and tensor.ndim > 1:
        return tensor.transpose(0, -1)
    if layout == "strided" and tensor.ndim:
        return tensor[..., ::2]
    if layout == "expanded":
        return tensor[None].expand(3, *tensor.shape)
    if layout == "grad" and tensor.is_floating_point():
        return tensor.requires_grad_()
    return tensor.conj() if layout == "conjugate" else tensor


scalars = st.one_of(
    st.none(), st.booleans(), st.integers(), st.integers(-(10**300), 10**300), st.floats(), st.text(), st.binary()
)
keys = st.recursive(
    st.one_of(st.integers(), st.text(), st.binary(), st.booleans()), lambda inner: st.tuples(inner, inner), max_leaves=4
)
leaves = st.one_of(
    scalars,
    st.complex_numbers(),
    st.sampled_from(list(wire.TORCH_DTYPES.values())),
    st.slices(10),
    st.sets(keys, max_size=4),
    st.frozensets(keys, max_size=4),
    arrays(),
    tensors(),
)
values = st.recursive(
    leaves,
    lambda inner: st.one_of(
        st.lists(inner, max_size=4),
        st.lists(inner, max_size=4).map(tuple),
        st.dictionaries(keys, inner, max_size=4),
    ),
    max_leaves=12,
)


@QUICK
@given(values)
def test_everything_in_the_closed_set_comes_out_as_it_went_in(value: Any) -> None:
    assert identical(there_and_back(value), value)


@pytest.mark.parametrize("dtype", wire.TORCH_DTYPES.values(), ids=str)
@pytest.mark.parametrize("shape", [(), (0,), (3, 0, 2), (1, 1), (2, 3, 1, 2)])
def test_every_dtype_in_every_kind_of_shape(dtype: torch.dtype, shape: tuple[int, ...]) -> None:
    tensor = torch.ones(shape).to(dtype)
    assert identical(there_and_back(tensor), tensor)


def test_signs_of_zero_and_patterns_of_nan_survive() -> None:
    patterns = torch.tensor([0x7FC0, 0x7F81, -0x8000, -0x7F], dtype=torch.int16).view(torch.bfloat16)
    assert bits(there_and_back(patterns)) == bits(patterns)
    assert math.copysign(1, there_and_back(-0.0)) == -1
    assert math.isnan(there_and_back([math.nan])[0])


def test_what_comes_out_is_a_copy_that_may_be_changed() -> None:
    tensor, array = torch.ones(3), np.ones(3)
    other_tensor, other_array = there_and_back((tensor, array))
    other_tensor += 1
    other_array += 1
    assert tensor.sum() == 3
    assert array.sum() == 3


def test_a_view_takes_only_itself_along() -> None:
    """A row of a table must not carry the table, where an expected value may lie."""
    table = torch.zeros(1000, 10, dtype=torch.float64)
    assert len(wire.encode(table[3], refuse)) < 200


@pytest.mark.parametrize(
    ("value", "plain"),
    [
        (torch.nn.Parameter(torch.ones(2)), torch.ones(2)),
        (np.arange(3, dtype=">i4"), np.arange(3, dtype="<i4")),
        (np.float32(0.5), 0.5),
        (np.bool_(True), True),
        (torch.Size([2, 3]), (2, 3)),
        (range(3), [0, 1, 2]),
        (bytearray(b"ab"), b"ab"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_near_relatives_come_out_plain(value: Any, plain: Any) -> None:
    assert identical(there_and_back(value), plain)


class Number(int):
    pass


class Row(torch.Tensor):
    pass


class Table(np.ndarray[Any, Any]):
    pass


class Mapping(dict[str, int]):
    pass


@pytest.mark.parametrize(
    "value",
    [
        *(Number(1), object(), print, iter([]), torch.ones(2).as_subclass(Row), np.ones(2).view(Table), Mapping(a=1)),
        *(torch.ones(2).to_sparse(), torch.ones(2, device="meta"), np.array(["a"]), np.array([None])),
    ],
    ids=["int", "object", "function", "iterator", "tensor", "array", "dict", "sparse", "meta", "texts", "objects"],
)
def test_strangers_are_not_taken_for_what_they_resemble(value: Any) -> None:
    with pytest.raises(TypeError, match="outside the closed set"):
        wire.encode([value], refuse)


def nested(depth: int) -> list[Any]:
    value: list[Any] = []
    for _ in range(depth):
        value = [value]
    return value


@pytest.mark.parametrize(
    "value",
    [
        nested(wire.MAX_DEPTH + 1),
        nested(10_000),
        [[]] * wire.MAX_CONTAINERS,
        [0] * (wire.MAX_ELEMENTS + 1),
        "x" * (wire.MAX_HEADER + 1),
        bytes(wire.MAX_BODY + 1),
        10**5000,
        torch.ones([1] * (wire.MAX_DIMS + 1)),
        torch.ones(1).expand(10**11),
        np.broadcast_to(np.ones(1), 10**11),
        set(range(wire.MAX_KEYS + 1)),
        dict.fromkeys(range(wire.MAX_KEYS + 1)),
    ],
    ids=[
        "deep",
        "deeper",
        "containers",
        "elements",
        "text",
        "bytes",
        "digits",
        "dimensions",
        "tensor",
        "array",
        "set",
        "dictionary",
    ],
)
def test_what_is_too_large_is_refused_by_the_sender(value: Any) -> None:
    with pytest.raises(wire.TooLarge):
        wire.encode(value, refuse)


def test_large_but_honest_values_cross() -> None:
    for value in (
        nested(wire.MAX_DEPTH - 1),
        list(range(500_000)),
        {str(i): i for i in range(90_000)},
        {i: b"x" for i in range(50_000)},
        {(a, b) for a in range(200) for b in range(200)},
        torch.zeros(8 << 20, dtype=torch.uint8),
    ):
        assert identical(there_and_back(value), value)


# -- what nobody encoded -------------------------------------------------------------------------------------------

MALFORMED = {
    "nothing": b"",
    "a short prefix": b"\0\0\0",
    "a header cut off": frame(["l", 1])[:-1],
    "bytes behind the end": frame(["l", 1]) + b"x",
    "bytes that no value claims": frame(1, b"x"),
    "a giant announcement": wire.PREFIX.pack(2**32 - 1, 2**32 - 1),
    "no JSON": frame(b"{]"),
    "not UTF-8": frame(b'"\xff"'),
    "brackets": frame(b"[" * 90_000),
    "many lists": frame(b"[" + b"[]," * wire.MAX_CONTAINERS + b"[]]"),
    "many numbers": frame(b'["l"' + b",1" * (wire.MAX_ELEMENTS + 1) + b"]"),
    "a number of many digits": frame(b"1" * 5000),
    "an object": frame({"a": 1}),
    "an empty node": frame([]),
    "a node without a tag": frame([1, 2]),
    "an unknown tag": frame(["?", 1]),
    "a tensor without data": frame(["T", "float32", [2]]),
    "a tensor of an unknown dtype": frame(["T", "object", [1]], b"\0" * 8),
    "an array of an unknown dtype": frame(["A", "O", [1]], b"\0" * 8),
    "a tensor of a negative size": frame(["T", "uint8", [-1, -1]], b"\0"),
    "a tensor of a broken size": frame(["T", "uint8", [1.0]], b"\0"),
    "a tensor of a true size": frame(["T", "uint8", [True]], b"\0"),
    "a tensor of too many dimensions": frame(["T", "uint8", [1] * 9], b"\0"),
    "an empty tensor of a giant shape": frame(["T", "uint8", [0, 2**31 - 1, 2**31 - 1, 2**31 - 1]]),
    "an empty array of a giant shape": frame(["A", "uint8", [0, 2**31 - 1, 2**31 - 1, 2**31 - 1]]),
    "a tensor of a giant shape": frame(["T", "uint8", [2**31 - 1] * 8], b"\0"),
    "a shape of nodes": frame(["T", "uint8", [["l"]]], b"\0"),
    "a dtype of a node": frame(["D", ["l"]]),
    "bytes of a negative length": frame(["b", -1], b"x"),
    "bytes without a length": frame(["b"]),
    "half a complex number": frame(["c", 1.0]),
    "a complex number of texts": frame(["c", "1", "2"]),
    "a slice of two": frame(["S", 1, 2]),
    "a set of lists": frame(["s", ["l", 1]]),
    "a set of tuples of lists": frame(["s", ["t", ["l", 1]]]),
    "a key without a value": frame(["d", 1]),
    "the same key twice": frame(["d", 1, 2, 1, 3]),
    "the same key in two types": frame(["d", 1, 2, 1.0, 3]),
    "a list for a key": frame(["d", ["l"], 1]),
    "too deep": frame(b'["l",' * 50 + b"1" + b"]" * 50),
    "colliding numbers": frame(["s", *(k * (2**61 - 1) for k in range(20_000))]),
    "colliding keys": frame(["d", *(n for k in range(20_000) for n in (k * (2**61 - 1), 0))]),
    "colliding tuples": frame(["s", *(["t", 0, k * (2**61 - 1)] for k in range(20_000))]),
    "many keys in many sets": frame(["l", *(["s", *range(k, k + 700)] for k in range(100))]),
}


@pytest.mark.parametrize("data", MALFORMED.values(), ids=MALFORMED)
def test_malformed_frames_are_refused(data: bytes) -> None:
    with pytest.raises(wire.WireError):
        wire.decode(data, unknown)


def test_the_worst_headers_stay_small() -> None:
    """What a frame becomes is bounded by a small multiple of what it may be."""
    worst = frame(b'["l"' + b',["l"]' * (wire.MAX_CONTAINERS - 1) + b",1" * 800_000 + b"]")
    refused = frame(b'["l"' + b',["l"]' * 1_000_000 + b"]")
    tracemalloc.start()
    try:
        wire.decode(worst, unknown)
        with pytest.raises(wire.WireError):
            wire.decode(refused, unknown)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 128 << 20


def decode_or_refuse(data: bytes) -> None:
    with suppress(wire.WireError):
        wire.decode(data, unknown)


@QUICK
@given(st.binary(max_size=200))
def test_arbitrary_bytes_raise_nothing_but_a_wire_error(data: bytes) -> None:
    decode_or_refuse(data)
    decode_or_refuse(frame(data))


nodes = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=3), st.sampled_from("ltdTA?")),
    lambda inner: st.lists(inner, max_size=5).flatmap(
        lambda items: st.sampled_from("ltsfdbcSDTA").map(lambda tag: [tag, *items])
    ),
    max_leaves=20,
)
arrays_of_any_kind = st.tuples(
    st.sampled_from(["T", "A"]),
    st.sampled_from([*wire.TORCH_DTYPES, *wire.NUMPY_DTYPES, "object", ""]),
    st.lists(st.sampled_from([-1, 0, 1, 2, 3, 2**31 - 1, 2**31, 2**62, 1.0, True]), max_size=9),
).map(list)


@QUICK
@given(st.one_of(nodes, arrays_of_any_kind), st.binary(max_size=64))
def test_arbitrary_headers_raise_nothing_but_a_wire_error(node: Any, body: bytes) -> None:
    decode_or_refuse(frame(node, body))


@QUICK
@given(values, st.lists(st.tuples(st.integers(0, 10_000), st.integers(0, 255)), min_size=1, max_size=4), st.booleans())
def test_damaged_frames_raise_nothing_but_a_wire_error(value: Any, damage: list[tuple[int, int]], cut: bool) -> None:
    data = bytearray(wire.encode(value, refuse))
    for place, byte in damage:
        data[place % len(data)] = byte
    decode_or_refuse(bytes(data[: damage[0][0] % len(data)]) if cut else bytes(data))


# -- the states of random generators, which cross as text ----------------------------------------------------------


@pytest.mark.parametrize("drawn", [0, 1, 623, 624, 625, 2000])
def test_a_generator_goes_on_where_it_was(drawn: int) -> None:
    generator, other = torch.Generator().manual_seed(7), torch.Generator()
    torch.randint(0, 9, (drawn,), generator=generator)
    restore_generator(other, generator_state(generator))
    assert torch.equal(torch.randn(700, generator=other), torch.randn(700, generator=generator))


def forged_torch_state(left: int, seeded: int, place: int) -> str:
    state = bytearray(torch.Generator().manual_seed(7).get_state().numpy().tobytes())
    struct.pack_into("=iiQ", state, 8, left, seeded, place)
    return "torch:" + state.hex()


@pytest.mark.parametrize(
    "state",
    [
        *("", "torch:", "torch:zz", "torch:00", "numpy:{}", "other:00"),
        *(forged_torch_state(*state) for state in ((624, 1, 624), (2, 1, 624), (624, 1, 2), (0, 1, 0), (-1, 1, 0))),
        *(forged_torch_state(*state) for state in ((1, 1, 2**63), (2**31 - 1, 1, 0), (1, 0, 0))),
    ],
)
def test_forged_torch_states_are_refused(state: str) -> None:
    """A place and a count that fit singly, but not together, would draw from memory behind the table."""
    with pytest.raises(wire.WireError):
        restore_generator(torch.Generator(), state)


@pytest.mark.parametrize(
    "change",
    [
        {"bit_generator": "MT19937"},
        {"state": {"state": 10**60, "inc": 1}},
        {"state": {"state": -1, "inc": 1}},
        {"state": {}},
        {"state": None},
        {"has_uint32": 10**30},
        {"uinteger": -1},
        {"uinteger": "x"},
    ],
    ids=str,
)
def test_forged_numpy_states_are_refused(change: dict[str, Any]) -> None:
    generator = np.random.default_rng(7)
    state = {**json.loads(generator_state(generator).removeprefix("numpy:")), **change}
    with pytest.raises(wire.WireError):
        restore_generator(generator, "numpy:" + json.dumps(state))
