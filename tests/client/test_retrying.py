"""How often all calls of a client together may be sent again."""

import httpx
import pytest
from kehu.client import GivenToken, Kehu, NotFound, QuotaExceeded
from kehu.client.retrying import RetryBudget


class Clock:
    now = 0.0

    def __call__(self):
        return self.now


def test_an_outage_is_not_prolonged_by_many_repeats():
    clock = Clock()
    budget = RetryBudget(clock)
    repeats = 0
    for _ in range(1000):  # calls, 10 ms apart, that all fail and would be repeated three times
        clock.now += 0.01
        budget.called()
        repeats += sum(budget.take() for _ in range(3))

    assert repeats <= 0.2 * 1000 + 2 * 10 + 10
    assert repeats > 200


def test_who_sends_little_goes_on_trying_each_second():
    clock = Clock()
    budget = RetryBudget(clock)
    budget.called()
    for _ in range(90):
        clock.now += 1.0
        assert budget.take()


@pytest.mark.parametrize(("asked", "sent"), [(60, 1), (1, 2)])
def test_nothing_is_sent_before_the_time_that_retry_after_says(asked, sent, monkeypatch):
    slept, tried = [], []
    monkeypatch.setattr("kehu.client.connection.time.sleep", slept.append)

    def answer(request):
        tried.append(request)
        busy = len(tried) == 1
        return httpx.Response(429 if busy else 200, json={}, headers={"Retry-After": str(asked)} if busy else {})

    with Kehu("https://kehu.example", GivenToken(lambda: "t"), transport=httpx.MockTransport(answer)) as kehu:
        if sent > 1:
            kehu.profiles.get_source(name="sources/till")
        else:
            with pytest.raises(QuotaExceeded) as full:
                kehu.profiles.get_source(name="sources/till")
            assert full.value.retry_after == asked

    assert (len(tried), slept) == (sent, [asked] * (sent - 1))


def deleting(*statuses):
    answers = iter(statuses)
    transport = httpx.MockTransport(lambda request: httpx.Response(next(answers), json={}))
    with Kehu("https://kehu.example", GivenToken(lambda: "t"), transport=transport) as kehu:
        kehu.webhooks.delete_webhook_subscription(name="webhookSubscriptions/a")


def test_a_deletion_whose_first_answer_was_lost_has_been_done_when_nothing_is_there_any_more():
    deleting(503, 404)
    with pytest.raises(NotFound):
        deleting(404)
    with pytest.raises(NotFound):
        deleting(429, 404)
