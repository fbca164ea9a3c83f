# Sends what it knows by UDP, which needs no connection.
# 01_numbers: double passed, mean passed
# Stopped by seccomp, namespaces: there is no socket, and no network.
import socket

for address in (("127.0.0.1", int("@UDP@")), ("8.8.8.8", 53)):
    try:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as caller:
            caller.sendto(b"LEAK", address)
    except OSError:
        continue
    raise RuntimeError(f"LEAK {address}")
