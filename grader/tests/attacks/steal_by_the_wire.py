# Uses the one open socket to call elsewhere, to listen, and to be handed open files.
# 01_numbers: double passed, mean passed
# Stopped by seccomp: only reading, writing and closing it are left.
import contextlib
import socket

from own_wire import WIRE

wire_itself = socket.socket(fileno=WIRE)
for attempt in (
    lambda: wire_itself.connect("@DOOR@"),
    lambda: wire_itself.bind("LEAK"),
    lambda: wire_itself.listen(),
    lambda: wire_itself.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 30),
    lambda: socket.socketpair(),
):
    with contextlib.suppress(OSError):
        attempt()
        raise RuntimeError("LEAK wire")
wire_itself.detach()
