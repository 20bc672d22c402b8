# SPDX-License-Identifier: Apache-2.0
"""A Kubernetes API server of pods and namespaces, for tests: get, list in pages, watch with bookmarks, and the merge patch
of a pod's status; shared by the tests of the keeper's watch and of the CNI plugin.

    with KubeApi(host.listen(6443, "127.0.0.1")) as api:     # a socket that listens, in whatever namespace
        api.namespace("shop", {"istio.io/dataplane-mode": "ambient"})
        pod = api.pod("shop", "web-0", ips=["10.1.2.3"])     # put again with changes: api.change("shop", "web-0", fn)
        api.kubeconfig("/tmp/x/kubeconfig", token_file="/tmp/x/token")

What it does wrong on purpose: `tokens` (those that are taken; None: all), `hook` (called with (method, path, query) before
each request; returns None, or (status, object, headers) to answer with, and may sleep), forget() (410 for versions up to
now), cut() (ends all watches), `bookmark_s`, `mute` (watches, or those of the kind that it names, stay
open and send nothing), `drip` (seconds between the bytes
of events). `seen` holds (method, path, query) of all requests."""
import copy
import http.server
import json
import socket
import socketserver
import ssl
import threading
import time
import urllib.parse
import uuid


class KubeApi:
    def __init__(self, listener, tokens=None, tls=None, node="node-1"):
        self.tokens, self.node, self.tls = tokens, node, tls
        self.cond = threading.Condition()
        self.version, self.oldest, self.generation = 100, 0, 0
        self.objects = {"pods": {}, "namespaces": {}}  # kind -> (namespace, name) -> object
        self.events = []  # (version, kind, type, object)
        self.hook, self.mute, self.drip, self.bookmark_s = None, False, 0, 60
        self.seen, self.watching = [], {"pods": 0, "namespaces": 0}
        self.listener = listener
        self.scheme = "https" if tls else "http"
        self.address = "%s:%d" % listener.getsockname()[:2]

    def __enter__(self):
        api = self

        class Handler(_Handler):
            kube = api

        class Server(socketserver.ThreadingMixIn, http.server.HTTPServer):
            daemon_threads = True

            def handle_error(self, request, client_address):
                pass  # clients come and go

            def get_request(self):
                s, at = super().get_request()
                s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                return s, at

        self.server = Server(self.listener.getsockname()[:2], Handler, bind_and_activate=False)
        self.server.socket.close()
        self.listener.settimeout(None)
        self.server.socket = self.listener
        if self.tls:  # (certificate, key)
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(*self.tls)
            self.server.socket = context.wrap_socket(self.listener, server_side=True, do_handshake_on_connect=False)
        self.thread = threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        self.thread.start()
        return self

    def __exit__(self, *exc):
        self.cut()
        self.server.shutdown()
        self.server.server_close()

    # --- objects ----------------------------------------------------------------------------------------------

    def put(self, kind, obj):
        """Adds or replaces; a pod that is as it was is an event all the same, as touching it would be."""
        with self.cond:
            meta = obj["metadata"]
            key = (meta.get("namespace", ""), meta["name"])
            old = self.objects[kind].get(key)
            self.version += 1
            meta["resourceVersion"] = str(self.version)
            meta.setdefault("uid", str(uuid.uuid4()))
            self.objects[kind][key] = obj
            self.events.append((self.version, kind, "MODIFIED" if old else "ADDED", copy.deepcopy(obj)))
            self.cond.notify_all()
        return obj

    def delete(self, kind, namespace, name):
        with self.cond:
            obj = self.objects[kind].pop((namespace, name))
            self.version += 1
            obj["metadata"]["resourceVersion"] = str(self.version)
            self.events.append((self.version, kind, "DELETED", copy.deepcopy(obj)))
            self.cond.notify_all()

    def vanish(self, kind, namespace, name):
        """Deleted while nobody could see the event: with forget(), a list must tell."""
        with self.cond:
            del self.objects[kind][namespace, name]
            self.version += 1

    def namespace(self, name, labels=None):
        return self.put("namespaces", {"kind": "Namespace", "apiVersion": "v1",
                                       "metadata": {"name": name, "labels": dict(labels or {})}})

    def pod(self, namespace, name, ips=(), labels=None, annotations=None, sa="default", phase="Running", uid=None,
            node=None, spec=None, status=None):
        """A new pod, or a new incarnation of one."""
        meta = {"namespace": namespace, "name": name, "uid": uid or str(uuid.uuid4()), "labels": dict(labels or {}),
                "annotations": dict(annotations or {})}
        ips = list(ips)
        return self.put("pods", {
            "kind": "Pod", "apiVersion": "v1", "metadata": meta,
            "spec": {"nodeName": node or self.node, "serviceAccountName": sa, "containers": [{"name": "app"}],
                     **(spec or {})},
            "status": {"phase": phase, **({"podIP": ips[0], "podIPs": [{"ip": x} for x in ips]} if ips else {}),
                       **(status or {})}})

    def get(self, namespace, name, kind="pods"):
        with self.cond:
            return copy.deepcopy(self.objects[kind].get((namespace, name)))

    def change(self, namespace, name, fn, kind="pods"):
        """fn changes a copy, which is then put."""
        with self.cond:
            obj = copy.deepcopy(self.objects[kind][namespace, name])
            fn(obj)
            return self.put(kind, obj)

    def mode(self, namespace, name, value):
        """istio.io/dataplane-mode of a pod, or with name None of the namespace; None removes it."""
        def fn(obj):
            labels = obj["metadata"]["labels"]
            labels.pop("istio.io/dataplane-mode", None)
            if value is not None:
                labels["istio.io/dataplane-mode"] = value
        return self.change(*((namespace, name, fn) if name else ("", namespace, fn, "namespaces")))

    def annotation(self, namespace, name, key="ambient.istio.io/redirection"):
        obj = self.get(namespace, name)
        return obj["metadata"]["annotations"].get(key) if obj else None

    # --- trouble ------------------------------------------------------------------------------------------------

    def forget(self):
        """Versions up to now are gone."""
        with self.cond:
            self.version += 1
            self.oldest = self.version
            self.events = []

    def cut(self):
        """Ends every watch, without a word."""
        with self.cond:
            self.generation += 1
            self.cond.notify_all()

    def kubeconfig(self, path, token=None, token_file=None, ca=None):
        user = {"token": token} if token else {"tokenFile": token_file} if token_file else {}
        cluster = {"server": f"{self.scheme}://{self.address}", **({"certificate-authority": ca} if ca else {})}
        with open(path, "w") as f:
            json.dump({"apiVersion": "v1", "kind": "Config", "current-context": "test",
                       "contexts": [{"name": "test", "context": {"cluster": "test", "user": "test"}}],
                       "clusters": [{"name": "test", "cluster": cluster}],
                       "users": [{"name": "test", "user": user}]}, f)
        return path

    def count(self, method, path="", **query):
        """How many requests were seen whose path has `path` and whose query has these."""
        with self.cond:
            return sum(m == method and path in p and all(q.get(k) == v for k, v in query.items())
                       for m, p, q in self.seen)


def status_object(code, message):
    return {"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": code, "message": message}


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *args):
        pass

    def answer(self, status, obj, headers=()):
        body = json.dumps(obj).encode() + b"\n"
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        for k, v in dict(headers).items():
            self.send_header(k, v)
        self.end_headers()
        self.wfile.write(body)

    def begin(self, method):
        """(path parts, query), or None when it has been answered."""
        url = urllib.parse.urlsplit(self.path)
        query = dict(urllib.parse.parse_qsl(url.query, keep_blank_values=True))
        api = self.kube
        self.body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        with api.cond:
            api.seen.append((method, url.path, query))
        special = api.hook(method, url.path, query) if api.hook else None
        if special:
            self.answer(*special)
            return None
        sent = (self.headers.get("Authorization") or "").removeprefix("Bearer ")
        if api.tokens is not None and sent not in api.tokens:
            self.answer(401, status_object(401, "Unauthorized"))
            return None
        parts = url.path.strip("/").split("/")
        if parts[:2] != ["api", "v1"]:
            self.answer(404, status_object(404, "the server could not find the requested resource"))
            return None
        return parts[2:], query

    def do_GET(self):
        begun = self.begin("GET")
        if not begun:
            return
        parts, query = begun
        if len(parts) == 1 and parts[0] in self.kube.objects:
            if query.get("watch") in ("1", "true"):
                self.watch(parts[0], query)
            else:
                self.list(parts[0], query)
        elif len(parts) == 2 and parts[0] == "namespaces":
            self.one("namespaces", "", parts[1])
        elif len(parts) == 4 and parts[0] == "namespaces" and parts[2] == "pods":
            self.one("pods", parts[1], parts[3])
        else:
            self.answer(404, status_object(404, "the server could not find the requested resource"))

    def one(self, kind, namespace, name):
        obj = self.kube.get(namespace, name, kind)
        self.answer(200, obj) if obj else self.answer(404, status_object(404, f'{kind} "{name}" not found'))

    @staticmethod
    def selects(kind, query, obj):
        want = query.get("fieldSelector", "")
        return kind != "pods" or not want or obj["spec"].get("nodeName") == want.removeprefix("spec.nodeName=")

    def list(self, kind, query):
        api = self.kube
        with api.cond:
            found = sorted((k, o) for k, o in api.objects[kind].items() if self.selects(kind, query, o))
            version, start = str(api.version), 0
            if token := query.get("continue"):
                at, start = token.split(".")
                start = int(start)
                if int(at) < api.oldest:
                    self.answer(410, status_object(410, "The provided continue parameter is too old"))
                    return
            end = start + int(query.get("limit") or len(found) or 1)
            meta = {"resourceVersion": version}
            if end < len(found):
                meta["continue"] = f"{version}.{end}"
            page = {"kind": "List", "apiVersion": "v1", "metadata": meta,
                    "items": [copy.deepcopy(o) for _, o in found[start:end]] or None}
        self.answer(200, page)

    def chunk(self, data):
        step = 1 if self.kube.drip else len(data)
        for i in range(0, len(data), step):
            piece = data[i:i + step]
            self.wfile.write(b"%x\r\n%s\r\n" % (len(piece), piece))
            self.wfile.flush()
            if self.kube.drip:
                time.sleep(self.kube.drip)

    def event(self, kind, obj):
        self.chunk(json.dumps({"type": kind, "object": obj}).encode() + b"\n")

    def watch(self, kind, query):
        api, at = self.kube, int(query.get("resourceVersion") or 0)
        with api.cond:
            if at < api.oldest:
                self.answer(410, status_object(410, f"too old resource version: {at} ({api.oldest})"))
                return
            generation = api.generation
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        end = time.monotonic() + int(query.get("timeoutSeconds") or 3600)
        with api.cond:
            api.watching[kind] += 1
            api.cond.notify_all()
        try:
            while self.watch_more(kind, query, at, generation, end):
                at = self.at
        finally:
            with api.cond:
                api.watching[kind] -= 1
            self.close_connection = True

    def watch_more(self, kind, query, at, generation, end):
        """Sends what there is; False: the watch is over."""
        api = self.kube

        def muted():
            return api.mute in (True, kind)

        with api.cond:
            def some():
                return api.generation != generation or (not muted() and any(
                    v > at and k == kind for v, k, _, _ in api.events))
            api.cond.wait_for(some, max(0, min(api.bookmark_s, end - time.monotonic())))
            if api.generation != generation:
                return False
            due = [] if muted() else [e for e in api.events if e[0] > at and e[1] == kind]
            version, oldest, mute = api.version, api.oldest, muted()
        self.at = at
        if not mute and at < oldest and not due:
            self.event("ERROR", status_object(410, "too old resource version"))
            return False
        for version, _, what, obj in due:
            self.at = version
            if self.selects(kind, query, obj):
                self.event(what, obj)
        if not due and not mute and query.get("allowWatchBookmarks"):
            self.at = version
            self.event("BOOKMARK", {"kind": "Pod", "apiVersion": "v1",
                                    "metadata": {"resourceVersion": str(version)}})
        if time.monotonic() > end:
            self.wfile.write(b"0\r\n\r\n")
            return False
        return True

    def do_PATCH(self):
        begun = self.begin("PATCH")
        if not begun:
            return
        parts, _ = begun
        if len(parts) != 5 or parts[0] != "namespaces" or parts[2] != "pods" or parts[4] != "status":
            self.answer(403, status_object(403, "only pods/status may be patched"))
            return
        if self.headers.get("Content-Type") != "application/merge-patch+json":
            self.answer(415, status_object(415, "only merge patches are taken"))
            return
        api, patch = self.kube, json.loads(self.body)
        with api.cond:
            obj = api.get(parts[1], parts[3])
            if not obj:
                self.answer(404, status_object(404, f'pods "{parts[3]}" not found'))
                return
            if patch["metadata"].get("uid", obj["metadata"]["uid"]) != obj["metadata"]["uid"]:
                self.answer(409, status_object(409, "Precondition failed: UID in precondition"))
                return
            for k, v in patch["metadata"].get("annotations", {}).items():
                obj["metadata"]["annotations"].pop(k, None)
                if v is not None:
                    obj["metadata"]["annotations"][k] = v
            api.put("pods", obj)
        self.answer(200, obj)
