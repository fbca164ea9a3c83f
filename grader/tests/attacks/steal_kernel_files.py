# Reads the machine's memory, log and disks where the kernel shows them.
# 01_numbers: double passed, mean passed
# Stopped by landlock: of devices and of the kernel's own files only a few are open.
import os

for path in ("/dev/mem", "/dev/kmem", "/dev/kmsg", "/dev/vda", "/dev/sda", "/dev/fuse", "/dev/shm", "/dev/tty",
             "/proc/kcore", "/proc/kallsyms", "/proc/self/mem", "/proc/self/pagemap", "/proc/self/maps",
             "/proc/self/root/etc/passwd", "/sys/kernel", "/sys/fs/cgroup", "/run", "/var/run/docker.sock"):
    try:
        os.open(path, os.O_RDONLY)
    except OSError:
        continue
    raise RuntimeError(f"LEAK {path}")
