{{/* Names and labels. Selectors hold name, instance and component only: they can never change. */}}
{{- define "orders.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 40 | trimSuffix "-" -}}
{{- else -}}
{{- $name := default .Chart.Name .Values.nameOverride -}}
{{- if contains $name .Release.Name -}}
{{- .Release.Name | trunc 40 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name $name | trunc 40 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{- define "orders.instanceSelector" -}}
app.kubernetes.io/name: {{ default .Chart.Name .Values.nameOverride }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{/* (dict "root" $ "component" "api") */}}
{{- define "orders.selector" -}}
{{ include "orders.instanceSelector" .root }}
app.kubernetes.io/component: {{ .component }}
{{- end -}}

{{- define "orders.podLabels" -}}
{{ include "orders.selector" . }}
app.kubernetes.io/version: {{ .root.Values.image.tag | default .root.Chart.AppVersion | quote }}
app.kubernetes.io/part-of: plumbline
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
{{- end -}}

{{- define "orders.labels" -}}
{{ include "orders.podLabels" . }}
helm.sh/chart: {{ printf "%s-%s" .root.Chart.Name .root.Chart.Version | replace "+" "_" }}
{{- end -}}

{{- define "orders.image" -}}
{{- $tag := .Values.image.tag | default .Chart.AppVersion -}}
{{- if .Values.image.digest -}}
{{ .Values.image.repository }}@{{ .Values.image.digest }}
{{- else -}}
{{ .Values.image.repository }}:{{ $tag }}
{{- end -}}
{{- end -}}

{{- define "orders.secretName" -}}
{{- if eq .Values.secrets.mode "external" -}}{{ include "orders.fullname" . }}-secrets{{- else -}}{{ .Values.secrets.existingName }}{{- end -}}
{{- end -}}

{{- define "orders.migrateSecretName" -}}
{{- if eq .Values.secrets.mode "external" -}}{{ include "orders.fullname" . }}-migrate-secrets{{- else -}}{{ .Values.secrets.existingMigrateName }}{{- end -}}
{{- end -}}

{{/* Argo CD applies waves in order and waits: what a Job (wave -1) needs must be there before it (wave -2). */}}
{{- define "orders.beforeJobs" -}}
argocd.argoproj.io/sync-wave: "-2"
{{- end -}}

{{/* Components of the worker role: one per entry of `workers`, the relay, the reaper. JSON: {"items": […]} */}}
{{- define "orders.backgroundComponents" -}}
{{- $items := list -}}
{{- range $name, $worker := .Values.workers -}}{{- if $worker -}}{{- $items = append $items (printf "worker-%s" $name) -}}{{- end -}}{{- end -}}
{{- $items = concat $items (list "relay" "reaper") -}}
{{- dict "items" $items | toJson -}}
{{- end -}}
