# Calls a neighbour by a socket that is a file, as a container's daemon has one.
# 01_numbers: double passed, mean passed
# Stopped by seccomp: no socket can be made.
import socket

for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM, socket.SOCK_SEQPACKET):
    try:
        with socket.socket(socket.AF_UNIX, kind) as caller:
            caller.connect("@DOOR@")
            caller.send(b"LEAK")
    except OSError:
        continue
    raise RuntimeError("LEAK socket file")
