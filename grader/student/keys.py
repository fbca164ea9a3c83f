"""Single keys from a terminal, without waiting for Enter; the terminal is put back as it was."""

from __future__ import annotations

import contextlib
import sys
import threading
import time
from collections.abc import Callable, Iterator


class Keys:
    """Tells of keys, on a thread of its own, while it is open. Without a terminal there are none."""

    def __init__(self, on_key: Callable[[str], None]) -> None:
        self._on_key = on_key
        self._open = threading.Event()
        self._closed = False
        self.is_terminal = sys.stdin.isatty() and sys.stdout.isatty()

    def start(self) -> None:
        """Begin to listen."""
        if self.is_terminal:
            self._open.set()
            threading.Thread(target=_windows if sys.platform == "win32" else _posix, args=(self,), daemon=True).start()

    @contextlib.contextmanager
    def raw(self) -> Iterator[None]:
        """Give keys one by one while inside, and a plain terminal afterwards."""
        if not self.is_terminal or sys.platform == "win32":
            yield
            return
        import termios
        import tty

        before = termios.tcgetattr(sys.stdin)
        tty.setcbreak(sys.stdin)
        try:
            yield
        finally:
            termios.tcsetattr(sys.stdin, termios.TCSADRAIN, before)

    @contextlib.contextmanager
    def lent(self) -> Iterator[None]:
        """Leave the keyboard to another program, such as the debugger."""
        self._open.clear()
        time.sleep(0.15)  # the listener looks up ten times a second
        if not self.is_terminal or sys.platform == "win32":
            yield
        else:
            yield from self._in_plain_terminal()
        self._open.set()

    def _in_plain_terminal(self) -> Iterator[None]:
        import termios

        before = termios.tcgetattr(sys.stdin)
        plain = [*before[:3], before[3] | termios.ICANON | termios.ECHO, *before[4:]]
        termios.tcsetattr(sys.stdin, termios.TCSADRAIN, plain)
        try:
            yield
        finally:
            termios.tcsetattr(sys.stdin, termios.TCSADRAIN, before)

    def stop(self) -> None:
        """End."""
        self._closed = True

    def wait_open(self) -> bool:
        """Wait until the keyboard is ours; False when it is over."""
        while not self._closed and not self._open.wait(0.1):
            pass
        return not self._closed

    def tell(self, key: str) -> None:
        """Pass a key on."""
        if self._open.is_set():
            self._on_key(key)


def _posix(keys: Keys) -> None:
    import os
    import select

    while keys.wait_open():
        ready, _, _ = select.select([sys.stdin], [], [], 0.1)
        if ready and keys.wait_open():
            data = os.read(sys.stdin.fileno(), 32)
            if not data:  # the terminal is gone
                keys.tell("q")
                return
            if not data.startswith(b"\x1b"):  # arrows and such are no keys of ours
                for char in data.decode("utf-8", "replace"):
                    keys.tell(char)


def _windows(keys: Keys) -> None:
    if sys.platform == "win32":
        import msvcrt

        while keys.wait_open():
            if msvcrt.kbhit():
                keys.tell(msvcrt.getwch())
            else:
                time.sleep(0.05)
