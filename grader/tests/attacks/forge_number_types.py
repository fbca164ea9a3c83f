# Answers in types that equal the right number in value alone.
# 01_numbers: double wrong, mean wrong
# Stopped by comparison: the type is compared before the value.
import decimal
import fractions
import itertools

import torch

kinds = itertools.cycle([str, decimal.Decimal, fractions.Fraction, torch.tensor, complex, lambda value: [value]])


def double(x):
    return next(kinds)(2 * x)


def mean(xs):
    if not xs:
        return None
    return next(kinds)(sum(xs) / len(xs))
