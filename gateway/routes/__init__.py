"""What answers on a route: derived from a method (uploads, streams, operations and tokens too) or composed (views)."""
