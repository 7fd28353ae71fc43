#!/usr/bin/env python3
"""Compares the manifests that kustomize built with each other and with the Dockerfile. Writes those of Kubernetes itself and the rules of
the PrometheusRule to files of their own, for other checks."""

import sys

import yaml

CUSTOM = {"ServiceMonitor", "PrometheusRule"}
KINDS = CUSTOM | {"ConfigMap", "NetworkPolicy", "Secret", "Service", "ServiceAccount", "StatefulSet"}


def main():
    manifests, dockerfile, standard, rules = sys.argv[1:]
    objects = list(yaml.safe_load_all(open(manifests)))
    by_name = {(each["kind"], each["metadata"]["name"]): each for each in objects}
    check({kind for kind, _ in by_name} == KINDS, f"kinds: {by_name.keys()}")
    check_pod(by_name, open(dockerfile).read())
    check_scrapes(by_name)
    with open(standard, "w") as file:
        yaml.safe_dump_all([each for each in objects if each["kind"] not in CUSTOM], file)
    with open(rules, "w") as file:
        yaml.safe_dump(by_name["PrometheusRule", "refwatch"]["spec"], file)


def check_pod(by_name, dockerfile):
    spec = by_name["StatefulSet", "refwatch"]["spec"]
    pod = spec["template"]["spec"]
    [container] = pod["containers"]
    user = pod["securityContext"]["runAsUser"]
    check(f"USER {user}:{user}\n" in dockerfile, "user")
    check(spec["replicas"] == 1, "replicas")
    mounts = {mount["name"]: mount for mount in container["volumeMounts"]}
    check(f"STATE_DIRECTORY={mounts['database']['mountPath']}\n" in dockerfile, "directory of the database")
    [claim] = spec["volumeClaimTemplates"]
    check(claim["metadata"]["name"] == "database", "volume")
    check(mounts["configuration"] == {"name": "configuration", "mountPath": "/etc/refwatch", "readOnly": True}, "configuration")
    # Each file of the volume exists in its Secret or ConfigMap.
    [volume] = pod["volumes"]
    secret, config_map = volume["projected"]["sources"]
    check(by_name["Secret", secret["secret"]["name"]]["data"].keys() == {"refwatch.toml"}, "Secret")
    [item] = config_map["configMap"]["items"]
    check(item["path"] == f"conf.d/{item['key']}", "path of the watch list")
    check(item["key"] in by_name["ConfigMap", config_map["configMap"]["name"]]["data"], "ConfigMap")
    check(("ServiceAccount", pod["serviceAccountName"]) in by_name, "ServiceAccount")


def check_scrapes(by_name):
    """Pod, Service, ServiceMonitor and NetworkPolicy agree on labels and port."""
    template = by_name["StatefulSet", "refwatch"]["spec"]["template"]
    labels = template["metadata"]["labels"]
    service, monitor = by_name["Service", "refwatch"], by_name["ServiceMonitor", "refwatch"]["spec"]
    check(by_name["StatefulSet", "refwatch"]["spec"]["serviceName"] == service["metadata"]["name"], "serviceName")
    policy = by_name["NetworkPolicy", "refwatch"]["spec"]
    check(service["spec"]["selector"] == labels == policy["podSelector"]["matchLabels"], "labels of the pod")
    check(service["metadata"]["labels"] == monitor["selector"]["matchLabels"], "labels of the Service")
    [port], [container_port] = service["spec"]["ports"], template["spec"]["containers"][0]["ports"]
    [endpoint], [ingress] = monitor["endpoints"], policy["ingress"]
    check(port["name"] == endpoint["port"] == port["targetPort"] == container_port["name"], "port")
    check([allowed["port"] for allowed in ingress["ports"]] == [container_port["name"]], "port of the NetworkPolicy")
    for field, reference in endpoint["basicAuth"].items():
        check(reference["key"] == field, field)
        check(field in by_name["Secret", reference["name"]]["data"], f"{field} of the scrape")


def check(condition, message):
    if not condition:
        sys.exit(f"error: config/kubernetes: {message}")


main()
