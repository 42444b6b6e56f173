"""TP1: from design to deployment of a deep model."""
