/* SPDX-License-Identifier: Apache-2.0 */
/* What culvertctl and the tunnel say at RUN_DIR/tap.sock (SOCK_STREAM, mode 0600, root alone; it is there with
 * CULVERT_TAP=true). Lines of JSON. Fields may be added, and readers ignore those that they do not know.
 *
 * The reader says one line, TAP_REQUEST_MAX bytes at most, within TAP_REQUEST_MS:
 *   {"pod": NAME, NAMESPACE/NAME or uid, "peer": address, NAME, NAMESPACE/NAME, host name or SPIFFE ID, or absent}
 * and is answered {"error": text}, and the end, or {"tap": {"pod": {"uid", "namespace", "name"}, "peer": text}}, and then
 * one line for each thing that happens, until one side closes:
 *   {"event": "opened" | "data" | "closed", "connection": number, "time": microseconds since 1970,
 *    "direction": "inbound" | "outbound" as the pod sees it, "protocol": "HBONE" | "TCP" | "local",
 *    "client", "server": {"address": "IP:PORT", "identity", "workload", "service": texts, if known},
 *    "received", "sent": bytes so far towards the server and towards the client,
 *    of data: "to": "server" | "client", "length": bytes, "data": base64; of closed: "error": text, if any}
 *   {"event": "lost", "records", "bytes": what the reader was too slow for, since the begin} */
#pragma once

#define TAP_SOCKET "tap.sock"
enum { TAP_REQUEST_MAX = 1024, TAP_REQUEST_MS = 2000 };
