#!/bin/bash
. /opt/conda/etc/profile.d/conda.sh
conda activate testbed
cd /testbed
git apply -v --allow-empty - <<'EOF_114329324912'
[CONTENT OF TEST PATCH]
EOF_114329324912
if [ $? -ne 0 ]; then exit 97; fi
unset PYTEST_ADDOPTS PYTEST_PLUGINS PYTEST_DISABLE_PLUGIN_AUTOLOAD PYTHONOPTIMIZE PYTHONSTARTUP MAKEFLAGS MAKEFILES GNUMAKEFLAGS
echo '>>>>> Start Test Output'
python -m unittest tests.test_calc
rc=$?
echo '>>>>> End Test Output'
echo "OPENSWE_EXIT_CODE=$rc"
exit "$rc"
