"""Builds the extensions: every ``ingot/_speedups/*_c.pyx``, each carrying its own libraries.

Switches, from the environment: INGOT_DEBUG=1 (assertions, bounds checks, no optimising),
INGOT_ASAN=1 (address and undefined-behaviour sanitizers), INGOT_TRACE=1 (lines, for coverage).
"""

import glob
import os
import shutil
import sys

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext
from setuptools.command.build_py import build_py


def switch(name: str) -> bool:
    return os.environ.get(name, "") not in ("", "0")


DEBUG, ASAN, TRACE = switch("INGOT_DEBUG"), switch("INGOT_ASAN"), switch("INGOT_TRACE")
CORES = len(os.sched_getaffinity(0))  # each translates and compiles a file of its own
MIGRATIONS = sorted(glob.glob("migrations/*.sql"))
HINTS = {
    "openssl/": "the OpenSSL headers are missing: install libssl-dev (Debian) or openssl-devel",
    "Python.h": "the Python headers are missing: install python3-dev (Debian) or python3-devel",
    "-lcrypto": "libcrypto is missing: install libssl-dev (Debian) or openssl-devel",
}


class BuildExt(build_ext):
    """The stock command, ending with the name of the package to install when a tool is missing."""

    def run(self) -> None:
        compiler = (os.environ.get("CC") or "cc").split()[0]
        if shutil.which(compiler) is None and shutil.which("gcc") is None:
            sys.exit("ingot: no C compiler found: install build-essential (Debian) or gcc")
        for header in ("openssl/evp.h",):
            if not any(os.path.exists(os.path.join(d, header)) for d in self.header_dirs()):
                sys.exit(f"ingot: {HINTS['openssl/']}")
        self.parallel = self.parallel or CORES
        super().run()

    def header_dirs(self) -> list[str]:
        dirs = ["/usr/include", "/usr/local/include", *glob.glob("/usr/include/*-linux-gnu")]
        dirs += [d for v in ("CPATH", "C_INCLUDE_PATH") for d in os.environ.get(v, "").split(":")]
        flags = os.environ.get("CFLAGS", "").split()
        return dirs + [flag[2:] for flag in flags if flag.startswith("-I")]


class BuildPy(build_py):
    """The stock command, taking ``migrations/`` along to where ``ingot.registry.migrate`` looks."""

    def run(self) -> None:
        super().run()
        if not self.editable_mode:
            target = os.path.join(self.build_lib, "ingot", "registry", "migrations")
            self.mkpath(target)
            for path in MIGRATIONS:
                self.copy_file(path, target)

    def get_source_files(self) -> list[str]:
        return [*super().get_source_files(), *MIGRATIONS]


def extensions() -> list[Extension]:
    from Cython.Build import cythonize

    flags = ["-O0", "-g"] if DEBUG else ["-O3", "-g1"]
    flags += ["-Wall", "-Wno-unused-function", "-DOPENSSL_SUPPRESS_DEPRECATED"]
    link = ["-lpthread"]
    if ASAN:
        flags += ["-fsanitize=address,undefined", "-fno-omit-frame-pointer"]
        link += ["-fsanitize=address,undefined"]
    macros = [("CYTHON_TRACE", "1"), ("CYTHON_TRACE_NOGIL", "1")] if TRACE else []
    found = [
        Extension(
            path[:-4].replace("/", "."),
            [path],
            extra_compile_args=flags,
            extra_link_args=link,
            define_macros=macros,
        )
        for path in sorted(glob.glob("ingot/_speedups/*_c.pyx"))
    ]
    directives = {"language_level": 3, "boundscheck": DEBUG, "wraparound": False}
    directives |= {"cdivision": True, "linetrace": TRACE, "freethreading_compatible": False}
    return cythonize(found, compiler_directives=directives, nthreads=CORES)


setup(ext_modules=extensions(), cmdclass={"build_ext": BuildExt, "build_py": BuildPy})
