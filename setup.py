"""What is compiled where there is a C compiler and Python's headers; without them all of it runs as Python, slower."""

from Cython.Build import cythonize
from setuptools import Extension, setup

extensions = cythonize(
    [Extension("fungistor.zdb.daemon._lane", ["fungistor/zdb/daemon/_lane.pyx"])], build_dir="build/cython"
)
for extension in extensions:
    # Set here, because cythonize would forget it: no compiler is no failure.
    extension.optional = True

setup(ext_modules=extensions)
