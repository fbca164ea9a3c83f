# Leaves threads behind that never end and would keep a process from ending.
# 01_numbers: double passed, mean passed
# Stopped by session: the child is ended by a signal, never by waiting for its threads.
import threading
import time

for _ in range(4):
    threading.Thread(target=time.sleep, args=(600,), daemon=False).start()
