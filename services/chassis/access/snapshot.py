"""The policy of this moment: immutable, swapped whole, fetched by polling (design.md §4)."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence

from services.chassis.access.rules import Row, Rules, Verdict, build_rules
from services.chassis.access.values import (
    NO_PURPOSE,
    NOTHING_SHOWN,
    Caller,
    Decision,
    FieldGrant,
    Obligations,
    Revocations,
    RowFilter,
)
from services.chassis.errors import Invalid, Unavailable

REQUEST_FIELDS = ("r_sub", "r_dom", "r_obj", "r_act", "r_purpose")
CACHED_OBLIGATIONS = 20_000  # callers × purposes remembered per snapshot
FIELD_PREFIX = "fields/"

log = logging.getLogger("kehu.access")


class PolicySnapshot:
    """One version of the policy with its revocations and token keys, compiled; never changed once built."""

    __slots__ = (
        "version",
        "rules_version",
        "keys",
        "revocations",
        "_rules",
        "_row_filters",
        "_groups",
        "field_grants",
        "_cache",
    )

    def __init__(
        self,
        version: int,
        model_text: str,
        p_rules: Iterable[Sequence[str]],
        g_rules: Iterable[Sequence[str]],
        row_filters: Iterable[RowFilter] = (),
        keys: Mapping[str, str] | None = None,
        revocations: Revocations | None = None,
        rules_version: str = "",
    ) -> None:
        """Compile the rules; `keys` maps a key id to the base64url public key (the `x` of its JWK).

        Raises:
            Invalid: the model or a row is wrong; the holder then keeps what it has.
        """
        rows = tuple(tuple(row) for row in p_rules)
        self.version = version
        self.rules_version = rules_version or str(version)
        self.keys = dict(keys or {})
        self.revocations = revocations or Revocations()
        self._rules: Rules = build_rules(model_text, rows, tuple(tuple(link) for link in g_rules))
        self._row_filters = tuple(row_filters)
        self.field_grants = _field_grants(model_text, rows)
        self._groups = tuple(sorted({grant.group for grant in self.field_grants}))
        self._cache: dict[tuple[str, str, str], Obligations] = {}

    def with_revocations(self, revocations: Revocations, keys: Mapping[str, str]) -> PolicySnapshot:
        """Return a snapshot of the same compiled rules with other revocations and keys."""
        other = object.__new__(PolicySnapshot)
        for name in PolicySnapshot.__slots__:
            setattr(other, name, getattr(self, name))
        other.revocations = revocations
        other.keys = dict(keys)
        return other

    def decide(self, caller: Caller, resource: str, action: str, rows_of: Sequence[str] = ()) -> Decision:
        """Answer whether the caller may do this to the resource, and what the reply then owes.

        `rows_of` are other resources that the reply tells of: their row filters hold too.
        """
        verdict = self._ask(caller, resource, action)
        if not verdict.allowed:
            return Decision(False, verdict.reason, self.version, NOTHING_SHOWN, verdict.rule)
        obligations = self.obligations(caller)
        if self._row_filters:
            obligations = self._narrowed(obligations, caller, (resource, *rows_of))
        return Decision(True, verdict.reason, self.version, obligations, verdict.rule)

    @property
    def rules(self) -> Rules:
        """The compiled rules."""
        return self._rules

    def names(self, caller: Caller) -> frozenset[str]:
        """Return the subject and all roles it has in its department."""
        return self._rules.names(caller.subject, caller.department)

    def obligations(self, caller: Caller) -> Obligations:
        """Return the field groups this caller sees, sees masked and may search by, for the purpose named."""
        if not caller.purpose:
            return NOTHING_SHOWN
        key = (caller.subject, caller.department, caller.purpose)
        known = self._cache.get(key)
        if known is None:
            if len(self._cache) >= CACHED_OBLIGATIONS:
                self._cache.clear()
            known = self._cache[key] = self._field_rights(caller)
        return known

    def _ask(self, caller: Caller, resource: str, action: str) -> Verdict:
        purpose = caller.purpose or NO_PURPOSE
        return self._rules.decide((caller.subject, caller.department, resource, action, purpose))

    def _field_rights(self, caller: Caller) -> Obligations:
        def granted(action: str) -> frozenset[str]:
            return frozenset(g for g in self._groups if self._ask(caller, FIELD_PREFIX + g, action).allowed)

        shown = granted("show")
        return Obligations(shown, granted("mask") - shown, granted("search"))

    def _narrowed(self, obligations: Obligations, caller: Caller, resources: Sequence[str]) -> Obligations:
        conditions = tuple(f.bound_to(caller) for f in self._row_filters if self._applies(f, caller, resources))
        if not conditions:
            return obligations
        return Obligations(obligations.shown, obligations.masked, obligations.searchable, conditions)

    def _applies(self, row_filter: RowFilter, caller: Caller, resources: Sequence[str]) -> bool:
        if row_filter.resource not in ("*", *resources) or row_filter.department not in (
            "*",
            caller.department,
        ):
            return False
        return row_filter.subject in self._rules.names(caller.subject, caller.department)


def _field_grants(model_text: str, rows: Sequence[Row]) -> tuple[FieldGrant, ...]:
    """Return the rules about field groups; what the model has no word for counts as any, and as allowed."""
    import casbin

    model = casbin.Enforcer.new_model(text=model_text)
    if tuple(model["r"]["r"].tokens) != REQUEST_FIELDS:
        raise Invalid("the model's request must be: sub, dom, obj, act, purpose")
    tokens = model["p"]["p"].tokens
    if "p_obj" not in tokens:
        raise Invalid("the model's policy must have the field obj")
    found = []
    for row in rows:
        rule = {"p_sub": "*", "p_dom": "*", "p_act": "*", "p_purpose": "*", "p_eft": "allow"}
        rule.update(zip(tokens, row, strict=True))
        if rule["p_obj"].startswith(FIELD_PREFIX):
            group = rule["p_obj"].removeprefix(FIELD_PREFIX)
            names = ("p_sub", "p_dom", "p_act", "p_purpose", "p_eft")
            found.append(FieldGrant(group, *(rule[name] for name in names)))
    return tuple(found)


class SnapshotHolder:
    """Holds the snapshot of this process; readers take one reference and keep it for their whole request."""

    def __init__(self) -> None:
        """Start empty: nothing can be decided until a first snapshot comes."""
        self._snapshot: PolicySnapshot | None = None
        self._loaded = threading.Event()

    @property
    def current(self) -> PolicySnapshot:
        """Return the last good snapshot.

        Raises:
            Unavailable: none was ever loaded; the process is not ready.
        """
        snapshot = self._snapshot
        if snapshot is None:
            raise Unavailable("No access policy has been loaded yet; try again in a few seconds.")
        return snapshot

    @property
    def known(self) -> PolicySnapshot | None:
        """Return the snapshot, or None before the first."""
        return self._snapshot

    @property
    def loaded(self) -> bool:
        """Tell whether decisions can be made."""
        return self._snapshot is not None

    def swap(self, snapshot: PolicySnapshot) -> None:
        """Replace the snapshot whole, by one reference."""
        self._snapshot = snapshot
        self._loaded.set()

    def wait_loaded(self, timeout_seconds: float) -> bool:
        """Wait for the first snapshot."""
        return self._loaded.wait(timeout_seconds)


class SnapshotPoller:
    """A thread that asks for a newer snapshot every two seconds; on failure the last good one stays."""

    def __init__(
        self,
        holder: SnapshotHolder,
        fetch: Callable[[PolicySnapshot | None], PolicySnapshot | None],
        interval_seconds: float = 2.0,
    ) -> None:
        """`fetch` gets the known snapshot and returns a newer one, or None when there is none."""
        self._holder = holder
        self._fetch = fetch
        self._interval = interval_seconds
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="policy-poller", daemon=True)
        self._failing = False
        self.last_success = float("-inf")  # time.monotonic() of the last answer, for the staleness metric

    def start(self) -> None:
        """Begin polling."""
        self._thread.start()

    def stop(self) -> None:
        """Stop polling; returns when a fetch under way has ended or after five seconds."""
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join(timeout=5)

    def poll_once(self) -> bool:
        """Fetch once; tell whether access answered with something usable."""
        try:
            snapshot = self._fetch(self._holder.known)
        except Exception as error:  # whatever failed, the last good snapshot stays in force
            if not self._failing:
                log.warning("policy not refreshed, the last one stays in force: %s", type(error).__name__)
            self._failing = True
            return False
        self._failing = False
        if snapshot is not None:
            self._holder.swap(snapshot)
            log.info("policy version %s in force", snapshot.version)
        self.last_success = time.monotonic()
        return True

    def _run(self) -> None:
        wait = 0.0
        while not self._stopping.wait(wait):
            self.poll_once()
            wait = self._interval if self._holder.loaded else min(self._interval, 0.25)
