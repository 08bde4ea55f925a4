"""General tools that know nothing of distillation: files, hashes, locks, random streams, timing."""
