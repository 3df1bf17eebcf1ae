{{/* The one pod of every process. (dict "root" $ "component" "api" "args" (list …) "account" "api" "values" … "grace" 60 …) */}}
{{- define "orders.podSecurity" -}}
runAsNonRoot: true
runAsUser: 10001
runAsGroup: 10001
fsGroup: 10001
fsGroupChangePolicy: OnRootMismatch
seccompProfile: {type: RuntimeDefault}
{{- end -}}

{{- define "orders.containerSecurity" -}}
runAsNonRoot: true
runAsUser: 10001
runAsGroup: 10001
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: {drop: [ALL]}
seccompProfile: {type: RuntimeDefault}
{{- end -}}

{{/* Image, environment, mounts: what every container of this chart shares. (dict "root" $ "account" "api") */}}
{{- define "orders.containerCommon" -}}
image: {{ include "orders.image" .root | quote }}
imagePullPolicy: {{ .root.Values.image.pullPolicy }}
envFrom:
  - configMapRef: {name: {{ include "orders.fullname" .root }}-config}
{{- with include "orders.identity" (dict "root" .root "account" (.account | default "migrate")) | trim }}
env: {{- . | nindent 2 }}
{{- end }}
securityContext: {{- include "orders.containerSecurity" . | nindent 2 }}
volumeMounts:
  - {name: tmp, mountPath: /tmp}
  - {name: secrets, mountPath: /var/run/secrets/plumbline, readOnly: true}
{{- end -}}

{{/* (dict "root" $ "secret" name) */}}
{{- define "orders.volumes" -}}
- name: tmp
  emptyDir: {sizeLimit: 64Mi}
- name: secrets
  secret: {secretName: {{ .secret }}, defaultMode: 0440}
{{- end -}}

{{- define "orders.placement" -}}
{{- with .Values.image.pullSecrets }}
imagePullSecrets:
{{- range . }}
  - name: {{ . }}
{{- end }}
{{- end }}
{{- with .Values.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- with .Values.nodeSelector }}
nodeSelector: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.tolerations }}
tolerations: {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}

{{- define "orders.spread" -}}
topologySpreadConstraints:
  - maxSkew: 1
    topologyKey: topology.kubernetes.io/zone
    whenUnsatisfiable: {{ .root.Values.zoneSpread }}
    nodeTaintsPolicy: Honor
    matchLabelKeys: [pod-template-hash]
    labelSelector:
      matchLabels: {{- include "orders.selector" . | nindent 8 }}
  - maxSkew: 1
    topologyKey: kubernetes.io/hostname
    whenUnsatisfiable: ScheduleAnyway
    nodeTaintsPolicy: Honor
    matchLabelKeys: [pod-template-hash]
    labelSelector:
      matchLabels: {{- include "orders.selector" . | nindent 8 }}
{{- end -}}

{{- define "orders.probes" -}}
startupProbe:
  httpGet: {path: /health/startup, port: ops}
  periodSeconds: 2
  timeoutSeconds: 2
  failureThreshold: 30
livenessProbe:
  httpGet: {path: /health/live, port: ops}
  periodSeconds: 10
  timeoutSeconds: 2
  failureThreshold: 3
readinessProbe:
  httpGet: {path: /health/ready, port: ops}
  periodSeconds: 5
  timeoutSeconds: 2
  failureThreshold: 2
{{- end -}}

{{- define "orders.podTemplate" -}}
metadata:
  labels: {{- include "orders.podLabels" . | nindent 4 }}
  annotations:
    checksum/config: {{ include "orders.environment" .root | sha256sum }}
spec:
  serviceAccountName: {{ include "orders.fullname" .root }}-{{ .account }}
  automountServiceAccountToken: false
  enableServiceLinks: false
  terminationGracePeriodSeconds: {{ .grace }}
  {{- with include "orders.placement" .root | trim }}{{ . | nindent 2 }}{{ end }}
  securityContext: {{- include "orders.podSecurity" . | nindent 4 }}
  {{- include "orders.spread" . | nindent 2 }}
  initContainers:
    - name: db-wait
      args: [db-wait]
      {{- include "orders.containerCommon" . | nindent 6 }}
      resources: {{- toYaml .root.Values.migrate.resources | nindent 8 }}
  containers:
    - name: {{ .container }}
      args: {{ toJson .args }}
      {{- include "orders.containerCommon" . | nindent 6 }}
      ports:
        {{- if .http }}
        - {name: http, containerPort: 8000}
        {{- end }}
        - {name: ops, containerPort: 9000}
      {{- if .preStop }}
      lifecycle:
        preStop:
          sleep: {seconds: {{ .preStop }}}
      {{- end }}
      {{- include "orders.probes" . | nindent 6 }}
      resources: {{- toYaml .resources | nindent 8 }}
  volumes: {{- include "orders.volumes" (dict "secret" (include "orders.secretName" .root)) | nindent 4 }}
{{- end -}}

{{- define "orders.metadata" -}}
name: {{ include "orders.fullname" .root }}-{{ .component }}
namespace: {{ .root.Release.Namespace }}
labels: {{- include "orders.labels" . | nindent 2 }}
{{- end -}}

{{- define "orders.pdb" -}}
apiVersion: policy/v1
kind: PodDisruptionBudget
metadata: {{- include "orders.metadata" . | nindent 2 }}
spec:
  maxUnavailable: {{ .root.Values.podDisruptionBudget.maxUnavailable }}
  unhealthyPodEvictionPolicy: AlwaysAllow
  selector:
    matchLabels: {{- include "orders.selector" . | nindent 6 }}
{{- end -}}

{{/* Headless: lets Prometheus find the pods of a workload that serves no traffic. */}}
{{- define "orders.opsService" -}}
apiVersion: v1
kind: Service
metadata: {{- include "orders.metadata" . | nindent 2 }}
spec:
  clusterIP: None
  selector: {{- include "orders.selector" . | nindent 4 }}
  ports:
    - {name: ops, port: 9000, targetPort: ops}
{{- end -}}
