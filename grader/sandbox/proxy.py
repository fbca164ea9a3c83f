"""The trusted side of the wire: looks like the student's module, speaks by value.

Attribute access gives callables that send requests; what cannot cross stays with the agent behind a `Handle`.
"""

from __future__ import annotations

import builtins
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, Protocol

import numpy as np
import torch

from grader.sandbox import wire
from grader.sandbox.agent import Agent, CallBack, Frame, generator_state, restore_generator
from grader.verdict import Verdict

MAX_CALLBACKS = 100_000
MAX_NESTING = 8
MAX_RECEIVED = 128 << 20
"""Bytes that may come from the student's side during one test: a test may keep all of them."""
MAX_READING = 5.0
"""CPU seconds this side may spend on decoding them."""
MAX_LINE = 99_999
"""Line numbers above are dropped: a number is text that a student could choose, with hidden inputs in it."""

_USED_UP = {
    "memory": "it needs more memory than it may",
    "output": "it returned, printed or wrote more than it may",
}
"""The words are this side's own: a student reads them, and the other side has seen hidden inputs."""

_MAPPED = frozenset(
    (
        *("ArithmeticError", "AssertionError", "AttributeError", "BufferError", "EOFError", "Exception"),
        *("FileNotFoundError", "FloatingPointError", "ImportError", "IndentationError", "IndexError", "KeyError"),
        *("LookupError", "ModuleNotFoundError", "NameError", "NotImplementedError", "OSError", "OverflowError"),
        *("PermissionError", "RecursionError", "RuntimeError", "StopIteration", "SyntaxError", "TabError"),
        *("TimeoutError", "TypeError", "UnboundLocalError", "ValueError", "ZeroDivisionError"),
    )
)


class StudentError:
    """Marks an exception that student code raised; mixed with the built-in type of the same name."""

    names: tuple[str, ...] = ()
    """The names of the exception's class and its bases, the class first."""
    text: str = ""
    frames: tuple[tuple[int, str, str], ...] = ()
    """Line number, function and text of the student's own frames."""

    def __str__(self) -> str:
        return self.text


class SandboxEnd(BaseException):
    """The student's process is over, or its reply cannot be used. A BaseException, so that no test swallows it."""

    def __init__(self, verdict: Verdict, sentence: str, exit_code: int | None = None) -> None:
        super().__init__(sentence)
        self.verdict, self.sentence, self.exit_code = verdict, sentence, exit_code


class Transport(Protocol):
    """Carries one request to an agent and serves callbacks until its reply is there."""

    def exchange(self, request: bytes, serve: CallBack) -> Frame:
        """Give the reply to one request."""

    def end(self) -> object:
        """Give the agent up: it does not keep to the protocol."""


class LocalTransport:
    """An agent in this very process: the student's desk."""

    def __init__(self, agent: Agent) -> None:
        self.agent = agent

    def exchange(self, request: bytes, serve: CallBack) -> Frame:
        return self.agent.handle(request, serve)

    def end(self) -> None:
        """Nothing to end: the agent is an object of this process."""


@dataclass
class Trace:
    """The exchanges of one test, as raw frames: what was asked, what came back. Only the last ones are kept."""

    keep: int = 48
    keep_bytes: int = 4 << 20
    count: int = 0
    exchanges: list[tuple[bytes, Frame]] = field(default_factory=list)
    _bytes: int = 0

    def add(self, request: bytes, reply: Frame) -> None:
        self.count += 1
        if len(reply) > self.keep_bytes:  # nothing is like it: an empty frame has no content to compare
            reply = b""
        self.exchanges.append((request, reply))
        self._bytes += len(request) + len(reply)
        while len(self.exchanges) > self.keep or (self._bytes > self.keep_bytes and len(self.exchanges) > 1):
            dropped = self.exchanges.pop(0)
            self._bytes -= len(dropped[0]) + len(dropped[1])


class Link:
    """One conversation with an agent: numbers requests, resolves handles, serves callbacks."""

    def __init__(self, transport: Transport) -> None:
        self.transport = transport
        self.trace: Trace | None = None
        self._number = 0
        self._callables: list[Any] = []
        self._depth = 0
        self._begin: tuple[int, list[str]] | None = None
        self._generators: list[Any] = []
        self._forbidden: tuple[str, ...] = ()
        self._received = 0
        self._reading = 0.0

    def request(self, kind: str, *parts: Any) -> Any:
        """Send one request and give its value. Raises the student's exception or SandboxEnd."""
        self._number += 1
        number = self._number
        outer, self._generators = self._generators, []
        begin, self._begin = self._begin, None
        frame = wire.encode((number, begin, kind, *parts), self._opaque)
        generators, self._generators = self._generators, outer
        reply = self.transport.exchange(frame, self._serve)
        if self.trace is not None:
            self.trace.add(frame, reply)
        try:
            value, failure = self._read(reply, number, generators)
        except Exception:  # whatever a malformed answer leads to
            self.transport.end()
            raise SandboxEnd(Verdict.PROTOCOL, "its answer did not follow the protocol") from None
        if failure is not None:
            raise failure
        return value

    def _read(self, reply: Frame, number: int, generators: list[Any]) -> tuple[Any, BaseException | None]:
        answer = self._decode(reply)
        if type(answer) is not tuple or len(answer) < 3 or type(answer[0]) is not int or type(answer[1]) is not str:
            raise wire.WireError("a reply is malformed")
        if answer[0] != number:
            raise wire.WireError("a reply does not answer its request")
        if answer[1] != "ok":
            return None, self._failure(answer[1], answer[2])
        for generator, state in zip(generators, answer[3], strict=True):
            restore_generator(generator, state)
        return answer[2], None

    def begin(self, seed: int, forbidden: tuple[str, ...]) -> None:
        """Start a test: fresh seeds, no handles, no callables of the test before. Travels with the next request."""
        self._callables.clear()
        self._forbidden, self._received, self._reading = forbidden, 0, 0.0
        self._begin = (seed, list(forbidden))

    def _decode(self, frame: Frame) -> Any:
        """Decode what came from the student's side. Raises WireError, or SandboxEnd when a test has had enough."""
        started = time.process_time()
        self._received += len(frame)
        if self._received <= MAX_RECEIVED and self._reading <= MAX_READING:
            value = wire.decode(frame, self._resolve)
            self._reading += time.process_time() - started
            return value
        self.transport.end()
        raise SandboxEnd(Verdict.OUTPUT, "it returned more than a test may take")

    def _failure(self, status: str, detail: Any) -> BaseException:
        local = self.transport.agent.exception if isinstance(self.transport, LocalTransport) else None
        if status == "forbidden" and detail in self._forbidden:
            return SandboxEnd(Verdict.FORBIDDEN, f"it calls {detail}, which this exercise asks you to write")
        if status in _USED_UP:
            return SandboxEnd(Verdict(status), str(detail) if local is not None else _USED_UP[status])
        if status != "error" or type(detail) is not dict:
            raise wire.WireError("an unknown status")
        if local is not None:
            return local  # at the desk: the exception itself, with its traceback
        return student_error(detail)

    # -- what cannot cross -----------------------------------------------------------------------------------------

    def _opaque(self, value: Any) -> list[Any]:
        if isinstance(value, Handle):
            return ["h", value._number]
        if isinstance(value, (torch.Generator, np.random.Generator)):
            self._generators.append(value)
            return ["G", generator_state(value)]
        if len(self._callables) >= MAX_CALLBACKS:
            raise SandboxEnd(Verdict.PROTOCOL, "more callables crossed than may")
        if callable(value):
            self._callables.append(value)
            return ["k", len(self._callables) - 1, _attributes(value)]
        if hasattr(value, "__next__"):
            self._callables.append(value)
            return ["i", len(self._callables) - 1]
        raise TypeError(f"a test may not pass a {type(value).__name__} to student code")

    def _resolve(self, node: list[Any]) -> Any:
        if node[0] == "h" and len(node) == 4 and type(node[1]) is int:
            return Handle(self, node[1], str(node[2])[:100])
        raise wire.WireError("an unknown tag")

    def _serve(self, frame: Frame) -> bytes:
        message = self._decode(frame)
        if type(message) is not tuple or len(message) != 5 or message[1] != "callback" or self._depth >= MAX_NESTING:
            raise wire.WireError("a callback is malformed")
        number, _, name, args, kwargs = message
        if type(number) is not int or not 0 <= number < len(self._callables):
            raise wire.WireError("a callback names no callable")
        if type(args) not in (tuple, list) or type(kwargs) is not dict or not all(type(k) is str for k in kwargs):
            raise wire.WireError("a callback's arguments are malformed")
        self._depth += 1
        try:
            return wire.encode(self._run_callable(self._callables[number], name, args, kwargs), self._opaque)
        finally:
            self._depth -= 1

    def _run_callable(self, function: Any, name: Any, args: Any, kwargs: Any) -> tuple[str, Any]:
        try:
            if name == "__next__" and hasattr(function, "__next__"):
                return "ok", next(function)
            return "ok", function(*args, **kwargs)
        except StopIteration:
            return "stop", None
        except (SandboxEnd, KeyboardInterrupt):
            raise
        except Exception as error:
            if isinstance(error, StudentError):
                return "error", str(error)
            # neutral words: the message may quote what the test knows
            return "error", "the callable you were given refused these arguments"


class Proxy:
    """Looks like the student's module: `exercises.softmax(x)`, `exercises.run(driver, ...)`."""

    def __init__(self, link: Link) -> None:
        self._link = link

    def __getattr__(self, name: str) -> RemoteFunction:
        if name.startswith("_"):  # printers and copiers look for such names; a test never does
            raise AttributeError(name)
        return RemoteFunction(self._link, name)

    def run(self, driver: Any, *args: Any, **kwargs: Any) -> Any:
        """Run a driver beside the student's module and give the plain data it returns."""
        return self._link.request("run", driver.name, driver.source, args, kwargs)

    def value(self, name: str) -> Any:
        """Give a constant of the student's module."""
        return self._link.request("get", None, name)


class RemoteFunction:
    """A function or class of the student's module, by name."""

    def __init__(self, link: Link, name: str) -> None:
        self._link, self.__name__ = link, name

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self._link.request("call", None, self.__name__, args, kwargs, False)

    def observed(self, *args: Any, **kwargs: Any) -> tuple[Any, Any, Any]:
        """Call, and give the result with the arguments as they are afterwards."""
        value, args_after, kwargs_after = self._link.request("call", None, self.__name__, args, kwargs, True)
        return value, args_after, kwargs_after

    def __repr__(self) -> str:
        return self.__name__


class Handle:
    """An object that stays beside the student's code: methods and attributes are reached by name."""

    _link: Link
    _number: int
    _type: str

    def __init__(self, link: Link, number: int, type_name: str) -> None:
        self.__dict__.update(_link=link, _number=number, _type=type_name)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        return self._link.request("get", self, name)

    def __setattr__(self, name: str, value: Any) -> None:
        self._link.request("set", self, name, value)

    def observed(self, *args: Any, **kwargs: Any) -> tuple[Any, Any, Any]:
        """Call, and give the result with the arguments as they are afterwards."""
        value, args_after, kwargs_after = self._link.request("call", self, None, args, kwargs, True)
        return value, args_after, kwargs_after

    def _method(self, name: str, *args: Any) -> Any:
        return self._link.request("call", self, name, args, {}, False)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self._link.request("call", self, None, args, kwargs, False)

    def __bool__(self) -> bool:
        return True

    def __len__(self) -> int:
        try:
            return int(self._method("__len__"))
        except AttributeError:  # list() asks for a length and wants to hear it this way that there is none
            raise TypeError(f"{self!r} has no length") from None

    def __getitem__(self, key: Any) -> Any:
        return self._method("__getitem__", key)

    def __contains__(self, item: Any) -> bool:
        return bool(self._method("__contains__", item))

    def __iter__(self) -> Iterator[Any]:
        iterator = self._method("__iter__")
        return iterator if isinstance(iterator, Handle) else iter(iterator)

    def __next__(self) -> Any:
        return self._method("__next__")

    def __repr__(self) -> str:
        return f"<a {self._type}>"


@lru_cache(maxsize=256)
def _error_class(name: str) -> type[BaseException]:
    return type(name, (StudentError, getattr(builtins, name)), {})


def student_error(detail: dict[str, Any]) -> BaseException:
    """Give an exception of the nearest known built-in type. Raises WireError if the description is malformed."""
    names, text, frames = detail["names"], detail["text"], detail["frames"]
    if type(names) is not list or type(text) is not str or type(frames) is not list:
        raise wire.WireError("an exception is malformed")
    known = next((name for name in names if type(name) is str and name in _MAPPED), "Exception")
    error = _error_class(known)(text[:4096])
    assert isinstance(error, StudentError)
    error.names = tuple(str(name)[:100] for name in names[:20])
    error.text = text[:4096]
    error.frames = tuple(_frame(*frame) for frame in frames[:20])
    return error


def _frame(line: Any, name: Any, code: Any) -> tuple[int, str, str]:
    known = type(line) is int and 0 < line <= MAX_LINE
    return line if known else 0, str(name)[:100], str(code)[:200]


def _attributes(function: Callable[..., Any]) -> list[Any]:
    attributes = getattr(function, "attributes", None)
    return _pairs(attributes) if isinstance(attributes, dict) else []


def _pairs(data: dict[str, Any]) -> list[Any]:
    return [[key, _pairs(value) if isinstance(value, dict) else value] for key, value in data.items()]
