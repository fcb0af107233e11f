"""The rules of marketing: segments, templates, links, campaign states, the gate, figures."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, time, timedelta

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from kehu.analytics.v1 import audience_pb2 as aud

from services.marketing.domain import campaigns as cam
from services.marketing.domain.campaigns import Campaign, CampaignState, FrequencyCap, QuietHours, QuietPolicy, step
from services.marketing.domain.deliveries import (
    FINAL,
    Delivery,
    DeliveryState,
    Run,
    RunState,
    add,
    claimed,
    close_page,
    delivery_id_of,
    ended,
    open_page,
    planned,
    recorded,
    recovered,
    refused,
    sending,
    sent,
    tally,
)
from services.marketing.domain.errors import (
    CampaignInvalid,
    CampaignStateForbids,
    RuleInvalid,
    SendWithoutPurpose,
    TemplateInvalid,
)
from services.marketing.domain.links import delivery_of, unsubscribe_token
from services.marketing.domain.planning import (
    CHINA,
    Candidate,
    ConsentAnswer,
    Plan,
    PlanTerms,
    SkipReason,
    affordable_messages,
    may_act,
    plan_deliveries,
    quiet_until,
)
from services.marketing.domain.segments import checked_rule
from services.marketing.domain.suppressions import Suppression
from services.marketing.domain.templates import Template, checked_template, render

NOW = datetime(2026, 5, 6, 2, 0, tzinfo=UTC)
NEVER = QuietHours(time(8), time(8))
YES = ConsentAnswer(True, "GRANTED", ("r1",))


def trait(name="tier", operator=aud.OPERATOR_EQ, values=("gold",)):
    return aud.AudienceRule(trait=aud.TraitCondition(trait=name, operator=operator, values=values))


def group(*rules):
    return aud.AudienceRule(all=aud.RuleGroup(rules=rules))


def nested(depth):
    rule = trait()
    for _ in range(depth - 1):
        rule = aud.AudienceRule(**{"not": rule})
    return rule


@pytest.mark.parametrize(
    "rule",
    [
        trait(),
        trait("age", aud.OPERATOR_GE, ["30"]),
        trait("city_code", aud.OPERATOR_IN, ["330100", "110100"]),
        group(trait(), aud.AudienceRule(any=aud.RuleGroup(rules=[trait()]))),
        aud.AudienceRule(score=aud.ScoreCondition(score="rfm_recency", operator=aud.OPERATOR_GE, values=["4"])),
        aud.AudienceRule(score=aud.ScoreCondition(score="rfm_segment", operator=aud.OPERATOR_EQ, values=["loyal"])),
        aud.AudienceRule(
            event=aud.EventCondition(event_type="order_completed", measure=1, operator=aud.OPERATOR_EQ, value=0)
        ),
        nested(8),
    ],
)
def test_a_rule_that_can_be_evaluated_is_taken(rule):
    assert checked_rule(rule) == rule


@pytest.mark.parametrize(
    ("rule", "place"),
    [
        (aud.AudienceRule(), "rule"),
        (group(), "rule"),
        (nested(9), "rule" + ".not" * 8),
        (group(*[trait()] * 101), "rule"),
        (group(trait(), trait(values=())), "rule.all.rules[1].trait.values"),
        (trait(values=("a", "b")), "rule.trait.values"),
        (trait(operator=0), "rule.trait.operator"),
        (trait(operator=aud.OPERATOR_LT), "rule.trait.operator"),
        (trait("age", aud.OPERATOR_LT, ["thirty"]), "rule.trait.values"),
        (trait("city_code", aud.OPERATOR_EQ, ["杭州"]), "rule.trait.values"),
        # nobody's is written so: "not that" would be everybody
        (trait("province_code", aud.OPERATOR_NE, ["４４００００"]), "rule.trait.values"),
        (trait("gender", aud.OPERATOR_NE, ["男"]), "rule.trait.values"),
        (trait("age", aud.OPERATOR_GE, ["１８"]), "rule.trait.values"),
        (
            aud.AudienceRule(score=aud.ScoreCondition(score="rfm_recency", operator=aud.OPERATOR_GE, values=["9"])),
            "rule.score.values",
        ),
        (
            aud.AudienceRule(score=aud.ScoreCondition(score="rfm_segment", operator=aud.OPERATOR_LT, values=["x"])),
            "rule.score.operator",
        ),
        (aud.AudienceRule(event=aud.EventCondition(event_type="x", operator=aud.OPERATOR_EQ)), "rule.event.measure"),
        (aud.AudienceRule(event=aud.EventCondition(event_type="x", measure=1)), "rule.event.operator"),
    ],
)
def test_a_rule_that_cannot_be_evaluated_is_refused_where_it_is_wrong(rule, place):
    with pytest.raises(RuleInvalid) as caught:
        checked_rule(rule)

    assert [violation.field for violation in caught.value.violations] == [place]


MESSAGE = Template(
    "您好 {{display_name}}", "你好 {{ display_name }}\n退订 {{unsubscribe_url}}", "<b>{{display_name}}</b>"
)


def test_a_message_is_filled_in_and_html_is_escaped():
    message = render(MESSAGE, "<李>", "https://k/u?a=1&b=2")

    assert message.subject == "您好 <李>"
    assert message.text == "你好 <李>\n退订 https://k/u?a=1&b=2"
    assert message.html.startswith("<b>&lt;李&gt;</b>") and 'href="https://k/u?a=1&amp;b=2"' in message.html


def test_a_text_without_the_link_gets_a_closing_line():
    assert "https://k/u" in render(Template("s", "text"), "李", "https://k/u").text


@given(st.text(max_size=40))
@example("李\u0085明")
def test_no_name_breaks_out_of_the_subject_or_fills_in_another_slot(name):
    message = render(MESSAGE, name + "\r\nBcc: x@y {{unsubscribe_url}}", "https://k/u")

    assert len(message.subject.splitlines()) == 1  # what a header of a mail may be
    assert "https://k/u" not in message.subject


def test_an_empty_name_is_still_polite():
    assert render(MESSAGE, " \n", "u").subject == "您好 顾客"


@pytest.mark.parametrize(
    ("template", "field"),
    [
        (Template("s {{phone}}", "t"), "subject"),
        (Template("s", "t {{ }}"), "text"),
        (Template("s", "t", "{{x"), "html"),
        (Template("two\nlines", "t"), "subject"),
        (Template("two\u0085lines", "t"), "subject"),
        (Template("{{unsubscribe_url}}", "t"), "subject"),
        (Template("s", "  "), "text"),
    ],
)
def test_a_template_that_cannot_be_filled_in_is_refused(template, field):
    with pytest.raises(TemplateInvalid) as caught:
        checked_template(template)

    assert f"campaign.template.{field}" in [violation.field for violation in caught.value.violations]


KEY, OLD = b"k" * 32, b"o" * 32


@given(st.binary(min_size=16, max_size=16))
def test_a_link_leads_back_to_its_delivery(raw):
    token = unsubscribe_token(OLD, raw.hex())

    assert delivery_of((KEY, OLD), token) == raw.hex()
    assert delivery_of((KEY,), token) is None
    assert len(token) == 43


@given(st.binary(min_size=16, max_size=16), st.integers(0, 42), st.sampled_from("AZaz09-_"))
def test_a_link_that_was_changed_leads_nowhere(raw, place, letter):
    token = unsubscribe_token(KEY, raw.hex())
    changed = token[:place] + letter + token[place + 1 :]

    assert delivery_of((KEY,), changed) in (None, raw.hex() if changed[:-1] == token[:-1] else None)


@pytest.mark.parametrize("token", ["", "x", "é" * 43, "A" * 42, "A" * 60, "!" * 43])
def test_nonsense_is_no_link(token):
    assert delivery_of((KEY,), token) is None


CAMPAIGN = Campaign("c1", "五月", "s1", "offers", "email", MESSAGE)


def test_a_send_without_purpose_is_refused():
    """Dittofeed sends to all when no subscription group is given."""
    with pytest.raises(SendWithoutPurpose):
        cam.checked_campaign(replace(CAMPAIGN, purpose_id=""))
    with pytest.raises(SendWithoutPurpose):
        step(replace(CAMPAIGN, purpose_id=""), "run", NOW, "r1")


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"display_name": " "}, "display_name"),
        ({"channel": "pigeon"}, "channel"),
        ({"budget_cents": -1}, "budget_cents"),
        ({"budget_cents": 100}, "message_cost_cents"),
        ({"message_cost_cents": 2**62}, "message_cost_cents"),  # two messages were more than a figure holds
        ({"frequency_cap": FrequencyCap(0, 7)}, "frequency_cap"),
    ],
)
def test_a_campaign_that_contradicts_itself_is_refused(changes, field):
    with pytest.raises(CampaignInvalid) as caught:
        cam.checked_campaign(replace(CAMPAIGN, **changes))

    assert f"campaign.{field}" in [violation.field for violation in caught.value.violations]


ALLOWED = {
    "run": {"DRAFT": "RUNNING", "DONE": "RUNNING", "FAILED": "RUNNING"},
    "begin": {"SCHEDULED": "RUNNING"},
    "pause": {"RUNNING": "PAUSED", "SCHEDULED": "PAUSED"},
    "resume": {"PAUSED": "RUNNING"},
    "finish": {"RUNNING": "DONE", "PAUSED": "DONE"},
    "fail": {"SCHEDULED": "FAILED", "RUNNING": "FAILED", "PAUSED": "FAILED"},
    "cancel": {state: "CANCELLED" for state in ("DRAFT", "SCHEDULED", "RUNNING", "PAUSED")},
}


@pytest.mark.parametrize("name", ALLOWED)
@pytest.mark.parametrize("state", list(CampaignState))
def test_every_step_from_every_state(name, state):
    campaign = replace(CAMPAIGN, state=state, run_id="r0", version=4)
    if state.value not in ALLOWED[name]:
        with pytest.raises(CampaignStateForbids) as caught:
            step(campaign, name, NOW)
        assert caught.value.metadata == {"state": state.value, "wanted": name}
        return

    changed, fact = step(campaign, name, NOW)

    assert changed.state == ALLOWED[name][state.value]
    assert (fact.state, fact.version, fact.run_id) == (changed.state.lower(), 5, "r0")


def test_a_run_ahead_of_its_time_is_scheduled():
    later = replace(CAMPAIGN, schedule_time=NOW + timedelta(hours=1))

    assert step(later, "run", NOW, "r1")[0].state is CampaignState.SCHEDULED
    assert step(replace(later, state=CampaignState.PAUSED), "resume", NOW)[0].state is CampaignState.SCHEDULED
    assert step(later, "run", NOW + timedelta(hours=1), "r1")[0].state is CampaignState.RUNNING


@pytest.mark.parametrize("state", list(CampaignState))
def test_only_a_campaign_without_a_run_under_way_that_is_not_cancelled_is_changed(state):
    known, values = replace(CAMPAIGN, state=state), replace(CAMPAIGN, display_name="六月", purpose_id="")
    if state.value not in ("DRAFT", "DONE", "FAILED"):
        with pytest.raises(CampaignStateForbids):
            cam.change_campaign(known, values, ("display_name",))
        return

    assert cam.change_campaign(known, values, ("display_name",)) == replace(known, display_name="六月")
    with pytest.raises(SendWithoutPurpose):
        cam.change_campaign(known, values, ("purpose_id",))


@pytest.mark.parametrize("name", ["finish", "fail", "cancel"])
def test_a_campaign_that_could_not_be_run_any_more_can_still_end(name):
    broken = replace(CAMPAIGN, state=CampaignState.RUNNING, display_name="")

    assert step(broken, name, NOW)[0].state not in (CampaignState.RUNNING, CampaignState.PAUSED)
    with pytest.raises(CampaignInvalid):
        step(replace(broken, state=CampaignState.PAUSED), "resume", NOW)


def candidate(**changes):
    return replace(Candidate("p1", "p1", YES, True, False, 0), **changes)


def terms(**changes):
    return replace(PlanTerms(FrequencyCap(3, 7), NEVER, None, NOW), **changes)


DROPS = QuietHours(time(9), time(11), QuietPolicy.DROP)
BAD = {
    "consent": ConsentAnswer(False, "REVOKED"), "has_address": False, "is_suppressed": True, "recent_messages": 3,
}  # fmt: skip


@pytest.mark.parametrize(
    ("wrong", "limits", "reason"),
    [
        ({}, {}, None),
        (BAD, {"cancelled": True, "persons_in_run": frozenset({"p1"})}, SkipReason.CANCELLED),
        (BAD, {"persons_in_run": frozenset({"p1"})}, SkipReason.DUPLICATE),
        (BAD, {}, SkipReason.SUPPRESSED),
        (BAD | {"is_suppressed": False}, {}, SkipReason.CONSENT),
        ({"has_address": False, "recent_messages": 3}, {}, SkipReason.NO_ADDRESS),
        ({"recent_messages": 3}, {"quiet": DROPS, "affordable": 0}, SkipReason.FREQUENCY_CAP),
        ({"recent_messages": 2}, {"quiet": DROPS, "affordable": 0}, SkipReason.QUIET_HOURS),
        ({}, {"affordable": 0}, SkipReason.BUDGET),
        ({"consent": ConsentAnswer()}, {}, SkipReason.CONSENT),
    ],
)
def test_the_first_reason_that_applies_is_the_one_stored(wrong, limits, reason):
    (plan,) = plan_deliveries([candidate(**wrong)], terms(**limits))

    assert plan.skip == reason


CANDIDATES = st.lists(
    st.builds(
        Candidate,
        profile_id=st.integers(0, 30).map(str),
        person_id=st.integers(0, 10).map(str),
        consent=st.sampled_from([YES, ConsentAnswer(False, "DENIED"), ConsentAnswer()]),
        has_address=st.booleans(),
        is_suppressed=st.booleans(),
        recent_messages=st.integers(0, 4),
    ),
    max_size=40,
)


@given(CANDIDATES, st.none() | st.integers(0, 5))
def test_every_candidate_gets_one_plan_and_no_limit_is_passed(candidates, affordable):
    plans = plan_deliveries(candidates, terms(affordable=affordable))
    going = [(c, p) for c, p in zip(candidates, plans, strict=True) if p.skip is None]

    assert [plan.profile_id for plan in plans] == [one.profile_id for one in candidates]
    assert affordable is None or len(going) <= affordable
    assert len({plan.person_id for _, plan in going}) == len(going)
    assert all(c.consent.allowed and c.has_address and not c.is_suppressed for c, _ in going)
    assert all(c.recent_messages < 3 for c, _ in going)


@pytest.mark.parametrize(
    ("start", "end", "local", "until"),
    [
        ("22:00", "08:00", "2026-05-06T21:59", None),
        ("22:00", "08:00", "2026-05-06T22:00", "2026-05-07T08:00"),
        ("22:00", "08:00", "2026-05-07T00:30", "2026-05-07T08:00"),
        ("22:00", "08:00", "2026-05-07T07:59", "2026-05-07T08:00"),
        ("22:00", "08:00", "2026-05-07T08:00", None),
        ("12:00", "14:00", "2026-05-07T13:00", "2026-05-07T14:00"),
        ("12:00", "14:00", "2026-05-07T14:00", None),
        ("00:00", "00:00", "2026-05-07T00:00", None),
    ],
)
def test_quiet_hours_end_when_they_say(start, end, local, until):
    quiet = QuietHours(time.fromisoformat(start), time.fromisoformat(end))
    now = datetime.fromisoformat(local).replace(tzinfo=CHINA)

    found = quiet_until(quiet, now.astimezone(UTC))

    assert found == (datetime.fromisoformat(until).replace(tzinfo=CHINA) if until else None)


@given(st.times(), st.times(), st.datetimes(datetime(2026, 1, 1), datetime(2027, 1, 1)))
def test_quiet_hours_never_outlast_a_day_and_end_outside_themselves(start, end, moment):
    quiet = QuietHours(start.replace(second=0, microsecond=0), end.replace(second=0, microsecond=0))
    until = quiet_until(quiet, moment.replace(tzinfo=UTC))

    if until is not None:
        assert timedelta(0) < until - moment.replace(tzinfo=UTC) <= timedelta(days=1)
        assert quiet_until(quiet, until) is None


def test_the_budget_pays_for_whole_messages():
    assert affordable_messages(0, 10, 99) is None
    assert affordable_messages(45, 10, 1) == 3
    assert affordable_messages(45, 10, 9) == 0
    assert affordable_messages(45, 0, 0) == 0


def test_an_allowance_is_used_only_within_its_time():
    assert may_act(10.0, 10.24, 0.25)
    assert not may_act(10.0, 10.25, 0.25)
    assert not may_act(10.0, 9.9, 0.25), "a clock that went back proves nothing"


BLANK = Delivery("", "c1", "r1", 1, "", "email", "offers", DeliveryState.PLANNED, NOW)


def delivery(**changes):
    return replace(planned(BLANK, Plan("p1", "p1", None, "", ("x",)), NOW), **changes)


def test_a_delivery_is_unique_in_its_run():
    assert delivery_id_of("r1", "p1") == delivery().delivery_id != delivery_id_of("r2", "p1")


def test_what_a_dead_worker_had_in_hand_is_settled():
    states = {state: recovered(delivery(state=state, claim_time=NOW), NOW) for state in DeliveryState}

    assert states[DeliveryState.SENDING].state is DeliveryState.UNKNOWN
    assert (states[DeliveryState.CLAIMED].state, states[DeliveryState.CLAIMED].claim_time) == ("PLANNED", None)
    unchanged = set(DeliveryState) - {DeliveryState.SENDING, DeliveryState.CLAIMED}
    assert all(states[state].state is state for state in unchanged)


def test_only_what_may_have_arrived_counts_towards_the_cap():
    claim = claimed(delivery(), NOW)

    assert sent(sending(claim, ""), NOW).claim_time == NOW
    assert refused(sending(claim, ""), 550, True, NOW).claim_time is None
    assert refused(sending(claim, ""), 450, False, NOW).claim_time is None


def test_each_final_delivery_has_a_fact_and_no_other():
    for state in DeliveryState:
        found = recorded(delivery(state=state, outcome_time=NOW, version=2))
        assert (found is not None) == (state in FINAL)
        assert found is None or (found.outcome, found.version) == (state.lower(), 3)


def test_a_run_counts_each_page_once_and_ends_with_who_was_walked_through():
    run = open_page(Run("r1", "c1", b""), ("p1", "p2"), "next", 3, NOW)
    page = [delivery(state=DeliveryState.SENT), delivery(state=DeliveryState.SKIPPED, skip_reason=SkipReason.CONSENT)]

    closed = close_page(run, page)

    assert (run.page, run.is_last_page, run.audience, closed.page_ids) == (1, False, 3, ())
    assert dict(closed.counts) == {"SENT": 1, "SKIPPED|CONSENT|": 1}
    assert ended(closed, RunState.DONE, NOW).audience == 2


@given(st.lists(st.sampled_from(list(DeliveryState)), max_size=30), st.integers(0, 30))
def test_tallies_of_parts_add_up_to_the_whole(states, cut):
    made = [delivery(state=state) for state in states]

    assert add(tally(made[:cut]), tally(made[cut:])) == dict(tally(made))
    assert sum(tally(made).values()) == sum(state in FINAL for state in states)


def test_a_suppression_covers_its_channel_and_purpose():
    everything = Suppression("p1", "email", "", "complaint")

    assert everything.covers("email", "offers")
    assert not replace(everything, channel="sms").covers("email", "offers")
    assert not replace(everything, purpose_id="surveys").covers("email", "offers")
