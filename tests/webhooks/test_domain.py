"""The rules alone: signatures, waits, secrets in rotation, the catalogue of events."""

from __future__ import annotations

import base64
import hmac
from datetime import UTC, datetime, timedelta

import pytest
from kehu.client.webhooks import SignatureWrong, verify_webhook
from kehu.profiles.v1 import events_pb2 as profiles

from services.chassis.access import Obligations
from services.webhooks.domain import schedule
from services.webhooks.domain.catalogue import catalogue, event_type_name
from services.webhooks.domain.signing import new_secret, signature, signed_headers
from services.webhooks.domain.subscriptions import Attempt, DeliveryState, Secret, Subscription, delivery_of

NOW = datetime(2026, 11, 22, 8, 0, tzinfo=UTC)
SPECIFIED = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"  # the example of Standard Webhooks 1.0


def test_a_signature_is_that_of_the_standards_example() -> None:
    found = signature(SPECIFIED, "msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, b'{"test": 2432232314}')

    assert found == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


def test_a_receiver_takes_a_delivery_signed_by_either_secret_and_nothing_changed() -> None:
    old, new, other = new_secret(), new_secret(), new_secret()
    headers, body = signed_headers([new, old], "m1", 1000, b'{"a": 1}'), b'{"a": 1}'

    assert verify_webhook(old, headers, body, now=1100) == verify_webhook(new, headers, body, now=900) == {"a": 1}
    wrong = [
        (other, headers, body, 1000),
        (new, headers, b'{"a": 2}', 1000),
        (new, {**headers, "webhook-id": "m2"}, body, 1000),
        (new, {**headers, "webhook-timestamp": "1001"}, body, 1000),
        (new, {**headers, "webhook-signature": "v1,"}, body, 1000),
        (new, {**headers, "webhook-signature": "v2," + headers["webhook-signature"][3:]}, body, 1000),
        (new, {}, body, 1000),
        (new, headers, body, 1301),
        (new, headers, body, 699),
    ]
    for secret, given, content, now in wrong:
        with pytest.raises(SignatureWrong):
            verify_webhook(secret, given, content, now=now)


@pytest.mark.parametrize(
    "secret", ["", "whsec_", "whsec_" + "A" * 28, "whsec_" + "A" * 31, "no secret", "whsec_王" * 9]
)
def test_a_receiver_without_a_whole_secret_believes_nobody(secret: str) -> None:
    headers = {"webhook-id": "m1", "webhook-timestamp": "1000"}
    signed = base64.b64encode(hmac.digest(b"", b"m1.1000.{}", "sha256")).decode()

    with pytest.raises(ValueError, match="give it whole"):
        verify_webhook(secret, {**headers, "webhook-signature": f"v1,{signed}"}, b"{}", now=1000)


@pytest.mark.parametrize(
    "hostile",
    [
        {"webhook-signature": "v1,é"},
        {"webhook-signature": "v1,\ud800"},
        {"webhook-timestamp": "1" * 5000},
        {"webhook-timestamp": "١٠٠٠"},
        {"webhook-id": "m\ud800"},
    ],
)
def test_hostile_headers_are_a_wrong_signature_and_nothing_else(hostile: dict[str, str]) -> None:
    secret = new_secret()
    headers = {**signed_headers([secret], "m1", 1000, b"{}"), **hostile}

    with pytest.raises(SignatureWrong):
        verify_webhook(secret, headers, b"{}", now=1000)


def test_secrets_do_not_repeat_and_are_long() -> None:
    found = {new_secret() for _ in range(200)}

    assert len(found) == 200
    assert {len(each) for each in found} == {len("whsec_") + 44}


def test_waits_grow_to_six_hours_and_end_after_three_days() -> None:
    waits = [schedule.retry_at(NOW, attempt, None, 0.5) - NOW for attempt in range(1, 30)]

    assert waits[:3] == [timedelta(seconds=5), timedelta(seconds=20), timedelta(seconds=80)]
    assert max(waits) == timedelta(hours=6)
    assert not schedule.is_given_up(NOW, NOW - timedelta(days=2, hours=23))
    assert schedule.is_given_up(NOW, NOW - timedelta(days=3))


def test_waits_are_spread() -> None:
    found = [schedule.retry_at(NOW, 3, None, chance) - NOW for chance in (0.0, 1.0)]

    assert found == [timedelta(seconds=64), timedelta(seconds=96)]


def test_a_wait_that_the_target_asks_for_is_honoured_within_bounds() -> None:
    def wait(asked: timedelta) -> timedelta:
        return schedule.retry_at(NOW, 1, asked, 0.5) - NOW

    assert wait(timedelta(minutes=10)) == timedelta(minutes=10)
    assert wait(timedelta(seconds=1)) == timedelta(seconds=5)
    assert wait(timedelta(days=300)) == timedelta(hours=6)
    assert schedule.retry_after("Sun, 22 Nov 2026 08:02:00 GMT", NOW) == timedelta(minutes=2)
    assert schedule.retry_after("Sun, 22 Nov 2020 08:02:00 GMT", NOW) == timedelta()
    assert schedule.retry_after("Mon, 01 Jan 2024 00:00:00 +99999999999999999", NOW) is None
    assert schedule.retry_after("Mon, 01 Jan 0001 00:00:00 +2359", NOW) in (None, timedelta())


def test_the_former_secret_signs_for_a_day_and_an_older_one_no_more() -> None:
    first = Subscription("a" * 32, "app:till", "sales", "sales", "https://x.cn/", (), (Secret(b"1"),))
    third = first.renewed(b"2", NOW).renewed(b"3", NOW + timedelta(hours=1))

    assert [each.sealed for each in third.signing(NOW + timedelta(hours=2))] == [b"3", b"2"]
    assert [each.sealed for each in third.signing(NOW + timedelta(hours=26))] == [b"3"]


def test_an_event_told_twice_is_one_delivery_and_only_the_last_attempts_are_kept() -> None:
    first = delivery_of("s1", "e1", "tickets.ticket_changed", "tickets/1", NOW, NOW)
    again = delivery_of("s1", "e1", "tickets.ticket_changed", "tickets/1", NOW, NOW + timedelta(hours=1))
    for number in range(30):
        first = first.after(Attempt(NOW, 500 + number, "status", 3), DeliveryState.WAITING, NOW)

    assert again.id == first.id
    assert delivery_of("s2", "e1", "tickets.ticket_changed", "tickets/1", NOW, NOW).id != first.id
    assert (first.attempt_count, len(first.attempts), first.attempts[-1].status) == (30, 20, 529)


def test_every_event_that_may_be_subscribed_to_is_read_by_a_method_that_lets_us_act_for_apps() -> None:
    assert "profiles.profile_changed" in catalogue()
    for event in catalogue().values():
        assert "webhooks" in event.plan.acting, event.name
        assert event.plan.reads_only, event.name
        assert len(event.plan.target_paths) == 1 and len(event.plan.target_paths[0]) == 1, event.name
        assert event.method.input_type.fields_by_name[event.plan.target_paths[0][0]], event.name


def test_an_event_names_what_it_is_about_and_no_more() -> None:
    told = profiles.ProfileChanged(profile_id="p1", gender="female", sealed_identity=b"secret")
    kind = catalogue()[event_type_name(told.DESCRIPTOR)]

    assert kind.resource(told) == "profiles/p1"


def test_a_field_is_shown_by_its_data_class() -> None:
    kind = catalogue()["profiles.profile_changed"]
    rights = Obligations(shown=frozenset({"personal/name"}), masked=frozenset({"personal/birth"}))

    assert [kind.shows(field, rights) for field in ("display_name", "gender", "resident_id", "tier")] == [
        True, False, False, True,
    ]  # fmt: skip
    assert {"tier", "stage", "owner_department"} <= set(kind.filter_fields)
    assert not {"phones", "address", "attributes"} & set(kind.filter_fields)
