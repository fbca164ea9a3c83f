# Carries secrets out by TCP, UDP, raw, netlink and UNIX sockets.
# 01_numbers: double passed, mean passed
# Stopped by seccomp: no socket can be made.
import socket

for family, kind, address in (
    (socket.AF_INET, socket.SOCK_STREAM, ("127.0.0.1", int("@TCP@"))),
    (socket.AF_INET, socket.SOCK_DGRAM, ("127.0.0.1", int("@UDP@"))),
    (socket.AF_INET, socket.SOCK_STREAM, ("169.254.169.254", 80)),
    (socket.AF_INET, socket.SOCK_RAW, ("127.0.0.1", 0)),
    (socket.AF_UNIX, socket.SOCK_STREAM, "@DOOR@"),
    (socket.AF_UNIX, socket.SOCK_STREAM, "\0@DOOR@"),
    (socket.AF_NETLINK, socket.SOCK_RAW, (0, 0)),
    (socket.AF_VSOCK, socket.SOCK_STREAM, (2, 22)),
):
    try:
        with socket.socket(family, kind) as caller:
            caller.settimeout(0.5)
            caller.connect(address)
            caller.send(b"LEAK")
    except OSError:
        continue
    raise RuntimeError(f"LEAK {address}")
try:
    socket.create_connection(("example.com", 80), timeout=0.5)
except OSError:
    pass
else:
    raise RuntimeError("LEAK name")
