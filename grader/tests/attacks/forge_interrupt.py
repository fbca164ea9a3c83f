# Pretends that somebody pressed Ctrl-C, so that the whole run stops.
# 01_numbers: double crashed, mean passed
# Stopped by session: it ends the student's process alone.
def double(x):
    raise KeyboardInterrupt
