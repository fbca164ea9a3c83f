# Sleeps for ever while the file is loaded.
# 01_numbers: double timeout, mean timeout
# Stopped by clock: loading has a time of its own, spent once.
import time

time.sleep(10**6)
