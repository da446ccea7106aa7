#!/bin/bash
# The face of a base image, checked from inside, as root and without a network.
#   check.sh VERSION
# shellcheck disable=SC2016 # what is quoted is for the inner shell
set -u
version=$1
prefix=/opt/conda/envs/testbed
failures=0

check() {
    local what=$1 output
    shift
    if ! output=$("$@" 2>&1); then
        echo "check failed: $what: $(tail -n 5 <<<"$output")"
        failures=$((failures + 1))
    fi
}

bare() { env -i HOME=/root LANG=C.UTF-8 "$@"; }
as_testbed() { setpriv --reuid 1000 --regid 1000 --clear-groups env HOME=/home/testbed "$@"; }
active='[ "$(command -v python)" = '$prefix'/bin/python ] && [ "${CONDA_PREFIX-}" = '$prefix' ] && [ "${CONDA_DEFAULT_ENV-}" = testbed ] && [ -n "${UV_LINK_MODE-}" ]'
source='. /opt/conda/etc/profile.d/conda.sh'
right_version="import sys; assert '%d.%d' % sys.version_info[:2] == '$version', sys.version"

check "the Python has the right version" python -c "$right_version"
check "its prefix is the environment" python -c "import sys; assert sys.prefix == '$prefix', sys.prefix"
check "a login shell is active" bare bash -lc "$active"
check "a login sh is active" bare sh -lc "$active"
check "conda activate works in bash" bare bash -c "set -eu; $source; conda activate testbed; $active"
check "conda activate works in sh" bare sh -c "set -eu; $source; conda activate testbed; $active"
check "the older activate works" bare bash -c "set -eu; . /opt/conda/bin/activate testbed; $active"
check "conda deactivate works" bare bash -c "set -eu; $source; conda activate testbed; conda deactivate; if $active; then exit 1; fi"
check "conda run works" bare /opt/conda/bin/conda run -n testbed python -c "$right_version"
check "an ordinary user activates it" as_testbed bash -lc "$active && python -c \"$right_version\""
check "an ordinary user has a home" as_testbed touch /home/testbed/.check
check "ssl verifies" python -c "import ssl; ssl.create_default_context()"
check "ctypes calls" python -c "import ctypes; assert ctypes.CDLL(None).getpid() > 0"
check "sqlite3 stores" python -c "import sqlite3; sqlite3.connect(':memory:').execute('create table t (a)')"
check "zlib, bz2 and hashlib are there" python -c "import zlib, bz2, hashlib; hashlib.sha256(b'')"
check "sysconfig knows its headers" python -c "
import os, sysconfig
path = os.path.join(sysconfig.get_paths()['include'], 'Python.h')
assert os.path.exists(path), path"
check "nothing names the host's interpreter" python -c "
import os, sysconfig
for name in ('prefix', 'LIBDIR', 'INCLUDEPY'):
    value = sysconfig.get_config_var(name)
    assert value is None or value.startswith(('$prefix', '/usr')), (name, value)"
check "a C compiler is there" cc --version
check "git commits" bash -c 'cd "$(mktemp -d)" && git init -q && touch a && git add a && git commit -qm a'
check "git reads another user's repository" bash -c 'cd "$(mktemp -d)" && git init -q && chown -R 1000 . && git status'
check "uv is there" uv --version
check "pip is there" python -m pip --version
check "the name pip is this Python's" bash -c "pip --version | grep -qF '(python $version)'"
check "C.UTF-8 is the locale" bash -c '[ "$LANG" = C.UTF-8 ] && locale -a | grep -qi "^C.utf"'
check "the time zone data is there" test -e /usr/share/zoneinfo/Europe/Rome

project=$(mktemp -d)
cat >"$project/setup.py" <<'PROJECT'
from setuptools import Extension, setup
setup(name="checked", version="1", py_modules=["checked"], ext_modules=[Extension("checked_c", ["checked_c.c"])])
PROJECT
echo "import checked_c; value = checked_c.value()" >"$project/checked.py"
cat >"$project/checked_c.c" <<'PROJECT'
#include <Python.h>
static PyObject *value(PyObject *self, PyObject *arguments) { return Py_BuildValue("i", 42); }
static PyMethodDef methods[] = {{"value", value, METH_NOARGS, ""}, {NULL, NULL, 0, NULL}};
#if PY_MAJOR_VERSION >= 3
static struct PyModuleDef module = {PyModuleDef_HEAD_INIT, "checked_c", NULL, -1, methods};
PyMODINIT_FUNC PyInit_checked_c(void) { return PyModule_Create(&module); }
#else
PyMODINIT_FUNC initchecked_c(void) { Py_InitModule("checked_c", methods); }
#endif
PROJECT
cd "$project" || exit 1
case "$version" in
2.7 | 3.5 | 3.6)
    check "pip installs an editable C extension" python -m pip install --no-deps --no-build-isolation --editable .
    ;;
*)
    check "uv installs an editable C extension" uv pip install --offline --no-deps --no-build-isolation --editable .
    check "a virtual environment is made" bash -c "python -m venv /tmp/venv && /tmp/venv/bin/python -m pip --version"
    ;;
esac
check "an installed extension works" python -c "import checked; assert checked.value == 42"
check "uv resolves for this Python" uv pip compile --offline --python /usr/bin/python3 --python-version "$version" /dev/null

if [ "$failures" -gt 0 ]; then
    echo "$failures checks failed"
    exit 1
fi
