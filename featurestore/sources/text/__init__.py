"""Text, CSV and JSON lines: what stands in it by the types that were declared, copied into files that the one query reads."""
