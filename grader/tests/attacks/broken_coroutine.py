# Is a coroutine where a function is asked for.
# 01_numbers: double wrong, mean passed
# Stopped by comparison: a coroutine is a handle and equals no number.
async def double(x):
    return 2 * x
