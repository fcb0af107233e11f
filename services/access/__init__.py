"""Access: who may enter, what they may do, and what was done.

Owns: principals and their secrets, token keys and revocations, policy revisions, the audit chain.
RPCs: AccessService (tokens, principals, roles, policies, explain, audit entries); every other process calls
GetPolicySnapshot and WriteAuditEntries.
Events out: none; changes reach all processes by polling (design.md §3).
Events in: none.
"""
