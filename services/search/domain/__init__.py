"""Pure rules of search: which terms a text yields, what a query may match, what is highlighted."""
