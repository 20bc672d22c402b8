#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Our tunnel and ztunnel (ZTUNNEL=) side by side, fed by the same istiod: they talk to each other, and their dumps are
compared for all that istiod makes of Kubernetes' and Istio's objects (every_object.py)."""
import os
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path[:0] = [HERE, os.path.join(HERE, "..", "e2e")]
from every_object import POLICIES, every_policy, every_service
from istiod_bed import IstiodBed, part
from lib import traffic
from lib.bed import pair
from lib.rows import Skip, Table, equal, until

T = Table(__file__)


def side_by_side():
    if not os.environ.get("ZTUNNEL"):
        raise Skip("no ZTUNNEL= given")
    return IstiodBed("dropin", "ztunnel")


def compared(bed, what):
    """When both have got all, they say the same of everything, key by key."""
    bed.apply()
    until(lambda: settled(bed), f"both to have {what}")
    ours, its = (a.config_dump() for a in bed.agents)
    for part in "workloads", "services", "policies":
        a, b = ({name_of(x): ordered(x) for x in dump[part]} for dump in (ours, its))
        equal(sorted(a), sorted(b), f"names of {part}")
        differ = [(name, key, a[name].get(key), b[name].get(key)) for name in b for key in {*a[name], *b[name]}
                  if a[name].get(key) != b[name].get(key)]
        equal(differ, [], f"{part}: (name, key, ours, ztunnel's)")


def ordered(x):
    """A workload's services are a set."""
    return {k: sorted(v) if k == "services" else v for k, v in x.items()}


def settled(bed):
    """The last thing that istiod sends is a policy of a new name each time."""
    bed.serial = getattr(bed, "serial", 0) + 1
    rules = [{"from": [{"source": {"namespaces": [f"serial-{bed.serial}"]}}]}]
    bed.objects.policy("serial", "DENY", rules, namespace="free")
    bed.apply()
    for agent in bed.agents:
        until(lambda: f"serial-{bed.serial}" in str(part(agent, "policies", name="serial")), "the last policy")
    return True


def name_of(x):
    return x.get("uid") or f"{x['namespace']}/{x.get('hostname') or x['name']}"


@T.row("talk-with-istiods-certificates", side_by_side)
def talk(bed):
    for client, server in (bed.a1, bed.b1), (bed.b1, bed.a1):
        with pair(client, server) as (c, s):
            traffic.bulk_both_ways(c, s)
        for agent in bed.agents:
            until(lambda: agent.access(src_identity=client.spiffe, dst_identity=server.spiffe), "HBONE in its log")


@T.row("say-the-same-of-a-small-mesh", side_by_side)
def small(bed):
    bed.objects.policy("some", "ALLOW", [{"from": [{"source": {"namespaces": ["default"]}}],
                                          "to": [{"operation": {"ports": ["8080"]}}]}])
    compared(bed, "a policy")


@T.row("say-the-same-of-services", side_by_side)
def services(bed):
    """Every kind of service, endpoint and workload that istiod makes something of."""
    every_service(bed.objects)
    compared(bed, "the services")
    have = {x["hostname"] for x in bed.agents[0].config_dump()["services"]}
    missing = {"local.default.svc.cluster.local", "headless.default.svc.cluster.local", "outside.example.com",
               "*.wild.example.com", "waypoint.shop.svc.cluster.local", "web.shop.svc.cluster.local"} - have
    equal(missing, set(), "services that istiod did not send")


@T.row("say-the-same-of-policies", side_by_side)
def policies(bed):
    every_policy(bed.objects)
    compared(bed, "the policies")
    have = {x["name"] for x in bed.agents[0].config_dump()["policies"]}
    equal({name for name, _ in POLICIES} - have - {"http-deny"}, set(), "policies that istiod did not send")


if __name__ == "__main__":
    T.main()
