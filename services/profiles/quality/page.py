"""The report as a page: Chinese first, English beside it, complete in itself, without anything of a person."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from html import escape

from services.chassis.times import CHINA
from services.profiles.domain.incidents import OPEN, Incident
from services.profiles.domain.quality_report import Cell, RecurringCause, Response, rolled_up
from services.profiles.quality.reporting import Report

ROWS_LIMIT = 1000  # figures shown; the JSON has all
DIMENSIONS = {
    "accuracy": "准确性 Accuracy", "completeness": "完整性 Completeness", "consistency": "一致性 Consistency",
    "validity": "有效性 Validity", "uniqueness": "唯一性 Uniqueness", "timeliness": "及时性 Timeliness",
}  # fmt: skip
FIELDS = {
    "@record": "整条记录 whole record", "@person": "客户 person", "@match": "自动归并 automatic merge",
    "name": "姓名 name", "gender": "性别 gender", "birth_date": "出生日期 birth date", "phone": "手机号 phone",
    "email": "电子邮箱 e-mail", "resident_id": "身份证号 resident ID", "address": "地址 address",
}  # fmt: skip
STATES = {"found": "已发现 found", "fixing": "整改中 fixing", "verified": "已验证 verified"}
SEVERITIES = {"low": "低 low", "medium": "中 medium", "high": "高 high"}
FACTORS = {
    "source": "来源 source",
    "batch": "导入批次 batch",
    "settings": "映射版本 settings",
    "reason": "规则或原因 reason",
}
STYLE = (
    "body{font:14px/1.5 system-ui,sans-serif;margin:2rem auto;max-width:70rem;padding:0 1rem}"
    "table{border-collapse:collapse;margin:.5rem 0 1.5rem}th,td{border-bottom:1px solid #ddd;padding:.2rem .7rem;"
    "text-align:left}td.n{text-align:right;font-variant-numeric:tabular-nums}meter{width:8rem}small{color:#555}"
)
_FIGURES = ("通过 passed", "测量 measured", "得分 score", "")


def report_page(report: Report) -> str:
    """Return the page of a report."""
    title = f"数据质量报告 Data quality report {report.day}"
    began = f"{report.start_time.astimezone(CHINA):%Y-%m-%d %H:%M}"
    departments = "、".join(report.departments)
    head = f"<p>部门 Departments: {escape(departments)} · 测量开始 measured from {began} (UTC+8)</p>"
    parts = [
        head,
        "<h2>总览 Totals</h2>", _totals(report.totals),
        "<h2>事件 Incidents</h2>", _incidents(report.incidents),
        "<h2>响应时间 Response times</h2>", _responses(report.responses),
        "<h2>反复出现的原因 Recurring causes</h2>", _causes(report.causes),
        "<h2>各部门 By department</h2>", _figures(rolled_up(report.cells, ("department",))),
        "<h2>各来源 By source</h2>", _figures(rolled_up(report.cells, ("source_id",))),
        "<h2>各字段 By field</h2>", _figures(rolled_up(report.cells, ("field",))),
    ]  # fmt: skip
    style = f'<meta charset="utf-8"><title>{escape(title)}</title><style>{STYLE}</style>'
    body = f"<h1>{escape(title)}</h1>{''.join(parts)}"
    return f'<!doctype html><html lang="zh-CN"><head>{style}</head><body>{body}</body></html>'


def _totals(cells: Iterable[Cell]) -> str:
    return _table(("维度 Dimension", *_FIGURES), ([DIMENSIONS[cell.dimension], *_numbers(cell)] for cell in cells))


def _figures(cells: Sequence[Cell]) -> str:
    names = ("维度 Dimension", "字段 Field", "来源 Source", "部门 Department")
    shown = [
        [DIMENSIONS[cell.dimension], FIELDS.get(cell.field, cell.field), cell.source_id, cell.department]
        for cell in cells[:ROWS_LIMIT]
    ]
    used = [at for at in range(len(names)) if any(row[at] for row in shown)]
    rows = ([row[at] for at in used] + _numbers(cell) for row, cell in zip(shown, cells, strict=False))
    return _table((*(names[at] for at in used), *_FIGURES), rows)


def _numbers(cell: Cell) -> list[object]:
    return [cell.passed, cell.measured, f"{cell.score:.2%}", _Raw(f'<meter value="{cell.score:.4f}"></meter>')]


def _incidents(incidents: Iterable[Incident]) -> str:
    names = (
        "编号 Name", "规则 Rule", "维度 Dimension", "字段 Field", "来源 Source", "部门 Department", "状态 State",
        "严重程度 Severity", "得分 Score", "要求 Required", "期限 Due", "次数 Times",
    )  # fmt: skip
    now = datetime.now(UTC)
    ordered = sorted(incidents, key=lambda item: (item.state not in OPEN, item.current.due_time, item.id))
    return _table(names, (_incident(item, now) for item in ordered))


def _incident(item: Incident, now: datetime) -> list[object]:
    due = f"{item.current.due_time.astimezone(CHINA):%Y-%m-%d}" if item.state in OPEN else ""
    late = " 已逾期 overdue" if item.is_overdue(now) else ""
    score = item.passed / item.measured if item.measured else 1.0
    return [
        f"qualityIncidents/{item.id}", item.rule_id, DIMENSIONS[item.dimension], FIELDS.get(item.field, item.field),
        item.source_id, item.department, STATES[item.state], SEVERITIES[item.severity], f"{score:.2%}",
        f"{item.threshold:.2%}", due + late, item.occurrence_count,
    ]  # fmt: skip


def _responses(found: Iterable[Response]) -> str:
    names = (
        "维度 Dimension", "部门 Department", "发生 Occurrences", "未结 Open", "逾期 Overdue",
        "确认用时(中位) Median to acknowledge", "验证用时(中位) Median to verify",
    )  # fmt: skip
    rows = (
        [DIMENSIONS[item.dimension], item.department, item.occurrences, item.open, item.overdue,
         _hours(item.acknowledge_seconds), _hours(item.verify_seconds)]
        for item in found
    )  # fmt: skip
    return _table(names, rows)


def _causes(causes: Iterable[RecurringCause]) -> str:
    names = ("类别 Kind", "内容 Which", "次数 Occurrences", "超出预期的行 Rows above expectation")
    return _table(names, ([FACTORS[c.factor], c.value, c.occurrences, f"{c.excess:.0f}"] for c in causes))


def _hours(seconds: float | None) -> str:
    return "" if seconds is None else f"{seconds / 3600:.1f} h"


class _Raw(str):
    """Markup of our own, not to be escaped."""


def _table(names: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    head = "".join(f"<th>{escape(name)}</th>" for name in names)
    body = "".join(f"<tr>{''.join(map(_cell, row))}</tr>" for row in rows)
    return f"<table><tr>{head}</tr>{body}</table>" if body else "<p>无 None</p>"


def _cell(value: object) -> str:
    if isinstance(value, _Raw):
        return f"<td>{value}</td>"
    kind = ' class="n"' if isinstance(value, int) else ""
    return f"<td{kind}>{escape(str(value))}</td>"
