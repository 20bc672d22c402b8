#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The CNI plugin and the keeper's socket for it: pods are steered before ADD is answered, whatever fails leaves nothing
behind, and without the keeper no pod starts of which it is not known that it is outside the mesh. Namespaces are made by
hand, and the tunnel is played; cni_runtime_test.py does it with containerd."""
import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time

sys.path.insert(0, os.path.dirname(__file__))
from keeper_test import ADD, DEL
from lib import cni
from lib.cni import OUTSIDE, Sandbox
from lib.net import folder, sh
from lib.rows import Table, check, equal, until

T = Table(__file__)
AGAIN, PREFIX = 11, "cmdAdd failed to contact node Istio CNI agent"


def rows(name, some=("bpf",)):
    """Every row has a keeper of its own."""

    def add(fn):
        for steering in some:
            T.row(f"{steering}/{name}", lambda s=steering: cni.CniPlace(s))(fn)
        return fn

    return add


def ask(place, path, body):
    """What the keeper answers to a request by hand: (status, text)."""
    with contextlib.closing(socket.socket(socket.AF_UNIX)) as s:
        s.settimeout(10)
        s.connect(f"{place.run}/cni.sock")
        body = body if isinstance(body, bytes) else json.dumps(body).encode()
        s.sendall(b"POST %s HTTP/1.1\r\nHost: unix\r\nContent-Length: %d\r\n\r\n" % (path.encode(), len(body)) + body)
        raw = b""
        while chunk := s.recv(65536):
            raw += chunk
    head, _, text = raw.partition(b"\r\n\r\n")
    return int(head.split(b" ")[1]), text.decode().strip()


def record(place, sandbox):
    with open(f"{place.run}/pods/{sandbox.uid}.json") as f:
        return json.load(f)


def told(t, *want):
    """What the tunnel was told, in this order; it writes it down after it has answered."""
    until(lambda: len(t.told) >= len(want), "the tunnel to be told")
    equal(t.told, list(want), "what the tunnel was told")


# --- ADD -----------------------------------------------------------------------------------------------------------


@rows("add-steers-before-it-answers", ("bpf", "iptables"))
def add_steers(place):
    t, s = place.willing(), Sandbox(place.pod, "c1")
    equal(cni.run("ADD", s, place.conf()), (0, s.previous()), "ADD")
    check(place.steered(), "not steered")
    told(t, (ADD, s.uid))
    pod = place.pods()["a1"]
    equal((pod["state"], pod["uid"], pod["serviceAccount"]), ("enrolled", s.uid, "default"), "the pod")
    equal([record(place, s)[k] for k in ("containerId", "interface", "network")], ["c1", "eth0", "net"], "record")
    equal(cni.run("ADD", s, place.conf()), (0, s.previous()), "the same again")
    told(t, (ADD, s.uid))


@rows("add-is-done-with-versions")
def versions(place):
    place.willing()
    for i, version in enumerate(("0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0")):
        s = Sandbox(place.pod, f"c{i}")
        equal(cni.run("ADD", s, place.conf(cniVersion=version)), (0, s.previous(version)), version)
        equal(record(place, s)["containerId"], f"c{i}", "record")


@rows("outside-the-mesh-nothing-happens")
def outside(place):
    t = place.willing()
    s = Sandbox(place.pod, "c1", namespace=OUTSIDE)
    equal(cni.run("ADD", s, place.conf()), (0, s.previous()), "ADD")
    equal(cni.run("CHECK", s, place.conf()), (0, ""), "CHECK")
    equal(cni.run("DEL", s, place.conf()), (0, ""), "DEL")
    equal(t.told, [], "what the tunnel was told")
    place.untouched()


@rows("pods-that-need-no-keeper")
def exempt(place):
    """With nobody at the socket."""
    nobody = place.conf(cni_socket="/nowhere/cni.sock", pod_namespace="istio-system", exclude_namespaces=["free"])
    for namespace, name, want in (("istio-system", "istio-cni-node-x7k2p", 0), ("free", "web", 0), ("", "", 0),
                                  ("istio-system", "ztunnel-x7k2p", AGAIN), ("other", "istio-cni-node-x", AGAIN)):
        s = Sandbox(place.pod, "c1", namespace=namespace, name=name or " ")
        env = {"CNI_ARGS": ""} if not name else {}
        code, text = cni.run("ADD", s, nobody, env=env)
        equal(code, want, f"{namespace}/{name}: {text}")
    equal(cni.run("ADD", Sandbox(place.pod, "c1"), nobody | {"ambient_enabled": False})[0], 0, "ambient is off")


@rows("istios-plugin-is-served-as-well")
def istios_plugin(place):
    place.willing()
    event = {"Netns": f"/run/netns/{place.pod.ns}", "PodName": "a1", "PodNamespace": "default",
             "IPs": [{"Interface": 2, "Address": {"IP": "10.1.2.3", "Mask": "/////w=="}, "Gateway": ""}]}
    equal(ask(place, "/cmdadd", event | {"PodNamespace": OUTSIDE}), (403, "pod outside/a1 is outside the mesh"), "outside")
    equal(ask(place, "/cmdadd", {k.upper(): v for k, v in event.items()}), (200, ""), "keys as Go takes them")
    check(place.steered(), "not steered")
    equal(place.pods()["a1"]["state"], "enrolled", "state")


WRONG = [
    (b"", 400), (b"[]", 400), (b"{", 400), (b"\xff", 400), (b"{}", 400), (b'{"PodName":1}', 400),
    (b'{"PodName":"a","PodNamespace":"b","Netns":"relative"}', 400),
    (b'{"PodName":"a","PodNamespace":"b","Netns":"/x","PodUID":"../../etc"}', 400),
    (b'{"PodName":"a","PodNamespace":"b","Netns":"/x","IPs":[{}]}', 400),
    (b'{"PodName":"a","PodNamespace":"b","Netns":"/nowhere"}', 503),
    (b'{"PodName":"a","PodNamespace":"b","Netns":"/etc/passwd"}', 409),
    (b'{"PodName":"A_","PodNamespace":"b","Netns":"/etc/passwd"}', 409),
    (b'{"PodName":"a","PodNamespace":"b","Netns":"/proc/self/ns/net"}', 409),
    (b'{"PodName":"a","PodNamespace":"b","Netns":"/proc/self/ns/mnt"}', 409),
    (b'{"PodName":"a","PodNamespace":"b","Netns":"' + b"/x" * 2000 + b'"}', 400),
    (b'{"a":' * 3000, 400),
]


@rows("wrong-requests-are-refused")
def wrong(place):
    place.willing()
    for body, want in WRONG:
        status, text = ask(place, "/cmdadd", body)
        equal(status, want, f"{body[:60]!r}: {text}")
        check(text and "\n" not in text, f"{body[:60]!r}: {text!r}")
    equal(ask(place, "/v1/nothing", {})[0], 404, "another path")
    with folder("e2e-cni") as f:
        os.mkfifo(f"{f}/fifo")
        equal(ask(place, "/cmdadd", {"PodName": "a", "PodNamespace": "b", "Netns": f"{f}/fifo"})[0], 409, "a FIFO")
    place.untouched()


@rows("add-fails-without-a-tunnel-and-leaves-nothing", ("bpf", "iptables"))
def no_tunnel(place):
    at = time.monotonic()
    code, text = cni.run("ADD", Sandbox(place.pod, "c1"), place.conf())
    check(code == AGAIN and text.startswith(PREFIX) and "no tunnel is connected" in text, f"{code}: {text}")
    check(time.monotonic() - at < 5, f"it took {time.monotonic() - at:.1f} s")
    place.untouched()


@rows("add-fails-when-the-tunnel-is-silent-and-leaves-nothing", ("bpf", "iptables"))
def silent_tunnel(place):
    with place.tunnel() as t:
        t.snapshot()
        at = time.monotonic()
        p = cni.begin("ADD", Sandbox(place.pod, "c1"), place.conf())
        equal(t.next(answer=None)[0], ADD, "request")
        code, text = cni.end(p)
        check(code == AGAIN and text.startswith(PREFIX), f"{code}: {text}")
        check(time.monotonic() - at < 5, f"it took {time.monotonic() - at:.1f} s")
        until(lambda: not place.steered() or None, "the steering to go")
    until(lambda: "a1" not in place.pods(), "the pod to go")
    place.untouched()


@rows("add-fails-when-the-tunnel-refuses-and-leaves-nothing", ("bpf", "iptables"))
def refusing_tunnel(place):
    with place.tunnel() as t:
        t.snapshot()
        p = cni.begin("ADD", Sandbox(place.pod, "c1"), place.conf())
        equal(t.next(answer="not this one")[0], ADD, "request")
        kind, uid = t.next()
        equal(kind, DEL, "request")
        t.forget(uid)
        code, text = cni.end(p)
        check(code == AGAIN and "not this one" in text, f"{code}: {text}")
        place.untouched()


@rows("a-tunnel-that-comes-in-time-is-waited-for")
def late_tunnel(place):
    p = cni.begin("ADD", Sandbox(place.pod, "c1"), place.conf())
    until(lambda: place.pods()["a1"]["state"] == "joining", "the pod to wait")
    place.willing()
    equal(cni.end(p)[0], 0, "ADD")
    check(place.steered(), "not steered")


@rows("add-where-lo-is-down", ("bpf", "iptables"))
def lo_down(place):
    place.willing()
    with contextlib.closing(cni.Bare(place.pod.ns, 1)) as bare:
        s = Sandbox(bare, "c1")
        equal(cni.run("ADD", s, place.conf())[0], 0, "ADD")
        equal(cni.run("CHECK", s, place.conf()), (0, ""), "CHECK")
        equal(cni.run("DEL", s, place.conf()), (0, ""), "DEL")


@rows("twenty-adds-at-once")
def twenty(place):
    """On a busy machine some are told in time to try again, as the kubelet does; none is left without an answer."""
    t = place.willing()
    with contextlib.ExitStack() as stack:
        pods = [stack.enter_context(contextlib.closing(cni.Bare(place.pod.ns, i))) for i in range(20)]
        sandboxes = [Sandbox(p, f"c{i}") for i, p in enumerate(pods)]
        at, left, again = time.monotonic(), sandboxes, 0
        while left:
            answers = [(s, cni.end(p)) for s, p in [(s, cni.begin("ADD", s, place.conf())) for s in left]]
            equal([a for _, a in answers if a[0] and (a[0] != AGAIN or "status 503" not in a[1])], [], "answers")
            check(len(left) > sum(a[0] != 0 for _, a in answers), "none of them was added")
            left = [s for s, a in answers if a[0]]
            again += len(left)
        took = time.monotonic() - at
        for p in pods:
            check("0x111" in p.run("ip", "rule"), f"{p.ns} is not steered")
        until(lambda: set(t.added()) == {s.uid for s in sandboxes}, "the tunnel to know all")
        running = [cni.begin("DEL", s, place.conf()) for s in sandboxes]
        equal([cni.end(p) for p in running], [(0, "")] * 20, "DELs")
        until(lambda: not place.pods(), "the pods to go")
        equal(os.listdir(f"{place.bpf}/v1"), [], "pins")
        print(f"#   20 ADDs at once in {took * 1000:.0f} ms, {again} tried again")


@rows("requests-that-never-end-block-nobody")
def slow(place):
    place.willing()
    with contextlib.ExitStack() as stack:
        for _ in range(30):
            s = stack.enter_context(contextlib.closing(socket.socket(socket.AF_UNIX)))
            s.connect(f"{place.run}/cni.sock")
            s.sendall(b"POST /cmdadd HTTP/1.1\r\nContent-Length: 100\r\n\r\n{")
        equal(cni.run("ADD", Sandbox(place.pod, "c1"), place.conf())[0], 0, "ADD")


@rows("a-container-without-a-pod-s-names-is-a-line-in-the-log")
def nameless(place):
    """As podman adds them: outside, and whoever wonders why finds it."""
    place.willing()
    s = Sandbox(place.pod, "c1")
    equal(cni.run("ADD", s, place.conf(), env={"CNI_ARGS": "IgnoreUnknown=1"}), (0, s.previous()), "ADD")
    check(not place.steered(), "steered")
    until(lambda: "stays outside the mesh: its runtime tells no pod's name" in place.log(), "the line")


# --- what the specification wants of any plugin ------------------------------------------------------------------------

GOOD = '{"cniVersion":"1.1.0","name":"net"}'
# claim, command, stdin, variables, code
SPECIFIED = [
    ("not JSON", "ADD", "{", {}, 6),
    ("nothing on stdin", "ADD", "", {}, 6),
    ("more on stdin than anybody needs", "ADD", GOOD + " " * (1 << 20), {}, 5),
    ("a version of another time", "ADD", GOOD.replace("1.1.0", "9.0.0"), {}, 1),
    ("no name", "ADD", GOOD.replace("net", ""), {}, 7),
    ("a bad prevResult", "ADD", GOOD[:-1] + ',"prevResult":[]}', {}, 7),
    ("a prevResult of another family", "ADD", GOOD[:-1] + ',"prevResult":{"cniVersion":"0.4.0"}}', {}, 1),
    ("no container", "ADD", GOOD, {"CNI_CONTAINERID": None}, 4),
    ("no namespace", "ADD", GOOD, {"CNI_NETNS": None}, 4),
    ("the plugin's own namespace", "ADD", GOOD, {"CNI_NETNS": "/proc/self/ns/net"}, 8),
    ("an unknown command", "UPDATE", GOOD, {}, 4),
    ("CHECK before it was there", "CHECK", GOOD.replace("1.1.0", "0.3.1"), {}, 1),
    ("STATUS before it was there", "STATUS", GOOD.replace("1.1.0", "1.0.0"), {}, 1),
    ("GC before it was there", "GC", GOOD.replace("1.1.0", "1.0.0"), {}, 1),
    ("DEL of what is not JSON", "DEL", "{", {}, 6),
]


@T.row("errors-of-the-specification", cni.NoKeeper)
def specified(place):
    for claim, command, stdin, env, want in SPECIFIED:
        code, text = cni.run(command, Sandbox(place.pod, "c1"), None, stdin=stdin, env=env)
        equal(code, want, f"{claim}: {text}")


@T.row("version-echoes-and-needs-nothing", cni.NoKeeper)
def version(place):
    for stdin, want in ((GOOD.replace("1.1.0", "0.4.0"), "0.4.0"), ("", "1.1.0"), ("{", "1.1.0")):
        code, text = cni.run("VERSION", None, None, stdin=stdin)
        equal((code, json.loads(text)), (0, {"cniVersion": want, "supportedVersions":
                                             ["0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"]}), stdin)


@T.row("without-a-command-it-says-what-it-is", cni.NoKeeper)
def about(place):
    p = cni.begin("", None, None, stdin="", env={"CNI_COMMAND": None})
    equal(cni.end(p), (0, ""), "exit status and stdout")
    check("culvert-cni" in p.said and "1.1.0" in p.said, p.said)


@T.row("stdin-that-never-ends", cni.NoKeeper)
def endless(place):
    r, w = os.pipe()
    with open(r, "rb") as end, open(w, "wb"):
        at = time.monotonic()
        p = subprocess.run([cni.PLUGIN], stdin=end, capture_output=True, timeout=20,
                           env={"CNI_COMMAND": "STATUS", "CNI_PATH": "/x"})
        equal((p.returncode, json.loads(p.stdout)["code"]), (1, 5), "exit status and code")
        check(time.monotonic() - at < 7, "it waited too long")


# --- DEL ------------------------------------------------------------------------------------------------------------


@rows("del-leaves-nothing-and-may-be-repeated", ("bpf", "iptables"))
def delete(place):
    t, s = place.willing(), Sandbox(place.pod, "c1")
    equal(cni.run("ADD", s, place.conf())[0], 0, "ADD")
    at = time.monotonic()
    equal(cni.run("DEL", s, place.conf()), (0, ""), "DEL")
    check(time.monotonic() - at < 1, f"it took {time.monotonic() - at:.1f} s")
    told(t, (ADD, s.uid), (DEL, s.uid))
    place.untouched()
    equal(cni.run("DEL", s, place.conf()), (0, ""), "the same again")


@rows("del-does-not-wait-for-connections")
def delete_busy(place):
    place.willing()
    s = Sandbox(place.pod, "c1")
    equal(cni.run("ADD", s, place.conf())[0], 0, "ADD")
    with contextlib.closing(place.pod.connect("10.71.2.2", 80)):  # captured, and accepted by nobody
        at = time.monotonic()
        equal(cni.run("DEL", s, place.conf()), (0, ""), "DEL")
        check(time.monotonic() - at < 1, f"it took {time.monotonic() - at:.1f} s")
    place.untouched()


@rows("del-without-a-namespace")
def delete_bare(place):
    place.willing()
    with contextlib.closing(cni.Bare(place.pod.ns, 1)) as bare:
        s = Sandbox(bare, "c1")
        equal(cni.run("ADD", s, place.conf())[0], 0, "ADD")
    equal(cni.run("DEL", s, place.conf(), env={"CNI_NETNS": None}), (0, ""), "DEL")
    until(lambda: not os.listdir(f"{place.bpf}/v1"), "the pins to go")
    equal(os.listdir(f"{place.run}/pods"), [], "records")
    equal(cni.run("DEL", s, place.conf(), env={"CNI_NETNS": None}), (0, ""), "the same again")


@rows("del-without-the-keeper-and-the-keeper-finds-out")
def delete_alone(place):
    place.willing()
    with contextlib.closing(cni.Bare(place.pod.ns, 1)) as bare:
        s = Sandbox(bare, "c1")
        equal(cni.run("ADD", s, place.conf())[0], 0, "ADD")
        place.kill()
        equal(cni.run("DEL", s, place.conf()), (0, ""), "DEL")
    place.tunnels.pop().close()
    place.start()
    until(lambda: not os.listdir(f"{place.bpf}/v1"), "the pins to go")
    equal(os.listdir(f"{place.run}/pods"), [], "records")


@rows("del-of-another-network-or-interface-is-not-ours")
def delete_other(place):
    place.willing()
    s = Sandbox(place.pod, "c1")
    equal(cni.run("ADD", s, place.conf())[0], 0, "ADD")
    equal(cni.run("DEL", s, place.conf(), env={"CNI_IFNAME": "net1"}), (0, ""), "DEL of net1")
    equal(cni.run("DEL", Sandbox(place.pod, "c2"), place.conf()), (0, ""), "DEL of another container")
    check(place.steered(), "un-enrolled")


@rows("a-second-network-of-the-pod-comes-and-goes")
def second_network(place):
    place.willing()
    s, other = Sandbox(place.pod, "c1"), place.conf(name="storage")
    equal(cni.run("ADD", s, place.conf())[0], 0, "ADD")
    equal(cni.run("ADD", s, other, env={"CNI_IFNAME": "net1"})[0], 0, "ADD of net1")
    equal(cni.run("DEL", s, other, env={"CNI_IFNAME": "net1"}), (0, ""), "DEL of net1")
    equal(cni.run("GC", None, other | {"cni.dev/valid-attachments": []}), (0, ""), "GC of the other network")
    check(place.steered(), "un-enrolled")
    equal(cni.run("DEL", s, place.conf()), (0, ""), "DEL")
    check(not place.steered(), "still steered")


@rows("a-new-sandbox-takes-the-place-of-the-old")
def new_sandbox(place):
    t = place.willing()
    old = Sandbox(place.pod, "c1")
    new = Sandbox(place.second, "c2", uid=old.uid, name=old.name)
    equal(cni.run("ADD", old, place.conf())[0], 0, "ADD")
    equal(cni.run("ADD", new, place.conf())[0], 0, "ADD of the new one")
    told(t, (ADD, old.uid), (DEL, old.uid), (ADD, old.uid))
    check(not place.steered() and place.steered(place.second), "where it is steered")
    equal(cni.run("DEL", old, place.conf()), (0, ""), "DEL of the old one")
    check(place.steered(place.second), "the late DEL hit the new sandbox")
    equal(cni.run("DEL", new, place.conf()), (0, ""), "DEL")
    place.untouched(place.second)


@rows("a-new-sandbox-ends-an-add-that-hangs")
def new_sandbox_while_joining(place):
    with place.tunnel() as t:
        t.snapshot()
        old = Sandbox(place.pod, "c1")
        first = cni.begin("ADD", old, place.conf())
        equal(t.next(answer=None)[0], ADD, "request")
        second = cni.begin("ADD", Sandbox(place.second, "c2", uid=old.uid, name="a1"), place.conf())
        until(lambda: not place.steered() or None, "the old steering to go")
        t.socket.send(b"\x0a\x00")  # the answer to the first
        equal([t.next()[0], t.next()[0]], [DEL, ADD], "requests")
        code, text = cni.end(first)
        check(code == AGAIN, f"the first: {code}: {text}")
        equal(cni.end(second)[0], 0, "the second")
        check(place.steered(place.second), "not steered")


@rows("del-while-adding")
def delete_while_joining(place):
    with place.tunnel() as t:
        t.snapshot()
        s = Sandbox(place.pod, "c1")
        p = cni.begin("ADD", s, place.conf())
        equal(t.next(answer=None)[0], ADD, "request")
        equal(cni.run("DEL", s, place.conf()), (0, ""), "DEL")
        t.socket.send(b"\x0a\x00")
        kind, uid = t.next()
        equal(kind, DEL, "request")
        t.forget(uid)
        code, text = cni.end(p)
        check(code == AGAIN and "sandbox is removed" in text, f"{code}: {text}")
        place.untouched()


# --- the keeper fails --------------------------------------------------------------------------------------------------


@rows("without-the-keeper-no-pod-starts-that-may-be-in-the-mesh")
def down(place):
    place.stop()
    code, text = cni.run("ADD", Sandbox(place.pod, "c1"), place.conf())
    check(code == AGAIN and text.startswith(PREFIX) and "cannot be told" in text, f"{code}: {text}")


@rows("a-keeper-that-never-answers")
def mute(place):
    place.process.send_signal(signal.SIGSTOP)
    try:
        at = time.monotonic()
        code, text = cni.run("ADD", Sandbox(place.pod, "c1"), place.conf())
        took = time.monotonic() - at
        check(code == AGAIN and text.startswith(PREFIX) and "timed out" in text, f"{code}: {text}")
        check(4.5 < took < 7, f"it took {took:.1f} s")
        equal(cni.run("DEL", Sandbox(place.pod, "c1"), place.conf()), (0, ""), "DEL")
    finally:
        place.process.send_signal(signal.SIGCONT)


@rows("killed-while-adding")
def killed(place):
    """Whatever the keeper had done is found by the next one, and goes with DEL."""
    s = Sandbox(place.pod, "c1")
    with place.tunnel() as t:
        t.snapshot()
        p = cni.begin("ADD", s, place.conf())
        equal(t.next(answer=None)[0], ADD, "request")
        place.kill()
        code, text = cni.end(p)
        check(code == AGAIN and text.startswith(PREFIX), f"{code}: {text}")
    place.start()
    place.willing()
    equal(cni.run("DEL", s, place.conf()), (0, ""), "DEL")
    place.untouched()


@rows("stopped-while-adding")
def stopped(place):
    s = Sandbox(place.pod, "c1")
    with place.tunnel() as t:
        t.snapshot()
        p = cni.begin("ADD", s, place.conf())
        equal(t.next(answer=None)[0], ADD, "request")
        at = time.monotonic()
        place.stop()
        code, text = cni.end(p)
        check(code == AGAIN and "the keeper ends" in text, f"{code}: {text}")
        check(time.monotonic() - at < 2, f"it took {time.monotonic() - at:.1f} s")


@rows("a-listener-who-is-not-root-is-not-believed")
def impostor(place):
    with folder("e2e-cni") as f:
        os.chmod(f, 0o777)
        code = ("import os,socket,sys; os.setgid(65534); os.setuid(65534); s=socket.socket(socket.AF_UNIX);"
                f"s.bind('{f}/sock'); s.listen(4); print('up', flush=True)\n"
                "while 1:\n c,_=s.accept(); c.sendall(b'HTTP/1.0 200 OK\\r\\n\\r\\n'); c.close()")
        p = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        try:
            p.stdout.readline()
            code, text = cni.run("ADD", Sandbox(place.pod, "c1"), place.conf(cni_socket=f"{f}/sock"))
            check(code == AGAIN and "not root" in text, f"{code}: {text}")
        finally:
            p.kill()
            p.communicate()


@rows("a-restarted-keeper-knows-the-attachment")
def restarted(place):
    t, s = place.willing(), Sandbox(place.pod, "c1")
    equal(cni.run("ADD", s, place.conf())[0], 0, "ADD")
    place.kill()
    t.close()
    place.tunnels.remove(t)
    place.start()
    place.willing()
    until(lambda: place.pods()["a1"]["state"] == "enrolled", "the pod to be regained")
    equal(cni.run("CHECK", s, place.conf()), (0, ""), "CHECK")
    equal(cni.run("DEL", s, place.conf()), (0, ""), "DEL")
    place.untouched()


@rows("the-keepers-log-has-the-plugins-lines")
def log_lines(place):
    s = Sandbox(place.pod, "c1")
    code, text = cni.run("CHECK", s, place.conf())
    check(code == 100, f"{code}: {text}")
    until(lambda: any("cni-plugin" in x and text in x and "c1" in x for x in place.log().splitlines()), "the line")


# --- CHECK, STATUS, GC -----------------------------------------------------------------------------------------------


def pins(place, s, what):
    at = f"{place.bpf}/v1/{s.uid}"
    return [f"{at}/{f}" for f in os.listdir(at) if f.startswith(what)]


def detach(place, s, what, direction):
    """As somebody would who means harm: a link, or below Linux 6.6 a filter."""
    for path in pins(place, s, what):
        if "link" in sh("bpftool", "link", "show", "pinned", path, ok=False) or direction is None or \
                sh("bpftool", "link", "detach", "pinned", path, ok=False) == "":
            sh("bpftool", "link", "detach", "pinned", path, ok=False)
    if direction:
        place.pod.run("tc", "filter", "del", "dev", "eth0", direction, ok=False)


BREAKS = [
    ("egress", lambda p, s: detach(p, s, "egress", "egress"), "the egress program of device eth0 is gone"),
    ("ingress", lambda p, s: detach(p, s, "ingress", "ingress"), "the ingress program of device eth0 is gone"),
    ("lookup", lambda p, s: detach(p, s, "lookup", None), "the lookup program is gone"),
    ("rule", lambda p, s: p.pod.run("ip", "rule", "del", "priority", "9"), "the IPv4 policy rule"),
    ("rule6", lambda p, s: p.pod.run("ip", "-6", "rule", "del", "priority", "9"), "the IPv6 policy rule"),
    ("route", lambda p, s: p.pod.run("ip", "route", "flush", "table", "1337"), "the IPv4 route"),
    ("route6", lambda p, s: p.pod.run("ip", "-6", "route", "flush", "table", "1337"), "the IPv6 route"),
    ("sysctl", lambda p, s: p.pod.run("sysctl", "-qw", "net.ipv4.conf.lo.accept_local=0"), "accept_local is off"),
]
for what, harm, why in BREAKS:
    @rows(f"check-finds-what-is-gone/{what}")
    def check_broken(place, harm=harm, why=why):
        place.willing()
        s = Sandbox(place.pod, "c1")
        equal(cni.run("ADD", s, place.conf())[0], 0, "ADD")
        equal(cni.run("CHECK", s, place.conf()), (0, ""), "CHECK of what is whole")


        def found():
            harm(place, s)  # the keeper may have put it back before it is asked
            code, text = cni.run("CHECK", s, place.conf())
            check(code == 100 and why in text, f"{code}: {text}")
            return True

        until(found, "CHECK to say what is gone")
        equal(cni.run("DEL", s, place.conf()), (0, ""), "DEL of what is broken")


@rows("check-finds-rules-that-are-gone", ("iptables",))
def check_rules(place):
    place.willing()
    s = Sandbox(place.pod, "c1")
    equal(cni.run("ADD", s, place.conf())[0], 0, "ADD")
    equal(cni.run("CHECK", s, place.conf()), (0, ""), "CHECK of what is whole")
    for table in "raw", "mangle", "nat":
        for name in "iptables", "ip6tables":
            place.pod.run(name, "-t", table, "-F")
            place.pod.run(name, "-t", table, "-X")
    code, text = cni.run("CHECK", s, place.conf())
    check(code == 100 and "rules are gone" in text, f"{code}: {text}")


@rows("check-of-a-pod-that-is-not-enrolled")
def check_missing(place):
    place.willing()
    code, text = cni.run("CHECK", Sandbox(place.pod, "c1"), place.conf())
    check(code == 100 and "not enrolled" in text, f"{code}: {text}")
    place.stop()
    equal(cni.run("CHECK", Sandbox(place.pod, "c1"), place.conf())[0], AGAIN, "without the keeper")


@rows("status-asks-the-keeper-when-it-is-to")
def status(place):
    strict = place.conf(strict_status=True)
    code, text = cni.run("STATUS", None, strict)
    check(code == 51 and "no tunnel" in text, f"{code}: {text}")
    place.willing()
    until(lambda: cni.run("STATUS", None, strict) == (0, ""), "STATUS to be good")
    place.stop()
    code, text = cni.run("STATUS", None, strict)
    check(code == 50, f"{code}: {text}")
    equal(cni.run("STATUS", None, place.conf()), (0, ""), "STATUS that does not ask")


@rows("gc-removes-what-is-not-valid-any-more")
def gc(place):
    t = place.willing()
    with contextlib.ExitStack() as stack:
        pods = [stack.enter_context(contextlib.closing(cni.Bare(place.pod.ns, i))) for i in range(4)]
        some = [Sandbox(p, f"c{i}") for i, p in enumerate(pods)]
        for i, s in enumerate(some):
            equal(cni.run("ADD", s, place.conf(name="other" if i == 3 else "net"))[0], 0, "ADD")
        place.end(place.enrol())  # by hand
        valid = [{"containerID": "c0", "ifname": "eth0"}, {"containerID": "c1", "ifname": "net1"}]
        equal(cni.run("GC", None, place.conf(**{"cni.dev/valid-attachments": valid})), (0, ""), "GC")
        equal(set(place.pods()), {"bare-0", "bare-3", "a1"}, "what is left")
        equal(sorted(uid for kind, uid in t.told if kind == DEL), sorted(s.uid for s in some[1:3]), "what was told")
        none = {"cni.dev/valid-attachments": None}  # so libcni writes an empty list
        equal(cni.run("GC", None, place.conf(**none)), (0, ""), "GC of all")
        equal(set(place.pods()), {"bare-3", "a1"}, "what is left")
        code, text = cni.run("GC", None, place.conf())
        check(code == 7 and "valid-attachments" in text, f"{code}: {text}")


if __name__ == "__main__":
    T.main()
