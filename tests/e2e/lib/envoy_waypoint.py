# SPDX-License-Identifier: Apache-2.0
"""Envoy as a waypoint, in the shape that Istio gives its own. Each box is a listener; those without a port are internal:

    :15008 connect_terminate --> main_internal --> connect_originate --> HBONE to the pod     `hbone`: no agent serves its pod
    127.0.0.1:15088 main --> the pod's address, as any application dials it                   `sandwich`: its pod's agent does HBONE

The one in the middle sees what was dialled and by whom: from CONNECT and certificate, or from the PROXY header. It picks the service by
it, refuses with 403 what it must, and says in a header what it saw. What comes to 15008 is in access_log()."""
import contextlib
import json
import signal
import socket

from .net import authority, family
from .peers import Envoy, address, cluster

SANDWICH = 15088
PRINCIPAL = "test.principal"  # whose connection it is, from wherever that was learnt
PEER_TLV = 0xD0
TYPES = "type.googleapis.com/envoy.extensions."
FILTERS = TYPES + "filters."
ORIGINAL_DST = {"name": "envoy.filters.listener.original_dst", "typed_config": {
    "@type": FILTERS + "listener.original_dst.v3.OriginalDst"}}
LOGGED = {"authority": "REQ(:AUTHORITY)", "baggage": "REQ(BAGGAGE)", "forwarded": "REQ(FORWARDED)", "traceparent": "REQ(TRACEPARENT)",
          "network": "REQ(X-FORWARDED-NETWORK)", "status": "RESPONSE_CODE", "peer": "DOWNSTREAM_PEER_URI_SAN",
          "from": "DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT", "tls": "DOWNSTREAM_TLS_VERSION", "sni": "REQUESTED_SERVER_NAME"}


class Service:
    """What goes to one of `vips` at `port` goes on to pod `to` at `target`; `http`: as requests, else as bytes."""

    def __init__(self, vips, port, to, target, http=True):
        self.vips, self.port, self.to, self.target, self.http = vips, port, to, target, http


class Waypoint(Envoy):
    """In `form` at `pod`. `refused`: {the beginning of a path: whose requests to it get a 403}."""

    def __init__(self, bed, pod, form, services, refused):
        super().__init__(bed, pod)
        self.form, self.services, self.refused = form, services, refused

    def serve(self):
        {"hbone": self._hbone, "sandwich": self._sandwich}[self.form]()

    @contextlib.contextmanager
    def away(self, number=signal.SIGKILL):
        """Ended by this signal meanwhile."""
        self.process.send_signal(number)
        self.process.wait(10)
        try:
            yield
        finally:
            self.serve()

    def access_log(self, **want):
        out = []
        with open(self.log, errors="replace") as f:
            for line in f:
                with contextlib.suppress(ValueError):
                    out.append(json.loads(line))
        return [x for x in out if all(x.get(k) == v for k, v in want.items())]

    # --- the two forms -------------------------------------------------------------------------------------------------

    def _hbone(self):
        said = filter_state("http", "on_request_headers", {
            "envoy.filters.listener.original_dst.local_ip": "REQ(:AUTHORITY)",
            "envoy.filters.listener.original_dst.remote_ip": "DOWNSTREAM_REMOTE_ADDRESS", PRINCIPAL: "DOWNSTREAM_PEER_URI_SAN"})
        terminate = manager("terminate", [said], [{"match": {"connect_matcher": {}}, "route": {
            "cluster": "main_internal", "timeout": "0s", "upgrade_configs": [{"upgrade_type": "CONNECT", "connect_config": {}}]}}],
            codec_type="HTTP2", http2_protocol_options={"allow_connect": True}, upgrade_configs=[{"upgrade_type": "CONNECT"}],
            access_log=[{"name": "stdout", "typed_config": {
                "@type": TYPES + "access_loggers.stream.v3.StdoutAccessLog",
                "log_format": {"json_format": {k: f"%{v}%" for k, v in LOGGED.items()}}}}])
        originate = network("tcp_proxy.v3.TcpProxy", stat_prefix="originate", cluster="connect_originate", idle_timeout="0s",
                            tunneling_config={"hostname": "%DOWNSTREAM_LOCAL_ADDRESS%"})
        clusters, chains = [internal("main_internal", "main_internal")], []
        for name, s, v6, chain in self._chains():
            target = authority(s.to.ip(v6), s.target)
            clusters.append(internal(name, "connect_originate", target, {"envoy.filters.listener.original_dst": {"local": target}}))
            chains.append(chain)
        clusters.append({
            "name": "connect_originate", "type": "ORIGINAL_DST", "lb_policy": "CLUSTER_PROVIDED", "connect_timeout": "5s",
            "original_dst_lb_config": {"upstream_port_override": 15008},
            "transport_socket": self.tls("UpstreamTlsContext", {s.to.spiffe for s in self.services}),
            "typed_extension_protocol_options": {"envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
                "@type": TYPES + "upstreams.http.v3.HttpProtocolOptions", "explicit_http_config": {"http2_protocol_options": {}}}}})
        self.boot([
            {"name": "connect_terminate", "address": both_families("::", 15008), "filter_chains": [{
                "transport_socket": self.tls("DownstreamTlsContext", {p.spiffe for p in self.bed.pod.values()}), "filters": [terminate]}]},
            {"name": "main_internal", "internal_listener": {}, "listener_filters": [ORIGINAL_DST], "filter_chains": chains},
            {"name": "connect_originate", "internal_listener": {}, "listener_filters": [ORIGINAL_DST],
             "filter_chains": [{"filters": [originate]}]}],
            clusters, 15008, bootstrap_extensions=[{"name": "internal_listener", "typed_config": {
                "@type": TYPES + "bootstrap.internal_listener.v3.InternalListener"}}])

    def _sandwich(self):
        proxy_header = {"name": "proxy_protocol", "typed_config": {
            "@type": FILTERS + "listener.proxy_protocol.v3.ProxyProtocol",
            "rules": [{"tlv_type": PEER_TLV, "on_tlv_present": {"key": "peer"}}]}}
        said = filter_state("network", "on_new_connection", {PRINCIPAL: "DYNAMIC_METADATA(envoy.filters.listener.proxy_protocol:peer)"})
        clusters, chains = [], []
        for name, s, v6, chain in self._chains():
            clusters.append(cluster(name, s.to.ip(v6), s.target))
            chains.append({**chain, "filters": [said, *chain["filters"]]})
        self.boot([{"name": "main", "address": address("127.0.0.1", SANDWICH), "listener_filters": [proxy_header],
                     "additional_addresses": [{"address": address("::1", SANDWICH)}], "filter_chains": chains}], clusters, SANDWICH)

    # --- what is common to them ----------------------------------------------------------------------------------------

    def _chains(self):
        """(cluster, service, v6, filter chain) for each service and family."""
        for s in self.services:
            for v6 in False, True:
                vips = [v for v in s.vips if (family(v) == socket.AF_INET6) == v6]
                ranges = [(v, 128 if v6 else 32) for v in vips]
                if not v6:  # in a PROXY header beside an IPv6 address
                    ranges += [(f"::ffff:{v}", 128) for v in vips]
                name = f"{s.port}-{'v6' if v6 else 'v4'}"
                yield name, s, v6, {
                    "name": name, "filters": [self._http(name) if s.http else network(
                        "tcp_proxy.v3.TcpProxy", stat_prefix=name, cluster=name, idle_timeout="0s")],
                    "filter_chain_match": {"destination_port": s.port, "prefix_ranges": [
                        {"address_prefix": v, "prefix_len": n} for v, n in ranges]}}

    def _http(self, name):
        rbac = {"name": "rbac", "typed_config": {"@type": FILTERS + "http.rbac.v3.RBAC", "rules": {"action": "DENY", "policies": {
            path: {"permissions": [{"url_path": {"path": {"prefix": path}}}],
                   "principals": [{"filter_state": {"key": PRINCIPAL, "string_match": {"exact": who}}}]}
            for path, who in self.refused.items()}}}}
        return manager(name, [rbac], [{"match": {"prefix": "/"}, "route": {"cluster": name, "timeout": "0s"}}], use_remote_address=True,
                       more={"response_headers_to_add": header("x-waypoint", self.pod.name),
                             "request_headers_to_add": header("x-principal", f"%FILTER_STATE({PRINCIPAL}:PLAIN)%")})


def both_families(ip, port):
    return {"socket_address": {"address": ip, "port_value": port, "ipv4_compat": True}}


def header(name, value):
    return [{"header": {"key": name, "value": value}, "append_action": "OVERWRITE_IF_EXISTS_OR_ADD"}]


def network(kind, **config):
    return {"name": kind, "typed_config": {"@type": FILTERS + "network." + kind, **config}}


def manager(name, filters, routes, more=None, **config):
    """An HTTP connection manager with these filters before its router."""
    router = {"name": "router", "typed_config": {"@type": FILTERS + "http.router.v3.Router"}}
    return network("http_connection_manager.v3.HttpConnectionManager", stat_prefix=name, stream_idle_timeout="0s", http_filters=[*filters, router],
                   route_config={"virtual_hosts": [{"name": "all", "domains": ["*"], "routes": routes}], **(more or {})}, **config)


def filter_state(layer, when, values):
    """A filter that keeps {key: what is known}, also for the internal connection behind it."""
    return {"name": "set_filter_state", "typed_config": {
        "@type": f"{FILTERS}{layer}.set_filter_state.v3.Config", when: [
            {"object_key": key, **({"factory_key": "envoy.string"} if key == PRINCIPAL else {}), "shared_with_upstream": "ONCE",
             "format_string": {"text_format_source": {"inline_string": f"%{value}%"}}} for key, value in values.items()]}}


def internal(name, listener, endpoint=None, metadata=None):
    """A cluster whose connections go to an internal listener, which is told the filter state and the endpoint's metadata."""
    raw = {"name": "raw", "typed_config": {"@type": TYPES + "transport_sockets.raw_buffer.v3.RawBuffer"}}
    at = {"endpoint": {"address": {"envoy_internal_address": {"server_listener_name": listener, **({"endpoint_id": endpoint} if endpoint else {})}}},
          "metadata": {"filter_metadata": metadata or {}}}
    return {"name": name, "type": "STATIC", "load_assignment": {"cluster_name": name, "endpoints": [{"lb_endpoints": [at]}]},
            "transport_socket": {"name": "internal_upstream", "typed_config": {
                "@type": TYPES + "transport_sockets.internal_upstream.v3.InternalUpstreamTransport",
                "passthrough_metadata": [{"kind": {"host": {}}, "name": key} for key in metadata or {}], "transport_socket": raw}}}
