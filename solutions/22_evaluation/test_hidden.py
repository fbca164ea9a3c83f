"""The whole contract of chapter 22, against brute force, exact distributions, scripted models and real programs."""

import collections
import itertools
import math
import string
import tomllib
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch

from grader.testing import close, counting, driver, exact, exercise, holds, pure, roughly, same_distribution

DOUBLE = torch.float64
INF = math.inf

# --- score_multiple_choice --------------------------------------------------------------------------------------------


class Vocabulary:
    """A tokenizer: the longest piece of a list that fits, else a single character."""

    def __init__(self, pieces=()):
        self.pieces, self.ids = sorted(pieces, key=len, reverse=True), {}

    def __call__(self, text):
        ids = []
        while text:
            piece = next((p for p in self.pieces if text.startswith(p)), text[0])
            ids.append(self.ids.setdefault(piece, len(self.ids)))
            text = text[len(piece) :]
        return ids


def scripted(costs, default=-1.0):
    """A model that gives a token its log-probability by its id alone; what is not in `costs` has `default`."""
    return lambda ids: torch.tensor([costs.get(i, default) for i in ids], dtype=DOUBLE)


def noisy(seed):
    """A model whose log-probabilities depend on the whole past, each a multiple of 1/1024, so that sums are exact."""

    def logprobs(ids):
        out, state = [], seed
        for i in ids:
            state = (state * 69069 + 12345 + 7 * i) % (1 << 32)
            out.append(-(1 + (state >> 20) % 4096) / 1024)
        return torch.tensor(out, dtype=DOUBLE)

    return logprobs


def best_by_definition(logprob_fn, encode, prompt, choices, normalize):
    """Score each choice as the docstring says, one token at a time; give the scores."""
    prompt, scores = prompt.rstrip(), []
    for choice in choices:
        ids, before = encode(prompt + " " + choice.strip()), encode(prompt)
        start = next((i for i in range(len(ids)) if ids[i : i + 1] != before[i : i + 1]), len(ids))
        values = logprob_fn(ids).tolist()
        total = sum(values[i] for i in range(start, len(ids)))
        divisor = {"none": 1, "tokens": len(ids) - start, "bytes": len(choice.strip().encode("utf-8"))}[normalize]
        scores.append(total / divisor)
    return scores


PROMPT = "What does a mill grind?"
CHOICES = ["corn", "the old stones of the river", "größere Körner", "it", "nothing at all"]


@exercise("score_multiple_choice", weight=2)
@pytest.mark.parametrize("normalize", ["none", "tokens", "bytes"])
def test_choice_is_that_of_the_definition(exercises, rng, normalize):
    """It takes the choice that brute force over the tokens takes."""
    encode = Vocabulary([" the", " of", "ill", "or", " n"])
    for seed in rng.integers(0, 1 << 30, 8).tolist():
        scores = best_by_definition(noisy(seed), encode, PROMPT, CHOICES, normalize)
        got = exercises.score_multiple_choice(noisy(seed), encode, PROMPT, CHOICES, normalize)
        exact(got, scores.index(max(scores)), f"the choice with normalize={normalize!r}")


@exercise("score_multiple_choice", weight=2)
def test_prompt_has_no_part_in_the_score(exercises):
    """Neither the sum nor the mean counts a token of the prompt."""
    encode = Vocabulary()
    high, low = encode("x")[0], encode("y")[0]
    model = scripted({high: -0.125, low: -2.0, encode(" ")[0]: -0.5})
    # means of own tokens: " x" -0.3125 against " xxx" -0.21875; with the prompt's -2.0 in the mean, too, longer wins
    exact(exercises.score_multiple_choice(model, encode, "yyyyyy", ["xxx", "x"], "none"), 1, "sums -0.875 and -0.625")
    exact(exercises.score_multiple_choice(model, encode, "xxxxxx", ["y", "yx"], "tokens"), 1, "means -1.25 and -0.875")
    exact(exercises.score_multiple_choice(model, encode, "xxxxxx", ["yy", "x"], "tokens"), 1, "means -1.5 and -0.3125")


@exercise("score_multiple_choice")
def test_choice_may_change_the_last_token_of_the_prompt(exercises):
    """A token that spans the seam belongs to the choice."""
    encode = Vocabulary([": C", ": D", " F"])
    costs = {": C": -5.0, ": D": -1.0, " F": -2.0, "C": -3.0, "D": -0.125, "F": -0.0625}
    model = scripted({encode(piece)[0]: cost for piece, cost in costs.items()}, -0.25)
    got = exercises.score_multiple_choice(model, encode, "Answer:", ["C", "D", "E", "F"], "none")
    exact(got, 2, "the choice when ': C', ': D', ' F' cost 5, 1, 2 as one token, and ' E' costs 0.5 as two")
    merged = {encode(": C")[0]: -5.0, encode(": D")[0]: -1.0}
    got = exercises.score_multiple_choice(scripted(merged, -0.75), encode, "Answer:", ["C", "D", "E"], "none")
    exact(got, 1, "the choice when ': C' and ': D' cost 5 and 1, and all others 0.75")


@exercise("score_multiple_choice", weight=2)
def test_model_reads_one_text_a_choice(exercises):
    """The model is asked once a choice, about prompt, one space and choice."""
    encode = Vocabulary([" corn", "grind"])
    expected = [encode(f"{PROMPT} {choice}") for choice in ("corn", "it is", "no")]
    for prompt, choices in ((PROMPT, ["corn", "it is", "no"]), (f"{PROMPT} \n", [" corn", "it is \n", "\tno "])):
        model = counting(noisy(3))
        got = pure(exercises.score_multiple_choice, model, encode, prompt, choices, "bytes")
        exact(model.calls, 3, "calls of the model for three choices")
        exact(sorted(list(ids) for (ids,) in model.arguments), sorted(expected), "the ids that the model was given")
        scores = best_by_definition(noisy(3), encode, prompt, choices, "bytes")
        exact(got, scores.index(max(scores)), "the choice, with whitespace around")


@exercise("score_multiple_choice")
def test_bytes_are_those_of_the_choice(exercises):
    """Dividing by bytes counts UTF-8 bytes, and not the space in front."""
    encode = Vocabulary([" ää", " abc", " aaaaaaaa", " abcde"])
    costs = {encode(" ää")[0]: -4.0, encode(" abc")[0]: -3.75}  # per byte -1 and -1.25, per character -2 and -1.25
    got = exercises.score_multiple_choice(scripted(costs), encode, "Q", ["abc", "ää"], "bytes")
    exact(got, 1, "'ää' at -4 against 'abc' at -3.75, by bytes")
    costs = {encode(" aaaaaaaa")[0]: -8.0, encode(" abc")[0]: -2.875}  # with the space: -8/9 and -2.875/4
    exact(exercises.score_multiple_choice(scripted(costs), encode, "Q", ["aaaaaaaa", "abc"], "bytes"), 1, "8 bytes")
    costs = {encode(" abcde")[0]: -5.25, encode(" abc")[0]: -3.25}  # -1.05 and -1.083; with the space -0.875, -0.8125
    exact(exercises.score_multiple_choice(scripted(costs), encode, "Q", ["abc", "abcde"], "bytes"), 1, "5 bytes")


@exercise("score_multiple_choice")
def test_ties_go_to_the_lowest_index(exercises):
    """Of equally probable choices the first is taken, impossible ones too."""
    encode = Vocabulary()
    for choices, expected in ((["ab", "a", "b"], 1), (["abc", "b", "x", "y"], 1), (["a", "b"], 0)):
        exact(exercises.score_multiple_choice(scripted({}), encode, "Q", choices, "none"), expected, f"of {choices}")
    exact(exercises.score_multiple_choice(scripted({}), encode, "Q", ["bb", "a", "ccc"], "tokens"), 0, "equal means")
    exact(exercises.score_multiple_choice(scripted({}, -INF), encode, "Q", ["a", "b"], "none"), 0, "all impossible")
    model = scripted({encode("a")[0]: -INF})
    exact(exercises.score_multiple_choice(model, encode, "Q", ["a", "bbb"], "none"), 1, "one impossible choice")


@exercise("score_multiple_choice")
def test_by_default_nothing_is_divided(exercises):
    """The default is the sum, an empty prompt is allowed."""
    encode = Vocabulary()
    exact(exercises.score_multiple_choice(scripted({}), encode, "", ["aaa", "b", "cc"]), 1, "flat costs, no prompt")
    model = scripted({encode(" ")[0]: -3.0, encode("a")[0]: -0.5})
    exact(exercises.score_multiple_choice(model, encode, "Q", ["b", "aaaaa"]), 0, "sums of -4 and -5.5")


@exercise("score_multiple_choice")
@pytest.mark.parametrize(
    ("choices", "normalize"), [([], "none"), (["a", ""], "none"), (["a", "  "], "bytes"), (["a", "b"], "chars")]
)
def test_choices_that_cannot_be_scored_are_refused(exercises, choices, normalize):
    """No choices, an empty choice or an unknown normalization raise."""
    with pytest.raises(ValueError):
        exercises.score_multiple_choice(scripted({}), Vocabulary(), "Q", choices, normalize)


def questions_of_the_course():
    """The single-choice questions of all chapters that are there, and the notes of the same chapters."""
    folder = Path(__file__).resolve().parents[2] / "chapters"
    found, notes = [], []
    for quiz in sorted(folder.glob("*/quiz.toml")):
        one = [q for q in tomllib.loads(quiz.read_text(encoding="utf-8"))["questions"] if q["kind"] == "one"]
        found += [(q["question"], [option["text"] for option in q["options"]]) for q in one]
        notes += [quiz.with_name("README.md").read_text(encoding="utf-8")] if one else []
    return found, "\n".join(notes)


@exercise("score_multiple_choice", weight=2)
def test_quiz_of_the_course_is_taken(exercises, rng):
    """A small model takes the course's own quiz as brute force says."""
    questions, notes = questions_of_the_course()
    raw = np.frombuffer(notes.encode()[:300_000], dtype=np.uint8)
    pairs = np.bincount(raw[:-1].astype(int) * 256 + raw[1:], minlength=1 << 16).reshape(256, 256) + 0.5
    table = np.log(pairs / pairs.sum(1, keepdims=True))  # a bigram model of bytes, counted from the notes

    def logprob_fn(ids):
        steps = table[np.array(ids[:-1], dtype=int), np.array(ids[1:], dtype=int)]
        return torch.from_numpy(np.concatenate([[-math.log(256)], steps]))

    def encode(text):
        return list(text.encode())

    for i in rng.permutation(len(questions))[:12].tolist():
        question, choices = questions[i]
        normalize = ("none", "tokens", "bytes")[i % 3]
        scores = best_by_definition(logprob_fn, encode, f"Question: {question}\nAnswer:", choices, normalize)
        got = exercises.score_multiple_choice(
            logprob_fn, encode, f"Question: {question}\nAnswer:", choices, normalize=normalize
        )
        # two sums in another order may differ by rounding, so near ties are both right
        holds(scores[got] >= max(scores) - 1e-9, f"the model finds another choice likelier for: {question[:60]}")


# --- pass_at_k --------------------------------------------------------------------------------------------------------


@exercise("pass_at_k", weight=3)
def test_pass_at_k_counts_groups(exercises):
    """It is the part of all groups of k that hold a right sample."""
    for n, c in ((7, 3), (6, 1), (5, 4), (6, 0), (4, 4), (1, 0), (1, 1)):
        for k in range(1, n + 1):
            groups = list(itertools.combinations([True] * c + [False] * (n - c), k))
            close(exercises.pass_at_k(n, c, k), sum(map(any, groups)) / len(groups), f"pass_at_k({n}, {c}, {k})")


@exercise("pass_at_k")
def test_pass_at_1_is_the_share_of_right_samples(exercises):
    """With k = 1 it is c / n, and with no right sample 0."""
    for n, c in ((10, 3), (200, 199), (9, 9), (10000, 37)):
        close(exercises.pass_at_k(n, c, 1), c / n, f"pass_at_k({n}, {c}, 1)")
        roughly(exercises.pass_at_k(n, 0, n // 2), 0.0, 1e-9, f"pass_at_k({n}, 0, {n // 2})")


@exercise("pass_at_k", weight=2)
def test_pass_at_k_survives_many_samples(exercises):
    """Thousands of samples give the exact value, without overflow."""
    for n, c, k in (
        (10000, 5, 100),
        (10000, 1, 5000),
        (10000, 3000, 2),
        (9999, 70, 130),
        (2000, 1000, 1),
        (300, 7, 50),
    ):
        expected = float(1 - Fraction(math.comb(n - c, k), math.comb(n, k)))
        close(exercises.pass_at_k(n, c, k), expected, f"pass_at_k({n}, {c}, {k})")


@exercise("pass_at_k")
def test_pass_at_k_is_certain_when_wrong_ones_run_out(exercises):
    """If fewer than k samples are wrong it is 1, and not one before."""
    for n, c in ((8, 3), (12, 1), (50, 20)):
        close(exercises.pass_at_k(n, c, n - c + 1), 1.0, f"pass_at_k({n}, {c}, {n - c + 1})")
        got = exercises.pass_at_k(n, c, n - c)
        close(got, float(1 - Fraction(1, math.comb(n, c))), f"pass_at_k({n}, {c}, {n - c})")


@exercise("pass_at_k")
@pytest.mark.parametrize(
    ("n", "c", "k"), [(5, 0, 6), (5, 5, 6), (5, 6, 2), (5, -1, 2), (5, 2, 0), (0, 0, 1), (5, 2, -3)]
)
def test_pass_at_k_refuses_what_cannot_be(exercises, n, c, k):
    """More right samples than samples, or a group larger than n, raise."""
    with pytest.raises(ValueError):
        exercises.pass_at_k(n, c, k)


# --- run_candidate ----------------------------------------------------------------------------------------------------

RIGHT = "def add(a, b):\n    return a + b"
WRONG = "def add(a, b):\n    return a - b"
TESTS = "assert add(2, 3) == 5\nassert add(-1, 1) == 0\nassert add(0, 0) == 0"
LEAVES = "import sys\nprint('passed')\nsys.exit(0)"
NOTHING = {"exit_code": 0, "stdout": "", "stderr": "", "timed_out": False}
LONG = 10.0  # seconds that no honest program here needs, so that a loaded machine changes nothing


def judged(exercises, execute, *cases):
    """Ask for the status of each (code, expected)."""
    for code, expected in cases:
        exact(exercises.run_candidate(code, TESTS, LONG, execute), expected, f"the status of {code[:70]!r}")


@exercise("run_candidate", weight=2)
def test_an_early_end_is_no_pass(exercises, execute):
    """Whoever leaves before the end of the tests has not passed."""
    judged(
        exercises,
        execute,
        (f"{WRONG}\nimport sys\nsys.exit(0)", "exited"),
        ("def add(a, b):\n    import os\n    os._exit(0)", "exited"),
        ("def add(a, b):\n    raise SystemExit(3)", "exited"),
        (RIGHT, "passed"),
    )
    got = exercises.run_candidate("exit(0)", TESTS, LONG, execute)  # without the module site there is no such name
    holds(got in ("exited", "error"), f"A candidate that calls exit(0) is {got}.")


@exercise("run_candidate", weight=2)
def test_statuses_of_plain_programs(exercises, execute):
    """Right, wrong, broken and unreadable programs are told apart."""
    judged(
        exercises,
        execute,
        (RIGHT, "passed"),
        (WRONG, "failed"),
        ("def add(a, b):\n    return a + b.x", "error"),
        ("def add(a, b:\n    return a + b", "error"),
        ("", "error"),
    )


@exercise("run_candidate")
def test_tests_are_run_to_their_end(exercises, execute):
    """The last assert counts as much as the first."""
    for tests, expected in (("assert add(1, 1) == 2\nassert add(1, 2) == 4", "failed"), (f"{TESTS}\nadd(1)", "error")):
        exact(exercises.run_candidate(RIGHT, tests, LONG, execute), expected, f"the status with the tests {tests!r}")
    helper = "def check(f):\n    for i in range(9):\n        assert f(i, i) == 2 * i\ncheck(add)\n"
    exact(exercises.run_candidate(RIGHT, helper, LONG, execute), "passed", "the status with a function of tests")


@exercise("run_candidate", weight=2)
def test_words_on_the_output_decide_nothing(exercises, execute):
    """Printing what success or failure looks like has no influence."""
    words = ["passed", "PASSED", "pass", "ok", "OK", "True", "0", "failed", "1 passed in 0.01s", "AssertionError"]
    boast = f"import sys\nfor word in {words}:\n    print(word)\n    print(word, file=sys.stderr)\n"
    judged(
        exercises,
        execute,
        (f"{boast}sys.exit(0)", "exited"),
        (f"{boast}{WRONG}", "failed"),
        (f"{boast}print('AssertionError', file=sys.stderr)\nsys.exit(1)", "exited"),
        (f"{boast}{RIGHT}", "passed"),
    )


@exercise("run_candidate")
def test_a_loop_without_end_times_out(exercises, execute):
    """A candidate that never ends is a timeout."""
    code = "def add(a, b):\n    while True:\n        pass"
    exact(exercises.run_candidate(code, TESTS, 0.3, execute), "timeout", "the status of an endless loop, 0.3 s")


@exercise("run_candidate")
def test_a_flood_of_output_changes_nothing(exercises, execute):
    """However much is printed, right stays right and wrong stays wrong."""
    flood = "\n    import sys\n    print('x' * 150_000)\n    print('y' * 150_000, file=sys.stderr)"
    judged(
        exercises,
        execute,
        (LEAVES, "exited"),
        (RIGHT.replace(":", f":{flood}"), "passed"),
        (WRONG.replace(":", f":{flood}"), "failed"),
    )


@exercise("run_candidate")
def test_an_exception_is_known_by_its_type(exercises, execute):
    """Only an AssertionError is a failed assert, whatever texts say."""
    judged(
        exercises,
        execute,
        ("def add(a, b):\n    raise ValueError('AssertionError: add(2, 3)')", "error"),
        ("def add(a, b):\n    assert a > 9, 'first line\\nValueError: second line'", "failed"),
        (
            "def add(a, b):\n    try:\n        assert a > 9\n    except AssertionError:\n        return {}['key']",
            "error",
        ),
    )


@exercise("run_candidate")
def test_any_source_may_be_handed_in(exercises, execute):
    """Quotes, braces, backslashes and future imports survive."""
    code = (
        'from __future__ import annotations\n"""Doc with \'quotes\', {braces}, %s and a \\\\ backslash."""\n'
        "text = f\"{1 + 1}{{x}}\" + '\\n' + r'\\d' + '''triple \"\"\" inside''' + 'größer'\n"
        "def add(a: Unknown, b) -> None:\n    return a + b  # the end, without a new line"
    )
    tests = (
        f"assert text == {'2{x}' + chr(10) + chr(92) + 'd' + 'triple ' + chr(34) * 3 + ' inside' + 'größer'!r}\n{TESTS}"
    )
    exact(exercises.run_candidate(code, tests, LONG, execute), "passed", "the status of a right program full of quotes")


@exercise("run_candidate")
def test_names_of_the_candidate_do_no_harm(exercises, execute):
    """A right candidate may use any name, a wrong one gains nothing by it."""
    mine = "print = sys = token = code = tests = status = main = exec = None\n"
    exact(exercises.run_candidate(mine + RIGHT, TESTS, LONG, execute), "passed", "the status with print = sys = None")
    theirs = "import builtins\nfor name in ('exec', 'eval', 'compile', 'print', 'AssertionError'):\n"
    theirs += f"    setattr(builtins, name, lambda *args, **kwargs: None)\n{WRONG}"
    got = exercises.run_candidate(theirs, TESTS, LONG, execute)
    holds(got != "passed", "A wrong candidate that replaces exec and print in builtins passed.")


@exercise("run_candidate")
def test_proof_is_fresh(exercises, execute):
    """What proved one run proves nothing for the next."""
    judged(exercises, execute, (LEAVES, "exited"))
    seen = []

    def recording(program, timeout):
        seen.append(execute(program, timeout))
        return seen[-1]

    exact(exercises.run_candidate(RIGHT, TESTS, LONG, recording), "passed", "the status of a right program")
    got = exercises.run_candidate(RIGHT, TESTS, LONG, lambda program, timeout: dict(seen[0]))
    holds(got != "passed", "The output of the run before was taken for a pass.")


@exercise("run_candidate")
def test_proof_is_in_no_name_of_the_candidate(exercises, execute):
    """A candidate that prints all its names and leaves has not passed."""
    code = "import sys\nfor name, value in list(globals().items()):\n    for out in (sys.stdout, sys.__stdout__):\n"
    code += "        out.write(f'{name} {value}\\n') if out else None\n"
    code += "        out.flush() if out else None\nsys.exit(0)"
    judged(exercises, execute, (LEAVES, "exited"), (code, "exited"))


@exercise("run_candidate")
def test_outcomes_are_read_as_they_are(exercises):
    """A timeout is one whatever was printed; silence is never a pass."""
    for outcome, expected in (
        ({"exit_code": None, "timed_out": True}, "timeout"),
        ({"exit_code": None, "timed_out": True, "stdout": "passed\n"}, "timeout"),
        ({}, "exited"),
        ({"stdout": "passed\nTrue\n0\n"}, "exited"),
        ({"exit_code": -11}, "exited"),
        ({"exit_code": None}, "exited"),
        ({"exit_code": 7, "stderr": "words"}, "exited"),
    ):
        execute = counting(lambda program, timeout, outcome=outcome: NOTHING | outcome)
        exact(
            exercises.run_candidate(RIGHT, TESTS, 1.25, execute), expected, f"the status when execute gives {outcome}"
        )
        exact(execute.calls, 1, "calls of execute")


@exercise("run_candidate")
def test_program_and_timeout_are_handed_on(exercises):
    """The sandbox is given a source text and the timeout as it is."""
    given = []

    def execute(program, timeout):
        given.append((program, timeout))
        return NOTHING

    for timeout in (0.25, 3.0, 7.5):
        exercises.run_candidate(RIGHT, TESTS, timeout, execute)
    exact([timeout for _, timeout in given], [0.25, 3.0, 7.5], "the timeouts that execute was given")
    for program, _ in given:
        compile(program, "<program>", "exec")  # a program that Python can read
    exact(all(type(program) is str for program, _ in given), True, "whether each program is a text")


@driver
def run_one_that_leaves_a_mark(module, outcome):
    """Judge a candidate that would leave a mark in this process, and tell whether it did."""
    import builtins

    mark = "import builtins\nbuiltins.left_a_mark = True\n"
    module.run_candidate(mark, mark, 1.0, lambda program, timeout: outcome)
    return hasattr(builtins, "left_a_mark")


@exercise("run_candidate")
def test_nothing_of_it_runs_here(exercises):
    """The candidate leaves no trace in the process that judges it."""
    exact(exercises.run(run_one_that_leaves_a_mark, NOTHING), False, "whether the candidate ran in this process")


def generated(rng, n):
    """Programs for 'how many letters c has the word?' as a model might write them, and whether each is right."""
    bodies = [
        ("return word.count(c)", True),
        ("return sum(letter == c for letter in word)", True),
        ("return len([x for x in word if x is not c]) - len(word)", False),
        ("return word.find(c)", False),
        ("return len(word.split(c)) - 1", True),
        ("return word.counts(c)", False),
        ("return len(set(word) & {c})", False),
    ]
    chosen = [bodies[i] for i in rng.integers(0, len(bodies), n).tolist()]
    return [(f"def letters(word, c):\n    {body}", right) for body, right in chosen]


@exercise("run_candidate", weight=2)
def test_pass_at_k_of_generated_programs(exercises, rng, execute):
    """Programs that ran give the pass@k that counting groups gives."""
    programs = generated(rng, 5)
    word = "".join(rng.random.choices("abc", k=9)) + "aabbb"
    tests = "\n".join(f"assert letters({word!r}, {c!r}) == {word.count(c)}" for c in "abz")
    passed = [exercises.run_candidate(code, tests, LONG, execute) == "passed" for code, _ in programs]
    exact(passed, [right for _, right in programs], "which of five generated programs passed")
    for k in (1, 2, 4):
        groups = list(itertools.combinations(passed, k))
        close(exercises.pass_at_k(5, sum(passed), k), sum(map(any, groups)) / len(groups), f"pass@{k} of the programs")


# --- elo_update -------------------------------------------------------------------------------------------------------


@exercise("elo_update", weight=2)
def test_elo_moves_by_the_surprise(exercises, rng):
    """Both ratings move by k times the surprise, in opposite ways."""
    for ra, rb in (rng.uniform(6, 2) * 900 + 800).tolist():
        for score in (0, 0.5, 1):
            for k in (32, 20.0, 7.5):
                odds = math.exp((ra - rb) * math.log(10) / 400)
                step = k * (score - odds / (1 + odds))
                got = exercises.elo_update(ra, rb, score, k)
                close(got, (ra + step, rb - step), f"elo_update({ra:.1f}, {rb:.1f}, {score}, k={k})")


@exercise("elo_update")
def test_elo_is_zero_sum(exercises):
    """What one gains the other loses, and a draw brings them together."""
    for ra, rb, score in ((1400, 1900, 1), (2100.5, 1500.25, 0.5), (1000, 1010, 0)):
        a, b = exercises.elo_update(ra, rb, score)
        close(a + b, float(ra + rb), "the sum of both ratings")
    a, b = exercises.elo_update(1700, 1500, 0.5)
    holds(1500 < b < a < 1700, "A draw of 1700 and 1500 must move them toward each other.")


@exercise("elo_update")
def test_400_points_are_ten_to_one(exercises):
    """400 points more mean an expected score of 10/11, k is 32."""
    close(exercises.elo_update(1900, 1500, 1), (1900 + 32 / 11, 1500 - 32 / 11), "a win of the favourite")
    close(exercises.elo_update(1900, 1500, 0), (1900 - 320 / 11, 1500 + 320 / 11), "a defeat of the favourite")
    close(exercises.elo_update(1500, 1900, 1), (1500 + 320 / 11, 1900 - 320 / 11), "a win of the underdog")
    close(exercises.elo_update(1500, 1500, 0.25, 40), (1490.0, 1510.0), "a score of a quarter among equals")


# --- fit_bradley_terry, leaderboard_ci --------------------------------------------------------------------------------


def most_probable(wins, l2=1e-6):
    """Fit a logistic regression, a row for each pair: Newton's method, halving steps that do not help."""
    wins = np.asarray(wins, dtype=float)
    M = len(wins)
    pairs = [(i, j) for i in range(M) for j in range(i + 1, M) if wins[i, j] + wins[j, i]]
    X = np.array([[(m == i) - (m == j) for m in range(M)] for i, j in pairs], dtype=float).reshape(-1, M)
    won, lost = (np.array([wins[pair] for pair in some]) for some in (pairs, [(j, i) for i, j in pairs]))

    def cost(r):
        return won @ np.logaddexp(0, -X @ r) + lost @ np.logaddexp(0, X @ r) + l2 / 2 * r @ r

    r = np.zeros(M)
    for _ in range(100):
        p = 1 / (1 + np.exp(-X @ r))
        slope = X.T @ ((won + lost) * p - won) + l2 * r
        step = np.linalg.pinv((X.T * ((won + lost) * p * (1 - p))) @ X + l2 * np.eye(M), rcond=1e-14) @ slope
        for group in (np.array(g) for g in groups(M, pairs)):
            step[group] -= step[group].mean()  # known to be 0: the slopes of a group sum to the penalty's
        while cost(r - step) > cost(r) + 1e-9:
            step = step / 2
        r = r - step
        if np.abs(step).max() < 1e-9:
            return torch.from_numpy(r)
    raise RuntimeError("the test's own fit did not converge")


def groups(M, pairs):
    """The sets of models that met, directly or by others."""
    found = [{i} for i in range(M)]
    for i, j in pairs:
        one, other = (next(g for g in found if m in g) for m in (i, j))
        if one is not other:
            found.remove(other)
            one |= other
    return [sorted(g) for g in found]


def played(rng, strength, n, ties=0.1):
    """Battles among models of known strength: a list of (a, b, score)."""
    names = sorted(strength)
    battles = []
    for _ in range(n):
        a, b = rng.random.sample(names, 2)
        chance = 1 / (1 + math.exp(strength[b] - strength[a]))
        battles.append((a, b, 0.5 if rng.random.random() < ties else float(rng.random.random() < chance)))
    return battles


def counted(battles):
    """The matrix of wins, over the names in alphabetical order."""
    names = sorted({name for a, b, _ in battles for name in (a, b)})
    wins = torch.zeros(len(names), len(names), dtype=DOUBLE)
    for a, b, score in battles:
        wins[names.index(a), names.index(b)] += score
        wins[names.index(b), names.index(a)] += 1 - score
    return names, wins


@exercise("fit_bradley_terry", weight=2)
@pytest.mark.parametrize("l2", [1e-6, 0.3, 5.0])
def test_ratings_are_the_most_probable(exercises, rng, l2):
    """The ratings maximise the penalised log-likelihood."""
    for M in (5, 2, 8):
        wins = torch.triu(rng.integers(1, 9, M, M), 1) + torch.tril(rng.integers(1, 30, M, M), -1)
        got = pure(exercises.fit_bradley_terry, wins, l2)
        roughly(got, most_probable(wins, l2), 1e-5, f"the ratings of {M} models, l2={l2}")  # promised: 1e-6
        slope = (wins - (wins + wins.T) * torch.sigmoid(got[:, None] - got)).sum(1) - l2 * got
        roughly(slope, torch.zeros(M, dtype=DOUBLE), 1e-2, f"wins less expected wins less l2 * r, {M} models")


@exercise("fit_bradley_terry", weight=2)
def test_planted_ratings_are_recovered(exercises, rng):
    """From 5000 battles of ten models come the planted ratings, in order."""
    planted = {name: 0.4 * i - 1.8 for i, name in enumerate("abcdefghij")}
    _, wins = counted(played(rng, planted, 5000, ties=0))
    got, r = exercises.fit_bradley_terry(wins), torch.tensor(list(planted.values()), dtype=DOUBLE)
    roughly(got, r, 0.6, "the ratings of ten models whose strengths are 0.4 apart")  # 6 standard errors
    d = got.argsort().argsort().double() - torch.arange(10)
    holds(1 - 6 * float((d * d).sum()) / 990 >= 0.9, "Spearman's rank correlation with the planted order is below 0.9.")


@exercise("fit_bradley_terry")
def test_two_models_have_the_odds_of_their_wins(exercises):
    """Between two models e to the difference is the ratio of wins."""
    for a, b in ((9.0, 3.0), (1.0, 40.0), (2.5, 0.5)):
        r = exercises.fit_bradley_terry(torch.tensor([[0, a], [b, 0]], dtype=DOUBLE))
        roughly((r[0] - r[1]).item(), math.log(a / b), 1e-4, f"the difference of ratings after {a} to {b}")
        roughly((r[0] + r[1]).item(), 0.0, 1e-6, "the sum of both ratings")
    exact(exercises.fit_bradley_terry(torch.zeros(1, 1)), torch.zeros(1, dtype=DOUBLE), "the rating of a single model")


@exercise("fit_bradley_terry", weight=2)
def test_undefeated_stays_finite(exercises):
    """A model that never lost has the finite rating that the penalty gives."""
    wins = torch.tensor([[0, 6, 9, 4], [0, 0, 5, 2], [0, 3, 0, 2], [0, 1, 1, 0]])
    for table, l2 in ((wins, 1e-6), (wins.T, 1e-6), (wins, 0.01), (torch.triu(wins), 1e-6)):
        got = exercises.fit_bradley_terry(table, l2=l2)
        roughly(got, most_probable(table, l2), 1e-4, f"the ratings when somebody never lost, l2={l2}")
        roughly(got.mean().item(), 0.0, 1e-6, "the mean of the ratings")


@exercise("fit_bradley_terry")
def test_who_never_played_is_average(exercises):
    """A model without battles gets 0, and ratings are relative to a group."""
    wins = torch.tensor([[0.0, 8, 0, 0, 0], [2, 0, 0, 0, 0], [0, 0, 0, 0, 0], [0, 0, 0, 0, 3], [0, 0, 0, 1, 0]])
    got = exercises.fit_bradley_terry(wins.double())
    half = torch.tensor([math.log(4) / 2, -math.log(4) / 2, 0, math.log(3) / 2, -math.log(3) / 2], dtype=DOUBLE)
    roughly(got, half, 1e-4, "the ratings of two groups that never met, and of one without battles")
    roughly(exercises.fit_bradley_terry(wins.float()), half, 1e-4, "the same from float32")


@exercise("fit_bradley_terry", weight=2)
def test_leaderboard_ranks_by_rating(exercises, rng):
    """Models stand in the order of their ratings, which use all battles."""
    strength = {"owl": 0.9, "elk": -0.4, "ant": 0.2, "yak": -1.1, "bee": 2.0}
    battles = played(rng, strength, 300)
    names, wins = counted(battles)
    expected = dict(zip(names, most_probable(wins).tolist(), strict=True))
    rows = pure(exercises.leaderboard_ci, battles, 3, rng.generator())
    exact([row[0] for row in rows], sorted(names, key=lambda name: -expected[name]), "the order of the models")
    roughly([row[1] for row in rows], sorted(expected.values(), reverse=True), 1e-5, "the ratings")
    turned = [(b, a, 1 - score) for a, b, score in battles[::-1]]
    again = exercises.leaderboard_ci(turned, 3, rng.generator())
    roughly([row[1] for row in again], [row[1] for row in rows], 1e-5, "the ratings, other order, other sides")


@exercise("fit_bradley_terry", weight=2)
def test_intervals_are_quantiles_of_refits(exercises, rng):
    """low and high are the 2.5 and 97.5 percent quantiles of refits."""
    N, battles = 7, [("a", "b", 1.0)] * 3 + [("b", "a", 1.0)] * 2 + [("b", "a", 0.0), ("a", "b", 0.0)]
    # only the number of wins of a varies between samples, so a rating has one of N + 1 values
    values = [most_probable(torch.tensor([[0.0, k], [N - k, 0.0]]))[0].item() for k in range(N + 1)]
    pairs = [(x + 0.025 * (y - x), x + 0.975 * (y - x)) for x in values for y in values if x <= y]
    generator, seen = rng.generator(), set()
    for _ in range(9):
        rows = {row[0]: row[2:] for row in exercises.leaderboard_ci(battles, 2, generator)}
        near = min(pairs, key=lambda p: max(abs(p[0] - rows["a"][0]), abs(p[1] - rows["a"][1])))
        roughly(list(rows["a"]), list(near), 1e-4, "the interval from two refits, beside the nearest that can occur")
        roughly([-rows["b"][1], -rows["b"][0]], list(near), 1e-4, "the interval of the other model, mirrored")
        seen.add(near)
    holds(len(seen) > 1, "Nine tables, from two resamples each, have all the same intervals.")


@exercise("fit_bradley_terry", weight=2)
def test_intervals_are_as_wide_as_theory_says(exercises, rng):
    """Intervals have the width that the curvature of the likelihood gives."""
    battles = played(rng, {"a": 0.0, "b": 0.5, "c": -0.7, "d": 0.3}, 500)
    names, wins = counted(battles)
    r = most_probable(wins)
    p = torch.sigmoid(r[:, None] - r)
    weights = (wins + wins.T) * p * (1 - p)
    sd = torch.linalg.pinv(torch.diag(weights.sum(1)) - weights).diagonal().sqrt()
    rows = {row[0]: row for row in exercises.leaderboard_ci(battles, 250, rng.generator())}
    for i, name in enumerate(names):
        _, rating, low, high = rows[name]
        # ends from 250 refits scatter by 0.17 sd each; a tie makes a battle count more than theory thinks
        holds(2.5 < (high - low) / sd[i].item() < 5.2, f"the interval of {name} is {(high - low) / sd[i]:.2f} sd wide")
        holds(low < rating < high, f"the rating of {name} is outside its interval")


@exercise("fit_bradley_terry")
def test_battles_are_drawn_whole(exercises, rng):
    """Names and score of a battle stay together in a resample."""
    battles = [
        ("a", "b", 1.0),
        ("b", "a", 0.0),
        ("b", "c", 1.0),
        ("c", "b", 0.0),
        ("c", "a", 0.0),
        ("a", "c", 1.0),
    ] * 12
    rows = exercises.leaderboard_ci(battles, 20, rng.generator())
    exact([row[0] for row in rows], ["a", "b", "c"], "the order, when a beats b and c, and b beats c, always")
    holds(rows[0][2] > rows[1][3] and rows[1][2] > rows[2][3], "Who always won is below somebody else in a resample.")


@exercise("fit_bradley_terry")
def test_leaderboard_depends_on_rng_alone(exercises, rng):
    """The same state gives the same table, another one other intervals."""
    battles = played(rng, {"a": 0.0, "b": 0.5, "c": 1.0}, 60)
    tables = []
    for seed in (rng.seed, rng.seed, rng.seed + 1):
        rows = exercises.leaderboard_ci(battles, 4, torch.Generator().manual_seed(seed))
        tables.append([row[1:] for row in rows])
    roughly(tables[0], tables[1], 1e-5, "the table from the same state of the generator")
    gap = (torch.tensor(tables[0]) - torch.tensor(tables[2])).abs().max()
    holds(gap > 1e-3, "Another seed gave the same intervals.")


# --- bootstrap_ci, paired_difference_ci -------------------------------------------------------------------------------


def quantile(values, q):
    """A quantile with linear interpolation, by its definition."""
    values, at = sorted(values), q * (len(values) - 1)
    low = math.floor(at)
    return values[low] + (at - low) * (values[min(low + 1, len(values) - 1)] - values[low])


@exercise("bootstrap_ci", weight=3)
@pytest.mark.parametrize(("n", "level"), [(40, 0.95), (25, 0.8), (7, 0.5), (1, 0.9), (60, 0.99)])
def test_ends_are_quantiles_of_the_statistic(exercises, rng, n, level):
    """The ends are quantiles of what the statistic gave, n times."""
    x, values = rng.normal(9) ** 2, []

    def stat(sample):
        values.append(float(sample.amax() - sample.median()))
        return values[-1]

    got = pure(exercises.bootstrap_ci, x, stat, n, level, rng.generator())
    exact(len(values), n, "calls of the statistic")
    expected = (quantile(values, (1 - level) / 2), quantile(values, (1 + level) / 2))
    roughly(got, expected, 1e-9, f"bootstrap_ci with {n} resamples and level {level}")


@exercise("bootstrap_ci", weight=2)
def test_resamples_are_drawn_with_replacement(exercises, rng):
    """A resample has N values of x, each drawn alike and independently."""
    x, N, n = rng.normal(6), 6, 300
    samples = counting(lambda sample: 0.0)
    exercises.bootstrap_ci(x, samples, n, 0.9, rng.generator())
    rows = [sample.tolist() for (sample,) in samples.arguments]
    exact({len(row) for row in rows}, {N}, "the length of a resample")
    exact(set().union(*rows) <= set(x.tolist()), True, "whether all values are values of x")
    counts = collections.Counter(value for row in rows for value in row)
    same_distribution([counts[value] for value in x.tolist()], [1.0] * N, "how often each value was drawn")
    # of N values drawn with replacement, i are different with probability falling(N, i) * stirling(N, i) / N^N
    stirling = [1, 31, 90, 65, 15, 1]
    kinds = collections.Counter(len(set(row)) for row in rows)
    chances = [math.perm(N, i) * s for i, s in zip(range(1, 7), stirling, strict=True)]
    grouped = [kinds[1] + kinds[2] + kinds[3], kinds[4], kinds[5] + kinds[6]]
    same_distribution(grouped, [sum(chances[:3]), chances[3], sum(chances[4:])], "how many values of six are different")
    places = torch.tensor([[value == x[0].item() for value in row] for row in rows]).double().mean(0)
    holds(bool((places - 1 / 6).abs().max() < 0.13), "Some place of a resample prefers a value.")  # 6 standard errors


def exact_tails(values, probabilities, end):
    """The exact probabilities of a resampled statistic below `end`, and up to it."""
    below = sum(p for v, p in zip(values, probabilities, strict=True) if v < end - 1e-9)
    return below, sum(p for v, p in zip(values, probabilities, strict=True) if v <= end + 1e-9)


@driver
def paired_ends(module, a, b, n, level, generator):
    """Give the ends of the paired interval."""
    return module.paired_difference_ci(a, b, n, level, generator)


@exercise("bootstrap_ci", weight=2)
def test_paired_ends_are_those_of_all_resamples(exercises, rng):
    """The paired ends cut the right tails from the exact distribution."""
    a, b = rng.normal(5), rng.normal(5) * 0.3
    values = [np.mean(c) for c in itertools.product((a - b).tolist(), repeat=5)]  # all 3125 resamples, equally likely
    level, n = 0.8, 1500
    low, high = pure(exercises.paired_difference_ci, a, b, n, level, rng.generator())
    slack = 5 * math.sqrt(0.1 * 0.9 / n)  # five standard errors of a tail from n resamples
    for end, tail in ((low, 0.1), (high, 0.9)):
        below, upto = exact_tails(values, [1 / 3125] * 3125, end)
        holds(below - slack <= tail <= upto + slack, f"a paired end leaves {below:.3f} to {upto:.3f} below, not {tail}")


@exercise("bootstrap_ci", weight=2)
def test_pairs_stay_together(exercises, rng):
    """A model that is better by a constant on each question is so surely."""
    b = rng.normal(40) * 5
    for shift in (0.75, -2.0):
        got = exercises.paired_difference_ci(b + shift, b, 30, 0.9, rng.generator())
        roughly(got, (shift, shift), 1e-9, f"the interval when a is b + {shift}")
    a = (b + rng.normal(40) > 0).double()
    own = (b > 0).double()
    low, high = exercises.paired_difference_ci(a, own, 300, 0.95, rng.generator())
    sd = math.sqrt((a.var() + own.var()).item() / 40)  # as if the questions were different ones
    holds(high - low < 0.75 * 3.92 * sd, "On the same questions the interval is narrower than on different ones.")


@exercise("bootstrap_ci")
def test_interval_moves_with_the_values(exercises, rng):
    """Adding a constant moves both ends, and the state decides the draws."""
    x = rng.normal(11) ** 2

    def ends(values, seed):
        return exercises.bootstrap_ci(values, lambda v: v.mean().item(), 30, 0.9, torch.Generator().manual_seed(seed))

    low, high = ends(x, rng.seed)
    holds(low < high, "The interval of eleven different values has no width.")
    roughly(ends(x + 100, rng.seed), (low + 100, high + 100), 1e-9, "the ends after 100 is added to all values")
    roughly(ends(x, rng.seed), (low, high), 1e-12, "the ends from the same state")
    holds(ends(x, rng.seed + 1) != (low, high), "Another seed gave the same interval.")


@exercise("bootstrap_ci")
def test_one_value_has_no_spread(exercises, rng):
    """A single value gives an interval of no width."""
    roughly(
        exercises.bootstrap_ci(torch.tensor([3.25]), lambda v: v.sum().item(), 5, 0.95, rng.generator()),
        (3.25, 3.25),
        1e-9,
        "the interval of a single value",
    )
    one = torch.tensor([2.0], dtype=DOUBLE)
    roughly(exercises.paired_difference_ci(one + 1, one, 5, 0.5, rng.generator()), (1.0, 1.0), 1e-9, "one pair")


@driver
def coverage(module, simulations, resamples, N, generator):
    """How often the interval of an exponential mean holds the true mean, 1."""
    import torch

    hits = 0
    for _ in range(simulations):
        x = -torch.rand(N, dtype=torch.float64, generator=generator).log()
        low, high = module.bootstrap_ci(x, lambda values: values.mean(), resamples, 0.9, generator)
        hits += low <= 1.0 <= high
    return hits


@exercise("bootstrap_ci")
def test_interval_covers_the_truth_as_often_as_it_says(exercises, rng):
    """Of 90 % intervals about nine in ten hold the true mean."""
    hits = exercises.run(coverage, 250, 60, 50, rng.generator())
    # the percentile method on a skewed mean covers 0.87; the standard error of 250 trials is 0.021
    holds(0.76 <= hits / 250 <= 0.97, f"{hits} of 250 intervals at 0.9 hold the true mean")


@exercise("bootstrap_ci")
@pytest.mark.parametrize(("N", "n", "level"), [(0, 5, 0.9), (4, 0, 0.9), (4, 5, 0.0), (4, 5, 1.0), (4, 5, 95.0)])
def test_senseless_arguments_are_refused(exercises, rng, N, n, level):
    """No values, no resamples or a level outside (0, 1) raise."""
    with pytest.raises(ValueError):
        exercises.bootstrap_ci(torch.ones(N), lambda v: 1.0, n, level, rng.generator())
    with pytest.raises(ValueError):
        exercises.paired_difference_ci(torch.ones(N), torch.zeros(N), n, level, rng.generator())
    with pytest.raises(ValueError):
        exercises.paired_difference_ci(torch.ones(3), torch.zeros(4), 5, 0.9, rng.generator())


# --- ngram_overlap, contamination_report ------------------------------------------------------------------------------


def words_of(text):
    """The maximal runs of letters and digits, character by character."""
    return "".join(c if c.isalnum() else " " for c in text.lower()).split()


def overlap_by_lists(test, train, n):
    """The definition, by slices of lists and a search through every document."""
    words = words_of(test)
    n = min(n, len(words))
    if not n:
        return 0.0
    ours = {tuple(words[i : i + n]) for i in range(len(words) - n + 1)}
    documents = [words_of(document) for document in train]
    found = [g for g in ours if any(list(g) == d[i : i + n] for d in documents for i in range(len(d) - n + 1))]
    return len(found) / len(ours)


def prose(rng, length, vocabulary=("mill", "river", "owl", "old", "by", "the", "stone", "a")):
    """Words with random capitals and separators."""
    words = [rng.random.choice([str.lower, str.upper, str.title])(w) for w in rng.random.choices(vocabulary, k=length)]
    return "".join(word + rng.random.choice([" ", ", ", "-", "\n", ". ", "'", "_"]) for word in words)


@exercise("ngram_overlap", weight=3)
@pytest.mark.parametrize("n", [1, 2, 3, 5])
def test_overlap_is_that_of_the_definition(exercises, rng, n):
    """It is the part of the test's own grams that some document holds."""
    for test_length, lengths in ((12, (30, 7)), (25, (9, 14, 40)), (6, (3,))):
        test, train = prose(rng, test_length), [prose(rng, length) for length in lengths]
        got = pure(exercises.ngram_overlap, test, train, n)
        roughly(got, overlap_by_lists(test, train, n), 1e-12, f"the overlap for {test[:40]!r}..., n={n}")


@exercise("ngram_overlap", weight=2)
def test_overlap_of_planted_leaks(exercises, rng):
    """Copying the first words of a test text leaks that many of its grams."""
    test = " ".join(f"w{i}" for i in range(40))
    words = test.split()
    for leaked in (12, 13, 14, 20, 40):
        train = [" ".join(f"x{i}" for i in range(500)), "before " + " ".join(words[:leaked]) + " after"]
        expected = max(0, leaked - 12) / 28  # 40 words have 28 grams of 13
        roughly(exercises.ngram_overlap(test, train), expected, 1e-12, f"the overlap when {leaked} words leaked, n=13")


@exercise("ngram_overlap")
def test_overlap_sees_through_case_and_punctuation(exercises):
    """Case, punctuation and line breaks hide nothing; letters count."""
    test = "Don't stop! The 3rd mill_stone: größer."
    leak = "so DON T\nstop, the (3RD) mill stone; GRÖSSER größer GRÖßER no"
    roughly(exercises.ngram_overlap(test, [leak], 3), 5 / 6, 1e-12, "the overlap, n=3")
    roughly(exercises.ngram_overlap("mill stone", ["millstone", "mill, stones"], 2), 0.0, 1e-12, "a word joined")
    roughly(exercises.ngram_overlap("the largest prime", ["the largest primes"], 3), 0.0, 1e-12, "a longer last word")


@exercise("ngram_overlap", weight=2)
def test_short_texts_are_one_gram(exercises):
    """A test text shorter than n is looked for as a whole."""
    document = "it says that two plus two is four and no more"
    for test, expected in (
        ("Two plus two is four.", 1.0),
        ("two plus two is five", 0.0),
        ("four", 1.0),
        ("fou", 0.0),
        ("", 0.0),
        ("...", 0.0),
    ):
        roughly(
            exercises.ngram_overlap(test, ["words", document], 13), expected, 1e-12, f"the overlap of {test!r}, n=13"
        )
    roughly(exercises.ngram_overlap("a b c", ["x a b y", "b c"], 3), 0.0, 1e-12, "three words, n=3, never in a row")
    roughly(exercises.ngram_overlap("a b c", [], 2), 0.0, 1e-12, "the overlap with no documents")
    roughly(exercises.ngram_overlap("a b c", ["", "b c"], 2), 0.5, 1e-12, "the overlap with an empty document")


@exercise("ngram_overlap")
def test_grams_do_not_span_documents(exercises):
    """The end of one document and the start of the next are not a row."""
    roughly(exercises.ngram_overlap("a b c d", ["x a b", "c d y"], 2), 2 / 3, 1e-12, "two halves in two documents")
    roughly(exercises.ngram_overlap("a b c d", ["x a b", "c d y"], 4), 0.0, 1e-12, "two halves, n=4")
    roughly(exercises.ngram_overlap("a b a b a b", ["a b a"], 2), 1.0, 1e-12, "a text that repeats itself")
    roughly(exercises.ngram_overlap("a b a b a b c", ["a b"], 2), 1 / 3, 1e-12, "different grams are counted once")
    for n in (0, -2):
        with pytest.raises(ValueError):
            exercises.ngram_overlap("a b c", ["a b c"], n)


@exercise("ngram_overlap")
def test_more_documents_never_lower_the_overlap(exercises, rng):
    """The overlap grows with the training data."""
    test, train = prose(rng, 30), [prose(rng, 15) for _ in range(6)]
    parts = [exercises.ngram_overlap(test, train[:i], 3) for i in range(7)]
    exact(parts, sorted(parts), "the overlaps with 0 to 6 documents")
    roughly(exercises.ngram_overlap(test, train[::-1], 3), parts[-1], 1e-12, "the overlap, documents in another order")


@exercise("ngram_overlap", weight=2)
def test_report_names_all_sources(exercises, rng):
    """Each document that shares a gram is named, for each test text."""
    few = ["mill", "river", "old", "by"]
    tests, train = [prose(rng, k, few) for k in (9, 4, 14, 2)], [prose(rng, 11, few) for _ in range(7)]
    got = pure(exercises.contamination_report, tests, train, n=3, threshold=0.3)
    exact(sorted(got), ["canary", "contaminated", "overlap", "sources"], "the keys of the report")
    parts = [overlap_by_lists(test, train, 3) for test in tests]
    roughly(got["overlap"], parts, 1e-12, "the overlaps")
    sources = [[i for i, d in enumerate(train) if overlap_by_lists(test, [d], 3) > 0] for test in tests]
    exact(got["sources"], sources, "the sources")
    exact(got["contaminated"], [i for i, part in enumerate(parts) if part >= 0.3], "the contaminated ones")
    exact(got["canary"], [], "the canary, when there is none")
    sources = exercises.contamination_report(["a b c d", "x y"], ["q", "c d", "y x", "b a b c"], 2)["sources"]
    exact(sources, [[1, 3], []], "the sources of 'a b c d' and 'x y', n=2")


@exercise("ngram_overlap", weight=2)
def test_threshold_is_included(exercises):
    """An overlap equal to the threshold is contaminated, one below is not."""
    tests = ["a b c d e", "a b x y z", "p q r", "p q s", "a b c"]  # with n = 2: 3/4, 1/4, 1, 1/2, 1
    train = ["a b c d", "none of it", "p q r"]
    for threshold, expected in ((0.75, [0, 2, 4]), (0.76, [2, 4]), (0.25, [0, 1, 2, 3, 4]), (1.0, [2, 4])):
        got = exercises.contamination_report(tests, train, 2, threshold)
        exact(got["contaminated"], expected, f"the contaminated ones at {threshold}")
    exact(exercises.contamination_report(tests, train, 2)["contaminated"], [0, 2, 3, 4], "at the default threshold")
    exact(exercises.contamination_report(tests, train)["contaminated"], [2, 4], "at the default n and threshold")


@exercise("ngram_overlap")
def test_canary_is_found_as_it_is(exercises):
    """Every document with the canary is named, and no other."""
    canary = "CANARY-7f3a:DO NOT TRAIN"
    train = [f"x{canary}y", canary.lower(), "CANARY-7f3a: DO NOT TRAIN", f"{canary} {canary}", "", canary]
    got = exercises.contamination_report(["q"], train, canary=canary)
    exact(got["canary"], [0, 3, 5], "the documents with the canary")
    empty = {"overlap": [], "sources": [], "contaminated": [], "canary": [1]}
    exact(exercises.contamination_report([], ["", "zz"], canary="z"), empty, "the report without test texts")
    none = exercises.contamination_report(["a b"], [], canary="z")
    exact(none, {"overlap": [0.0], "sources": [[]], "contaminated": [], "canary": []}, "the report without documents")


# --- exact_match, token_f1, judge_bias, sample_size -------------------------------------------------------------------


def normalized(text):
    """The words of an answer, one character at a time."""
    kept = "".join(c for c in text.lower() if c not in string.punctuation)
    words = kept.split()
    return [w for w in words if w not in {"a", "an", "the"}] or words


@exercise("exact_match", weight=2)
@pytest.mark.parametrize(
    ("pred", "gold", "same"),
    [
        ("The  Old-Mill.", "the old mill", False),
        ("The  Old-Mill.", "oldmill", True),
        ("  an OWL\n", "owl!", True),
        ("mill old", "old mill", False),
        ("theatre", "atre", False),
        ("old old mill", "old mill", False),
        ("A", "a.", True),
        ("A", "the", False),
        ("A", "B", False),
        ("the answer A", "answer", True),
        ("", "...", True),
        ("", "a", False),
        ("3,000", "3000", True),
        ("don't", "dont", True),
        ("\u201cmill\u201d", "mill", False),
        ("mill", "mills", False),
    ],
)
def test_exact_match_compares_words(exercises, pred, gold, same):
    """Case, punctuation, articles and spaces do not count; order does."""
    exact(exercises.exact_match(pred, gold), same, f"exact_match({pred!r}, {gold!r})")
    exact(exercises.exact_match(gold, pred), same, f"exact_match({gold!r}, {pred!r})")


@exercise("exact_match", weight=2)
def test_f1_counts_shared_words(exercises, rng):
    """F1 counts a shared word as often as both answers have it."""
    for _ in range(12):
        pred, gold = (" ".join(rng.random.choices(["old", "Old,", "mill", "the", "by", "river."], k=k)) for k in (7, 4))
        rest, shared = list(normalized(gold)), 0
        for word in normalized(pred):
            if word in rest:
                rest.remove(word)
                shared += 1
        expected = 2 * shared / (len(normalized(pred)) + len(normalized(gold)))
        roughly(exercises.token_f1(pred, [gold]), expected, 1e-12, f"token_f1({pred!r}, [{gold!r}])")
        roughly(exercises.token_f1(gold, [pred]), expected, 1e-12, f"token_f1({gold!r}, [{pred!r}])")


@exercise("exact_match")
def test_f1_takes_the_nearest_gold(exercises):
    """The best of several right answers counts, wherever it stands."""
    golds = ["the river", "old mill by the river", "mill"]
    for order in itertools.permutations(golds):
        roughly(exercises.token_f1("an old mill", list(order)), 4 / 6, 1e-12, f"token_f1('an old mill', {order})")
    roughly(exercises.token_f1("paris paris paris", ["Paris"]), 0.5, 1e-12, "an answer said three times")
    with pytest.raises(ValueError):
        exercises.token_f1("mill", [])


@exercise("exact_match")
def test_f1_of_nothing(exercises):
    """Two empty answers agree, an empty and a full one do not."""
    for pred, golds, expected in (
        ("", ["?"], 1.0),
        ("...", ["mill"], 0.0),
        ("mill", ["", "owl"], 0.0),
        ("A", ["A"], 1.0),
        ("the", ["A"], 0.0),
        ("", ["mill", "--"], 1.0),
        ("owl", ["elk"], 0.0),
    ):
        roughly(exercises.token_f1(pred, golds), expected, 1e-12, f"token_f1({pred!r}, {golds!r})")


def tally(judge, pairs):
    """The four numbers of `judge_bias`, from a table of all verdicts."""
    table = []
    for pair, (a, b) in enumerate(pairs):
        for first, second, winner in ((a, b, {"first": 1.0, "second": 0.0}), (b, a, {"first": 0.0, "second": 1.0})):
            verdict = judge(first, second)
            lead = {"first": 1.0, "second": 0.0, "tie": 0.5}[verdict]
            table.append((pair, lead, winner.get(verdict, 0.5), len(a) - len(b)))
    by_length = [a_gets if gap > 0 else 1 - a_gets for _, _, a_gets, gap in table if gap]
    verdicts = [{a_gets for pair, _, a_gets, _ in table if pair == i} for i in range(len(pairs))]
    return {
        "first": sum(row[1] for row in table) / len(table),
        "longer": sum(by_length) / len(by_length) if by_length else None,
        "a_wins": sum(row[2] for row in table) / len(table),
        "consistent": sum(len(seen) == 1 for seen in verdicts) / len(pairs),
    }


def planted(position, length, noise):
    """A judge that likes vowels, with a weakness for the first place and for length; near ties are ties."""

    def judge(first, second):
        def liked(text):
            return sum(text.count(c) for c in "aeiou") + length * len(text) + noise * (hash_of(text) - 0.5)

        gap = liked(first) - liked(second) + position
        return "tie" if abs(gap) < 0.2 else "first" if gap > 0 else "second"

    return judge


def hash_of(text):
    """A number in [0, 1) that depends on the text alone."""
    value = 17
    for c in text:
        value = (value * 31 + ord(c)) % 9973
    return value / 9973


@exercise("exact_match", weight=2)
@pytest.mark.parametrize(
    ("position", "length", "noise"), [(0.6, 0.0, 2.0), (-1.5, 0.3, 1.0), (0.0, -0.4, 0.0), (99, 0, 0)]
)
def test_judge_bias_is_that_of_all_verdicts(exercises, rng, position, length, noise):
    """The four numbers are those of the table of all verdicts."""
    letters = "abcdefgh"
    pairs = [tuple("".join(rng.random.choices(letters, k=rng.random.randint(1, 6))) for _ in "ab") for _ in range(25)]
    judge = counting(planted(position, length, noise))
    got = pure(exercises.judge_bias, judge, pairs)
    exact(sorted(got), ["a_wins", "consistent", "first", "longer"], "the keys")
    roughly(got, tally(planted(position, length, noise), pairs), 1e-12, f"a judge with {position} for the first place")
    asked = collections.Counter(judge.arguments)
    exact(asked, collections.Counter(p for a, b in pairs for p in ((a, b), (b, a))), "what the judge was asked")


@exercise("exact_match")
def test_judge_without_a_will(exercises):
    """Extreme judges show as such, and equal lengths give None."""
    pairs = [("yes", "no"), ("up", "down"), ("left", "right!")]
    for verdict, first in (("first", 1.0), ("second", 0.0), ("tie", 0.5)):
        got = exercises.judge_bias(lambda one, other, verdict=verdict: verdict, pairs)
        expected = {"first": first, "longer": 0.5, "a_wins": 0.5, "consistent": float(verdict == "tie")}
        roughly(got, expected, 1e-12, f"a judge who always says {verdict}")
    got = exercises.judge_bias(lambda one, other: "first" if len(one) > len(other) else "second", pairs)
    roughly(got, {"first": 0.5, "longer": 1.0, "a_wins": 1 / 3, "consistent": 1.0}, 1e-12, "a judge who likes length")
    got = exercises.judge_bias(lambda one, other: "first" if one < other else "second", [("ab", "cd"), ("zz", "yy")])
    exact(got, {"first": 0.5, "longer": None, "a_wins": 0.5, "consistent": 1.0}, "a judge of equally long answers")
    with pytest.raises(ValueError):
        exercises.judge_bias(lambda one, other: "tie", [])


@exercise("exact_match")
def test_planted_bias_is_recovered(exercises, rng):
    """A judge who prefers the first place 7 times in 10 is found out."""
    coin = rng.random
    pairs = [(f"a{i}", f"b{i}") for i in range(300)]
    got = exercises.judge_bias(lambda one, other: "first" if coin.random() < 0.7 else "second", pairs)
    # 600 verdicts: the standard error of the first is 0.019, that of a_wins 0.019, of consistent (0.42) 0.029
    roughly(got["first"], 0.7, 0.1, "the part of the first place")
    roughly(got["a_wins"], 0.5, 0.1, "the part of a")
    roughly(got["consistent"], 0.42, 0.15, "the part of pairs with one winner")


@exercise("exact_match", weight=2)
def test_sample_size_is_the_smallest_that_does(exercises):
    """The margin is kept with n questions, and not with n - 1."""
    z = {0.95: 1.9599639845400545, 0.99: 2.5758293035489004, 0.8: 1.2815515655446004, 0.5: 0.6744897501960817}
    for p, margin, level in (
        (0.5, 0.02, 0.95),
        (0.7, 0.01, 0.95),
        (0.9, 0.03, 0.99),
        (0.25, 0.07, 0.8),
        (0.03, 0.05, 0.5),
    ):
        n = exercises.sample_size(p, margin, level)
        exact(type(n), int, "the type of the sample size")
        width = [z[level] * math.sqrt(p * (1 - p) / m) if m else INF for m in (n - 1, n)]
        holds(width[1] <= margin < width[0], f"sample_size({p}, {margin}, {level}) = {n} is not the smallest that does")
    exact(exercises.sample_size(0.5, 0.05), 385, "sample_size(0.5, 0.05) at the default level")
    exact([exercises.sample_size(p, 0.1) for p in (0.0, 1.0)], [1, 1], "sample_size for an accuracy of 0 and 1")
    exact(exercises.sample_size(0.5, 5.0, 0.9), 1, "sample_size for a margin that is no margin")


@exercise("exact_match")
@pytest.mark.parametrize(("p", "margin", "level"), [(-0.1, 0.1, 0.9), (1.1, 0.1, 0.9), (0.5, 0.0, 0.9), (0.5, -1, 0.9)])
def test_sample_size_refuses_what_cannot_be(exercises, p, margin, level):
    """An accuracy outside 0 to 1, no margin or a senseless level raise."""
    with pytest.raises(ValueError):
        exercises.sample_size(p, margin, level)
    for senseless in (0.0, 1.0, 95):
        with pytest.raises(ValueError):
            exercises.sample_size(0.5, 0.1, senseless)
