"""The student's side of the wire: holds one module and answers requests by name.

The same class serves the desk (in process) and the sandboxed child (behind a socket), so that both see the same rules.
It holds no test, no expected value and no score.
"""

from __future__ import annotations

import contextlib
import errno
import importlib
import io
import json
import linecache
import random
import struct
import sys
import traceback
import types
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch

from grader.sandbox import wire
from grader.sandbox.programs import run_here

Frame = bytes | bytearray | memoryview
CallBack = Callable[[Frame], Frame]

FIRST_READ = 1 << 14
"""Bytes asked for at first: nearly every frame is smaller, and a much larger buffer would be mapped and unmapped."""
MAX_HANDLES = 100_000
MAX_TEXT = 4096
MAX_FRAMES = 20
MAX_PRINTED = 1 << 20
_TWISTER = struct.Struct("=8xi4xQ")
"""Where torch's CPU generator keeps how many numbers are left in its table, and the place of the next."""
_TWISTER_SIZE = 624


class CallbackRefused(RuntimeError):
    """What student code sees when a callback of the test failed; the reason stays on the test's side."""


class ForbiddenCall(RuntimeError):
    """Student code called what the exercise asks it to write."""


class Agent:
    """Answer requests about one student module."""

    def __init__(self, module: types.ModuleType | None = None) -> None:
        self.module = module
        self.exception: BaseException | None = None
        """The exception behind the last error reply; at the desk it is raised as it is."""
        self._objects: list[Any] = []
        self._ids: dict[int, int] = {}
        self._drivers: dict[str, Callable[..., Any]] = {}
        self._call_back: CallBack | None = None
        self._guard = Guard(())
        self._printed = Printed()
        self._generators: list[Any] = []

    def handle(self, frame: Frame, call_back: CallBack) -> bytes:
        """Give the reply to one request; never raises but for what must stop the process itself."""
        self.exception = None  # its frames hold whatever the student's functions had in their hands
        outer, self._call_back = self._call_back, call_back
        generators, self._generators = self._generators, []
        number = -1
        try:
            number, begin, kind, *rest = wire.decode(frame, self._resolve)
            if begin is not None:
                self._begin(*begin)
            value = getattr(self, f"_on_{kind}")(*rest)
            states = [generator_state(generator) for generator in self._generators]
            return self._encode((number, "ok", value, states))
        except wire.TooLarge as error:
            self.exception = error
            return self._encode((number, "output", f"it returned too much: {error}"))
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # SystemExit too: a student's sys.exit() is one more wrong answer
            self.exception = error
            return self._encode((number, *self._failure(error)))
        finally:
            self._call_back, self._generators = outer, generators

    # -- requests --------------------------------------------------------------------------------------------------

    def _on_load(self, name: str, file: str, kind: str, source: bytes) -> None:
        text = notebook_source(source) if kind == "ipynb" else decode_source(source)
        module = types.ModuleType(name)
        module.__file__ = file
        # tracebacks quote the student's lines although the file need not exist here
        linecache.cache[file] = (len(text), None, text.splitlines(keepends=True), file)
        sys.modules[name] = module
        self.module = module
        with self._printed:
            exec(_compiled(text, file), module.__dict__)

    def _on_source(self, kind: str, source: bytes) -> str:
        return notebook_source(source) if kind == "ipynb" else decode_source(source)

    def _begin(self, seed: int, forbidden: list[str]) -> None:
        """Start a test: known seeds, nothing left of the test before."""
        random.seed(seed)
        np.random.seed(seed % (1 << 32))
        torch.default_generator.manual_seed(seed)  # torch.manual_seed also notes a traceback for each absent device
        self._objects.clear()
        self._ids.clear()
        self._guard = Guard(tuple(forbidden))
        self._printed.clear()

    def _on_call(self, target: Any, name: str | None, args: Any, kwargs: Any, observe: bool) -> Any:
        function = self._subject(target) if name is None else getattr(self._subject(target), name)
        with self._printed, self._guard.over(self.module):
            value = function(*args, **kwargs)
        return (value, args, kwargs) if observe else value

    def _on_get(self, target: Any, name: str) -> Any:
        return getattr(self._subject(target), name)

    def _on_set(self, target: Any, name: str, value: Any) -> None:
        setattr(self._subject(target), name, value)

    def _on_run(self, name: str, source: str, args: Any, kwargs: Any) -> Any:
        if source not in self._drivers:
            namespace: dict[str, Any] = {}
            exec(compile(source, "<driver>", "exec", dont_inherit=True), namespace)
            self._drivers[source] = namespace[name]
        with self._printed:
            return self._drivers[source](self.module, *args, **kwargs)

    def _on_program(self, program: str) -> dict[str, Any]:
        return run_here(program)

    def _subject(self, target: Any) -> Any:
        return self.module if target is None else target

    # -- what cannot cross -----------------------------------------------------------------------------------------

    def _encode(self, message: Any) -> bytes:
        return wire.encode(message, self._opaque)

    def _opaque(self, value: Any) -> list[Any]:
        key = id(value)
        if key not in self._ids:
            if len(self._objects) >= MAX_HANDLES:
                raise wire.TooLarge("more objects are alive than may be")
            self._ids[key] = len(self._objects)
            self._objects.append(value)  # keeps it alive, so that its id stays its own
        return ["h", self._ids[key], type(value).__name__[:100], callable(value)]

    def _resolve(self, node: list[Any]) -> Any:
        if node[0] == "h":
            return self._objects[node[1]]
        if node[0] == "k":
            attributes = {key: _as_attribute(value) for key, value in node[2]}
            return RemoteCallable(self, node[1], attributes)
        if node[0] == "i":
            return RemoteIterator(self, node[1])
        if node[0] == "G":
            generator = _make_generator(node[1])
            self._generators.append(generator)
            return generator
        raise wire.WireError(f"an unknown tag {node[0]!r}")

    def call_back(self, number: int, name: str, args: Any, kwargs: Any) -> Any:
        """Ask the test's side to run one of its callables. Raises CallbackRefused or StopIteration."""
        if self._call_back is None:
            raise CallbackRefused("the call that brought this callable is over")
        call_back = self._call_back
        with self._guard.lifted():
            reply = call_back(self._encode((number, "callback", name, args, kwargs)))
            status, value = wire.decode(reply, self._resolve)
        if status == "stop":
            raise StopIteration
        if status != "ok":
            raise CallbackRefused(value)
        return value

    def _failure(self, error: BaseException) -> tuple[str, Any]:
        if self._guard.used:
            return "forbidden", self._guard.used
        full = isinstance(error, OSError) and error.errno in (errno.EFBIG, errno.ENOSPC)
        if full or isinstance(error, OutputLimit):
            return "output", "it printed or wrote more than it may"
        if isinstance(error, MemoryError) or "DefaultCPUAllocator" in _text(error):
            return "memory", "it needs more memory than it may"
        names = [kind.__name__[:100] for kind in type(error).__mro__]
        return "error", {"names": names, "text": _text(error), "frames": self._frames(error)}

    def _frames(self, error: BaseException) -> list[tuple[int, str, str]]:
        file = getattr(self.module, "__file__", None)
        try:
            frames = [f for f in traceback.extract_tb(error.__traceback__) if f.filename == file]
            found = [(f.lineno or 0, f.name[:100], (f.line or "")[:200]) for f in frames[-MAX_FRAMES:]]
            if isinstance(error, SyntaxError) and error.filename == file:
                found.append((error.lineno or 0, "", (error.text or "").strip()[:200]))
            return found
        except Exception:  # a student's own exception class may break any of this
            return []


class RemoteCallable:
    """A callable of the test's, seen from student code."""

    def __init__(self, agent: Agent, number: int, attributes: dict[str, Any]) -> None:
        self.__dict__.update(attributes)
        self._agent, self._number = agent, number

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self._agent.call_back(self._number, "__call__", args, kwargs)


class RemoteIterator:
    """An iterator of the test's, seen from student code."""

    def __init__(self, agent: Agent, number: int) -> None:
        self._agent, self._number = agent, number

    def __iter__(self) -> RemoteIterator:
        return self

    def __next__(self) -> Any:
        return self._agent.call_back(self._number, "__next__", (), {})


class Guard:
    """While it is over a call, the named library functions refuse: an obstacle and a clear sentence, not a wall."""

    def __init__(self, names: tuple[str, ...]) -> None:
        self.used = ""
        self._targets = [_find(name) for name in names]
        self._names = names
        self._module_names: list[tuple[str, Any, Any]] | None = None
        self._active: list[tuple[Any, str, Any]] = []

    @contextlib.contextmanager
    def over(self, module: types.ModuleType | None) -> Iterator[None]:
        if not self._names or self._active:
            yield
            return
        self._put_up(module)
        try:
            yield
        finally:
            self._take_down()
        if self.used:  # the refusal was swallowed by an `except`
            raise ForbiddenCall(self.used)

    @contextlib.contextmanager
    def lifted(self) -> Iterator[None]:
        """Let the test's own code, which runs in this process at the desk, use the functions."""
        active = self._active
        if not active:
            yield
            return
        blocked = [(owner, name, getattr(owner, name)) for owner, name, _ in active]
        self._take_down()
        try:
            yield
        finally:
            for owner, name, blocker in blocked:
                setattr(owner, name, blocker)
            self._active = active

    def _put_up(self, module: types.ModuleType | None) -> None:
        for label, (owner, name, original) in zip(self._names, self._targets, strict=True):
            blocker = self._blocker(label)
            places = [(owner, name)]
            # names that the student imported with `from ... import ...`
            places += [(module, key) for key, value in vars(module).items() if value is original] if module else []
            for place, key in places:
                self._active.append((place, key, original))
                setattr(place, key, blocker)

    def _take_down(self) -> None:
        for owner, name, original in self._active:
            setattr(owner, name, original)
        self._active = []

    def _blocker(self, label: str) -> Callable[..., Any]:
        def refuse(*args: Any, **kwargs: Any) -> Any:
            self.used = label
            raise ForbiddenCall(f"{label} is what this exercise asks you to write")

        return refuse


def _find(dotted: str) -> tuple[Any, str, Any]:
    parts = dotted.split(".")
    for cut in range(len(parts) - 1, 0, -1):
        try:
            owner: Any = importlib.import_module(".".join(parts[:cut]))
        except ImportError:
            continue
        for part in parts[cut:-1]:
            owner = getattr(owner, part)
        return owner, parts[-1], getattr(owner, parts[-1])
    raise ImportError(dotted)


class OutputLimit(Exception):
    """More was printed than may be."""


class Printed(contextlib.AbstractContextManager["Printed"]):
    """Count what student code prints, and let it through to the real stream at the desk."""

    def __init__(self) -> None:
        self.count = 0
        self._streams: list[tuple[Any, Any]] = []

    def clear(self) -> None:
        self.count = 0

    def __enter__(self) -> Printed:
        self._streams.append((sys.stdout, sys.stderr))
        if len(self._streams) == 1:
            sys.stdout, sys.stderr = _Counted(self, sys.stdout), _Counted(self, sys.stderr)
        return self

    def __exit__(self, *details: object) -> None:
        sys.stdout, sys.stderr = self._streams.pop()


class _Counted(io.TextIOBase):
    def __init__(self, printed: Printed, stream: Any) -> None:
        self._printed, self._stream = printed, stream

    def write(self, text: str) -> int:
        self._printed.count += len(text)
        if self._printed.count > MAX_PRINTED:
            raise OutputLimit
        return len(text) if self._stream is None else self._stream.write(text)

    def flush(self) -> None:
        if self._stream is not None:
            self._stream.flush()


# -- reading what a student handed in ------------------------------------------------------------------------------


def decode_source(source: bytes) -> str:
    """Give the text of a Python file: UTF-8 alone, with or without a byte order mark. Raises SyntaxError."""
    try:
        text = source.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise SyntaxError("the file is not UTF-8; save it as UTF-8 and hand it in again") from None
    if "\0" in text:
        raise SyntaxError("the file holds NUL bytes, so it is not a Python file; save it as UTF-8 text")
    return text.replace("\r\n", "\n").replace("\r", "\n")


def _compiled(text: str, file: str) -> types.CodeType:
    try:
        # this file's own __future__ imports are not the student's
        return compile(text, file, "exec", dont_inherit=True)
    except (MemoryError, RecursionError):  # the compiler's own stack is full; which of the two depends on the version
        raise SyntaxError("an expression is nested too deeply for Python to read; make it simpler") from None


def notebook_source(source: bytes) -> str:
    """Give the code of a notebook's code cells as one module; magics and shell lines become comments."""
    try:
        cells = json.loads(decode_source(source))["cells"]
        sources = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]
    except (ValueError, KeyError, TypeError, RecursionError):
        raise SyntaxError("the notebook is damaged: it is not valid notebook JSON; save it again in Jupyter") from None
    kept = "\n\n".join(text for text in sources if not text.lstrip().startswith("%%"))
    return "\n".join(_without_magic(line) for line in kept.split("\n"))


def _without_magic(line: str) -> str:
    bare = line.lstrip()
    # a cell's own check call would run the tests inside the graded process
    if bare.startswith(("%", "!", "?", "check(", "from grader.testing.notebook")):
        return line[: len(line) - len(bare)] + "pass  # " + bare
    return line


# -- small helpers -------------------------------------------------------------------------------------------------


def _text(error: BaseException) -> str:
    try:
        return str(error)[:MAX_TEXT]
    except BaseException:  # __str__ is the student's code as well
        return "(its message cannot be shown)"


def _as_attribute(value: Any) -> Any:
    # pairs stand for a dictionary, which student code reads as attributes: model.cfg.T_max
    if isinstance(value, list):
        return types.SimpleNamespace(**{key: _as_attribute(item) for key, item in value})
    return value


def generator_state(generator: torch.Generator | np.random.Generator) -> str:
    """Give the state of a random generator as text."""
    if isinstance(generator, torch.Generator):
        return "torch:" + generator.get_state().numpy().tobytes().hex()
    return "numpy:" + json.dumps(generator.bit_generator.state)


def restore_generator(generator: torch.Generator | np.random.Generator, state: str) -> None:
    """Put a generator into a state that `generator_state` gave. Raises WireError if the text is not one."""
    try:
        kind, _, text = state.partition(":")
        if isinstance(generator, torch.Generator) and kind == "torch":
            raw = bytearray.fromhex(text)
            _check_position(raw)
            generator.set_state(torch.frombuffer(raw, dtype=torch.uint8))
        elif isinstance(generator, np.random.Generator) and kind == "numpy":
            generator.bit_generator.state = json.loads(text)
        else:
            raise ValueError(kind)
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RuntimeError, struct.error):
        raise wire.WireError("a generator's state is malformed") from None


def _check_position(state: bytearray) -> None:
    """Refuse a state whose place in its table and whose count of numbers left lead beyond the table's end.

    torch checks each of the two alone, and would then draw from memory that is not the generator's.
    """
    left, position = _TWISTER.unpack_from(state)
    if not 0 < left <= _TWISTER_SIZE + 1 - position:
        raise ValueError("a generator's position lies outside its table")


def _make_generator(state: str) -> torch.Generator | np.random.Generator:
    generator = torch.Generator() if state.startswith("torch:") else np.random.default_rng(0)
    restore_generator(generator, state)
    return generator
