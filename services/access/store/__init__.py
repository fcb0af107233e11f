"""Where access keeps its things: ports, the MongoDB implementation, and one in memory with the same promises."""
