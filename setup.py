"""What setup.cfg cannot say: the top-level folder methods/ becomes kdbench.methods in a wheel, and only there.

As a mapping in setup.cfg it made an editable install a finder that Python asks last of all. In the folder that holds
the clone, `import kdbench` then found the clone's folder instead of the package in it. Without one, setuptools puts
the clone on sys.path, where a package goes before a folder of its name; kdbench/__init__.py finds methods/ itself.
"""

from setuptools import setup
from setuptools.command.build_py import build_py


class BuildPy(build_py):
    """Add the folder methods/ to a wheel as kdbench.methods."""

    def finalize_options(self) -> None:
        """Add the package, except in an editable install."""
        super().finalize_options()
        if not self.editable_mode:
            self.packages = [*self.packages, "kdbench.methods"]
            self.package_dir = {**self.package_dir, "kdbench.methods": "methods"}


setup(cmdclass={"build_py": BuildPy})
