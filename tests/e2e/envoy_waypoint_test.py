#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Waypoints as they are in Istio: an Envoy, b2's, before services of a2. Requests of a1 and of b1, which is on the waypoint's node, go
through it, and it calls a2 as itself, whose policy lets nobody else in.

  hbone      Envoy serves b2's port 15008, and dials a2's; b2 has no agent
  sandwich   b2's agent does both; Envoy gets the bytes behind a PROXY header, and dials a2 as any application does

Whatever the mesh says of the waypoint (its service, its name, its address), Envoy is the same."""
import contextlib
import hashlib
import http.client
import json
import os
import re
import signal
import sys

sys.path.insert(0, os.path.dirname(__file__))
from lib import traffic
from lib.bed import Bed, not_ztunnel, pair, places
from lib.envoy_waypoint import SANDWICH, Service, Waypoint
from lib.http_app import App
from lib.mesh import Exact
from lib.net import authority, read_all, read_exactly, scale
from lib.peers import envoy
from lib.rows import FAMILIES, Table, check, equal, until

T = Table(__file__)
MIB = traffic.MIB
HTTP, CLOSED, BYTES = 80, 81, 9090  # ports of each service: requests, requests to where the policy lets nobody, and bytes
TARGETS = {HTTP: 8080, CLOSED: 8081, BYTES: 9090}
OPEN = [8080, 9090]
NO_RESET = "makes an end of a reset"
SECRET = "/secret"  # not for b1
# name: the waypoint as the mesh names it
NAMES = {"by-service": lambda b: "default/waypoint.default.svc.cluster.local", "by-name": lambda b: "default/waypoint-pod.test",
         "by-address": lambda b: f"/{b.b2.ip4}", "by-ipv6-address": lambda b: f"/{b.b2.ip6}"}
BY_ADDRESS = ("by-address", "by-ipv6-address")
VIPS = {name: (f"10.72.4.{10 + i}", f"fd72::4:{10 + i}") for i, name in enumerate(NAMES)}


class EnvoyBed(Bed):
    def __init__(self, kind, form):
        super().__init__((kind, kind), prepare=EnvoyBed.behind, pods=("a1", "a2", "b1", *(["b2"] if form == "sandwich" else [])))
        self.form = form

    def behind(self):
        mesh = self.mesh
        mesh.service("waypoint", ["10.72.4.2"], {15008: 15008}, ["b2"])
        mesh.workload("b2")["hostname"] = "waypoint-pod.test"
        for name, to in NAMES.items():
            mesh.service(name, VIPS[name], TARGETS, ["a2"], waypoint={"destination": to(self), "hboneMtlsPort": 15008})
        if self.form == "sandwich":
            mesh.workload("b2")["applicationTunnel"] = {"protocol": "PROXY", "port": SANDWICH}
        waypoint = Exact(self.b2.spiffe.removeprefix("spiffe://"))
        mesh.policy("waypoint-alone", "Allow", [[[{"principals": [waypoint]}], [{"destinationPorts": OPEN}]]], ["a2"])

    def _start(self):
        envoy()  # or the rows are skipped
        super()._start()
        vips = [v for both in VIPS.values() for v in both]
        services = [Service(vips, port, self.a2, target, port != BYTES) for port, target in TARGETS.items()]
        self.waypoint = self.stack.enter_context(Waypoint(self, self.b2, self.form, services, {SECRET: self.b1.spiffe}))
        self.waypoint.serve()
        self.stack.enter_context(App(self.a2, TARGETS[HTTP]))


FORMS = ("hbone", "sandwich")
BEDS = {(kind, form): lambda kind=kind, form=form: EnvoyBed(kind, form) for kind in places() for form in FORMS}


def rows(name, forms=FORMS):
    return T.each({f"{kind}/{form}": bed for (kind, form), bed in BEDS.items() if form in forms}, name, FAMILIES)


def send_if_taken(s, data):
    with contextlib.suppress(OSError):
        traffic.send_all(s, data)


def ask(client, ip, port=HTTP, method="GET", path="/", body=None):
    """(status, headers, body) of one request."""
    h = http.client.HTTPConnection("web.test")
    with contextlib.closing(h):
        h.sock = client.connect(ip, port)
        h.request(method, path, body)
        r = h.getresponse()
        return r.status, dict(r.getheaders()), r.read()


def answered(bed, v6, names, hop_v6):
    """There and back, whoever asks; by the waypoint's address of this family."""
    for client in bed.a1, bed.b1:
        for name in names:
            status, headers, body = ask(client, VIPS[name][v6])
            got = json.loads(body)
            equal((status, headers.get("x-waypoint")), (200, "b2"), f"the answer of {name} to {client.name}")
            want = {"host": "web.test", "from": bed.b2.ip(v6), "x-principal": client.spiffe, "x-forwarded-for": client.ip(hop_v6)}
            got["x-forwarded-for"] = got.get("x-forwarded-for", "").removeprefix("::ffff:")
            equal({k: got.get(k) for k in want}, want, f"what the application saw of {client.name}'s request to {name}")


@rows("request")
def request(bed, v6):
    answered(bed, v6, ["by-service", "by-name", BY_ADDRESS[v6]], v6)


@rows("request-by-way-of-the-other-family")
def request_mixed(bed, v6):
    """The mesh has an address of the waypoint that is not of the family that was dialled."""
    if bed.form == "sandwich":
        not_ztunnel(bed, "tells no address in a PROXY header where the two are of different families")
    answered(bed, v6, [BY_ADDRESS[not v6]], not v6)


@rows("request-at-once-with-others")
def at_once(bed, v6):
    def mine(i):
        client = (bed.a1, bed.b1)[i % 2]
        equal(json.loads(ask(client, VIPS["by-service"][v6], path=f"/x{i}")[2])["x-principal"], client.spiffe, f"request {i}")

    for t in [traffic.Task(mine, i) for i in range(20)]:
        t.result()


@rows("asked-of-the-waypoint", ["hbone"])
def asked(bed, v6):
    """As its access log has it."""
    vip = VIPS["by-service"][v6]
    with pair(bed.a1, bed.a2, BYTES, to=vip) as (c, s):
        want = {"authority": authority(vip, BYTES), "peer": bed.a1.spiffe, "from": bed.a1.ip(v6), "status": 200, "tls": "TLSv1.3", "sni": None,
                "network": None, "forwarded": f'for="{authority(*c.getsockname()[:2])}";host=by-service.default.svc.cluster.local'}
    got = until(lambda: bed.waypoint.access_log(forwarded=want["forwarded"]), f"a line with {want}")[0]
    for name, like in ("traceparent", "00-[0-9a-f]{32}-[0-9a-f]{16}-00"), ("baggage", ".*k8s.deployment.name=a1,.*"):
        value = got.pop(name)
        check(re.fullmatch(like, value), f"{name}: {value}")
    equal(got, want, "the rest")


@rows("post")
def post(bed, v6):
    """8 MiB there and others back."""
    size = scale.size(8 * MIB)
    data = traffic.random_bytes(2 * size)
    sent, back = (hashlib.sha256(x).hexdigest() for x in (data[:size], data[size:]))
    status, headers, body = ask(bed.a1, VIPS["by-service"][v6], method="POST", body=bytes(data[:size]))
    equal((status, headers.get("x-hash"), len(body), hashlib.sha256(body).hexdigest()), (200, sent, size, back), "status, size and hashes")


@rows("request-that-closes")
def closes(bed, v6):
    """Envoy ends the stream of a client that wants no second answer with a reset: behind the whole first one."""
    size = 200000
    with bed.a1.connect(VIPS["by-service"][v6], HTTP) as c:
        c.sendall(f"POST / HTTP/1.1\r\nhost: web.test\r\nconnection: close\r\ncontent-length: {size}\r\n\r\n".encode() + bytes(size))
        r = http.client.HTTPResponse(c)
        r.begin()
        equal((r.status, len(r.read())), (200, size), "status and bytes")


@rows("refused-by-the-waypoint")
def refused(bed, v6):
    """Its 403 is the client's, also when that one was still sending. In a sandwich not always: there Envoy closes with the rest unread, and
    at times no more than a reset came out of its socket."""
    vip = VIPS["by-service"][v6]
    status, headers, body = ask(bed.b1, vip, path=SECRET)
    equal((status, headers.get("x-waypoint"), body), (403, "b2", b"RBAC: access denied"), "b1's answer")
    equal(ask(bed.a1, vip, path=SECRET)[0], 200, "a1's status")
    for _ in range(5 if bed.form == "hbone" else 0):
        with bed.b1.connect(vip, HTTP) as c:
            send_if_taken(c, f"POST {SECRET} HTTP/1.1\r\nhost: web.test\r\ncontent-length: {64 * MIB}\r\n\r\n".encode() + bytes(4 * MIB))
            equal(read_exactly(c, 12), b"HTTP/1.1 403", "what the sender read")


@rows("no-way-round-it")
def no_way_round(bed, v6):
    """a2's policy is the waypoint's alone: not its clients' of either node, nor those outside the mesh."""
    for client in bed.a1, bed.b1, bed.u1:
        traffic.dial_is_cut(client, bed.a2.ip(v6), TARGETS[HTTP])
    for client in bed.a1, bed.b1:
        want = {"direction": "inbound", "src_identity": client.spiffe, "dst_workload": "a2"}
        line = until(lambda: bed.a2.node.agent.access(**want), f"a line with {want}")[-1]
        check("none allowed" in line.get("error", ""), f"{client.name}'s error: {line.get('error')}")


@rows("refused-by-the-destination")
def refused_behind(bed, v6):
    """The waypoint says it to the client: no answer of the application's, but one."""
    with App(bed.a2, TARGETS[CLOSED]):
        status, headers, _ = ask(bed.a1, VIPS["by-service"][v6], CLOSED)
    equal((status, headers.get("x-waypoint")), (503, "b2"), "status and header")


@rows("bytes-with-half-close")
def half_close(bed, v6):
    """No HTTP in them; the client ends first."""
    for client in bed.a1, bed.b1:
        with pair(client, bed.a2, BYTES, to=VIPS["by-service"][v6]) as (c, s):
            traffic.echo(c, s)
            traffic.half_close(c, s)


@rows("server-ends-first")
def server_ends(bed, v6):
    """What fits our window arrives. Of more, Envoy drops the rest and resets: an error, no end."""
    vip = VIPS["by-service"][v6]
    with pair(bed.a1, bed.a2, BYTES, to=vip) as (c, s):
        writer = traffic.Task(traffic.send_all, s, bytes(MIB))
        equal(traffic.read_hash(c)[0], MIB, "bytes before the end")
        writer.result()
    not_ztunnel(bed, NO_RESET)
    size = scale.size(16 * MIB)
    with pair(bed.a1, bed.a2, BYTES, to=vip) as (c, s):
        writer = traffic.Task(send_if_taken, s, bytes(size))
        try:
            equal(traffic.read_hash(c)[0], size, "bytes before a clean end")
        except ConnectionResetError:
            equal(bed.form, "hbone", "the form in which some may be lost")
        writer.result()


@rows("reset-by-the-client")
def reset(bed, v6):
    not_ztunnel(bed, NO_RESET)
    with pair(bed.a1, bed.a2, BYTES, to=VIPS["by-service"][v6]) as (c, s):
        traffic.reset_reaches(c, s)


@rows("reset-by-the-server")
def reset_back(bed, v6):
    not_ztunnel(bed, NO_RESET)
    with pair(bed.a1, bed.a2, BYTES, to=VIPS["by-service"][v6]) as (c, s):
        traffic.reset_reaches(s, c)


@rows("seen-by-both-agents")
def seen(bed, v6):
    """The waypoint is the client's destination, and the destination's source."""
    vip, service = VIPS["by-service"][v6], "by-service.default.svc.cluster.local"
    out = {"direction": "outbound", "src.identity": bed.a1.spiffe, "dst.addr": authority(bed.b2.ip(v6), 15008), "dst.service": service,
           "dst.hbone_addr": authority(vip, BYTES), "dst.workload": "b2", "dst.identity": bed.b2.spiffe, "error": None}
    into = {"direction": "inbound", "src.identity": bed.b2.spiffe, "src.workload": "b2", "dst.workload": "a2", "dst.identity": bed.a2.spiffe,
            "dst.hbone_addr": authority(bed.a2.ip(v6), TARGETS[BYTES]), "error": None}
    labels = [(bed.a1.node.agent, {"reporter": "source", "source_principal": bed.a1.spiffe, "destination_workload": "b2",
                                   "destination_principal": bed.b2.spiffe, "destination_service": service}),
              (bed.a2.node.agent, {"reporter": "destination", "source_workload": "b2", "source_principal": bed.b2.spiffe,
                                   "destination_workload": "a2", "destination_principal": bed.a2.spiffe})]
    before = [a.metric("istio_tcp_sent_bytes_total", connection_security_policy="mutual_tls", **x) for a, x in labels]
    since = [len(a.log()) for a, _ in labels]
    with pair(bed.a1, bed.a2, BYTES, to=vip) as (c, s):
        equal(s.getpeername()[0].removeprefix("::ffff:"), bed.b2.ip(v6), "the address that the application sees")
        out["src.addr"] = authority(*c.getsockname()[:2])
        traffic.echo(c, s)
    for (agent, x), n, at, want in zip(labels, before, since, (out, into)):
        until(lambda: agent.access(at, **want), f"a line with {want}")
        until(lambda: agent.metric("istio_tcp_sent_bytes_total", connection_security_policy="mutual_tls", **x) == n + 22, f"22 bytes at {x}")


def ends(s):
    with contextlib.suppress(ConnectionResetError):
        read_all(s)


@rows("gone-and-back")
def gone(bed, v6):
    """A waypoint that is killed or ends: what it carried is reset at both ends, half an answer as well; so is who comes while it is away;
    and whoever comes afterwards is served. In a sandwich it is the kernel that ends what it carried: with an end, if all had been read."""
    not_ztunnel(bed, NO_RESET)
    vip = VIPS["by-service"][v6]
    for number in signal.SIGKILL, signal.SIGTERM:
        with pair(bed.a1, bed.a2, BYTES, to=vip) as (c, s), bed.b1.connect(vip, HTTP) as half:
            traffic.echo(c, s)
            half.sendall(b"GET /200000 HTTP/1.1\r\nhost: web.test\r\n\r\n")
            read_exactly(half, 100000)
            with bed.waypoint.away(number):
                for end in c, s, half:
                    traffic.sees_reset(end) if bed.form == "hbone" else ends(end)
                for client in bed.a1, bed.b1:
                    traffic.dial_is_reset(client, vip, HTTP)
        for client in bed.a1, bed.b1:
            until(lambda: ask(client, vip)[0] == 200, f"an answer to {client.name}")


@rows("another-in-its-place", ["hbone"])
def impostor(bed, v6):
    """With a certificate of the mesh, but not the waypoint's, it gets nothing."""
    not_ztunnel(bed, NO_RESET)
    with bed.waypoint.away(), Waypoint(bed, bed.b2, bed.form, bed.waypoint.services, {}) as other:
        other.cert, other.key = bed.cert(bed.a2.spiffe)
        other.serve()
        for client in bed.a1, bed.b1:
            for name in NAMES:
                traffic.dial_is_reset(client, VIPS[name][v6], HTTP)


if __name__ == "__main__":
    T.main()
