"""One person as two: who invites somebody could take the invitation and approve as them. It is seen."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from kehu.access.v1 import access_pb2 as pb

from services.access.domain.principals import Principal
from tests.access.test_api import SECOND, draft, id_of, new_person
from tests.access.world import World, running_world

LINE = ("invited-approver", "user:second")


@pytest.fixture
def world() -> Iterator[World]:
    with running_world() as running:
        yield running


def approve(world: World) -> str:
    """Have root's policy approved by the second administrator."""
    policy_id = id_of(draft(world))
    world.stub().SubmitPolicy(pb.SubmitPolicyRequest(policy_id=policy_id), timeout=5)
    world.stub(SECOND).ApprovePolicy(pb.ApprovePolicyRequest(policy_id=policy_id), timeout=5)
    return policy_id


def alerts(world: World) -> list[tuple[str, str]]:
    return [(alert.rule, alert.subject) for alert in world.context.alerts.page("", None, 10)]


@pytest.mark.parametrize("how", ["made", "started anew"])
def test_an_approval_by_whom_the_author_invited_of_late_raises_an_alert(world: World, how: str) -> None:
    if how == "made":
        new_person(world, "second")
    else:
        roles = ("role:administrator",)
        world.context.principals.insert(Principal("user", "second", "administration", roles, "hash of x"))
        world.context.directory.refresh(at_once=True)
        world.stub().RotateSecret(pb.RotateSecretRequest(principal_id="user-second"), timeout=5)
    world.clock.forward(29 * 86400)

    policy_id = approve(world)

    assert alerts(world) == [LINE]
    assert f"policies/{policy_id} of user:root" in world.context.alerts.page("", None, 10)[0].detail


def test_an_approval_long_after_or_by_whom_another_invited_raises_none(world: World) -> None:
    new_person(world, "second")
    world.clock.forward(31 * 86400)
    approve(world)
    world.stub(SECOND).RotateSecret(pb.RotateSecretRequest(principal_id="user-second"), timeout=5)

    assert alerts(world) == []
