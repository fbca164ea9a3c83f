# Asks for names of hosts and users, which asks daemons.
# 01_numbers: double passed, mean passed
# Stopped by landlock + seccomp, landlock + namespaces: there is nobody to ask, and no file to read.
import pwd
import socket

for ask in (
    lambda: socket.gethostbyname("example.com"),
    lambda: socket.getaddrinfo("localhost", 80)[0] and socket.create_connection(("localhost", int("@TCP@")), 0.5),
    lambda: pwd.getpwnam("daemon"),
):
    try:
        found = ask()
    except (OSError, KeyError):
        continue
    raise RuntimeError(f"LEAK {found}")
