"""Data quality: figures measured by a job, rules as data, and incidents that only a measurement closes."""
