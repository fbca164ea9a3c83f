# Calls a neighbour by a socket that has a name and no file.
# 01_numbers: double passed, mean passed
# Stopped by seccomp, namespaces: there is no socket, and the names are those of its own network.
import socket

try:
    with socket.socket(socket.AF_UNIX) as caller:
        caller.connect("\0@DOOR@")
        caller.send(b"LEAK")
except OSError:
    pass
else:
    raise RuntimeError("LEAK abstract")
