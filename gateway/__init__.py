"""The gateway: the one HTTP door of Kehu, derived from the protos; no business rule, no database."""
