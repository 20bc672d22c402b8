/* SPDX-License-Identifier: Apache-2.0 */
/* The ports that a pod of Kubernetes has for its probes and for scrapers, as istio-cni's agent has them: /healthz and
 * /readyz, /metrics. They are open to the network, so they tell nothing else. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "net/http.h"
#include "node/ctl_internal.h"

struct look { /* a look on the loop, for the server's thread */
	const struct ctl_sources *from;
	bool metrics;
	struct kube_status status;
	struct install_status install;
	char *text;
};

static void look_now(void *arg)
{
	struct look *l = arg;

	if (l->metrics)
		l->text = ctl_metrics_text(l->from);
	else
		kube_status(l->from->kube, &l->status);
	if (l->from->install)
		install_status(l->from->install, &l->install);
	else
		l->install.ready = true;
}

static void look_release(void *arg)
{
	struct look *l = arg;

	free(l->text);
	free(l);
}

/* NULL, with an answer, when the loop could not be asked. */
static struct look *look(const struct ctl_sources *from, bool metrics, struct http_response *out)
{
	struct look *l = calloc(1, sizeof *l);
	int e = -ENOMEM;

	if (l) {
		l->from = from;
		l->metrics = metrics;
		e = http_call(from->loop, look_now, l, look_release);
	}
	if (!e)
		return l;
	http_text(out, 503, "the keeper is busy\n");
	if (l && e != -ETIMEDOUT)
		look_release(l);
	return NULL;
}

static void serve_health(void *arg, const struct http_request *rq, struct http_response *out)
{
	struct look *l;
	bool ready;

	if (strcmp(rq->path, "/healthz") == 0) {
		http_text(out, 200, "ok\n");
		return;
	}
	if (strcmp(rq->path, "/readyz") != 0) {
		http_text(out, 404, "try /healthz or /readyz\n");
		return;
	}
	l = look(arg, false, out);
	if (!l)
		return;
	ready = l->status.ready && l->install.ready;
	http_text(out, ready ? 200 : 503, "%s\npods %u, in the mesh %u, of these not enrolled %u\n%s%s%s%s",
		  ready ? "ready" : "not ready", l->status.pods, l->status.selected, l->status.waiting,
		  l->status.trouble, l->status.trouble[0] ? "\n" : "", l->install.trouble,
		  l->install.trouble[0] ? "\n" : "");
	look_release(l);
}

static void serve_metrics(void *arg, const struct http_request *rq, struct http_response *out)
{
	struct look *l;

	if (strcmp(rq->path, "/metrics") != 0) {
		http_text(out, 404, "try /metrics\n");
		return;
	}
	l = look(arg, true, out);
	if (!l)
		return;
	out->content_type = CTL_METRICS_TYPE;
	if (l->text)
		http_text(out, 200, "%s", l->text);
	else
		http_text(out, 500, "out of memory\n");
	look_release(l);
}

int ctl_ports_listen(struct http_server *s, const struct ctl_sources *from, char why[POD_WHY_MAX])
{
	const struct endpoint health = {addr_any6, CTL_HEALTH_PORT}, metrics = {addr_any6, from->metrics_port};
	int e = http_listen_tcp(s, &health, serve_health, (void *)from, why, POD_WHY_MAX);

	return e ? e : http_listen_tcp(s, &metrics, serve_metrics, (void *)from, why, POD_WHY_MAX);
}
