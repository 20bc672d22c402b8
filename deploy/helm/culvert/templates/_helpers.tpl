{{/* SPDX-License-Identifier: Apache-2.0 */}}
{{/* What both DaemonSets share. Helpers take (dict "root" $ "of" the component's values), or $ alone. */}}

{{- define "culvert.image" -}}
{{- $tag := .of.tag | default .root.Values.global.tag | default .root.Chart.AppVersion -}}
{{- $hub := .of.hub | default .root.Values.global.hub -}}
{{- if contains "/" .of.image -}}
{{ .of.image }}
{{- else -}}
{{ with $hub }}{{ . }}/{{ end }}{{ .of.image }}:{{ $tag }}
{{- end -}}
{{- end -}}

{{/* `name`: what Istio's tools look for in app.kubernetes.io/name. */}}
{{- define "culvert.labels" -}}
app.kubernetes.io/name: {{ .name }}
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
app.kubernetes.io/part-of: culvert
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
helm.sh/chart: {{ .root.Chart.Name }}-{{ .root.Chart.Version }}
{{- end -}}

{{/* Required node affinity, not a node selector: the keeper reads it at its end, to tell whether it is to leave the node. */}}
{{- define "culvert.affinity" -}}
{{- if and .of.affinity .root.Values.nodeLabels -}}
{{- fail "nodeLabels and an affinity of cni or ztunnel are both set; give one" -}}
{{- end -}}
{{- if .of.affinity -}}
affinity:
  {{- toYaml .of.affinity | nindent 2 }}
{{- else if .root.Values.nodeLabels -}}
affinity:
  nodeAffinity:
    requiredDuringSchedulingIgnoredDuringExecution:
      nodeSelectorTerms:
      - matchExpressions:
        {{- range $key, $value := .root.Values.nodeLabels }}
        - {key: {{ $key | quote }}, operator: In, values: [{{ $value | quote }}]}
        {{- end }}
{{- end -}}
{{- end -}}

{{/* Variables with a fixed value: the chart's, over which those of `env` win. */}}
{{- define "culvert.env" -}}
{{- range $name, $value := merge (dict) .of.env .ours }}
- {name: {{ $name }}, value: {{ $value | toString | quote }}}
{{- end }}
{{- end -}}

{{/* Variables that the kubelet fills in: NAME: path of the pod's field. */}}
{{- define "culvert.fields" -}}
{{- range $name, $path := . }}
- {name: {{ $name }}, valueFrom: {fieldRef: {fieldPath: {{ $path }}}}}
{{- end }}
{{- end -}}

{{- define "culvert.pullSecrets" -}}
{{- $all := concat .root.Values.global.imagePullSecrets (.of.imagePullSecrets | default list) | uniq -}}
{{- with $all -}}
imagePullSecrets:
{{- range . }}
- name: {{ . }}
{{- end }}
{{- end -}}
{{- end -}}

{{/* Values of cni, completed by the platform's row. YAML, for fromYaml. */}}
{{- define "culvert.cni" -}}
{{- $rows := .Files.Get "files/platforms.yaml" | fromYaml -}}
{{- $row := merge (dict) (get $rows (.Values.global.platform | default "default")) $rows.default -}}
{{- $c := .Values.cni -}}
binDir: {{ $c.cniBinDir | default $row.cniBinDir | quote }}
confDir: {{ $c.cniConfDir | default $row.cniConfDir | quote }}
netnsDir: {{ $c.cniNetnsDir | default $row.cniNetnsDir | quote }}
confFile: {{ $c.cniConfFileName | default $row.cniConfFileName | default "" | quote }}
chained: {{ if kindIs "bool" $c.chained }}{{ $c.chained }}{{ else }}{{ not $row.unchained }}{{ end }}
provider: {{ $c.provider | default $row.provider | default "default" | quote }}
{{- end -}}

{{- define "culvert.platformRow" -}}
{{- $rows := .Files.Get "files/platforms.yaml" | fromYaml -}}
{{- get $rows (.Values.global.platform | default "default") | toYaml -}}
{{- end -}}

{{- define "culvert.seLinux" -}}
{{- $row := include "culvert.platformRow" .root | fromYaml -}}
{{- $options := .of.seLinuxOptions -}}
{{- if and (not $options) $row.seLinuxType -}}
{{- $options = dict "type" $row.seLinuxType -}}
{{- end -}}
{{- with $options -}}
seLinuxOptions:
  {{- toYaml . | nindent 2 }}
{{- end -}}
{{- end -}}
