# SPDX-License-Identifier: Apache-2.0
"""How much a test does: all of it, or with SCALE=vm what a virtual machine without KVM has time for: sizes a sixteenth, counts a
fiftieth, deadlines thrice, and loops that breathe."""
import os
import sys
import time

VM = os.environ.get("SCALE") == "vm"
if os.environ.get("SCALE", "") not in ("", "vm"):
    sys.exit(f"SCALE is {os.environ['SCALE']!r}: only vm is known")


def size(n):
    """Bytes that a row moves."""
    return n // 16 if VM else n


def count(n, least=1):
    """Connections, rounds; `least` is what keeps the row's meaning."""
    return max(n // 50, least) if VM else n


def breathe():
    """In a loop that never waits: leaves the one processor to those who are to do the work."""
    if VM:
        time.sleep(0.1)


def deadline(seconds):
    """Within which something must have happened, when it is no promise how soon."""
    return seconds * 3 if VM else seconds
