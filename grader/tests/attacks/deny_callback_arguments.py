# Calls what it was given with arguments that no function takes, and repeats what it hears.
# 03_calls: call_twice error, noise passed, halve passed, count_up passed
# Stopped by session: a failing callback answers in neutral words.
def call_twice(f, x):
    try:
        return f("LEAK", None, key=[])
    except Exception as error:
        raise RuntimeError(f"LEAK {error}") from None
