"""Texts that mean something to a database, an index, a shell, a template, a spreadsheet, a log or a browser."""

from __future__ import annotations

from urllib.parse import quote

MONGO = (
    '{"$ne": null}', '{"$gt": ""}', '{"$regex": ".*"}', '{"$where": "sleep(1000)"}', "$where", "$set", "$expr",
    "'; return true; var a='", "this.password", "a.b", "a.0.b", "__proto__", "constructor", "_id", "$", "[$ne]",
)  # fmt: skip
SQL = (
    "' OR '1'='1", "1; DROP TABLE profiles; --", '" OR 1=1 --', "UNION SELECT * FROM pg_user", "%' AND '%'='",
    "\\'; --", "1)) OR ((1", "/*", "sleep(5)", "read_csv('/etc/passwd')", "COPY t TO '/tmp/x'", "ATTACH 'x.db'",
)  # fmt: skip
INDEX = (
    "*", "*:*", "name:*", "_exists_:phone", "/.*/", '"query":{"match_all":{}}', "(a OR b) AND NOT c~2", "[* TO *]",
    "+-&&||!(){}", "a^1000", "~0", "?" * 50, '{"script": "1"}', "NOT " * 200, "(" * 500,
)  # fmt: skip
FILES = (
    "../../../etc/passwd", "..\\..\\windows", "file:///etc/passwd", "/dev/zero", "http://169.254.169.254/",
    "\\\\host\\share", "%2e%2e%2f", "C:\\x", ".", "..", "/", "con", "a/b/c",
)  # fmt: skip
MARKUP = (
    "${jndi:ldap://x/}", "{{7*7}}", "#{7*7}", "%s%s%n", "{0.__class__}", "<script>alert(1)</script>", "<!DOCTYPE a>",
    "=cmd|' /C calc'!A0", "@SUM(1)", "+1", "-1", "\t=1", "＝1", "$(reboot)", "`id`", "; ls", "| cat",
)  # fmt: skip
UNICODE = (
    "\x00", "a\x00b", "\r\nSet-Cookie: a=b", "\x1b[31m", "\u2028", "\u202e", "\ufeff", "\ud7ff", "e\u0301" * 200,
    "🙂" * 100, "用户", "王小明", "１３８", "ß", "İ", "ﷺ" * 50, "\u200b", "\uffff", "𠮷",
)  # fmt: skip
NUMBERS = (
    "NaN", "Infinity", "-0", "1e400", "99999999999999999999", "0x10", "1_000", "٣", "true", "null", "", " ",
    "0000-00-00", "2026-02-30", "9999-12-31", "0001-01-01", "24:00", "P1Y", "1e-400",
)  # fmt: skip
RIGHTS = (
    "role:administrator", "svc:gateway", "user:boss", "$subject", "$department", "fields/*", "**", "user:", ":",
)  # fmt: skip
PATTERNS = ("(a+)+$", "a" * 5000 + "!", "(.*)*x", "[[:alpha:]", "\\", "(?R)", "a{99999}")
BARE = (*MONGO, *SQL, *INDEX, *FILES, *MARKUP, *UNICODE, *NUMBERS, *RIGHTS, *PATTERNS)
PAYLOADS = (*BARE, *(f"上海{text}" for text in BARE), *(quote(text) for text in BARE))
