{{- define "leader-sidecar.operator" -}}
{{ include "leader-sidecar.fullname" . }}-operator
{{- end -}}

{{/* Names of cluster-scoped objects carry the namespace and the release, uncut: they may have 253 characters. */}}
{{- define "leader-sidecar.operator-cluster-name" -}}
{{ printf "leader-sidecar-%s-%s" .Release.Namespace (include "leader-sidecar.operator" .) }}
{{- end -}}

{{- define "leader-sidecar.operator-election" -}}
/leader-sidecar/{{ .Release.Namespace }}/{{ include "leader-sidecar.operator" . }}
{{- end -}}

{{- define "leader-sidecar.operator-account" -}}
{{- if .Values.rbac.create }}{{ include "leader-sidecar.operator" . }}{{ else }}{{ .Values.operator.serviceAccountName }}{{ end -}}
{{- end -}}

{{/* The namespaces that it looks after; none for all. */}}
{{- define "leader-sidecar.operator-namespaces" -}}
{{- if eq .Values.operator.scope "cluster" -}}
{{- list | toJson -}}
{{- else -}}
{{- prepend .Values.operator.namespaces .Release.Namespace | uniq | toJson -}}
{{- end -}}
{{- end -}}

{{- define "leader-sidecar.operator-webhooks" -}}
{{- if or .Values.operator.injection.enabled .Values.operator.eviction.enabled }}yes{{ end -}}
{{- end -}}

{{/* The Secrets that it may read, by namespace-less name: those for etcd. */}}
{{- define "leader-sidecar.operator-secrets" -}}
{{- $names := .Values.operator.etcdSecrets -}}
{{- if include "leader-sidecar.tls" . }}{{ $names = append $names (include "leader-sidecar.tls-secret" (list . "operator")) }}{{ end -}}
{{- if include "leader-sidecar.uses-passwords" . }}{{ $names = append $names (include "leader-sidecar.password-secret" (list . "operator")) }}{{ end -}}
{{- $names | uniq | toJson -}}
{{- end -}}

{{/* What it may do where it looks after Elections. */}}
{{- define "leader-sidecar.operator-rules" -}}
- apiGroups: [leader-sidecar.io]
  resources: [elections]
  verbs: [get, list, watch, patch]
- apiGroups: [leader-sidecar.io]
  resources: [elections/status]
  verbs: [patch]
- apiGroups: [""]
  resources: [pods]
  verbs: [get, list, watch, patch]
- apiGroups: [""]
  resources: [events]
  verbs: [create]
{{- if .Values.operator.services }}
- apiGroups: [""]
  resources: [services]
  verbs: [get, create, patch]
- apiGroups: [discovery.k8s.io]
  resources: [endpointslices]
  verbs: [get, create, patch]
{{- end }}
{{- if .Values.operator.eviction.enabled }}
- apiGroups: [policy]
  resources: [poddisruptionbudgets]
  verbs: [list]
{{- end }}
{{- with include "leader-sidecar.operator-secrets" . | fromJsonArray }}
- apiGroups: [""]
  resources: [secrets]
  resourceNames: {{ toJson . }}
  verbs: [get]
{{- end }}
{{- end -}}
