#!/bin/bash
. /opt/conda/etc/profile.d/conda.sh
conda activate testbed
cd /testbed
git apply -v --allow-empty - <<'EOF_114329324912'
diff --git a/tests/test_calc.py b/tests/test_calc.py
--- a/tests/test_calc.py
+++ b/tests/test_calc.py
@@ -5,3 +5,6 @@ import calc
 class Calc(unittest.TestCase):
     def test_is_there(self):
         self.assertTrue(callable(calc.add))
+
+    def test_adds(self):
+        self.assertEqual(calc.add(2, 3), 5)
EOF_114329324912
if [ $? -ne 0 ]; then exit 97; fi
unset PYTEST_ADDOPTS PYTEST_PLUGINS PYTEST_DISABLE_PLUGIN_AUTOLOAD PYTHONOPTIMIZE PYTHONSTARTUP MAKEFLAGS MAKEFILES GNUMAKEFLAGS
echo '>>>>> Start Test Output'
python -m unittest tests.test_calc
rc=$?
echo '>>>>> End Test Output'
echo "OPENSWE_EXIT_CODE=$rc"
exit "$rc"
