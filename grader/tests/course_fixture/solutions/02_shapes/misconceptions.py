"""Typical wrong answers of chapter 2."""

import torch

from grader.testing import misconception, reference_of

reference = reference_of(__file__)


@misconception("rows_sum_to_one", "You sum along the first axis, so columns sum to one; rows lie along the last axis.")
def columns_sum_to_one(x):
    return x / x.sum(dim=0, keepdim=True)


@misconception("rows_sum_to_one", "You divide by the sum of all elements; each row has a sum of its own.")
def divides_by_everything(x):
    return x / x.sum()


@misconception("rows_sum_to_one", "You divide in place, so the caller's tensor is changed too; make a new one.")
def divides_in_place(x):
    return x.div_(x.sum(dim=-1, keepdim=True))


@misconception("Counter", "You count an item once a call of add, however often it occurs; count each occurrence.")
class CountsDistinct(reference.Counter):
    def add(self, items):
        super().add(dict.fromkeys(items))


@misconception("Counter", "Ties are sorted by name; of equals the item that was seen first comes first.")
class TiesByName(reference.Counter):
    def most_common(self, n):
        return sorted(self.counts.items(), key=lambda pair: (-pair[1], pair[0]))[:n]


@misconception("Counter", "The shares stand in the order of arrival; the docstring asks for the order of most_common.")
class SharesUnsorted(reference.Counter):
    def shares(self):
        counts = torch.tensor(list(self.counts.values()), dtype=torch.float64)
        return reference.rows_sum_to_one(counts)
