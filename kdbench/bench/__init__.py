"""`kdbench bench`: what a step costs here, beside the loop that the field copies; on made-up images."""
