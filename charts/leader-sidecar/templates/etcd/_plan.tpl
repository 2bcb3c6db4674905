{{/* etcd's configuration but for what differs between members; those keys the init container writes. */}}
{{- define "leader-sidecar.etcd-config" -}}
{{- $scheme := include "leader-sidecar.scheme" . -}}
{{- $config := dict
  "listen-peer-urls" (printf "%s://0.0.0.0:2380" $scheme)
  "listen-client-urls" (printf "%s://0.0.0.0:2379" $scheme)
  "listen-metrics-urls" "http://0.0.0.0:2381"
  "auto-compaction-mode" "periodic"
  "auto-compaction-retention" .Values.etcd.autoCompactionRetention
  "quota-backend-bytes" (int64 .Values.etcd.quotaBackendBytes)
  "heartbeat-interval" (int64 .Values.etcd.heartbeatInterval)
  "election-timeout" (int64 .Values.etcd.electionTimeout)
  "log-level" "info"
-}}
{{- if ne .Values.tls.mode "none" -}}
{{- $files := dict "cert-file" "/etc/etcd-tls/tls.crt" "key-file" "/etc/etcd-tls/tls.key" "trusted-ca-file" "/etc/etcd-tls/ca.crt" "client-cert-auth" true -}}
{{- $_ := set $config "client-transport-security" $files -}}
{{- $_ := set $config "peer-transport-security" $files -}}
{{- end -}}
{{- if eq .Values.users.mode "password" -}}
{{- $_ := set $config "auth-token" "jwt,priv-key=/etc/etcd-jwt/key,sign-method=HS256,ttl=10m" -}}
{{- end -}}
{{- mergeOverwrite $config (deepCopy (.Values.etcd.config | default dict)) | toJson -}}
{{- end -}}

{{- define "leader-sidecar.plan" -}}
{{- $scheme := include "leader-sidecar.scheme" . -}}
{{- $domain := include "leader-sidecar.etcd-domain" . -}}
{{- dict
  "statefulSet" (include "leader-sidecar.etcd" .)
  "namespace" .Release.Namespace
  "replicas" (int64 .Values.etcd.replicas)
  "peerUrl" (printf "%s://{name}.%s:2380" $scheme $domain)
  "clientUrl" (printf "%s://{name}.%s:2379" $scheme $domain)
  "endpoints" (include "leader-sidecar.endpoints" .)
  "token" (printf "%s-%s" .Release.Namespace (include "leader-sidecar.etcd" .))
  "autoReplaceMember" (or .Values.etcd.autoReplaceMember (not .Values.etcd.persistence.enabled))
  "config" (include "leader-sidecar.etcd-config" . | fromJson)
  | toPrettyJson -}}
{{- end -}}

{{/* Who may what: exactly the election's range for the sidecars. */}}
{{- define "leader-sidecar.users" -}}
{{- $users := list
  (dict "name" "root")
  (dict "name" "sidecar" "elections" (list (include "leader-sidecar.election" .)))
  (dict "name" "master" "readWrite" .Values.users.masterReadWrite "read" (list (printf "%s/" (include "leader-sidecar.election" .))))
-}}
{{- if .Values.operator.enabled -}}
{{- $users = append $users (dict "name" "operator" "elections" (list (include "leader-sidecar.operator-election" .) (include "leader-sidecar.election" .))) -}}
{{- end -}}
{{- range .Values.users.extra }}{{ $users = append $users (deepCopy .) }}{{ end -}}
{{- if eq .Values.users.mode "password" -}}
{{- range $users }}{{ $_ := set . "passwordFile" (printf "/etc/etcd-users/%s/password" .name) }}{{ end -}}
{{- end -}}
{{- dict "users" $users | toPrettyJson -}}
{{- end -}}

{{/* A pod that runs one command of `leader-sidecar etcd`. Call with
     (dict "root" $ "component" "x" "account" "name" "args" (list ...) "env" dict "volumes" "..." "mounts" "..." "token" true "restartPolicy" "Never"). */}}
{{- define "leader-sidecar.etcd-command-pod" -}}
{{- $root := .root -}}
metadata:
  labels:
    {{- include "leader-sidecar.selector" (list $root .component) | nindent 4 }}
spec:
  restartPolicy: {{ .restartPolicy }}
  serviceAccountName: {{ .account }}
  automountServiceAccountToken: false
  {{- with $root.Values.imagePullSecrets }}
  imagePullSecrets:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with $root.Values.etcd.nodeSelector }}
  nodeSelector:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with $root.Values.etcd.tolerations }}
  tolerations:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  securityContext:
    {{- include "leader-sidecar.pod-security" $root | nindent 4 }}
  containers:
    - name: {{ .component }}
      {{- include "leader-sidecar.own-image" $root | nindent 6 }}
      args:
        {{- toYaml .args | nindent 8 }}
      {{- with include "leader-sidecar.credentials-env" (list $root "root" "LEADER_SIDECAR_") }}
      env:
        {{- . | nindent 8 }}
      {{- end }}
      resources:
        {{- toYaml $root.Values.etcd.helperResources | nindent 8 }}
      securityContext:
        {{- include "leader-sidecar.security" $root | nindent 8 }}
      terminationMessagePolicy: FallbackToLogsOnError
      volumeMounts:
        - {name: plan, mountPath: /etc/leader-sidecar, readOnly: true}
        {{- if .token }}
        {{- include "leader-sidecar.token-mount" $root | nindent 8 }}
        {{- end }}
        {{- include "leader-sidecar.credentials-mount" (list $root "root") | nindent 8 }}
        {{- with .mounts }}
        {{- . | nindent 8 }}
        {{- end }}
  volumes:
    - name: plan
      configMap: {name: {{ .plan }}}
    {{- if .token }}
    {{- include "leader-sidecar.token-volume" $root | nindent 4 }}
    {{- end }}
    {{- include "leader-sidecar.credentials-volume" (ternary (list $root "root" true) (list $root "root") (hasKey . "optional")) | nindent 4 }}
    {{- with .volumes }}
    {{- . | nindent 4 }}
    {{- end }}
{{- end -}}
