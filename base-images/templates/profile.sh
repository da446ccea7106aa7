# shellcheck shell=sh
# A login shell (bash -lc) has the environment active.
# shellcheck disable=SC1091 # a file of the image
. /opt/conda/etc/profile.d/conda.sh
conda activate testbed
