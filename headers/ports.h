/* SPDX-License-Identifier: Apache-2.0 */
/* Ports and marks that Culvert shares with ztunnel, istio-cni and the BPF programs. */
#pragma once

enum culvert_port {
	PORT_ADMIN = 15000,    /* loopback only */
	PORT_OUTBOUND = 15001, /* in the pod: captured egress */
	PORT_INBOUND = 15006,  /* in the pod: captured plaintext ingress */
	PORT_HBONE = 15008,    /* in the pod: HBONE server */
	PORT_STATS = 15020,    /* Prometheus */
	PORT_READY = 15021,    /* readiness */
	PORT_DNS = 15053,      /* in the pod: captured DNS, UDP and TCP */
	PORT_SOCKS = 15080,    /* in the pod, loopback only: SOCKS5, where it is enabled */
};

#define CULVERT_MARK_AGENT 0x539u /* SO_MARK of the agent's sockets (1337) */
#define CULVERT_MARK_LOCAL 0x111u /* packets that the policy rule delivers locally */
#define CULVERT_MARK_MASK  0xfffu /* bits above belong to others and are kept */
