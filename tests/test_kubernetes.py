"""The Kubernetes manifests: Kubernetes' own schemas take them, and what they start is there."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from featurestore.access.sessions import SESSION_SECRET
from featurestore.config import load_config
from featurestore.server.run import options

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "deploy" / "kubernetes"
SCHEDULE = ROOT / "examples" / "schedule" / "kubernetes.yaml"
KUSTOMIZATION = yaml.safe_load((FOLDER / "kustomization.yaml").read_text())
VERSION = "1.37"
HARDENED = {"allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True, "capabilities": {"drop": ["ALL"]}}


def objects_of(text: str) -> list[dict[str, Any]]:
    return [one for one in yaml.safe_load_all(text) if one is not None]


OBJECTS = [one for name in KUSTOMIZATION["resources"] for one in objects_of((FOLDER / name).read_text())]
EXAMPLES = objects_of(SCHEDULE.read_text())


def pods_of(objects: list[dict[str, Any]]) -> Iterator[tuple[str, dict[str, Any]]]:
    """The name and the pod of each that starts some, with the pod's labels."""
    for one in objects:
        spec = one["spec"].get("jobTemplate", one)["spec"] if "spec" in one else {}
        if "template" in spec:
            yield one["metadata"]["name"], spec["template"]


PODS = dict(pods_of(OBJECTS))


@pytest.mark.parametrize("one", OBJECTS + EXAMPLES, ids=lambda one: f"{one['kind']}-{one['metadata']['name']}")
def test_kubernetes_takes_it(one: dict[str, Any]) -> None:
    """By the schemas of its API, where nothing may be that they do not name."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        kubernetes_validate = pytest.importorskip("kubernetes_validate")
        kubernetes_validate.validate(one, VERSION, strict=True)


def test_kustomize_puts_them_together() -> None:
    """With the repository as a ConfigMap, and one image for all."""
    if shutil.which("kubectl") is None:
        pytest.skip("kubectl is not on PATH")
    done = subprocess.run(["kubectl", "kustomize", str(FOLDER)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    made = objects_of(done.stdout)
    (repo,) = [one for one in made if one["kind"] == "ConfigMap"]
    assert {one["metadata"]["namespace"] for one in made} == {"features"}
    assert len(made) == len(OBJECTS) + 1
    for name, pod in pods_of(made):
        (mounted,) = [volume["configMap"]["name"] for volume in pod["spec"]["volumes"] if volume["name"] == "repo"]
        assert mounted == repo["metadata"]["name"], name
        assert pod["spec"]["containers"][0]["image"].startswith("registry.example.com/featurestore:")


@pytest.mark.parametrize(("name", "pod"), [*pods_of(OBJECTS), *pods_of(EXAMPLES)])
def test_a_pod_may_no_more_than_it_needs(name: str, pod: dict[str, Any]) -> None:
    """Not root, no root file system to write to, no rights in the cluster, bounded memory."""
    spec = pod["spec"]
    assert spec["securityContext"]["runAsNonRoot"]
    assert spec["securityContext"]["runAsUser"] == 10001
    assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    (container,) = spec["containers"]
    assert container["securityContext"] == HARDENED
    mounts = {mount["name"]: mount for mount in container["volumeMounts"]}
    assert mounts["repo"]["readOnly"]
    assert set(mounts) == {volume["name"] for volume in spec["volumes"]}
    if pod in PODS.values():
        assert spec["automountServiceAccountToken"] is False
        assert "memory" in container["resources"]["limits"]


@pytest.mark.parametrize("name", PODS)
def test_what_a_pod_starts_is_there(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The command, its environment and its configuration, which finds what the secret has."""
    (container,) = PODS[name]["spec"]["containers"]
    given = {one["name"]: one.get("value", one.get("valueFrom")) for one in container["env"]}
    words = [*container.get("args", ["serve"]), "--help"]
    done = subprocess.run(
        [sys.executable, "-m", "featurestore", *words], capture_output=True, text=True, cwd=ROOT, check=False
    )
    assert done.returncode == 0, done.stderr
    monkeypatch.setenv("REDIS_URL", "rediss://:secret@redis:6379/0")
    monkeypatch.setenv("REGISTRY_URL", "postgresql://u:secret@db/features")
    config = load_config(FOLDER, given["FEATURESTORE_ENV"])
    assert set(re.findall(r"\$\{(\w+)\}", (FOLDER / "featurestore.toml").read_text())) == set(given) - {
        "FEATURESTORE_ENV",
        SESSION_SECRET,
    }
    assert config.server.authentication == "required"
    assert "secret" not in repr(config)
    mounted = [mount["mountPath"] for mount in container["volumeMounts"] if not mount.get("readOnly")]
    for place in (config.logs, config.offline.tiles, config.offline.spill, config.serving_log.folder):
        assert any(Path(str(place)).is_relative_to(folder) for folder in mounted)
    keys = {one["secretKeyRef"]["key"] for one in given.values() if isinstance(one, dict)}
    head = (FOLDER / "kustomization.yaml").read_text().partition("apiVersion")[0]
    of_servers = {"session-secret"} - keys  # which have it alone
    assert keys | of_servers == set(re.findall(r"--from-literal=([\w-]+)=", head))
    assert bool(of_servers) == (name != "featurestore")


def test_selectors_find_their_pods() -> None:
    """Of the service, the budget and the policies; each pod is in the policy that closes it."""
    labels = {name: pod["metadata"]["labels"] for name, pod in PODS.items()}
    closed = [one for one in OBJECTS if one["kind"] == "NetworkPolicy" and "ingress" not in one["spec"]]
    assert closed[0]["spec"]["policyTypes"] == ["Ingress", "Egress"]
    for one in OBJECTS:
        spec = one["spec"]
        selector = spec.get("podSelector", spec.get("selector"))
        if selector is not None:
            wanted = selector.get("matchLabels", selector)
            found = [name for name, words in labels.items() if wanted.items() <= words.items()]
            assert found, one["metadata"]["name"]
            if one in closed:
                assert found == list(labels)
    (container,) = PODS["featurestore"]["spec"]["containers"]
    assert {probe: container[f"{probe}Probe"]["httpGet"]["path"] for probe in ("startup", "liveness", "readiness")} == {
        "startup": "/healthz", "liveness": "/healthz", "readiness": "/readyz",
    }  # fmt: skip


def test_a_server_has_time_to_drain_and_to_finish(monkeypatch: pytest.MonkeyPatch) -> None:
    """Before it is killed; and the drain takes as long as the endpoints of a Service, which follow the pod's end, need at least."""
    monkeypatch.setenv("REDIS_URL", "redis://redis:6379/0")
    monkeypatch.setenv("REGISTRY_URL", "postgresql://db/features")
    drains = load_config(FOLDER, "kubernetes").server
    finishes = options(drains)["timeout_graceful_shutdown"]
    spec = PODS["featurestore"]["spec"]
    assert 5 <= drains.drain_seconds < spec["terminationGracePeriodSeconds"] - finishes
    assert "lifecycle" not in spec["containers"][0]
