"""The networks of the KD literature for 32 x 32 images, one module per family.

A module defines a subclass of `base.CifarNet` and calls `base.register` for each of its networks when it is imported;
`kdbench.models` imports all of them.
"""
