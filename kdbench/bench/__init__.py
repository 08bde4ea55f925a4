"""`kdbench bench`: what training costs on this machine."""
