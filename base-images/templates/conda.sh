# shellcheck shell=sh
# Defines `conda activate [NAME|PATH]`, `conda deactivate` and the rest of `conda` for sh and bash.
# Sourced, never executed: safe under `set -eu`, sets nothing but the activation itself.

_conda_remove_from_path() {
    _conda_path=":${PATH-}:"
    while :; do
        case "$_conda_path" in
        *":$1:"*) _conda_path="${_conda_path%%":$1:"*}:${_conda_path#*":$1:"}" ;;
        *) break ;;
        esac
    done
    _conda_path="${_conda_path#:}"
    PATH="${_conda_path%:}"
    unset _conda_path
}

_conda_deactivate() {
    if [ -n "${CONDA_PREFIX-}" ]; then
        _conda_remove_from_path "$CONDA_PREFIX/bin"
        export PATH
    fi
    unset CONDA_PREFIX CONDA_DEFAULT_ENV CONDA_SHLVL
}

_conda_activate() {
    case "$1" in
    base | root) _conda_prefix=/opt/conda ;;
    */*) _conda_prefix="$1" ;;
    *) _conda_prefix="/opt/conda/envs/$1" ;;
    esac
    if [ ! -d "$_conda_prefix/bin" ]; then
        echo "conda: no environment $1 in this image; there is: testbed" >&2
        unset _conda_prefix
        return 1
    fi
    _conda_deactivate
    CONDA_PREFIX="$_conda_prefix"
    CONDA_DEFAULT_ENV="$1"
    CONDA_SHLVL=1
    PATH="$CONDA_PREFIX/bin:${PATH:-/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin}"
    export CONDA_PREFIX CONDA_DEFAULT_ENV CONDA_SHLVL PATH
    unset _conda_prefix
    while IFS='=' read -r _conda_name _conda_value; do
        case "$_conda_name" in
        [A-Z]*) eval ": \"\${$_conda_name:=\$_conda_value}\"; export $_conda_name" ;;
        esac
    done </opt/conda/etc/environment
    unset _conda_name _conda_value
}

conda() {
    case "${1-}" in
    activate) _conda_activate "${2:-testbed}" ;;
    deactivate) _conda_deactivate ;;
    *) /opt/conda/bin/conda "$@" ;;
    esac
}
