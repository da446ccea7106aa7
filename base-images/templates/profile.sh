# A login shell (bash -lc) has the environment active.
. /opt/conda/etc/profile.d/conda.sh
conda activate testbed
