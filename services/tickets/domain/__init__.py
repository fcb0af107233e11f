"""Pure rules of tickets: business time, promises about time, states."""
