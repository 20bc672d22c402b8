#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""DNS answers beside ztunnel's (ZTUNNEL=/path): the same seeded queries to both, in the same mesh, over the same rules; what may
differ is listed, with the reason. DNS_SEED and DNS_QUERIES change what is asked."""
import contextlib
import os
import random
import sys

sys.path.insert(0, os.path.dirname(__file__))
from lib import dns
from lib.dns import A, AAAA, HTTPS, NOERROR, NXDOMAIN, SOA, SRV, TXT
from lib.dns_bed import DnsBed
from lib.rows import Table, check, equal
from lib.agents import ztunnel_path

T = Table(__file__)
SEED, QUERIES = int(os.environ.get("DNS_SEED", "7")), int(os.environ.get("DNS_QUERIES", "500"))
K = ".svc.cluster.local"
SERVICES = ("web", "four", "db", "many", "nobody", "own", "web.default", "hidden.other", "own.default", "db.default", "nothing",
            "web.other", "nothing.default")
OUTSIDE = ("www.example.test", "dual.example.test", "a.wild.test", "a.b.wild.test", "a.deep.wild.test", "x.a.deep.wild.test", "wild.test",
           "*.wild.test", "out.test", "four.out.test", "alias.out.test", "big.out.test", "nothing.test", "broken.test", "x.out.test")
PODS = ("db-0.db", "db-1.db.default", "db-7.db", "10-74-0-1.db.default")


def whole(name):
    return name + K if "." in name else f"{name}.default{K}"


def names(rng):
    kind = rng.random()
    if kind < 0.35:
        name = rng.choice(SERVICES)
        name = rng.choice((name, whole(name), name + ".svc" if "." in name else name))
    elif kind < 0.75:
        name = rng.choice(OUTSIDE)
    elif kind < 0.85:
        name = rng.choice((whole, str))(rng.choice(PODS))
    else:
        name = ".".join("".join(rng.choice("abcxyz-09") for _ in range(rng.randint(1, 12))) for _ in range(rng.randint(1, 5)))
        name = ".".join(x.strip("-") or "q" for x in name.split("."))
    if rng.random() < 0.25:
        name += rng.choice((f".default{K}", K, ".cluster.local", f".other{K}"))
    if rng.random() < 0.15:
        name = "".join(rng.choice((c.upper(), c.lower())) for c in name)
    return name


def queries():
    """(pod, IPv6, transport, name, type, EDNS size, DNSSEC OK)"""
    rng = random.Random(SEED)
    for _ in range(QUERIES):
        yield (rng.choice(("a1", "a1", "a2")), rng.random() < 0.5, rng.choice(("udp", "udp", "tcp")), names(rng),
               rng.choices((A, AAAA, TXT, SRV, HTTPS), (50, 30, 8, 6, 6))[0], rng.choice((0, 0, 512, 1232, 4096)), rng.random() < 0.2)


def answers(kind):
    """All queries to one agent: [Message or None]"""
    out = []
    with DnsBed(kind) as bed:
        for i, (pod, v6, transport, name, qtype, edns, dnssec) in enumerate(queries()):
            msg = dns.query(name, qtype, ident=i, edns=edns, dnssec=dnssec and edns > 0)
            with contextlib.suppress(OSError):
                out.append(getattr(dns, transport)(bed.pod[pod], bed.u1.ip(v6), msg, timeout=8))
            if len(out) == i:
                out.append(None)
    return out


def records(m):
    """What an application goes by. Lifetimes of answers that are kept depend on when they were asked for."""
    return sorted((owner.lower(), rtype, ttl if m.aa else 0, str(data).lower()) for owner, rtype, ttl, data in m.answers)


def comparable(m):
    return (m.rcode, m.aa, m.tc, [(n.lower(), *rest) for n, *rest in m.questions], None if m.tc else records(m))


def pod_name(q, ours, theirs):
    """Pods' names are answered where the mesh knows them; ztunnel leaves them to the resolver."""
    return ours.aa and theirs.rcode == NXDOMAIN and any(q[3].lower().startswith(p) for p in ("db-0.db", "db-1.db", "10-74-0-1.db"))


def datagram(q, ours, theirs):
    """Who says nothing of EDNS gets 512 bytes in a datagram, as RFC 1035 has it; ztunnel sends up to 4,096."""
    return q[2] == "udp" and not q[5] and ours.tc and not theirs.tc and theirs.size > 512


DIFFERENCES = (pod_name, datagram)
# Of all answers, beside these: names come back in the letters in which they were asked, forwarded answers have the flags and the
# EDNS record of their resolver but AA, which is never set, and answers without records have a SOA, which ztunnel leaves out. Its
# truncated answers to queries with EDNS end in a piece of their EDNS record, ours in the whole one.


@T.row("seeded-queries")
def same(_=None):
    ztunnel_path()
    ours, theirs = answers("dropin"), answers("ztunnel")
    different, listed, soa = [], {d.__name__: 0 for d in DIFFERENCES}, 0
    for q, a, b in zip(queries(), ours, theirs):
        if a and not a.answers and a.rcode in (NOERROR, NXDOMAIN) and not a.tc:
            soa += 1
            if [x[1] for x in a.authority] != [SOA]:
                different.append((q, "no SOA", a.authority))
        if a and a.behind:
            different.append((q, "bytes behind the records", a.behind))
        if not a or not b:
            if a or b:
                different.append((q, "answered", bool(a), bool(b)))
            continue
        if comparable(a) == comparable(b):
            continue
        why = next((d for d in DIFFERENCES if d(q, a, b)), None)
        if why:
            listed[why.__name__] += 1
        else:
            different.append((q, comparable(a), comparable(b)))
    unanswered = sum(1 for a, b in zip(ours, theirs) if not a and not b)
    print(f"# {QUERIES} queries, seed {SEED}: {QUERIES - len(different) - sum(listed.values())} the same, as listed: "
          f"{listed}, otherwise {len(different)}; unanswered by both: {unanswered}; without records, with SOA: {soa}", flush=True)
    check(not different, lambda: f"{len(different)} answers differ: " + "; ".join(map(str, different[:5])))
    equal(unanswered, 0, "queries that neither answered")


if __name__ == "__main__":
    T.main()
