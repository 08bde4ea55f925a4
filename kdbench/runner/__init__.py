"""From a selection to recorded rows."""
