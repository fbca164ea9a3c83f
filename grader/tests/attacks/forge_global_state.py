# Changes every global switch of the libraries before it answers rightly.
# 02_shapes: rows_sum_to_one passed, Counter passed
# Stopped by boundary: the switches are those of a process that only this student has.
import builtins
import decimal
import random
import sys
import warnings

import numpy
import torch

torch.set_default_dtype(torch.float16)
torch.manual_seed(0)
torch.use_deterministic_algorithms(True)
torch.set_printoptions(precision=1)
torch.set_num_threads(512)
numpy.seterr(all="ignore")
numpy.random.seed(0)
random.seed(0)
decimal.getcontext().prec = 1
warnings.simplefilter("error")
sys.setswitchinterval(100.0)
builtins.print = None
