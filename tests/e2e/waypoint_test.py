#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Waypoints: what goes to a pod or a service that has one goes to the waypoint, with the authority that the client dialled. The waypoint
is b2, a sandwich: its agent ends the tunnel and hands the bytes to a program beside it, in one of the forms below; what that one
dials to the pods behind it goes straight to them.

  bare    no application tunnel: to the port that was dialled
  plain   application tunnel NONE with a port: to that port
  proxy   application tunnel PROXY with a port: to that port on the loopback, behind a PROXY header

Wherever the same form is used for all rows, it is `plain`."""
import contextlib
import os
import sys

sys.path.insert(0, os.path.dirname(__file__))
from lib import h2, traffic
from lib.bed import Bed, not_ztunnel, pair, places
from lib.net import PATIENCE, authority, read_exactly
from lib.rows import FAMILIES, Table, check, equal, until

T = Table(__file__)
PORT = 15088
SPARE = ("10.72.3.1", "fd72::3:1")  # a service's that has a waypoint and no port
HOSTNAME = "waypoint.default.svc.cluster.local"
# name: (service with this waypoint, the waypoint as the mesh names it)
WAYPOINTS = {"by-address": lambda b: f"/{b.b2.ip4}", "by-service": lambda b: f"default/{HOSTNAME}", "by-name": lambda b: "default/waypoint-pod.test"}
VIPS = {name: (f"10.72.3.{10 + i}", f"fd72::3:{10 + i}") for i, name in enumerate([*WAYPOINTS, "nobody"])}
FORMS = {"bare": None, "plain": {"protocol": "NONE", "port": PORT}, "proxy": {"protocol": "PROXY", "port": PORT}}


class Waypoints(Bed):
    """`pods`: a1's own waypoint is irrelevant, a2 has none; b1 is behind b2."""

    def __init__(self, kind, form, pods=("a1", "a2", "b1", "b2")):
        super().__init__((kind, kind), prepare=Waypoints.behind, pods=pods)
        self.form = form

    def behind(self):
        mesh = self.mesh
        mesh.service("waypoint", ["10.72.3.2"], {15008: 15008}, ["b2"])
        mesh.workload("b2")["hostname"] = "waypoint-pod.test"
        for name, vips in VIPS.items():
            to = WAYPOINTS[name](self) if name in WAYPOINTS else "default/nobody.default.svc.cluster.local"
            mesh.service(name, vips, {80: 8080}, ["b1"], waypoint={"destination": to, "hboneMtlsPort": 15008})
        mesh.service("spare", SPARE, {}, [], waypoint={"destination": f"default/{HOSTNAME}", "hboneMtlsPort": 15008})
        mesh.workload("b1")["waypoint"] = {"destination": f"/{self.b2.ip4}", "hboneMtlsPort": 15008}
        mesh.workload("a1")["waypoint"] = {"destination": "/10.99.99.99", "hboneMtlsPort": 15008}
        if FORMS[self.form]:
            mesh.workload("b2")["applicationTunnel"] = FORMS[self.form]

    def listen(self, port, v6):
        """Where the waypoint's program expects what was dialled with this port."""
        loopback = "::1" if v6 else "127.0.0.1"
        return self.b2.listen(PORT if FORMS[self.form] else port, loopback if self.form == "proxy" else "::")


BEDS = {(kind, form): lambda kind=kind, form=form: Waypoints(kind, form) for kind in places() for form in FORMS}


def rows(name, forms=("plain",), families=FAMILIES):
    return T.each({f"{kind}/{form}": BEDS[kind, form] for kind in places() for form in forms}, name, families)


@contextlib.contextmanager
def through(bed, client, ip, port, v6):
    """client's connection to ip:port as far as the waypoint's program: (client's end, the program's end)."""
    with bed.listen(port, v6) as listener, client.connect(ip, port) as c:
        s, peer = listener.accept()
        with s:
            s.settimeout(PATIENCE)
            src, dst = client.ip(v6), (ip, port)
            if bed.form == "proxy":
                told, dialled, tlvs = traffic.proxy_header(s)
                # The HBONE connection's client, whose port is the agent's; and what was dialled
                equal((told[0], dialled, tlvs), (src, dst, {0xD0: client.spiffe.encode()}), "the PROXY header")
            else:
                equal(peer[0].removeprefix("::ffff:"), src, "the address that the waypoint sees")
            yield c, s


def goes_to_waypoint(bed, client, ip, port, v6, **more):
    with through(bed, client, ip, port, v6) as (c, s):
        traffic.echo(c, s)
        c.close()
        s.close()
    want = {"dst_hbone_addr": authority(ip, port), "direction": "outbound", "message": "connection complete", "src_identity": client.spiffe}
    line = until(lambda: client.node.agent.access(**want), f"a line with {want}")[-1]
    want = {"dst.workload": "b2", "dst.identity": bed.b2.spiffe, "src.identity": client.spiffe, "error": None, **more}
    equal({k: line.get(k) for k in want}, want, "the client's line")
    check(line["dst.addr"] in (f"{bed.b2.ip4}:15008", f"[{bed.b2.ip6}]:15008"), f"the next hop: {line['dst.addr']}")


@rows("of-a-service", FORMS)
def of_service(bed, v6):
    """However the mesh names the waypoint. Its family may be another one: that of an address that the mesh gives is."""
    for name in WAYPOINTS:
        if v6 and name == "by-address":
            continue
        goes_to_waypoint(bed, bed.a1, VIPS[name][v6], 80, v6, **{"dst.service": f"{name}.default.svc.cluster.local"})


@rows("of-a-pod", FORMS, families=[False])
def of_pod(bed, v6):
    goes_to_waypoint(bed, bed.a1, bed.b1.ip4, 8080, v6)


@rows("of-the-other-family", ["plain", "proxy"], families=[True])
def other_family(bed, v6):
    """The next hop is the IPv4 address that the mesh gives; the authority stays what was dialled, and so does what the program is told."""
    with bed.listen(8080, v6=False) as listener, bed.a1.connect(bed.b1.ip6, 8080) as c, listener.accept()[0] as s:
        s.settimeout(PATIENCE)
        if bed.form == "proxy":
            not_ztunnel(bed, "tells no address in a PROXY header where the two are of different families")
            told, dialled, _ = traffic.proxy_header(s)
            equal((told[0], dialled), (f"::ffff:{bed.a1.ip4}", (bed.b1.ip6, 8080)), "the PROXY header")
        traffic.echo(c, s)
    want = {"dst_hbone_addr": authority(bed.b1.ip6, 8080), "dst_addr": f"{bed.b2.ip4}:15008", "direction": "outbound"}
    until(lambda: bed.a1.node.agent.access(**want), f"a line with {want}")


@rows("of-a-service-without-ports", ["plain", "proxy"])
def no_ports(bed, v6):
    goes_to_waypoint(bed, bed.a1, SPARE[v6], 1234, v6)


@rows("client-on-the-waypoint's-node", FORMS)
def beside(bed, v6):
    """Within the node as well the waypoint's program gets what another node's client gives it."""
    goes_to_waypoint(bed, bed.b1, VIPS["by-service"][v6], 80, v6)


@rows("on-to-the-pod", FORMS)
def onwards(bed, v6):
    """What the waypoint dials to a pod behind it does not come back to it: bytes from a1 to b1 by way of b2."""
    with through(bed, bed.a1, VIPS["by-service"][v6], 80, v6) as (c, s), pair(bed.b2, bed.b1, v6=v6) as (out, app):
        equal(app.getpeername()[0].removeprefix("::ffff:"), bed.b2.ip(v6), "the address that the pod sees")
        c.sendall(b"in")
        out.sendall(read_exactly(s, 2))
        app.sendall(read_exactly(app, 2).upper())
        s.sendall(read_exactly(out, 2))
        equal(read_exactly(c, 2), b"IN", "the client read")
    until(lambda: bed.b1.node.agent.access(dst_hbone_addr=authority(bed.b1.ip(v6), 8080), src_identity=bed.b2.spiffe, direction="inbound"),
          "a line of the pod")


@rows("unknown")
def unknown(bed, v6):
    """No way round it."""
    with bed.b1.listen(8080):
        traffic.dial_is_cut(bed.a1, VIPS["nobody"][v6], 80)
    until(lambda: [x for x in bed.a1.node.agent.access(dst_addr=authority(VIPS["nobody"][v6], 80)) if "unknown waypoint" in x.get("error", "")],
          "a line about it")


@rows("serves-nobody-else", ["bare"])
def nobody_else(bed, v6):
    """By hand: the waypoint takes the addresses of those behind it, and no other's."""
    with bed.b2.listen(8080), h2.Client(bed.u1, bed.b2.ip(v6), bed.ca, bed.cert(bed.a1.spiffe)) as h:
        for ip, want in ((VIPS["by-service"][v6], "200"), (bed.b1.ip(v6), "200"), (bed.a2.ip(v6), "400"), (VIPS["nobody"][v6], "400"),
                         ("fd99::1" if v6 else "10.99.99.99", "400")):
            equal(h.status(h.connect(authority(ip, 8080))), want, f"the status for {ip}")


if __name__ == "__main__":
    T.main()
