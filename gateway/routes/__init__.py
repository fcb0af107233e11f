"""What answers on a route: derived from a method (derived, uploads, operations, tokens) or composed (views)."""
