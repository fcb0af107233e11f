"""The manifests render, obey the schemas strictly, and say what the code says."""

import os
import re
import shutil
import subprocess
from functools import cache
from pathlib import Path

import kubernetes_validate
import pytest
import yaml
from google.protobuf import descriptor_pool
from kehu.options.v1 import options_pb2 as options

from services.chassis.config import SERVICES, TRUST_DOMAIN
from services.webhooks.domain import targets

ROOT = Path(__file__).parents[2] / "k8s"
OVERLAYS = ("local", "staging", "production")
SCHEMA_VERSION = "1.32"
NOT_BUILT_IN = {"cert-manager.io/v1"}  # custom resources have no schema in Kubernetes itself
STORES = {"mongodb", "rabbitmq", "opensearch"}


def renderer() -> list[str]:
    if shutil.which("kubectl"):
        return ["kubectl", "kustomize"]
    if shutil.which("kustomize"):
        return ["kustomize", "build"]
    missing("install kubectl or kustomize to check the Kubernetes manifests")
    return []


def missing(reason: str) -> None:
    if os.environ.get("KEHU_REQUIRE_SERVERS") == "1":
        pytest.fail(reason)
    pytest.skip(reason)


@cache
def rendered(overlay: str) -> list[dict]:
    out = subprocess.run([*renderer(), str(ROOT / "overlays" / overlay)], capture_output=True, text=True, timeout=60)
    assert out.returncode == 0, out.stderr
    return [document for document in yaml.safe_load_all(out.stdout) if document]


def of_kind(overlay: str, kind: str) -> list[dict]:
    return [document for document in rendered(overlay) if document["kind"] == kind]


def pods(overlay: str) -> list[tuple[str, dict]]:
    return [(d["metadata"]["name"], d["spec"]["template"]["spec"]) for d in of_kind(overlay, "Deployment")]


def fault_of(document: dict) -> str:
    """Return what the schema says against a manifest, empty when nothing."""
    try:
        kubernetes_validate.validate(document, SCHEMA_VERSION, strict=True)
    except kubernetes_validate.ValidationError as fault:
        return f"{document['kind']} {document['metadata']['name']}: {fault.message}"
    return ""


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_every_manifest_is_valid_strictly(overlay):
    built_in = [document for document in rendered(overlay) if document["apiVersion"] not in NOT_BUILT_IN]

    assert {"Deployment", "Service", "NetworkPolicy"} <= {document["kind"] for document in built_in}
    assert [fault for document in built_in if (fault := fault_of(document))] == []


def test_a_typo_in_a_manifest_is_caught():
    broken = {**of_kind("local", "Deployment")[0]}
    broken["spec"] = {**broken["spec"], "replica": 1}

    assert "replica" in fault_of(broken)


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_every_pod_is_restricted(overlay):
    for name, pod in pods(overlay):
        assert pod["securityContext"]["runAsNonRoot"] and pod["securityContext"]["runAsUser"] > 10000, name
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}, name
        assert pod["automountServiceAccountToken"] is False, name
        for container in pod["containers"]:
            context = container["securityContext"]
            assert context["readOnlyRootFilesystem"] and not context["allowPrivilegeEscalation"], name
            assert context["capabilities"] == {"drop": ["ALL"]}, name
            assert set(container["resources"]) == {"requests", "limits"}, name
            assert "livenessProbe" in container, name


def test_grace_is_longer_than_the_drain():
    settings = of_kind("production", "ConfigMap")[0]["data"]
    drain = float(settings["KEHU_NOTICE_SECONDS"]) + float(settings["KEHU_DRAIN_SECONDS"])

    for name, pod in pods("production"):
        assert pod["terminationGracePeriodSeconds"] > drain, name


def test_every_service_has_its_processes():
    names = {name for name, _ in pods("local")}

    for service in SERVICES:
        folder = Path(__file__).parents[2] / "services" / service
        roles = {"events": f"{service}-consume", "jobs": f"{service}-work"}
        expected = {service} | {name for file, name in roles.items() if (folder / f"{file}.py").exists()}
        assert expected <= names, service


def test_every_deployment_has_a_budget_and_a_service_account():
    budgets = {d["metadata"]["name"] for d in of_kind("local", "PodDisruptionBudget")}
    accounts = {d["metadata"]["name"] for d in of_kind("local", "ServiceAccount")}

    assert {name for name, _ in pods("local")} == budgets
    assert {pod["serviceAccountName"] for _, pod in pods("local")} == accounts


def test_every_certificate_names_its_process():
    names = {d["metadata"]["name"]: d["spec"]["uris"] for d in of_kind("local", "Certificate")}

    assert names == {name: [f"spiffe://{TRUST_DOMAIN}/{name}"] for name in ("gateway", *SERVICES)}


def allowed_edges() -> set[tuple[str, str]]:
    edges = set()
    for policy in of_kind("local", "NetworkPolicy"):
        caller = policy["spec"]["podSelector"].get("matchLabels", {}).get("app.kubernetes.io/name")
        for rule in policy["spec"].get("egress", ()):
            for peer in rule.get("to", ()):
                name = peer.get("podSelector", {}).get("matchLabels", {}).get("app.kubernetes.io/name")
                if caller and name and name not in STORES:
                    edges.add((caller, name))
    return edges


def accepted_edges() -> set[tuple[str, str]]:
    edges = set()
    for policy in of_kind("local", "NetworkPolicy"):
        callee = policy["spec"]["podSelector"].get("matchLabels", {}).get("app.kubernetes.io/name")
        for rule in policy["spec"].get("ingress", ()):
            for peer in rule.get("from", ()):
                name = peer.get("podSelector", {}).get("matchLabels", {}).get("app.kubernetes.io/name")
                if name:
                    edges.add((name, callee))
    return edges


def call_graph() -> set[tuple[str, str]]:
    """Who calls whom, as the protos' access rules declare it; the gateway calls every service."""
    import importlib

    edges = {("gateway", service) for service in SERVICES}
    for service in SERVICES:
        importlib.import_module(f"kehu.{service}.v1.{service}_pb2")
        found = descriptor_pool.Default().FindServiceByName(f"kehu.{service}.v1.{service.capitalize()}Service")
        for method in found.methods:
            rule = method.GetOptions().Extensions[options.access]
            edges |= {(caller, service) for caller in (*rule.services, *rule.acting)}
    return edges


def test_checkpoints_of_the_audit_trail_outlive_the_pods_that_write_them():
    claims = {d["metadata"]["name"]: d["spec"]["accessModes"] for d in of_kind("production", "PersistentVolumeClaim")}
    pod = dict(pods("production"))["access"]
    container, volumes = pod["containers"][0], {volume["name"]: volume for volume in pod["volumes"]}
    anchor = {item["name"]: item["value"] for item in container["env"]}.get("KEHU_AUDIT_ANCHOR")
    mounted = {mount["mountPath"]: volumes[mount["name"]] for mount in container["volumeMounts"]}
    claim = mounted[anchor]["persistentVolumeClaim"]["claimName"]

    assert claims[claim] == ["ReadWriteMany"]  # every process of access writes there, on whatever machine
    assert [name for name, other in pods("production") if claim in str(other["volumes"])] == ["access"]


def test_a_process_that_waits_for_broker_or_database_at_its_start_is_not_killed():
    containers = [pod["containers"][0] for _, pod in pods("production")]
    waiting = [container for container in containers if "exec" in container["livenessProbe"]]
    for container in waiting:
        probe, beats = container["startupProbe"], container["livenessProbe"]["exec"]

        assert probe["exec"] == beats
        assert probe["periodSeconds"] * probe["failureThreshold"] >= 3600
    assert len(waiting) >= len(SERVICES)


def test_what_the_engine_of_analytics_spills_has_a_volume_of_its_own():
    spilling = {name: pod for name, pod in pods("production") if name in ("analytics", "analytics-work")}
    for pod in spilling.values():
        volumes = {volume["name"]: volume for volume in pod["volumes"]}
        mounted = {mount["mountPath"]: volumes[mount["name"]] for mount in pod["containers"][0]["volumeMounts"]}
        claim = mounted["/var/lib/kehu/spill"]["ephemeral"]["volumeClaimTemplate"]["spec"]

        assert claim["resources"]["requests"]["storage"] == "20Gi"
    assert len(spilling) == 2


def lets_monitoring_in(labels: dict[str, str]) -> bool:
    policy = next(d for d in of_kind("local", "NetworkPolicy") if d["metadata"]["name"] == "metrics-ingress")
    chosen = policy["spec"]["podSelector"]["matchExpressions"]
    return all(each["operator"] == "In" and labels.get(each["key"]) in each["values"] for each in chosen)


def test_every_process_but_the_gateway_tells_metrics_on_a_port_that_monitoring_reaches():
    for deployment in of_kind("local", "Deployment"):
        template, name = deployment["spec"]["template"], deployment["metadata"]["name"]
        labels, container = template["metadata"]["labels"], template["spec"]["containers"][0]
        told = {item["name"]: item.get("value") for item in container.get("env", ())}
        ports = {port["name"]: port["containerPort"] for port in container.get("ports", ())}

        if name != "gateway":  # whose one port has /metrics
            assert (ports.get("metrics"), told.get("KEHU_METRICS_PORT")) == (9090, "9090"), name
            assert told.get("KEHU_PROBE_HOST") == "0.0.0.0", name
            assert lets_monitoring_in(labels), name


def test_network_policies_allow_exactly_the_call_graph():
    assert call_graph() == allowed_edges()
    assert call_graph() == accepted_edges()


def test_only_the_pods_that_send_webhooks_reach_addresses_of_others_choosing():
    outward = {}
    for policy in of_kind("local", "NetworkPolicy"):
        for rule in policy["spec"].get("egress", ()):
            for block in [peer["ipBlock"] for peer in rule.get("to", ()) if "ipBlock" in peer]:
                labels = tuple(sorted(policy["spec"]["podSelector"]["matchLabels"].values()))
                ports = {port["port"] for port in rule["ports"]}
                outward.setdefault(labels, []).append((block["cidr"], set(block["except"]), ports))

    assert set(outward) == {("serve", "webhooks")}
    v4, v6 = outward["serve", "webhooks"]
    assert (v4[0], v4[1], v4[2]) == ("0.0.0.0/0", set(map(str, targets.V4_REFUSED)), set(targets.PORTS))
    assert (v6[0], v6[1], v6[2]) == (str(targets.V6_PUBLIC), set(map(str, targets.V6_REFUSED)), set(targets.PORTS))


def test_everything_is_denied_by_default():
    deny = [d for d in of_kind("local", "NetworkPolicy") if d["metadata"]["name"] == "default-deny"]

    assert [d["spec"] for d in deny] == [{"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}]


def test_no_secret_is_in_the_repository():
    for overlay in OVERLAYS:
        assert of_kind(overlay, "Secret") == []


def test_the_compose_file_is_valid():
    folder = Path(__file__).parents[2] / "infra" / "container"
    plugin = shutil.which("docker") and subprocess.run(["docker", "compose", "version"], capture_output=True)
    command = ["docker", "compose"] if plugin and plugin.returncode == 0 else ["docker-compose"]
    if shutil.which(command[0]) is None:
        missing("install docker compose (Debian: docker-compose) to check the compose file")

    files = ["-f", str(folder / "compose.yaml"), "--env-file", str(folder / ".env.example")]
    out = subprocess.run([*command, *files, "config"], capture_output=True, text=True, timeout=60)

    assert out.returncode == 0, out.stderr
    assert set(SERVICES) | {"gateway", "consume", "work"} <= set(yaml.safe_load(out.stdout)["services"])


def test_every_variable_of_the_manifests_is_one_the_code_reads():
    read = set(re.findall(r"KEHU_[A-Z_]+", (ROOT.parent / "services/chassis/config.py").read_text()))
    named = {key for document in of_kind("local", "ConfigMap") for key in document["data"]}
    for _, pod in pods("local"):
        named |= {item["name"] for container in pod["containers"] for item in container.get("env", ())}

    assert set() == named - read
