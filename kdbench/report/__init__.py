"""Results -> tables and figures. Imports no torch."""
