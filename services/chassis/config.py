"""Read the environment into one frozen value, all errors at once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from services.chassis.crypto.settings import FILE, Protection, faults

SERVICES = ("access", "profiles", "consent", "marketing", "tickets", "analytics", "search", "webhooks")
TRUST_DOMAIN = "kehu.internal"
MESSAGE_BYTES = 4 * 1024 * 1024  # of one gRPC message, both ways; larger work is paged or streamed


class ConfigError(Exception):
    """The environment does not describe a runnable process; the message lists every fault."""


@dataclass(frozen=True, slots=True)
class TlsFiles:
    """Certificate authority, certificate and key of this process, PEM."""

    ca: Path
    certificate: Path
    key: Path

    def stamp(self) -> tuple[float, float]:
        """Return what changes when the certificate, or the authority's, is replaced."""
        return self.certificate.stat().st_mtime, self.ca.stat().st_mtime


@dataclass(frozen=True, slots=True)
class SmtpConfig:
    """Where mail is handed over; empty user means no login, `ca` are authorities beside the public ones."""

    host: str
    port: int
    user: str
    password: str = field(repr=False)
    sender: str
    starttls: bool
    ca: Path | None = None


@dataclass(frozen=True, slots=True)
class ProcessConfig:
    """All that a Kehu process reads from its surroundings; docs/configuration in README lists the variables."""

    data_dir: Path
    mongo_uri: str = field(repr=False)
    amqp_uri: str = field(repr=False)
    addresses: Mapping[str, str]
    tls_dir: Path
    keys_dir: Path
    lake_dir: Path
    index_dir: Path
    search_engine: str
    opensearch_url: str = field(repr=False)
    smtp: SmtpConfig
    public_url: str
    token_issuer: str
    token_audience: str
    metrics_port: int
    health_port: int
    probe_host: str
    grpc_threads: int
    notice_seconds: float
    drain_seconds: float
    bootstrap_file: Path | None
    allow_self_approval: bool
    gateway_host: str
    gateway_port: int
    protection: Protection = field(default_factory=Protection)
    certificate_proxies: tuple[IPv4Network | IPv6Network, ...] = ()
    connections_each: int = 512  # that one address may hold at a gateway process, if it is no proxy named above
    breached_passwords: Path | None = None
    audit_anchor: Path | None = None
    audit_years: float = 3
    reveals_per_day: int = 20  # values one person may reveal in a day
    recertification_days: float = 30  # to confirm who has which role, each quarter; 0: never asked
    loopback_issuers: bool = False
    webhook_dev_hosts: tuple[str, ...] = ()  # host or host:port, sent to unchecked and by http too: for trying out
    webhook_ca: Path | None = None  # authorities beside the public ones that targets' certificates may be of
    frames_port: int = 0  # where a service takes frames; 0: any port, right where no other replica has the same name
    webauthn_id: str = ""  # the domain people's authenticators know us by (WebAuthn §4); empty: there is none
    webauthn_origins: tuple[str, ...] = ()  # of the pages that may ask them

    def tls(self, service: str) -> TlsFiles:
        """Return the certificate files of a service or of the gateway."""
        return TlsFiles(self.tls_dir / "ca.pem", self.tls_dir / f"{service}.pem", self.tls_dir / f"{service}.key")


class _Reader:
    """Collects faults while values are read, so that one start shows all of them."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        self.environ = environ
        self.faults: list[str] = []

    def text(self, name: str, default: str | None = None) -> str:
        value = self.environ.get(name, default)
        if value is None:
            self.faults.append(f"{name} is not set")
            return ""
        return value

    def file(self, name: str) -> Path | None:
        value = self.environ.get(name, "")
        return Path(value) if value else None

    def number(self, name: str, default: float, low: float, high: float) -> float:
        raw = self.environ.get(name, "")
        try:
            value = float(raw) if raw else default
        except ValueError:
            value = low - 1
        if not low <= value <= high:
            self.faults.append(f"{name} must be a number from {low:g} to {high:g}")
        return value

    def flag(self, name: str) -> bool:
        raw = self.environ.get(name, "false").lower()
        if raw not in ("true", "false"):
            self.faults.append(f"{name} must be true or false")
        return raw == "true"

    def choice(self, name: str, default: str, allowed: tuple[str, ...]) -> str:
        value = self.environ.get(name, default)
        if value not in allowed:
            self.faults.append(f"{name} must be one of {', '.join(allowed)}")
        return value

    def addresses(self, name: str) -> dict[str, str]:
        """Parse access=host:port,…; what is not named answers at its own name on 8443."""
        found = {service: f"{service}:8443" for service in SERVICES}
        for part in filter(None, self.environ.get(name, "").split(",")):
            service, separator, address = part.partition("=")
            if not separator or not address.rpartition(":")[2].isdigit():
                self.faults.append(f"{name}: '{part}' must look like service=host:port")
                continue
            found[service.strip()] = address.strip()
        return found

    def networks(self, name: str) -> tuple[IPv4Network | IPv6Network, ...]:
        """Parse 10.0.0.0/8,…; a network of everybody is refused: anybody could write the header it is about."""
        found = []
        for part in filter(None, self.environ.get(name, "").split(",")):
            try:
                network = ip_network(part.strip())
            except ValueError:
                self.faults.append(f"{name}: '{part}' must be a network such as 10.1.0.0/16")
                continue
            if network.prefixlen == 0:
                self.faults.append(f"{name}: '{part}' would believe everybody; name the proxy's own network")
            found.append(network)
        return tuple(found)

    def pairs(self, name: str) -> dict[str, str]:
        """Parse name=value,…"""
        found = {}
        for part in filter(None, self.environ.get(name, "").split(",")):
            key, separator, value = part.partition("=")
            if not separator or not key.strip() or not value.strip():
                self.faults.append(f"{name}: must look like name=value,name=value")
                continue
            found[key.strip()] = value.strip()
        return found


def load_config(environ: Mapping[str, str], *, with_stores: bool = True) -> ProcessConfig:
    """Return the configuration of a process; the gateway has no stores and needs none named.

    Raises:
        ConfigError: naming every variable that is missing or wrong.
    """
    read = _Reader(environ)
    data_dir = Path(read.text("KEHU_DATA_DIR", "data"))
    config = ProcessConfig(
        data_dir=data_dir,
        mongo_uri=read.text("KEHU_MONGO_URI", None if with_stores else ""),
        amqp_uri=read.text("KEHU_AMQP_URI", None if with_stores else ""),
        addresses=read.addresses("KEHU_ADDRESSES"),
        tls_dir=Path(read.text("KEHU_TLS_DIR", str(data_dir / "tls"))),
        keys_dir=Path(read.text("KEHU_KEYS_DIR", str(data_dir / "keys"))),
        lake_dir=Path(read.text("KEHU_LAKE_DIR", str(data_dir / "lake"))),
        index_dir=Path(read.text("KEHU_INDEX_DIR", str(data_dir / "index"))),
        search_engine=read.choice("KEHU_SEARCH_ENGINE", "tantivy", ("tantivy", "opensearch")),
        opensearch_url=read.text("KEHU_OPENSEARCH_URL", ""),
        smtp=_smtp(read),
        public_url=read.text("KEHU_PUBLIC_URL", "http://127.0.0.1:8080"),
        token_issuer=read.text("KEHU_TOKEN_ISSUER", "https://kehu.internal"),
        token_audience=read.text("KEHU_TOKEN_AUDIENCE", "kehu"),
        probe_host=read.text("KEHU_PROBE_HOST", "127.0.0.1"),
        grpc_threads=int(read.number("KEHU_GRPC_THREADS", 16, 1, 256)),
        notice_seconds=read.number("KEHU_NOTICE_SECONDS", 0, 0, 60),
        drain_seconds=read.number("KEHU_DRAIN_SECONDS", 20, 0, 600),
        bootstrap_file=read.file("KEHU_BOOTSTRAP_FILE"),
        allow_self_approval=read.flag("KEHU_ALLOW_SELF_APPROVAL"),
        protection=_protection(read),
        loopback_issuers=read.flag("KEHU_LOOPBACK_ISSUERS"),
        webhook_dev_hosts=tuple(filter(None, read.text("KEHU_WEBHOOK_DEV_HOSTS", "").split(","))),
        webhook_ca=read.file("KEHU_WEBHOOK_CA"),
        breached_passwords=read.file("KEHU_BREACHED_PASSWORDS"),
        audit_anchor=Path(read.text("KEHU_AUDIT_ANCHOR", str(data_dir / "audit" / "checkpoints"))),
        reveals_per_day=int(read.number("KEHU_REVEALS_PER_DAY", 20, 0, 10_000)),
        audit_years=read.number("KEHU_AUDIT_YEARS", 3, 3, 100),  # PIPL art. 56: three years at least
        **_ports(read),
        **_gateway(read),
        **_people(read),
    )
    named = {"KEHU_TOKEN_ISSUER": config.token_issuer, "KEHU_TOKEN_AUDIENCE": config.token_audience}
    empty = [name for name, value in named.items() if not value]
    read.faults += [f"{name} must not be empty: a token of any audience would pass" for name in empty]
    if read.faults:
        raise ConfigError("the environment is not complete:\n  " + "\n  ".join(read.faults))
    return config


def _ports(read: _Reader) -> dict[str, Any]:
    names = ("KEHU_METRICS_PORT", "KEHU_HEALTH_PORT", "KEHU_FRAMES_PORT")
    return {name.removeprefix("KEHU_").lower(): int(read.number(name, 0, 0, 65535)) for name in names}


def _protection(read: _Reader) -> Protection:
    found = Protection(
        ciphers=read.pairs("KEHU_CIPHERS"),
        master_key=read.text("KEHU_MASTER_KEY", FILE),
        former=tuple(name for name in read.text("KEHU_MASTER_KEY_FORMER", "").split(",") if name),
        settings=read.pairs("KEHU_MASTER_KEY_SETTINGS"),
        cache_seconds=read.number("KEHU_KEY_CACHE_SECONDS", 600, 1, 86_400),
    )
    read.faults += faults(found)
    return found


def _gateway(read: _Reader) -> dict[str, Any]:
    """Return where the gateway listens, and to whom."""
    return {
        "gateway_host": read.text("KEHU_GATEWAY_HOST", "127.0.0.1"),
        "gateway_port": int(read.number("KEHU_GATEWAY_PORT", 8080, 1, 65535)),
        "certificate_proxies": read.networks("KEHU_CERTIFICATE_PROXIES"),
        "connections_each": int(read.number("KEHU_CONNECTIONS_EACH", 512, 1, 1_000_000)),
    }


def _people(read: _Reader) -> dict[str, Any]:
    """Return domain and origins for authenticators, by default the public URL where browsers allow it, and days."""
    public = urlsplit(read.environ.get("KEHU_PUBLIC_URL", ""))
    usable = _may_ask(public.scheme, public.hostname or "")
    domain = read.text("KEHU_WEBAUTHN_RP_ID", (public.hostname or "") if usable else "")
    origins = read.text("KEHU_WEBAUTHN_ORIGINS", f"{public.scheme}://{public.netloc}" if usable else "").split(",")
    named = tuple(filter(None, origins)) if domain else ()
    if domain and not named:
        read.faults.append("KEHU_WEBAUTHN_ORIGINS must name the pages that may ask authenticators")
    for origin in named:
        found = urlsplit(origin)
        name = found.hostname or ""
        whole = f"{found.scheme}://{found.netloc}" == origin and "@" not in found.netloc
        if not (whole and _may_ask(found.scheme, name) and (name == domain or name.endswith(f".{domain}"))):
            read.faults.append(
                f"KEHU_WEBAUTHN_ORIGINS: '{origin}' must look like https://{domain} or https://….{domain}"
            )
    days = read.number("KEHU_RECERTIFICATION_DAYS", 30, 0, 90)
    return {"webauthn_id": domain, "webauthn_origins": named, "recertification_days": days}


def _may_ask(scheme: str, host: str) -> bool:
    """Tell whether browsers let a page of this origin use authenticators: none of numbers, and by https."""
    try:
        ip_address(host)
    except ValueError:
        return bool(host) and (scheme == "https" or host == "localhost")
    return False


def _smtp(read: _Reader) -> SmtpConfig:
    return SmtpConfig(
        host=read.text("KEHU_SMTP_HOST", "127.0.0.1"),
        port=int(read.number("KEHU_SMTP_PORT", 25, 1, 65535)),
        user=read.text("KEHU_SMTP_USER", ""),
        password=read.text("KEHU_SMTP_PASSWORD", ""),
        sender=read.text("KEHU_SMTP_SENDER", "Kehu <no-reply@kehu.internal>"),
        starttls=read.flag("KEHU_SMTP_STARTTLS"),
        ca=read.file("KEHU_SMTP_CA"),
    )
