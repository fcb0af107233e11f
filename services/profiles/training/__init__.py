"""Match models as versioned data: learnt from the company's own records, shown first, activated, undone."""
