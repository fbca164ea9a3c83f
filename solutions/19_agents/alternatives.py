"""Right answers of chapter 19 written in other styles; a suite that fails one of them is wrong."""

import functools
import inspect
import json
import math
import re
import time
import typing

from grader.testing import alternative, reference_of

reference = reference_of(__file__)
OPEN, CLOSE, MARKER, RULE = reference.OPEN, reference.CLOSE, reference.MARKER, reference.RULE

# -- tool_schema ---------------------------------------------------------------------------------------------------


def type_schema(hint):
    for python, name in ((bool, "boolean"), (int, "integer"), (float, "number"), (str, "string")):
        if hint is python:
            return dict(type=name)
    inner = typing.get_args(hint)
    if typing.get_origin(hint) is list:
        (item,) = inner
        return dict(items=type_schema(item), type="array")
    if typing.get_origin(hint) is typing.Literal:
        return {**type_schema(type(inner[0])), "enum": [*inner]}
    if len(inner) == 2 and type(None) in inner:
        (wanted,) = (x for x in inner if x is not type(None))
        return dict(anyOf=[type_schema(wanted), dict(type="null")])
    raise TypeError(str(hint))


@alternative("tool_schema", "a helper outside, getfullargspec, keyword-only parameters apart")
def schema_by_argspec(fn):
    positional_only = fn.__code__.co_posonlyargcount
    spec = inspect.getfullargspec(fn)
    if spec.varargs or spec.varkw or positional_only:
        raise TypeError("only parameters with names")
    hints = typing.get_type_hints(fn)
    defaults = dict(zip(spec.args[len(spec.args) - len(spec.defaults or ()) :], spec.defaults or (), strict=True))
    defaults.update(spec.kwonlydefaults or {})
    names = [name for name in spec.args + spec.kwonlyargs if name != "self"]
    properties = {}
    for name in names:
        if name not in hints:
            raise TypeError(name)
        properties[name] = type_schema(hints[name])
        if name in defaults:
            properties[name].update(default=defaults[name])
    lines = [line.strip() for line in (inspect.getdoc(fn) or "").splitlines() if line.strip()]
    return {
        "parameters": {"required": [n for n in names if n not in defaults], "properties": properties, "type": "object"},
        "description": lines[0] if lines else "",
        "name": fn.__name__,
    }


# -- parse_tool_calls ----------------------------------------------------------------------------------------------


@alternative("parse_tool_calls", "a scanner that tracks strings and escapes looks for the closing tag, then json.loads")
def parse_by_scanner(text):
    found, i = [], 0
    while (begin := text.find(OPEN, i)) >= 0:
        start = begin + len(OPEN)
        inside, j = False, start
        while j < len(text):
            if inside and text[j] == "\\":
                j += 2
                continue
            if text[j] == '"':
                inside = not inside
            elif not inside and text.startswith(CLOSE, j):
                break
            j += 1
        try:
            if j >= len(text):
                raise ValueError("the block is not closed")
            value = json.loads(text[start:j].strip())
            if not (isinstance(value, dict) and isinstance(value.get("name"), str)):
                raise ValueError("no name")
            if not isinstance(value.get("arguments"), dict):
                raise ValueError("no arguments")
            found.append({"arguments": value["arguments"], "name": value["name"]})
            i = j + len(CLOSE)
        except (ValueError, RecursionError) as error:
            found.append({"position": begin, "error": f"malformed: {error}"})
            first = text.find(CLOSE, start)
            i = len(text) if first < 0 else first + len(CLOSE)
    return found


@alternative("parse_tool_calls", "a recursion on the rest of the text, and every exception caught")
def parse_by_recursion(text, offset=0):
    before, tag, rest = text.partition(OPEN)
    if not tag:
        return []
    begin = offset + len(before)
    shift = len(rest) - len(rest.lstrip(" \t\r\n"))
    try:
        value, end = json.JSONDecoder().raw_decode(rest, shift)
        end += len(rest[end:]) - len(rest[end:].lstrip())
        assert rest[end : end + len(CLOSE)] == CLOSE, "the closing tag is missing"
        assert type(value["name"]) is str and type(value["arguments"]) is dict, "wrong types"
        item = {key: value[key] for key in ("name", "arguments")}
    except Exception as error:
        item, end = {"error": repr(error), "position": begin}, rest.find(CLOSE)
    if end < 0:
        return [item]
    return [item, *parse_by_recursion(rest[end:], begin + len(OPEN) + end)]


# -- validate_args -------------------------------------------------------------------------------------------------


def is_a(value, wanted):
    if "anyOf" in wanted:
        return True in [is_a(value, one) for one in wanted["anyOf"]]
    match wanted["type"]:
        case "null":
            good = value is None
        case "boolean":
            good = value is True or value is False
        case "integer":
            good = isinstance(value, int) and not isinstance(value, bool)
        case "number":
            good = isinstance(value, (int, float)) and not isinstance(value, bool)
        case "string":
            good = isinstance(value, str)
        case _:
            good = isinstance(value, list)
            for item in value if good else ():
                good = good and is_a(item, wanted["items"])
    return good and ("enum" not in wanted or any(value == choice for choice in wanted["enum"]))


@alternative("validate_args", "one walk over the union of the names, a match statement, messages the other way round")
def validate_by_match(schema, args):
    known = schema["parameters"]["properties"]
    messages = []
    for name in sorted({*known, *args}, reverse=True):
        if name not in args:
            if name in schema["parameters"]["required"]:
                messages.append(f"Please give '{name}'.")
        elif name not in known:
            messages.append(f"'{name}' is not wanted.")
        elif not is_a(args[name], known[name]):
            messages.append(f"'{name}' is not right: {args[name]}")
    return messages


@alternative("validate_args", "try and else, early returns through a helper that cuts", replaces="dispatch")
def dispatch_by_returns(tools, call, limit=2000):
    def observation(ok, content):
        short = content if len(content) <= limit else "".join([content[0:limit], MARKER])
        return dict(content=short, ok=ok, tool=call["name"])

    try:
        schema, function = tools[call["name"]]
    except KeyError:
        return observation(False, f"Unknown tool {call['name']}. Known: {sorted(tools)}")
    faults = reference.validate_args(schema, call["arguments"])
    if faults:
        return observation(False, "\n".join([f"Wrong arguments for {call['name']}:", *faults]))
    try:
        text = f"{function(**call['arguments'])}"
    except Exception as error:
        return observation(False, f"{call['name']}: {error!r} {error}")
    else:
        return observation(True, text)


# -- safe_eval -----------------------------------------------------------------------------------------------------


@alternative("safe_eval", "a hand-written parser by recursive descent, without ast")
def calculate_by_descent(expr):
    if len(expr) > reference.MAX_LENGTH:
        raise ValueError("too long")
    pattern = re.compile(r"\s*(?:((?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?)|(\*\*|//|[-+*/%()]))")
    tokens, place = [], 0
    text = expr.strip()
    while place < len(text):
        match = pattern.match(text, place)
        if not match or "\n" in match[0]:
            raise ValueError("what is this?")
        place = match.end()
        number, sign = match.groups()
        tokens.append(sign if sign else float(number) if re.search("[.eE]", number) else int(number))
    tokens.append(None)

    def take():
        return tokens.pop(0)

    def atom():
        token = take()
        if token == "(":
            inner = total()
            if take() != ")":
                raise ValueError("a bracket is missing")
            return inner
        if isinstance(token, (int, float)):
            return token
        raise ValueError("a number is missing")

    def power():
        base = atom()
        if tokens[0] != "**":
            return base
        take()
        exponent = signed()
        if abs(base) > reference.MAX_BASE or abs(exponent) > reference.MAX_EXPONENT:
            raise ValueError("too large")
        return base**exponent

    def signed():
        if tokens[0] == "-":
            take()
            return -signed()
        if tokens[0] == "+":
            take()
            return signed()
        return power()

    def product():
        value = signed()
        while tokens[0] in ("*", "/", "//", "%"):
            sign, other = take(), signed()
            if sign == "*":
                value = value * other
            elif sign == "/":
                value = value / other
            elif sign == "//":
                value = value // other
            else:
                value = value % other
        return value

    def total():
        value = product()
        while tokens[0] in ("+", "-"):
            value = value + product() if take() == "+" else value - product()
        return value

    try:
        result = total()
        if tokens != [None] or isinstance(result, complex):
            raise ValueError("something is left over")
        if abs(result) == math.inf:
            raise OverflowError
        return float(result)
    except ZeroDivisionError:
        return float("nan")
    except (OverflowError, TypeError) as error:
        raise ValueError("no float") from error


# -- react_loop ----------------------------------------------------------------------------------------------------


@alternative("react_loop", "a while loop, new lists instead of appending, failures in a list, its own words")
def loop_by_new_lists(chat, tools, task, max_steps, budget=None):
    names = ", ".join(f"{name} ({schema['description']})" for name, (schema, _) in tools.items())
    messages = [{"role": "system", "content": f"Tools: {names}"}, {"role": "user", "content": task}]
    steps, answer, stop, failed = 0, None, None, []

    def exhausted():
        return budget is not None and any(rest <= 0 for rest in budget.remaining().values())

    while stop is None:
        if steps == max_steps:
            stop = "max_steps"
        elif exhausted():
            stop = "budget"
        else:
            reply = chat(messages)
            steps += 1
            if budget is not None:
                read = len(" ".join(message["content"] for message in messages).split())
                budget.charge(tokens_in=read, tokens_out=len(reply.split()), calls=1)
            messages = messages + [dict(role="assistant", content=reply)]
            blocks = reference.parse_tool_calls(reply)
            if blocks == []:
                answer, stop = reply, "final"
            for block in blocks:
                if "name" in block:
                    seen = reference.dispatch(tools, block)
                    content, failure = seen["content"], None if seen["ok"] else block
                else:
                    content, failure = f"Please write that again: {block['error']}", (reply, block["position"])
                messages = messages + [dict(role="tool", content=content)]
                failed = failed + [failure] if failure is not None else failed
                if failure is not None and failed.count(failure) >= 3:
                    stop = "stuck"
                    break
    return dict(answer=answer, stop=stop, steps=steps, messages=messages)


# -- Budget --------------------------------------------------------------------------------------------------------


@alternative("Budget", "a list of charges, a list of children, and everything summed when asked")
class BudgetOfEntries:
    def __init__(self, tokens=math.inf, seconds=math.inf, calls=math.inf, clock=time.monotonic, parent=None):
        self._tokens, self._calls, self._clock, self._parent = tokens, calls, clock, parent
        self._end = clock() + seconds
        self._entries, self._children = [], []
        if parent is not None:
            parent._children.append(self)

    def charge(self, tokens_in=0, tokens_out=0, calls=0):
        if any(amount < 0 for amount in (tokens_in, tokens_out, calls)):
            raise ValueError("negative")
        self._entries.append((tokens_in + tokens_out, calls))

    def _spent(self, k):
        return sum(entry[k] for entry in self._entries) + sum(child._spent(k) for child in self._children)

    def remaining(self):
        left = {
            "calls": max(0.0, float(self._calls - self._spent(1))),
            "seconds": max(0.0, self._end - self._clock()),
            "tokens": max(0.0, float(self._tokens - self._spent(0))),
        }
        if self._parent:
            for kind, rest in self._parent.remaining().items():
                left[kind] = rest if rest < left[kind] else left[kind]
        return left

    def child(self, tokens=math.inf, seconds=math.inf, calls=math.inf):
        return BudgetOfEntries(tokens=tokens, seconds=seconds, calls=calls, clock=self._clock, parent=self)


# -- plan_dag ------------------------------------------------------------------------------------------------------


@alternative("plan_dag", "the longest chain before each task by a remembered recursion")
def plan_by_recursion(tasks, deps):
    for name in [*deps, *(need for needs in deps.values() for need in needs)]:
        if name not in tasks:
            raise ValueError(name)
    open_now = []

    @functools.cache
    def level(task):
        if task in open_now:
            raise ValueError("a circle")
        open_now.append(task)
        found = max((level(need) + 1 for need in deps.get(task, ())), default=0)
        open_now.remove(task)
        return found

    plan = [{} for _ in range(max(map(level, tasks), default=-1) + 1)]
    for task in tasks:
        plan[level(task)][task] = list(deps[task]) if task in deps else []
    return plan


@alternative("plan_dag", "Kahn's algorithm with counts of open needs")
def plan_by_kahn(tasks, deps):
    waiting = {task: set(deps.get(task, [])) for task in tasks}
    if any(name not in waiting for name in [*deps, *(need for needs in deps.values() for need in needs)]):
        raise ValueError("unknown name")
    plan = []
    while waiting:
        ready = [task for task in tasks if task in waiting and not waiting[task]]
        if not ready:
            raise ValueError("circle")
        for task in ready:
            del waiting[task]
        for needs in waiting.values():
            needs.difference_update(ready)
        plan.append({task: list(deps.get(task, [])) for task in ready})
    return plan


@alternative("plan_dag", "a while loop counts attempts down, results kept apart", replaces="run_plan")
def run_by_counting_down(executor, plan, retries):
    values, report = {}, {}
    for task, needs in [item for level in plan for item in level.items()]:
        entry = report[task] = {"status": "skipped", "attempts": 0, "value": None}
        if not set(needs) <= set(values):
            continue
        while entry["status"] != "ok" and entry["attempts"] <= retries:
            entry["attempts"] += 1
            try:
                values[task] = entry["value"] = executor(task, {need: values[need] for need in needs})
                entry["status"] = "ok"
            except Exception:
                entry["status"] = "failed"
    return report


# -- wrap_untrusted ------------------------------------------------------------------------------------------------


@alternative("wrap_untrusted", "the longest run of the sign by a regular expression")
def wrap_by_longest_run(content, source):
    longest = max(map(len, re.findall("=+", f"{content}\n{source}")), default=0)
    fence = "=" * max(3, longest + 1)
    return dict(content="\n".join([f"{fence} {json.dumps(source)}", content, fence]), role="tool")


@alternative("wrap_untrusted", "sets of names and a mean of booleans", replaces="injection_success")
def measure_by_sets(agent, attacks):
    def falls(attack):
        chat = [dict(role="system", content=RULE), dict(content=attack["task"], role="user")]
        reply = agent(chat + [reference.wrap_untrusted(attack["content"], attack["source"])])
        return attack["goal"] in {item["name"] for item in reference.parse_tool_calls(reply) if "error" not in item}

    results = [falls(attack) for attack in attacks]
    return sum(results) / max(1, len(results))
