#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""What somebody took from a pod's steering is found and put back, egress last, and what left the pod in plaintext meanwhile
ends. The keeper asks for it once a second (tests/e2e/mend_test.py); here it is asked for by hand."""
import contextlib
import functools
import os
import re
import shutil
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "lib"))
from bed import APP, Bed
from rows import Table, check, equal, until
from servers import echoes, hear
from steer_bed import ACCEPT_LOCAL, SteerBed, inside, needs_tcx, same, trace
from topology import sh, unwinding

table = Table(__file__)


def mend(bed):
    """(mended, what was missing)"""
    m = re.match(r"mended=(\d) ns=\d+ ?(.*)", bed.driver.ask("mend", bed.pod.uid))
    return int(m[1]), m[2]


def suspect(bed):
    bed.driver.ask("facts")  # the loop has been round
    return bed.driver.ask("suspect", bed.pod.uid) == "suspect=1"


def calm(bed):
    """Nothing is missing, and nothing is suspected."""
    until(lambda: mend(bed) == (0, "") and not suspect(bed), "calm")


def detach(bed, what):
    sh("bpftool", "link", "detach", "pinned", f"{bed.folder()}/{what}")


def unfilter(bed, direction):
    sh("tc", "-n", bed.pod.ns, "filter", "del", "dev", "eth0", direction)


def ip(bed, *words):
    sh("ip", "-n", bed.pod.ns, *words)


def switch_off(bed):
    with inside(bed.pod.ns), open(ACCEPT_LOCAL, "w") as f:
        f.write("0")


def all_at_once(bed):
    for what in ("egress-2", "ingress-2", "lookup"):
        detach(bed, what)
    ip(bed, "rule", "del", "priority", "9")
    ip(bed, "route", "flush", "table", "1337")
    switch_off(bed)
    shutil.rmtree(bed.folder())


BREAKS = [  # hook, name, harm, what is said, whether it shows before its turn
    ("tcx", "egress-link", lambda b: detach(b, "egress-2"), "the egress program of device eth0", True),
    ("tcx", "ingress-link", lambda b: detach(b, "ingress-2"), "the ingress program of device eth0", True),
    ("tcx", "lookup-link", lambda b: detach(b, "lookup"), "the lookup program", True),
    ("clsact", "egress-filter", lambda b: unfilter(b, "egress"), "the egress program of device eth0", True),
    ("clsact", "ingress-filter", lambda b: unfilter(b, "ingress"), "the ingress program of device eth0", True),
    ("clsact", "qdisc", lambda b: sh("tc", "-n", b.pod.ns, "qdisc", "del", "dev", "eth0", "clsact"),
     "the ingress program of device eth0", True),
    ("auto", "filter-that-becomes-a-link", lambda b: unfilter(b, "egress"), "the egress program of device eth0", True),
    ("tcx", "rule", lambda b: ip(b, "rule", "del", "priority", "9"), "the IPv4 policy rule", True),
    ("tcx", "rule6", lambda b: ip(b, "-6", "rule", "del", "priority", "9"), "the IPv6 policy rule", True),
    ("tcx", "route", lambda b: ip(b, "route", "flush", "table", "1337"), "the IPv4 route", True),
    ("tcx", "route6", lambda b: ip(b, "-6", "route", "flush", "table", "1337"), "the IPv6 route", True),
    ("tcx", "sysctl", switch_off, "accept_local is off", False),
    ("tcx", "pins", lambda b: shutil.rmtree(b.folder()), "pins are gone", False),
    ("clsact", "pins-of-filters", lambda b: shutil.rmtree(b.folder()), "pins are gone", False),
    ("tcx", "one-pin", lambda b: os.unlink(f"{b.folder()}/egress-2"), "pins are gone", False),
    ("tcx", "all-at-once", all_at_once, "the lookup program", True),
]


class MendBed(SteerBed):
    def __init__(self, hook):
        super().__init__(hook, attached=False)

    def rooms(self):
        if self.hook == "auto":
            needs_tcx()
        super().rooms()


for hook, name, harm, said, shows in BREAKS:
    @table.row(f"{hook}/{name}", functools.partial(MendBed, hook))
    def _(bed, harm=harm, said=said, shows=shows):
        before = trace(bed.pod)
        bed.steer()
        bed.works((False, True))
        calm(bed)
        harm(bed)
        equal(suspect(bed), shows, "whether it is suspected before its turn")
        mended, why = mend(bed)
        check(mended and said in why, f"{mended}: {why}")
        bed.works((False, True))
        calm(bed)
        bed.kill_agent()  # what outlives a keeper is there as well
        bed.start()
        bed.steer()
        bed.works()
        bed.unsteer()
        same(bed.pod, before)
        equal(os.listdir(f"{bed.pins}/v1"), [], "pins afterwards")


@table.row("tcx/what-went-out-in-plaintext-ends", functools.partial(MendBed, "tcx"))
def _(bed):
    with contextlib.ExitStack() as stack:
        def connect(who):
            s = stack.enter_context(contextlib.closing(bed.pod.connect(bed.remote.ip4, APP)))
            equal(hear(s).who, who, "who answers")
            return s

        older = connect("remote")
        bed.steer()
        captured = connect("agent=15001")
        detach(bed, "egress-2")
        plain = connect("remote")
        equal(mend(bed)[0], 1, "mended")
        check(echoes(older, b"before"), "a connection from before the enrolment is broken")
        check(echoes(captured, b"captured"), "a captured connection is broken")
        try:
            equal(plain.recv(1), b"", "on a connection in plaintext")
        except ConnectionError:
            pass
        else:
            raise AssertionError("the connection in plaintext goes on")
        connect("agent=15001")


@table.row("iptables/flushed-chains-stay", functools.partial(Bed, "iptables"))
def _(bed):
    sh("ip", "netns", "exec", bed.pod.ns, "iptables", "-t", "nat", "-F")
    equal(bed.ask(bed.pod, bed.remote.ip4, APP).who, "remote", "who answers the pod meanwhile")
    equal(mend(bed), (1, "iptables rules are gone from table nat"), "mended")
    equal(bed.ask(bed.pod, bed.remote.ip4, APP).who, "agent=15001", "who answers the pod")
    equal(mend(bed), (0, ""), "mended")


@table.row("iptables/rules", functools.partial(Bed, "iptables"))
def _(bed):
    equal(mend(bed), (0, ""), "mended")
    for v6 in ("", "6"):
        for t in ("raw", "mangle", "nat"):
            sh("ip", "netns", "exec", bed.pod.ns, f"ip{v6}tables", "-t", t, "-F")
            sh("ip", "netns", "exec", bed.pod.ns, f"ip{v6}tables", "-t", t, "-X")
    mended, why = mend(bed)
    check(mended and "the iptables rules are gone" in why, f"{mended}: {why}")
    equal(bed.ask(bed.pod, bed.remote.ip4, APP).who, "agent=15001", "who answers the pod")
    equal(mend(bed), (0, ""), "mended")


@table.row("tcx/stopping-is-left-alone", functools.partial(MendBed, "tcx"))
def _(bed):
    bed.steer()
    with contextlib.closing(bed.pod.connect(bed.remote.ip4, APP)) as s:
        hear(s)
        bed.driver.tell("detach", bed.pod.uid, 700)
        detach(bed, "egress-2")
        equal(suspect(bed), False, "suspected")
        equal(mend(bed), (0, ""), "mended")
    bed.driver.answer("detach")
    bed.steered = False


if __name__ == "__main__":
    with unwinding():
        table.main()
