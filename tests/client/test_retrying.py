"""How often all calls of a client together may be sent again."""

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
