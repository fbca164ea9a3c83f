# Moves a random generator's place behind the end of its table, to read the memory there.
# 03_calls: call_twice passed, noise protocol, halve passed, count_up passed
# Stopped by wire: a state that comes back is checked beyond what torch checks.
import struct

import torch


def noise(generator):
    state = bytearray(generator.get_state().numpy().tobytes())
    struct.pack_into("<iiQ", state, 8, 624, 1, 624)
    generator.set_state(torch.frombuffer(state, dtype=torch.uint8))
    return torch.zeros(3)
