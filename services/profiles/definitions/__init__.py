"""Changes of the data dictionary: proposed, shown in their effect, applied by a second person, kept and undone."""
