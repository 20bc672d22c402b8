#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Looking inside: taps show what connections carry, traces say what they would get, failures why some did not come about, and
a profile where the CPU time goes. The first node's tunnel allows taps, the second's does not."""
import base64
import contextlib
import gzip
import json
import os
import signal
import socket
import subprocess
import sys
import time

sys.path.insert(0, os.path.dirname(__file__))
from lib import agents, pcapng, traffic
from lib.bed import Bed, pair
from lib.ca import fields
from lib.mesh import Exact
from lib.net import PATIENCE, read_exactly, sh
from lib.rows import FAMILIES, Table, check, equal, until

T = Table(__file__)
GUARDED = "10.72.5.1"  # a service behind a waypoint, which is b2
SINGLE = "10.72.5.3", "fd72::5:3"  # one of b1 alone
TAPS_MAX = 4


class See(Bed):
    def __init__(self):
        super().__init__(("culvert", "culvert"), prepare=See.mesh_of)

    def mesh_of(self):
        self.mesh.policy("no-9001", "Deny", [[[{"destinationPorts": [9001]}]]], ["a2", "b1"])
        a2 = Exact(self.a2.spiffe.removeprefix("spiffe://"))
        self.mesh.policy("a2-only", "Allow", [[[{"principals": [a2]}]], [[{"destinationPorts": [80]}]]], ["b2"])
        self.mesh.service("single", SINGLE, {80: 8080}, ["b1"])
        self.mesh.service("guarded", [GUARDED], {80: 8080}, ["b1"],
                          waypoint={"destination": f"/{self.b2.ip4}", "hboneMtlsPort": 15008})
        self.mesh.service("empty", ["10.72.5.2"], {80: 8080}, [])

    def _serve(self, agent):
        if agent.node.index == 1:
            agent.env |= {"CULVERT_TAP": "true", "CONNECTION_TERMINATION_DEADLINE": "1s"}
        super()._serve(agent)
        if agent.node.index == 1:
            self.agent = agent

    def tap(self, pod, peer=""):
        return Tap(f"{self.agent.run_dir}/tap.sock", {"pod": pod, "peer": peer})


class Tap:
    """Lines of a tap. `hello` is the first one."""

    def __init__(self, path, question):
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.settimeout(PATIENCE)
        self.socket.connect(path)
        self.buffer, self.events = b"", []
        with contextlib.suppress(BrokenPipeError):  # refused before it has asked
            self.socket.sendall(question if isinstance(question, bytes) else json.dumps(question).encode() + b"\n")
        self.hello = self.line()

    def line(self):
        while b"\n" not in self.buffer:
            chunk = self.socket.recv(1 << 18)
            if not chunk:
                raise ConnectionError("the tap has ended")
            self.buffer += chunk
        line, _, self.buffer = self.buffer.partition(b"\n")
        return json.loads(line)

    def until(self, what, found):
        """Reads on until found(events so far); the events."""
        while not found(self.events):
            try:
                self.events.append(self.line())
            except TimeoutError:
                raise AssertionError(f"no {what}; there were {[brief(e) for e in self.events]}") from None
        return self.events

    def data(self, to):
        return b"".join(base64.b64decode(e["data"]) for e in self.events if e["event"] == "data" and e["to"] == to)

    def close(self):
        self.socket.close()

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self.close()


def brief(e):
    return f"{e['event']} {e.get('connection')} {e.get('to', '')} {e.get('length', '')}".strip()


# --- taps ------------------------------------------------------------------------------------------------------------

# name: (tapped pod, its client, its server, the server's port and address, protocol, who has an identity)
CARRIERS = {
    "outbound-hbone": ("a1", "a1", "b1", None, "HBONE"),
    "inbound-hbone": ("a1", "b1", "a1", None, "HBONE"),
    "outbound-same-node": ("a1", "a1", "a2", None, "local"),
    "inbound-same-node": ("a2", "a1", "a2", None, "local"),
    "inbound-plaintext": ("a1", "u1", "a1", None, "TCP"),
    "outbound-passthrough": ("a1", "a1", "u1", None, "TCP"),
    "outbound-service": ("a1", "a1", "b1", SINGLE, "HBONE"),
}
TO_SERVER, TO_CLIENT = b"hello mesh!", b"\x00binary \xff" + b"hello client!" * 300


def end_named(e, pod, identity):
    """As the mesh knows the pod: of those outside it there is only the address."""
    return (e.get("workload"), e.get("identity")) == (f"default/{pod.name}" if pod.mesh else None, pod.spiffe if identity else None)


def tapped(bed, v6, tapped_pod, client, server, vips, protocol):
    """Bytes of both directions, and both identities."""
    client = bed.pod[client]
    with contextlib.ExitStack() as stack:
        tap = stack.enter_context(bed.tap(f"default/{tapped_pod}"))
        equal(tap.hello["tap"]["pod"]["name"], tapped_pod, "the pod")
        server = bed.pod[server]
        own = stack.enter_context(server.listen(8080))
        c = stack.enter_context(client.connect(vips[v6], 80) if vips else client.connect(server.ip(v6), 8080))
        s = stack.enter_context(own.accept()[0])
        s.settimeout(PATIENCE)
        port = c.getsockname()[1]
        c.sendall(TO_SERVER)
        equal(read_exactly(s, len(TO_SERVER)), TO_SERVER, "the server read")
        s.sendall(TO_CLIENT)
        equal(read_exactly(c, len(TO_CLIENT)), TO_CLIENT, "the client read")
        tap.until("bytes of both directions", lambda e: len(tap.data("server")) >= len(TO_SERVER)
                  and len(tap.data("client")) >= len(TO_CLIENT))
        equal((tap.data("server"), tap.data("client")), (TO_SERVER, TO_CLIENT), "what was shown")
        c.close()
        s.close()
        tap.until("end", lambda e: e and e[-1]["event"] == "closed")
    check({e["connection"] for e in tap.events} == {tap.events[0]["connection"]}, "several connections")
    mutual = protocol != "TCP"
    for e in tap.events:
        equal(e["protocol"], protocol, "protocol")
        equal(e["direction"], "outbound" if client.name == tapped_pod else "inbound", "direction")
        check(end_named(e["client"], client, mutual), lambda: f"the client: {e['client']}")
        check(end_named(e["server"], server, mutual), lambda: f"the server: {e['server']}")
        if protocol != "HBONE" or e["direction"] == "outbound":  # else it is a port of the other node's agent
            check(e["client"]["address"].endswith(f":{port}"), lambda: f"the client's port: {e['client']}")
        check(abs(e["time"] / 1e6 - time.time()) < 60, lambda: f"the time: {e['time']}")
    last = tap.events[-1]
    equal((last["received"], last["sent"], last.get("error")), (len(TO_SERVER), len(TO_CLIENT), None), "the end")


for name, how in CARRIERS.items():
    for v6 in FAMILIES:
        T.row(f"tap-shows-{name}/{'v6' if v6 else 'v4'}", See, v6, *how)(tapped)


@T.row("tap-shows-no-other-peer", See)
def other_peer(bed):
    with bed.tap("a1", "default/b2") as tap, bed.tap("a1", bed.b1.spiffe) as right:
        with pair(bed.a1, bed.b1) as (c, s):
            traffic.echo(c, s)
        right.until("end", lambda e: e and e[-1]["event"] == "closed")
        tap.socket.settimeout(0.2)
        try:
            raise AssertionError(f"it was shown {tap.line()}")
        except TimeoutError:
            pass


@T.row("tap-shows-a-refusal-with-its-reason", See)
def tapped_refusal(bed):
    with bed.tap("a1") as tap:
        traffic.dial_is_cut(bed.a1, "10.72.5.2", 80)
        e = tap.until("end", lambda e: e and e[-1]["event"] == "closed")[-1]
    equal(e["error"], "no healthy upstream", "the reason")


def rss(pid):
    with open(f"/proc/{pid}/status") as f:
        return next(int(x.split()[1]) for x in f if x.startswith("VmRSS:")) << 10


@T.row("tap-that-nobody-reads-neither-slows-nor-grows-the-tunnel", See)
def stalled(bed):
    def transfer():
        with pair(bed.a1, bed.b1) as (c, s):
            start = time.monotonic()
            traffic.bulk_both_ways(c, s)
            return time.monotonic() - start

    transfer()
    alone, pid = min(transfer() for _ in range(2)), bed.agent.tunnel_pid()
    with bed.tap("a1") as tap:
        before = rss(pid)
        with_tap = min(transfer() for _ in range(2))
        grown = rss(pid) - before
        check(with_tap < 3 * alone + 0.5, f"{with_tap:.2f} s, without a tap {alone:.2f} s")
        check(agents.sanitized() or grown < 16 << 20, f"it grew by {grown >> 10} KiB")
        lost = tap.until("word of what was lost", lambda e: e and e[-1]["event"] == "lost")[-1]
        check(lost["records"] > 0 and lost["bytes"] > 1 << 20, lambda: f"lost: {lost}")
        at = {}
        for e in (e for e in tap.events if e["event"] == "data" and e["to"] == "server"):
            check(e["received"] >= at.get(e["connection"], 0), "offsets run back")
            at[e["connection"]] = e["received"] + e["length"]


@T.row("tap-begins-and-ends-in-the-log", See)
def audited(bed):
    since, fds = len(bed.agent.log()), bed.agent.fds()
    with bed.tap("a1", "b1") as tap:
        until(lambda: audit_lines(bed, since, "a tap begins", "b1"), "the line")
        with pair(bed.a1, bed.b1) as (c, s):
            traffic.echo(c, s)
        tap.until("end", lambda e: e and e[-1]["event"] == "closed")
    end = until(lambda: audit_lines(bed, since, "a tap ends", "b1"), "the line")[0]
    begin = audit_lines(bed, since, "a tap begins", "b1")[0]
    for line in begin, end:
        equal((line["pod"], line["namespace"], line["peer"], line["by.uid"], line["by.pid"], line["level"]),
              ("a1", "default", "b1", 0, os.getpid(), "warn"), "the line")
    check(end["reason"] == "the reader has gone" and end["bytes"] == 33 and end["lost_records"] == 0, f"{end}")
    with bed.tap("a1"):
        pass  # joins the thread before
    until(lambda: bed.agent.fds() <= fds + 2, "its descriptors to be closed")


@T.row("tap-is-in-the-log-whatever-its-level", See)
def audited_always(bed):
    since = len(bed.agent.log())
    bed.agent.http(15000, "/logging?level=off", "POST")
    try:
        bed.tap("a1").close()
        until(lambda: audit_lines(bed, since, "a tap ends"), "the line")
    finally:
        bed.agent.http(15000, "/logging?reset", "POST")


def audit_lines(bed, since, message, peer=None):
    return [x for x in bed.agent.lines(since) if x.get("scope") == "tap" and x.get("message") == message
            and (not peer or x.get("peer") == peer)]


AS_NOBODY = """
import os, socket, sys
os.setgid(65534); os.setuid(65534)
s = socket.socket(socket.AF_UNIX)
try:
    s.connect(sys.argv[1])
    try:
        s.sendall(b'{"pod": "a1"}\\n')
    except BrokenPipeError:
        pass  # it was answered before it asked
    print(s.recv(4096).decode())
except PermissionError:
    print("permission denied")
"""


@T.row("tap-is-for-root-alone", See)
def not_root(bed):
    path, since = f"{bed.agent.run_dir}/tap.sock", len(bed.agent.log())
    folders = [bed.folder, bed.agent.run_dir]
    modes = [os.stat(f).st_mode for f in folders]
    equal(os.stat(path).st_mode & 0o777, 0o600, "mode")
    try:
        for f in folders:
            os.chmod(f, 0o755)
        run = [sys.executable, "-c", AS_NOBODY, path]
        equal(sh(*run).strip(), "permission denied", "by the socket's mode")
        os.chmod(path, 0o666)
        equal(json.loads(sh(*run)), {"error": "only root may tap"}, "by who asks")
    finally:
        os.chmod(path, 0o600)
        for f, m in zip(folders, modes):
            os.chmod(f, m & 0o777)
    until(lambda: [x for x in bed.agent.lines(since) if "of user 65534: only root may" in x.get("message", "")], "the line")


@T.row("taps-are-so-many-at-once", See)
def limit(bed):
    with contextlib.ExitStack() as stack:
        for _ in range(TAPS_MAX):
            check("tap" in stack.enter_context(bed.tap("a1")).hello, "no tap")
        refused = stack.enter_context(bed.tap("a1")).hello
        check("as many taps as may be" in refused.get("error", ""), f"{refused}")
    until(lambda: "tap" in bed.tap("a1").hello, "room for another")


QUESTIONS = {
    "no-such-pod": (b'{"pod": "b1"}\n', "no pod of that name is on this node"),
    "no-pod": (b'{"peer": "b1"}\n', "the question is"),
    "a-number": (b'{"pod": 1}\n', "the question is"),
    "no-json": (b"a1\n", "the question is"),
    "a-peer-of-600-bytes": (b'{"pod": "a1", "peer": "' + b"x" * 600 + b'"}\n', "the peer's name is too long"),
    "a-pod-of-600-bytes": (b'{"pod": "' + b"x" * 600 + b'"}\n', "the pod's name is too long"),
    "too-long": (b'{"pod": "a1", "peer": "' + b"x" * 1100, "too long"),
    "silence": (b'{"pod": "a1"', "no question came in time"),
}


def question(bed, text, error):
    with Tap(f"{bed.agent.run_dir}/tap.sock", text) as tap:
        check(error in tap.hello.get("error", ""), lambda: f"{tap.hello}")


for name, row in QUESTIONS.items():
    T.row(f"tap-question-{name}", See, *row)(question)


@T.row("tap-is-off-unless-it-is-allowed", See)
def off(bed):
    agent = bed.b1.node.agent
    check(not os.path.exists(f"{agent.run_dir}/tap.sock"), "there is a socket")
    r = subprocess.run([agents.CULVERTCTL, "tap", "b1"], env=agent.env, capture_output=True, text=True, timeout=20)
    check(r.returncode == 1 and "CULVERT_TAP=true" in r.stderr, f"{r}")


@contextlib.contextmanager
def culvertctl(bed, *argv):
    """A tap of culvertctl's, under way; its output is read by communicate() after ^C."""
    since = len(bed.agent.log())
    p = subprocess.Popen([agents.CULVERTCTL, "tap", *argv], env=bed.agent.env, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    try:
        until(lambda: p.poll() is not None or audit_lines(bed, since, "a tap begins"), "the tap to begin")
        yield p
    finally:
        if p.poll() is None:
            p.kill()
        p.communicate()


@T.row("culvertctl-tap-for-people", See)
def for_people(bed):
    with culvertctl(bed, "a1", "--peer", "b1") as p:
        with pair(bed.a1, bed.b1) as (c, s):
            c.sendall(b"GET / HTTP/1.1\r\n\r\n")
            s.recv(100)
            s.sendall(b"\x1b[2J\x00\xff")
            c.recv(100)
        text = b""
        while b"closed after 18 and 6 bytes" not in text:
            line = p.stdout.readline()
            check(line, lambda: f"it has ended: {text} {p.stderr.read()}")
            text += line
    text = text.decode()
    for want in ("tapping default/a1", f"{bed.a1.spiffe} -> {bed.b1.ip4}:8080 {bed.b1.spiffe} 18 bytes at 0\nGET / HTTP/1.1\n",
                 " <- ", "000000  1b 5b 32 4a 00 ff", ".[2J.."):
        check(want in text, f"no {want!r} in {text}")
    check("\x1b" not in text, "a control character came through")


@T.row("culvertctl-tap-json", See)
def for_programs(bed):
    with culvertctl(bed, "a1", "--json") as p:
        with pair(bed.a1, bed.b1) as (c, s):
            traffic.echo(c, s)
        events = []
        while not events or events[-1].get("event") != "closed":
            events.append(json.loads(p.stdout.readline()))
    equal([e.get("event") for e in events], [None, "opened", "data", "data", "closed"], "events")


def written(bed, v6):
    """Both streams, byte for byte, and both identities in the comments."""
    path = f"{bed.folder}/tap-{v6}.pcapng"
    payload = traffic.random_bytes(3 << 20)
    with culvertctl(bed, "default/a1", "--write", path) as p:
        with pair(bed.a1, bed.b1, v6=v6) as (c, s):
            port = c.getsockname()[1]
            c.sendall(b"ask\n")
            s.recv(4)
            chunks = [bytes(payload[i:i + 30000]) for i in range(0, 300000, 30000)]
            for chunk in chunks:  # slowly: all of it is wanted
                s.sendall(chunk)
                equal(read_exactly(c, len(chunk)) == chunk, True, "the client read")
                time.sleep(0.005)
        until(lambda: pcapng.whole(path) and pcapng.read(path)[1][-1].flags & pcapng.FIN, "the end in the file")
        equal(p.poll(), None, "culvertctl's end")
    name, packets = pcapng.read(path)
    equal(name, "default/a1", "the interface")
    equal(pcapng.streams(packets), {((bed.a1.ip(v6), port), (bed.b1.ip(v6), 8080)): (b"ask\n", b"".join(chunks))}, "streams")
    for x in packets:
        check(bed.a1.spiffe in x.comment and bed.b1.spiffe in x.comment, x.comment)
    equal(os.stat(path).st_mode & 0o777, 0o600, "the file's mode")
    other = sh("tcpdump", "-nn", "-vv", "-r", path)  # another reader
    check("incorrect" not in other and "bad" not in other and "Flags [P.]" in other, other[:2000])


for v6 in FAMILIES:
    T.row(f"culvertctl-tap-writes-pcapng/{'v6' if v6 else 'v4'}", See, v6)(written)


# --- traces ---------------------------------------------------------------------------------------------------------

# name: (source, what is asked for, the address that is dialled, port, who listens where, outcome, part of the reason, a step)
TRACES = {
    "allowed": ("a1", "b1", "b1", 8080, ("b1", 8080), "carried", "", "application"),
    "allowed-by-address": ("a1", None, "b1", 8080, ("b1", 8080), "carried", "", "policy"),
    "denied": ("a1", "default/b1", "b1", 9001, ("b1", 9001), "denied", "explicitly denied by: default/no-9001", "policy"),
    "not-allowed": ("a1", "b2", "b2", 8080, ("b2", 8080), "denied", "none allowed", "policy"),
    "allowed-by-name": ("a2", "b2", "b2", 8080, ("b2", 8080), "carried", "", "policy"),
    "same-node": ("a1", "a2", "a2", 8080, ("a2", 8080), "carried", "", "carrier"),
    "same-node-denied": ("a1", "a2", "a2", 9001, ("a2", 9001), "denied", "no-9001", "policy"),
    "passthrough": ("a1", None, "u1", 8080, ("u1", 8080), "carried", "", "protocol"),
    "waypoint": ("a1", "guarded", GUARDED, 80, ("b2", 80), "carried", "", "waypoint"),
    "no-endpoint": ("a1", "empty", "10.72.5.2", 80, None, "refused", "no healthy upstream", "endpoint"),
}


def trace(bed, source, to, port):
    return json.loads(bed.agent.ctl("trace", source, to, str(port), "--json"))


def traced(bed, source, asked, dialled, port, listener, outcome, reason, topic):
    """What the trace says, and then what a connection gets."""
    source = bed.pod[source]
    ip = bed.pod[dialled].ip4 if dialled in bed.pod else dialled
    said = trace(bed, source.name, asked or ip, port)
    equal((said["outcome"], said["destination"], said["source"]["local"]), (outcome, f"{ip}:{port}", True), "the trace")
    check(reason in said.get("reason", ""), lambda: f"the reason: {said['reason']}")
    check(any(x["topic"] == topic for x in said["steps"]), lambda: f"no step about the {topic}: {said['steps']}")
    since = len(bed.agent.log())
    if outcome != "carried":
        with contextlib.ExitStack() as stack:
            if listener:
                stack.enter_context(bed.pod[listener[0]].listen(listener[1]))
            traffic.dial_is_cut(source, ip, port)
        if outcome == "denied":
            there = bed.pod[listener[0]].node.agent
            until(lambda: [x for x in there.access(direction="inbound") if said["reason"] in x.get("error", "")],
                  "the same reason in the log")
        return
    with contextlib.ExitStack() as stack:
        own = stack.enter_context(bed.pod[listener[0]].listen(listener[1]))
        c = stack.enter_context(source.connect(ip, port))
        s = stack.enter_context(own.accept()[0])
        s.settimeout(PATIENCE)
        traffic.echo(c, s)
        client = f"{source.ip4}:{c.getsockname()[1]}"
    line = until(lambda: bed.agent.access(since, direction="outbound", src_addr=client), "the access line")[0]
    equal(line["dst.addr"], said["route"]["nextHop"], "next hop")
    equal(line.get("dst.hbone_addr"), said["route"].get("authority"), "authority")
    if said["route"]["identities"]:
        equal(line["dst.identity"], said["route"]["identities"][0], "identity")
    if said["route"]["kind"] == "hbone":
        after = trace(bed, source.name, asked or ip, port)
        equal((after["certificate"]["identity"], after["certificate"]["state"]), (source.spiffe, "Available"), "certificate")
        check(after["certificate"]["expirationTime"] > time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()), "expiry")


for name, row in TRACES.items():
    T.row(f"trace-is-what-a-connection-gets/{name}", See, *row)(traced)


@T.row("trace-of-a-pod-elsewhere", See)
def elsewhere(bed):
    said = trace(bed, "default/b1", bed.a1.ip4, 8080)
    equal((said["outcome"], said["source"]["local"], said["route"]["nextHop"]), ("carried", False, f"{bed.a1.ip4}:15008"), "said")
    check(any("its own node has its certificate" in x["text"] for x in said["steps"]), f"{said['steps']}")


@T.row("trace-for-people", See)
def trace_text(bed):
    text = bed.agent.ctl("trace", "a1", "single", "80")
    for want in (f"from          default/a1 on node {bed.a1.node.name}, a pod of this node", f"to            {SINGLE[0]}:80",
                 "endpoint      ", "outcome       carried"):
        check(want in text, f"no {want!r} in {text}")
    text = bed.agent.ctl("trace", "a1", "b1", "9001")
    check("policy        DENY default/no-9001: rule 1 of 1 matches" in text, text)
    check("outcome       denied: explicitly denied by: default/no-9001 (flag DENY)" in text, text)


WRONG = {
    "no-such-source": (("nobody", "web", "80"), "no pod, no workload is called nobody"),
    "no-such-destination": (("a1", "no.such/thing", "80"), "nothing in the mesh is called no.such/thing"),
    "no-port": (("a1", "web", "http"), '"http" is no port'),
}


def wrong(bed, argv, error):
    r = subprocess.run([agents.CULVERTCTL, "trace", *argv], env=bed.agent.env, capture_output=True, text=True, timeout=20)
    check(r.returncode == 1 and error in r.stderr, f"{r}")


for name, row in WRONG.items():
    T.row(f"trace-question-{name}", See, *row)(wrong)


# --- failures -------------------------------------------------------------------------------------------------------


def failures(agent, *argv):
    return json.loads(agent.ctl("failures", *argv, "--json"))["failures"]


@T.row("failures-have-their-reason-on-both-nodes", See)
def failed(bed):
    with bed.b1.listen(9001):
        traffic.dial_is_cut(bed.a1, bed.b1.ip4, 9001)
    traffic.dial_is_cut(bed.a1, "10.72.5.2", 80)

    def there(agent, **want):
        return [f for f in failures(agent) if all(f.get(k) == v for k, v in want.items())]

    denied = until(lambda: there(bed.b1.node.agent, flag="DENY", direction="inbound", destination=f"{bed.b1.ip4}:9001"),
                   "the denial at the server's node")[-1]
    equal((denied["reason"], denied["sourceIdentity"], denied["pod"]),
          ("explicitly denied by: default/no-9001", bed.a1.spiffe, {"name": "b1", "namespace": "default"}), "the denial")
    seen = until(lambda: there(bed.agent, destination=f"{bed.b1.ip4}:9001", direction="outbound"), "at the client's node")[-1]
    equal((seen["reason"], seen["flag"]), ("http status: 401", "CONNECT"), "there")
    lost = until(lambda: there(bed.agent, destination="10.72.5.2:80"), "the refusal")[-1]
    equal((lost["reason"], lost["pod"]["name"]), ("no healthy upstream", "a1"), "the refusal")
    equal([f for f in failures(bed.agent, "--pod", "default/a2") if f["pod"]["name"] != "a2"], [], "of another pod")
    check(failures(bed.agent, "--pod=a1", "--since", "10m"), "none of ten minutes")
    time.sleep(1.1)
    equal(failures(bed.agent, "--since", "0s"), [], "none is that young")
    text = bed.agent.ctl("failures", "--pod", "a1")
    check(text.startswith("TIME") and "no healthy upstream" in text, text)


@T.row("failures-are-so-many", See)
def failures_bounded(bed):
    before = json.loads(bed.agent.ctl("failures", "--json"))
    for _ in range(30):
        traffic.dial_is_cut(bed.a1, "10.72.5.2", 80)
    after = until(lambda: (lambda a: a if a["seen"] >= before["seen"] + 30 else None)(json.loads(bed.agent.ctl("failures", "--json"))),
                  "30 more")
    check(after["kept"] == min(after["seen"], after["kept"]) and after["kept"] <= 1024, f"{after['kept']} of {after['seen']}")
    times = [f["time"] for f in after["failures"]]
    equal(times, sorted(times), "the order")


# --- profile --------------------------------------------------------------------------------------------------------


@T.row("profile-names-functions", See)
def profile(bed):
    with pair(bed.a1, bed.b1) as (c, s):
        done = False

        def load():
            while not done:
                c.sendall(bytes(1 << 16))

        def drain():
            while s.recv(1 << 18):
                pass

        tasks = [traffic.Task(load), traffic.Task(drain)]
        status, body = bed.agent.http(15000, "/debug/pprof/profile?seconds=2", timeout=20)
        done = True
        tasks[0].result()
        c.close()
        tasks[1].result()
    equal(status, 200, "status")
    parts = list(fields(gzip.decompress(body)))
    strings = [v.decode() for k, v in parts if k == 6]
    equal(strings[0], "", "the first text")
    check({"samples", "count", "cpu", "nanoseconds"} <= set(strings), "kinds of values")
    n = len([1 for k, _ in parts if k == 2])
    check(n > 5, f"{n} stacks")
    check(any(x.startswith(("h2_", "record_", "aead_", "serve_")) for x in strings), lambda: f"no function of ours: {strings}")
    check(any(x.endswith("/culvert-tunnel") for x in strings), "the program's file")


@T.row("profile-one-at-a-time", See)
def profile_busy(bed):
    both = [traffic.Task(bed.agent.http, 15000, "/debug/pprof/profile?seconds=2", "GET", (), 20) for _ in range(2)]
    equal(sorted(t.result()[0] for t in both), [200, 409], "statuses")


# --- the tool -------------------------------------------------------------------------------------------------------

for command in "tap", "trace", "failures":
    def helped(name=command):
        text = sh(agents.CULVERTCTL, name, "--help")
        check(text.startswith(f"culvertctl {name} - "), text)
        check(f"culvertctl {name}" in sh(agents.CULVERTCTL, "--help"), "not in the list")

    T.row(f"help-of-{command}")(helped)


@T.row("tap-that-is-busy-holds-up-no-end", See)
def busy_end(bed):
    """The tunnel ends, and is started anew, though a connection never rests and a reader takes all of it."""
    pid = bed.agent.tunnel_pid()
    with bed.tap("a1") as tap, pair(bed.a1, bed.b1) as (c, s):
        def swallow(x):
            with contextlib.suppress(OSError):
                while x.recv(1 << 18):
                    pass

        def flood():
            with contextlib.suppress(OSError):
                while True:
                    c.sendall(bytes(1 << 16))

        tasks = [traffic.Task(swallow, tap.socket), traffic.Task(swallow, s), traffic.Task(flood)]
        os.kill(pid, signal.SIGTERM)
        until(lambda: not os.path.exists(f"/proc/{pid}"), "the tunnel to end", 6)
        for t in tasks:
            t.result(10)
    until(bed.agent.ready, "the next tunnel", 20)


@T.row("tap-after-an-upgrade", See)
def upgraded(bed):
    """Last: the new tunnel has the socket, an old tap goes on with what the old tunnel carries."""
    with bed.tap("a1") as old, pair(bed.a1, bed.b1) as (c, s):
        traffic.echo(c, s)
        bed.agent.ctl("upgrade")
        old.events.clear()
        traffic.echo(c, s)
        old.until("what the old tunnel carries", lambda e: len(old.data("client")) >= 22)
        with bed.tap("a1") as new:
            with pair(bed.a1, bed.b1, port=8081) as (c2, s2):
                traffic.echo(c2, s2)
            new.until("what the new tunnel carries", lambda e: e and e[-1]["event"] == "closed")


if __name__ == "__main__":
    T.main()
