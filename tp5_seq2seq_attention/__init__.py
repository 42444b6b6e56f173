"""TP5: attention, and sequences that are turned into sequences."""
