"""What analytics knows without a database: rules to SQL, scores, metrics, suppression, rows of the lake."""
