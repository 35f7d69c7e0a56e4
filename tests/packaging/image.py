"""What an image says of itself: image.py FILE, where FILE is what `buildah inspect --type image` printed."""

import json
import sys


def main(path):
    with open(path, encoding="utf-8") as file:
        image = json.load(file)["Docker"]
    config = image["config"]
    assert config["User"] == "65532:65532", config["User"]
    assert config["Entrypoint"] == ["/usr/bin/switchback"], config["Entrypoint"]
    assert config["Cmd"] == ["run"], config["Cmd"]
    health = config["Healthcheck"]
    assert health["Test"] == ["CMD", "/usr/bin/switchback", "healthcheck"], health
    assert config["StopSignal"] == "SIGTERM", config["StopSignal"]
    assert "/var/lib/switchback" in config["Volumes"], config["Volumes"]
    print(f"user {config['User']}, healthcheck {' '.join(health['Test'][1:])}")


if __name__ == "__main__":
    main(sys.argv[1])
