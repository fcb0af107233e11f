"""The methods of AccessService by topic; api.py puts them together."""
