"""From meaning to SQL: the one as-of query that training, materialize, audit and explain all ask."""
