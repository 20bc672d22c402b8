/* SPDX-License-Identifier: Apache-2.0 */
/* Owns what the control socket tells of the installation. The metrics' names are istio-cni's. */
#include "node/cni.h"
#include "node/ctl_internal.h"

json_t *ctl_install_json(const struct ctl_sources *from)
{
	struct install_status s;
	json_t *results;

	if (!from->install)
		return json_null();
	install_status(from->install, &s);
	results = json_object();
	for (enum install_result r = 0; r < INSTALL_RESULTS; r++)
		json_object_set_new(results, install_result_text(r), json_integer((json_int_t)s.results[r]));
	return json_pack("{sb ss ss so}", "ready", s.ready, "path", s.path, "trouble", s.trouble, "results", results);
}

void ctl_install_metrics(FILE *out, const struct ctl_sources *from)
{
	struct cni_answers answers[CNI_STATUSES];
	struct install_status s;

	cni_answers(from->cni, answers);
	fprintf(out, "# HELP istio_cni_plugin_requests_total Requests of the CNI plugin, by the answer's status.\n"
		     "# TYPE istio_cni_plugin_requests_total counter\n");
	for (unsigned i = 0; i < CNI_STATUSES; i++)
		fprintf(out, "istio_cni_plugin_requests_total{response_code=\"%d\"} %llu\n", answers[i].status,
			(unsigned long long)answers[i].n);
	if (!from->install)
		return;
	install_status(from->install, &s);
	fprintf(out, "# HELP istio_cni_installs_total Installations of the CNI plugin, by result.\n"
		     "# TYPE istio_cni_installs_total counter\n");
	for (enum install_result r = 0; r < INSTALL_RESULTS; r++)
		fprintf(out, "istio_cni_installs_total{result=\"%s\"} %llu\n", install_result_text(r),
			(unsigned long long)s.results[r]);
	fprintf(out,
		"# HELP istio_cni_install_ready Whether the CNI plugin is installed, and as it should be.\n"
		"# TYPE istio_cni_install_ready gauge\nistio_cni_install_ready %d\n",
		s.ready);
}
