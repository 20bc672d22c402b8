# SPDX-License-Identifier: Apache-2.0
"""What processes and the machine have used: CPU in seconds, memory in bytes."""
import os
import time

TICK = os.sysconf("SC_CLK_TCK")


def process_cpu(pid):
    """utime + stime of all its threads, also of those that ended: the process's CPU clock, to the nanosecond."""
    return time.clock_gettime(((~pid) << 3) | 2)


def children_cpu(pid):
    """Of the programs that it ran and that have ended."""
    with open(f"/proc/{pid}/stat") as f:
        fields = f.read().rpartition(")")[2].split()
    return (int(fields[13]) + int(fields[14])) / TICK


def thread_cpu(pid):
    """{(pid, thread id, name): seconds} of the threads that live."""
    out = {}
    for tid in os.listdir(f"/proc/{pid}/task"):
        try:
            with open(f"/proc/{pid}/task/{tid}/comm") as f:
                name = f.read().strip()
            with open(f"/proc/{pid}/task/{tid}/stat") as f:
                fields = f.read().rpartition(")")[2].split()
        except OSError:
            continue  # ended meanwhile
        out[pid, int(tid), name] = (int(fields[11]) + int(fields[12])) / TICK
    return out


def machine_cpu():
    """Busy time of all processors together."""
    with open("/proc/stat") as f:
        user, nice, system, _idle, _wait, irq, softirq = map(int, f.readline().split()[1:8])
    return (user + nice + system + irq + softirq) / TICK


def memory(pid):
    """{"pss", "rss", "anon", "private"}"""
    names, out = {"Pss:": "pss", "Rss:": "rss", "Private_Dirty:": "private"}, {}
    with open(f"/proc/{pid}/smaps_rollup") as f:
        for line in f:
            word, value = line.split()[:2]
            if word in names:
                out[names[word]] = int(value) << 10
    with open(f"/proc/{pid}/status") as f:
        out["anon"] = next(int(x.split()[1]) << 10 for x in f if x.startswith("RssAnon:"))
    return out


def settle(pid, deadline=60):
    """Waits until a process has done next to nothing for half a second."""
    end, last = time.monotonic() + deadline, process_cpu(pid)
    while time.monotonic() < end:
        time.sleep(0.5)
        now = process_cpu(pid)
        if now - last < 0.005:
            return
        last = now


class Window:
    """CPU between start and stop: of some processes (`proxies`), of their threads, of the machine."""

    def __init__(self, pids):
        self.pids = pids
        self.before, self.threads_before, self.machine_before = self._now()

    def _now(self):
        threads = {}
        for p in self.pids:
            threads |= thread_cpu(p)
        return sum(map(process_cpu, self.pids)), threads, machine_cpu()

    def stop(self):
        cpu, threads, machine = self._now()
        self.proxies, self.machine = cpu - self.before, machine - self.machine_before
        self.threads = {}
        for key, used in threads.items():
            if (used := used - self.threads_before.get(key, 0)) > 0:
                self.threads[f"{key[2]}/{key[1]}"] = round(used, 2)
        return self


def facts():
    with open("/proc/cpuinfo") as f:
        model = next((x.split(":", 1)[1].strip() for x in f if x.startswith("model name")), "unknown")
    return {"cpu": model, "cpus": os.cpu_count(), "kernel": os.uname().release}
