"""Results files: columns, reading, writing, statistics, published numbers."""
