#!/usr/bin/env bash
# Installs what is missing, then runs the tests: tools/run_tests.sh [pytest arguments]
# For instance: tools/run_tests.sh -m "not slow" tests/diffusion
set -euo pipefail

if [[ -n ${LDMSEG_VENV:-} && $LDMSEG_VENV != /* ]]; then export LDMSEG_VENV=$PWD/$LDMSEG_VENV; fi
cd "$(dirname "${BASH_SOURCE[0]}")/.."
bash tools/install.sh --quiet

# No test may depend on a model hub or on a display.
export HF_HUB_OFFLINE=1 MPLBACKEND=Agg
# Threads that spin while they wait are many times slower where other processes want the cores.
export OMP_WAIT_POLICY=${OMP_WAIT_POLICY:-PASSIVE}
exec "${LDMSEG_VENV:-.venv}/bin/python" -m pytest "$@"
