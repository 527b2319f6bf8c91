#!/usr/bin/env bash
# Installs ldmseg_d2 and everything it needs into a virtual environment; see --help.
# Each step looks at what is there, so that a run after an interrupted one goes on where it stopped.
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
  --extras=A,B          also what these need: app, fast-eval, baselines, inpainting, browser-tests
  --quiet               print nothing when there is nothing to do
  --help                print this text

Environment:
  LDMSEG_VENV           the environment to install into (used if it is there, else made)
  LDMSEG_PYTHON         the Python to make it with
  LDMSEG_TORCH_INDEX    package index for torch, for instance for a build without CUDA:
                        https://download.pytorch.org/whl/cpu
TEXT
}
readonly TORCH=("torch==2.11.0" "torchvision==0.26.0")
readonly SETUPTOOLS="setuptools>=64,<81" # as in pyproject.toml
# Upstream Detectron2 at commit a59f0563; upstream itself has no release on PyPI.
readonly DETECTRON2_WHEEL="sal-detectron2==0.7.2 --hash=sha256:491af0c7f79bdb2d178e46f6cb16a97c4ac968d45c41ea3f6b6435d59bbee561"
readonly DETECTRON2_SOURCE="git+https://github.com/facebookresearch/detectron2"
readonly PANOPTICAPI="panopticapi-lite==0.2.0 --hash=sha256:58d3ffa842a72240162e7fa744c602a0a5320baabbdb3295d770374f4639b486"
readonly EXTRAS_KNOWN=" dev app fast-eval baselines inpainting browser-tests "
STEP="reading the options" LOG="" LOG_START=0 SCRATCH=""
say() { printf '%s\n' "$*"; }
step() { STEP="step $1, $2" && say "[$1/6] $2"; }

fail() { # what failed, what to do
    trap - ERR
    printf '\nFAILED (%s): %s\nWhat to do: %s\n' "$STEP" "$1" "$2" >&2
    if [[ -s $LOG ]]; then printf 'Full log: %s\n' "$LOG" >&2 && LOG=""; fi # kept
    exit 1
}

trap 'rm -rf ${SCRATCH:+"$SCRATCH"} ${LOG:+"$LOG"}' EXIT
trap 'fail "line $LINENO of tools/install.sh ended with status $?." "read the log, if there is one."' ERR
trap 'printf "\nInterrupted. Run it again: it goes on where it stopped.\n" >&2; exit 130' INT TERM

# Runs a command with its output in the log, and shows what it downloads.
logged() {
    printf '\n$ %s\n' "$*" >>"$LOG"
    LOG_START=$(wc -c <"$LOG")
    "$@" 2>&1 </dev/null | tee -a "$LOG" | { grep --line-buffered -oE '^ *(Downloading|Cloning) .*' || true; }
}
# As `logged`; where the command fails, says why, as far as its output tells, and stops.
must() {
    local output hint="read the log, mend the cause and run again: finished steps are kept."
    if logged "$@"; then return; fi
    output=$(tail -c "+$((LOG_START + 1))" "$LOG")
    tail -n 8 <<<"$output" | cut -c 1-200 | sed 's/^/      | /' >&2
    matches() { grep -qiE "$1" <<<"$output"; }
    if matches 'no space left|errno 28|disk quota'; then
        hint="the disk is full: free about 10 GB, or name a larger disk in LDMSEG_VENV, TMPDIR (temporary files) and PIP_CACHE_DIR (downloads)."
    elif matches 'connection|timed out|name resolution|unreachable|proxyerror|could not resolve|sslerror'; then
        hint="the package index or repository was not reached: check the network (behind a proxy: HTTPS_PROXY, PIP_CERT; with a mirror: PIP_INDEX_URL) and run again: finished steps are kept."
    elif matches 'permission denied|read-only file system'; then
        hint="run as the owner of $ROOT and of $VENV, or name another folder in LDMSEG_VENV."
    elif matches 'do not match the hashes'; then
        hint="the download is not the file that was checked: run again; if this stays, report it."
    elif matches 'no matching distribution'; then
        hint="the package index has nothing for this Python or machine: check PIP_INDEX_URL and LDMSEG_TORCH_INDEX, and that this is 64-bit Linux."
    fi
    fail "this failed: ${*/#pip_install/pip install}" "$hint"
}

supported() { "$1" -I -c 'import sys; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 12))' >/dev/null 2>&1; }
has_module() { "$1" -I -W ignore -c "import $2" >/dev/null 2>&1; }
site_packages() { "$PYTHON" -I -c 'import sysconfig; print(sysconfig.get_path("purelib"))'; }
pip_install() { "$PYTHON" -m pip install --no-build-isolation --progress-bar off "$@"; }

# Sets BASE_PYTHON: the first that runs (shims of version managers may not) and can provide pip.
find_base_python() {
    local name path found="" names=(python3 python3.12 python3.11 python3.10 python)
    if [[ -n ${LDMSEG_PYTHON:-} ]]; then names=("$LDMSEG_PYTHON"); fi
    for name in "${names[@]}"; do
        while IFS= read -r path; do
            found+=" $("$path" -V 2>&1 || true)"
            if supported "$path" && { has_module "$path" ensurepip || has_module "$path" pip; }; then
                BASE_PYTHON=$path && return
            fi
        done < <(type -aP "$name" || true)
    done
    fail \
        "there is no Python 3.10, 3.11 or 3.12 with pip${LDMSEG_PYTHON:+ at LDMSEG_PYTHON=$LDMSEG_PYTHON} (found:${found:- none})." \
        "install one (Debian 12, Ubuntu 22.04 and 24.04: apt-get install python3 python3-venv; elsewhere pyenv, uv or conda), or name it in LDMSEG_PYTHON, and run again."
}

make_environment() {
    local needed=${LDMSEG_TORCH_INDEX:+4} parent=$VENV free
    while [[ ! -d $parent ]]; do parent=$(dirname "$parent"); done
    free=$(($(df -Pk "$parent" | awk 'NR == 2 { print $4 }') / 1048576))
    if ((free < ${needed:=10})) && ! compgen -G "$VENV/lib*/python3*/site-packages/torch/version.py" >/dev/null; then
        fail "$parent has $free GB free; about $needed GB are needed." \
            "free some space, or name a folder on a larger disk in LDMSEG_VENV."
    fi
    if [[ ! -x $PYTHON ]]; then
        [[ -z $(ls -A "$VENV" 2>/dev/null) || -e $VENV/pyvenv.cfg ]] || fail \
            "$VENV exists and is not a Python environment." "move it away, or name another in LDMSEG_VENV."
        find_base_python
        must "$BASE_PYTHON" -m venv --without-pip "$VENV" # with it Debian needs python3-venv
    fi
    supported "$PYTHON" || fail "$VENV has $("$PYTHON" -V 2>&1), not Python 3.10, 3.11 or 3.12." \
        "delete that folder, or name another one in LDMSEG_VENV, and run again."
    say "      $("$PYTHON" -V 2>&1)"
    # pip writes RECORD last: without it a package is there by half, but pip takes it for whole.
    for parent in "$(site_packages)"/*.dist-info; do
        if [[ -e $VENV/.ldmseg_installing && ! -f $parent/RECORD ]]; then rm -rf "$parent"; fi
    done
    must touch "$VENV/.ldmseg_installing"
}
provide_pip() {
    if ! has_module "$PYTHON" pip && ! logged "$PYTHON" -m ensurepip; then
        must "$("$PYTHON" -I -c 'import sys; print(sys._base_executable)')" -m pip --python "$PYTHON" install pip
    fi
    must pip_install "pip>=22" "$SETUPTOOLS" wheel
}
torch_works() { # compiled operators are what a mismatched torchvision lacks
    "$PYTHON" -I -c 'import torch, torchvision as v
assert tuple(map(int, torch.__version__.split(".")[:2])) >= (2, 4), torch.__version__
assert len(v.ops.nms(torch.rand(1, 4), torch.ones(1), 0.5)) == 1' >>"$LOG" 2>&1
}
install_torch() {
    local again index=()
    if [[ -n ${LDMSEG_TORCH_INDEX:-} ]]; then index=(--index-url "$LDMSEG_TORCH_INDEX"); fi
    for again in "" --ignore-installed; do
        if torch_works; then return; fi
        must pip_install ${again:+"$again"} ${index[@]+"${index[@]}"} "${TORCH[@]}"
    done
    torch_works || fail "torch and torchvision are installed, but do not work." "$REINSTALL"
}
install_project() {
    # A dependency must not replace the pair that was just found to work.
    "$PYTHON" -m pip freeze | grep -E '^(torch|torchvision)==' >"$SCRATCH/constraints.txt" || true
    must pip_install --constraint "$SCRATCH/constraints.txt" --editable "${ROOT}[$EXTRAS]"
    # Some packages bring the OpenCV that needs libGL, which servers lack. Both share one folder.
    if has_module "$PYTHON" cv2; then return; fi
    logged "$PYTHON" -m pip uninstall -y opencv{,-contrib}-python{,-headless} || true
    must pip_install opencv-python-headless
}

detectron2_works() { # upstream's own package is called detectron2, the prebuilt one is not
    has_module "$PYTHON" "detectron2.data, detectron2.engine, detectron2.evaluation, detectron2.model_zoo" &&
        { [[ $DETECTRON2 != source ]] || "$PYTHON" -m pip show detectron2 >/dev/null 2>&1; }
}
install_detectron2() {
    if detectron2_works; then return; fi
    # Run once the new one has arrived, so that a failed build or download breaks nothing.
    local remove=(logged "$PYTHON" -m pip uninstall -y sal-detectron2 detectron2)
    if [[ $DETECTRON2 == source ]]; then
        command -v git >/dev/null || fail "building Detectron2 needs git and g++." "apt-get install git g++"
        must "$PYTHON" -m pip wheel --no-build-isolation --no-deps --wheel-dir "$SCRATCH" "$DETECTRON2_SOURCE"
        "${remove[@]}" || true
        must pip_install "$SCRATCH"/detectron2-*.whl
    else # tagged for Python 3.10 by operators compiled for another torch: they stay out, its code
        # runs on all Pythons; so does its package `tools`, which would hide ours
        say "$DETECTRON2_WHEEL" >"$SCRATCH/detectron2.txt"
        must pip_install --no-deps --require-hashes --only-binary=:all: --python-version 3.10 \
            --implementation cp --abi cp310 --target "$SCRATCH/site" --requirement "$SCRATCH/detectron2.txt"
        rm -f "$SCRATCH"/site/detectron2/*.so
        "${remove[@]}" || true
        must cp -r "$SCRATCH"/site/detectron2 "$SCRATCH"/site/sal_detectron2-*.dist-info "$(site_packages)"
    fi
    detectron2_works || fail "Detectron2 is installed, but does not import." "$REINSTALL"
}
install_panopticapi() {
    if has_module "$PYTHON" panopticapi.evaluation; then return; fi
    say "$PANOPTICAPI" >"$SCRATCH/panopticapi.txt"
    must pip_install --no-deps --require-hashes --requirement "$SCRATCH/panopticapi.txt" # asks for numpy<2
}
check_installation() {
    "$PYTHON" -I -W ignore -c 'import cv2, detectron2.engine, diffusers, ldmseg_d2, numpy, panopticapi.evaluation, timm, torch
parts = (torch, detectron2, diffusers, timm, numpy, ldmseg_d2)
print("     ", ", ".join(f"{part.__name__} {part.__version__}" for part in parts))
print("      GPU:", torch.cuda.get_device_name() if torch.cuda.is_available() else "none, runs on the CPU")'
}

# The stamp: line 1 what it depends on, line 2 the extras (they stay), line 3 which Detectron2.
stamp_key() {
    { say "$ROOT $VENV $("$PYTHON" -VV)" && cat "$ROOT"/{setup.py,pyproject.toml,tools/install.sh}; } | cksum
}
up_to_date() {
    [[ ! -e $VENV/.ldmseg_installing && ${STAMP[1]:-} == "$EXTRAS" ]] &&
        [[ -z $DETECTRON2 || $DETECTRON2 == "${STAMP[2]:-}" ]] &&
        [[ $(stamp_key 2>/dev/null) == "${STAMP[0]}" ]] &&
        has_module "$PYTHON" "cv2, detectron2, panopticapi, torchvision, ldmseg_d2"
}

main() {
    local option shown=${VENV#"$ROOT/"}
    EXTRAS="" DETECTRON2="" QUIET="" STAMP=("" "" "")
    for option in "$@"; do
        case $option in
        --detectron2=wheel | --detectron2=source) DETECTRON2=${option#*=} ;;
        --extras=*) EXTRAS=${option#*=} ;;
        --quiet) QUIET=1 ;;
        -h | --help) usage && exit 0 ;;
        *) fail "unknown option $option." "see tools/install.sh --help." ;;
        esac
    done
    for option in ${EXTRAS//,/ }; do
        [[ $EXTRAS_KNOWN == *" $option "* ]] || fail "unknown extra $option." "choose among:$EXTRAS_KNOWN"
    done
    # These would let packages from outside the environment in, or send packages out of it.
    unset PYTHONPATH PYTHONHOME PIP_TARGET PIP_PREFIX
    export PYTHONNOUSERSITE=1 PIP_USER=0 PIP_DISABLE_PIP_VERSION_CHECK=1
    exec 9<"$ROOT/setup.py" # one run at a time in this checkout
    if command -v flock >/dev/null; then flock 9 || true; fi
    if [[ -r $VENV/.ldmseg_stamp ]]; then mapfile -t STAMP <"$VENV/.ldmseg_stamp"; fi
    EXTRAS=$(printf '%s\n' dev "${EXTRAS//,/$'\n'}" "${STAMP[1]//,/$'\n'}" | sed '/^$/d' | sort -u | paste -sd, -)
    if up_to_date; then
        [[ -n $QUIET ]] || say "ldmseg_d2 is installed in $shown: nothing to do."
        return 0
    fi
    LOG=$(mktemp "${TMPDIR:-/tmp}/ldmseg_install.XXXXXX")
    SCRATCH=$(mktemp -d "${TMPDIR:-/tmp}/ldmseg_scratch.XXXXXX")
    step 1 "the Python environment $shown"
    make_environment
    step 2 "pip, setuptools and wheel"
    provide_pip
    step 3 "${TORCH[*]} (about 3 GB with CUDA libraries)"
    install_torch
    step 4 "ldmseg_d2 with the extras $EXTRAS"
    install_project
    step 5 "Detectron2 and panopticapi"
    install_detectron2
    install_panopticapi
    step 6 "checking that everything imports"
    check_installation
    printf '%s\n' "$(stamp_key)" "$EXTRAS" "${DETECTRON2:-${STAMP[2]:-wheel}}" >"$VENV/.ldmseg_stamp"
    rm -f "$VENV/.ldmseg_installing"
    say "Done. Activate the environment with: source $shown/bin/activate"
}

ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)
VENV=$(realpath -ms "${LDMSEG_VENV:-$ROOT/.venv}")
PYTHON=$VENV/bin/python
REINSTALL="look for the error at the end of the log; else delete $VENV and run again."
main "$@"
