"""The rules of access as values and pure functions: principals, tokens, policies, the audit chain."""
