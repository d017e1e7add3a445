"""Self-contained HTML pages: what the page of `explain` and the report of the oracle share."""
