"""Erasing people, and keys that change while everything runs."""
