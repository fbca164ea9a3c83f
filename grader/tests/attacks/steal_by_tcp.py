# Calls out by TCP, by IPv4 and mapped into IPv6.
# 01_numbers: double passed, mean passed
# Stopped by seccomp, namespaces, landlock: there is no socket, no network, and no permission.
import socket

for family, host in ((socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::ffff:127.0.0.1"), (socket.AF_INET6, "::1")):
    try:
        with socket.socket(family, socket.SOCK_STREAM) as caller:
            caller.settimeout(0.5)
            caller.connect((host, int("@TCP@")))
            caller.send(b"LEAK")
    except OSError:
        continue
    raise RuntimeError(f"LEAK {host}")
