{{/* SPDX-License-Identifier: Apache-2.0 */}}
{{/* Variables of both programs: Istio's names where Istio has them. YAML, for fromYaml. */}}

{{- define "culvert.cniEnv" -}}
{{- $v := .Values.cni -}}
{{- $cni := include "culvert.cni" . | fromYaml -}}
AMBIENT_ENABLED: "true"
AMBIENT_ENABLEMENT_SELECTOR: {{ toYaml $v.ambient.enablementSelectors | quote }}
AMBIENT_DNS_CAPTURE: {{ $v.ambient.dnsCapture | quote }}
ENABLE_AMBIENT_DETECTION_RETRY: {{ $v.ambient.enableAmbientDetectionRetry | quote }}
CHAINED_CNI_PLUGIN: {{ $cni.chained | quote }}
{{- with $cni.confFile }}
CNI_CONF_NAME: {{ . | quote }}
{{- end }}
{{- if $v.istioOwnedCNIConfig }}
ISTIO_OWNED_CNI_CONFIG: "true"
{{- with $v.istioOwnedCNIConfigFileName }}
ISTIO_OWNED_CNI_CONFIG_FILENAME: {{ . | quote }}
{{- end }}
{{- end }}
EXCLUDE_NAMESPACES: {{ join "," $v.excludeNamespaces | quote }}
SYSTEM_NAMESPACE: {{ .Release.Namespace | quote }}
CULVERT_STEERING: {{ $v.steering | quote }}
CULVERT_LOG: {{ $v.logging.level | default .Values.global.logging.level | quote }}
LOG_FORMAT: {{ ternary "json" "plain" .Values.global.logAsJson }}
{{- end -}}

{{- define "culvert.cniFields" -}}
NODE_NAME: spec.nodeName
POD_NAMESPACE: metadata.namespace
{{- end -}}

{{- define "culvert.ztunnelFields" -}}
INSTANCE_IP: status.podIP
NODE_NAME: spec.nodeName
POD_NAME: metadata.name
POD_NAMESPACE: metadata.namespace
{{- end -}}

{{- define "culvert.ztunnelEnv" -}}
{{- $v := .Values.ztunnel -}}
{{- $istiod := printf "istiod%s.%s.svc:15012" (ternary (printf "-%s" $v.revision) "" (ne $v.revision "")) ($v.istioNamespace | default .Values.global.istioNamespace) -}}
XDS_ADDRESS: {{ $v.xdsAddress | default $istiod | quote }}
CA_ADDRESS: {{ $v.caAddress | default $istiod | quote }}
ISTIO_META_CLUSTER_ID: {{ $v.multiCluster.clusterName | default .Values.global.multiCluster.clusterName | default "Kubernetes" | quote }}
{{- with $v.network | default .Values.global.network }}
NETWORK: {{ . | quote }}
{{- end }}
INPOD_UDS: /var/run/ztunnel/ztunnel.sock
CULVERT_RUN_DIR: /run/culvert
TERMINATION_GRACE_PERIOD_SECONDS: {{ $v.terminationGracePeriodSeconds | quote }}
CULVERT_DRAIN_LIMIT: {{ printf "%ds" (int $v.terminationGracePeriodSeconds) | quote }}
RUST_LOG: {{ $v.logLevel | default .Values.global.logging.level | quote }}
LOG_FORMAT: {{ ternary "json" "plain" (or $v.logAsJson .Values.global.logAsJson) }}
{{- end -}}
