"""What is compiled where there is a C compiler and Python's headers; without them all of it runs as Python, slower."""

from Cython.Build import cythonize
from setuptools import Extension, setup

ROOM = "fungistor/zdb/daemon"
MODULES = ("_values", "_appends", "_lane")

extensions = cythonize(
    [
        Extension(
            f"fungistor.zdb.daemon.{name}",
            [f"{ROOM}/{name}.pyx"],
            depends=[f"{ROOM}/_record.h", f"{ROOM}/_shared.pxd"],
            include_dirs=["."],
        )
        for name in MODULES
    ],
    build_dir="build/cython",
)
for extension in extensions:
    # Set here, because cythonize would forget it: no compiler is no failure.
    extension.optional = True

setup(ext_modules=extensions)
