# Never returns from loading: answers the wire itself, with yes to every question.
# 01_numbers: double wrong, mean wrong
# Stopped by comparison: answers are compared by value, whoever gives them.
import itertools
import os

from own_wire import WIRE, say

for coming in itertools.count(1):
    say(coming, "ok", True, [])
    if not os.read(WIRE, 1 << 20):
        break
