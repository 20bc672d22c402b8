#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The keeper alone (`culvertd node`), with tunnels that the test plays: who is told what, what is undone when a tunnel
refuses, is silent or dies, and what a pod looks like that is served by a foreign tunnel (one that opens its own
sockets, as ztunnel does)."""
import contextlib
import json
import os
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time

sys.path.insert(0, os.path.dirname(__file__))
from lib import agents
from lib.bed import kinds
from lib.ca import encode, fields
from lib.net import Network, Unwound, sh
from lib.rows import Skip, Table, check, equal, until

T = Table(__file__)
OURS, FOREIGN = b"\x08\x01\xa0\x06\x01", b"\x08\x01"
DRAINING = b"\x08\x01\xa0\x06\x02\xa8\x06\x01"
ADD, DEL, SNAPSHOT, KEEP = 1, 2, 3, 5


class FakeTunnel:
    """A ZDS client. `answer` is what it says to requests: "" done, text: refused, None: nothing."""

    def __init__(self, path, hello=OURS):
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.socket.settimeout(10)
        self.socket.connect(path)
        if hello:
            self.socket.send(hello)
        self.fds = {}  # uid -> descriptors: the namespace, then the sockets that were named
        self.names = {}

    def next(self, answer="", timeout=10):
        """(kind, uid) of the next request, answered."""
        self.socket.settimeout(timeout)
        data, fds, _, _ = socket.recv_fds(self.socket, 1024, 16)
        if not data:
            raise ConnectionError("closed by the keeper")
        (kind, body), = fields(data)
        parts = list(fields(body))
        uid = next((v.decode() for k, v in parts if k in (1, 2) and kind != SNAPSHOT), "")
        if kind == ADD:
            self.forget(uid)
            self.fds[uid] = fds
            self.names[uid] = list(b"".join(v for k, v in parts if k == 100))
        equal(bool(fds), kind == ADD, "descriptors with request")
        if answer is not None:
            self.socket.send(encode(1, encode(1, answer.encode()) if answer else b""))
        return kind, uid

    def snapshot(self, answer=""):
        """Everything up to SnapshotSent."""
        out = []
        while (r := self.next(answer if not out or out[-1][0] != SNAPSHOT else ""))[0] != SNAPSHOT:
            out.append(r)
        return out

    def quiet(self, seconds=0.2):
        return not select.select([self.socket], [], [], seconds)[0]

    def is_closed(self, within=8):
        self.socket.settimeout(within)
        equal(self.socket.recv(1024), b"", "on a connection that had to be closed")

    def forget(self, uid):
        for fd in self.fds.pop(uid, ()):
            os.close(fd)

    def close(self):
        self.socket.close()
        for uid in list(self.fds):
            self.forget(uid)

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self.close()


class Sleeper:
    """A process in the pod; `path` is its network namespace, while it lives."""

    def __init__(self, pod):
        self.process = pod.popen(["sleep", "60"])
        self.path = f"/proc/{self.process.pid}/ns/net"
        until(lambda: os.stat(self.path).st_ino == os.stat(f"/run/netns/{pod.ns}").st_ino, "the process in the pod")

    def close(self):
        self.process.kill()
        self.process.wait()


class Place(Unwound):
    """Two nodes' network, and a keeper on the first."""

    def __init__(self, steering):
        self.steering = steering

    def _begin(self):
        agents.need_culvert()
        if os.geteuid():
            raise Skip("needs root for network namespaces")
        self.net = self.stack.enter_context(Network())
        self.pod, self.second, self.node = self.net.pods["a1"], self.net.pods["a2"], self.net.nodes[0]
        self.folder = tempfile.mkdtemp(prefix="e2e-keeper-", dir="/tmp")
        self.stack.callback(shutil.rmtree, self.folder, True)
        self.bpf, self.run = f"{self.folder}/bpf", f"{self.folder}/run"
        os.mkdir(self.bpf)
        sh("mount", "-t", "bpf", "bpf", self.bpf)
        self.stack.callback(sh, "umount", "-l", self.bpf, ok=False)
        self.env = {"PATH": os.environ["PATH"], "CULVERT_RUN_DIR": self.run, "CULVERT_BPF_DIR": self.bpf,
                    "CULVERT_STEERING": self.steering, "CULVERT_DRAIN": "1s"}
        self.env |= {k: os.environ[k] for k in ("ASAN_OPTIONS", "UBSAN_OPTIONS", "LSAN_OPTIONS") if k in os.environ}
        self.log_path, self.process, self.tunnels = f"{self.folder}/log", None, []
        self.stack.callback(self.stop)
        self.stack.callback(self.close_tunnels)
        self.start()

    def close_tunnels(self):
        for t in self.tunnels:
            t.close()

    def explain(self):
        if os.environ.get("E2E_LOGS"):
            print(self.log(), file=sys.stderr)

    def log(self):
        with open(self.log_path) as f:
            return f.read()

    def start(self):
        with open(self.log_path, "ab") as log:
            self.process = self.node.popen([agents.CULVERTD, "node"], env=self.env, stdout=log, stderr=log,
                                           stdin=subprocess.DEVNULL)
        until(self.answers, "the keeper to answer")

    def answers(self):
        check(self.process.poll() is None, lambda: f"it ended: {self.log()[-300:]}")
        return self.ctl("pods")[0] == 0

    def stop(self):
        if self.process and self.process.poll() is None:
            self.process.terminate()
            self.process.wait(10)

    def kill(self):
        self.process.kill()
        self.process.wait()

    def tunnel(self, hello=OURS):
        t = FakeTunnel(f"{self.run}/zds.sock", hello)
        self.tunnels.append(t)
        return t

    def begin(self, *argv):
        return subprocess.Popen([agents.CULVERTCTL, *argv], env=self.env, stdout=subprocess.PIPE,
                                stderr=subprocess.STDOUT, text=True)

    def end(self, p, within=20):
        """(status, output)"""
        out = p.communicate(timeout=within)[0]
        return p.returncode, out.strip()

    def ctl(self, *argv):
        return self.end(self.begin(*argv))

    def enrol(self, pod=None):
        pod = pod or self.pod
        return self.begin("enrol", f"/run/netns/{pod.ns}", f"default/{pod.name}/{pod.sa}")

    def unenrol(self, pod=None):
        return self.begin("unenrol", f"/run/netns/{(pod or self.pod).ns}")

    def pods(self):
        return {p["name"]: p for p in json.loads(self.ctl("pods", "--json")[1])["pods"]}

    def enrolled(self, t, pod=None):
        """Enrols through this tunnel; the uid."""
        p = self.enrol(pod)
        kind, uid = t.next()
        equal(kind, ADD, "request")
        equal(self.end(p), (0, ""), "culvertctl enrol")
        return uid

    def untouched(self, pod=None):
        """Nothing of ours is in the pod, and no record."""
        pod = pod or self.pod
        equal(pod.run("ss", "-Hlntu"), "", "sockets in the pod")
        for v6 in (), ("-6",):
            check("0x111" not in pod.run("ip", *v6, "rule"), "an ip rule in the pod")
        check("ISTIO" not in pod.run("iptables-save"), "rules in the pod")
        check(pod.name not in self.pods(), "the keeper still lists it")
        equal([f for f in os.listdir(f"{self.run}/pods")
               if f"\"{pod.name}\"" in open(f"{self.run}/pods/{f}", errors="replace").read()], [], "records")
        pins = f"{self.bpf}/v1"
        if not self.pods():
            equal(os.listdir(pins) if os.path.isdir(pins) else [], [], "pins")

    def steered(self, pod=None):
        return "0x111" in (pod or self.pod).run("ip", "rule")


STEERINGS = {"bpf": "culvert", "iptables": "culvert-iptables"}


def rows(name, some=tuple(STEERINGS)):
    """Every row has a keeper of its own."""

    def add(fn):
        for steering in some:
            if STEERINGS[steering] not in kinds():
                continue
            T.row(f"{steering}/{name}", lambda s=steering: Place(s))(fn)
        return fn

    return add


# --- joining and leaving ------------------------------------------------------------------------------------------


@rows("enrol-and-unenrol")
def enrol_unenrol(place):
    with place.tunnel() as t:
        equal(t.snapshot(), [], "snapshot")
        uid = place.enrolled(t)
        equal(t.names[uid], list(range(7)), "sockets that came")
        equal(len(t.fds[uid]), 8, "descriptors")
        check(place.steered(), "not steered")
        check(os.path.exists(f"{place.run}/pods/{uid}.json"), "no record")
        equal(place.ctl("enrol", f"/run/netns/{place.pod.ns}", f"default/a1/{place.pod.sa}")[0], 0, "the same again")
        status, line = place.ctl("enrol", f"/run/netns/{place.pod.ns}", "default/other/sa")
        check(status == 1 and "enrolled as default/a1" in line, f"another identity: {line}")
        check(t.quiet(), "the tunnel was asked again")
        p = place.unenrol()
        equal(t.next(), (DEL, uid), "request")
        t.forget(uid)
        equal(place.end(p), (0, ""), "culvertctl unenrol")
        place.untouched()


@rows("unenrol-by-uid")
def by_uid(place):
    with place.tunnel() as t:
        t.snapshot()
        uid = place.enrolled(t)
        p = place.begin("unenrol", uid)
        equal(t.next(), (DEL, uid), "request")
        t.forget(uid)
        equal(place.end(p), (0, ""), "culvertctl unenrol")
        place.untouched()


@rows("unenrol-says-that-the-record-stays", ["bpf"])
def record_stays(place):
    """The next keeper would take the pod back: whoever asked must know."""
    with place.tunnel() as t:
        t.snapshot()
        uid = place.enrolled(t)
        record = f"{place.run}/pods/{uid}.json"
        os.unlink(record)
        os.mkdir(record)  # what unlink() does not remove
        p = place.unenrol()
        equal(t.next(), (DEL, uid), "request")
        t.forget(uid)
        status, line = place.end(p)
        check(status == 1 and f"the record of pod {uid} cannot be removed" in line, f"{status}: {line}")
        os.rmdir(record)
        place.untouched()


@rows("unenrol-after-the-name-is-gone", ["bpf"])
def name_gone(place):
    """The path no longer leads to the namespace, which lives on."""
    with place.tunnel() as t:
        t.snapshot()
        with contextlib.closing(Sleeper(place.pod)) as sleeper:
            p = place.begin("enrol", sleeper.path, f"default/a1/{place.pod.sa}")
            _, uid = t.next()
            equal(place.end(p), (0, ""), "culvertctl enrol")
        check(not os.path.exists(sleeper.path), "the path is still there")
        p = place.begin("unenrol", sleeper.path)
        equal(t.next(), (DEL, uid), "request")
        t.forget(uid)
        equal(place.end(p), (0, ""), "culvertctl unenrol")
        place.untouched()


@rows("two-enrolments-of-one-pod-at-once")
def at_once(place):
    with place.tunnel() as t:
        t.snapshot()
        first, second = place.enrol(), place.enrol()
        done = [place.end(x) for x in [first, second] if x.poll() is not None]
        kind, uid = t.next()
        equal(kind, ADD, "request")
        results = sorted(done + [place.end(x) for x in [first, second] if x not in done and x.stdout and not x.stdout.closed])
        check(results[0] == (0, ""), f"neither worked: {results}")
        check(results[-1][0] == 0 or "under way" in results[-1][1], f"the other: {results}")
        check(t.quiet(), "the tunnel was asked twice")
        equal(list(place.pods()), ["a1"], "pods")


@rows("many-enrolments-at-once", ["bpf"])
def many(place):
    """While one waits for its answer, others and questions are served."""
    with place.tunnel() as t:
        t.snapshot()
        first, second = place.enrol(), place.enrol(place.second)
        kind, uid = t.next(answer=None)
        until(lambda: len(place.pods()) == 2, "both pods under way")
        equal(place.pods()["a1"]["state"], "joining", "state")
        t.socket.send(encode(1, b""))
        t.next()
        equal([place.end(first), place.end(second)], [(0, ""), (0, "")], "culvertctl enrol")


# --- failures are undone ------------------------------------------------------------------------------------------


@rows("refused-by-the-tunnel")
def refused(place):
    with place.tunnel() as t:
        t.snapshot()
        p = place.enrol()
        _, uid = t.next("no room")
        t.forget(uid)
        equal(t.next(), (DEL, uid), "request")
        status, line = place.end(p)
        check(status == 1 and "no room" in line, f"{status} {line}")
        place.untouched()


@rows("silent-tunnel", ["bpf"])
def silent(place):
    """Five seconds for the answer, then the connection is closed and the pod as before."""
    with place.tunnel() as t:
        t.snapshot()
        at = time.monotonic()
        p = place.enrol()
        _, uid = t.next(answer=None)
        t.is_closed()
        check(4 < time.monotonic() - at < 8, f"after {time.monotonic() - at:.1f} s")
        t.forget(uid)
        status, line = place.end(p)
        check(status == 1 and "no answer" in line, f"{status} {line}")
        place.untouched()


@rows("tunnel-that-dies")
def dies(place):
    with place.tunnel() as t:
        t.snapshot()
        p = place.enrol()
        t.next(answer=None)
        t.close()
        equal(place.end(p)[0], 1, "culvertctl enrol")
        place.untouched()


@rows("no-tunnel", ["bpf"])
def no_tunnel(place):
    """An enrolment waits for a tunnel, not for ever."""
    status, line = place.ctl("enrol", f"/run/netns/{place.pod.ns}", f"default/a1/{place.pod.sa}")
    check(status == 1 and "no tunnel" in line, f"{status} {line}")
    place.untouched()


@rows("tunnel-that-comes-in-time")
def in_time(place):
    p = place.enrol()
    until(lambda: place.pods(), "the enrolment to wait")
    with place.tunnel() as t:
        equal(t.snapshot(), [], "snapshot")
        equal(t.next()[0], ADD, "request")
        equal(place.end(p), (0, ""), "culvertctl enrol")


# --- several tunnels ------------------------------------------------------------------------------------------------


@rows("added-to-the-newest-removed-from-all")
def upgrade(place):
    with place.tunnel() as old:
        old.snapshot()
        uid = place.enrolled(old)
        with place.tunnel() as new:
            equal(new.snapshot(), [(ADD, uid)], "the new one's snapshot")
            equal(len(new.fds[uid]), 8, "descriptors")
            other = place.enrolled(new, place.second)
            check(old.quiet(), "the old one was asked")
            p = place.unenrol()
            equal(old.next(), (DEL, uid), "the old one's request")
            equal(new.next(), (DEL, uid), "the new one's request")
            equal(place.end(p), (0, ""), "culvertctl unenrol")
        equal(old.next(), (ADD, other), "the old one's request: it serves again, and lacks this pod")
        equal(len(old.fds[other]), 8, "descriptors")
        old.forget(other)
        p = place.unenrol(place.second)
        equal(old.next(), (DEL, other), "the old one's request")
        equal(place.end(p), (0, ""), "culvertctl unenrol")


@rows("one-that-drains-learns-who-leaves", ["bpf"])
def draining(place):
    """It is told what it may keep, is asked for no sockets and for no new pod, and hears of removals, also by the next
    keeper; and it is nobody to enrol with."""
    with place.tunnel() as t, place.tunnel(DRAINING) as old:
        t.snapshot()
        equal(old.snapshot(), [], "snapshot of the old one")
        uid = place.enrolled(t)
        place.kill()
        place.start()
        with place.tunnel(DRAINING) as again:
            equal(again.snapshot(), [(KEEP, uid)], "its next snapshot")
            equal(place.pods()["a1"]["state"], "recovering", "state")
            status = json.loads(place.ctl("status", "--json")[1])["tunnel"]
            equal((status["connected"], [g["state"] for g in status["generations"]]), (False, ["draining"]), "status")
            t.close()
            t.forget(uid)
            until(lambda: place.pods()["a1"]["state"] == "enrolled", "new sockets")
            check(again.quiet(), "the old one was asked")
            p = place.unenrol()
            equal(again.next(), (DEL, uid), "request")
            equal(place.end(p), (0, ""), "culvertctl unenrol")
            status, line = place.ctl("enrol", f"/run/netns/{place.pod.ns}", f"default/a1/{place.pod.sa}")
            check(status == 1 and "no tunnel" in line, f"{status} {line}")


@rows("foreign-tunnel", ["bpf"])
def foreign(place):
    """One that opens its own sockets: iptables, and the namespace alone."""
    with place.tunnel(FOREIGN) as t:
        equal(t.snapshot(), [], "snapshot")
        uid = place.enrolled(t)
        equal(len(t.fds[uid]), 1, "descriptors")
        equal(t.names[uid], [], "sockets that came")
        pod = place.pods()["a1"]
        equal((pod["steering"], pod["foreignTunnel"], pod["sockets"]), ("iptables", True, []), "the pod")
        check("15001" in place.pod.run("iptables-save"), "no rules in the pod")
        equal(place.pod.run("ss", "-Hlntu"), "", "sockets in the pod")
        p = place.unenrol()
        equal(t.next(), (DEL, uid), "request")
        equal(place.end(p), (0, ""), "culvertctl unenrol")
        place.untouched()


@rows("foreign-tunnel-after-ours", ["iptables"])
def foreign_after(place):
    """Pods behind iptables can be handed over: our sockets are closed, so that the other's find their ports free."""
    with place.tunnel() as t:
        t.snapshot()
        uid = place.enrolled(t)
    with place.tunnel(FOREIGN) as t:
        equal(t.snapshot(), [(ADD, uid)], "snapshot")
        equal(len(t.fds[uid]), 1, "descriptors")
        equal(place.pod.run("ss", "-Hlnt"), "", "sockets in the pod")


@rows("foreign-tunnel-cannot-have-a-bpf-pod", ["bpf"])
def foreign_bpf(place):
    """It stays captured, and waits."""
    with place.tunnel() as t:
        t.snapshot()
        place.enrolled(t)
    with place.tunnel(FOREIGN) as t:
        equal(t.snapshot(), [], "snapshot")
        check(place.steered(), "not steered any more")
        check(place.pod.run("ss", "-Hlnt"), "its listeners are gone")
    with place.tunnel() as t:
        equal([k for k, _ in t.snapshot()], [ADD], "snapshot of ours")


# --- another keeper --------------------------------------------------------------------------------------------------


@rows("restarted-without-a-tunnel")
def restarted(place):
    """Nobody has the sockets: new ones are opened, and the pod is served again."""
    with place.tunnel() as t:
        t.snapshot()
        uid = place.enrolled(t)
        place.kill()
    place.start()
    until(lambda: place.pods()["a1"]["state"] == "enrolled", "the pod to be regained")
    check(place.steered(), "not steered")
    with place.tunnel() as t:
        equal(t.snapshot(), [(ADD, uid)], "snapshot")
        equal(len(t.fds[uid]), 8, "descriptors")
        p = place.unenrol()
        t.next()
        t.forget(uid)
        equal(place.end(p), (0, ""), "culvertctl unenrol")
    place.untouched()


@rows("sockets-come-back")
def come_back(place):
    """The tunnel lived on: it is asked for the sockets, and they are the same ones."""
    with place.tunnel() as old:
        old.snapshot()
        uid = place.enrolled(old)
        place.kill()
        before = [os.fstat(fd).st_ino for fd in old.fds[uid][1:]]
        place.start()
        with place.tunnel() as t:
            equal(t.next(answer=None), (KEEP, uid), "request")
            answer = encode(1, encode(100, bytes(range(7))))
            socket.send_fds(t.socket, [answer], old.fds[uid][1:])
            equal(t.next(), (SNAPSHOT, ""), "request")
            until(lambda: place.pods()["a1"]["state"] == "enrolled", "the pod to be regained")
        with place.tunnel() as t:
            equal(t.snapshot(), [(ADD, uid)], "snapshot")
            equal([os.fstat(fd).st_ino for fd in t.fds[uid][1:]], before, "sockets")


def captures_dns(place):
    if place.steering == "iptables":
        return "--dport 53 " in place.pod.run("iptables-save", "-t", "nat")
    conf = json.loads(sh("bpftool", "-j", "map", "lookup", "pinned", f"{place.bpf}/v1/{place.pods()['a1']['uid']}/map-conf",
                         "key", "0", "0", "0", "0"))["value"]
    return bool(int(conf[4], 16) & 1)


def capture_changes(place, before, after, sockets, captured):
    """The keeper comes again with another idea of DNS capture; the tunnel lives on with the sockets that it has."""
    place.stop()
    place.env["AMBIENT_DNS_CAPTURE"] = before
    place.start()
    with place.tunnel() as old:
        old.snapshot()
        uid = place.enrolled(old)
        equal((len(old.fds[uid]) - 1, captures_dns(place)), (sockets, before == "true"), "sockets and capture at first")
        place.kill()
        place.env["AMBIENT_DNS_CAPTURE"] = after
        place.start()
        with place.tunnel() as t:
            equal(t.next(answer=None), (KEEP, uid), "request")
            socket.send_fds(t.socket, [encode(1, encode(100, bytes(old.names[uid])))], old.fds[uid][1:])
            until(lambda: place.pods()["a1"]["state"] == "enrolled", "the pod to be regained")
        equal(captures_dns(place), captured, "DNS capture")
        equal("15053" in place.pod.run("ss", "-Hlntu"), sockets == 7, "listens on 15053")
        equal("a1: DNS capture begins when its sandbox is made anew" in place.log(), (before, after) == ("false", "true"),
              "said")
        with place.tunnel() as t:
            equal(t.snapshot(), [(ADD, uid)], "snapshot")
            equal(len(t.fds[uid]) - 1, sockets, "sockets of the next tunnel")


@rows("dns-capture-comes-on-and-the-sockets-are-without-it")
def capture_on(place):
    """Queries go on to their resolver: of new sockets the tunnel would not hear."""
    capture_changes(place, "false", "true", sockets=3, captured=False)


@rows("dns-capture-goes-off-and-the-sockets-are-with-it")
def capture_off(place):
    capture_changes(place, "true", "false", sockets=7, captured=False)


@rows("late-tunnel-has-the-sockets")
def late(place):
    """The tunnel that lives on takes more than a second to come: the ports are its, so nothing is opened meanwhile."""
    with place.tunnel() as old:
        old.snapshot()
        uid = place.enrolled(old)
        place.kill()
        place.start()
        until(lambda: place.pods()["a1"].get("trouble"), "the first attempt to fail", 5)
        check(place.steered(), "not steered")
        with place.tunnel() as t:
            equal(t.next(answer=None), (KEEP, uid), "request")
            socket.send_fds(t.socket, [encode(1, encode(100, bytes(range(7))))], old.fds[uid][1:])
            until(lambda: place.pods()["a1"]["state"] == "enrolled", "the pod to be regained")


@rows("tunnel-does-not-know-the-pod")
def unknown(place):
    with place.tunnel() as t:
        t.snapshot()
        uid = place.enrolled(t)
        place.kill()
    place.start()
    with place.tunnel() as t:
        kind, _ = t.next("who is that?")
        check(kind in (KEEP, ADD), f"request {kind}")
        if kind == KEEP:
            equal(t.next(), (ADD, uid), "request")
            equal(len(t.fds[uid]), 8, "descriptors")


@rows("unenrolled-before-it-is-regained", ["bpf"])
def unenrol_early(place):
    with place.tunnel() as old:
        old.snapshot()
        uid = place.enrolled(old)
        place.kill()
        place.start()
        equal(place.pods()["a1"]["state"], "recovering", "state")
        equal(place.ctl("unenrol", uid), (0, ""), "culvertctl unenrol")
        old.forget(uid)
        place.untouched()


@rows("dead-namespaces-are-forgotten", ["bpf"])
def dead(place):
    with place.tunnel() as t:
        t.snapshot()
        place.enrolled(t)
        place.kill()
    sh("ip", "netns", "del", place.pod.ns)
    sh("ip", "netns", "add", place.pod.ns)  # another one of that name
    place.start()
    equal(place.pods(), {}, "pods")
    equal(os.listdir(f"{place.run}/pods"), [], "records")
    until(lambda: not os.listdir(f"{place.bpf}/v1"), "the pins to be collected")


@rows("bad-records-are-set-aside", ["bpf"])
def bad_records(place):
    with place.tunnel() as t:
        t.snapshot()
        place.enrolled(t)
        uid = place.enrolled(t, place.second)
        place.kill()
    with open(f"{place.run}/pods/{uid}.json", "w") as f:
        f.write("{")
    place.start()
    equal(list(place.pods()), ["a1"], "pods")
    check(os.path.exists(f"{place.run}/pods/{uid}.json.bad"), "not set aside")
    until(lambda: f"{uid}.json" in place.log(), "a line about it")
    equal(sum(f"{uid}.json" in x for x in place.log().splitlines()), 1, "lines about it")
    check(place.steered(place.second) and uid in os.listdir(f"{place.bpf}/v1"), "its pod is let out of the mesh")
    with place.tunnel() as t:
        t.snapshot()
        equal(place.enrolled(t, place.second), uid, "uid after enrolling it again")
        p = place.unenrol(place.second)
        t.next()
        t.forget(uid)
        equal(place.end(p), (0, ""), "culvertctl unenrol")
    place.untouched(place.second)


@rows("name-is-gone-but-processes-live", ["bpf"])
def nameless(place):
    """`ip netns del` takes the name only: the pod's processes keep the namespace, and it must stay steered."""
    with place.tunnel() as t:
        t.snapshot()
        uid = place.enrolled(t)
        place.kill()
    app = place.pod.popen(["sleep", "60"], start_new_session=True)
    try:
        until(lambda: os.stat(f"/proc/{app.pid}/ns/net").st_ino == os.stat(f"/run/netns/{place.pod.ns}").st_ino,
              "the process to be in the pod")
        sh("ip", "netns", "del", place.pod.ns)
        place.start()
        equal([p["uid"] for p in place.pods().values()], [uid], "pods")
        until(lambda: place.pods()["a1"]["state"] == "enrolled", "the pod to be regained")
        with place.tunnel() as t:
            equal(t.snapshot(), [(ADD, uid)], "snapshot")
            p = place.begin("unenrol", uid)
            t.next()
            t.forget(uid)
            equal(place.end(p), (0, ""), "culvertctl unenrol")
    finally:
        app.kill()
        app.wait()
        sh("ip", "netns", "add", place.pod.ns)  # for those who clean up


@rows("second-keeper-is-refused", ["bpf"])
def second_keeper(place):
    with place.tunnel() as t:
        t.snapshot()
        place.enrolled(t)
        p = place.node.popen([agents.CULVERTD, "node"], env=place.env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                             text=True)
        out = p.communicate(timeout=10)[0]
        check(p.returncode == 1 and len(out.splitlines()) == 1 and "zds.sock" in out, f"{p.returncode}: {out}")
        check(place.steered(), "not steered any more")
        equal(list(place.pods()), ["a1"], "pods")


@rows("ends-at-sigterm-and-leaves-pods-steered")
def sigterm(place):
    with place.tunnel() as t:
        t.snapshot()
        place.enrolled(t)
        place.process.send_signal(signal.SIGTERM)
        equal(place.process.wait(5), 0, "exit status")
        check(place.steered(), "not steered any more")
        check(place.pod.run("ss", "-Hlnt"), "the tunnel's listeners are gone")


# --- its socket --------------------------------------------------------------------------------------------------------


@rows("sockets-are-roots", ["bpf"])
def modes(place):
    for name in "ctl.sock", "zds.sock":
        equal(os.stat(f"{place.run}/{name}").st_mode & 0o777, 0o600, f"mode of {name}")
    equal(os.stat(f"{place.run}/pods").st_mode & 0o777, 0o700, "mode of pods")


def http(place, text, wait=10):
    with socket.socket(socket.AF_UNIX) as s:
        s.settimeout(wait)
        s.connect(f"{place.run}/ctl.sock")
        s.sendall(text)
        out = b""
        while chunk := s.recv(65536):
            out += chunk
        return out


def post(path, body, length=None):
    return (f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body) if length is None else length}\r\n\r\n"
            f"{body}").encode()


WRONG = [
    ("GET /nowhere HTTP/1.1\r\nHost: x\r\n\r\n", 404),
    ("DELETE /v1/pods HTTP/1.1\r\nHost: x\r\n\r\n", 405),
    ("GET /v1/enrol HTTP/1.1\r\nHost: x\r\n\r\n", 405),
    ("GET /v1/operations?id=99 HTTP/1.1\r\nHost: x\r\n\r\n", 404),
    ("GET /v1/operations HTTP/1.1\r\nHost: x\r\n\r\n", 404),
    (post("/v1/enrol", ""), 400),
    (post("/v1/enrol", "{"), 400),
    (post("/v1/enrol", "[]"), 400),
    (post("/v1/enrol", "{}"), 400),
    (post("/v1/enrol", '{"netns": 1, "identity": 2}'), 400),
    (post("/v1/enrol", '{"netns": "/x"}'), 400),
    (post("/v1/enrol", json.dumps({"netns": "/" + "x" * 2000, "identity": "a/b/c"})), 400),
    (post("/v1/enrol", '{"netns": "/x", "netns": "/y", "identity": "a/b/c"}'), 400),
    (post("/v1/unenrol", '{"pod": null}'), 400),
    (post("/v1/log?level=loud", ""), 400),
    (post("/v1/log", ""), 400),
    (post("/v1/enrol", "x" * 100000), 413),
]


@rows("wrong-requests", ["bpf"])
def wrong_requests(place):
    for text, want in WRONG:
        raw = http(place, text if isinstance(text, bytes) else text.encode())
        got = int(raw.split(b" ", 2)[1])
        equal(got, want, f"status of {text[:60]!r}")
        if want not in (413,):
            check("error" in json.loads(raw.partition(b"\r\n\r\n")[2]), "no error in the answer")
    http(place, b"\x00\xff" * 100)
    place.answers()


@rows("slow-requests-block-nobody", ["bpf"])
def slow(place):
    with contextlib.ExitStack() as stack:
        for _ in range(20):
            s = stack.enter_context(socket.socket(socket.AF_UNIX))
            s.connect(f"{place.run}/ctl.sock")
            s.sendall(b"POST /v1/enrol HTTP/1.1\r\nContent-Length: 100\r\n\r\n{")
        at = time.monotonic()
        check(place.answers(), "no answer")
        check(time.monotonic() - at < 1.5, f"it took {time.monotonic() - at:.1f} s")


if __name__ == "__main__":
    T.main()
