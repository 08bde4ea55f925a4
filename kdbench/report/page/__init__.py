"""The report as web pages: of one suite, of all published numbers, and the index of both. They need no network."""
