# Numbers its answer with a tensor, which is neither equal to a number nor different.
# 01_numbers: double protocol, mean passed
# Stopped by session: the parts of an answer have exact types.
import os

import torch
from own_wire import WIRE, say


def double(x):
    say(torch.ones(2), torch.ones(3), x + x, [])
    os.read(WIRE, 1)
