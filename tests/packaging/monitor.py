"""Whether a ServiceMonitor finds what it is to scrape among manifests: monitor.py FILE...

Its kind comes with the Prometheus operator and has no schema here; what it selects can be checked all the same.
"""

import sys

import yaml


def main(paths):
    documents = []
    for path in paths:
        with open(path, encoding="utf-8") as file:
            documents += [document for document in yaml.safe_load_all(file) if document]
    [monitor] = [document for document in documents if document["kind"] == "ServiceMonitor"]
    wanted = monitor["spec"]["selector"]["matchLabels"].items()
    found = [
        document
        for document in documents
        if document["kind"] == "Service" and wanted <= document["metadata"].get("labels", {}).items()
    ]
    assert len(found) == 1, [service["metadata"]["name"] for service in found]
    [service], [endpoint] = found, monitor["spec"]["endpoints"]
    assert endpoint["port"] in {port["name"] for port in service["spec"]["ports"]}, endpoint
    assert endpoint["scheme"] == "https" and endpoint["path"] == "/metrics", endpoint
    assert endpoint["tlsConfig"]["serverName"] == service["metadata"]["name"], endpoint
    # The job is what alerts go by.
    job = service["metadata"]["labels"][monitor["spec"]["jobLabel"]]
    assert job == "switchback", job


if __name__ == "__main__":
    main(sys.argv[1:])
