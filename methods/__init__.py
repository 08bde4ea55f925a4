"""One file per method, named after it; `kdbench.registry` finds the files."""
