#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The life of a pod's steering: attached and removed without a trace, adopted by the next keeper or replaced, refused where
something is not ours, drained, collected. Both ways of attaching: tcx links and clsact filters."""
import contextlib
import functools
import json
import os
import select
import subprocess
import sys
import threading

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "lib"))
from bed import APP, ROOT, Driver, batch, driver_path, extra, inside, sysctl
import scale
from rows import Skip, Table, check, equal, until
from servers import echoes, hear
from steer_bed import ACCEPT_LOCAL, SteerBed, needs_tcx, read_in, same, trace
from strangers import Bpf, stranger
from topology import sh, unwinding

table = Table(__file__)
HOOKS = ("tcx", "clsact")
BOTH = (False, True)


def row(name, hooks=HOOKS, **options):
    def add(fn):
        for hook in hooks:
            table.row(f"{hook} {name}", functools.partial(SteerBed, hook, **options))(fn)
        return fn

    return add


@contextlib.contextmanager
def other_programs(bed):
    """The same programs over other maps, pinned beside."""
    path = f"{bed.pins}/other"
    sh("bpftool", "prog", "loadall", os.path.join(ROOT, os.environ.get("B", "build"), "gen", "steer.bpf.o"), path)
    try:
        yield path
    finally:
        for name in os.listdir(path):
            os.unlink(f"{path}/{name}")
        os.rmdir(path)


def programs(bed):
    """Ids of what is attached to eth0 and the namespace."""
    with inside(bed.pod.ns):
        tc = json.loads(sh("bpftool", "-j", "net"))[0]["tc"]
    if bed.hook == "clsact":
        return sorted(x["id"] for x in tc)
    links = [json.loads(sh("bpftool", "-j", "link", "show", "pinned", f"{bed.folder()}/{x}"))
             for x in os.listdir(bed.folder()) if not x.startswith("map-")]
    return sorted(x["prog_id"] for x in links)


# --- attach and detach ------------------------------------------------------------------------------------------------

@row("no-trace-after-detach", attached=False)
def _(bed):
    for old in ("0", "1"):
        with inside(bed.pod.ns):
            sysctl("net/ipv4/conf/lo/accept_local", old)
        before = trace(bed.pod)
        bed.steer()
        check(trace(bed.pod) != before, "nothing is attached")
        equal(bed.status()["adopted"], "0", "adopted")
        bed.works(BOTH)
        bed.unsteer()
        same(bed.pod, before)
        equal(os.listdir(f"{bed.pins}/v1"), [], "pins afterwards")
        bed.direct(BOTH)


@row("again-and-again", attached=False)
def _(bed):
    before = trace(bed.pod)
    counts = []
    for _ in range(scale.count(20, 4)):
        bed.steer()
        bed.unsteer()
        counts.append(len(os.listdir(f"/proc/{bed.driver.process.pid}/fd")))
    same(bed.pod, before)
    equal(counts[-1], counts[0], "descriptors of the driver")


@row("half-a-failure-is-undone", hooks=("clsact",), attached=False)
def _(bed):
    """The last step, egress, fails: somebody's filter of another protocol has the priority."""
    with stranger(bed, "1", "1", protocol="ip"):
        before = trace(bed.pod)
        check("cannot attach to egress of device 2, where another's filter is first" in (why := bed.attach_error()), why)
        same(bed.pod, before)
        equal(os.listdir(f"{bed.pins}/v1"), [], "pins afterwards")
        bed.direct()


@row("filters-of-others-stay", hooks=("clsact",), attached=False)
def _(bed):
    with stranger(bed, "2000", "1"):
        before = trace(bed.pod)
        bed.steer()
        bed.works()
        bed.unsteer()
        same(bed.pod, before)


@row("filters-of-others-in-our-qdisc-stay", hooks=("clsact",))
def _(bed):
    with stranger(bed, "2000", "1", qdisc=False):
        bed.unsteer()
        check("stranger" in sh("tc", "-n", bed.pod.ns, "filter", "show", "dev", "eth0", "egress"), "the filter is gone")
    bed.direct()


@row("lo-down-is-brought-up", attached=False)
def _(bed):
    batch(bed.pod.ns, "link set lo down")
    bed.steer()
    bed.works()


@row("second-keeper-is-refused")
def _(bed):
    bed.driver.ask("close", bed.pod.uid)  # its ports are free, its steering stays
    with contextlib.closing(Driver(bed.pins, "bpf")) as second:
        first, bed.driver = bed.driver, second
        try:
            check("another process steers this pod" in (why := bed.attach_error()), why)
        finally:
            bed.driver = first
    bed.driver.ask("reopen", bed.pod.uid)
    bed.works()


@row("second-name-for-a-namespace-is-refused")
def _(bed):
    bed.driver.ask("close", bed.pod.uid)
    why = bed.refuses("attach", "another-uid", f"/run/netns/{bed.pod.ns}")
    check("steered already under another name" in why, why)
    bed.driver.ask("reopen", bed.pod.uid)
    bed.works()


@row("uid-that-is-no-file-name", hooks=("tcx",))
def _(bed):
    for uid in ("../x", "a.b", "x" * 64):
        why = bed.refuses("attach", uid, f"/run/netns/{bed.pod.ns}")
        check("cannot be the name of a folder" in why or "in use" in why, why)


# --- adoption --------------------------------------------------------------------------------------------------------------

@row("adopted-after-kill")
def _(bed):
    before = programs(bed)
    s = bed.pod.connect(bed.remote.ip4, APP)
    with contextlib.closing(s):
        equal(hear(s).who, "agent=15001", "who answers")
        bed.next_keeper()
        bed.steer()
        equal(bed.status()["adopted"], "1", "adopted")
        equal(programs(bed), before, "programs")
    bed.works(BOTH)
    bed.unsteer()
    equal(read_in(bed.pod, ACCEPT_LOCAL), "0", "accept_local, restored by the second keeper")
    bed.direct()


@row("counters-outlive-the-keeper")
def _(bed):
    bed.works()
    before = bed.counters()
    bed.next_keeper()
    bed.steer()
    equal(bed.counters(), before, "counters")


@row("another-program-is-replaced")
def _(bed):
    before = programs(bed)
    bed.kill_agent()
    with other_programs(bed) as path:
        if bed.hook == "tcx":
            Bpf.update_link(f"{bed.folder()}/ingress-2", f"{path}/steer_ingress_l3")
            Bpf.update_link(f"{bed.folder()}/lookup", f"{path}/steer_lookup")
        else:
            sh("tc", "-n", bed.pod.ns, "filter", "replace", "dev", "eth0", "ingress", "prio", "1", "handle", "1337",
               "bpf", "da", "pinned", f"{path}/steer_ingress_l3")
        check(programs(bed) != before, "nothing was changed")
        odd = programs(bed)
    bed.start()
    bed.steer()
    equal(bed.status()["adopted"], "0", "adopted")
    equal(len(programs(bed)), len(before), "number of programs")
    check(not set(odd) - set(before) & set(programs(bed)), "the other program is still there")
    bed.works()


@row("links-of-the-wrong-direction-are-not-adopted", hooks=("tcx",))
def _(bed):
    bed.kill_agent()
    os.rename(f"{bed.folder()}/egress-2", f"{bed.folder()}/egress-9")
    os.rename(f"{bed.folder()}/ingress-2", f"{bed.folder()}/egress-2")
    bed.start()
    bed.steer()
    bed.works()
    equal(sorted(x for x in os.listdir(bed.folder()) if "gress" in x), ["egress-2", "ingress-2"], "pins")


def other_abi(bed):
    conf = f"{bed.folder()}/map-conf"
    value = json.loads(sh("bpftool", "-j", "map", "lookup", "pinned", conf, "key", "0", "0", "0", "0"))["value"]
    sh("bpftool", "map", "update", "pinned", conf, "key", "0", "0", "0", "0", "value", "99", *value[1:])


@row("another-abi-is-replaced")
def _(bed):
    bed.kill_agent()
    other_abi(bed)
    bed.start()
    bed.steer()
    equal(bed.status()["adopted"], "0", "adopted")
    bed.works()
    bed.unsteer()
    equal(os.listdir(f"{bed.pins}/v1"), [], "pins afterwards")


@row("agents-are-known-while-another-keeper-starts")
def _(bed):
    """What tells them apart is not taken back for a moment: packets of a tunnel that lives on would count as the app's."""
    fd, over, seen = Bpf.get(f"{bed.pins}/v1-node/map-node"), threading.Event(), set()
    want = Bpf.value(fd, 16)[4:8]
    if want == bytes(4):
        os.close(fd)
        raise Skip("these processes have a cgroup of their own: there is nothing to take back")

    def watch():
        while not over.is_set():
            seen.add(Bpf.value(fd, 16)[4:8])

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        bed.kill_agent()
        bed.start()
    finally:
        over.set()
        watcher.join()
        os.close(fd)
    equal(seen, {want}, "what the node's configuration said of it")


@row("map-of-another-size-is-replaced")
def _(bed):
    bed.kill_agent()
    path = f"{bed.folder()}/map-conf"
    os.unlink(path)
    sh("bpftool", "map", "create", path, "type", "array", "key", "4", "value", "16", "entries", "1", "name", "conf")
    bed.start()
    bed.steer()
    equal(bed.status()["adopted"], "0", "adopted")
    bed.works()


@row("missing-pin-is-made-again")
def _(bed):
    for name in ("lookup", "egress-2", "ingress-2", "map-conf"):
        bed.kill_agent()
        os.unlink(f"{bed.folder()}/{name}")
        if name == "lookup":  # a link without a pin goes from a work queue
            until(lambda: not is_looked_up(bed.pod), "the link to go")
        bed.start()
        bed.steer()
        bed.works()
    equal(len(set(programs(bed))), len(programs(bed)), "programs that are attached once")


def is_looked_up(pod):
    inode = os.stat(f"/run/netns/{pod.ns}").st_ino
    return inode in (x.get("netns_ino") for x in json.loads(sh("bpftool", "-j", "link")))


def new_sandbox(name, before, stays=True):
    row(name)(functools.partial(in_new_sandbox, before, stays))


def in_new_sandbox(before, stays, bed):
    """The sandbox was made anew: the old namespace, which lives, stays steered where the pins say which it is."""
    bed.kill_agent()
    before(bed)
    with extra(bed.net, "new") as new:
        batch(new.ns, "link set lo up", f"link add eth0 type veth peer name v-new netns {bed.node.ns}",
              "addr add 10.71.1.9/32 dev eth0", "link set eth0 up", "route add default via 10.71.1.1 dev eth0 onlink")
        batch(bed.node.ns, "link set v-new up")
        bed.start()
        bed.driver.ask("attach", bed.pod.uid, f"/run/netns/{new.ns}")
        equal(bed.status()["adopted"], "0", "adopted")
        equal(bed.status()["addrs"].split(",")[0], "10.71.1.9", "addresses")
        equal(bed.ask(new, bed.remote.ip4, APP).who, "agent=15001", "who answers in the new namespace")
        bed.driver.ask("detach", bed.pod.uid, 0)
        bed.steered = False
        until(lambda: is_looked_up(bed.pod) == stays, "the old namespace to stay steered" if stays else "no program in it")


new_sandbox("same-uid-in-a-new-namespace", lambda bed: None)
new_sandbox("same-uid-in-a-new-namespace-other-abi", lambda bed: other_abi(bed))
new_sandbox("same-uid-in-a-new-namespace-no-lookup", lambda bed: os.unlink(f"{bed.folder()}/lookup"), stays=False)


@row("other-hook-replaces", hooks=("tcx", "clsact"))
def _(bed):
    """A keeper that attaches the other way leaves nothing of the first."""
    needs_tcx()
    other = "clsact" if bed.hook == "tcx" else "tcx"
    bed.next_keeper(other)
    bed.steer()
    bed.works()
    filters = sh("tc", "-n", bed.pod.ns, "filter", "show", "dev", "eth0", "egress")
    equal("steer_egress" in filters, other == "clsact", "filter")
    bed.unsteer()
    equal("clsact" in sh("tc", "-n", bed.pod.ns, "qdisc"), False, "clsact afterwards")
    bed.direct()


@row("interrupted-detach-is-adopted")
def _(bed):
    """Killed while it drained: the next keeper's attachment captures again."""
    s = bed.pod.connect(bed.remote.ip4, APP)
    with contextlib.closing(s):
        hear(s)
        bed.driver.process.stdin.write(f"detach {bed.pod.uid} 60000\n".encode())
        bed.driver.process.stdin.flush()
        until(lambda: bed.ask(bed.pod, bed.remote.ip4, APP).who == "remote", "no new captures")
        bed.next_keeper()
        bed.steer()
        bed.works()


# --- foreign pins ------------------------------------------------------------------------------------------------------------

def foreign(name, make, text):
    @row(f"foreign-{name}-is-refused")
    def _(bed):
        bed.unsteer()
        os.mkdir(bed.folder(), 0o700)
        make(bed)
        before = trace(bed.pod)
        why = bed.attach_error()
        check(text in why and bed.folder() in why, why)
        same(bed.pod, before)


def pin_map(bed, name):
    sh("bpftool", "map", "create", f"{bed.folder()}/{name}", "type", "array", "key", "4", "value", "4", "entries", "1",
       "name", "x")


foreign("name", lambda bed: pin_map(bed, "something"), "something is not ours")
foreign("kind", lambda bed: pin_map(bed, "lookup"), "lookup is not ours")
foreign("folder", lambda bed: os.chown(bed.folder(), 65534, 65534), "is not ours")
foreign("mode", lambda bed: os.chmod(bed.folder(), 0o777), "is not ours")
foreign("owner", lambda bed: (pin_map(bed, "map-conf"), os.chown(f"{bed.folder()}/map-conf", 65534, 65534)), "is not ours")


# --- detach ------------------------------------------------------------------------------------------------------------------

def begin_detach(bed):
    """Un-enrolment begins; its answer comes when it has ended."""
    bed.driver.process.stdin.write(f"detach {bed.pod.uid} {scale.deadline(30) * 1000}\n".encode())
    bed.driver.process.stdin.flush()
    until(lambda: bed.ask(bed.remote, bed.pod.ip4, APP).who == "app", "no new captures")


def detached(bed):
    equal(bed.driver.process.stdout.readline().strip(), b"ok", "answer of detach")
    bed.steered = False


@row("captured-connections-finish")
def _(bed):
    with contextlib.ExitStack() as stack:
        live = []
        for host, ip in ((bed.pod, bed.remote.ip4), (bed.remote, bed.pod.ip4)):
            s = stack.enter_context(contextlib.closing(host.connect(ip, APP)))
            check(hear(s).who.startswith("agent"), "not captured")
            live.append(s)
        begin_detach(bed)
        bed.direct()
        for s in live:
            check(echoes(s, os.urandom(1 << 16)), "bytes changed")
            s.close()
    detached(bed)
    equal(os.listdir(f"{bed.pins}/v1"), [], "pins afterwards")


@row("inbound-connections-finish")
def _(bed):
    """The agent's end alone is left, as when the app has closed and the client still reads."""
    with contextlib.closing(bed.remote.connect(bed.pod.ip4, APP)) as s:
        equal(hear(s).who, "agent=15006", "who answers")
        begin_detach(bed)
        check(not select.select([bed.driver.process.stdout], [], [], 0.5)[0], "un-enrolment has ended")
        check(echoes(s, os.urandom(1 << 16)), "bytes changed")
    detached(bed)


@row("tunnels-with-bytes-in-them-finish")
def _(bed):
    """Idle ones do not hold up."""
    sent = os.urandom(1 << 23)
    with contextlib.closing(bed.remote.connect(bed.pod.ip4, 15008)) as idle, \
            contextlib.closing(bed.remote.connect(bed.pod.ip4, 15008, rcvbuf=1 << 16)) as s:
        hear(idle)
        hear(s)
        s.setblocking(False)
        left = memoryview(sent)
        while left and select.select([], [s], [], 0.5)[1]:  # until the echo fills every buffer, or they hold it all
            left = left[s.send(left[:1 << 16]):]
        begin_detach(bed)
        s.settimeout(10)
        size, got = len(sent) - len(left), b""
        while len(got) < size:
            chunk = s.recv(1 << 20)
            check(chunk, f"end after {len(got)} of {size} bytes")
            got += chunk
        check(got == sent[:size], "bytes changed")
        detached(bed)


@row("what-is-left-is-reset")
def _(bed):
    s = bed.pod.connect(bed.remote.ip4, APP)
    with contextlib.closing(s):
        hear(s)
        bed.unsteer(100)
        try:  # before it sends anything
            equal(s.recv(1), None, "what is received")
        except ConnectionError:
            pass
    bed.direct()


@row("half-closed-connections-are-waited-for")
def _(bed):
    s = bed.pod.connect(bed.remote.ip4, APP)
    with contextlib.closing(s):
        hear(s)
        s.sendall(b"last words")
        bed.driver.process.stdin.write(f"detach {bed.pod.uid} {scale.deadline(30) * 1000}\n".encode())
        bed.driver.process.stdin.flush()
        s.shutdown(1)
        got = b""
        while chunk := s.recv(100):
            got += chunk
        equal(got, b"last words", "echo")
    equal(bed.driver.process.stdout.readline().strip(), b"ok", "answer of detach")
    bed.steered = False


# --- existing connections ------------------------------------------------------------------------------------------------------

@row("existing-connections-are-counted", attached=False)
def _(bed):
    with contextlib.ExitStack() as stack:
        for host, ip in ((bed.pod, bed.remote.ip4), (bed.pod, bed.remote.ip6), (bed.remote, bed.pod.ip4)):
            s = stack.enter_context(contextlib.closing(host.connect(ip, APP)))
            hear(s)
        mine = stack.enter_context(contextlib.closing(bed.pod.connect(bed.pod.ip4, APP)))
        hear(mine)
        bed.steer()
        equal(bed.status()["existing"], "3", "existing")
        new = stack.enter_context(contextlib.closing(bed.pod.connect(bed.remote.ip4, APP)))
        hear(new)
        equal(bed.status()["existing"], "3", "existing, with a new one")
        bed.configure(f"out={bed.remote.ip4}/32")
        exempt = stack.enter_context(contextlib.closing(bed.pod.connect(bed.remote.ip4, APP)))
        equal(hear(exempt).who, "remote", "who answers")
        bed.next_keeper()
        bed.steer()
        equal(bed.status()["existing"], "3", "existing, for the next keeper")
        s.sendall(b"x")
        s.close()
    until(lambda: bed.status()["existing"] == "0", "existing connections to end")


@row("existing-connections-are-reset-on-demand", attached=False)
def _(bed):
    s = bed.pod.connect(bed.remote.ip4, APP)
    mine = bed.pod.connect(bed.pod.ip4, APP)
    with contextlib.closing(s), contextlib.closing(mine):
        hear(s)
        hear(mine)
        bed.steer("reset")
        try:
            echoes(s, b"x")
            raise AssertionError("the connection lives")
        except ConnectionError:
            pass
        check(echoes(mine, b"x"), "the pod's connection to itself")


# --- collecting -----------------------------------------------------------------------------------------------------------------

@row("dead-namespace-is-collected")
def _(bed):
    with extra(bed.net, "dead") as dead:
        batch(dead.ns, "link set lo up")
        bed.driver.ask("attach", "dead", f"/run/netns/{dead.ns}")
        bed.driver.ask("forget", "dead")
        equal(bed.driver.ask("collect", bed.pod.uid, "dead"), "0", "collected while it lives and is known")
    until(lambda: bed.driver.ask("collect", bed.pod.uid) == "1", "one to collect")
    equal(os.listdir(f"{bed.pins}/v1"), [bed.pod.uid], "pins")
    bed.works()


@row("unknown-pod-stays-steered")
def _(bed):
    with extra(bed.net, "lost") as lost:
        batch(lost.ns, "link set lo up", f"link add eth0 type veth peer name v-lost netns {bed.node.ns}",
              "link set eth0 up")
        before = trace(lost)
        bed.driver.ask("attach", "lost", f"/run/netns/{lost.ns}")
        bed.driver.ask("forget", "lost")
        check(trace(lost) != before, "nothing is attached")
        equal(bed.driver.ask("collect", bed.pod.uid), "0", "collected")
        check(trace(lost) != before, "it was let out of the mesh")
        bed.driver.ask("attach", "lost", f"/run/netns/{lost.ns}")
        bed.driver.ask("detach", "lost", "100")
        same(lost, before)
    equal(os.listdir(f"{bed.pins}/v1"), [bed.pod.uid], "pins")
    bed.works()


@row("namespace-stays-steered-when-another-takes-its-uid")
def _(bed):
    """Its record was lost and its pod made anew, but it lives."""
    with extra(bed.net, "first") as first, extra(bed.net, "second") as second:
        for ns in first.ns, second.ns:
            batch(ns, "link set lo up", f"link add eth0 type veth peer name v-{ns[-8:]} netns {bed.node.ns}", "link set eth0 up")
        bed.driver.ask("attach", "same", f"/run/netns/{first.ns}")
        bed.driver.ask("forget", "same")
        steered = trace(first)
        bed.driver.ask("attach", "same", f"/run/netns/{second.ns}")
        equal(trace(first), steered, "what is in the first one")
        bed.driver.ask("detach", "same", "100")
        equal(trace(first), steered, "what is in the first one, later")
        check(is_looked_up(first) and not is_looked_up(second), "whose SYNs are looked up")
        equal(bed.driver.ask("collect", bed.pod.uid), "0", "collected while it lives")
    until(lambda: bed.driver.ask("collect", bed.pod.uid) == "1", "one to collect")
    equal(os.listdir(f"{bed.pins}/v1"), [bed.pod.uid], "pins")
    bed.works()


@row("interrupted-un-enrolment-is-finished", attached=False)
def _(bed):
    """Nobody knows the pod any more: what was asked for is done, and its captured connection is reset first."""
    before = trace(bed.pod)
    bed.steer()
    with contextlib.closing(bed.pod.connect(bed.remote.ip4, APP)) as s:
        hear(s)
        begin_detach(bed)
        bed.next_keeper()
        bed.steered = False
        equal(bed.driver.ask("collect"), "1", "collected")
        try:  # the agent's end sent a FIN when it was killed; ours must not send any more
            s.recv(1)
            s.sendall(b"x")
            raise AssertionError("the connection lives")
        except ConnectionError:
            pass
    same(bed.pod, before)
    equal(os.listdir(f"{bed.pins}/v1"), [], "pins")
    bed.direct()


# --- what pods share ------------------------------------------------------------------------------------------------------------

KEYED = ("confs", "addrs", "excluded", "listeners", "counters", "returning")


def keys(bed):
    """How many keys of each shared map there are."""
    return {m: len(json.loads(sh("bpftool", "-j", "map", "dump", "pinned", f"{bed.pins}/v1-node/map-{m}"))) for m in KEYED}


@row("shared-maps-hold-nothing-after-detach", attached=False)
def _(bed):
    before = keys(bed)
    bed.steer("out=192.0.2.0/24")
    bed.works(BOTH)
    there = keys(bed)
    check(all(there[m] > before[m] for m in KEYED if m != "returning"), f"keys of a steered pod: {there}")
    bed.unsteer()
    equal(keys(bed), before, "keys afterwards")


@row("shared-maps-hold-nothing-of-a-dead-namespace")
def _(bed):
    before = keys(bed)
    with extra(bed.net, "dead") as dead:
        batch(dead.ns, "link set lo up")
        bed.driver.ask("attach", "dead", f"/run/netns/{dead.ns}")
        bed.driver.ask("forget", "dead")
    until(lambda: bed.driver.ask("collect", bed.pod.uid) == "1", "one to collect")
    equal(keys(bed), before, "keys afterwards")
    bed.works()


@row("another-pod-goes-and-this-one-stays")
def _(bed):
    before = keys(bed)
    with extra(bed.net, "two") as two:
        batch(two.ns, "link set lo up", f"link add eth0 type veth peer name v-two netns {bed.node.ns}", "link set eth0 up",
              "addr add 10.71.1.9/32 dev eth0")
        bed.driver.ask("attach", "two", f"/run/netns/{two.ns}")
        check(keys(bed)["listeners"] > before["listeners"], "the other one has no listeners")
        bed.driver.ask("detach", "two", "100")
    equal(keys(bed), before, "keys afterwards")
    bed.works(BOTH)


@row("without-the-programs-of-the-node-nothing-passes")
def _(bed):
    path = f"{bed.pins}/v1-node/map-programs"
    bed.works()
    for i in range(4):
        sh("bpftool", "map", "delete", "pinned", path, "key", str(i), "0", "0", "0")
    for who, to in ((bed.pod, bed.remote.ip4), (bed.remote, bed.pod.ip4)):
        with contextlib.suppress(TimeoutError):
            who.connect(to, APP, timeout=1).close()
            raise AssertionError("a connection was made")
    bed.next_keeper()
    bed.steer()
    equal(bed.status()["adopted"], "1", "adopted")
    bed.works()


@row("pod-in-use-is-not-collected")
def _(bed):
    equal(bed.driver.ask("collect"), "0", "collected")
    bed.works()


# --- the kernel -----------------------------------------------------------------------------------------------------------------

def probe(name, text, *prefix):
    @table.row(f"probe-{name}")
    def _():
        r = subprocess.run([*prefix, driver_path()], input="probe\nquit\n", capture_output=True, text=True, timeout=30)
        check(r.stdout.strip() == "ok" if not text else text in r.stdout, r.stdout + r.stderr)


probe("here", "")
probe("without-root", "error cannot make a network namespace (root is needed): Operation not permitted",
      "setpriv", "--reuid", "65534", "--clear-groups", "--bounding-set=-all")
probe("without-net-admin", "Operation not permitted", "setpriv", "--bounding-set=-net_admin")

if __name__ == "__main__":
    with unwinding():
        table.main()
