"""Prints the pod override for `kubectl run`: load.py from its ConfigMap, as restricted as every other pod.

load_pod.py http://10.0.0.1 60
"""

from __future__ import annotations

import json
import sys


def pod(url: str, seconds: str) -> dict[str, object]:
    command = ["python", "/load/load.py", "--url", url, "--host", "orders.localtest.me", "--seconds", seconds, "--token", "$(TOKEN)"]
    container = {
        "name": "load",
        "image": "plumbline:ci",
        "imagePullPolicy": "Never",
        "command": command,
        "env": [{"name": "TOKEN", "valueFrom": {"secretKeyRef": {"name": "orders-smoke-token", "key": "token"}}}],
        "securityContext": {"allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True, "capabilities": {"drop": ["ALL"]}},
        "resources": {"requests": {"cpu": "100m", "memory": "64Mi"}, "limits": {"memory": "256Mi"}},
        "volumeMounts": [{"name": "load", "mountPath": "/load"}],
    }
    security = {"runAsNonRoot": True, "runAsUser": 10001, "runAsGroup": 10001, "seccompProfile": {"type": "RuntimeDefault"}}
    spec = {
        "containers": [container],
        "restartPolicy": "Never",
        "securityContext": security,
        "volumes": [{"name": "load", "configMap": {"name": "load"}}],
    }
    return {"apiVersion": "v1", "spec": spec}


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit("usage: load_pod.py URL SECONDS")
    print(json.dumps(pod(sys.argv[1], sys.argv[2])))
