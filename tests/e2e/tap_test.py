#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Taps: what each carrier carries is shown, with both identities, to root alone, and a reader holds nothing up."""
import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import time

sys.path.insert(0, os.path.dirname(__file__))
from lib import agents, pcapng, traffic
from lib.bed import pair
from lib.net import PATIENCE, read_exactly, sh
from lib.rows import FAMILIES, Table, check, equal, until
from lib.see import SINGLE, See, Tap

T = Table(__file__)
TAPS_MAX = 4

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
        T.row(f"shows-{name}/{'v6' if v6 else 'v4'}", See, v6, *how)(tapped)


@T.row("shows-no-other-peer", See)
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


@T.row("shows-a-refusal-with-its-reason", See)
def tapped_refusal(bed):
    with bed.tap("a1") as tap:
        traffic.dial_is_cut(bed.a1, "10.72.5.2", 80)
        e = tap.until("end", lambda e: e and e[-1]["event"] == "closed")[-1]
    equal(e["error"], "no healthy upstream", "the reason")


def rss(pid):
    with open(f"/proc/{pid}/status") as f:
        return next(int(x.split()[1]) for x in f if x.startswith("VmRSS:")) << 10


@T.row("that-nobody-reads-neither-slows-nor-grows-the-tunnel", See)
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


@T.row("begins-and-ends-in-the-log", See)
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


@T.row("is-in-the-log-whatever-its-level", See)
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


@T.row("is-for-root-alone", See)
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
    T.row(f"question-{name}", See, *row)(question)


@T.row("is-off-unless-it-is-allowed", See)
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
    check("incorrect" not in other and not re.search(r"\bbad\b", other) and "Flags [P.]" in other, other[:2000])


for v6 in FAMILIES:
    T.row(f"culvertctl-tap-writes-pcapng/{'v6' if v6 else 'v4'}", See, v6)(written)


@T.row("help-of-tap")
def helped():
    check(sh(agents.CULVERTCTL, "tap", "--help").startswith("culvertctl tap - "), "no help")


@T.row("that-is-busy-holds-up-no-end", See)
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


@T.row("after-an-upgrade", See)
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
