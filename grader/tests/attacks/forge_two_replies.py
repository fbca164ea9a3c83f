# Answers a call on the socket itself, and then returns: two replies to one request.
# 01_numbers: double protocol, mean passed
# Stopped by session: there is one reply to a request; one too many ends the process.

from own_wire import number, say


def double(x):
    say(number(), "ok", x + x, [])
    return x
