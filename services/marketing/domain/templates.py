"""What is sent: subject, text and HTML with a name and an unsubscribe link filled in."""

from __future__ import annotations

import html
import re
from collections.abc import Mapping
from dataclasses import dataclass

from services.chassis.errors import FieldViolation
from services.marketing.domain.errors import TemplateInvalid

NAMES = ("display_name", "unsubscribe_url")
_SLOT = re.compile(r"\{\{\s*([^{}]*?)\s*\}\}")
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]+")
_CLOSING = "\n\n-- \n不想再收到此类邮件，请打开链接退订 / To unsubscribe open: {{unsubscribe_url}}\n"
_CLOSING_HTML = '<p><a href="{{unsubscribe_url}}">退订 / Unsubscribe</a></p>'


@dataclass(frozen=True, slots=True)
class Template:
    """Subject (one line), plain text, and HTML or nothing."""

    subject: str
    text: str
    html: str = ""


def checked_template(template: Template) -> Template:
    """Return the template when everything in it can be filled in.

    Raises:
        TemplateInvalid: naming each fault.
    """
    faults = []
    for field, body in (("subject", template.subject), ("text", template.text), ("html", template.html)):
        unknown = sorted({name for name in _SLOT.findall(body) if name not in NAMES})
        if unknown:
            faults.append(FieldViolation(f"campaign.template.{field}", f"may hold only {', '.join(NAMES)}"))
        if "{{" in _SLOT.sub("", body) or "}}" in _SLOT.sub("", body):
            faults.append(FieldViolation(f"campaign.template.{field}", "must close every {{ with }}"))
    if not template.subject.strip() or _CONTROL.search(template.subject):
        faults.append(FieldViolation("campaign.template.subject", "must be one line of text"))
    if "unsubscribe_url" in _SLOT.findall(template.subject):
        faults.append(FieldViolation("campaign.template.subject", "must not hold the unsubscribe link"))
    if not template.text.strip():
        faults.append(FieldViolation("campaign.template.text", "must not be empty"))
    if faults:
        raise TemplateInvalid("the template cannot be filled in", violations=faults)
    return template


def render(template: Template, display_name: str, unsubscribe_url: str) -> Template:
    """Return the message for one recipient; a body without the link gets a closing line with it.

    Names cannot break out: control characters become spaces, and HTML is escaped.
    """
    values = {
        "display_name": _CONTROL.sub(" ", display_name).strip() or "顾客",
        "unsubscribe_url": unsubscribe_url,
    }
    text = template.text if "unsubscribe_url" in _SLOT.findall(template.text) else template.text + _CLOSING
    markup = template.html
    if markup and "unsubscribe_url" not in _SLOT.findall(markup):
        markup += _CLOSING_HTML
    escaped = {name: html.escape(value) for name, value in values.items()}
    return Template(_fill(template.subject, values), _fill(text, values), _fill(markup, escaped))


def _fill(body: str, values: Mapping[str, str]) -> str:
    return _SLOT.sub(lambda slot: values[slot[1]], body)
