"""Decisions, obligations, snapshots and tokens of the chassis."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.rsa import generate_private_key
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client import REGISTRY

from services.chassis.access import (
    ALL_SHOWN,
    MODEL,
    Caller,
    CompiledRules,
    Condition,
    PlainRules,
    PolicySnapshot,
    Revocations,
    RowFilter,
    SnapshotHolder,
    SnapshotPoller,
    TokenVerifier,
    build_rules,
)
from services.chassis.errors import Invalid, Unauthenticated, Unavailable

ALICE = Caller("user:alice", "user", "marketing", "marketing")
RULES = [
    ("role:marketer", "marketing", "profiles", "read", "*", "allow"),
    ("role:marketer", "marketing", "fields/personal/name", "mask", "marketing", "allow"),
    ("role:marketer", "marketing", "fields/personal/contact", "show", "marketing", "allow"),
    ("role:marketer", "marketing", "fields/personal/contact", "mask", "marketing", "allow"),
    ("role:marketer", "marketing", "fields/personal/name", "search", "marketing", "allow"),
]
LINKS = [("user:alice", "role:marketer", "marketing")]


def snapshot(rules: list = RULES, links: list = LINKS, **how: object) -> PolicySnapshot:
    return PolicySnapshot(7, MODEL, rules, links, **how)


# Names from a small set, so that random requests meet random rules often; "x" is known to no rule.
SUBJECTS = st.sampled_from(["user:a", "user:b", "role:r1", "role:r2", "role:r3", "role:r4"])
DOMAINS = st.sampled_from(["d1", "d2"])
WILD = st.sampled_from(["*", "v1", "v2"])
RULE = st.tuples(
    SUBJECTS, st.sampled_from(["*", "d1", "d2"]), st.sampled_from(["o1", "o2"]), WILD, WILD,
    st.sampled_from(["allow", "allow", "deny", "Deny"]),
)  # fmt: skip
LINK = st.tuples(SUBJECTS, SUBJECTS, DOMAINS)
REQUEST = st.tuples(
    st.sampled_from(["user:a", "user:b", "role:r1", "x"]), st.sampled_from(["d1", "d2", "*", "x"]),
    st.sampled_from(["o1", "o2", "x"]), st.sampled_from(["v1", "v2", "*"]), st.sampled_from(["v1", "*", "x"]),
)  # fmt: skip


@settings(max_examples=400, deadline=None)
@given(
    st.lists(RULE, min_size=1, max_size=12),
    st.lists(LINK, max_size=10),
    st.lists(REQUEST, min_size=5, max_size=20),
)
def test_the_compiled_rules_answer_what_pycasbin_answers(rules: list, links: list, requests: list) -> None:
    compiled, plain = build_rules(MODEL, rules, links), PlainRules(MODEL, rules, links)

    assert isinstance(compiled, CompiledRules)
    for request in requests:
        assert plain.decide(request).allowed == compiled.decide(request).allowed, request


@pytest.mark.parametrize("depth", [1, 8, 9, 10, 11])
def test_role_chains_end_where_pycasbin_ends_them(depth: int) -> None:
    links = [(f"role:r{step}", f"role:r{step + 1}", "d1") for step in range(depth)]
    rules = [(f"role:r{depth}", "d1", "o1", "v1", "*", "allow")]
    request = ("role:r0", "d1", "o1", "v1", "none")

    compiled, plain = build_rules(MODEL, rules, links), PlainRules(MODEL, rules, links)

    assert plain.decide(request).allowed == compiled.decide(request).allowed == (depth <= 9)


UNKNOWN_MATCHERS = [
    "g(r.sub, p.sub, r.dom) && r.obj == p.obj && keyMatch(r.act, p.act)",
    'g(r.sub, p.sub, r.dom) && r.obj == p.obj && r.act == p.act && r.purpose != "none"',
    "g(r.sub, p.sub, p.dom) && r.obj == p.obj && r.act == p.act",
    "r.sub == p.sub || g(r.sub, p.sub, r.dom) && r.obj == p.obj",
    '!(r.sub == "user:b") && r.obj == p.obj && r.act == p.act',
]


@pytest.mark.parametrize("matcher", UNKNOWN_MATCHERS)
def test_a_matcher_the_compiler_does_not_know_is_left_to_pycasbin(matcher: str) -> None:
    model = MODEL.partition("m = ")[0] + f"m = {matcher}\n"

    rules = build_rules(model, [("user:a", "d1", "o1", "v1", "*", "allow")], [])

    assert isinstance(rules, PlainRules)
    assert rules.decide(("user:a", "d1", "o1", "v1", "v1")).allowed


def test_another_effect_is_left_to_pycasbin() -> None:
    model = MODEL.replace(
        "some(where (p.eft == allow)) && !some(where (p.eft == deny))", "some(where (p.eft == allow))"
    )
    rules = [("user:a", "d1", "o1", "v1", "*", "deny"), ("user:a", "d1", "o1", "v1", "*", "allow")]

    found = build_rules(model, rules, [])

    assert isinstance(found, PlainRules)
    assert found.decide(("user:a", "d1", "o1", "v1", "v1")).allowed


@pytest.mark.parametrize("kind", [build_rules, PlainRules])
def test_no_rules_and_empty_fields_allow_nothing(kind: Callable) -> None:
    """pycasbin alone answers True to an empty request on an empty policy."""
    empty, some = kind(MODEL, [], []), kind(MODEL, [("user:a", "*", "o1", "*", "*", "allow")], [])

    assert not empty.decide(("", "", "", "", "")).allowed
    assert not empty.decide(("user:a", "d1", "o1", "v1", "v1")).allowed
    for position in range(5):
        request = ["user:a", "d1", "o1", "v1", "v1"]
        request[position] = ""
        assert not some.decide(tuple(request)).allowed


def test_a_rule_that_breaks_pycasbin_is_a_refusal() -> None:
    model = MODEL.partition("m = ")[0] + "m = r.sub.missing == p.sub\n"

    verdict = build_rules(model, [("user:a", "d1", "o1", "v1", "*", "allow")], []).decide(("a", "b", "c", "d", "e"))

    assert (verdict.allowed, verdict.reason) == (False, "POLICY_ERROR")


@pytest.mark.parametrize(
    "rules", [[("user:a", "d1", "o1", "v1", "allow")], [("user:a", "", "o1", "v1", "*", "allow")], [("user:a",)]]
)
def test_a_short_or_empty_row_is_refused_whole(rules: list) -> None:
    with pytest.raises(Invalid):
        build_rules(MODEL, rules, [])


def test_a_decision_names_its_rule_version_and_obligations() -> None:
    decision = snapshot().decide(ALICE, "profiles", "read")

    assert (True, "ALLOWED", 7, RULES[0]) == (
        decision.allowed, decision.reason, decision.policy_version, decision.rule,
    )  # fmt: skip
    shown = decision.obligations
    assert [
        shown.disposition("personal", "name"),
        shown.disposition("personal", "contact"),
        shown.disposition("sensitive", "document"),
        shown.disposition("internal", ""),
    ] == ["mask", "show", "hide", "show"]
    assert shown.may_search("personal", "name")
    assert not shown.may_search("personal", "contact")


def test_without_a_purpose_personal_fields_are_hidden() -> None:
    decision = snapshot().decide(ALICE.with_purpose(""), "profiles", "read")

    assert decision.allowed
    assert decision.obligations.disposition("personal", "contact") == "hide"


def test_a_purpose_that_was_not_granted_hides_personal_fields() -> None:
    obligations = snapshot().decide(ALICE.with_purpose("service"), "profiles", "read").obligations

    assert obligations.disposition("personal", "contact") == "hide"


def test_an_unclassified_field_is_hidden_from_everyone_but_services() -> None:
    assert snapshot().decide(ALICE, "profiles", "read").obligations.disposition("", "contact") == "hide"
    assert ALL_SHOWN.disposition("sensitive", "document") == "show"


def test_a_deny_beats_every_allow_and_is_named() -> None:
    denial = ("user:alice", "*", "profiles", "*", "*", "deny")

    decision = snapshot([*RULES, denial]).decide(ALICE, "profiles", "read")

    assert (False, "DENIED_BY_RULE", denial) == (decision.allowed, decision.reason, decision.rule)


def test_row_filters_of_all_the_callers_roles_hold_at_once() -> None:
    filters = [
        RowFilter("role:marketer", "*", "profiles", "owner_department", ("$department",)),
        RowFilter("user:alice", "marketing", "*", "tier", ("gold", "silver")),
        RowFilter("role:other", "*", "*", "tier", ("none",)),
    ]

    decision = snapshot(row_filters=filters).decide(ALICE, "profiles", "read")

    assert decision.obligations.row_filter == (
        Condition("owner_department", ("marketing",), "profiles"),
        Condition("tier", ("gold", "silver"), "*"),
    )


def test_row_filters_hold_wherever_a_method_tells_of_their_resource() -> None:
    filters = [RowFilter("role:marketer", "*", "tickets", "owner_department", ("$department",))]

    alone = snapshot(row_filters=filters).decide(ALICE, "profiles", "read")
    told = snapshot(row_filters=filters).decide(ALICE, "profiles", "read", ("tickets", "audiences"))

    assert alone.allowed and alone.obligations.row_filter == ()
    assert told.obligations.row_filter == (Condition("owner_department", ("marketing",), "tickets"),)


def test_strangers_leave_nothing_in_memory() -> None:
    rules = snapshot().rules
    for number in range(2000):
        rules.decide((f"user:{number}", f"d{number}", "profiles", "read", "none"))

    assert len(rules.closure._closed) == 0


def test_an_empty_holder_decides_nothing() -> None:
    with pytest.raises(Unavailable):
        _ = SnapshotHolder().current


def test_the_poller_keeps_the_last_good_snapshot_when_access_fails() -> None:
    holder, answers = SnapshotHolder(), [snapshot(), None, ConnectionError(), Invalid("bad rules")]

    def fetch(known: PolicySnapshot | None) -> PolicySnapshot | None:
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    poller = SnapshotPoller(holder, fetch)

    assert [poller.poll_once() for _ in range(4)] == [True, True, False, False]
    assert holder.current.version == 7


def test_a_process_tells_which_policy_it_decides_by_and_when_it_last_heard_of_it() -> None:
    answers: list[PolicySnapshot | None | Exception] = [snapshot(), ConnectionError(), None]

    def fetch(known: PolicySnapshot | None) -> PolicySnapshot | None:
        if isinstance(answers[0], Exception):
            raise answers.pop(0)
        return answers.pop(0)

    def told(name: str) -> float:
        return REGISTRY.get_sample_value(name) or 0.0

    poller, heard = SnapshotPoller(SnapshotHolder(), fetch), []
    for _ in range(3):
        time.sleep(0.01)
        poller.poll_once()
        heard.append(told("kehu_policy_answered_timestamp_seconds"))

    assert told("kehu_policy_revision") == 7
    assert abs(heard[0] - time.time()) < 60
    assert heard[0] == heard[1] < heard[2], "an access that is away is not heard of"


def test_the_poller_loads_by_itself_and_stops() -> None:
    holder = SnapshotHolder()
    poller = SnapshotPoller(holder, lambda known: snapshot(), interval_seconds=0.01)
    poller.start()

    assert holder.wait_loaded(5)
    poller.stop()


def test_a_swap_under_load_never_mixes_two_policies() -> None:
    """Version 1 allows read and not list, version 2 list and not read: exactly one of both at any time."""
    both = [
        PolicySnapshot(n, MODEL, [("user:alice", "marketing", "profiles", action, "*", "allow")], [])
        for n, action in ((1, "read"), (2, "list"))
    ]
    holder, wrong, stop = SnapshotHolder(), [], threading.Event()
    holder.swap(both[0])

    def ask() -> None:
        while not stop.is_set():
            current = holder.current
            answers = [current.decide(ALICE, "profiles", action) for action in ("read", "list")]
            if sum(a.allowed for a in answers) != 1 or len({a.policy_version for a in answers}) != 1:
                wrong.append(answers)

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    for turn in range(2000):
        holder.swap(both[turn % 2])
    stop.set()
    for thread in threads:
        thread.join()

    assert not wrong


ISSUER, AUDIENCE, NOW = "https://access.test", "kehu-test", 1_800_000_000.0


@dataclass
class Mint:
    """Makes tokens, right and wrong."""

    key: Ed25519PrivateKey
    holder: SnapshotHolder

    def claims(self, **changes: object) -> dict[str, object]:
        right = {
            "iss": ISSUER, "aud": AUDIENCE, "sub": "app:shop", "department": "marketing", "client_id": "shop",
            "iat": NOW - 10.5, "nbf": int(NOW) - 11, "exp": int(NOW) + 800, "jti": "t1", "amr": ["client_secret"],
        }  # fmt: skip
        right.update(changes)
        return {name: value for name, value in right.items() if value is not None}

    def token(self, header: dict | None = None, key: object = None, algorithm: str = "EdDSA", **changes: object) -> str:
        headers = {"typ": "at+jwt", "kid": "k1", **(header or {})}
        return jwt.encode(self.claims(**changes), key or self.key, algorithm=algorithm, headers=headers)

    def raw(self, header: dict | str, claims: dict | str, sign: bool = True) -> str:
        parts = [_base64(part if isinstance(part, str) else json.dumps(part)) for part in (header, claims)]
        signature = self.key.sign(".".join(parts).encode()) if sign else b""
        return ".".join([*parts, base64.urlsafe_b64encode(signature).decode().rstrip("=")])


def _base64(text: str) -> str:
    return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")


@pytest.fixture(scope="module")
def mint() -> Mint:
    key = Ed25519PrivateKey.generate()
    raw = key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
    holder = SnapshotHolder()
    revoked = Revocations(frozenset({"gone"}), {"app:shop#c1": NOW})
    holder.swap(snapshot(keys={"k1": base64.urlsafe_b64encode(raw).decode().rstrip("=")}, revocations=revoked))
    return Mint(key, holder)


@pytest.fixture
def verifier(mint: Mint) -> TokenVerifier:
    return TokenVerifier(mint.holder, ISSUER, AUDIENCE, lambda: NOW)


HEADER = {"alg": "EdDSA", "typ": "at+jwt", "kid": "k1"}


def hs256_with_public_key(m: Mint) -> str:
    public = m.key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
    body = f"{_base64(json.dumps({**HEADER, 'alg': 'HS256'}))}.{_base64(json.dumps(m.claims()))}"
    signature = hmac.new(public, body.encode(), hashlib.sha256).digest()
    return f"{body}.{base64.urlsafe_b64encode(signature).decode().rstrip('=')}"


BAD_TOKENS: dict[str, Callable[[Mint], str]] = {
    "empty": lambda m: "",
    "one part": lambda m: "abc",
    "two parts": lambda m: m.token().rpartition(".")[0],
    "four parts": lambda m: m.token() + ".x",
    "alg none": lambda m: m.raw({**HEADER, "alg": "none"}, m.claims(), sign=False),
    "alg None": lambda m: m.raw({**HEADER, "alg": "None"}, m.claims(), sign=False),
    "alg none, signed": lambda m: m.raw({**HEADER, "alg": "none"}, m.claims()),
    "no alg": lambda m: m.raw({"typ": "at+jwt", "kid": "k1"}, m.claims()),
    "HS256 with the public key": hs256_with_public_key,
    "RS256": lambda m: m.token(key=generate_private_key(65537, 2048), algorithm="RS256"),
    "another key": lambda m: m.token(key=Ed25519PrivateKey.generate()),
    "unknown kid": lambda m: m.token({"kid": "k2"}),
    "no kid": lambda m: m.raw({"alg": "EdDSA", "typ": "at+jwt"}, m.claims()),
    "kid a number": lambda m: m.raw({**HEADER, "kid": 1}, m.claims()),
    "kid a path": lambda m: m.token({"kid": "../../keys/k1"}),
    "jku": lambda m: m.token({"jku": "https://evil.test/jwks.json"}),
    "x5u": lambda m: m.token({"x5u": "https://evil.test/cert.pem"}),
    "jwk": lambda m: m.raw({**HEADER, "jwk": {"kty": "OKP"}}, m.claims()),
    "crit": lambda m: m.raw({**HEADER, "crit": ["exp"]}, m.claims()),
    "typ JWT": lambda m: m.token({"typ": "JWT"}),
    "typ id token": lambda m: m.token({"typ": "id+jwt"}),
    "header a list": lambda m: m.raw('["EdDSA"]', m.claims()),
    "header no JSON": lambda m: m.raw("{", m.claims()),
    "header key twice": lambda m: m.raw('{"alg":"EdDSA","typ":"at+jwt","kid":"k2","kid":"k1"}', m.claims()),
    "claims a list": lambda m: m.raw(HEADER, "[1]"),
    "claim twice": lambda m: m.raw(HEADER, json.dumps(m.claims())[:-1] + ',"sub":"app:shop"}'),
    "wrong iss": lambda m: m.token(iss="https://evil.test"),
    "no iss": lambda m: m.token(iss=None),
    "wrong aud": lambda m: m.token(aud="other"),
    "no aud": lambda m: m.token(aud=None),
    "several aud": lambda m: m.token(aud=[AUDIENCE, "other"]),
    "expired": lambda m: m.token(exp=int(NOW) - 6, iat=NOW - 800, nbf=int(NOW) - 800),
    "no exp": lambda m: m.token(exp=None),
    "exp as text": lambda m: m.raw(HEADER, m.claims(exp="soon")),
    "exp true": lambda m: m.raw(HEADER, m.claims(exp=True)),
    "too long a life": lambda m: m.token(exp=int(NOW) + 3600),
    "endless": lambda m: m.raw(HEADER, json.dumps(m.claims(exp=0)).replace('"exp": 0', '"exp": 1e400')),
    "not yet": lambda m: m.token(nbf=int(NOW) + 60),
    "no nbf": lambda m: m.token(nbf=None),
    "no iat": lambda m: m.token(iat=None),
    "iat in the future": lambda m: m.token(iat=NOW + 60, exp=int(NOW) + 120),
    "no jti": lambda m: m.token(jti=None),
    "empty jti": lambda m: m.token(jti=""),
    "no sub": lambda m: m.token(sub=None),
    "sub a service": lambda m: m.token(sub="svc:access"),
    "sub a role": lambda m: m.token(sub="role:administrator"),
    "sub with a line": lambda m: m.token(sub="app:shop\n"),
    "sub a list": lambda m: m.raw(HEADER, m.claims(sub=["app:shop"])),
    "no department": lambda m: m.token(department=None),
    "department a number": lambda m: m.token(department=1),
    "bound to a certificate": lambda m: m.token(cnf={"x5t#S256": "A" * 43}),
    "bound to a short thumbprint": lambda m: m.token(cnf={"x5t#S256": "A"}),
    "bound to no thumbprint": lambda m: m.token(cnf={"x5t#S256": ""}),
    "bound to nothing": lambda m: m.token(cnf={}),
    "bound to a key": lambda m: m.token(cnf={"jkt": "A" * 43}),
    "bound to two things": lambda m: m.token(cnf={"x5t#S256": "A" * 43, "jkt": "B" * 43}),
    "bound to a text": lambda m: m.token(cnf="A" * 43),
    "jti revoked": lambda m: m.token(jti="gone"),
    "credential retired": lambda m: m.token(jti="c1.t2"),
    "x5c": lambda m: m.token({"x5c": ["MIIB"]}),
    "amr a text": lambda m: m.token(amr="otp"),
    "signature cut": lambda m: m.token()[:-4],
    "signature flipped": lambda m: m.token()[:-8] + ("A" * 8),
    "signature empty": lambda m: m.raw(HEADER, m.claims(), sign=False),
    "payload changed": lambda m: _with_payload(m.token(), m.claims(department="administration")),
    "space inside": lambda m: m.token().replace(".", ". ", 1),
    "line at the end": lambda m: m.token() + "\n",
    "a megabyte": lambda m: m.token(jti="x" * 1_000_000),
    "no ASCII": lambda m: m.token() + "令牌",
    "deep JSON": lambda m: m.raw("[" * 1200, m.claims()),
}


def _with_payload(token: str, claims: dict) -> str:
    header, _, signature = token.split(".")
    return f"{header}.{_base64(json.dumps(claims))}.{signature}"


@pytest.mark.parametrize("name", BAD_TOKENS)
def test_a_bad_token_is_refused_in_the_same_words(name: str, mint: Mint, verifier: TokenVerifier) -> None:
    with pytest.raises(Unauthenticated) as caught:
        verifier.verify(BAD_TOKENS[name](mint))

    assert caught.value.message == "The access token is not valid; ask the token endpoint for a new one."


def test_a_token_bound_to_a_certificate_counts_over_it_alone_cached_or_not(mint: Mint, verifier: TokenVerifier) -> None:
    thumb = "A" * 43
    token = mint.token(cnf={"x5t#S256": thumb})

    for _ in range(2):
        assert verifier.verify(token, thumb).subject == "app:shop"
        for wrong in ("", "B" * 43, thumb + "A", thumb[:-1]):
            with pytest.raises(Unauthenticated):
                verifier.verify(token, wrong)


def test_a_retired_credential_ends_its_own_tokens_only(mint: Mint, verifier: TokenVerifier) -> None:
    assert verifier.verify(mint.token(jti="c2.t2")) and verifier.verify(mint.token(jti="c1x.t2"))
    assert verifier.verify(mint.token(sub="app:other", jti="c1.t2"))


def test_a_good_token_tells_its_caller(mint: Mint, verifier: TokenVerifier) -> None:
    caller = verifier.verify(mint.token(auth_time=int(NOW) - 5))

    assert (
        caller.subject, caller.kind, caller.department, caller.purpose, caller.token_id,
    ) == ("app:shop", "app", "marketing", "", "t1")  # fmt: skip
    assert caller.methods == ("client_secret",)
    assert caller.auth_time is not None
    assert verifier.verify(f"Bearer {mint.token()}").subject == "app:shop"


@pytest.mark.parametrize(
    "revocations",
    [Revocations(frozenset({"t1"})), Revocations(subjects={"app:shop": NOW - 10.5})],
)
def test_a_revocation_ends_a_token_that_was_verified_before(revocations: Revocations, mint: Mint) -> None:
    holder = SnapshotHolder()
    holder.swap(mint.holder.current)
    verifier, token = TokenVerifier(holder, ISSUER, AUDIENCE, lambda: NOW), mint.token()
    verifier.verify(token)

    holder.swap(holder.current.with_revocations(revocations, holder.current.keys))

    with pytest.raises(Unauthenticated):
        verifier.verify(token)
    assert verifier.verify(mint.token(jti="t2", iat=NOW - 10.4))


def test_a_cached_token_still_expires_and_falls_with_its_key(mint: Mint) -> None:
    clock, holder = [NOW], SnapshotHolder()
    holder.swap(mint.holder.current)
    verifier, token = TokenVerifier(holder, ISSUER, AUDIENCE, lambda: clock[0]), mint.token()
    verifier.verify(token)

    clock[0] = NOW + 900
    with pytest.raises(Unauthenticated):
        verifier.verify(token)
    clock[0] = NOW
    verifier.verify(token)
    holder.swap(holder.current.with_revocations(Revocations(), {}))
    with pytest.raises(Unauthenticated):
        verifier.verify(token)


def test_a_verifier_without_audience_or_issuer_is_not_built(mint: Mint) -> None:
    for issuer, audience in (("", AUDIENCE), (ISSUER, "")):
        with pytest.raises(ValueError, match="must be configured"):
            TokenVerifier(mint.holder, issuer, audience)
