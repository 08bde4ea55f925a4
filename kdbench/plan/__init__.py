"""Selection -> cells -> cohorts."""
