"""The codec between trusted and untrusted code: a closed set of exact types, by value, bounded before it is built.

A frame is a JSON header and raw buffers. JSON because its parser is C code with a small language; its size and its
count of containers are bounded before it runs, because 64 MiB of empty lists would otherwise become 4.8 GiB of objects.
Composite values are JSON lists that begin with a tag; tensors and bytes travel in the buffers, in order of appearance.
"""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Callable, Collection, Iterable, Sequence
from typing import Any

import numpy as np
import torch

PREFIX = struct.Struct("<II")
"""Length of the header and of the buffers, in bytes."""

MAX_HEADER = 8 << 20
MAX_BODY = 64 << 20
MAX_CONTAINERS = 100_000
MAX_ELEMENTS = 1_000_000
MAX_DEPTH = 40
MAX_DIMS = 8
MAX_SIZE = 1 << 31
MAX_STRIDES = 1 << 58
MAX_KEYS = 65_536
"""Keys of dictionaries and members of sets in one frame. With chosen numbers each insertion can be made to meet all
earlier ones. Texts and bytes are not counted: even with a known seed their hashes must be searched for, bit by bit."""
MAX_SAME_HASH = 64

TORCH_DTYPES: dict[str, torch.dtype] = {
    name: getattr(torch, name)
    for name in (
        *("bool", "uint8", "int8", "int16", "int32", "int64"),
        *("float16", "bfloat16", "float32", "float64", "complex64", "complex128"),
    )
}
_TORCH_NAMES = {dtype: name for name, dtype in TORCH_DTYPES.items()}
_TORCH_SIZES = {name: dtype.itemsize for name, dtype in TORCH_DTYPES.items()}
NUMPY_DTYPES: dict[str, np.dtype[Any]] = {
    name: np.dtype(name)
    for name in (
        *("bool", "uint8", "int8", "uint16", "int16", "uint32", "int32", "uint64", "int64"),
        *("float16", "float32", "float64", "complex64", "complex128"),
    )
}
_TO_JSON = json.JSONEncoder(separators=(",", ":")).encode
_FROM_JSON = json.JSONDecoder().decode
_PLAIN = frozenset((type(None), bool, int, float, str))


class WireError(Exception):
    """A frame that breaks the rules: never the fault of honest code."""


class TooLarge(Exception):
    """A value that honest code may make but that is larger than may cross."""


Opaque = Callable[[Any], "list[Any]"]
"""Gives the node of a value outside the closed set, or raises TypeError."""

Resolve = Callable[["list[Any]"], Any]
"""Gives the value of a node that the codec does not know, or raises WireError."""


def encode(value: Any, opaque: Opaque) -> bytes:
    """Give the frame of `value`. Raises TooLarge, or what `opaque` raises."""
    buffers: list[bytes] = []
    try:
        node = _encode(value, buffers, opaque, 0)
        header = _TO_JSON(node).encode("ascii")
    except RecursionError:
        raise TooLarge("the value is nested too deeply") from None
    except ValueError as error:  # an int of more digits than Python converts
        raise TooLarge(str(error)) from None
    body = sum(map(len, buffers))
    containers = max(header.count(b"["), header.count(b"{"))  # braces stand in texts alone, but are counted alike
    if len(header) > MAX_HEADER or body > MAX_BODY or containers > MAX_CONTAINERS:
        raise TooLarge(f"the value needs {(len(header) + body) >> 20} MiB, more than may be returned")
    if header.count(b",") > MAX_ELEMENTS:
        raise TooLarge("the value has more elements than may be returned; use a tensor")
    return b"".join((PREFIX.pack(len(header), body), header, *buffers))


def decode(frame: bytes | bytearray | memoryview, resolve: Resolve) -> Any:
    """Give the value of a frame. Raises WireError on whatever is not canonical."""
    view = memoryview(frame)
    if len(view) < PREFIX.size:
        raise WireError("a frame is shorter than its prefix")
    header_length, body_length = PREFIX.unpack_from(view)
    check_lengths(header_length, body_length)
    if len(view) != PREFIX.size + header_length + body_length:
        raise WireError("a frame's length differs from what its prefix says")
    header = bytes(view[PREFIX.size : PREFIX.size + header_length])
    if max(header.count(b"["), header.count(b"{")) > MAX_CONTAINERS or header.count(b",") > MAX_ELEMENTS:
        raise WireError("a header has more containers or elements than allowed")
    try:
        node = _FROM_JSON(str(header, "ascii"))
    except (ValueError, RecursionError):
        raise WireError("a header is not valid JSON") from None
    reader = _Reader(view[PREFIX.size + header_length :], resolve)
    value = reader.value(node, 0)
    reader.finish()
    return value


def check_lengths(header: int, body: int) -> None:
    """Refuse a frame by its prefix, before a byte of it is allocated. Raises WireError."""
    if header > MAX_HEADER or body > MAX_BODY:
        raise WireError("a frame is larger than allowed")


# -- encoding ------------------------------------------------------------------------------------------------------


def _encode(value: Any, buffers: list[bytes], opaque: Opaque, depth: int) -> Any:
    kind = type(value)
    if kind in _PLAIN:
        return value
    if depth > MAX_DEPTH:
        raise TooLarge("the value is nested too deeply")
    if kind is torch.Tensor or kind is torch.nn.Parameter:
        return _encode_tensor(value, buffers, opaque)
    if kind is list or kind is tuple:
        return _encode_items("l" if kind is list else "t", value, buffers, opaque, depth)
    if kind is np.ndarray and value.dtype.name in NUMPY_DTYPES:
        _check_shape(value.shape, value.dtype.itemsize)
        # tobytes is C order whatever the strides were; astype makes a foreign byte order native
        buffers.append(value.astype(value.dtype.newbyteorder("="), copy=False).tobytes())
        return ["A", value.dtype.name, list(value.shape)]
    if isinstance(value, dict) and _is_plain_dict(kind):
        items = [part for item in value.items() for part in item]
        _check_count(items[::2])
        return _encode_items("d", items, buffers, opaque, depth)
    return _encode_rare(value, kind, buffers, opaque, depth)


def _encode_items(tag: str, items: Iterable[Any], buffers: list[bytes], opaque: Opaque, depth: int) -> list[Any]:
    if _PLAIN.issuperset(map(type, items)):
        return [tag, *items]
    return [tag, *[_encode(item, buffers, opaque, depth + 1) for item in items]]


def _encode_tensor(tensor: torch.Tensor, buffers: list[bytes], opaque: Opaque) -> list[Any]:
    name = _TORCH_NAMES.get(tensor.dtype)
    if name is None or tensor.layout is not torch.strided or tensor.device.type != "cpu" or tensor.is_nested:
        return opaque(tensor)
    _check_shape(tensor.shape, tensor.dtype.itemsize)
    plain = tensor.detach().resolve_conj().resolve_neg().contiguous()
    buffers.append((plain.view(torch.int16) if name == "bfloat16" else plain).numpy().tobytes())
    return ["T", name, list(tensor.shape)]


def _encode_rare(value: Any, kind: type, buffers: list[bytes], opaque: Opaque, depth: int) -> list[Any] | Any:
    if kind is bytes or kind is bytearray:
        buffers.append(bytes(value))
        return ["b", len(value)]
    if kind is set or kind is frozenset:
        _check_count(value)
        return _encode_items("s" if kind is set else "f", list(value), buffers, opaque, depth)
    if kind is complex:
        return ["c", value.real, value.imag]
    if kind is torch.Size or kind is range or (isinstance(value, tuple) and hasattr(kind, "_fields")):
        return _encode_items("l" if kind is range else "t", tuple(value), buffers, opaque, depth)
    if isinstance(value, np.generic) and value.dtype.name in NUMPY_DTYPES:
        return _encode(value.item(), buffers, opaque, depth)
    if kind is torch.dtype and value in _TORCH_NAMES:
        return ["D", _TORCH_NAMES[value]]
    if kind is torch.device:
        return str(value)
    if kind is slice:
        return ["S", *(_encode(part, buffers, opaque, depth + 1) for part in (value.start, value.stop, value.step))]
    return opaque(value)


def _check_shape(shape: Sequence[int], itemsize: int) -> None:
    """Refuse a tensor before it is written out: one that was expanded may be small until then."""
    if len(shape) > MAX_DIMS or any(size >= MAX_SIZE for size in shape):
        raise TooLarge(f"a tensor of {len(shape)} dimensions; {MAX_DIMS} at most may cross")
    if math.prod(shape) * itemsize > MAX_BODY:
        raise TooLarge(f"a tensor of more than {MAX_BODY >> 20} MiB")


def _check_count(keys: Collection[Any]) -> None:
    if len(keys) > MAX_KEYS and len(_choosable(keys)) > MAX_KEYS:
        raise TooLarge(f"a dictionary or set of more than {MAX_KEYS} keys that are not texts")


def _choosable(keys: Iterable[Any]) -> list[Any]:
    return [key for key in keys if type(key) is not str and type(key) is not bytes]


def _is_plain_dict(kind: type) -> bool:
    # OrderedDict, defaultdict and Counter are dictionaries in all that a test compares; a student's subclass is not.
    return kind is dict or kind.__module__ == "collections"


# -- decoding ------------------------------------------------------------------------------------------------------


class _Reader:
    def __init__(self, body: memoryview, resolve: Resolve) -> None:
        self._body, self._at, self._resolve = body, 0, resolve
        self._keys = 0

    def finish(self) -> None:
        if self._at != len(self._body):
            raise WireError("a frame has bytes that no value claims")

    def value(self, node: Any, depth: int) -> Any:
        if type(node) is not list:
            if type(node) in _PLAIN:
                return node
            raise WireError("a header holds a JSON object")
        if depth > MAX_DEPTH or not node or type(node[0]) is not str:
            raise WireError("a node has no tag, or is nested too deeply")
        read = _READERS.get(node[0])
        return self._resolve(node) if read is None else read(self, node, depth)

    def items(self, node: list[Any], depth: int) -> list[Any]:
        return [item if type(item) in _PLAIN else self.value(item, depth + 1) for item in node[1:]]

    def take(self, count: int) -> memoryview:
        end = self._at + count
        if end > len(self._body):
            raise WireError("a value claims more bytes than the frame has")
        part, self._at = self._body[self._at : end], end
        return part

    def list_(self, node: list[Any], depth: int) -> list[Any]:
        return self.items(node, depth)

    def tuple_(self, node: list[Any], depth: int) -> tuple[Any, ...]:
        return tuple(self.items(node, depth))

    def set_(self, node: list[Any], depth: int) -> set[Any]:
        return set(self._hashed(self.items(node, depth)))

    def frozenset_(self, node: list[Any], depth: int) -> frozenset[Any]:
        return frozenset(self._hashed(self.items(node, depth)))

    def dict_(self, node: list[Any], depth: int) -> dict[Any, Any]:
        parts = self.items(node, depth)
        if len(parts) % 2:
            raise WireError("a dictionary has a key without a value")
        result = dict(zip(self._hashed(parts[::2]), parts[1::2], strict=True))
        if len(result) != len(parts) // 2:
            raise WireError("a dictionary has the same key twice")
        return result

    def _hashed(self, keys: list[Any]) -> list[Any]:
        """Give the keys if a hash table of them is cheap to build."""
        risky = _choosable(keys)
        self._keys += len(risky)
        if self._keys > MAX_KEYS:
            raise WireError("a frame has more keys than allowed")
        try:
            hashes = sorted(map(hash, risky))
        except TypeError:
            raise WireError("a key cannot be hashed") from None
        if any(map(int.__eq__, hashes, hashes[MAX_SAME_HASH:])):
            raise WireError("many keys have the same hash")
        return keys

    def bytes_(self, node: list[Any], depth: int) -> bytes:
        return bytes(self.take(_natural(node, 1)))

    def complex_(self, node: list[Any], depth: int) -> complex:
        if len(node) != 3 or type(node[1]) is not float or type(node[2]) is not float:
            raise WireError("a complex number is malformed")
        return complex(node[1], node[2])

    def slice_(self, node: list[Any], depth: int) -> slice:
        if len(node) != 4:
            raise WireError("a slice is malformed")
        return slice(*self.items(node, depth))

    def dtype_(self, node: list[Any], depth: int) -> torch.dtype:
        dtype = TORCH_DTYPES.get(node[1]) if len(node) == 2 and type(node[1]) is str else None
        if dtype is None:
            raise WireError("an unknown dtype")
        return dtype

    def tensor(self, node: list[Any], depth: int) -> torch.Tensor:
        name, shape, count = self._array_header(node, _TORCH_SIZES)
        raw = bytearray(self.take(count * _TORCH_SIZES[name]))
        dtype = TORCH_DTYPES[name]
        if not count:
            return torch.empty(shape, dtype=dtype)  # frombuffer refuses an empty buffer
        if name == "bool":  # a byte that is neither 0 nor 1 is undefined behaviour in a bool tensor
            return (torch.frombuffer(raw, dtype=torch.uint8) != 0).reshape(shape)
        return torch.frombuffer(raw, dtype=dtype).reshape(shape)

    def array(self, node: list[Any], depth: int) -> np.ndarray[Any, Any]:
        name, shape, count = self._array_header(node, NUMPY_DTYPES)
        dtype = NUMPY_DTYPES[name]
        raw = bytearray(self.take(count * dtype.itemsize))
        if name == "bool":
            raw = bytearray(byte != 0 for byte in raw)
        flat: np.ndarray[Any, Any] = np.frombuffer(raw, dtype=dtype)
        return flat.reshape(shape)

    def _array_header(self, node: list[Any], known: dict[str, Any]) -> tuple[str, list[int], int]:
        if len(node) != 3 or type(node[1]) is not str or node[1] not in known or type(node[2]) is not list:
            raise WireError("a tensor's header is malformed")
        shape = node[2]
        if len(shape) > MAX_DIMS:
            raise WireError("a tensor has too many dimensions")
        count = 1
        for size in shape:
            if type(size) is not int or not 0 <= size < MAX_SIZE:
                raise WireError("a tensor's shape is malformed")
            count *= size
        if math.prod(max(size, 1) for size in shape) > MAX_STRIDES:  # torch and numpy count strides beside a size of 0
            raise WireError("a tensor's shape is malformed")
        return node[1], shape, count


_READERS: dict[str, Callable[[_Reader, list[Any], int], Any]] = {
    "l": _Reader.list_,
    "t": _Reader.tuple_,
    "s": _Reader.set_,
    "f": _Reader.frozenset_,
    "d": _Reader.dict_,
    "b": _Reader.bytes_,
    "c": _Reader.complex_,
    "S": _Reader.slice_,
    "D": _Reader.dtype_,
    "T": _Reader.tensor,
    "A": _Reader.array,
}


def _natural(node: list[Any], index: int) -> int:
    if len(node) <= index or type(node[index]) is not int or node[index] < 0:
        raise WireError("a length is malformed")
    return int(node[index])
