#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""What makes steering a pod quick: programs loaded ahead, and filters that become links when the pod has begun. Neither may
leave a gap, a trace or something that grows. Needs a kernel with tcx (Linux 6.6) for the latter."""
import contextlib
import functools
import os
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "lib"))
from bed import APP
from rows import Table, check, equal, until
from servers import echoes, hear
from steer_bed import SteerBed, needs_tcx, same, trace
from topology import sh, unwinding

table = Table(__file__)
HOOKS = ["egress-2", "ingress-2"]


class AutoBed(SteerBed):
    """Attaches as keepers do, not in one way."""

    def __init__(self, tcx=True):
        super().__init__("auto", attached=False)
        self.tcx = tcx

    def rooms(self):
        if self.tcx:
            needs_tcx()
        super().rooms()

    def filters(self):
        return [d for d in ("egress", "ingress")
                if "steer_" in sh("tc", "-n", self.pod.ns, "filter", "show", "dev", "eth0", d, ok=False)]

    def links(self):
        return [x for x in HOOKS if "prog" in sh("bpftool", "link", "show", "pinned", f"{self.folder()}/{x}", ok=False)]

    def settled(self):
        until(lambda: self.links() == HOOKS and not self.filters(), "links in place of filters")


def row(name, **options):
    return table.row(name, functools.partial(AutoBed, **options))


# --- filters, then links ------------------------------------------------------------------------------------------------


@row("filters-first-then-links-and-no-trace")
def _(bed):
    before = trace(bed.pod)
    bed.steer()
    equal((bed.filters(), bed.links()), (["egress", "ingress"], []), "filters and links at first")
    bed.works((False, True))
    bed.settled()
    equal(bed.status()["devices"], "eth0:2:attached", "devices")
    bed.works((False, True))
    equal(bed.drops(), 0, "packets that were dropped")
    bed.unsteer()
    same(bed.pod, before)
    equal(os.listdir(f"{bed.pins}/v1"), [], "pins afterwards")


@row("connections-go-on-and-stay-captured")
def _(bed):
    bed.steer()
    with contextlib.closing(bed.pod.connect(bed.remote.ip4, APP)) as s:
        equal(hear(s).who, "agent=15001", "who answers")

        def settled():
            equal(bed.ask(bed.pod, bed.remote.ip4, APP).who, "agent=15001", "who answers meanwhile")
            check(echoes(s, b"still there"), "the connection is broken")
            return bed.links() == HOOKS and not bed.filters()

        until(settled, "links in place of filters", every=0)
    counters = bed.counters()
    equal((bed.drops(), counters["out_direct"]), (0, 0), "dropped, direct")


@row("with-connections-links-at-once")
def _(bed):
    """A device drops for a moment what the pod sends when it gets its first filter."""
    with contextlib.closing(bed.pod.connect(bed.remote.ip4, APP)) as s:
        equal(hear(s).who, "remote", "who answers")
        bed.steer()
        equal((bed.filters(), bed.links()), ([], HOOKS), "filters and links")
        check(echoes(s, b"still there"), "the connection is broken")


@row("what-was-removed-is-not-put-back")
def _(bed):
    """Or nobody would hear of it: CHECK is asked later."""
    bed.steer()
    sh("tc", "-n", bed.pod.ns, "filter", "del", "dev", "eth0", "egress")
    until(lambda: bed.links() == ["ingress-2"] and not bed.filters(), "a link in place of the other filter")
    bed.driver.ask("facts")
    equal((bed.filters(), bed.links()), ([], ["ingress-2"]), "filters and links")


@row("killed-before-there-are-links")
def _(bed):
    bed.steer()
    bed.next_keeper()
    equal(bed.filters(), ["egress", "ingress"], "filters")
    bed.steer()
    equal((bed.filters(), bed.links()), ([], HOOKS), "filters and links of the next keeper")
    bed.works()
    bed.unsteer()
    check("clsact" not in sh("tc", "-n", bed.pod.ns, "qdisc"), "clsact is left")


@row("removed-before-there-are-links")
def _(bed):
    before = trace(bed.pod)
    bed.steer()
    bed.unsteer()
    same(bed.pod, before)


@row("a-device-that-comes-later")
def _(bed):
    bed.steer()
    sh("ip", "-n", bed.pod.ns, "link", "add", "net1", "type", "veth", "peer", "name", "net2")
    until(lambda: bed.status()["devices"].count(":late:attached") == 2, "the devices to be steered")
    until(lambda: not bed.filters() and len([x for x in os.listdir(bed.folder()) if "gress-" in x]) == 6, "links")
    sh("ip", "-n", bed.pod.ns, "link", "del", "net1")
    until(lambda: len([x for x in os.listdir(bed.folder()) if "gress-" in x]) == 2, "their pins to go")
    bed.works()


if __name__ == "__main__":
    with unwinding():
        table.main()
