"""TP2: improving deep networks, by evidence."""
