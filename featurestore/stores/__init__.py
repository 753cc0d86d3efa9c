"""Where values lie: offline as rows that SQL reads, online as bytes that a codec packs."""
