#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""What somebody took from a pod's steering is found and put back, egress last, and what left the pod in plaintext meanwhile
ends. The keeper asks for it once a second (tests/e2e/mend_test.py); here it is asked for by hand."""
import contextlib
import functools
import json
import os
import re
import shutil
import sys
import threading

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "lib"))
from bed import APP, Bed
from rows import Table, check, equal, until
from servers import echoes, hear
from steer_bed import ACCEPT_LOCAL, SteerBed, inside, needs_tcx, same, trace
from strangers import NEXT, strange_link, stranger
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
        bed.driver.ask("seen", bed.pod.uid)
        harm(bed)
        if "pin" not in said:
            check(said in (why := bed.refuses("seen", bed.pod.uid)), why)
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


# --- programs of others that come before ours ---------------------------------------------------------------------------


OTHERS = {  # by hook: one that comes before ours
    "tcx": strange_link,
    "clsact": functools.partial(stranger, priority="1", handle="1", qdisc=False),
}
DIRECTIONS = {"egress": ("pod", "remote", "agent=15001"), "ingress": ("remote", "app", "agent=15006")}


def who(bed, direction):
    asks, _, _ = DIRECTIONS[direction]
    return bed.ask(bed.pod, bed.remote.ip4, APP).who if asks == "pod" else bed.ask(bed.remote, bed.pod.ip4, APP).who


def is_reset(s):
    try:
        s.send(b"x")
    except ConnectionError:
        return True
    return False


def gone(bed, direction):
    """A link goes by itself."""
    if bed.hook == "clsact":
        sh("tc", "-n", bed.pod.ns, "filter", "del", "dev", "eth0", direction, "prio", "1", "handle", "1", "bpf")


@contextlib.contextmanager
def asked_meanwhile(bed, direction, want):
    """One connection after the other is made, and none goes elsewhere."""
    seen, over = set(), threading.Event()

    def ask():
        while not over.is_set():
            try:
                seen.add(who(bed, direction))
            except OSError as e:
                seen.add(repr(e))

    thread = threading.Thread(target=ask)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
    equal(seen, {want}, "who answered meanwhile")


for hook, other in OTHERS.items():
    for direction, (_, without, ours) in DIRECTIONS.items():
        @table.row(f"{hook}/another-comes-before-ours/{direction}", functools.partial(MendBed, hook))
        def _(bed, other=other, direction=direction, without=without, ours=ours):
            bed.steer()
            equal(mend(bed), (0, ""), "mended before")
            for _ in range(3):  # it insists
                with other(bed, direction=direction):
                    equal(who(bed, direction), without, "who answers behind it")
                    check(f"the {direction} program of device eth0 is behind" in (why := bed.refuses("seen", bed.pod.uid)), why)
                    equal(mend(bed), (1, f"the {direction} program of device eth0 is behind another, which may let all "
                                         "pass"), "mended")
                    equal(who(bed, direction), ours, "who answers before it")
                    bed.driver.ask("seen", bed.pod.uid)
                    calm(bed)
                    gone(bed, direction)
            bed.works()
            bed.next_keeper()
            bed.steer()
            equal(bed.status()["adopted"], "1", "adopted")
            bed.unsteer()
            check("steer_" not in " ".join(trace(bed.pod)), "something is left")

        @table.row(f"{hook}/nothing-passes-ours-while-it-is-put-first/{direction}", functools.partial(MendBed, hook))
        def _(bed, other=other, direction=direction, ours=ours):
            bed.steer()
            with asked_meanwhile(bed, direction, ours):
                for _ in range(10):
                    with other(bed, direction=direction, says=NEXT):
                        equal(mend(bed)[0], 1, "mended")
                        gone(bed, direction)

        @table.row(f"{hook}/the-next-keeper-puts-it-first/{direction}", functools.partial(MendBed, hook))
        def _(bed, other=other, direction=direction, ours=ours):
            """As one that comes after a keeper that did not attach it there."""
            bed.steer()
            bed.kill_agent()
            with other(bed, direction=direction):
                bed.start()
                bed.steer()
                equal(who(bed, direction), ours, "who answers")
                equal(mend(bed), (0, ""), "mended")


for hook, other in OTHERS.items():
    @table.row(f"{hook}/one-that-only-watches-ends-no-connection", functools.partial(MendBed, hook))
    def _(bed, other=other):
        """What ours had let go before goes on; what left because another let it past is reset."""
        bed.steer(f"out={bed.remote.ip4}/32", "out-port=1")
        with contextlib.closing(bed.pod.connect(bed.remote.ip4, APP)) as excluded:
            equal(hear(excluded).who, "remote", "who answers where nothing is captured")
            for _ in range(2):
                with other(bed, says=NEXT):
                    equal(mend(bed)[0], 1, "mended")
                    gone(bed, "egress")
                check(echoes(excluded, os.urandom(1000)), "bytes changed")
            bed.configure()
            with other(bed), contextlib.closing(bed.pod.connect(bed.remote.ip4, APP)) as past:
                equal(hear(past).who, "remote", "who answers past ours")
                equal(mend(bed)[0], 1, "mended")
                until(lambda: is_reset(past), "the end of what went past ours")
                check(echoes(excluded, os.urandom(1000)), "bytes changed")


@table.row("clsact/filters-of-an-older-keeper-are-replaced", functools.partial(MendBed, "clsact"))
def _(bed):
    """They had another priority."""
    tc = functools.partial(sh, "tc", "-n", bed.pod.ns, "filter")
    bed.steer()
    bed.kill_agent()
    for d in DIRECTIONS:
        tc("add", "dev", "eth0", d, "prio", "1337", "handle", "1337", "bpf", "da", "pinned", f"{bed.folder()}/{d}-2")
        tc("del", "dev", "eth0", d, "prio", "1")
    with stranger(bed, "1000", "1", qdisc=False):
        bed.start()
        bed.steer()
        equal(mend(bed), (0, ""), "mended")
        bed.works()
    for d in DIRECTIONS:
        listed = tc("show", "dev", "eth0", d)
        check("pref 1 " in listed and "1337 bpf" not in listed, listed)
    bed.unsteer()
    check("steer_" not in " ".join(trace(bed.pod)), "something is left")


@table.row("clsact/one-of-another-kind-has-the-priority", functools.partial(MendBed, "clsact"))
def _(bed):
    """Ours cannot come before it: that is said, and ours stays where it is."""
    tc = functools.partial(sh, "tc", "-n", bed.pod.ns, "filter")
    bed.steer()
    bed.kill_agent()
    tc("add", "dev", "eth0", "egress", "prio", "1337", "handle", "1337", "bpf", "da", "pinned", f"{bed.folder()}/egress-2")
    tc("del", "dev", "eth0", "egress", "prio", "1")
    with stranger(bed, "1", "1", qdisc=False, protocol="ipv6", says=NEXT):
        bed.start()
        bed.steer()
        for _ in range(2):
            why = bed.refuses("mend", bed.pod.uid)
            check(why.count("the egress program of device eth0 is behind another") == 2, why)
            bed.works()
        tc("del", "dev", "eth0", "egress", "prio", "1")
    equal(mend(bed)[1], "", "missing")
    bed.works()


@table.row("clsact/one-of-another-kind-has-the-priority-of-a-device-that-lost-ours", functools.partial(MendBed, "clsact"))
def _(bed):
    """Behind it is better than not at all; a pod that is not steered yet is refused."""
    bed.steer()
    unfilter(bed, "egress")
    with stranger(bed, "1", "1", qdisc=False, protocol="ipv6", says=NEXT):
        check("is behind another" in (why := bed.refuses("mend", bed.pod.uid)), why)
        bed.works()
        bed.unsteer()
        check("where another's filter is first" in (why := bed.attach_error()), why)


@table.row("auto/one-of-another-kind-has-the-priority", functools.partial(MendBed, "auto"))
def _(bed):
    """A link comes before all filters."""
    with stranger(bed, "1", "1", protocol="ipv6"):
        bed.steer()
        bed.works()
        equal(mend(bed), (0, ""), "mended")


@table.row("auto/another-is-there-already", functools.partial(MendBed, "auto"))
def _(bed):
    """A filter would come after it: a link is attached at once, before it."""
    with strange_link(bed):
        bed.steer()
        bed.works()
        equal(mend(bed), (0, ""), "mended")


@table.row("auto/another-comes-before-the-filter", functools.partial(MendBed, "auto"))
def _(bed):
    bed.steer()
    with strange_link(bed):
        equal(mend(bed), (1, "the egress program of device eth0 is behind another, which may let all pass"), "mended")
        bed.works()
        calm(bed)


@table.row("tcx/dns-listeners", functools.partial(MendBed, "tcx"))
def _(bed):
    bed.steer("dns")
    conf = json.loads(sh("bpftool", "-j", "map", "lookup", "pinned", f"{bed.folder()}/map-conf", "key", "0", "0", "0", "0"))
    for which in "2", "3":  # STEER_L_DNS_TCP, STEER_L_DNS_UDP
        sh("bpftool", "map", "delete", "pinned", f"{bed.pins}/v1-node/map-listeners", "key", *conf["value"][8:16],
           which, *["0"] * 7)
        equal(mend(bed), (1, "the listener of port 15053 is gone"), "mended")
        calm(bed)


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
