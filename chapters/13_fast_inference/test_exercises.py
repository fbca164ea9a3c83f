"""Self-checks of chapter 13: worked examples and the laws that teach."""

import math

import pytest
import torch
from torch.nn import functional as F

from grader.testing import close, counting, driver, exact, exercise, holds

DOUBLE = torch.float64


@exercise("quantize_int8")
def test_int8_of_the_worked_row(exercises):
    """The row of the notes: the largest magnitude, 2.54, becomes -127."""
    q, scale = exercises.quantize_int8(torch.tensor([[1.0, -2.54, 0.5]], dtype=DOUBLE))
    exact(q, torch.tensor([[50, -127, 25]], dtype=torch.int8), "q of the row 1.0, -2.54, 0.5")
    close(scale, torch.tensor([2.54 / 127], dtype=DOUBLE), "the step of the row")


@exercise("quantize_int8")
def test_int8_misses_by_half_a_step(exercises, rng):
    """No weight is off by more than half the step of its row."""
    W = rng.normal(4, 9) * torch.tensor([[1.0], [0.01], [100.0], [1.0]])
    q, scale = exercises.quantize_int8(W)
    off = (q.double() * scale[:, None] - W).abs()
    holds((off <= scale[:, None] * 0.5000001).all(), "Every weight is restored to within half a step of its row.")


@exercise("quantize_int8")
def test_int8_of_zeros(exercises):
    """A row of zeros gives zeros and a positive step."""
    q, scale = exercises.quantize_int8(torch.tensor([[0.0, 0.0], [1.0, -2.0]]))
    exact(q[0], torch.zeros(2, dtype=torch.int8), "q of the row of zeros")
    holds(scale > 0, "Every step is positive.")


@exercise("quantize_int4")
def test_two_codes_share_a_byte(exercises):
    """The codes 1 and 2 make the byte 0x21, and come back from it."""
    exact(exercises.pack_int4(torch.tensor([1, 2])), torch.tensor([0x21], dtype=torch.uint8), "pack_int4 of 1, 2")
    unpacked = exercises.unpack_int4(torch.tensor([0x21], dtype=torch.uint8))
    exact(unpacked, torch.tensor([1, 2], dtype=torch.uint8), "unpack_int4 of the byte 0x21")


@exercise("quantize_int4")
def test_an_odd_number_of_codes(exercises):
    """Five codes take three bytes, the last one half filled."""
    packed = exercises.pack_int4(torch.tensor([[1, 2, 3, 4, 5]]))
    exact(packed, torch.tensor([[0x21, 0x43, 0x05]], dtype=torch.uint8), "pack_int4 of 1 ... 5")
    exact(exercises.unpack_int4(packed, 5), torch.tensor([[1, 2, 3, 4, 5]], dtype=torch.uint8), "and back")


@exercise("quantize_int4")
def test_int4_groups_have_their_own_levels(exercises):
    """Groups of three: one from 0 to 15, one of two equal values."""
    packed, scale, low = exercises.quantize_int4(torch.tensor([[0.0, 15.0, 3.2, 7.0, 7.0]]), 3)
    exact(exercises.unpack_int4(packed, 5), torch.tensor([[0, 15, 3, 0, 0]], dtype=torch.uint8), "the five codes")
    close(low, torch.tensor([[0.0, 7.0]]), "the smallest value of each group")
    close(scale[:, :1], torch.tensor([[1.0]]), "the step of the first group")


@exercise("int8_matmul")
def test_int8_product_on_paper(exercises):
    """The row (1, 0.25) becomes 127 and 32 steps of 1/127."""
    x, q = torch.tensor([[1.0, 0.25]], dtype=DOUBLE), torch.tensor([[1, 2]], dtype=torch.int8)
    got = exercises.int8_matmul(x, q, torch.tensor([0.5], dtype=DOUBLE))
    close(got, torch.tensor([[(127 * 1 + 32 * 2) / 127 * 0.5]], dtype=DOUBLE), "the product of two integers each")


@exercise("int8_matmul")
def test_int8_outlier_on_paper(exercises):
    """With 100 set apart, the other input keeps all its precision."""
    x, q = torch.tensor([[100.0, 0.3]], dtype=DOUBLE), torch.tensor([[1, 2]], dtype=torch.int8)
    scale = torch.tensor([0.5], dtype=DOUBLE)
    close(exercises.int8_matmul(x, q, scale, 6.0), torch.tensor([[50.3]], dtype=DOUBLE), "with the outlier split off")
    # in steps of 100/127 the 0.3 is nearest to no step at all
    close(exercises.int8_matmul(x, q, scale), torch.tensor([[50.0]], dtype=DOUBLE), "without a threshold")


@exercise("int8_matmul")
def test_int8_sums_are_wide(exercises):
    """A thousand products of 127 and 127 add up to 16129000."""
    x, q = torch.ones(1, 1000, dtype=DOUBLE), torch.full((1, 1000), 127, dtype=torch.int8)
    got = exercises.int8_matmul(x, q, torch.ones(1, dtype=DOUBLE))
    close(got, torch.tensor([[127_000.0]], dtype=DOUBLE), "a thousand ones times 127")


@exercise("speculative_accept")
def test_the_residual_of_the_worked_example(exercises):
    """With p = (.5, .3, .2) and q = (.2, .7, .1) a rejection draws 3 to 1."""
    p, q = torch.tensor([0.5, 0.3, 0.2], dtype=DOUBLE), torch.tensor([0.2, 0.7, 0.1], dtype=DOUBLE)
    resample = counting(lambda residual: 2)
    exact(exercises.speculative_accept(p, q, 1, 0.42, resample), 1, "draft 1 at u = 0.42, below 3/7")
    exact(exercises.speculative_accept(p, q, 1, 0.43, resample), 2, "draft 1 at u = 0.43, above 3/7")
    close(resample.arguments[0][0], torch.tensor([0.75, 0.0, 0.25], dtype=DOUBLE), "the residual")


def one_more(ids):
    """A model that is certain: the next token is one more, modulo 10."""
    return F.one_hot((torch.tensor(ids) + 1) % 10, 10).double()


@exercise("speculative_accept")
def test_a_step_with_perfect_drafts(exercises):
    """Three right drafts bring four tokens for one call of the target."""
    target = counting(one_more)
    exact(exercises.speculative_step(target, one_more, [5], 3, lambda: 0.5), [6, 7, 8, 9], "the new tokens")
    exact(target.calls, 1, "calls of the target")


@exercise("speculative_accept")
def test_a_step_with_hopeless_drafts(exercises):
    """Even drafts that are always wrong bring one right token."""

    def same_again(ids):
        return F.one_hot(torch.tensor(ids), 10).double()

    exact(exercises.speculative_step(one_more, same_again, [5], 3, lambda: 0.5), [6], "the new tokens")


@exercise("expected_tokens")
def test_tokens_of_two_drafts(exercises):
    """At one half, two drafts bring 1 + 1/2 + 1/4 tokens."""
    close(exercises.expected_tokens(0.5, 2), 1.75, "expected_tokens(0.5, 2)")
    close(exercises.expected_tokens(1.0, 4), 5.0, "expected_tokens(1.0, 4)")


@exercise("expected_tokens")
def test_best_gamma_depends_on_the_cost(exercises):
    """A draft that costs as much as the target is not worth asking."""
    exact(exercises.best_gamma(0.9, 1.0, 8), 0, "best_gamma(0.9, 1.0, 8)")
    exact(exercises.best_gamma(0.9, 0.0, 8), 8, "best_gamma(0.9, 0.0, 8)")


@exercise("flash_attention")
def test_online_softmax_of_the_worked_example(exercises):
    """Scores 0 and ln 2, then ln 4: the notes' two blocks."""
    first = torch.tensor([[0.0, math.log(2)]], dtype=DOUBLE), torch.tensor([[7.0], [14.0]], dtype=DOUBLE)
    second = torch.tensor([[math.log(4)]], dtype=DOUBLE), torch.tensor([[21.0]], dtype=DOUBLE)
    o, lse = exercises.online_softmax([first, second])
    close(o, torch.tensor([[(1 * 7 + 2 * 14 + 4 * 21) / 7]], dtype=DOUBLE), "o")
    close(lse, torch.tensor([math.log(7)], dtype=DOUBLE), "lse")


@exercise("flash_attention")
def test_flash_equals_attention(exercises, rng):
    """Tiles of any size give exactly the attention that PyTorch computes."""
    q, k, v = rng.normal(1, 2, 5, 4), rng.normal(1, 2, 7, 4), rng.normal(1, 2, 7, 3)
    for block in (1, 3, 7, 10):
        o, _ = exercises.flash_attention(q, k, v, block)
        close(o, F.scaled_dot_product_attention(q, k, v), f"o with tiles of {block}")


@exercise("flash_attention")
def test_flash_sees_no_future(exercises, rng):
    """Causal tiles agree with PyTorch's causal attention."""
    q, k, v = rng.normal(1, 2, 6, 4), rng.normal(1, 2, 6, 4), rng.normal(1, 2, 6, 3)
    o, _ = exercises.flash_attention(q, k, v, 4, causal=True)
    close(o, F.scaled_dot_product_attention(q, k, v, is_causal=True), "o with causal=True")


@driver
def largest_tensor(module, q, k, v, block):
    """Run flash_attention and give the size of the largest tensor that any operation made."""
    from torch.utils._python_dispatch import TorchDispatchMode

    sizes = [0]

    class Watch(TorchDispatchMode):
        _should_skip_dynamo = classmethod(lambda cls: False)  # or the first operation imports the compiler: a second

        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            out = function(*args, **(kwargs or {}))
            sizes.extend(x.numel() for x in (out if isinstance(out, (tuple, list)) else [out]) if hasattr(x, "numel"))
            return out

    with Watch():
        module.flash_attention(q, k, v, block)
    return max(sizes)


@exercise("flash_attention")
def test_flash_never_holds_the_table(exercises, rng):
    """With 256 queries and tiles of 8 keys, no tensor exceeds 256 x 8."""
    q, k, v = rng.normal(1, 1, 256, 4), rng.normal(1, 1, 256, 4), rng.normal(1, 1, 256, 4)
    largest = exercises.run(largest_tensor, q, k, v, 8)
    holds(largest <= 256 * 8, f"The largest tensor has {largest} numbers; the whole table would have 65536.")


@exercise("PagedKV")
def test_pages_count_blocks(exercises):
    """Three tokens in blocks of two take two blocks; freed, they come back."""
    cache = exercises.PagedKV(n_blocks=4, block_size=2)
    seq = cache.alloc()
    cache.append(seq, torch.tensor([[1.0], [2.0], [3.0]]))
    exact(cache.n_free, 2, "free blocks")
    close(cache.gather(seq), torch.tensor([[1.0], [2.0], [3.0]]), "gather")
    cache.free(seq)
    exact(cache.n_free, 4, "free blocks after free")


@exercise("PagedKV")
def test_pages_fork(exercises):
    """Two that share a beginning take a new block only when one writes."""
    cache = exercises.PagedKV(n_blocks=4, block_size=2)
    a = cache.alloc()
    cache.append(a, torch.tensor([[1.0], [2.0], [3.0]]))
    b = cache.fork(a)
    exact(cache.n_free, 2, "free blocks after fork")
    cache.append(b, torch.tensor([[9.0]]))
    exact(cache.n_free, 1, "free blocks after b wrote")
    close(cache.gather(a).flatten(), torch.tensor([1.0, 2, 3]), "a")
    close(cache.gather(b).flatten(), torch.tensor([1.0, 2, 3, 9]), "b")


@exercise("PagedKV")
def test_pages_are_finite(exercises):
    """What does not fit raises ValueError and takes nothing."""
    cache = exercises.PagedKV(n_blocks=2, block_size=2)
    seq = cache.alloc()
    cache.append(seq, torch.ones(3, 1))
    with pytest.raises(ValueError):
        cache.append(seq, torch.ones(2, 1))
    exact(cache.n_free, 0, "free blocks")
    close(cache.gather(seq), torch.ones(3, 1), "the sequence afterwards")


@exercise("Scheduler")
def test_schedule_of_the_worked_example(exercises):
    """A long prompt in chunks, a short request beside its last chunk."""
    scheduler = exercises.Scheduler(max_tokens=4, max_seqs=2)
    scheduler.add("long", prompt=6, new=2)
    scheduler.add("short", prompt=1, new=1)
    batches = [scheduler.step() for _ in range(4)]
    exact(batches, [[("long", 4)], [("long", 2), ("short", 1)], [("long", 1)], []], "four steps")
    exact(scheduler.emitted, {"long": 2, "short": 1}, "emitted")


@exercise("Scheduler")
def test_schedule_lets_newcomers_in(exercises):
    """As soon as one is done the next one runs, beside the long one."""
    scheduler = exercises.Scheduler(max_tokens=8, max_seqs=2)
    for request, new in (("a", 5), ("b", 1), ("c", 1)):
        scheduler.add(request, prompt=1, new=new)
    batches = [scheduler.step() for _ in range(3)]
    exact(batches, [[("a", 1), ("b", 1)], [("a", 1), ("c", 1)], [("a", 1)]], "three steps")


@exercise("Scheduler")
def test_schedule_preempts_the_newest(exercises):
    """When both have grown too long for the caches, the newer one waits."""
    scheduler = exercises.Scheduler(max_tokens=9, max_seqs=2, max_cached=7)
    scheduler.add("old", prompt=3, new=4)
    scheduler.add("new", prompt=3, new=4)
    scheduler.step()
    exact(scheduler.cached, {"old": 3, "new": 3}, "the caches after the prompts")
    exact(scheduler.step(), [("old", 1)], "the second step: 4 + 4 known tokens exceed 7")
    exact((scheduler.cached, scheduler.emitted), ({"old": 4}, {"old": 2, "new": 1}), "caches and tokens emitted")
