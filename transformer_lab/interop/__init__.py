"""Models of other libraries in this one's terms, and the other way round: tables that are read in both directions."""
