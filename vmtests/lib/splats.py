# SPDX-License-Identifier: Apache-2.0
"""What in a kernel's log means that the kernel met a fault. vmtests/splats.allow lists what is known and not ours."""
import os
import re

FAULT = re.compile(r"""\bBUG:|\bWARNING:|\bOops\b|Kernel panic|general protection|stack segment|double fault|invalid opcode
|unable to handle|rcu.*(stall|detected expedited)|possible.*(deadlock|recursive lock)|inconsistent lock state|suspicious RCU
|refcount_t:|UBSAN:|KASAN:|KCSAN:|KFENCE:|hung_task|blocked for more than|soft lockup|hard LOCKUP|scheduling while atomic
|sleeping function called|unregister_netdevice: waiting|Out of memory:|list_(add|del) corruption|use-after-free|memory leak
|page allocation failure|stack guard page|segfault at|traps:.*trap""".replace("\n", ""))
ALLOW = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "splats.allow")


def allowed(path=ALLOW):
    with open(path) as f:
        return [re.compile(line.strip()) for line in f if line.strip() and not line.startswith("#")]


def faults(text, allow):
    """The lines that mean a fault, each once."""
    out = []
    for line in text.replace("\r", "").splitlines():
        line = re.sub(r"^(<\d+>)?\[ *\d+\.\d+\](\[[^]]*\])? ?", "", line)
        if FAULT.search(line) and not any(a.search(line) for a in allow) and line not in out:
            out.append(line)
    return out


def scan(folder):
    """Both logs of a guest: dmesg has all, the console has what came before a crash."""
    allow, out = allowed(), []
    for name in ("dmesg", "console"):
        if os.path.exists(f"{folder}/{name}"):
            with open(f"{folder}/{name}", errors="replace") as f:
                out += [x for x in faults(f.read(), allow) if x not in out]
    return out
