"""The whole contract of chapter 21. Models, scorers and checkers are small functions that the tests hold."""

import itertools
import math
from fractions import Fraction

import pytest
import torch

from grader.testing import (
    close,
    counting,
    driver,
    exact,
    exercise,
    holds,
    numerical_gradient,
    pure,
    roughly,
    same_distribution,
)

NAN, INF = math.nan, math.inf

# --- split_thinking ---------------------------------------------------------------------------------------------------

FENCE = "```"


@exercise("split_thinking", weight=2)
def test_one_block_and_an_answer(exercises):
    """What stands in the block was thought, the rest is the answer."""
    cases = {
        "<think>a b</think>c d": ("a b", "c d"),
        "<think>\n\n a\n\nb \n</think>\n\n c\n d \n": ("a\n\nb", "c\n d"),
        "Well. <think>a</think> So c.": ("a", "Well.  So c."),
        "<think></think>c": ("", "c"),
        "<think> \n </think>c": ("", "c"),
        "<think>a</think>": ("a", ""),
        "no tags at all\n": ("", "no tags at all"),
        "": ("", ""),
    }
    for text, expected in cases.items():
        exact(exercises.split_thinking(text), expected, f"split_thinking({text!r})")


@exercise("split_thinking", weight=2)
def test_several_blocks_are_several(exercises):
    """A block ends at the first closing tag, and each block is one."""
    cases = {
        "<think>a</think>b<think>c</think>d": ("a\nc", "bd"),
        "x <think> a </think> y <think></think> z <think>c\nd</think>": ("a\nc\nd", "x  y  z"),
        "<think>a<think>b</think>c</think>d": ("a<think>b", "c</think>d"),
        "</think>a<think>b</think>": ("b", "</think>a"),
        "a</think> b": ("", "a</think> b"),
    }
    for text, expected in cases.items():
        exact(exercises.split_thinking(text), expected, f"split_thinking({text!r})")


@exercise("split_thinking", weight=2)
def test_unclosed_block_has_no_answer(exercises):
    """Thinking that never ended goes to the end of the text."""
    for text, expected in {
        "<think>a b\nc ": ("a b\nc", ""),
        "<think>a</think>b <think>c d": ("a\nc d", "b"),
        "<think>": ("", ""),
        f"<think>a\n{FENCE}\nb": (f"a\n{FENCE}\nb", ""),
    }.items():
        exact(exercises.split_thinking(text), expected, f"split_thinking({text!r})")


@exercise("split_thinking", weight=2)
def test_fences_protect_tags_in_the_answer(exercises):
    """Tags in a code fence of the answer stay where they are."""
    shown = f"{FENCE}xml\n<think>b</think>\n<think>\n{FENCE}"
    cases = {
        f"<think>a</think>Like this:\n{shown}\nDone.": ("a", f"Like this:\n{shown}\nDone."),
        f"{shown}\n<think>a</think>c": ("a", f"{shown}\nc"),
        f"{shown}\n<think>a</think>\n{shown}": ("a", f"{shown}\n\n{shown}"),
        f"c\n{FENCE}\n<think>b</think>": ("", f"c\n{FENCE}\n<think>b</think>"),  # a fence that never ends
    }
    for text, expected in cases.items():
        exact(exercises.split_thinking(text), expected, f"split_thinking({text!r})")


@exercise("split_thinking")
def test_fences_protect_nothing_else(exercises):
    """Backticks in a block or within a line are no fence."""
    cases = {
        f"<think>a\n{FENCE}\n</think>b": (f"a\n{FENCE}", "b"),
        f"<think>\n{FENCE}\na</think>b\n<think>c</think>d": (f"{FENCE}\na\nc", "b\nd"),
        f"b {FENCE}<think>a</think>": ("a", f"b {FENCE}"),
        "b `<think>a</think>`": ("a", "b ``"),
        f"{FENCE}\nx\n{FENCE}\n<think>a</think>y": ("a", f"{FENCE}\nx\n{FENCE}\ny"),
        f"{FENCE}\n{FENCE}xml\n<think>a</think>b": ("a", f"{FENCE}\n{FENCE}xml\nb"),
        "<THINK>a</THINK>b": ("", "<THINK>a</THINK>b"),
    }
    for text, expected in cases.items():
        exact(exercises.split_thinking(text), expected, f"split_thinking({text!r})")


@exercise("split_thinking")
def test_no_word_is_lost_or_counted_twice(exercises, rng):
    """Thinking and answer together have all the words, each in order."""
    for _ in range(12):
        thought, said, parts = [], [], []
        for i in range(rng.random.randrange(1, 7)):
            words = [f"w{i}{j}" for j in range(rng.random.randrange(1, 5))]
            if rng.random.random() < 0.5:
                thought += words
                parts.append("<think> " + "\n".join(words) + " </think>")
            else:
                said += words
                parts.append(" ".join(words))
        thinking, answer = exercises.split_thinking(" ".join(parts))
        exact((thinking.split(), answer.split()), (thought, said), f"the words of {' '.join(parts)!r}")


@exercise("split_thinking", weight=2)
def test_history_keeps_answers_only(exercises):
    """The model's turns keep their answers, all other turns everything."""
    tagged = "<think>mine</think> yours"
    messages = [
        {"role": "system", "content": tagged},
        {"role": "user", "content": "<think> What does this tag do? "},
        {"role": "assistant", "content": "<think>a</think>b<think>c</think> d\n", "id": "7"},
        {"role": "tool", "content": f"{tagged}\n", "name": "search"},
        {"role": "assistant", "content": "<think>cut off"},
        {"role": "user", "content": tagged},
        {"role": "assistant", "content": " plain "},
    ]
    kept = pure(exercises.strip_history, messages)
    expected = [dict(message) for message in messages]
    for place, content in ((2, "b d"), (4, ""), (6, "plain")):
        expected[place]["content"] = content
    exact(kept, expected, "strip_history of seven messages")
    exact(exercises.strip_history([]), [], "strip_history of an empty conversation")


@driver
def history_is_a_copy(module):
    """Change what came back, and see whether the conversation changed with it."""
    messages = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "<think>b</think>c"}]
    kept = module.strip_history(messages)
    for message in kept:
        message["content"] = "other"
    kept.clear()
    return messages


@exercise("split_thinking")
def test_history_is_a_copy(exercises):
    """Changing the copy leaves the conversation alone."""
    expected = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "<think>b</think>c"}]
    exact(exercises.run(history_is_a_copy), expected, "the messages after their copy was changed")


# --- budget_forced_generate -------------------------------------------------------------------------------------------

END, W, X = 99, 50, 51


def script(replies):
    """A model that gives these replies in order, and remembers what it was shown."""
    line = iter(replies)
    return counting(lambda ids: next(line))


def forced(exercises, replies, low, high, wait=(W,), prompt=(1, 2)):
    """The new tokens, and the prompts that the model was given."""
    model = script(replies)
    got = exercises.budget_forced_generate(model, list(prompt), low, high, END, list(wait))
    return got, [list(arguments[0]) for arguments in model.arguments]


def check(exercises, replies, low, high, expected, asked, **options):
    """Compare the new tokens and the number of questions; each question shows all that stood there."""
    got, seen = forced(exercises, replies, low, high, **options)
    what = f"replies {list(replies)}, min_think={low}, max_think={high}"
    exact(got, expected, f"new tokens for {what}")
    exact(len(seen), asked, f"number of questions to the model for {what}")
    prompt = list(options.get("prompt", (1, 2)))
    full = prompt + expected
    holds(all(ids == full[: len(ids)] for ids in seen), f"the model was shown other tokens than were written: {seen}")
    exact(seen[-1], full, f"what the model saw before it ended the answer, for {what}")


@exercise("budget_forced_generate")
def test_moderate_thinker_is_left_alone(exercises):
    """A model that ends between the bounds decides by itself."""
    check(exercises, [5, 6, 7, END, 8, 9, None], 1, 10, [5, 6, 7, END, 8, 9], 7)
    check(exercises, [END, 8, None], 0, 4, [END, 8], 3)
    check(exercises, [0, 5, 0, END, 0, None], 2, 4, [0, 5, 0, END, 0], 6)
    check(exercises, [5, END, None], 0, 4, [5, END], 3)


@exercise("budget_forced_generate", weight=3)
def test_early_end_becomes_a_wait(exercises):
    """Below the minimum an end is replaced, as often as it takes."""
    check(exercises, [5, END, 6, 7, END, 8, None], 3, 10, [5, W, 6, 7, END, 8], 7)
    check(exercises, [END, END, END, END, 8, None], 3, 10, [W, W, W, END, 8], 6)
    check(exercises, [5, END, 6, END, 8, None], 4, 10, [5, W, X, 6, END, 8], 6, wait=(W, X))
    check(exercises, [5, END, END, 6, END, 8, None], 5, 12, [5, W, X, W, X, 6, END, 8], 7, wait=(W, X))


@exercise("budget_forced_generate", weight=2)
def test_minimum_is_enough(exercises):
    """With exactly min_think tokens an end is an end."""
    check(exercises, [5, 6, END, 8, None], 2, 10, [5, 6, END, 8], 5)
    check(exercises, [5, 6, END, 7, END, 8, None], 3, 10, [5, 6, W, 7, END, 8], 7)
    check(exercises, [5, END, END, 8, None], 3, 9, [5, W, X, END, 8], 5, wait=(W, X))


@exercise("budget_forced_generate", weight=3)
def test_late_end_is_forced(exercises):
    """At the maximum the end is written without asking."""
    check(exercises, [5, 6, 7, 8, None], 0, 3, [5, 6, 7, END, 8], 5)
    check(exercises, [5, 6, 8, 9, None], 2, 2, [5, 6, END, 8, 9], 5)
    check(exercises, [8, None], 0, 0, [END, 8], 2)
    check(exercises, [5, END, 6, 7, 8, None], 4, 4, [5, W, 6, 7, END, 8], 6)


@exercise("budget_forced_generate", weight=2)
def test_wait_counts_and_is_cut(exercises):
    """Waiting is thinking, and does not go over the maximum."""
    check(exercises, [5, END, 6, 8, None], 4, 4, [5, W, X, 6, END, 8], 5, wait=(W, X))
    check(exercises, [5, 6, END, 8, None], 3, 3, [5, 6, W, END, 8], 5, wait=(W, X, X))
    check(exercises, [5, END, 8, None], 4, 4, [5, W, X, 52, END, 8], 4, wait=(W, X, 52, 53))
    check(exercises, [5, END, 8, None], 2, 4, [5, W, X, 52, END, 8], 4, wait=(W, X, 52))


@exercise("budget_forced_generate", weight=2)
def test_prompt_and_answer_are_free(exercises):
    """Ends and waits before and after the thinking are plain tokens."""
    answer = [8, END, W, END, 8, 8, 8, 8]
    check(exercises, [5, END, *answer, None], 1, 3, [5, END, *answer], 11)
    check(exercises, [5, 6, 7, *answer, None], 1, 3, [5, 6, 7, END, *answer], 12)
    check(exercises, [5, END, 6, END, 8, None], 2, 6, [5, W, 6, END, 8], 6, prompt=(END, W, W, 3, END))
    check(exercises, [5, 6, 7, 8, 9, END, None], 2, 6, [5, 6, 7, 8, 9, END], 7, prompt=[4] * 9)
    check(exercises, [5, END, 0, 8, None], 0, 6, [5, END, 0, 8], 5, prompt=())


@exercise("budget_forced_generate", weight=2)
def test_bounds_hold_for_any_model(exercises, rng):
    """Whatever the model says, the thinking stays within its bounds."""
    for _ in range(15):
        draw = rng.random
        low = draw.randrange(0, 7)
        high = low + draw.randrange(0, 6)
        table = [draw.choice([END, END, 5, 6, 7]) for _ in range(40)]
        model = counting(lambda ids, table=table: table[len(ids)] if END not in ids else (8 if ids[-1] != 8 else None))
        wait = [W] * draw.randrange(1, 4)
        got = exercises.budget_forced_generate(model, [3] * draw.randrange(0, 4), low, high, END, wait)
        length = got.index(END)
        what = f"{got} for min_think={low}, max_think={high}"
        holds(low <= length <= high, f"the thinking has {length} tokens: {what}")
        exact(got[length:], [END, 8], f"end and answer of {what}")


@exercise("budget_forced_generate")
def test_impossible_budgets_are_refused(exercises):
    """A minimum above the maximum, or no word to wait, is an error."""
    for low, high, wait in ((3, 2, [W]), (1, 0, [W]), (2, 4, []), (0, 4, [])):
        with pytest.raises(ValueError):
            exercises.budget_forced_generate(lambda ids: END if END not in ids else None, [1], low, high, END, wait)


@exercise("budget_forced_generate")
def test_arguments_stay_as_they_were(exercises):
    """Prompt and waiting tokens are not changed."""
    exact(exercises.run(budget_arguments), [[1, 2], [50]], "ids and wait_ids after the call")


@driver
def budget_arguments(module):
    """Prompt and wait after a call."""
    ids, wait, replies = [1, 2], [50], iter([99, 5, 99, 8, None])
    module.budget_forced_generate(lambda seen: next(replies), ids, 2, 4, 99, wait)
    return [ids, wait]


# --- best_of_n, expected_best_of_n ------------------------------------------------------------------------------------


@exercise("best_of_n", weight=2)
def test_best_is_the_sample_itself(exercises):
    """The sample with the highest score comes back, as it was."""
    worth = {"a": -3.0, "zz": -1.5, "m": -2.0, "": -9.0}
    for samples, best in ((["a", "zz", "m"], "zz"), (["a", "m"], "m"), (["", "a"], "a"), (["zz", "", "a"], "zz")):
        exact(exercises.best_of_n(samples, worth.__getitem__), best, f"best_of_n({samples}) with scores {worth}")
    exact(exercises.best_of_n([[1, 2], [3], [0, 9]], lambda ids: -len(ids)), [3], "best_of_n of lists of ids")
    exact(exercises.best_of_n([7], lambda _: -INF), 7, "best_of_n of one sample with score -inf")
    exact(exercises.best_of_n([{"id": 1}, {"id": 2}], lambda d: d["id"]), {"id": 2}, "best_of_n of dicts")


@exercise("best_of_n")
def test_first_of_equals_wins_and_each_is_scored_once(exercises):
    """Ties go to the first sample, and the scorer is called once each."""
    score = counting(lambda text: float(len(text)))
    exact(exercises.best_of_n(["b", "aa", "cc", "bb", "a"], score), "aa", "best_of_n with three samples of score 2")
    exact(sorted(arguments[0] for arguments in score.arguments), ["a", "aa", "b", "bb", "cc"], "what was scored")
    with pytest.raises(ValueError):
        exercises.best_of_n([], score)


def mean_of_maxima(scores, n):
    """The mean over all subsets, listed one by one."""
    subsets = [max(subset) for subset in itertools.combinations(scores, n)]
    return sum(subsets) / len(subsets)


@exercise("best_of_n", weight=3)
@pytest.mark.parametrize("m", [7, 5, 1])
def test_expectation_is_that_over_all_subsets(exercises, rng, m):
    """It is the mean of the best over all subsets of n scores."""
    scores = (3 * rng.normal(m)).tolist()
    for n in range(1, m + 1):
        close(exercises.expected_best_of_n(scores, n), mean_of_maxima(scores, n), f"expected_best_of_n({scores}, {n})")


@exercise("best_of_n")
def test_equal_scores_are_different_samples(exercises):
    """Ties do not merge, and zeros and ones give pass at n."""
    for scores in ([2.0, 2.0, 5.0, 5.0, 1.0], [3.0] * 4, [-1.0, -1.0, -4.0]):
        for n in range(1, len(scores) + 1):
            close(exercises.expected_best_of_n(scores, n), mean_of_maxima(scores, n), f"of {scores}, n={n}")
    right = [0.0, 1.0, 0.0, 0.0, 1.0, 0.0, 0.0]
    for n in (1, 3, 5, 6):
        passed = 1 - math.comb(5, n) / math.comb(7, n)
        close(exercises.expected_best_of_n(right, n), passed, f"with 2 of 7 right, n={n}")


@exercise("best_of_n", weight=2)
def test_expectation_obeys_its_laws(exercises, rng):
    """From mean to maximum, never falling, whatever the order."""
    scores = rng.normal(12)
    values = [exercises.expected_best_of_n(scores, n) for n in range(1, 13)]
    close(values[0], scores.mean().item(), "n=1 is the mean")
    close(values[-1], scores.max().item(), "n=m is the maximum")
    holds(values == sorted(values), f"the values for n = 1 to 12 fall somewhere: {values}")
    shuffled = scores[rng.permutation(12)]
    other = [pure(exercises.expected_best_of_n, shuffled, n) for n in (2, 7)]
    close(other, [values[1], values[6]], "the same scores in another order")
    close(exercises.expected_best_of_n(2 * scores + 3, 4), 2 * values[3] + 3, "twice the scores, plus 3")
    whole = [exercises.expected_best_of_n([4, 1, 2], n) for n in (2, 3)]
    close(whole, [10 / 3, 4.0], "of the whole numbers 4, 1, 2")
    holds(all(type(x) is float for x in [*values, *whole]), "a result is not a float")


@exercise("best_of_n")
def test_many_samples_do_not_overflow(exercises):
    """With 1,500 samples it is finite and right."""
    scores = [float((7 * i) % 1500) for i in range(1500)]  # 0 to 1499 in another order
    for n in (1, 2, 40, 700, 1499):
        # the largest of n out of 0 ... m - 1 without replacement is n (m + 1) / (n + 1) - 1 on average
        close(exercises.expected_best_of_n(scores, n), n * 1501 / (n + 1) - 1, f"of 0 ... 1499, n={n}")
    close(exercises.expected_best_of_n([-s for s in scores], 3), -1501 / 4 + 1, "of 0 ... -1499, n=3")


@exercise("best_of_n")
def test_more_than_there_are_is_refused(exercises):
    """n must lie between 1 and the number of samples."""
    for scores, n in (([1.0, 2.0], 3), ([1.0, 2.0], 0), ([1.0], -1), ([], 1)):
        with pytest.raises(ValueError):
            exercises.expected_best_of_n(scores, n)


# --- verify_math, weighted_vote ---------------------------------------------------------------------------------------


def agree(exercises, pairs, expected):
    """Both orders of each pair get the expected verdict."""
    for pred, gold in pairs:
        for one, other in ((pred, gold), (gold, pred)):
            exact(exercises.verify_math(one, other), expected, f"verify_math({one!r}, {other!r})")


@exercise("verify_math", weight=3)
def test_ways_of_writing_do_not_matter(exercises):
    """Fractions, decimals, percents, commas and spaces keep the value."""
    pairs = [("1/2", "0.5"), ("3/4", "6/8"), ("50%", "0.5"), ("12.5 %", "1/8"), (".5", "0.50"), ("-.25", "-1/4")]
    pairs += [("1,234", "1234"), ("12,345,678.50", "12345678.5"), ("+7", "7"), ("- 7", "-7"), ("-0", "0")]
    pairs += [(" 3 / 4\n", "3/4"), ("42", "42.0"), ("007", "7"), ("200%", "2"), ("1/2 %", "0.005"), ("8/4", "2")]
    pairs += [("1,000/10", "100"), ("+ 1/3", "2/6"), ("0/5", "0"), ("-50 %", "-1/2"), ("0.10", "10%"), ("4/2", "2.0")]
    agree(exercises, pairs, True)


@exercise("verify_math", weight=3)
def test_other_values_are_other_values(exercises):
    """Nothing is rounded, cut or searched for inside a longer text."""
    pairs = [("0.3333", "1/3"), ("0.333333333", "1/3"), ("0.995", "1"), ("12", "112"), ("12", "12.01"), ("5", "-5")]
    pairs += [("1,234", "1.234"), ("50", "50%"), ("0.5%", "0.5"), ("3/4", "4/3"), ("3/4", "3"), ("1234", "234")]
    pairs += [("10000000000000001", "10000000000000000"), ("3.14", "3.14159"), ("0.1", "0.10000000000000001")]
    pairs += [("1/7", "0.142857142857142857"), ("-1/2", "1/2"), ("2", "2.0000001"), ("99.9999%", "1"), ("0", "0.0001")]
    agree(exercises, pairs, False)


@exercise("verify_math", weight=2)
def test_units_are_converted_by_the_table(exercises):
    """Units of one kind are converted exactly, kinds never mixed."""
    pairs = [("5 m", "5 km"), ("5 m", "5 g"), ("5", "5 m"), ("1 m", "1 min"), ("60 s", "60 min"), ("1 h", "3600")]
    pairs += [("0 m", "0 s"), ("0", "0 kg"), ("100%", "1 m"), ("5 mm", "5 m"), ("2 kg", "200 g"), ("1 km", "1 Km")]
    agree(exercises, pairs, False)
    pairs = [("1.1 km", "1,100m"), ("0.1km", "100 m"), ("25 cm", "1/4 m"), ("10 mm", "1cm"), ("2.2 kg", "2200 g")]
    pairs += [("1.5 h", "90min"), ("0.3 min", "18  s"), ("1/3 h", "20 min"), ("-3 m", "-300cm"), ("1,500 m", "3/2km")]
    agree(exercises, pairs, True)


@exercise("verify_math", weight=2)
def test_what_is_no_value_is_text(exercises):
    """Texts are equal up to case and spaces; a text never is a value."""
    pairs = [("Paris", " paris\n"), ("New  York", "new york"), ("x + 1", "X + 1"), ("5 apples", "5  Apples"), ("", " ")]
    pairs += [("1/0", "1/0"), ("3 + 4", "3 + 4"), ("1,23", "1,23"), ("7 %%", "7 %%"), ("5 KM", "5 km ".upper())]
    agree(exercises, pairs, True)
    pairs = [("Paris", "Rome"), ("NewYork", "New York"), ("seven", "7"), ("", "0"), ("1/0", "2/0"), ("5 apples", "5")]
    pairs += [("1/0", "0"), ("x", "x + 1"), ("the answer is 7", "7"), ("7.", "8."), ("1,23", "123"), ("12,34", "1234")]
    pairs += [("1,2345", "12345"), ("7 m s", "7 m"), ("5 % m", "5 m"), ("--5", "5"), ("1/2/3", "1/6"), ("nan", "0")]
    pairs += [("7 and 8", "7"), ("1 2", "12"), ("inf", "0"), ("0x10", "16")]
    agree(exercises, pairs, False)


@exercise("verify_math", weight=2)
def test_answers_are_never_evaluated(exercises):
    """An expression is text, even one that would give the value."""
    pairs = [
        ("3 + 4", "7"),
        ("2*6", "12"),
        ("2**3", "8"),
        ("len('ab')", "2"),
        ("(5)", "5"),
        ("7-0", "7"),
        ("1_0", "10"),
    ]
    pairs += [("[5][0]", "5"), ("int('5')", "5"), ("True", "1"), ("10**10**10", "0"), ("1e1", "10")]
    agree(exercises, pairs, False)
    exact(exercises.verify_math("__import__('os')", "__import__('os')"), True, "a text and itself")


def writings(value, rng):
    """Ways to write one fraction whose denominator divides 1000, and one value near it."""
    sign, size = ("-" if value < 0 else ""), abs(value)
    k = rng.random.randrange(2, 9)
    thousandths = int(size * 1000)
    decimal = f"{thousandths // 1000}.{thousandths % 1000:03d}"
    percent = f"{thousandths // 10}.{thousandths % 10}0"
    return [
        f"{sign}{size.numerator}/{size.denominator}",
        f" {sign}{size.numerator * k} / {size.denominator * k}",
        f"{sign}{decimal}",
        f"{sign} {thousandths // 1000:,}.{thousandths % 1000:03d}0",
        f"{sign}{percent}%",
        f"{sign}{percent}  % ",
    ]


@exercise("verify_math", weight=2)
def test_rewriting_never_changes_the_verdict(exercises, rng):
    """All ways of writing a number agree, and none with its neighbour."""
    for _ in range(4):
        value = Fraction(rng.random.randrange(-2_000_000, 2_000_000), 1000)
        ways, near = writings(value, rng), writings(value + Fraction(1, 1000), rng)
        for i, way in enumerate(ways):
            exact(exercises.verify_math(way, ways[i - 1]), True, f"verify_math({way!r}, {ways[i - 1]!r})")
            exact(exercises.verify_math(way, near[i - 2]), False, f"verify_math({way!r}, {near[i - 2]!r})")


@exercise("verify_math", weight=2)
def test_vote_adds_scores(exercises):
    """The answer with the largest sum wins, not the most or the best."""
    cases = [
        (["a", "b", "b", "b"], [0.75, 0.0, 0.5, 1.0], "b"),  # the best on average is a
        (["b", "a", "b"], [4.0, 2.0, 0.5], "b"),  # the last score of a is higher than that of b
        (["a", "b", "b", "c"], [0.5, 0.25, 0.375, 0.125], "b"),  # the best single sample is a
        (["a", "a", "a", "b"], [0.125, 0.125, 0.125, 0.5], "b"),  # the most frequent is a
        (["a", "b", "a", "b"], [1.0, 2.0, 4.0, 2.5], "a"),
        (["7"], [0.0], "7"),
    ]
    for answers, scores, winner in cases:
        exact(pure(exercises.weighted_vote, answers, scores), winner, f"weighted_vote({answers}, {scores})")


@exercise("verify_math", weight=2)
def test_vote_pools_equal_values(exercises):
    """Equal values are one answer, written as it first was."""
    answers = [" 7", "8", "8", "7 "]
    exact(exercises.weighted_vote(answers, [0.5, 0.375, 0.375, 0.5]), " 7", f"the vote of {answers}")
    answers = ["7", "1/2", "50 %", "7.5", "0.50", "2/4"]
    exact(exercises.weighted_vote(answers, [1.0, 0.5, 0.25, 0.75, 0.25, 0.25]), "1/2", f"the vote of {answers}")
    answers = ["100 cm", "100", " 1 m", "Paris", "0.001km", "PARIS"]
    exact(exercises.weighted_vote(answers, [0.5, 2.0, 1.0, 1.25, 1.0, 1.0]), "100 cm", f"the vote of {answers}")
    exact(exercises.weighted_vote([" 0.50 ", "1/2"], [0.0, 3.0]), " 0.50 ", "the way of writing that comes first")


@exercise("verify_math")
def test_ties_and_silence(exercises):
    """Ties go to the first answer, and None is never elected."""
    cases = [
        (["b", "a", "a", "b"], [0.25, 0.5, 0.5, 0.75], "b"),
        (["c", "b", "a"], [0.5, 0.75, 0.75], "b"),
        (["b", "a"], [0.0, 0.0], "b"),
        ([None, "a", None], [5.0, 0.25, 5.0], "a"),
        ([None, "a"], [1.0, 0.0], "a"),
        ([None, None], [1.0, 2.0], None),
        ([], [], None),
    ]
    for answers, scores, winner in cases:
        exact(exercises.weighted_vote(answers, scores), winner, f"weighted_vote({answers}, {scores})")
    for answers, scores in ((["a", "b"], [1.0]), (["a"], [1.0, 2.0]), ([], [1.0])):
        with pytest.raises(ValueError):
            exercises.weighted_vote(answers, scores)


# --- process_score, tree_search ---------------------------------------------------------------------------------------


@exercise("process_score", weight=2)
def test_three_ways_to_sum_up_a_solution(exercises, rng):
    """The weakest step, the log of the product, or the last step."""
    for n in (1, 2, 6):
        p = 0.1 + 0.9 * rng.uniform(n)
        probs = p.tolist()
        for steps in (probs, p):
            close(exercises.process_score(steps, "min"), min(probs), f"min of {probs}")
            close(exercises.process_score(steps, how="last"), probs[-1], f"last of {probs}")
            close(exercises.process_score(steps, "prod"), math.log(math.prod(probs)), f"prod of {probs}")
        holds(type(exercises.process_score(p)) is float, "the result is not a float")
    exact(exercises.process_score([0.75, 0.25, 0.5]), 0.25, "process_score without how")
    exact(exercises.process_score([0.25, 0.75, 0.5], "last"), 0.5, "the last of three steps")


@exercise("process_score")
def test_long_solutions_are_still_told_apart(exercises):
    """Thousands of steps have a product that no float can hold."""
    close(exercises.process_score([0.5] * 3000, "prod"), 3000 * math.log(0.5), "prod of 3000 steps of 0.5")
    close(exercises.process_score([1e-200, 1e-200], "prod"), -400 * math.log(10), "prod of two steps of 1e-200")
    close(exercises.process_score([1.0] * 50, "prod"), 0.0, "prod of certain steps")


@exercise("process_score")
def test_impossible_step_and_errors(exercises):
    """A step of probability 0 ruins the product; unknown names are errors."""
    exact(exercises.process_score([0.5, 0.0, 1.0], "prod"), -INF, "prod with a step of 0")
    exact(exercises.process_score([0.5, 0.0, 1.0], "min"), 0.0, "min with a step of 0")
    exact(exercises.process_score([0.0, 1.0], "last"), 1.0, "last after a step of 0")
    for steps, how in (([0.5], "mean"), ([0.5], "MIN"), ([], "min"), ([], "prod"), ([], "last")):
        with pytest.raises(ValueError):
            exercises.process_score(steps, how)


class Tree:
    """A random tree: the same path always has the same steps and the same value."""

    def __init__(self, rng, branching, depth, stop=0.0):
        self.steps, self.values = {}, {}
        level = [()]
        for _ in range(depth + 2):
            for path in level:
                ends = path and rng.random.random() < stop
                self.steps[path] = [] if ends else [chr(97 + i) for i in range(branching)]
            level = [(*path, step) for path in level for step in self.steps[path]]
        for path in [*self.steps, *level]:
            self.values[path] = rng.random.random()
        self.expand = counting(lambda path: self.steps[tuple(path)])
        self.value = counting(lambda path: self.values[tuple(path)])

    def complete(self, depth):
        """All complete paths of at most depth steps."""
        return [p for p in self.values if len(p) == depth or (len(p) < depth and not self.steps[p])]


SIZES = ((3, 4, 2), (2, 3, 8), (4, 3, 3), (3, 5, 2))
"""Branching, depth and width of some searches."""


def beam(tree, width, depth):
    """What is kept at each level, by rank; written over whole levels, apart from any bookkeeping of calls."""
    ends, kept = [], [()]
    for _ in range(depth):
        ends += [path for path in kept if not tree.steps[path]]
        level = [(*path, step) for path in kept for step in tree.steps[path]]
        kept = [p for p in level if sum(tree.values[q] > tree.values[p] for q in level) < width]
    return max(ends + kept, key=tree.values.__getitem__)


@exercise("process_score", weight=2)
def test_wide_search_is_exhaustive(exercises, rng):
    """With room for every path it finds the best complete one."""
    for branching, depth, stop in ((3, 3, 0.0), (2, 4, 0.3), (4, 2, 0.4), (3, 3, 0.5)):
        tree = Tree(rng, branching, depth, stop)
        best = max(tree.complete(depth), key=tree.values.__getitem__)
        got = exercises.tree_search(tree.expand, tree.value, branching**depth, depth)
        exact(tuple(got), best, f"the best of a tree with {branching} branches and depth {depth}")


@exercise("process_score", weight=3)
def test_narrow_search_keeps_the_best_of_each_level(exercises, rng):
    """Of each level the `width` best paths go on, by their own value."""
    for branching, depth, width, stop in (
        (3, 4, 1, 0.0),
        (3, 4, 2, 0.0),
        (2, 5, 3, 0.2),
        (4, 3, 2, 0.3),
        (3, 4, 4, 0.4),
    ):
        tree = Tree(rng, branching, depth, stop)
        got = exercises.tree_search(tree.expand, tree.value, width=width, depth=depth)
        exact(tuple(got), beam(tree, width, depth), f"search with width {width} and depth {depth}")


@exercise("process_score", weight=2)
def test_children_are_judged_by_their_own_value(exercises):
    """Neither a parent's value nor a sum over the path decides."""
    values = {("a",): 0.9, ("b",): 0.5, ("c",): 0.1}
    values |= {("a", "x"): 0.2, ("a", "y"): 0.3, ("b", "x"): 0.25, ("b", "y"): 0.4, ("c", "x"): 1.0, ("c", "y"): 0.0}
    values |= {(*p, s): v for p, s, v in ((("a", "y"), "l", 0.8), (("b", "y"), "l", 0.85), (("a", "x"), "l", 2.0))}
    steps = {(): list("abc"), ("a",): list("xy"), ("b",): list("xy"), ("c",): list("xy")}

    def expand(path):
        return steps.get(tuple(path), ["l"])

    def value(path):
        return values.get(tuple(path), 0.0)

    for width, depth, best in ((2, 2, ("b", "y")), (1, 2, ("a", "y")), (3, 2, ("c", "x")), (2, 3, ("b", "y", "l"))):
        got = exercises.tree_search(expand, value, width, depth)
        exact(tuple(got), best, f"tree_search with width {width} and depth {depth}")


@exercise("process_score", weight=2)
def test_early_ends_compete_with_long_paths(exercises):
    """A short complete path wins if it is better, and only then."""
    steps = {(): [1, 2, 3], (1,): [], (2,): [4], (3,): [5, 6], (2, 4): [], (3, 5): [7], (3, 6): []}

    def best(worth, width, depth):
        expand = lambda path: steps.get(tuple(path), [])  # noqa: E731
        return tuple(exercises.tree_search(expand, lambda path: worth[tuple(path)], width, depth))

    worth = {(1,): 0.6, (2,): 0.5, (3,): 0.4, (2, 4): 0.3, (3, 5): 0.2, (3, 6): 0.1, (3, 5, 7): 0.55}
    exact(best(worth, 3, 3), (1,), "a path of one step with the highest value")
    exact(best(worth | {(3, 5, 7): 0.7}, 3, 3), (3, 5, 7), "a path of three steps with the highest value")
    exact(best(worth | {(3,): 5.0}, 3, 3), (1,), "when a path that goes on has a higher value")
    exact(best(worth, 1, 3), (1,), "a search of width 1 whose first choice is complete")
    exact(best(worth | {(3, 5): 0.9}, 3, 2), (3, 5), "a path cut at depth 2")
    exact(best(worth | {(2,): 0.7, (3,): 0.65, (3, 5, 7): 0.9}, 2, 3), (3, 5, 7), "two kept paths, none complete")


@exercise("process_score")
def test_complete_path_makes_room(exercises):
    """A path that has ended takes no place in the levels after it."""
    steps = {(): [1, 2, 3], (1,): [], (2,): [4, 5], (2, 4): [6], (2, 5): [7]}
    worth = {(1,): 0.9, (2,): 0.5, (3,): 0.1, (2, 4): 0.6, (2, 5): 0.55, (2, 4, 6): 0.92, (2, 5, 7): 0.99}
    got = exercises.tree_search(lambda path: steps.get(tuple(path), []), lambda path: worth[tuple(path)], 2, 3)
    exact(tuple(got), (2, 5, 7), "a search of width 2 in which the best first step is complete")


@exercise("process_score", weight=2)
def test_nothing_is_asked_twice(exercises, rng):
    """Each path is expanded and valued once at most, and within bounds."""
    searches = [(Tree(rng, branching, depth), branching, depth, width) for branching, depth, width in SIZES]
    for tree, _, depth, width in searches:
        exercises.tree_search(tree.expand, tree.value, width, depth)
    for tree, branching, depth, width in searches:
        for name, calls in (("expand", tree.expand), ("value", tree.value)):
            paths = [tuple(arguments[0]) for arguments in calls.arguments]
            exact(len(paths), len(set(paths)), f"different paths given to {name}, of {len(paths)} calls")
            holds(all(type(arguments[0]) is tuple for arguments in calls.arguments), f"{name} was not given a tuple")
        holds(() not in {arguments[0] for arguments in tree.value.arguments}, "value was asked for the empty path")
        holds(tree.value.calls <= width * branching * depth, f"value was called {tree.value.calls} times")
        holds(tree.expand.calls <= 1 + width * (depth - 1), f"expand was called {tree.expand.calls} times")
        holds(all(len(a[0]) < depth for a in tree.expand.arguments), "a path of full length was expanded")


@exercise("process_score")
def test_search_of_nothing(exercises):
    """Without depth or steps the empty path is the result."""
    exact(tuple(exercises.tree_search(lambda path: ["a"], lambda path: 1.0, 2, 0)), (), "depth 0")
    exact(tuple(exercises.tree_search(lambda path: [], lambda path: 1.0, 2, 3)), (), "a tree without steps")
    negative = exercises.tree_search(lambda path: [1, 2] if len(path) < 2 else [], lambda path: -1.0 - sum(path), 2, 5)
    exact(tuple(negative), (1, 1), "a tree with negative values, not as deep as allowed")


# --- group_advantages -------------------------------------------------------------------------------------------------


def by_groups(rewards, size, normalize, eps):
    """Each group by itself, in plain floats."""
    out = []
    for start in range(0, len(rewards), size):
        group = rewards[start : start + size]
        mean = math.fsum(group) / size
        std = math.sqrt(math.fsum((r - mean) ** 2 for r in group) / (size - 1))
        out += [(r - mean) / (std + eps if normalize else 1) for r in group]
    return torch.tensor(out, dtype=torch.float64)


@exercise("group_advantages", weight=3)
@pytest.mark.parametrize(("groups", "size"), [(3, 4), (2, 7), (5, 2), (1, 6)])
def test_each_group_has_its_own_mean_and_spread(exercises, rng, groups, size):
    """A reward is compared with its own group, neighbours in the list."""
    rewards = rng.normal(groups * size) * 3 + 5 * torch.arange(groups).repeat_interleave(size)
    for eps in (1e-6, 0.5, 0.0):
        got = pure(exercises.group_advantages, rewards, size, eps=eps)
        close(got, by_groups(rewards.tolist(), size, True, eps), f"{groups} groups of {size}, eps {eps}")
    close(exercises.group_advantages(rewards, size), by_groups(rewards.tolist(), size, True, 1e-6), "default eps")
    got = exercises.group_advantages(rewards, size, normalize_std=False, eps=0.5)
    close(got, by_groups(rewards.tolist(), size, False, 0.0), f"{groups} groups of {size} without the deviation")


@exercise("group_advantages")
def test_deviation_is_the_unbiased_one(exercises):
    """Two rewards stand half the root of two from their mean."""
    got = exercises.group_advantages(torch.tensor([0.0, 1.0, 7.0, 3.0]).double(), 2, eps=0.0)
    half = math.sqrt(0.5)
    close(got, torch.tensor([-half, half, half, -half], dtype=torch.float64), "advantages of (0, 1) and (7, 3)")


@exercise("group_advantages", weight=2)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_equal_rewards_teach_nothing(exercises, dtype):
    """A group of equal rewards gets zeros, to the last digit."""
    for size in (3, 6, 7, 1):
        for value in (0.1, 1 / 3, 0.0, 1.0, 1e6 + 0.1, -0.7, 1e-8):
            rewards = torch.full((2 * size,), value, dtype=dtype)
            for normalize, eps in ((True, 1e-6), (True, 0.0), (False, 1e-6)):
                got = exercises.group_advantages(rewards, size, normalize, eps)
                what = f"groups of {size} rewards of {value}, normalize_std={normalize}, eps={eps}"
                exact(got, torch.zeros_like(rewards), what)


@exercise("group_advantages")
def test_one_flat_group_does_not_flatten_others(exercises):
    """Beside a flat group the others keep their advantages."""
    rewards = torch.tensor([0.1, 0.1, 0.1, 1.0, 0.0, 0.0, 0.3, 0.3, 0.3]).double()
    got = exercises.group_advantages(rewards, 3, eps=0.25)
    expected = by_groups([1.0, 0.0, 0.0], 3, True, 0.25)
    close(got[3:6], expected, "the group in the middle")
    exact(got[[0, 1, 2, 6, 7, 8]], torch.zeros(6).double(), "the groups of equal rewards")


@exercise("group_advantages", weight=2)
def test_only_the_comparison_counts(exercises, rng):
    """Shift and scale of a group's rewards do not matter, and sums are 0."""
    rewards = rng.normal(20)
    got = exercises.group_advantages(rewards, 5, eps=0.0)
    shift = torch.tensor([3.0, -7.0, 0.0, 11.0], dtype=torch.float64).repeat_interleave(5)
    scale = torch.tensor([1.0, 9.0, 1e-7, 4.0], dtype=torch.float64).repeat_interleave(5)
    close(exercises.group_advantages(scale * rewards + shift, 5, eps=0.0), got, "shifted and scaled groups")
    roughly(got.view(4, 5).sum(1), torch.zeros(4).double(), 1e-9, "the sums of the groups")
    plain = exercises.group_advantages(rewards + shift, 5, normalize_std=False)
    roughly(plain.view(4, 5).sum(1), torch.zeros(4).double(), 1e-9, "the sums of the groups without the deviation")
    other = rewards.clone()
    other[7] += 2.0
    close(exercises.group_advantages(other, 5)[10:], exercises.group_advantages(rewards, 5)[10:], "the other groups")


@exercise("group_advantages")
def test_groups_must_divide(exercises, rng):
    """A group that is not full is an error, and dtype and order stay."""
    for n, size in ((7, 3), (3, 4), (10, 4)):
        with pytest.raises(ValueError):
            exercises.group_advantages(torch.zeros(n), size)
    table = rng.normal(6, 2)
    close(exercises.group_advantages(table[:, 1], 3), by_groups(table[:, 1].tolist(), 3, True, 1e-6), "a column")
    got = exercises.group_advantages(table[:, 0].float(), 2)
    close(got, by_groups(table[:, 0].float().tolist(), 2, True, 1e-6).float(), "float32 rewards")


# --- grpo_loss --------------------------------------------------------------------------------------------------------

MASK = torch.tensor(
    [
        [0, 1, 1, 1, 1, 0, 0],
        [0, 0, 1, 0, 0, 0, 0],
        [1, 1, 1, 1, 1, 1, 1],
        [0, 0, 0, 0, 0, 0, 0],
        [0, 1, 0, 1, 1, 0, 0],  # words of a tool in between
    ]
).bool()
AGGREGATIONS = ("seq", "token", "dr")


def batch(rng, B=5, T=7):
    """logp, old_logp, ref_logp (B, T) and advantages (B,), with ratios on both sides of every clip."""
    logp = -0.2 - rng.uniform(B, T)
    return logp, logp + 0.5 * rng.normal(B, T), logp + 0.7 * rng.normal(B, T), 1.5 * rng.normal(B) + 0.3


def term(logp, old, ref, A, eps, beta):
    """One token's objective, in floats."""
    rho, r = math.exp(logp - old), math.exp(ref - logp)
    return min(rho * A, min(max(rho, 1 - eps), 1 + eps) * A) - beta * (r - 1 - math.log(r))


def looped(tensors, mask, eps, beta, agg):
    """The loss by plain loops."""
    logp, old, ref, adv = (x.tolist() for x in tensors)
    rows = []
    for b, row in enumerate(mask.tolist()):
        at = [t for t, counts in enumerate(row) if counts]
        rows.append([term(logp[b][t], old[b][t], ref[b][t], adv[b], eps, beta) for t in at])
    if agg == "token":
        return -sum(map(sum, rows)) / sum(map(len, rows))
    parts = [sum(row) / (len(row) if agg == "seq" else 1) if row else 0.0 for row in rows]
    return -sum(parts) / len(rows)


@driver
def loss_gradients(module, tensors, options, wanted):
    """The loss and its gradients by the wanted ones of logp, old_logp, ref_logp and adv (None if none)."""
    leaves = [t.clone().requires_grad_(i in wanted) for i, t in enumerate(tensors)]
    loss = module.grpo_loss(*leaves, **options)
    loss.backward()
    return loss.detach(), [leaves[i].grad for i in wanted]


def options(eps=0.2, beta=0.3, agg="seq", mask=MASK):
    """The other arguments of grpo_loss."""
    return {"mask": mask, "eps": eps, "beta": beta, "agg": agg}


@exercise("grpo_loss", weight=3)
@pytest.mark.parametrize("agg", AGGREGATIONS)
def test_loss_is_what_loops_give(exercises, rng, agg):
    """Clip, leash and average as the formula says, token by token."""
    tensors = batch(rng)
    for eps, beta in ((0.2, 0.3), (0.1, 0.0), (0.35, 2.0)):
        got = pure(exercises.grpo_loss, *tensors, MASK, eps, beta, agg)
        expected = torch.tensor(looped(tensors, MASK, eps, beta, agg), dtype=torch.float64)
        close(got, expected, f"grpo_loss with eps {eps}, beta {beta}, agg {agg!r}")
    expected = torch.tensor(looped(tensors, MASK, 0.2, 0.3, "seq"), dtype=torch.float64)
    close(exercises.grpo_loss(*tensors, MASK, 0.2, 0.3), expected, "grpo_loss without agg")
    singles = [x.float() for x in tensors]
    expected = torch.tensor(looped(singles, MASK, 0.2, 0.3, agg), dtype=torch.float32)
    close(exercises.grpo_loss(*singles, MASK, 0.2, 0.3, agg=agg), expected, f"grpo_loss in float32, agg {agg!r}")


@exercise("grpo_loss", weight=2)
def test_three_averages_weigh_lengths_differently(exercises):
    """A token weighs 1/BL, one over all tokens, or 1/B."""
    mask = torch.tensor([[1, 0, 0, 0, 0], [1, 1, 1, 1, 0], [0, 1, 1, 0, 0]]).bool()
    logp, adv = torch.full((3, 5), -1.0).double(), torch.tensor([1.0, -1.0, 2.0]).double()
    lengths = mask.double().sum(1, keepdim=True)
    weights = {"seq": 1 / (3 * lengths), "token": 1 / lengths.sum(), "dr": 1 / 3}
    for agg, weight in weights.items():
        loss, (g,) = exercises.run(loss_gradients, [logp, logp, logp, adv], options(agg=agg, mask=mask), [0])
        expected = torch.where(mask, -adv[:, None] * weight, 0.0)
        close(g, expected, f"the gradient by logp at ratio 1, agg {agg!r}")
        close(loss, expected.sum(), f"the loss at ratio 1, agg {agg!r}")


@exercise("grpo_loss", weight=2)
@pytest.mark.parametrize("agg", AGGREGATIONS)
def test_gradient_is_that_of_the_formula(exercises, rng, agg):
    """Nudging a log-probability changes the loss as the gradient says."""
    logp, *rest = batch(rng)

    def loss(x):
        return torch.tensor(looped((x, *rest), MASK, 0.2, 0.3, agg), dtype=torch.float64)

    value, (g,) = exercises.run(loss_gradients, [logp, *rest], options(agg=agg), [0])
    # Central differences in float64 are good to about 1e-9 here; the gradients are about 0.1.
    roughly(g, numerical_gradient(loss, logp), 1e-6, f"the gradient by logp, agg {agg!r}")


@exercise("grpo_loss", weight=2)
def test_clip_has_one_side_for_each_sign(exercises):
    """The gradient ends only where the ratio went too far the good way."""
    table = [(1.5, 1.0), (0.5, 1.0), (1.5, -1.0), (0.5, -1.0), (1.1, 2.0), (0.9, -2.0)]
    rho, A = (torch.tensor(column, dtype=torch.float64) for column in zip(*table, strict=True))
    logp, mask = rho.log()[:, None] - 1.0, torch.ones(6, 1).bool()
    old = torch.full_like(logp, -1.0)
    _, (g,) = exercises.run(loss_gradients, [logp, old, old, A], options(beta=0.0, mask=mask), [0])
    stopped = ((A > 0) & (rho > 1.2)) | ((A < 0) & (rho < 0.8))
    close(g[:, 0], torch.where(stopped, 0.0, -rho * A / 6), f"the gradient for ratios and advantages {table}")


@exercise("grpo_loss", weight=2)
def test_leash_is_k3_of_the_present_policy(exercises, rng):
    """Without advantages what is left is beta times the mean of k3."""
    logp, old, ref, _ = batch(rng)
    none = torch.zeros(5, dtype=torch.float64)
    r = torch.exp(ref - logp)
    k3 = torch.where(MASK, r - 1 - r.log(), 0.0)
    got = exercises.grpo_loss(logp, old, ref, none, MASK, 0.2, 0.7, "token")
    close(got, 0.7 * k3.sum() / MASK.sum(), "grpo_loss without advantages, beta 0.7")
    _, (g,) = exercises.run(loss_gradients, [logp, old, ref, none], options(beta=0.7, agg="token"), [0])
    close(g, torch.where(MASK, 0.7 * (1 - r) / MASK.sum(), 0.0), "its gradient by logp")
    bare = exercises.grpo_loss(logp, old, ref + 5, 2 + none, MASK, 0.2, 0.0, "dr")
    close(bare, exercises.grpo_loss(logp, old, ref, 2 + none, MASK, 0.2, 0.0, "dr"), "another reference at beta 0")


@exercise("grpo_loss", weight=2)
@pytest.mark.parametrize("agg", AGGREGATIONS)
def test_what_is_no_token_is_inert(exercises, rng, agg):
    """Infinite or NaN padding changes neither loss nor gradient."""
    tensors = batch(rng)
    value, (g,) = exercises.run(loss_gradients, tensors, options(agg=agg), [0])
    exact(g[~MASK], torch.zeros(int((~MASK).sum()), dtype=torch.float64), "the gradient outside the mask")
    for filling in ((3.0, -3.0, 9.0), (-INF, -INF, -INF), (NAN, 0.0, 0.0), (0.0, -INF, NAN), (0.0, NAN, INF)):
        filled = [x.where(MASK, y) for x, y in zip(tensors[:3], filling, strict=True)]
        got, (h,) = exercises.run(loss_gradients, [*filled, tensors[3]], options(agg=agg), [0])
        what = f"with {filling} in logp, old_logp and ref_logp outside the mask, agg {agg!r}"
        close(got, value, f"grpo_loss {what}")
        close(h, g, f"its gradient {what}")


@exercise("grpo_loss")
@pytest.mark.parametrize("agg", AGGREGATIONS)
def test_width_of_the_padding_does_not_matter(exercises, rng, agg):
    """More columns of padding leave the loss as it was."""
    tensors = batch(rng)
    wide = [torch.nn.functional.pad(x, (2, 3), value=-4.0) for x in tensors[:3]]
    mask = torch.nn.functional.pad(MASK, (2, 3))
    got = exercises.grpo_loss(*wide, tensors[3], mask, 0.2, 0.3, agg)
    close(got, exercises.grpo_loss(*tensors, MASK, 0.2, 0.3, agg), f"grpo_loss with five more columns, agg {agg!r}")


@exercise("grpo_loss")
@pytest.mark.parametrize("agg", AGGREGATIONS)
def test_advantages_are_used_as_they_come(exercises, rng, agg):
    """They are neither centred nor scaled again, and shared by a row."""
    logp, _, _, adv = batch(rng)
    lengths = MASK.double().sum(1)
    weights = {"seq": lengths.sign() / 5, "token": lengths / lengths.sum(), "dr": lengths / 5}[agg]
    for A in (adv, adv + 3, 7 * adv, torch.ones(5).double()):
        got = exercises.grpo_loss(logp, logp, logp, A, MASK, 0.2, 0.3, agg)
        close(got, -(weights * A).sum(), f"grpo_loss at ratio 1 with advantages {A.tolist()}, agg {agg!r}")


@exercise("grpo_loss")
@pytest.mark.parametrize("agg", AGGREGATIONS)
def test_gradients_reach_the_new_policy_alone(exercises, rng, agg):
    """Old policy, reference and advantages get no gradient."""
    _, (g, *others) = exercises.run(loss_gradients, batch(rng), options(agg=agg), [0, 1, 2, 3])
    holds(bool((g[MASK] != 0).any()), "no gradient reaches logp")
    for name, other in zip(("old_logp", "ref_logp", "adv"), others, strict=True):
        holds(other is None or not other.any(), f"a gradient reaches {name}")


@driver
def nothing_to_learn(module, agg):
    """Value and gradient of a loss without tokens; a loss that hangs on nothing has the gradient zero."""
    import torch

    x = torch.full((2, 3), -1.0, dtype=torch.float64, requires_grad=True)
    y, mask = x.detach() - 0.5, torch.zeros(2, 3, dtype=torch.bool)
    loss = module.grpo_loss(x, y, y, torch.ones(2, dtype=torch.float64), mask, 0.2, 0.5, agg)
    if isinstance(loss, torch.Tensor) and loss.requires_grad:
        loss.backward()
    return torch.as_tensor(loss, dtype=x.dtype).detach(), [torch.zeros_like(x.detach()) if x.grad is None else x.grad]


@exercise("grpo_loss")
def test_no_token_far_policies_and_errors(exercises):
    """Nothing to learn is 0, log-ratios of 20 are finite, names are checked."""
    for agg in AGGREGATIONS:
        value, (g,) = exercises.run(nothing_to_learn, agg)
        exact(value, torch.zeros((), dtype=torch.float64), f"grpo_loss without any token, agg {agg!r}")
        exact(g, torch.zeros(2, 3, dtype=torch.float64), f"its gradient, agg {agg!r}")
    logp, old = torch.tensor([[-1.0], [-21.0]]).double(), torch.tensor([[-21.0], [-1.0]]).double()
    A, far = torch.tensor([-1.0, 1.0]).double(), math.exp(20.0)
    got = exercises.grpo_loss(logp, old, logp, A, torch.ones(2, 1).bool(), 0.2, 0.5, "dr")
    close(got / far, torch.tensor((1 - 1 / far**2) / 2).double(), "grpo_loss for log-ratios of +-20, over e^20")
    for agg in ("mean", "SEQ", ""):
        with pytest.raises(ValueError):
            exercises.grpo_loss(logp, old, logp, A, torch.ones(2, 1).bool(), 0.2, 0.5, agg)


# --- grpo_toy ---------------------------------------------------------------------------------------------------------


def planted(rng, P, T, V, lr=0.2, pay=None):
    """A task with one right answer a prompt, and its right answers. `pay` turns (prompts, right) into rewards."""
    gold = rng.integers(0, V, P, T)

    def verify(prompts, answers):
        right = (answers == gold[prompts]).all(1).double()
        return right if pay is None else pay(prompts, right)

    return {"prompts": P, "length": T, "words": V, "lr": lr, "verify": counting(verify)}, gold


def share_right(task, gold, rounds):
    """The share of right answers among those drawn in the last rounds."""
    calls = task["verify"].arguments[-rounds:]
    return sum((a == gold[p]).all(1).double().mean().item() for p, a in calls) / len(calls)


@exercise("grpo_toy", weight=3)
@pytest.mark.parametrize(("P", "T", "V"), [(40, 1, 10), (30, 2, 4), (12, 4, 2)])
def test_hundred_rounds_teach_the_answers(exercises, rng, P, T, V):
    """From chance to nearly always right in a hundred rounds."""
    task, gold = planted(rng, P, T, V)
    rewards = exercises.grpo_toy(task, 100, 3)
    exact(len(rewards), 100, "the number of mean rewards for 100 rounds")
    holds(rewards[0] < 0.35, f"the first mean reward is {rewards[0]:.2f}, but the policy knows nothing yet")
    late = share_right(task, gold, 10)
    holds(late >= 0.95, f"in the last ten rounds {late:.2f} of the answers were right, P={P}, T={T}, V={V}")
    holds(sum(rewards[-10:]) / 10 >= 0.95, f"the mean rewards end with {rewards[-10:]}")


@exercise("grpo_toy", weight=2)
def test_each_round_asks_the_checker_once(exercises, rng):
    """All answers of a round are checked at once, prompt after prompt."""
    P, T, V = 7, 3, 4
    task, gold = planted(rng, P, T, V)
    rewards = exercises.grpo_toy(task, 6, 1)
    exact(task["verify"].calls, 6, "calls of verify in 6 rounds")
    for (prompts, answers), reward in zip(task["verify"].arguments, rewards, strict=True):
        G = len(prompts) // P
        exact(prompts, torch.arange(P).repeat_interleave(G), "the prompts given to verify")
        holds(G >= 2, f"there are {len(prompts)} answers to {P} prompts; a group has at least two")
        exact((tuple(answers.shape), answers.dtype), ((P * G, T), torch.int64), "shape and dtype of the answers")
        holds(bool(((answers >= 0) & (answers < V)).all()), "an answer has a word outside of 0 ... V - 1")
        close(reward, (answers == gold[prompts]).all(1).double().mean().item(), "the mean reward of a round")
    holds(all(type(reward) is float for reward in rewards), "the result holds other things than floats")
    exact(exercises.grpo_toy(task, 0, 1), [], "the result for no rounds")


@exercise("grpo_toy", weight=2)
def test_nothing_is_learned_without_a_step(exercises, rng):
    """With learning rate 0 all answers stay equally likely."""
    task, _ = planted(rng, 4, 2, 3, lr=0.0)
    exercises.grpo_toy(task, 60, 4)
    prompts, answers = (torch.cat(column) for column in zip(*task["verify"].arguments, strict=True))
    counts = torch.bincount(prompts * 9 + answers[:, 0] * 3 + answers[:, 1], minlength=36)
    same_distribution(counts, torch.ones(36), "answers of two words out of three to four prompts, learning rate 0")


@exercise("grpo_toy", weight=3)
def test_only_comparisons_within_a_group_matter(exercises, rng):
    """Prompts that pay more, or fine every answer, are learned as well."""
    task, gold = planted(rng, 40, 1, 10, pay=lambda prompts, right: right + 3.0 * (prompts % 5) - 6.0)
    exercises.grpo_toy(task, 100, 2)
    late = share_right(task, gold, 10)
    holds(late >= 0.95, f"with payments that differ by prompt, {late:.2f} of the last answers were right")


@exercise("grpo_toy")
def test_random_rewards_teach_nothing(exercises, rng):
    """A checker that throws a coin leaves the policy at chance."""
    coin = rng.generator()
    task, gold = planted(rng, 150, 1, 10, pay=lambda p, right: torch.rand(len(p), generator=coin).double().round())
    exercises.grpo_toy(task, 40, 5)
    late = share_right(task, gold, 5)
    # 150 prompts, each right with probability 0.1 even if its policy has settled: 0.1 + 6 standard deviations of 0.0245
    holds(late < 0.25, f"{late:.2f} of the answers are right, though the rewards were drawn by a coin")


@exercise("grpo_toy")
def test_what_is_paid_is_what_is_learned(exercises, rng):
    """If the right answer costs, it is avoided."""
    task, gold = planted(rng, 30, 1, 3, pay=lambda prompts, right: -right)
    exercises.grpo_toy(task, 60, 6)
    late = share_right(task, gold, 10)
    holds(late < 0.05, f"{late:.2f} of the last answers are the one that costs")


@driver
def disturbed(module, task, steps, seed, disturbance):
    """Run after disturbing torch's global generator."""
    import torch

    torch.manual_seed(disturbance)
    return module.grpo_toy(task, steps, seed)


@exercise("grpo_toy")
def test_arguments_alone_decide_the_run(exercises, rng):
    """The same seed gives the same run, another seed another one."""
    task, _ = planted(rng, 9, 2, 5)
    one, two, other = (exercises.run(disturbed, task, 4, seed, state) for seed, state in ((8, 1), (8, 2), (9, 1)))
    calls = task["verify"].arguments
    holds(all(torch.equal(calls[i][1], calls[4 + i][1]) for i in range(4)), "the same seed drew other answers")
    exact(two, one, "the mean rewards of two runs with one seed")
    holds(not torch.equal(calls[0][1], calls[8][1]), "another seed drew the very same answers")
