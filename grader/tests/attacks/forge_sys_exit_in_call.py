# Asks politely to end with success in a call.
# 01_numbers: double error, mean passed
# Stopped by agent: the agent answers SystemExit like any other exception.
def double(x):
    raise SystemExit(0)
