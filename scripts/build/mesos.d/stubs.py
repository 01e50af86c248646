#!/usr/bin/env python3
"""Builds stand-ins for the shared libraries that the Mesos library was linked with in 2020 and that Debian no longer
ships (OpenSSL 1.0, libcurl with OPENSSL_3 symbols), and for its Python 2 symbols.

usage: stubs.py LIBMESOS FOLDER

Every function of theirs returns 0. TLS, downloads by libcurl and the Python binding therefore do not work through
them; master, agent and containerizer need none of the three.
"""
import collections
import os
import re
import subprocess
import sys

PYTHON_OBJECTS = {"PyExc_Exception", "PyExc_TypeError", "_Py_NoneStruct"}
LIBRARIES = {
    "libssl.so.1.0.0": ["OPENSSL_1.0.0", "OPENSSL_1.0.1", "OPENSSL_1.0.2"],
    "libcrypto.so.1.0.0": ["OPENSSL_1.0.0", "OPENSSL_1.0.1", "OPENSSL_1.0.2"],
    "libcurl.so.4": ["CURL_OPENSSL_3"],
}


def compile_stub(out, soname, names, objects=frozenset(), version_script=None):
    source = f"{out}/{soname}.c"
    with open(source, "w") as c:
        for name in sorted(names):
            c.write(f"char {name}[512];\n" if name in objects else f"long {name}(void) {{ return 0; }}\n")
    command = ["gcc", "-w", "-shared", "-fPIC", "-fno-builtin", "-o", f"{out}/{soname}", source, f"-Wl,-soname,{soname}"]
    if version_script:
        command.append(f"-Wl,--version-script={version_script}")
    subprocess.check_call(command)
    os.unlink(source)


def main():
    if len(sys.argv) != 3:
        sys.exit("usage: stubs.py LIBMESOS FOLDER")
    library, out = sys.argv[1:]
    table = subprocess.run(["readelf", "-W", "--dyn-syms", library], capture_output=True, text=True, check=True).stdout
    versioned = collections.defaultdict(set)
    python_names = set()
    for line in table.splitlines():
        match = re.search(r"\bUND\s+(\w+)(?:@(\w[\w.]*))?", line)
        if not match:
            continue
        name, version = match.groups()
        if version and re.match(r"OPENSSL_|CURL_OPENSSL_3", version):
            versioned[version].add(name)
        elif not version and re.match(r"_?Py", name):
            python_names.add(name)
    for soname, versions in LIBRARIES.items():
        script, parent, names = f"{out}/{soname}.map", "", set()
        with open(script, "w") as m:
            for version in versions:
                m.write(f"{version} {{ global: {' '.join(n + ';' for n in sorted(versioned[version]))} }}{parent};\n")
                parent, names = f" {version}", names | versioned[version]
        compile_stub(out, soname, names, version_script=script)
        os.unlink(script)
    if not python_names or not all(versioned.values()):
        sys.exit(f"error: {library} has no undefined OpenSSL, libcurl or Python symbols: not the expected library")
    compile_stub(out, "libpystub.so", python_names, PYTHON_OBJECTS)


if __name__ == "__main__":
    main()
