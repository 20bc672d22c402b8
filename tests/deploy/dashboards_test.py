#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""deploy/dashboards: every metric that the dashboard and the alerts name is one of the programs', and is there when real agents
are scraped; Prometheus' own tool takes rules and metrics, alerts fire when they should; and a running Prometheus answers every
query of the dashboard."""
import contextlib
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time
import urllib.parse

from chart import TREE, read_file
from lib import traffic
from lib.bed import Bed, pair
from lib.net import Unwound, folder, scale, stop
from lib.rows import Skip, Table, check, equal, until

sys.path.insert(0, f"{TREE}/tests/e2e")
from kube_test import KubePlace
from xds_test import istiod

try:
    import yaml
except ImportError:
    yaml = None

T = Table(__file__)
DASHBOARD, RULES = "deploy/dashboards/culvert.json", "deploy/dashboards/rules.yaml"
NAME = re.compile(r"\b(?:culvert|istio|ztunnel|workload_manager|process|nodeagent)_[a-z_]+\b")
LABELS = {"instance", "namespace", "pod", "reason", "reporter", "response_flags", "connection_security_policy", "state", "mesh",
          "response_code", "result", "url", "direction", "component"}
VARIABLES = {"$__rate_interval": "1m", "$keeper": ".*", "$tunnel": ".*"}
# What promtool has against metrics that ztunnel has given their names.
ZTUNNELS = {f"workload_manager_{x}_proxy_count non-histogram and non-summary metrics should not have \"_count\" suffix"
            for x in ("active", "pending")}
# alert: (what makes it fire for "bad", what does not for "well"), each [(metric and labels, values of 40 minutes)].
FIRES = {
    "CulvertPodNotSteered": ([('culvert_kube_pods{mesh="not-enrolled-yet"}', "2x40")], [('culvert_kube_pods{mesh="not-enrolled-yet"}', "1 0x40")]),
    "CulvertSteeringNotWhole": ([("culvert_steering_broken{}", "2x40")], [("culvert_steering_broken{}", "1 0x40")]),
    "CulvertSteeringRemoved": ([("culvert_steering_mended_total{}", "0+1x40")], [("culvert_steering_mended_total{}", "0x25 2x15")]),
    "CulvertPodsStuck": ([('culvert_pods{state="joining"}', "1x40")], [('culvert_pods{state="enrolled"}', "9x40")]),
    "CulvertNoTunnel": ([("ztunnel_connected{}", "0x40")], [("ztunnel_connected{}", "1 0 1x40")]),
    "CulvertDrops": ([('culvert_steering_drops_total{pod="web",namespace="shop",reason="drop_in_malformed"}', "0+120x40")],
                     [('culvert_steering_drops_total{pod="web",namespace="shop",reason="drop_in_no_hbone"}', "0 9x40")]),
    "CulvertPluginNotInstalled": ([("istio_cni_install_ready{}", "0x40")], [("istio_cni_install_ready{}", "1 0 1x40")]),
    "CulvertApiServerUnreachable": ([("culvert_kube_connected{}", "0x40")], [("culvert_kube_connected{}", "1 0 0 1x40")]),
    "CulvertCertificateExpires": ([("culvert_certificate_first_expiry_timestamp_seconds{}", "4800x40")],
                                  [("culvert_certificate_first_expiry_timestamp_seconds{}", "86400x40"),
                                   ('culvert_certificate_first_expiry_timestamp_seconds{pods="none"}', "0x40")]),
    "CulvertIdentityWithoutCertificate": ([("culvert_certificate_identities_without{}", "3x40")],
                                          [("culvert_certificate_identities_without{}", "1 0x40")]),
    "CulvertRevocationListsUnreadable": ([("culvert_crl_load_failures_total{}", "0x25 1x15")], [("culvert_crl_load_failures_total{}", "7x40")]),
    "CulvertIstiodUnreachable": ([('istio_xds_connection_terminations_total{reason="ConnectionError"}', "0+1x40")],
                                 [('istio_xds_connection_terminations_total{reason="Reconnect"}', "0+1x40"),
                                  ('istio_xds_connection_terminations_total{reason="Error"}', "0x25 3x15")]),
    "CulvertConnectionsRefused": ([('istio_tcp_connections_failed_total{response_flags="TLS_FAILURE"}', "0+120x40")],
                                  [('istio_tcp_connections_failed_total{response_flags="DENY"}', "0+120x40")]),
    "CulvertPodsPending": ([("workload_manager_pending_proxy_count{}", "1x40")], [("workload_manager_pending_proxy_count{}", "1 0x40")]),
    "CulvertKtlsFallback": ([('culvert_ktls_connections_total{direction="tx",result="user",reason="unavailable"}', "0+5x40")],
                            [('culvert_ktls_connections_total{direction="tx",result="user",reason="off"}', "0+5x40")]),
    "CulvertDescriptors": ([("process_open_fds{}", "900x40"), ("process_max_fds{}", "1000x40"), ('istio_build{component="ztunnel"}', "1x40")],
                           [("process_open_fds{}", "900x40"), ("process_max_fds{}", "1000x40"), ('istio_build{component="other"}', "1x40")]),
}
CONFLIST = '{"cniVersion": "1.0.0", "name": "net", "plugins": [{"type": "bridge"}]}\n'


def targets():
    """(panel, query) of the dashboard."""
    return [(p["title"], t["expr"]) for p in json.loads(read_file(DASHBOARD))["panels"] for t in p.get("targets", ())]


def rules():
    if not yaml:
        raise Skip("no PyYAML (apt-get install python3-yaml)")
    return [r for g in yaml.safe_load(read_file(RULES))["groups"] for r in g["rules"]]


def names():
    """Metrics that are named anywhere."""
    return {n for text in [q for _, q in targets()] + [r["expr"] for r in rules()] for n in NAME.findall(text)}


def tool(name, *argv, **kw):
    path = shutil.which(name)
    if not path:
        raise Skip(f"no {name} on PATH (Debian's package prometheus)")
    return subprocess.run([path, *argv], capture_output=True, text=True, timeout=60, cwd=TREE, **kw)


# --- the files alone -----------------------------------------------------------------------------------------------------


@T.row("plain/every-name-is-one-of-the-programs")
def known():
    sources = "".join(read_file(os.path.relpath(f"{d}/{f}", TREE)) for d, _, files in os.walk(f"{TREE}/userspace") for f in files
                      if f.endswith(".c"))
    wrong = [n for n in names() if not re.search(rf'["\\ n]{n.removesuffix("_total")}(?:_total)?["\\ {{]', sources)]
    equal(wrong, [], "names that no program has")
    check(len(names()) > 20, f"only {len(names())} names were found")


@T.row("plain/labels-are-those-of-the-programs")
def labels():
    text = " ".join([q for _, q in targets()] + [r["expr"] for r in rules()])
    used = set(re.findall(r"(\w+)\s*(?:=~|!~|!=|=)\"", text)) | {x.strip() for by in re.findall(r"\b(?:by|on) \(([^)]*)\)", text)
                                                              for x in by.split(",")}
    equal(used - LABELS, set(), "labels")


@T.row("plain/panels-do-not-overlap-and-say-what-they-are")
def panels():
    taken, ids = set(), set()
    for p in json.loads(read_file(DASHBOARD))["panels"]:
        g = p["gridPos"]
        cells = {(x, y) for x in range(g["x"], g["x"] + g["w"]) for y in range(g["y"], g["y"] + g["h"])}
        check(p["title"] and p["id"] not in ids and not cells & taken and g["x"] + g["w"] <= 24, p["title"])
        check(p["type"] == "row" or p["targets"], f"{p['title']} shows nothing")
        taken, ids = taken | cells, ids | {p["id"]}


@T.row("plain/alerts-say-what-to-do")
def alerts():
    for r in rules():
        check(r["labels"]["severity"] in ("info", "warning", "critical"), r["alert"])
        check("{{ $labels." in r["annotations"]["summary"], f"{r['alert']}: where is it")
        check(re.search(r"culvertctl|log|[Rr]aise", r["annotations"]["description"]), f"{r['alert']}: what to do")
    equal(len({r["alert"] for r in rules()}), len(rules()), "different names")


@T.row("promtool/takes-the-rules")
def promtool_rules():
    r = tool("promtool", "check", "rules", RULES)
    check(r.returncode == 0 and f"{len(rules())} rules found" in r.stdout, r.stdout + r.stderr)


@T.row("promtool/alerts-fire-when-they-should")
def promtool_alerts():
    """promtool is told that none would: what it says then is which did, and where."""
    series = [{"series": name.replace("{", f'{{instance="{instance}",').replace(",}", "}"), "values": values}
              for rows in FIRES.values() for instance, row in zip(("bad", "well"), rows) for name, values in row]
    asked = [{"eval_time": "30m", "alertname": r["alert"], "exp_alerts": []} for r in rules()]
    with folder("e2e-promtool") as top:
        with open(f"{top}/alerts.yaml", "w") as f:
            json.dump({"rule_files": [f"{TREE}/{RULES}"], "evaluation_interval": "1m",
                       "tests": [{"interval": "1m", "input_series": series, "alert_rule_test": asked}]}, f)
        r = tool("promtool", "test", "rules", f"{top}/alerts.yaml")
    fired = re.findall(r'Labels:\{alertname="(\w+)".*\binstance="(\w+)".*\}\n\s*Annotations:\{.*summary="(.*)"\}', r.stdout + r.stderr)
    equal(sorted((name, where) for name, where, _ in fired), sorted((name, "bad") for name in FIRES), "what fires, and where")
    equal([x for x in fired if " bad" not in x[2] and "shop/web" not in x[2]], [], "summaries that do not say where")
    equal({r["alert"] for r in rules()}, set(FIRES), "alerts that are tested")


# --- real agents ---------------------------------------------------------------------------------------------------------


class Agents(Unwound):
    """Two nodes' tunnels under a keeper each, fed by a stand-in for istiod, and a keeper in Kubernetes with the plugin installed."""

    def _begin(self):
        self.bed = self.stack.enter_context(Bed(("culvert", "culvert"), prepare=Agents.prepare))
        self.place = self.stack.enter_context(KubePlace(prepare=Agents.install))
        self.place.wait_in()
        until(lambda: "istio_cni_install_ready 1" in self.keeper(), "the plugin to be installed")
        self.talk()

    def prepare(self):
        istiod(self)
        self.env["CRL_PATH"] = f"{self.folder}/none.pem"

    def install(self):
        self.runs()
        for name in ("net.d", "bin", "agent"):
            os.mkdir(f"{self.folder}/{name}")
        with open(f"{self.folder}/net.d/10-net.conflist", "w") as f:
            f.write(CONFLIST)
        self.env |= {"MOUNTED_CNI_NET_DIR": f"{self.folder}/net.d", "CULVERT_CNI_BIN_DIR": f"{self.folder}/bin",
                     "CNI_AGENT_RUN_DIR": f"{self.folder}/agent"}

    def talk(self):
        """What works, and what fails."""
        bed = self.bed
        with pair(bed.a1, bed.b1) as (c, s):
            traffic.echo(c, s)
        traffic.dial_is_cut(bed.a1, bed.b1.ip4, 9999)

    def keeper(self):
        return self.place.http(15014, "/metrics")[1]

    def tunnel(self, accept="text/plain"):
        return self.bed.agents[0].http(15020, "/metrics", headers=[f"Accept: {accept}"])[1].decode()


@T.row("scrape/every-name-is-there", Agents)
def scraped(agents):
    there = {re.match(r"[a-z_]+", line)[0] for text in (agents.keeper(), agents.tunnel()) for line in text.splitlines()
             if line and line[0] != "#"}
    equal(names() - there, set(), "names that no scrape has")


for who in ("keeper", "tunnel"):
    @T.row(f"promtool/takes-the-{who}'s-metrics", Agents)
    def promtool_metrics(agents, who=who):
        r = tool("promtool", "check", "metrics", input=getattr(agents, who)())
        said = {x for x in (r.stdout + r.stderr).splitlines() if x.strip()}
        equal(said - (ZTUNNELS if who == "tunnel" else set()), set(), "what promtool says")


@contextlib.contextmanager
def served(agents):
    """The keeper's metrics where Prometheus reaches them: it is in another network."""
    listener = agents.bed.net.nodes[0].listen(9091, "127.0.0.1")
    listener.settimeout(None)

    def serve():
        with contextlib.suppress(OSError):
            while True:
                s, _ = listener.accept()
                with s:
                    s.recv(4096)
                    body = agents.keeper().encode()
                    s.sendall(b"HTTP/1.1 200 OK\r\nContent-Type: text/plain; version=0.0.4\r\nContent-Length: %d\r\n"
                              b"Connection: close\r\n\r\n" % len(body) + body)

    task = traffic.Task(serve)
    try:
        yield
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        task.join(10)


def answer(node, path):
    """A GET of Prometheus' API, as an object."""
    with node.connect("127.0.0.1", 9090) as s:
        s.sendall(f"GET /api/v1/{path} HTTP/1.0\r\n\r\n".encode())
        raw = b""
        while chunk := s.recv(1 << 16):
            raw += chunk
    return json.loads(raw.split(b"\r\n\r\n", 1)[1])


@contextlib.contextmanager
def prometheus(agents):
    """Running, in the first node's namespace."""
    if not shutil.which("prometheus"):
        raise Skip("no prometheus on PATH (Debian's package prometheus)")
    node = agents.bed.net.nodes[0]
    jobs = [{"job_name": "keeper", "static_configs": [{"targets": ["127.0.0.1:9091"]}]},
            {"job_name": "tunnel", "static_configs": [{"targets": ["127.0.0.1:15020", f"{agents.bed.net.nodes[1].wan4}:15020"]}]}]
    with folder("e2e-prometheus") as top, served(agents), open(f"{top}/log", "w") as log:
        with open(f"{top}/prometheus.yml", "w") as f:
            json.dump({"global": {"scrape_interval": "1s", "evaluation_interval": "1s"}, "rule_files": [f"{TREE}/{RULES}"],
                       "scrape_configs": jobs}, f)
        p = node.popen(["prometheus", f"--config.file={top}/prometheus.yml", f"--storage.tsdb.path={top}/data",
                        "--web.listen-address=127.0.0.1:9090"], stdout=log, stderr=log, stdin=subprocess.DEVNULL,
                       start_new_session=True)
        try:
            until(lambda: len(answer(node, "query?query=up==1")["data"]["result"]) == 3, "three scrapes", scale.deadline(30))
            yield node
        finally:
            stop(p)


@T.row("prometheus/answers-every-query-of-the-dashboard", Agents)
def queries(agents):
    with prometheus(agents) as node:
        end = time.monotonic() + scale.deadline(20)
        empty, wrong = targets(), []
        while empty and time.monotonic() < end:
            agents.talk()
            asked, empty, wrong = empty, [], []
            for title, query in asked:
                for variable, value in VARIABLES.items():
                    query = query.replace(variable, value)
                got = answer(node, "query?query=" + urllib.parse.quote(query))
                if got["status"] != "success":
                    wrong.append((title, got))
                elif not got["data"]["result"]:
                    empty.append((title, query))
        equal(wrong, [], "queries that Prometheus does not take")
        equal([t for t, q in empty], [], "panels without data")
        groups = answer(node, "rules")["data"]["groups"]
        bad = [(r["name"], r.get("lastError")) for g in groups for r in g["rules"] if r["health"] != "ok"]
        equal((sum(len(g["rules"]) for g in groups), bad), (len(rules()), []), "rules that cannot be evaluated")
        equal([r["name"] for g in groups for r in g["rules"] if r["state"] != "inactive"], [], "alerts of healthy agents")


if __name__ == "__main__":
    T.main()
