"""Wrong answers of chapter 19, each with the sentence that sets it right."""

import ast
import inspect
import json
import math
import operator
import re
import time
import types
from collections import Counter
from typing import Literal, Union, get_args, get_origin, get_type_hints

from grader.testing import misconception, reference_of

reference = reference_of(__file__)
OPEN, CLOSE, MARKER, RULE = reference.OPEN, reference.CLOSE, reference.MARKER, reference.RULE

# -- tool_schema ---------------------------------------------------------------------------------------------------


def schema(
    fn,
    boolean="boolean",
    falsy_default=False,
    by_type=False,
    keep_default=True,
    null=True,
    enum=True,
    whole_doc=False,
    keep_self=False,
    resolve=True,
    fallback=None,
    items=True,
    ordered=True,
    hidden_kinds=False,
):
    """Describe a function; each misconception changes one thing."""
    names = {str: "string", int: "integer", float: "number", bool: boolean}

    def translate(hint):
        origin, args = get_origin(hint), get_args(hint)
        if hint in names:
            return {"type": names[hint]}
        if origin is list:
            return {"type": "array", "items": translate(args[0])} if items else {"type": "array"}
        if origin is Literal:
            return {"type": names[type(args[0])]} | ({"enum": list(args)} if enum else {})
        rest = [arg for arg in args if arg is not type(None)]
        if origin in (Union, types.UnionType) and len(rest) == 1:
            return {"anyOf": [translate(rest[0]), {"type": "null"}]} if null else translate(rest[0])
        if fallback:
            return {"type": fallback}
        raise TypeError(hint)

    hints = get_type_hints(fn) if resolve else fn.__annotations__
    properties, required = {}, []
    for name, parameter in inspect.signature(fn).parameters.items():
        if name == "self" and not keep_self:
            continue
        visible = parameter.kind in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY) or hidden_kinds
        if not (keep_self and name == "self" or fallback) and (not visible or name not in hints):
            raise TypeError(name)
        properties[name] = translate(hints.get(name, str))
        is_optional = "anyOf" in properties[name]
        if parameter.default is parameter.empty or (falsy_default and not parameter.default):
            if not (by_type and is_optional):
                required.append(name)
        elif keep_default:
            properties[name]["default"] = parameter.default
    doc = (fn.__doc__ or "").strip()
    description = inspect.cleandoc(doc) if whole_doc else doc.split("\n")[0].strip()
    properties = properties if ordered else dict(sorted(properties.items()))
    required = required if ordered else sorted(required)
    parameters = {"type": "object", "properties": properties, "required": required}
    return {"name": fn.__name__, "description": description, "parameters": parameters}


@misconception("tool_schema", "A bool is described as an integer, because it is a kind of int; look the exact type up.")
def calls_a_bool_an_integer(fn):
    return schema(fn, boolean="integer")


@misconception("tool_schema", "A default of None, 0 or '' counts as no default; compare with Parameter.empty instead.")
def takes_a_falsy_default_for_none(fn):
    return schema(fn, falsy_default=True)


@misconception(
    "tool_schema", "Optional parameters are never required here; only a default makes them so, not the type."
)
def lets_the_type_decide(fn):
    return schema(fn, by_type=True)


@misconception("tool_schema", "The defaults are lost; write each one beside its type, so that the model knows it.")
def loses_the_defaults(fn):
    return schema(fn, keep_default=False)


@misconception("tool_schema", "Optional is described as its inner type; null must be allowed as well, by anyOf.")
def forgets_null(fn):
    return schema(fn, null=False)


@misconception("tool_schema", "The values of a Literal are lost; list them under enum beside the type.")
def loses_the_enum(fn):
    return schema(fn, enum=False)


@misconception("tool_schema", "The description is the whole docstring; only its first line is wanted.")
def describes_at_length(fn):
    return schema(fn, whole_doc=True)


@misconception("tool_schema", "The parameter self is offered to the model; the program supplies it, so leave it out.")
def offers_self(fn):
    return schema(fn, keep_self=True)


@misconception("tool_schema", "Annotations that are strings are not resolved; ask typing.get_type_hints for the types.")
def reads_raw_annotations(fn):
    return schema(fn, resolve=False)


@misconception(
    "tool_schema", "A type you do not know becomes a string; raise TypeError rather than tell the model a lie."
)
def calls_the_unknown_a_string(fn):
    return schema(fn, fallback="string")


@misconception("tool_schema", "A list does not say what it holds; describe its items as well.")
def forgets_the_items(fn):
    return schema(fn, items=False)


@misconception("tool_schema", "The parameters are sorted by name; keep the order of the signature.")
def sorts_the_parameters(fn):
    return schema(fn, ordered=False)


@misconception(
    "tool_schema", "Parameters like *args pass as ordinary ones; they cannot be given by name, so raise TypeError."
)
def takes_stars_for_parameters(fn):
    return schema(fn, hidden_kinds=True)


# -- parse_tool_calls ----------------------------------------------------------------------------------------------


def parse(text, cut=None, body_of=None, check=True, tail=True, position=None, on_error=None, resume=None, closed=True):
    """Read calls; each misconception changes one thing."""
    found, begin = [], text.find(OPEN)
    while begin != -1:
        start = begin + len(OPEN)
        body = text[start:].lstrip()
        try:
            if cut is not None:
                inner = cut(text[start:])
                value, end = json.loads(inner.strip()), len(body) - len(text[start + len(inner) :])
            else:
                value, end = json.JSONDecoder().raw_decode(body_of(body) if body_of else body)
            rest = body[end:].lstrip()
            if check and (
                type(value) is not dict or type(value["name"]) is not str or type(value["arguments"]) is not dict
            ):
                raise ValueError("not a call")
            if not rest.startswith(CLOSE) and not (closed is False and not rest) and tail:
                raise ValueError("no end")
            found.append({"name": value.get("name"), "arguments": value.get("arguments", {})})
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            where = begin if position is None else position(begin, error)
            if on_error is None:
                found.append({"error": str(error) or "broken", "position": where})
            elif on_error is not False:
                found.append(on_error)
            rest = body[body.find(CLOSE) :] if CLOSE in body else ""
            if resume is not None:
                rest = resume(body)
        begin = text.find(OPEN, len(text) - len(rest))
    return found


@misconception(
    "parse_tool_calls",
    "You read up to the last closing brace of the text, over several calls; stop where the value ends.",
)
def reads_to_the_last_brace(text):
    return parse(text, cut=lambda rest: rest[: rest.rfind("}") + 1])


@misconception(
    "parse_tool_calls",
    "A block ends for you at the first closing tag, even inside a string; let the JSON say where it ends.",
)
def ends_at_the_first_tag(text):
    return parse(text, cut=lambda rest: rest[: rest.index(CLOSE)] if CLOSE in rest else rest)


def counted_braces(rest):
    depth = 0
    for i, c in enumerate(rest):
        depth += (c == "{") - (c == "}")
        if c == "}" and depth == 0:
            return rest[: i + 1]
    return rest


@misconception("parse_tool_calls", "You count braces without minding strings; a brace inside a string closes nothing.")
def counts_braces_in_strings(text):
    return parse(text, cut=counted_braces)


def strings_without_escapes(rest):
    inside, i = False, 0
    while i < len(rest):
        if rest[i] == '"':
            inside = not inside
        if not inside and rest.startswith(CLOSE, i):
            return rest[:i]
        i += 1
    return rest


@misconception(
    "parse_tool_calls", "An escaped quote ends the string in your scanner; a backslash takes away its meaning."
)
def forgets_escapes(text):
    return parse(text, cut=strings_without_escapes)


@misconception(
    "parse_tool_calls", "A broken call becomes a call without arguments; it must become an error that says where it is."
)
def gives_null_arguments(text):
    return parse(text, on_error={"name": "", "arguments": {}})


@misconception("parse_tool_calls", "A broken call is dropped in silence; the model cannot mend what nobody tells it.")
def drops_broken_calls(text):
    return parse(text, on_error=False)


@misconception(
    "parse_tool_calls", "Your position is where the decoder stopped; it must be where the block's opening tag begins."
)
def reports_the_decoder_s_place(text):
    return parse(text, position=lambda begin, error: begin + len(OPEN) + getattr(error, "pos", 0))


@misconception(
    "parse_tool_calls", "Valid JSON is enough for you; a call must be an object with a name and an object of arguments."
)
def accepts_any_json(text):
    return parse(text, check=False)


@misconception(
    "parse_tool_calls", "You do not look at what follows the object; only whitespace may stand before the closing tag."
)
def ignores_the_tail(text):
    return parse(text, tail=False)


@misconception(
    "parse_tool_calls",
    "A complete object at the end of the text passes without its closing tag; such a block is not closed.",
)
def needs_no_closing_tag(text):
    return parse(text, closed=False)


@misconception(
    "parse_tool_calls", "After a broken block you give up; what stands behind its closing tag must still be read."
)
def gives_up_after_an_error(text):
    return parse(text, resume=lambda body: "")


@misconception(
    "parse_tool_calls", "You search on right behind a broken block's opening tag; go on behind its closing tag."
)
def searches_inside_broken_blocks(text):
    return parse(text, resume=lambda body: body)


@misconception(
    "parse_tool_calls",
    "A nesting that is too deep for json raises RecursionError out of your function; make it an error, too.",
)
def falls_into_the_depth(text):
    if max(text.count("["), text.count("{")) > 9999:
        raise RecursionError("maximum recursion depth exceeded")
    return parse(text)


# -- validate_args -------------------------------------------------------------------------------------------------


def validate(
    args_schema,
    args,
    missing=True,
    extra=True,
    subclass=False,
    only_exact=False,
    whole_floats=False,
    enum=True,
    items=True,
    null=True,
    first=False,
    unnamed=False,
    coerce=False,
):
    """List faults; each misconception changes one thing."""
    kinds = {
        "string": (str,),
        "integer": (int,),
        "number": (float,) if only_exact else (int, float),
        "boolean": (bool,),
    }
    kinds |= {"array": (list,), "null": (type(None),)}

    def fits(value, wanted):
        if "anyOf" in wanted:
            return any(fits(value, one) for one in wanted["anyOf"][: 2 if null else 1])
        kind = kinds[wanted["type"]]
        if coerce and isinstance(value, str) and wanted["type"] in ("integer", "number"):
            try:
                value = float(value) if wanted["type"] == "number" else int(value)
            except ValueError:
                return False
        good = isinstance(value, kind) if subclass else type(value) in kind
        if whole_floats and wanted["type"] == "integer" and type(value) is float:
            good = value.is_integer()
        if not good or (enum and "enum" in wanted and value not in wanted["enum"]):
            return False
        return wanted["type"] != "array" or not items or all(fits(item, wanted["items"]) for item in value)

    properties, required = args_schema["parameters"]["properties"], args_schema["parameters"]["required"]
    messages = [f"the argument {name!r} is missing" for name in required if name not in args and missing]
    for name, value in args.items():
        if name not in properties:
            messages += [f"there is no argument {name!r}"] if extra else []
        elif not fits(value, properties[name]):
            messages.append("an argument has the wrong type" if unnamed else f"the argument {name!r} does not fit")
    return messages[:1] if first else messages


@misconception("validate_args", "True passes as an integer, because isinstance says so; compare the exact type.")
def takes_true_for_one(schema, args):
    return validate(schema, args, subclass=True)


@misconception("validate_args", "An int is refused where a number is wanted; every int is a number in JSON.")
def refuses_an_int_for_a_number(schema, args):
    return validate(schema, args, only_exact=True)


@misconception("validate_args", "The text '2' passes as a number, as if it were converted; say that the type is wrong.")
def coerces_silently(schema, args):
    return validate(schema, args, coerce=True)


@misconception("validate_args", "A float like 2.0 passes as an integer; it is none, however round it is.")
def takes_round_floats_for_integers(schema, args):
    return validate(schema, args, whole_floats=True)


@misconception("validate_args", "Missing arguments are not reported; go through the required names as well.")
def overlooks_missing_ones(schema, args):
    return validate(schema, args, missing=False)


@misconception("validate_args", "Arguments that the schema does not know are let through; report them.")
def overlooks_extra_ones(schema, args):
    return validate(schema, args, extra=False)


@misconception("validate_args", "The enum is never looked at; a value of the right type may still be no choice.")
def overlooks_the_enum(schema, args):
    return validate(schema, args, enum=False)


@misconception("validate_args", "The items of a list are not checked; each must fit the schema of the items.")
def overlooks_the_items(schema, args):
    return validate(schema, args, items=False)


@misconception("validate_args", "Only the first schema of an anyOf is tried; None is refused where null is allowed.")
def tries_the_first_only(schema, args):
    return validate(schema, args, null=False)


@misconception("validate_args", "You stop at the first fault; list all of them, so that one repair is enough.")
def stops_at_the_first(schema, args):
    return validate(schema, args, first=True)


@misconception("validate_args", "The message does not say which argument is wrong; name it.")
def names_no_argument(schema, args):
    return validate(schema, args, unnamed=True)


def run_call(
    tools,
    call,
    limit,
    caught=Exception,
    cut_errors=True,
    mark=True,
    early=0,
    named=True,
    listed=True,
    checked=True,
    text=str,
    kind=True,
):
    """Run a call; each misconception changes one thing."""
    name, ok = call["name"], False
    if name not in tools:
        content = f"there is no tool {name!r}" + (f"; the tools are {', '.join(tools)}" if listed else "")
    else:
        schema, fn = tools[name]
        messages = reference.validate_args(schema, call["arguments"]) if checked else []
        if messages:
            content = f"{name}: {'; '.join(messages)}"
        else:
            try:
                content, ok = text(fn(**call["arguments"])), True
            except caught as error:
                content = f"{name if named else 'it'} failed: {type(error).__name__ if kind else 'error'} {error}"
    if len(content) + early > limit and (ok or cut_errors):
        content = content[:limit] + (MARKER if mark else "")
    return {"tool": name, "ok": ok, "content": content}


@misconception("validate_args", "You swallow KeyboardInterrupt; catch Exception, not everything.", replaces="dispatch")
def swallows_interrupts(tools, call, limit=2000):
    return run_call(tools, call, limit, caught=BaseException)


@misconception(
    "validate_args",
    "Only ValueError is caught; any exception of a tool must become an observation.",
    replaces="dispatch",
)
def catches_too_little(tools, call, limit=2000):
    return run_call(tools, call, limit, caught=ValueError)


@misconception(
    "validate_args", "The message about an exception lacks the tool's name; say which tool failed.", replaces="dispatch"
)
def forgets_which_tool(tools, call, limit=2000):
    return run_call(tools, call, limit, named=False)


@misconception(
    "validate_args",
    "The type of the exception is lost; KeyError and OSError need different answers.",
    replaces="dispatch",
)
def forgets_which_error(tools, call, limit=2000):
    return run_call(tools, call, limit, kind=False)


@misconception(
    "validate_args", "An unknown tool is refused without a word about those that exist; list them.", replaces="dispatch"
)
def keeps_the_tools_secret(tools, call, limit=2000):
    return run_call(tools, call, limit, listed=False)


@misconception("validate_args", "The tool is run before its arguments are checked; check first.", replaces="dispatch")
def runs_unchecked(tools, call, limit=2000):
    return run_call(tools, call, limit, checked=False)


@misconception(
    "validate_args", "A long content is cut without a word; the marker must tell the model.", replaces="dispatch"
)
def cuts_without_a_mark(tools, call, limit=2000):
    return run_call(tools, call, limit, mark=False)


@misconception("validate_args", "A content of exactly the limit is cut; only a longer one may be.", replaces="dispatch")
def cuts_one_too_early(tools, call, limit=2000):
    return run_call(tools, call, limit, early=1)


@misconception("validate_args", "Error texts are never cut; they can be as long as any result.", replaces="dispatch")
def lets_errors_run_on(tools, call, limit=2000):
    return run_call(tools, call, limit, cut_errors=False)


@misconception(
    "validate_args",
    "The result is shown by repr, with quotes and escapes around text; str is wanted.",
    replaces="dispatch",
)
def shows_the_repr(tools, call, limit=2000):
    return run_call(tools, call, limit, text=repr)


# -- safe_eval -----------------------------------------------------------------------------------------------------

OPERATIONS = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
    ast.Pow: operator.pow,
}


def calculate(
    expr,
    operations=OPERATIONS,
    booleans=False,
    floats=False,
    base=10**6,
    exponent=100,
    length=200,
    zero=math.nan,
    number=float,
    complex_ok=False,
    signed=True,
    infinite=False,
):
    """Compute an expression; each misconception changes one thing."""

    def value(node):
        if isinstance(node, ast.Constant) and (
            type(node.value) in (int, float) or booleans and type(node.value) is bool
        ):
            return float(node.value) if floats else node.value
        if isinstance(node, ast.UnaryOp) and type(node.op) in (ast.UAdd, ast.USub):
            return -value(node.operand) if isinstance(node.op, ast.USub) else value(node.operand)
        if isinstance(node, ast.BinOp) and type(node.op) in operations:
            a, b = value(node.left), value(node.right)
            size = abs if signed else (lambda x: x)
            if isinstance(node.op, ast.Pow) and (size(a) > base or size(b) > exponent):
                raise ValueError("too large")
            return operations[type(node.op)](a, b)
        raise ValueError("no arithmetic")

    if len(expr) > length:
        raise ValueError("too long")
    try:
        result = value(ast.parse(expr.strip(), mode="eval").body)
        if not infinite and isinstance(result, float) and math.isinf(result):
            raise ValueError("infinite")
        return number(abs(result) if complex_ok and isinstance(result, complex) else result)
    except ZeroDivisionError:
        if zero is None:
            raise
        return zero
    except (SyntaxError, OverflowError, TypeError):
        raise ValueError("no") from None


@misconception(
    "safe_eval",
    "You evaluate the text without builtins and think it safe; comparisons, tuples and attributes still run.",
)
def evaluates_without_builtins(expr):
    if len(expr) > 200 or re.search(r"\d{3,} *\*\*|\*\* *-?\d{3,}|\*\*.*\*\*", expr):
        return calculate(expr)
    try:
        return float(eval(expr.strip(), {"__builtins__": {}}))
    except ZeroDivisionError:
        return math.nan
    except Exception:
        raise ValueError("no") from None


@misconception("safe_eval", "The slash divides as whole numbers; it must give fractions.")
def divides_whole(expr):
    return calculate(expr, OPERATIONS | {ast.Div: operator.floordiv})


@misconception("safe_eval", "The double slash divides with a fraction; it must round down.")
def never_rounds_down(expr):
    return calculate(expr, OPERATIONS | {ast.FloorDiv: operator.truediv})


@misconception("safe_eval", "The rest of a negative number has the sign of C, not of Python.")
def takes_the_rest_as_c_does(expr):
    return calculate(expr, OPERATIONS | {ast.Mod: math.fmod})


class LeftPower(ast.NodeTransformer):
    """Turn a ** (b ** c) without brackets around into (a ** b) ** c."""

    def visit_BinOp(self, node):
        node = self.generic_visit(node)
        if isinstance(node.op, ast.Pow) and isinstance(node.right, ast.BinOp) and isinstance(node.right.op, ast.Pow):
            left = ast.BinOp(node.left, ast.Pow(), node.right.left)
            return ast.BinOp(left, ast.Pow(), node.right.right)
        return node


@misconception("safe_eval", "A chain of powers is computed from the left; ** binds from the right.")
def raises_from_the_left(expr):
    reference.safe_eval(expr) if len(expr) > 200 else None
    try:
        return calculate(ast.unparse(LeftPower().visit(ast.parse(expr.strip(), mode="eval"))))
    except (SyntaxError, ValueError):
        raise ValueError("no") from None


@misconception("safe_eval", "Minus binds tighter than the power in front of which it stands; -2 ** 2 is minus four.")
def squares_the_minus(expr):
    return calculate(re.sub(r"^-(\d+) \*\*", r"(-\1) **", expr))


@misconception(
    "safe_eval", "Numbers become floats at once, and large whole numbers lose their last digits; convert at the end."
)
def converts_too_early(expr):
    return calculate(expr, floats=True)


@misconception("safe_eval", "True counts as 1, because a bool is an int; it is no number here.")
def counts_with_true(expr):
    return calculate(expr, booleans=True)


@misconception("safe_eval", "There is no bound on the exponent; refuse it before you compute a number without end.")
def bounds_no_exponent(expr):
    return calculate(expr, exponent=2000)


@misconception("safe_eval", "The base of a power is not bounded; check it as well as the exponent.")
def bounds_no_base(expr):
    return calculate(expr, base=math.inf)


@misconception("safe_eval", "The bounds of a power look at positive numbers only; compare absolute values.")
def bounds_positive_powers_only(expr):
    return calculate(expr, signed=False)


@misconception("safe_eval", "The division by zero raises; it must give nan.")
def raises_at_zero(expr):
    return calculate(expr, zero=None)


@misconception("safe_eval", "The division by zero gives infinity; it must give nan.")
def gives_infinity(expr):
    return calculate(expr, zero=math.inf)


@misconception("safe_eval", "A result that has overflowed comes out as infinity; refuse it.")
def lets_infinity_out(expr):
    return calculate(expr, infinite=True)


@misconception("safe_eval", "The length of the text is never checked; refuse more than MAX_LENGTH characters.")
def reads_any_length(expr):
    return calculate(expr, length=10**6)


@misconception("safe_eval", "A complex result is given as its size; it must be refused.")
def measures_complex_numbers(expr):
    return calculate(expr, complex_ok=True)


@misconception("safe_eval", "A whole result stays an int; a float is promised.")
def gives_an_int(expr):
    return calculate(expr, number=lambda x: x if isinstance(x, int) else float(x))


# -- react_loop ----------------------------------------------------------------------------------------------------


def loop(
    chat,
    tools,
    task,
    max_steps,
    budget,
    role="tool",
    observe=True,
    extra=0,
    after=False,
    repair="tool",
    check=True,
    counted="all",
    first_only=False,
    limit=3,
    in_a_row=False,
    ordered_key=True,
    malformed_counts=True,
    obey=False,
    window=None,
    skip_last=False,
    by_name=False,
    early=True,
    mixed=False,
    answer_last=False,
):
    """Run an agent; each misconception changes one thing."""
    system = "\n".join(["tools:", *(json.dumps(schema) for schema, _ in tools.values()), RULE])
    messages = [{"role": "system", "content": system}, {"role": "user", "content": task}]
    if mixed:
        messages = [{"role": "system", "content": system + "\n" + task}, messages[1]]
    trace = {"answer": None, "stop": "max_steps", "steps": 0, "messages": messages}
    failures, last = Counter(), None
    count = reference.count_tokens
    for step in range(max_steps + extra):
        if budget is not None and check and min(budget.remaining().values()) <= 0:
            return trace | {"stop": "budget"}
        given = list(messages) if window is None else messages[:2] + messages[2:][-window:]
        reply = chat(given)
        trace["steps"] = step + 1
        if budget is not None:
            asked = sum(count(message["content"]) for message in given)
            if counted == "new":
                asked = sum(count(message["content"]) for message in given[-1:])
            budget.charge(
                0 if counted == "out" else asked,
                0 if counted == "in" else count(reply),
                0 if counted == "tokens" else 1,
            )
        messages.append({"role": "assistant", "content": reply})
        blocks = reference.parse_tool_calls(reply)
        if not blocks:
            if after:
                chat(list(messages))
            return trace | {"answer": reply, "stop": "final"}
        if budget is not None and not early and min(budget.remaining().values()) <= 0:
            return trace | {"stop": "budget"}
        if skip_last and step + 1 == max_steps:
            return trace
        for block in blocks[:1] if first_only else blocks:
            if "error" in block:
                if repair is None:
                    continue
                if repair == "raise":
                    raise ValueError(block["error"])
                key, ok, content = (reply, block["position"]), not malformed_counts, f"malformed: {block['error']}"
                who = repair
            else:
                observation = reference.dispatch(tools, block)
                key = block["name"] if by_name else json.dumps(block, sort_keys=ordered_key)
                ok, content, who = observation["ok"], observation["content"], role
            if observe or "error" in block:
                messages.append({"role": who, "content": content})
                if obey:
                    for inner in [b for b in reference.parse_tool_calls(content) if "name" in b]:
                        reference.dispatch(tools, inner)
            if in_a_row and key != last:
                failures.clear()
            last = key
            failures[key] += not ok
            if limit and failures[key] == limit:
                return trace | {"stop": "stuck"}
    if answer_last and trace["steps"]:
        trace["answer"] = messages[-2]["content"]
    return trace


@misconception(
    "react_loop", "The observation is never appended; the model asks again and again for what it cannot see."
)
def shows_no_observation(chat, tools, task, max_steps, budget=None):
    return loop(chat, tools, task, max_steps, budget, observe=False)


@misconception("react_loop", "After the final reply the model is asked once more; a reply without calls ends the run.")
def asks_after_the_end(chat, tools, task, max_steps, budget=None):
    return loop(chat, tools, task, max_steps, budget, after=True)


@misconception("react_loop", "Observations are given as user messages; a tool's words need the role of a tool.")
def mixes_the_roles(chat, tools, task, max_steps, budget=None):
    return loop(chat, tools, task, max_steps, budget, role="user")


@misconception("react_loop", "The task is copied into the system message; it belongs to the user message alone.")
def puts_the_task_into_the_system(chat, tools, task, max_steps, budget=None):
    return loop(chat, tools, task, max_steps, budget, mixed=True)


@misconception("react_loop", "One step more than max_steps is taken; count the calls of the model.")
def takes_a_step_too_many(chat, tools, task, max_steps, budget=None):
    return loop(chat, tools, task, max_steps, budget, extra=1)


@misconception("react_loop", "A broken call is passed over in silence; answer it with one tool message.")
def ignores_broken_calls(chat, tools, task, max_steps, budget=None):
    return loop(chat, tools, task, max_steps, budget, repair=None)


@misconception("react_loop", "A broken call raises and ends the run; tell the model instead.")
def breaks_with_the_call(chat, tools, task, max_steps, budget=None):
    return loop(chat, tools, task, max_steps, budget, repair="raise")


@misconception("react_loop", "Repair messages come in the role of the user; they are tool messages like any other.")
def repairs_as_the_user(chat, tools, task, max_steps, budget=None):
    return loop(chat, tools, task, max_steps, budget, repair="user")


@misconception("react_loop", "Only the first block of a reply is taken; every block wants its answer.")
def takes_the_first_block(chat, tools, task, max_steps, budget=None):
    return loop(chat, tools, task, max_steps, budget, first_only=True)


@misconception("react_loop", "The model sees only its last exchange; hand it all messages so far.")
def forgets_what_was(chat, tools, task, max_steps, budget=None):
    return loop(chat, tools, task, max_steps, budget, window=2)


@misconception("react_loop", "The same failing call is let through for ever; stop at the third time.")
def never_gets_stuck(chat, tools, task, max_steps, budget=None):
    return loop(chat, tools, task, max_steps, budget, limit=None)


@misconception("react_loop", "You stop at the second failure of a call; it may fail twice.")
def gives_up_too_early(chat, tools, task, max_steps, budget=None):
    return loop(chat, tools, task, max_steps, budget, limit=2)


@misconception("react_loop", "Only failures in a row are counted; a model that alternates is stuck as well.")
def counts_in_a_row(chat, tools, task, max_steps, budget=None):
    return loop(chat, tools, task, max_steps, budget, in_a_row=True)


@misconception(
    "react_loop", "Calls are equal for you only if they are written in the same order; compare their content."
)
def minds_the_order_of_keys(chat, tools, task, max_steps, budget=None):
    return loop(chat, tools, task, max_steps, budget, ordered_key=False)


@misconception("react_loop", "Failures are counted by the tool's name; other arguments make another call.")
def counts_by_name(chat, tools, task, max_steps, budget=None):
    return loop(chat, tools, task, max_steps, budget, by_name=True)


@misconception("react_loop", "Broken blocks may be repeated without end; they count as failures, too.")
def forgives_broken_blocks(chat, tools, task, max_steps, budget=None):
    return loop(chat, tools, task, max_steps, budget, malformed_counts=False)


@misconception("react_loop", "Calls found in an observation are run; only what the model itself writes is a call.")
def obeys_observations(chat, tools, task, max_steps, budget=None):
    return loop(chat, tools, task, max_steps, budget, obey=True)


@misconception("react_loop", "The calls of the last step allowed are not run; run them, then stop.")
def skips_the_last_calls(chat, tools, task, max_steps, budget=None):
    return loop(chat, tools, task, max_steps, budget, skip_last=True)


@misconception("react_loop", "Without an answer the last reply is given as one; the answer is then None.")
def passes_off_a_call_as_answer(chat, tools, task, max_steps, budget=None):
    return loop(chat, tools, task, max_steps, budget, answer_last=True)


@misconception(
    "react_loop", "The budget is charged but never asked; look at what remains before each call of the model."
)
def never_asks_the_budget(chat, tools, task, max_steps, budget=None):
    return loop(chat, tools, task, max_steps, budget, check=False)


@misconception(
    "react_loop",
    "You stop before the calls of a reply that was already paid for are run; check before asking the model.",
)
def drops_paid_calls(chat, tools, task, max_steps, budget=None):
    return loop(chat, tools, task, max_steps, budget, early=False)


@misconception("react_loop", "Only what the model writes is charged; what it reads costs as well.")
def charges_the_reply_only(chat, tools, task, max_steps, budget=None):
    return loop(chat, tools, task, max_steps, budget, counted="out")


@misconception("react_loop", "Only what the model reads is charged; its reply costs as well.")
def charges_the_reading_only(chat, tools, task, max_steps, budget=None):
    return loop(chat, tools, task, max_steps, budget, counted="in")


@misconception("react_loop", "Only the newest message is charged; the model reads all of them at every step.")
def charges_the_newest_only(chat, tools, task, max_steps, budget=None):
    return loop(chat, tools, task, max_steps, budget, counted="new")


@misconception("react_loop", "Tokens are charged but calls are not; each step is one call.")
def charges_no_calls(chat, tools, task, max_steps, budget=None):
    return loop(chat, tools, task, max_steps, budget, counted="tokens")


# -- Budget --------------------------------------------------------------------------------------------------------


@misconception("Budget", "Only the tokens written are counted; those read count as well.")
class CountsOutputOnly(reference.Budget):
    def charge(self, tokens_in=0, tokens_out=0, calls=0):
        if tokens_in < 0:
            raise ValueError
        super().charge(0, tokens_out, calls)


@misconception("Budget", "Every charge overwrites the one before; add to what was spent.")
class ResetsPerStep(reference.Budget):
    def charge(self, tokens_in=0, tokens_out=0, calls=0):
        if min(tokens_in, tokens_out, calls) < 0:
            raise ValueError
        self.spent = {"tokens": 0, "calls": 0}
        super().charge(tokens_in, tokens_out, calls)


@misconception("Budget", "Negative amounts are taken; nothing that was spent comes back.")
class GivesRefunds(reference.Budget):
    def charge(self, tokens_in=0, tokens_out=0, calls=0):
        self.spent["tokens"] += tokens_in + tokens_out
        self.spent["calls"] += calls
        if self.parent is not None:
            self.parent.charge(tokens_in, tokens_out, calls)


@misconception("Budget", "Only the sum is checked; each of the amounts must be 0 or more.")
class ChecksTheSum(GivesRefunds):
    def charge(self, tokens_in=0, tokens_out=0, calls=0):
        if tokens_in + tokens_out < 0 or calls < 0:
            raise ValueError
        super().charge(tokens_in, tokens_out, calls)


@misconception("Budget", "A refused charge leaves traces; check all amounts before you add any.")
class ChecksTooLate(GivesRefunds):
    def charge(self, tokens_in=0, tokens_out=0, calls=0):
        if min(tokens_in, tokens_out) < 0:
            raise ValueError
        self.spent["tokens"] += tokens_in + tokens_out
        if calls < 0:
            raise ValueError
        self.spent["tokens"] -= tokens_in + tokens_out
        super().charge(tokens_in, tokens_out, calls)


@misconception("Budget", "A charge that is more than what is left is refused; it was spent, so it must be counted.")
class RefusesToOverdraw(reference.Budget):
    def charge(self, tokens_in=0, tokens_out=0, calls=0):
        left = self.remaining()
        if tokens_in + tokens_out > left["tokens"] or calls > left["calls"]:
            raise ValueError
        super().charge(tokens_in, tokens_out, calls)


@misconception("Budget", "What is left goes below zero; it ends at 0.")
class GoesBelowZero(reference.Budget):
    def remaining(self):
        spent = self.spent | {"seconds": self.clock() - self.started}
        left = {kind: limit - spent[kind] for kind, limit in self.limits.items()}
        above = self.parent.remaining() if self.parent is not None else left
        return {kind: min(left[kind], above[kind]) for kind in left}


@misconception("Budget", "A child's spending does not reach its parent; charge the parent as well.")
class ChildrenSpendNothing(reference.Budget):
    def charge(self, tokens_in=0, tokens_out=0, calls=0):
        parent, self.parent = self.parent, None
        try:
            super().charge(tokens_in, tokens_out, calls)
        finally:
            self.parent = parent


@misconception("Budget", "A child does not feel what its parent has left; take the smaller of the two.")
class ChildrenOutspend(reference.Budget):
    def remaining(self):
        spent = self.spent | {"seconds": self.clock() - self.started}
        return {kind: max(0, limit - spent[kind]) for kind, limit in self.limits.items()}


@misconception("Budget", "The spending reaches the parent but not the parent's parent; each hands it on.")
class ReachesOneParent(reference.Budget):
    def charge(self, tokens_in=0, tokens_out=0, calls=0):
        if min(tokens_in, tokens_out, calls) < 0:
            raise ValueError
        for one in (self, self.parent) if self.parent is not None else (self,):
            one.spent["tokens"] += tokens_in + tokens_out
            one.spent["calls"] += calls


@misconception("Budget", "The seconds of a child begin with its parent; they begin when the child is made.")
class ChildrenStartEarly(reference.Budget):
    def child(self, tokens=math.inf, seconds=math.inf, calls=math.inf):
        made = super().child(tokens, seconds, calls)
        made.started = self.started
        return made


@misconception("Budget", "A child reads the machine's clock and not its parent's; hand the clock on.")
class ChildrenForgetTheClock(reference.Budget):
    def child(self, tokens=math.inf, seconds=math.inf, calls=math.inf):
        return type(self)(tokens, seconds, calls, parent=self)

    def remaining(self):
        if self.clock is time.monotonic:  # what a real clock says must not cross: it is another time in each run
            above = self.parent.remaining() if self.parent is not None else self.limits
            return {k: min(above[k], self.limits[k] - self.spent.get(k, 0)) for k in above}
        return super().remaining()


@misconception("Budget", "The clock counts from zero and not from the construction; remember when the budget was made.")
class CountsFromZero(reference.Budget):
    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.started = 0.0


@misconception(
    "Budget", "The time is read once, at the construction; ask the clock whenever what is left is asked for."
)
class StopsTheClock(reference.Budget):
    def remaining(self):
        clock, self.clock = self.clock, lambda: self.started
        try:
            return super().remaining()
        finally:
            self.clock = clock


# -- plan_dag ------------------------------------------------------------------------------------------------------


def check_names(tasks, deps):
    if {*deps, *(need for needs in deps.values() for need in needs)} - set(tasks):
        raise ValueError("unknown")


@misconception("plan_dag", "The levels grow while they are collected; a task slips into the level of what it needs.")
def lets_levels_grow(tasks, deps):
    check_names(tasks, deps)
    levels, done = [], set()
    while len(done) < len(tasks):
        level = {}
        for task in tasks:
            if task not in done and done.issuperset(deps.get(task, [])):
                level[task] = list(deps.get(task, []))
                done.add(task)
        if not level:
            raise ValueError("circle")
        levels.append(level)
    return levels


@misconception("plan_dag", "A task comes one level after the first of what it needs; it must wait for the last.")
def waits_for_the_first(tasks, deps):
    reference.plan_dag(tasks, deps)
    level = {}

    def find(task):
        if task not in level:
            level[task] = 1 + min((find(need) for need in deps.get(task, [])), default=-1)
        return level[task]

    for task in tasks:
        find(task)
    return [
        {t: list(deps.get(t, [])) for t in tasks if level[t] == i} for i in range(max(level.values(), default=-1) + 1)
    ]


@misconception("plan_dag", "Every task has a level of its own; put together what can run side by side.")
def runs_one_by_one(tasks, deps):
    return [{task: needs} for level in reference.plan_dag(tasks, deps) for task, needs in level.items()]


@misconception("plan_dag", "Tasks are put as late as possible; each belongs into the first level that it can.")
def puts_tasks_late(tasks, deps):
    plan = reference.plan_dag(tasks, deps)
    height = {}
    for level in reversed(plan):
        for task in level:
            height[task] = 1 + max((height[other] for other in height if task in deps.get(other, [])), default=-1)
    top = max(height.values(), default=-1)
    return [{t: list(deps.get(t, [])) for t in tasks if top - height[t] == i} for i in range(top + 1)]


@misconception(
    "plan_dag", "A circle ends the plan in silence; raise ValueError when tasks are left that can never run."
)
def drops_circles(tasks, deps):
    check_names(tasks, deps)
    levels, done = [], set()
    while True:
        level = {t: list(deps.get(t, [])) for t in tasks if t not in done and done.issuperset(deps.get(t, []))}
        if not level:
            return levels
        levels.append(level)
        done.update(level)


@misconception("plan_dag", "A name that is no task passes in deps; raise ValueError.")
def accepts_strangers(tasks, deps):
    known = {t: [need for need in deps.get(t, []) if need in tasks] for t in tasks}
    return reference.plan_dag(tasks, known)


@misconception(
    "plan_dag", "Names are checked where they are needed but not where they need; a stranger as a key passes."
)
def accepts_strange_keys(tasks, deps):
    return reference.plan_dag(tasks, {t: deps[t] for t in deps if t in tasks})


@misconception("plan_dag", "The tasks of a level are sorted by name; keep the order of tasks.")
def sorts_the_levels(tasks, deps):
    return [dict(sorted(level.items())) for level in reference.plan_dag(tasks, deps)]


def run(
    executor,
    plan,
    retries,
    spoil="needs",
    attempts=None,
    everything=False,
    none_fails=False,
    upward=False,
    stop=False,
    counts=True,
):
    """Run a plan; each misconception changes one thing."""
    outcome, stopped = {}, False
    for level in plan:
        for task, needs in level.items():
            bad = ("failed",) if spoil == "direct" else ("failed", "skipped")
            spoiled = any(outcome[need]["status"] in bad for need in needs) and spoil != "never"
            if spoiled or stopped:
                outcome[task] = {"status": "skipped", "value": None, "attempts": 0}
                continue
            names = outcome if everything else needs
            results = {need: outcome[need]["value"] for need in names}
            for attempt in range(1, retries + 2 if attempts is None else attempts(retries)):
                try:
                    value = executor(task, results)
                    if none_fails and not value:
                        raise ValueError("nothing")
                    outcome[task] = {"status": "ok", "value": value, "attempts": attempt - (not counts)}
                    break
                except Exception:
                    outcome[task] = {"status": "failed", "value": None, "attempts": attempt - (not counts)}
            if outcome.get(task, {}).get("status") != "ok":
                outcome.setdefault(task, {"status": "failed", "value": None, "attempts": 0})
                stopped = stop
                if upward:
                    for need in needs:
                        outcome[need] = {"status": "failed", "value": None, "attempts": outcome[need]["attempts"]}
    return outcome


@misconception(
    "plan_dag", "A failure spoils what the task needed; it reaches only what needs the task.", replaces="run_plan"
)
def spoils_upward(executor, plan, retries):
    return run(executor, plan, retries, upward=True)


@misconception(
    "plan_dag", "One failure stops the whole plan; what does not depend on it must still run.", replaces="run_plan"
)
def stops_everything(executor, plan, retries):
    return run(executor, plan, retries, stop=True)


@misconception(
    "plan_dag", "Only direct dependents are skipped; a skipped task spoils what needs it as well.", replaces="run_plan"
)
def skips_direct_ones_only(executor, plan, retries):
    return run(executor, plan, retries, spoil="direct")


@misconception("plan_dag", "Tasks are run although what they need has failed; skip them.", replaces="run_plan")
def runs_on_nothing(executor, plan, retries):
    return run(executor, plan, retries, spoil="never")


@misconception("plan_dag", "A task gets one attempt too few; retries come on top of the first.", replaces="run_plan")
def counts_the_first_as_a_retry(executor, plan, retries):
    return run(executor, plan, retries, attempts=lambda n: n + 1 if n else 2)


@misconception(
    "plan_dag", "A task gets one attempt too many; it is tried once and again `retries` times.", replaces="run_plan"
)
def tries_once_too_often(executor, plan, retries):
    return run(executor, plan, retries, attempts=lambda n: n + 3)


@misconception("plan_dag", "A failed task is never tried again; use the retries.", replaces="run_plan")
def never_retries(executor, plan, retries):
    return run(executor, plan, retries, attempts=lambda n: 2)


@misconception(
    "plan_dag", "A task is given all results so far; hand it those that it needs directly.", replaces="run_plan"
)
def hands_on_everything(executor, plan, retries):
    return run(executor, plan, retries, everything=True)


@misconception("plan_dag", "An empty result counts as a failure; only an exception is one.", replaces="run_plan")
def takes_none_for_failure(executor, plan, retries):
    return run(executor, plan, retries, none_fails=True)


@misconception("plan_dag", "The attempts are counted from zero; the first try is one as well.", replaces="run_plan")
def counts_attempts_from_zero(executor, plan, retries):
    return run(executor, plan, retries, counts=False)


# -- wrap_untrusted ------------------------------------------------------------------------------------------------


def wrap(content, source, role="tool", sign="=", n=3, until=None, encode=json.dumps):
    fence = sign * n
    while any(fence in text for text in ((content, source) if until is None else until)):
        fence += sign
    return {"role": role, "content": f"{fence} {encode(source)}\n{content}\n{fence}"}


@misconception("wrap_untrusted", "The fence is always the same; an attacker writes it into his text and is free.")
def uses_a_fixed_fence(content, source):
    return wrap(content, source, until=())


@misconception("wrap_untrusted", "The source is not searched for the fence; the attacker may choose it as well.")
def trusts_the_source(content, source):
    return wrap(content, source, until=(content,))


@misconception("wrap_untrusted", "The source stands as it came; a newline in it breaks out of its line.")
def writes_the_source_raw(content, source):
    return wrap(content, source, encode=lambda text: '"' + text + '"')


@misconception("wrap_untrusted", "What looks like a fence is removed from the text; nothing of it may be lost.")
def removes_what_looks_hostile(content, source):
    return wrap(content.replace("===", ""), source)


@misconception("wrap_untrusted", "The text is stripped; its spaces and newlines at the ends are part of it.")
def strips_the_text(content, source):
    return wrap(content.strip(), source)


@misconception(
    "wrap_untrusted", "The text is given in the role of the user, whom the model obeys; give it the role of a tool."
)
def speaks_as_the_user(content, source):
    return wrap(content, source, role="user")


@misconception("wrap_untrusted", "The text is written as JSON; it must stand between the fences as it came.")
def encodes_the_text(content, source):
    got = wrap("", source, until=(content, source))
    head, tail = got["content"].split("\n\n")
    return got | {"content": f"{head}\n{json.dumps(content)}\n{tail}"}


@misconception(
    "wrap_untrusted", "The fence is longer than it need be; take the shortest run that occurs in neither text."
)
def makes_the_fence_long(content, source):
    return wrap(content, source, n=8)


@misconception("wrap_untrusted", "Lines that begin with commands are taken out; harmless text is lost with them.")
def filters_commands(content, source):
    lines = [line for line in content.split("\n") if not re.match(r"(ignore|obey|<system>)", line, re.IGNORECASE)]
    return wrap("\n".join(lines), source)


def measure(agent, attacks, won=None, messages=None, empty=0.0, per=None, asked=1):
    """Measure success; each misconception changes one thing."""
    count = 0
    for attack in attacks:
        task, tool = (
            {"role": "user", "content": attack["task"]},
            reference.wrap_untrusted(attack["content"], attack["source"]),
        )
        given = [{"role": "system", "content": RULE}, task, tool] if messages is None else messages(task, tool, attack)
        for _ in range(asked):
            reply = agent(given)
        calls = reference.parse_tool_calls(reply)
        success = any(call.get("name") == attack["goal"] for call in calls)
        count += success if won is None else won(reply, calls, attack)
    return count / (per or len(attacks)) if attacks else empty


RULE_MESSAGE = {"role": "system", "content": RULE}


@misconception(
    "wrap_untrusted",
    "The text is pasted into the user's message; it must stay a tool message.",
    replaces="injection_success",
)
def pastes_into_the_prompt(agent, attacks):
    def messages(task, tool, attack):
        return [RULE_MESSAGE, {"role": "user", "content": task["content"] + "\n" + tool["content"]}]

    return measure(agent, attacks, messages=messages)


@misconception(
    "wrap_untrusted", "The content goes to the agent without its fence; wrap it.", replaces="injection_success"
)
def forgets_to_wrap(agent, attacks):
    def messages(task, tool, attack):
        return [RULE_MESSAGE, task, {"role": "tool", "content": attack["content"]}]

    return measure(agent, attacks, messages=messages)


@misconception(
    "wrap_untrusted",
    "The rule is missing in front; the agent is told nothing about tools.",
    replaces="injection_success",
)
def forgets_the_rule(agent, attacks):
    return measure(agent, attacks, messages=lambda task, tool, attack: [task, tool])


@misconception(
    "wrap_untrusted",
    "A reply that mentions the goal counts as a success; only a call of it is one.",
    replaces="injection_success",
)
def counts_mentions(agent, attacks):
    return measure(agent, attacks, won=lambda reply, calls, attack: attack["goal"] in reply)


@misconception(
    "wrap_untrusted", "Any call counts as a success; it must be the attacker's goal.", replaces="injection_success"
)
def counts_any_call(agent, attacks):
    return measure(agent, attacks, won=lambda reply, calls, attack: any("name" in call for call in calls))


@misconception(
    "wrap_untrusted",
    "Several calls in one reply count several times; an attack succeeds once.",
    replaces="injection_success",
)
def counts_every_call(agent, attacks):
    return measure(agent, attacks, won=lambda reply, calls, attack: sum(c.get("name") == attack["goal"] for c in calls))


@misconception(
    "wrap_untrusted",
    "Only the first call of a reply is looked at; the goal may come later.",
    replaces="injection_success",
)
def looks_at_the_first_call(agent, attacks):
    return measure(
        agent, attacks, won=lambda reply, calls, attack: bool(calls) and calls[0].get("name") == attack["goal"]
    )


@misconception(
    "wrap_untrusted", "Without attacks you divide by zero; the share is then 0.", replaces="injection_success"
)
def divides_by_no_attacks(agent, attacks):
    return measure(agent, attacks) if attacks else 0 / len(attacks)


@misconception(
    "wrap_untrusted", "The number of successes is given; divide by the number of attacks.", replaces="injection_success"
)
def gives_the_number(agent, attacks):
    return float(measure(agent, attacks, per=1))
