"""Relationships of people and organizations: said, suggested, walked with consent."""
