"""Right answers of chapter 2 written in other styles."""

import collections

import torch

from grader.testing import alternative, reference_of

reference = reference_of(__file__)


@alternative("rows_sum_to_one", "an einsum for the sums")
def by_einsum(x):
    return x / torch.einsum("...n->...", x).unsqueeze(-1)


@alternative("Counter", "the library's counter inside", replaces="Counter")
class OnLibraryCounter(reference.Counter):
    def __init__(self):
        self.counts = collections.Counter()

    def add(self, items):
        self.counts.update(items)
