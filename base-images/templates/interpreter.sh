#!/bin/sh
# Runs once inside a Debian root: makes /opt/conda/envs/testbed of what the provider brought.
#   interpreter.sh PROVIDER VERSION
set -eu
provider=$1
version=$2
prefix=/opt/conda/envs/testbed
host_libraries=/opt/host-libraries
export HOME=/root LANG=C.UTF-8 DEBIAN_FRONTEND=noninteractive PATH="$prefix/bin:$PATH"
max_library_rounds=5

main() {
    case "$provider" in
    debian) "/usr/bin/python$version" -m venv "$prefix" ;;
    prefix)
        link_libpython
        strip_debug_information
        complete_libraries
        ;;
    conda) ;;
    esac
    rm -rf "$host_libraries"
    link_names
    upgrade_pip
    # Tests run as an ordinary user, who cannot write byte code here.
    python -m compileall -q "$prefix/lib/python$version" >/dev/null 2>&1 || true
    case "$version" in
    2.7 | 3.5 | 3.6) sed -i 's/^UV_COMPILE_BYTECODE=.*/UV_COMPILE_BYTECODE=0/' /opt/conda/etc/environment ;;
    esac
    rm -rf /root/.cache /var/lib/apt/lists/* /tmp/interpreter.sh
    python -c 'import platform; print("python=" + platform.python_version())'
}

# The interpreter's own run path names a directory of the host; the system's library path replaces it.
link_libpython() {
    for library in "$prefix"/lib/libpython*.so*; do
        [ -e "$library" ] || continue
        ln -sf "$library" "/usr/local/lib/${library##*/}"
    done
    ldconfig
}

binaries() {
    find "$prefix/bin" "$prefix/lib" -type f \( -name '*.so' -o -name '*.so.*' -o -name "python$version" -o -name "python${version}m" \)
}

strip_debug_information() {
    binaries | while read -r file; do strip --strip-debug "$file" 2>/dev/null || true; done
}

missing_libraries() {
    binaries | while read -r file; do ldd "$file" 2>/dev/null || true; done |
        awk '/not found/ { print $1 }' | sort -u
}

# A library that is not there comes from Debian, else from the host; a module that still lacks one is dropped.
complete_libraries() {
    round=0
    while [ "$round" -lt "$max_library_rounds" ] && [ -n "$(missing_libraries)" ]; do
        round=$((round + 1))
        missing_libraries | while read -r soname; do provide_library "$soname"; done
        ldconfig
    done
    binaries | while read -r file; do
        case "$(ldd "$file" 2>/dev/null)" in
        *"not found"*)
            echo "left out, a library is missing: ${file#"$prefix"/}"
            rm "$file"
            ;;
        esac
    done
}

# Debian names a library's package by its soname: libfoo.so.1 is in libfoo1, libfoo2.so.1 in libfoo2-1.
provide_library() {
    name=$(echo "${1%%.so*}" | tr 'A-Z_' 'a-z-')
    number=${1#*.so}
    number=${number#.}
    case "$name" in
    *[0-9]) package="$name${number:+-}$number" ;;
    *) package="$name$number" ;;
    esac
    [ -n "$(ls /var/lib/apt/lists/*Packages* 2>/dev/null)" ] || apt-get update -qq || true
    for candidate in "$package" "${package}t64"; do
        if apt-get install -qq -y --no-install-recommends "$candidate" >/dev/null 2>&1; then
            echo "$1 from Debian's $candidate"
            return
        fi
    done
    if [ -e "$host_libraries/$1" ]; then
        cp "$host_libraries/$1" /usr/local/lib/
        echo "$1 from the host"
    fi
}

link_names() {
    [ -e "$prefix/bin/python" ] || ln -s "python$version" "$prefix/bin/python"
    case "$version" in
    2.*) ;;
    *) [ -e "$prefix/bin/python3" ] || ln -s "python$version" "$prefix/bin/python3" ;;
    esac
}

# Later releases of setuptools come without pkg_resources, which many a project still imports; later ones of
# wheel bring a dependency, which would be there before a project's own are resolved.
upgrade_pip() {
    python -m pip --version >/dev/null 2>&1 || python -m ensurepip
    python -m pip install --quiet --no-cache-dir --upgrade pip 'setuptools<81' 'wheel<0.46'
    [ -e "$prefix/bin/pip" ] || ln -s "pip$version" "$prefix/bin/pip"
}

main
