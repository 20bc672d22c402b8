#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The soak (soak.py) for some seconds: that it works, and that nothing grows at once."""
import os
import sys

sys.path.insert(0, os.path.dirname(__file__))
import soak
from lib import agents
from lib.bed import kinds
from lib.rows import Skip, Table, check

T = Table(__file__)
SECONDS, WARM_UP = 15, 8


@T.row("nothing-is-kept")
def short():
    if "culvert" not in kinds():
        raise Skip("it is about the keeper and its tunnel")
    if os.geteuid():
        raise Skip("needs root for network namespaces")
    lines, kept = soak.soak(SECONDS, warm_up=WARM_UP)
    kept = [k for k in kept if not (agents.sanitized() and k.endswith("MiB"))]
    check(not kept, lambda: "\n".join(lines))


if __name__ == "__main__":
    T.main()
