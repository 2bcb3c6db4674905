{{- define "leader-sidecar.fullname" -}}
{{- .Values.fullnameOverride | default .Release.Name | trunc 40 | trimSuffix "-" -}}
{{- end -}}

{{- define "leader-sidecar.etcd" -}}
{{ include "leader-sidecar.fullname" . }}-etcd
{{- end -}}

{{/* Labels that never change for a component. Call with (list $ "component"). */}}
{{- define "leader-sidecar.selector" -}}
{{- $root := index . 0 -}}
app.kubernetes.io/name: {{ $root.Values.nameOverride | default $root.Chart.Name | trunc 63 | trimSuffix "-" }}
app.kubernetes.io/instance: {{ $root.Release.Name }}
app.kubernetes.io/component: {{ index . 1 }}
{{- end -}}

{{- define "leader-sidecar.labels" -}}
{{- $root := index . 0 -}}
{{ include "leader-sidecar.selector" . }}
app.kubernetes.io/version: {{ $root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ $root.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" $root.Chart.Name $root.Chart.Version | replace "+" "_" }}
{{- with $root.Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{/* Name, namespace, labels and annotations of an object. Call with (dict "root" $ "component" "master" "name" "x" "annotations" dict). */}}
{{- define "leader-sidecar.metadata" -}}
{{- $annotations := merge (dict) (.annotations | default dict) (.root.Values.commonAnnotations | default dict) -}}
name: {{ .name }}
namespace: {{ .root.Release.Namespace }}
labels:
  {{- include "leader-sidecar.labels" (list .root .component) | nindent 2 }}
  {{- with .labels }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- with $annotations }}
annotations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}

{{/* Call with (list $ .Values.image "default tag"). */}}
{{- define "leader-sidecar.image" -}}
{{- $image := index . 1 -}}
{{- with $image.registry }}{{ . }}/{{ end }}{{ $image.repository }}
{{- if $image.digest }}@{{ $image.digest }}{{ else }}:{{ $image.tag | default (index . 0).Chart.AppVersion }}{{ end -}}
{{- end -}}

{{/* A container of the image of the sidecar: image, and nothing it could do harm with. */}}
{{- define "leader-sidecar.own-image" -}}
image: {{ include "leader-sidecar.image" (list . .Values.image) }}
imagePullPolicy: {{ .Values.image.pullPolicy }}
{{- end -}}

{{- define "leader-sidecar.election" -}}
{{- .Values.sidecar.election | default (printf "/leader-sidecar/%s/%s" .Release.Namespace .Release.Name) -}}
{{- end -}}

{{- define "leader-sidecar.tls" -}}
{{- if .Values.etcd.enabled }}{{ if ne .Values.tls.mode "none" }}yes{{ end }}{{ else if .Values.etcd.external.tlsSecret }}yes{{ end -}}
{{- end -}}

{{- define "leader-sidecar.scheme" -}}
{{- if and .Values.etcd.enabled (ne .Values.tls.mode "none") }}https{{ else }}http{{ end -}}
{{- end -}}

{{- define "leader-sidecar.etcd-domain" -}}
{{ include "leader-sidecar.etcd" . }}.{{ .Release.Namespace }}.svc
{{- end -}}

{{/* The headless name is the one endpoint: every member behind it is an address to try. */}}
{{- define "leader-sidecar.endpoints" -}}
{{- if .Values.etcd.enabled -}}
{{ include "leader-sidecar.scheme" . }}://{{ include "leader-sidecar.etcd-domain" . }}:2379
{{- else -}}
{{ .Values.etcd.external.endpoints }}
{{- end -}}
{{- end -}}

{{/* Who there is: every name has a certificate, and where users are on, rights. */}}
{{- define "leader-sidecar.clients" -}}
{{- $names := list "root" "sidecar" "master" -}}
{{- if .Values.operator.enabled }}{{ $names = append $names "operator" }}{{ end -}}
{{- range .Values.users.extra }}{{ $names = append $names .name }}{{ end -}}
{{- $names | uniq | toJson -}}
{{- end -}}

{{/* Secret with the certificate of the members ("server") or of a user. Call with (list $ "name"). */}}
{{- define "leader-sidecar.tls-secret" -}}
{{- $root := index . 0 -}}{{- $name := index . 1 -}}
{{- if not $root.Values.etcd.enabled -}}
{{ $root.Values.etcd.external.tlsSecret }}
{{- else if eq $root.Values.tls.mode "existingSecret" -}}
{{ get $root.Values.tls.existingSecret $name }}
{{- else -}}
{{ include "leader-sidecar.fullname" $root }}-tls-{{ $name }}
{{- end -}}
{{- end -}}

{{/* Secret with the password of a user. Call with (list $ "name"). */}}
{{- define "leader-sidecar.password-secret" -}}
{{- $root := index . 0 -}}{{- $name := index . 1 -}}
{{- if not $root.Values.etcd.enabled -}}
{{ $root.Values.etcd.external.passwordSecret }}
{{- else -}}
{{ get $root.Values.users.existingSecrets $name | default (printf "%s-user-%s" (include "leader-sidecar.fullname" $root) $name) }}
{{- end -}}
{{- end -}}

{{- define "leader-sidecar.uses-passwords" -}}
{{- if .Values.etcd.enabled }}{{ if eq .Values.users.mode "password" }}yes{{ end }}{{ else if .Values.etcd.external.user }}yes{{ end -}}
{{- end -}}

{{- define "leader-sidecar.shows-certificates" -}}
{{- if .Values.etcd.enabled }}{{ if ne .Values.tls.mode "none" }}yes{{ end }}{{ else if .Values.etcd.external.clientCertificate }}yes{{ end -}}
{{- end -}}

{{/* Environment that says who a client of etcd is. Call with (list $ "user" "PREFIX_"). */}}
{{- define "leader-sidecar.credentials-env" -}}
{{- $root := index . 0 -}}{{- $user := index . 1 -}}{{- $prefix := index . 2 -}}
{{- if include "leader-sidecar.tls" $root }}
- {name: {{ $prefix }}CACERT, value: /etc/etcd-client/tls/ca.crt}
{{- end }}
{{- if include "leader-sidecar.shows-certificates" $root }}
- {name: {{ $prefix }}CERT, value: /etc/etcd-client/tls/tls.crt}
- {name: {{ $prefix }}KEY, value: /etc/etcd-client/tls/tls.key}
{{- end }}
{{- if include "leader-sidecar.uses-passwords" $root }}
- {name: {{ $prefix }}USER, value: {{ ternary $user $root.Values.etcd.external.user $root.Values.etcd.enabled | quote }}}
- {name: {{ $prefix }}PASSWORD_FILE, value: /etc/etcd-client/user/password}
{{- end }}
{{- end -}}

{{- define "leader-sidecar.has-credentials" -}}
{{- if or (include "leader-sidecar.tls" .) (include "leader-sidecar.uses-passwords" .) }}yes{{ end -}}
{{- end -}}

{{/* The volume with the files of the above. Call with (list $ "user"), or (list $ "user" true) where a Secret may be missing. */}}
{{- define "leader-sidecar.credentials-volume" -}}
{{- $root := index . 0 -}}{{- $user := index . 1 -}}{{- $optional := gt (len .) 2 -}}
{{- if include "leader-sidecar.has-credentials" $root }}
- name: etcd-{{ $user }}
  projected:
    defaultMode: 0440
    sources:
      {{- if include "leader-sidecar.tls" $root }}
      - secret:
          name: {{ include "leader-sidecar.tls-secret" (list $root $user) }}
          {{- if $optional }}
          optional: true
          {{- end }}
          items:
            - {key: ca.crt, path: tls/ca.crt}
            {{- if include "leader-sidecar.shows-certificates" $root }}
            - {key: tls.crt, path: tls/tls.crt}
            - {key: tls.key, path: tls/tls.key}
            {{- end }}
      {{- end }}
      {{- if include "leader-sidecar.uses-passwords" $root }}
      - secret:
          name: {{ include "leader-sidecar.password-secret" (list $root $user) }}
          {{- if $optional }}
          optional: true
          {{- end }}
          items:
            - {key: password, path: user/password}
      {{- end }}
{{- end }}
{{- end -}}

{{- define "leader-sidecar.credentials-mount" -}}
{{- $root := index . 0 -}}{{- $user := index . 1 -}}
{{- if include "leader-sidecar.has-credentials" $root }}
- {name: etcd-{{ $user }}, mountPath: /etc/etcd-client, readOnly: true}
{{- end }}
{{- end -}}

{{/* A token for the API server as a volume, so that only the containers that mount it have it. */}}
{{- define "leader-sidecar.token-volume" -}}
- name: api-token
  projected:
    defaultMode: 0440
    sources:
      - serviceAccountToken: {path: token, expirationSeconds: 3600}
      - configMap:
          name: kube-root-ca.crt
          items:
            - {key: ca.crt, path: ca.crt}
      - downwardAPI:
          items:
            - {path: namespace, fieldRef: {fieldPath: metadata.namespace}}
{{- end -}}

{{- define "leader-sidecar.token-mount" -}}
- {name: api-token, mountPath: /var/run/secrets/kubernetes.io/serviceaccount, readOnly: true}
{{- end -}}

{{- define "leader-sidecar.pod-env" -}}
- name: POD_NAME
  valueFrom: {fieldRef: {fieldPath: metadata.name}}
- name: POD_NAMESPACE
  valueFrom: {fieldRef: {fieldPath: metadata.namespace}}
- name: POD_UID
  valueFrom: {fieldRef: {fieldPath: metadata.uid}}
- name: POD_IP
  valueFrom: {fieldRef: {fieldPath: status.podIP}}
{{- end -}}

{{- define "leader-sidecar.linger" -}}
{{- if include "leader-sidecar.forwards" . }}{{ .Values.forwarder.linger }}{{ else }}0{{ end -}}
{{- end -}}

{{- define "leader-sidecar.forwards" -}}
{{- if .Values.forwarder.enabled -}}
{{- range .Values.master.ports }}{{ if .forwardPort }}yes{{ end }}{{ end -}}
{{- end -}}
{{- end -}}

{{/* The name of the port where connections to the leader are taken: at most 15 characters. Call with a port. */}}
{{- define "leader-sidecar.forward-name" -}}
fwd-{{ .name | trunc 11 | trimSuffix "-" }}
{{- end -}}

{{/* What is wrong with an election's name, or nothing. Call with the name. */}}
{{- define "leader-sidecar.election-problem" -}}
{{- $last := splitList "/" . | last -}}
{{- if regexMatch "[\\x00-\\x1f\\x7f]" . -}}holds a control character
{{- else if hasSuffix "/" . -}}ends in /; leave the slash out
{{- else if contains "//" . -}}has //; use single slashes
{{- else if or (has "." (splitList "/" .)) (has ".." (splitList "/" .)) -}}has a segment . or ..
{{- else if or (hasSuffix ".control" $last) (hasSuffix ".history" $last) -}}ends in .control or .history, which are ours
{{- end -}}
{{- end -}}

{{/* Seconds of a duration: a number of seconds, or a text with ms, s or m. */}}
{{- define "leader-sidecar.seconds" -}}
{{- $text := toString . -}}
{{- $number := regexFind "^[0-9.]+" $text -}}
{{- if hasSuffix "ms" $text }}{{ divf $number 1000 }}{{ else if hasSuffix "m" $text }}{{ mulf $number 60 }}{{ else }}{{ $number }}{{ end -}}
{{- end -}}

{{/* Bytes of a quantity, such as 1Gi. */}}
{{- define "leader-sidecar.bytes" -}}
{{- $text := toString . -}}
{{- $units := dict "" 1 "m" 0.001 "k" 1000 "M" 1000000 "G" 1000000000 "T" 1000000000000 "Ki" 1024 "Mi" 1048576 "Gi" 1073741824 "Ti" 1099511627776 -}}
{{- mulf (regexFind "^[0-9.]+" $text) (get $units (regexFind "[A-Za-z]*$" $text)) -}}
{{- end -}}

{{- define "leader-sidecar.least-grace" -}}
{{- add (ceil .Values.sidecar.drain) (include "leader-sidecar.linger" . | int) .Values.master.stopSeconds 5 -}}
{{- end -}}

{{- define "leader-sidecar.grace" -}}
{{- $least := include "leader-sidecar.least-grace" . | int -}}
{{- $given := .Values.master.terminationGracePeriodSeconds -}}
{{- if kindIs "invalid" $given }}{{ $least }}{{ else }}{{ $given }}{{ end -}}
{{- end -}}

{{/* A command that has refused (1) or cannot work (2) has said why: to begin anew would only take longer. */}}
{{- define "leader-sidecar.once-refused" -}}
podFailurePolicy:
  rules:
    - action: FailJob
      onExitCodes: {containerName: {{ . }}, operator: In, values: [1, 2]}
{{- end -}}

{{- define "leader-sidecar.account" -}}
{{- if .Values.rbac.create }}{{ include "leader-sidecar.fullname" . }}{{ else }}{{ .Values.rbac.serviceAccountName }}{{ end -}}
{{- end -}}

{{- define "leader-sidecar.etcd-account" -}}
{{- if .Values.rbac.create }}{{ include "leader-sidecar.etcd" . }}{{ else }}{{ .Values.rbac.etcdServiceAccountName }}{{ end -}}
{{- end -}}

{{- define "leader-sidecar.admission-policy" -}}
{{- $wanted := toString .Values.rbac.admissionPolicy -}}
{{- if eq $wanted "true" }}yes{{ else if and (eq $wanted "auto") (.Capabilities.APIVersions.Has "admissionregistration.k8s.io/v1/ValidatingAdmissionPolicy") }}yes{{ end -}}
{{- end -}}

{{/* The security of a container that the chart runs, of a pod that it runs. */}}
{{- define "leader-sidecar.security" -}}
{{ toYaml .Values.sidecar.securityContext }}
{{- end -}}

{{- define "leader-sidecar.pod-security" -}}
runAsNonRoot: true
runAsUser: 65532
runAsGroup: 65532
fsGroup: 65532
fsGroupChangePolicy: OnRootMismatch
seccompProfile: {type: RuntimeDefault}
{{- end -}}

{{/* An authority of the release's own, in cert-manager: the Issuer NAME-ca, with the key in the Secret of `secret`.
     Call with (dict "root" $ "component" "x" "name" "x" "selfSigned" "name of the Issuer" "secret" "x-ca" "for" "what"). */}}
{{- define "leader-sidecar.cert-manager-authority" -}}
apiVersion: cert-manager.io/v1
kind: Issuer
metadata:
  {{- include "leader-sidecar.metadata" (dict "root" .root "component" .component "name" .selfSigned) | nindent 2 }}
spec:
  selfSigned: {}
---
apiVersion: cert-manager.io/v1
kind: Certificate
metadata:
  {{- include "leader-sidecar.metadata" (dict "root" .root "component" .component "name" (printf "%s-ca" .name)) | nindent 2 }}
spec:
  isCA: true
  # X.509 allows 64 characters, and cert-manager refuses more.
  commonName: {{ printf "%s.%s %s" .name .root.Release.Namespace .for | trunc 64 | trim | quote }}
  secretName: {{ .secret }}
  duration: 87600h
  # With another key, who has the authority's old certificate would trust no certificate of the new one.
  privateKey: {algorithm: ECDSA, size: 256, rotationPolicy: Never}
  issuerRef: {name: {{ .selfSigned }}, kind: Issuer, group: cert-manager.io}
---
apiVersion: cert-manager.io/v1
kind: Issuer
metadata:
  {{- include "leader-sidecar.metadata" (dict "root" .root "component" .component "name" (printf "%s-ca" .name)) | nindent 2 }}
spec:
  ca: {secretName: {{ .secret }}}
{{- end -}}
