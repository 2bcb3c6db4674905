"""Ways to use the chart that, together, render every template."""

EVERYTHING_WATCHED = (
    "monitoring.podMonitor.enabled=true",
    "monitoring.serviceMonitor.enabled=true",
    "monitoring.prometheusRule.enabled=true",
    "monitoring.dashboard.enabled=true",
)

CHOICES = {
    "defaults": (),
    "certificates of Helm": ("tls.mode=helm", "users.mode=certificate", "tls.keep=true"),
    "cert-manager and passwords": ("tls.mode=certManager", "users.mode=password"),
    "cert-manager with an issuer": ("tls.mode=certManager", "tls.certManager.issuerRef.name=ours"),
    "existing Secrets": (
        "tls.mode=existingSecret",
        *(
            f"tls.existingSecret.{name}=own-{name}"
            for name in ("server", "root", "sidecar", "master")
        ),
    ),
    "passwords without TLS": ("users.mode=password", "users.existingSecrets.sidecar=own"),
    "another etcd": (
        "etcd.enabled=false",
        "etcd.external.endpoints=https://etcd.example:2379",
        "etcd.external.tlsSecret=etcd-client",
        "etcd.external.clientCertificate=true",
    ),
    "another etcd with a password": (
        "etcd.enabled=false",
        "etcd.external.endpoints=http://etcd.example:2379",
        "etcd.external.user=sidecar",
        "etcd.external.passwordSecret=etcd-user",
    ),
    "a StatefulSet": ("master.kind=StatefulSet",),
    "a StatefulSet, rolled by Kubernetes": (
        "master.kind=StatefulSet",
        "master.rollout.strategy=RollingUpdate",
        "sidecar.readiness=leader",
    ),
    "no permissions": ("kube.labels=false", "rbac.create=false", "rbac.admissionPolicy=false"),
    "permissions of others": (
        "master.kind=StatefulSet",
        "rbac.create=false",
        "rbac.serviceAccountName=masters",
        "rbac.rolloutServiceAccountName=roller",
        "rbac.etcdServiceAccountName=members",
    ),
    "policies and workers": (
        "networkPolicy.enabled=true",
        "networkPolicy.from[0].namespaceSelector.matchLabels.team=shop",
        "networkPolicy.metricsFrom[0].namespaceSelector.matchLabels.team=watch",
        "worker.enabled=true",
    ),
    "watched": EVERYTHING_WATCHED,
    "small": ("etcd.replicas=1", "etcd.persistence.enabled=false", "master.replicas=1"),
    "an operator": ("operator.enabled=true", *EVERYTHING_WATCHED),
    "an operator for the cluster": (
        "operator.enabled=true",
        "operator.scope=cluster",
        "operator.certificates=certManager",
        "operator.issuerRef.name=ours",
        "networkPolicy.enabled=true",
        "tls.mode=helm",
        "users.mode=certificate",
    ),
    "an operator for some namespaces": (
        "operator.enabled=true",
        "operator.namespaces[0]=games",
        "operator.services=false",
        "tls.mode=certManager",
        "users.mode=password",
    ),
    "nothing forwarded": ("forwarder.enabled=false", "etcd.antiAffinity=required"),
}
