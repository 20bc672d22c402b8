#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""What operators and dashboards read: access log, metrics, readiness, /config_dump, /logging, /quitquitquit, with
ztunnel's names and shapes."""
import contextlib
import gzip
import json
import os
import re
import socket
import stat
import sys

sys.path.insert(0, os.path.dirname(__file__))
from lib import traffic
from lib.bed import VIP4, fixture, pair, places
from lib.net import read_all
from lib.rows import Skip, Table, check, equal, until
from lib.zds import ZdsServer

T = Table(__file__)
LABELS = """reporter source_workload source_canonical_service source_canonical_revision source_workload_namespace
source_principal source_app source_version source_cluster destination_service destination_service_namespace
destination_service_name destination_workload destination_canonical_service destination_canonical_revision
destination_workload_namespace destination_principal destination_app destination_version destination_cluster
request_protocol response_flags connection_security_policy source_region source_zone destination_region
destination_zone""".split()
ACCESS = "src.addr src.workload src.namespace src.identity dst.addr dst.hbone_addr dst.workload dst.namespace " \
    "dst.identity direction bytes_sent bytes_recv duration".split()
LOGGED_PORT = 8090  # of one row alone
DUMP_KEYS = {"certificates", "config", "policies", "services", "stagedServices", "staticConfig", "version",
             "workloadState", "workloads"}


def each(name, some=None):
    def add(fn):
        for kind in places():
            if not some or kind in some:
                T.row(f"{kind}/{name}", BEDS[kind])(fn)
        return fn

    return add


def one_deny(bed):
    bed.mesh.policy("no-9001", "Deny", [[[{"destinationPorts": [9001]}]]], ["b1"])
    bed.mesh.policy("try-deny", "Deny", [[[{"destinationPorts": [9005, 9006]}]]], ["b1"], dry_run=True)
    bed.mesh.policy("try-allow", "Allow", [[[{"destinationPorts": [9006]}]]], ["b1"], dry_run=True)


BEDS = {k: fixture(k, k, prepare=one_deny, env={"AUTHZ_POLICY_INFO_LOGGING": "true"}) for k in places()}


def counted(agent, **labels):
    return {k: agent.metric(f"istio_tcp_{v}_total", **labels) for k, v in
            {"opened": "connections_opened", "closed": "connections_closed", "received": "received_bytes",
             "sent": "sent_bytes", "failed": "connections_failed"}.items()}


def exchange_and_count(bed, client, server, source, destination):
    """One exchange of 11 and 22 bytes, then what each reporter's counters grew by."""
    agents = {"source": (client.node.agent, source), "destination": (server.node.agent, destination)}
    before = {r: counted(a, reporter=r, **labels) for r, (a, labels) in agents.items()}
    with pair(client, server) as (c, s):
        traffic.echo(c, s)
    want = {"opened": 1, "closed": 1, "received": 11, "sent": 22, "failed": 0}
    for r, (agent, labels) in agents.items():
        def grown():
            now = counted(agent, reporter=r, **labels)
            return {k: now[k] - before[r][k] for k in now}
        until(lambda: grown()["closed"] >= 1, f"the {r}'s counter of closed connections")
        equal(grown(), want, f"reporter {r}")


MTLS = {"connection_security_policy": "mutual_tls", "response_flags": "-", "request_protocol": "tcp"}


@each("metrics-cross-node")
def metrics_cross(bed):
    labels = {**MTLS, "source_workload": "a1", "source_principal": bed.a1.spiffe, "destination_workload": "b1",
              "destination_principal": bed.b1.spiffe, "source_workload_namespace": "default",
              "source_canonical_service": "a1", "destination_canonical_revision": "v1",
              "source_cluster": "Kubernetes"}
    exchange_and_count(bed, bed.a1, bed.b1, labels, labels)


@each("metrics-same-node")
def metrics_local(bed):
    labels = {**MTLS, "source_workload": "a1", "destination_workload": "a2", "source_principal": bed.a1.spiffe,
              "destination_principal": bed.a2.spiffe}
    exchange_and_count(bed, bed.a1, bed.a2, labels, labels)


@each("metrics-service")
def metrics_service(bed):
    labels = {"destination_service": bed.host, "destination_service_name": "web",
              "destination_service_namespace": "default"}
    agent = bed.a1.node.agent
    before = counted(agent, reporter="source", **labels)["opened"]
    with bed.b1.listen(8080), bed.b2.listen(8080), bed.a1.connect(VIP4, 80) as c:
        c.sendall(b"x")
        until(lambda: counted(agent, reporter="source", **labels)["opened"] == before + 1, "the service's counter")


def dial_denied(bed):
    """The reset may come before connect() has returned."""
    with contextlib.suppress(ConnectionResetError), bed.b1.listen(9001), bed.a1.connect(bed.b1.ip4, 9001) as c:
        traffic.is_cut(c)


@each("metrics-denied")
def metrics_denied(bed):
    agent = bed.b1.node.agent
    before = counted(agent, reporter="destination", response_flags="DENY")["failed"]
    dial_denied(bed)
    until(lambda: counted(agent, reporter="destination", response_flags="DENY")["failed"] == before + 1,
          "a failure with flag DENY")


DRY_RUNS = [
    ("a-denial-and-no-allow", 9005, [("dry-run: deny policy match", "default/try-deny"),
                                     ("dry-run: no allow policies match", None)]),
    ("a-denial-and-an-allow", 9006, [("dry-run: deny policy match", "default/try-deny"),
                                     ("dry-run: allow policy match", "default/try-allow")]),
    ("no-allow", 9007, [("dry-run: no allow policies match", None)]),
]


def dry_run(bed, port, want):
    """What policies in dry run would have done is in the log; the connection is served."""
    agent = bed.b1.node.agent
    since = len(agent.log())
    with pair(bed.a1, bed.b1, port=port) as (c, s):
        traffic.echo(c, s)

    def logged():
        return [(x["message"], x.get("policy")) for x in agent.lines(since) if x.get("message", "").startswith("dry-run")]

    until(lambda: len(logged()) >= len(want), "the lines")
    equal(logged(), want, "lines")


for kind in BEDS:
    for name, *rest in DRY_RUNS:
        T.row(f"{kind}/dry-run-tells-{name}", BEDS[kind], *rest)(dry_run)


@each("metrics-label-names-and-order")
def labels(bed):
    with pair(bed.a1, bed.b1) as (c, s):
        traffic.echo(c, s)
    text = bed.a1.node.agent.http(15020, "/metrics")[1].decode()
    line = next(x for x in text.splitlines() if x.startswith("istio_tcp_connections_opened_total{"))
    equal(re.findall(r'(\w+)="', line), LABELS, "labels")
    check(text.endswith("# EOF\n"), "no # EOF at the end")


def served(bed):
    """Names of the pods that a1's agent serves."""
    return [p.name for p in bed.a1.node.pods if p.mesh]


@each("metrics-families")
def families(bed):
    with pair(bed.a1, bed.b1) as (c, s):
        traffic.echo(c, s)
    agent = bed.a1.node.agent
    text = agent.http(15020, "/stats/prometheus", headers=["Accept: application/openmetrics-text"])[1].decode()
    have = set(re.findall(r"^# TYPE (\S+)", text, re.M))
    want = {"istio_build", "istio_tcp_connections_opened", "istio_tcp_received_bytes", "istio_tcp_sent_bytes",
            "istio_tcp_sockets_open", "workload_manager_active_proxy_count", "workload_manager_proxies_started",
            "process_open_fds", "process_max_fds"}
    check(want <= have, lambda: f"missing: {sorted(want - have)}")
    stable = re.compile(r"istio_build$|istio_tcp_(connections_(opened|closed)|received_bytes|sent_bytes)$")
    for name, text_ in re.findall(r"^# HELP (\S+) (.*)", text, re.M):
        if name.startswith("istio_tcp_connections_opened"):
            check("(unstable)" not in text_, f"{name} is called unstable")
    equal(agent.metric("workload_manager_active_proxy_count"), len(served(bed)), "pods served")
    check(agent.metric("istio_build", component="ztunnel") == 1, "istio_build")


@each("metrics-content-type")
def content_type(bed):
    agent = bed.a1.node.agent
    agent.http(15020, "/metrics", headers=["Accept: application/openmetrics-text"])
    check("application/openmetrics-text;charset=utf-8;version=1.0.0" in agent.last_head.replace("; ", ";"),
          agent.last_head)
    agent.http(15020, "/metrics")
    check("text/plain" in agent.last_head, agent.last_head)
    equal(agent.http(15020, "/other")[0], 404, "/other")


@each("metrics-gzip")
def compressed(bed):
    agent = bed.a1.node.agent
    _, body = agent.http(15020, "/metrics", headers=["Accept-Encoding: gzip"])
    check("content-encoding: gzip" in agent.last_head.lower(), agent.last_head)
    check(gzip.decompress(body).endswith(b"# EOF\n"), "no # EOF at the end")


@each("access-log-cross-node")
def access(bed):
    agents = bed.a1.node.agent, bed.b1.node.agent
    since = [len(a.log()) for a in agents]
    want = {"message": "connection complete", "dst_hbone_addr": f"{bed.b1.ip4}:{LOGGED_PORT}"}
    with pair(bed.a1, bed.b1, port=LOGGED_PORT) as (c, s):
        traffic.echo(c, s)
        port = c.getsockname()[1]
    out = until(lambda: agents[0].access(since[0], direction="outbound", **want), "the line")[0]
    into = until(lambda: agents[1].access(since[1], direction="inbound", **want), "the line")[0]
    for line in out, into:
        equal([k for k in line if k in ACCESS], ACCESS, "fields in order")
        equal((line["src.identity"], line["dst.identity"]), (bed.a1.spiffe, bed.b1.spiffe), "identities")
        equal((line["src.workload"], line["dst.workload"]), ("a1", "b1"), "workloads")
        equal(line["dst.addr"], f"{bed.b1.ip4}:15008", "dst.addr")
        check(re.fullmatch(r"\d+ms", line["duration"]), line["duration"])
        equal(line["level"], "info", "level")
    equal(out["src.addr"], f"{bed.a1.ip4}:{port}", "outbound src.addr")
    equal((int(out["bytes_sent"]), int(out["bytes_recv"])), (11, 22), "outbound bytes")
    equal((int(into["bytes_sent"]), int(into["bytes_recv"])), (22, 11), "inbound bytes")


@each("access-log-plaintext")
def access_plain(bed):
    agent = bed.b1.node.agent
    since = len(agent.log())
    with pair(bed.u1, bed.b1) as (c, s):
        traffic.echo(c, s)
        src = f"{bed.u1.ip4}:{c.getsockname()[1]}"
    line = until(lambda: agent.access(since, src_addr=src, message="connection complete"), "the line")[0]
    check("src.identity" not in line and "dst.identity" not in line, f"identities on plaintext: {line}")
    equal(line["dst.addr"], f"{bed.b1.ip4}:8080", "dst.addr")


@each("access-log-denied")
def access_denied(bed):
    agent = bed.b1.node.agent
    since = len(agent.log())
    dial_denied(bed)
    line = until(lambda: [x for x in agent.access(since, direction="inbound") if "error" in x], "the line")[0]
    check("explicitly denied by: default/no-9001" in line["error"], line["error"])


@each("readiness")
def readiness(bed):
    agent = bed.a1.node.agent
    equal(agent.http(15021, "/healthz/ready"), (200, b"ready\n"), "GET /healthz/ready")
    equal(agent.http(15021, "/healthz/ready", "POST")[0], 405, "POST")
    equal(agent.http(15021, "/healthz/other")[0], 404, "other path")


@each("admin-is-loopback-only")
def admin_loopback(bed):
    node = bed.net.nodes[0]
    for ip in f"10.71.{node.index}.1", f"fd71:{node.index}::1":
        equal(traffic.outcome(bed.u1, ip, 15000, b"GET / HTTP/1.0\r\n\r\n"), "refused", f"{ip}:15000")


@each("config-dump")
def config_dump(bed):
    with pair(bed.a1, bed.b1) as (c, s):
        traffic.echo(c, s)
        dump = bed.a1.node.agent.config_dump()
        check(DUMP_KEYS <= set(dump), lambda: f"missing keys: {DUMP_KEYS - set(dump)}")
        state = next(x for x in dump["workloadState"].values() if x["info"]["name"] == "a1")
        equal((state["state"], state["info"]["serviceAccount"]), ("Up", "sa-a1"), "workloadState")
        conn = state["connections"]["outbound"][0]
        equal(set(conn) - {"tls"}, {"src", "originalDst", "actualDst", "protocol"}, "a connection's keys")
        equal("tls" in conn, not bed.local and "ztunnel" not in bed.kinds, "something of a tunnel")  # ztunnel does not say
        if "tls" in conn:
            equal(set(conn["tls"]), {"cipher", "tx", "rx"}, "what is said of the tunnel")
            check({conn["tls"]["tx"], conn["tls"]["rx"]} <= {"user", "kernel"}, f"who carries the records: {conn['tls']}")
        equal((conn["originalDst"], conn["actualDst"], conn["protocol"]),
              (f"{bed.b1.ip4}:8080", f"{bed.b1.ip4}:15008", "HBONE"), "the connection")
    a1 = next(x for x in dump["workloads"] if x["name"] == "a1")
    equal((a1["protocol"], a1["uid"], sorted(a1["workloadIps"]), a1["serviceAccount"], a1["status"]),
          ("HBONE", "Kubernetes//Pod/default/a1", [bed.a1.ip4, bed.a1.ip6], "sa-a1", "Healthy"), "workload a1")
    web = next(x for x in dump["services"] if x["name"] == "web")
    equal((web["ports"], len(web["endpoints"])), ({"80": 8080}, 2), "service web")
    policy = next(x for x in dump["policies"] if x["name"] == "no-9001")
    equal((policy["action"], policy["scope"]), ("Deny", "WorkloadSelector"), "policy")
    certificate = next(x for x in dump["certificates"] if x["identity"] == bed.a1.spiffe)
    equal(certificate["state"], "Available", "certificate")
    check({"pem", "serialNumber", "validFrom", "expirationTime"} <= set(certificate["certChain"][0]), "certChain")
    check("PRIVATE" not in str(dump), "a private key in the dump")


@each("config-dump-of-idle-pods-and-unix-socket")
def admin_socket(bed):
    """What culvertctl asks: the same pages at RUN_DIR/tunnel.sock, for root alone."""
    agent = bed.a1.node.agent
    if "ztunnel" in bed.kinds:
        raise Skip("ztunnel has no such socket")
    path = f"{agent.env['CULVERT_RUN_DIR']}/tunnel.sock"
    equal(stat.S_IMODE(os.stat(path).st_mode), 0o600, "mode")
    with socket.socket(socket.AF_UNIX) as s:
        s.settimeout(5)
        s.connect(path)
        s.sendall(b"GET /config_dump HTTP/1.1\r\nHost: x\r\n\r\n")
        head, _, body = read_all(s).partition(b"\r\n\r\n")
    check(head.startswith(b"HTTP/1.1 200"), head)
    state = json.loads(body)["workloadState"]
    equal({x["info"]["name"]: x["connections"]["inbound"] for x in state.values()}, {name: [] for name in served(bed)}, "pods")


@each("admin-index-and-unknown-pages")
def admin_pages(bed):
    agent = bed.a1.node.agent
    status, body = agent.http(15000, "/")
    check(status == 200 and b"config_dump" in body, f"{status} {body}")
    check("content-type: text/html" in agent.last_head.lower(), agent.last_head)
    equal(agent.http(15000, "/nothing")[0], 404, "/nothing")


@each("silent-client-is-cut")
def silent(bed):
    for port in 15000, 15020, 15021:
        with bed.a1.node.connect("127.0.0.1", port) as s:
            s.settimeout(5)
            s.sendall(b"GET / HT")
            traffic.is_cut(s, within=5)


@each("readiness-follows-the-source-of-pods", ["dropin", "ztunnel"])
def readiness_zds(bed):
    agent = bed.a1.node.agent
    agent.zds.close()
    until(lambda: agent.http(15021, "/healthz/ready") == (500, b"not ready, pending: workload proxy manager\n"),
          "readiness to go")
    with pair(bed.a1, bed.b1) as (c, s):
        traffic.echo(c, s)
    pods = agent.zds.pods
    agent.zds = ZdsServer(agent.zds.path)
    agent.zds.pods = pods
    until(lambda: agent.http(15021, "/healthz/ready")[0] == 200, "readiness to come back", 20)
    equal(agent.metric("workload_manager_active_proxy_count"), 2, "pods served")


@each("logging")
def logging(bed):
    agent = bed.a1.node.agent
    equal(agent.http(15000, "/logging")[0], 405, "GET")
    check(b"current log level is" in agent.http(15000, "/logging", "POST")[1], "no parameters")
    status, body = agent.http(15000, "/logging?level=debug", "POST")
    check(status == 200 and b"debug" in body, f"{status} {body}")
    since = len(agent.log())
    with pair(bed.a1, bed.b1) as (c, s):
        traffic.echo(c, s)
    until(lambda: agent.access(since, message="connection opened"), "a line at debug level")
    equal(agent.http(15000, "/logging?level=nonsense", "POST")[0], 400, "bad level")
    status, body = agent.http(15000, "/logging?reset&level=access=info", "POST")
    check(status == 200 and b"info" in body, f"{status} {body}")
    agent.http(15000, "/logging?reset", "POST")


@each("quitquitquit")
def quit_row(bed):
    """Last: it ends the first node's agent."""
    agent = bed.a1.node.agent
    equal(agent.http(15000, "/quitquitquit")[0], 405, "GET")
    pid = agent.tunnel_pid()
    equal(agent.http(15000, "/quitquitquit", "POST"), (200, b"shutdown now\n"), "POST")
    until(lambda: not os.path.exists(f"/proc/{pid}") or open(f"/proc/{pid}/stat").read().split()[2] == "Z",
          "the tunnel to end", 15)
    if bed.kinds[0] == "dropin":
        equal(agent.process.wait(1), 0, "exit status")


if __name__ == "__main__":
    T.main()
