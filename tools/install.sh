#!/usr/bin/env bash
# Installs ldmseg_d2 and everything it needs into a virtual environment; see --help.
#
# Each step first looks at what is there, so that a run after an interrupted one goes on where that
# one stopped. A stamp file in the environment makes a run with nothing to do cheap.
set -Eeuo pipefail

usage() {
    cat <<'TEXT'
Usage: tools/install.sh [options]

Installs ldmseg_d2, torch, torchvision, Detectron2 and panopticapi into .venv.
Needs Python 3.10, 3.11 or 3.12; no compiler, no root, no GPU. From PyPI, torch brings its CUDA
libraries along: about 3 GB to download, 7 GB on disk. Safe to run again at any time.

Options:
  --detectron2=wheel    a prebuilt Detectron2 without compiled operators, unless some working
                        Detectron2 is there already (default)
  --detectron2=source   build upstream Detectron2 from its git repository: needs git and g++
  --extras=A,B          also what these need: app, fast-eval, baselines, inpainting
  --quiet               print nothing when there is nothing to do
  --help                print this text

Environment:
  LDMSEG_VENV           the environment to install into (used if it is there, else made)
  LDMSEG_PYTHON         the Python to make it with
  LDMSEG_TORCH_INDEX    package index for torch, for instance for a build without CUDA:
                        https://download.pytorch.org/whl/cpu
TEXT
}

# -------------------------------------------------------------------------------------------------
# What is installed
# -------------------------------------------------------------------------------------------------
readonly TORCH=("torch==2.11.0" "torchvision==0.26.0")
readonly SETUPTOOLS="setuptools>=64,<81" # as in pyproject.toml
# Upstream Detectron2 at commit a59f0563; upstream itself has no release on PyPI.
readonly DETECTRON2_WHEEL="sal-detectron2==0.7.2"
readonly DETECTRON2_SHA256="491af0c7f79bdb2d178e46f6cb16a97c4ac968d45c41ea3f6b6435d59bbee561"
readonly DETECTRON2_SOURCE="git+https://github.com/facebookresearch/detectron2"
readonly PANOPTICAPI="panopticapi-lite==0.2.0"
readonly PANOPTICAPI_SHA256="58d3ffa842a72240162e7fa744c602a0a5320baabbdb3295d770374f4639b486"
readonly NUM_STEPS=6

# -------------------------------------------------------------------------------------------------
# Messages
# -------------------------------------------------------------------------------------------------
STEP="reading the options"
LOG=""
LOG_START=0
SCRATCH=""
TICKER=""

say() { printf '%s\n' "$*"; }

step() { # number, text
    STEP="step $1, $2"
    say "[$1/$NUM_STEPS] $2"
}

fail() { # what failed, what to do
    trap - ERR
    {
        printf '\nFAILED (%s): %s\n' "$STEP" "$1"
        printf 'What to do: %s\n' "$2"
        if [[ -s $LOG ]]; then
            printf 'Full log: %s\n' "$LOG"
            LOG="" # so that clean_up keeps it
        fi
    } >&2
    exit 1
}

clean_up() {
    if [[ -n $TICKER ]]; then kill "$TICKER" 2>/dev/null || true; fi
    if [[ -n $SCRATCH ]]; then rm -rf "$SCRATCH"; fi
    if [[ -n $LOG ]]; then rm -f "$LOG"; fi
}
trap clean_up EXIT
trap 'fail "line $LINENO of tools/install.sh ended with status $?." "read the log, if there is one."' ERR
trap 'printf "\nInterrupted. Run it again: it goes on where it stopped.\n" >&2; exit 130' INT TERM

# Runs a command with its output in the log. Downloads take minutes, so the log's last line is shown
# now and then. The command itself stays in the foreground, where Ctrl-C reaches it.
logged() {
    local status=0
    printf '\n$ %s\n' "$*" >>"$LOG"
    LOG_START=$(wc -c <"$LOG")
    {
        trap - ERR EXIT
        seconds=0
        # A sleep that outlives this loop must not hold a pipe or the lock open.
        while sleep 15 >/dev/null 2>&1 3>&-; do
            seconds=$((seconds + 15))
            printf '      %d s: %s\n' "$seconds" "$(tail -n 1 "$LOG" | tr -d '\r' | cut -c 1-88)" >&3
        done
    } 3>&1 >/dev/null 2>&1 9>&- &
    TICKER=$!
    "$@" >>"$LOG" 2>&1 </dev/null || status=$?
    kill "$TICKER" 2>/dev/null || true
    wait "$TICKER" 2>/dev/null || true
    TICKER=""
    return "$status"
}

# Runs a command as `logged` does; if it fails, says why, as far as its output tells, and stops.
must() {
    logged "$@" || explain_failure "$@"
}

explain_failure() {
    local output hint command="$*"
    output=$(tail -c "+$((LOG_START + 1))" "$LOG")
    printf '%s\n' "$output" | tail -n 8 | cut -c 1-200 | sed 's/^/      | /' >&2
    matches() { grep -qiE "$1" <<<"$output"; }
    if matches 'no space left|errno 28|disk quota'; then
        hint="the disk is full: free about 10 GB, or name a larger disk in LDMSEG_VENV, TMPDIR"
        hint+=" (temporary files) and PIP_CACHE_DIR (downloads)."
    elif matches 'certificate verify failed|sslerror'; then
        hint="a proxy replaces the certificates: name its certificate in PIP_CERT and run again."
    elif matches 'connection|timed out|name resolution|network is unreachable|proxyerror|could not resolve'; then
        hint="the package index or repository was not reached: check the network (behind a proxy:"
        hint+=" HTTPS_PROXY; with a mirror: PIP_INDEX_URL), run again: finished steps are kept."
    elif matches 'permission denied|errno 13|read-only file system'; then
        hint="run as the owner of $ROOT and of $VENV, or name another folder in LDMSEG_VENV."
    elif matches 'do not match the hashes|sha256'; then
        hint="the download is not the file that was checked: run again; if this stays, do not use it"
        hint+=" and report it (a proxy or mirror may replace it)."
    elif matches 'no module named .?venv'; then
        hint="apt-get install python3-venv (as root), then run again."
    elif matches "g\+\+|gcc|clang|no such file or directory: 'git'"; then
        hint="a package is built from source here and that failed. On x86_64 and aarch64 Linux none"
        hint+=" needs a compiler but --detectron2=source, which needs git and g++."
    elif matches 'no matching distribution'; then
        hint="the package index has nothing for this Python or machine: check PIP_INDEX_URL and"
        hint+=" LDMSEG_TORCH_INDEX, and that this is 64-bit Linux."
    else
        hint="read the log, mend the cause and run again: finished steps are kept."
    fi
    command=${command/#pip_install/pip install}
    fail "this failed: ${command//"$PYTHON"/python}" "$hint"
}

# -------------------------------------------------------------------------------------------------
# Python and the environment
# -------------------------------------------------------------------------------------------------
supported() { # python
    "$1" -I -c 'import sys; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 12))' \
        >/dev/null 2>&1
}

has_module() { # python, module
    "$1" -I -W ignore -c "import $2" >/dev/null 2>&1
}

# Sets BASE_PYTHON. Each candidate is run, since the shims of a version manager exist, but fail, for
# versions that are not selected. One that can provide pip goes before one that cannot.
find_base_python() {
    local name path others="" names=(python3 python3.12 python3.11 python3.10 python) usable=()
    if [[ -n ${LDMSEG_PYTHON:-} ]]; then names=("$LDMSEG_PYTHON"); fi
    for name in "${names[@]}"; do
        while IFS= read -r path; do
            if supported "$path"; then
                usable+=("$path")
            elif has_module "$path" sys; then
                others+=" $("$path" -c 'import sys; print("%d.%d" % sys.version_info[:2])')"
            fi
        done <<<"$(type -aP "$name" || true)"
    done
    if ((${#usable[@]} == 0)); then
        fail "there is no Python 3.10, 3.11 or 3.12${LDMSEG_PYTHON:+ at LDMSEG_PYTHON=$LDMSEG_PYTHON}${others:+ (only$others)}." \
            "install one (Debian 12, Ubuntu 22.04 and 24.04: apt-get install python3 python3-venv; elsewhere pyenv, uv or conda), or name it in LDMSEG_PYTHON, and run again."
    fi
    BASE_PYTHON=${usable[0]}
    for path in "${usable[@]}"; do
        if has_module "$path" ensurepip || has_module "$path" pip; then
            BASE_PYTHON=$path
            return
        fi
    done
}

make_environment() {
    if [[ -x $PYTHON ]]; then
        say "      it is there: $("$PYTHON" -V 2>&1)"
    elif [[ -n $(ls -A "$VENV" 2>/dev/null) && ! -e $VENV/pyvenv.cfg ]]; then
        fail "$VENV exists and is not a Python environment." \
            "move it away, or name another folder in LDMSEG_VENV."
    else
        find_base_python
        say "      making it with $("$BASE_PYTHON" -V 2>&1)"
        # pip comes in the next step: Debian's Python can only add it here with python3-venv.
        must "$BASE_PYTHON" -m venv --without-pip "$VENV"
    fi
    supported "$PYTHON" || fail "$VENV has $("$PYTHON" -V 2>&1), not Python 3.10, 3.11 or 3.12." \
        "delete that folder, or name another one in LDMSEG_VENV, and run again."
    if [[ -e $VENV/.ldmseg_installing ]]; then
        say "      the last run did not finish: going on"
        must remove_half_installed
    fi
    touch "$VENV/.ldmseg_installing" 2>>"$LOG" || fail "$VENV cannot be written." \
        "run as its owner, or name another folder in LDMSEG_VENV."
}

# pip takes a package for installed once its metadata folder exists, and writes RECORD there last.
# Without that folder it installs the package again.
remove_half_installed() {
    "$PYTHON" -I - <<'PY'
import pathlib
import shutil
import sysconfig

for key in ("purelib", "platlib"):
    for folder in pathlib.Path(sysconfig.get_path(key)).glob("*.dist-info"):
        if not (folder / "RECORD").is_file():
            print("half installed:", folder.name)
            shutil.rmtree(folder)
PY
}

# Takes the first of ensurepip, the base Python's pip and virtualenv that is there. With --target,
# pip works also where a distribution guards its Python against pip.
provide_pip() {
    local base
    if has_module "$PYTHON" pip; then return; fi
    base=$("$PYTHON" -I -c 'import sys; print(sys._base_executable)')
    if has_module "$PYTHON" ensurepip; then
        must "$PYTHON" -m ensurepip
    elif has_module "$base" pip; then
        must "$base" -m pip install --target "$SCRATCH/pip" pip
        must env PYTHONPATH="$SCRATCH/pip" "$PYTHON" -m pip install --ignore-installed pip
    elif command -v virtualenv >/dev/null; then
        must virtualenv --python "$base" "$VENV"
    else
        fail "$base has neither ensurepip nor pip." \
            "apt-get install python3-venv (as root), then run again."
    fi
}

check_disk() {
    local needed=10 parent=$VENV free
    if compgen -G "$VENV/lib*/python3*/site-packages/torch/version.py" >/dev/null; then return; fi
    if [[ -n ${LDMSEG_TORCH_INDEX:-} ]]; then needed=4; fi
    while [[ ! -d $parent ]]; do parent=$(dirname "$parent"); done
    free=$(($(df -Pk "$parent" | awk 'NR == 2 { print $4 }') / 1048576))
    ((free >= needed)) || fail "$parent has $free GB free; about $needed GB are needed." \
        "free some space, or name a folder on a larger disk in LDMSEG_VENV."
}

# -------------------------------------------------------------------------------------------------
# Packages
# -------------------------------------------------------------------------------------------------
pip_install() {
    "$PYTHON" -m pip install --no-build-isolation --progress-bar off "$@"
}

torch_works() {
    "$PYTHON" -I - <<'PY' >>"$LOG" 2>&1
import re

import torch
import torchvision

version = tuple(int(n) for n in re.findall(r"\d+", torch.__version__)[:2])
assert version >= (2, 4), f"torch {torch.__version__} is older than 2.4"
# torchvision's compiled operators are what a mismatched pair lacks.
boxes = torch.tensor([[0.0, 0.0, 4.0, 4.0]])
assert torchvision.ops.nms(boxes, torch.ones(1), 0.5).tolist() == [0]
PY
}

install_torch() {
    local index=()
    if torch_works; then
        say "      a working pair is there: kept"
        return
    fi
    if [[ -n ${LDMSEG_TORCH_INDEX:-} ]]; then
        index=(--index-url "$LDMSEG_TORCH_INDEX")
    else
        say "      with CUDA libraries: downloads about 3 GB"
    fi
    must pip_install ${index[@]+"${index[@]}"} "${TORCH[@]}"
    if ! torch_works; then
        say "      they do not work: installing them once more over what is there"
        must pip_install --ignore-installed ${index[@]+"${index[@]}"} "${TORCH[@]}"
        torch_works || fail "torch and torchvision are installed, but do not work." \
            "look for the error at the end of the log; else delete $VENV and run again."
    fi
}

install_project() {
    # A dependency must not replace the pair that was just found to work.
    "$PYTHON" -I - >"$SCRATCH/constraints.txt" <<'PY'
from importlib.metadata import version

for name in ("torch", "torchvision"):
    print(f"{name}=={version(name)}")
PY
    must pip_install --constraint "$SCRATCH/constraints.txt" --editable "${ROOT}[$EXTRAS]"
    # Some packages bring the OpenCV that needs libGL, which servers lack. Both share one folder.
    if ! has_module "$PYTHON" cv2; then
        say "      OpenCV does not import: replacing it by the build without libGL"
        logged "$PYTHON" -m pip uninstall -y opencv-python opencv-contrib-python \
            opencv-python-headless opencv-contrib-python-headless || true
        must pip_install opencv-python-headless
        must "$PYTHON" -I -c "import cv2"
    fi
}

detectron2_works() { # wheel or source
    "$PYTHON" -I -W ignore - "$1" <<'PY' >>"$LOG" 2>&1
import importlib.metadata
import sys

import detectron2.data
import detectron2.engine
import detectron2.evaluation
import detectron2.model_zoo

if sys.argv[1] == "source":
    # Raises for a prebuilt one: that has another name.
    importlib.metadata.version("detectron2")
PY
}

# Called once the other one has arrived, so that a failed build or download breaks nothing.
remove_detectron2() {
    logged "$PYTHON" -m pip uninstall -y sal-detectron2 detectron2 || true
}

install_detectron2() {
    if detectron2_works "$DETECTRON2"; then
        say "      a working Detectron2 is there: kept"
        return
    fi
    if [[ $DETECTRON2 == source ]]; then
        command -v git >/dev/null || fail "building Detectron2 needs git." \
            "apt-get install git g++ (as root), or leave out --detectron2=source."
        say "      building Detectron2 from source: some minutes"
        must "$PYTHON" -m pip wheel --no-build-isolation --no-deps --wheel-dir "$SCRATCH" \
            "$DETECTRON2_SOURCE"
        remove_detectron2
        must pip_install "$SCRATCH"/detectron2-*.whl
    else
        must "$PYTHON" -m pip download --no-deps --only-binary=:all: --python-version 3.10 \
            --implementation cp --abi cp310 --dest "$SCRATCH" "$DETECTRON2_WHEEL"
        remove_detectron2
        must unpack_detectron2_wheel
    fi
    detectron2_works "$DETECTRON2" || fail "Detectron2 is installed, but does not import." \
        "look for the error at the end of the log; else delete $VENV and run again."
}

# The wheel is tagged for Python 3.10, for the sake of compiled operators that were built for another
# torch; its Python code runs on all that we support. So this puts the code in place without them,
# which makes all Pythons alike, and without its top-level package `tools`, which would hide ours.
unpack_detectron2_wheel() {
    "$PYTHON" -I - "$SCRATCH" "$DETECTRON2_SHA256" <<'PY'
import hashlib
import pathlib
import sys
import sysconfig
import zipfile

folder, expected = sys.argv[1:]
(wheel,) = pathlib.Path(folder).glob("*.whl")
found = hashlib.sha256(wheel.read_bytes()).hexdigest()
if found != expected:
    sys.exit(f"{wheel.name}: its sha256 is {found}, not {expected}")


def wanted(name: str) -> bool:
    top = name.split("/")[0]
    return (top == "detectron2" and not name.endswith(".so")) or top.endswith(".dist-info")


site = pathlib.Path(sysconfig.get_path("purelib"))
with zipfile.ZipFile(wheel) as archive:
    names = [name for name in archive.namelist() if wanted(name)]
    (record,) = (name for name in names if name.endswith(".dist-info/RECORD"))
    archive.extractall(site, [name for name in names if name != record])
    lines = archive.read(record).decode().splitlines(keepends=True)
    # Last: an interrupted run is known by its absence.
    (site / record).write_text("".join(line for line in lines if wanted(line.split(",")[0])))
PY
}

install_panopticapi() {
    if has_module "$PYTHON" panopticapi.evaluation; then
        say "      a working panopticapi is there: kept"
        return
    fi
    printf '%s --hash=sha256:%s\n' "$PANOPTICAPI" "$PANOPTICAPI_SHA256" >"$SCRATCH/panopticapi.txt"
    # --no-deps: it asks for numpy<2, but runs with numpy 2.
    must pip_install --no-deps --require-hashes --requirement "$SCRATCH/panopticapi.txt"
}

check_installation() {
    "$PYTHON" -I -W ignore - 2>>"$LOG" <<'PY'
import cv2
import detectron2
import detectron2.engine
import diffusers
import numpy
import panopticapi.evaluation
import timm
import torch

import ldmseg_d2

parts = (torch, detectron2, diffusers, timm, numpy, ldmseg_d2)
print("     ", ", ".join(f"{part.__name__} {part.__version__}" for part in parts))
cuda = torch.cuda.is_available()
print("      GPU:", torch.cuda.get_device_name() if cuda else "none found, runs on the CPU")
PY
}

# -------------------------------------------------------------------------------------------------
# The stamp: line 1 what it depends on, line 2 the extras, line 3 which Detectron2
# -------------------------------------------------------------------------------------------------
stamp_key() {
    "$PYTHON" -I - "$ROOT" <<'PY'
import hashlib
import pathlib
import sys

root = pathlib.Path(sys.argv[1])
key = hashlib.sha256(f"{sys.version} {sys.prefix} {root}".encode())
for name in ("setup.py", "pyproject.toml", "tools/install.sh"):
    key.update((root / name).read_bytes())
print(key.hexdigest())
PY
}

read_stamp() {
    STAMP=("" "" "")
    if [[ -r $VENV/.ldmseg_stamp ]]; then mapfile -t STAMP <"$VENV/.ldmseg_stamp"; fi
    # Extras stay: a later run without them, such as run_tests.sh, must not undo the stamp.
    EXTRAS=$(printf '%s\n' dev "${EXTRAS//,/$'\n'}" "${STAMP[1]//,/$'\n'}" |
        sed '/^$/d' | sort -u | paste -sd, -)
}

up_to_date() {
    [[ ! -e $VENV/.ldmseg_installing && ${STAMP[1]:-} == "$EXTRAS" ]] || return 1
    [[ -z $DETECTRON2 || $DETECTRON2 == "${STAMP[2]:-}" ]] || return 1
    [[ $(stamp_key) == "${STAMP[0]}" ]] || return 1
    "$PYTHON" -I -W ignore - "$ROOT" <<'PY' >/dev/null 2>&1
import importlib.util
import pathlib
import sys

import cv2  # noqa: F401
import detectron2  # noqa: F401
import panopticapi  # noqa: F401
import torchvision  # noqa: F401

package = pathlib.Path(importlib.util.find_spec("ldmseg_d2").origin)
assert package.resolve().is_relative_to(sys.argv[1])
PY
}

# -------------------------------------------------------------------------------------------------
# The steps
# -------------------------------------------------------------------------------------------------
parse_options() {
    local option extra
    EXTRAS="" DETECTRON2="" QUIET=""
    for option in "$@"; do
        case $option in
        --detectron2=wheel | --detectron2=source) DETECTRON2=${option#*=} ;;
        --extras=*) EXTRAS=${option#*=} ;;
        --quiet) QUIET=1 ;;
        -h | --help)
            usage
            exit 0
            ;;
        *) fail "unknown option $option." "see tools/install.sh --help." ;;
        esac
    done
    for extra in ${EXTRAS//,/ }; do
        case $extra in
        dev | app | fast-eval | baselines | inpainting) ;;
        *) fail "unknown extra $extra." "choose among app, fast-eval, baselines and inpainting." ;;
        esac
    done
}

wait_for_lock() {
    # On a file that is there anyway, opened for reading: no lock file is left behind.
    exec 9<"$ROOT/setup.py"
    if command -v flock >/dev/null && ! flock --nonblock 9; then
        say "Another tools/install.sh runs in this checkout: waiting for it."
        flock 9 || true
    fi
}

main() {
    local shown
    parse_options "$@"
    # These would let packages from outside the environment in, or send packages out of it.
    unset PYTHONPATH PYTHONHOME PIP_TARGET PIP_PREFIX
    export PYTHONNOUSERSITE=1 PIP_USER=0 PIP_DISABLE_PIP_VERSION_CHECK=1
    wait_for_lock
    shown=${VENV#"$ROOT/"}
    read_stamp
    if up_to_date; then
        if [[ -z $QUIET ]]; then
            say "ldmseg_d2 is installed in $shown: nothing to do."
            say "Activate it with: source $shown/bin/activate"
        fi
        return
    fi
    LOG=$(mktemp "${TMPDIR:-/tmp}/ldmseg_install.XXXXXX")
    SCRATCH=$(mktemp -d "${TMPDIR:-/tmp}/ldmseg_scratch.XXXXXX")

    step 1 "the Python environment $shown"
    check_disk
    make_environment
    step 2 "pip, setuptools and wheel"
    provide_pip
    must pip_install "pip>=22" "$SETUPTOOLS" wheel
    step 3 "${TORCH[*]}"
    install_torch
    step 4 "ldmseg_d2 with the extras $EXTRAS"
    install_project
    step 5 "Detectron2 and panopticapi"
    install_detectron2
    install_panopticapi
    step 6 "checking that everything imports"
    check_installation || must "$PYTHON" -I -c "import ldmseg_d2, detectron2.engine, diffusers, timm"

    printf '%s\n' "$(stamp_key)" "$EXTRAS" "${DETECTRON2:-${STAMP[2]:-wheel}}" >"$VENV/.ldmseg_stamp"
    rm -f "$VENV/.ldmseg_installing"
    say "Done. Activate the environment with: source $shown/bin/activate"
}

ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)
VENV=${LDMSEG_VENV:-$ROOT/.venv}
VENV=${VENV%/}
[[ $VENV == /* ]] || VENV=$PWD/$VENV
PYTHON=$VENV/bin/python
main "$@"
