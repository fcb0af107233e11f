"""Which methods a person must confirm: told by what their actions are called, so that a new one is not forgotten."""

import re

import pytest
from google.protobuf.descriptor import MethodDescriptor
from kehu.options.v1 import options_pb2 as options

from tests.architecture.test_contracts import ALL

CONFIRMED = {"export", "reveal", "unmask", "erase", "approve", "publish", "rotate", "retire", "breakglass"}
OF_ACCESS = {  # what changes who may do what
    "recertifications": {"answer"},
    "policies": {"approve", "rollback"},
    "account": {
        "changePassword", "createRecoveryCodes", "createAuthenticator", "activateAuthenticator", "deleteAuthenticator",
    },
    "principals": {"create", "update", "enable", "rotateSecret", "createCredential", "deleteAuthenticator"},
}
SEPARATE = re.compile(r"[_-]|(?<=[a-z])(?=[A-Z])")


def is_confirmed(method: MethodDescriptor) -> bool:
    rule = method.GetOptions().Extensions[options.access]
    words = [word.lower() for word in SEPARATE.split(rule.action)]
    return words[0] in CONFIRMED or rule.action in OF_ACCESS.get(rule.resource, ())


def reachable(method: MethodDescriptor) -> bool:
    return method.GetOptions().Extensions[options.access].audience == options.AUDIENCE_PRINCIPAL


@pytest.mark.parametrize("method", [m for m in ALL if reachable(m) and is_confirmed(m)], ids=lambda m: m.full_name)
def test_what_exports_reveals_erases_approves_or_changes_keys_needs_step_up(method):
    assert method.GetOptions().Extensions[options.step_up]


@pytest.mark.parametrize(
    "method", [m for m in ALL if m.GetOptions().Extensions[options.step_up]], ids=lambda m: m.full_name
)
def test_step_up_is_asked_of_people_and_leaves_an_entry(method):
    """The public have no factor to show; a call refused or let through without an entry would not be provable."""
    assert reachable(method)
    assert method.GetOptions().Extensions[options.audit] in (options.AUDIT_LEVEL_WRITE, options.AUDIT_LEVEL_DATA)


@pytest.mark.parametrize("method", ALL, ids=lambda m: m.full_name)
def test_one_right_is_not_confirmed_by_one_method_and_unconfirmed_by_another(method):
    """Else whoever may do the confirmed one does it by the other."""
    rule = method.GetOptions().Extensions[options.access]
    others = [m for m in ALL if m.GetOptions().Extensions[options.access] == rule]

    assert len({m.GetOptions().Extensions[options.step_up] for m in others}) == 1
