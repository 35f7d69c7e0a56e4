{{- define "switchback.name" -}}
{{- if contains .Chart.Name .Release.Name }}{{ .Release.Name | trunc 50 | trimSuffix "-" }}{{ else }}{{ printf "%s-%s" .Release.Name .Chart.Name | trunc 50 | trimSuffix "-" }}{{ end }}
{{- end }}

{{- define "switchback.selector" -}}
app.kubernetes.io/name: {{ .Chart.Name }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "switchback.labels" -}}
{{ include "switchback.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- end }}

{{- define "switchback.adminTls" -}}
{{ .Values.adminTls.secretName | default (printf "%s-admin-tls" (include "switchback.name" .)) }}
{{- end }}

{{- /* The config file: what the values say, with the admin API where the manifests expect it. */ -}}
{{- define "switchback.config" -}}
{{- $admin := dict "address" "0.0.0.0:9900" "tls" (dict "certificate" "/etc/switchback-admin/tls.crt" "key" "/etc/switchback-admin/tls.key") "allowed_hosts" (list (printf "%s-admin" (include "switchback.name" .)) (printf "%s-admin.%s.svc" (include "switchback.name" .) .Release.Namespace)) -}}
{{- if .Values.tokensSecretName }}{{ $_ := set $admin "tokens_file" "/etc/switchback-tokens/tokens.yaml" }}{{ end -}}
{{- $config := fromYaml .Values.config -}}
{{- if hasKey $config "Error" }}{{ fail (printf "config is no YAML: %s" $config.Error) }}{{ end -}}
{{- toYaml (mergeOverwrite (dict "admin" $admin) $config) }}
{{- end }}
