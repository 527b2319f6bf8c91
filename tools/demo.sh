#!/usr/bin/env bash
# From a fresh checkout to numbers and pictures; see --help.
set -euo pipefail

# The shipped model; its config names the shipped autoencoders. --train trains the same ones shortly.
CONFIG=configs/scenes/ldmseg_multitask_scenes64.yaml
WEIGHTS=ldmseg_d2/model_zoo/ldmseg_multitask_scenes64.safetensors
TRAINED=output/quick_

usage() {
    cat <<'TEXT'
Usage: tools/demo.sh [--train] [--data DIR] [--output DIR] [--images N]

Installs what is missing, makes the generated scenes, evaluates the shipped small model on them
(PQ with classes and class-agnostic, mIoU, depth's AbsRel) and draws some results: photo | panoptic
| semantic | depth. Takes under 5 minutes on 2 CPU cores, after the downloads.

Options:
  --train       first train everything from scratch, shortly, and then use that model instead: the
                autoencoders of masks and of depth, then the diffusion model of all three tasks;
                a training that was interrupted goes on, one that has ended is not repeated
  --data DIR    folder of the data sets (default: DETECTRON2_DATASETS, else datasets)
  --output DIR  folder of the pictures and of the evaluation (default: output/demo)
  --images N    how many results to draw (default: 8)
  --help        print this text
TEXT
}

stop() {
    printf 'tools/demo.sh: %s\n' "$1" >&2
    exit 2
}

absolute() { # path, as seen from where the user is
    if [[ $1 == /* ]]; then printf '%s\n' "$1"; else printf '%s\n' "$PWD/$1"; fi
}

TRAIN="" OUTPUT="" DATA=${DETECTRON2_DATASETS:-} IMAGES=8
while (($#)); do
    option=${1%%=*}
    case $option in
    --train) TRAIN=1 ;;
    --data | --output | --images)
        if [[ $1 == *=* ]]; then
            value=${1#*=}
        else
            (($# >= 2)) || stop "$1 needs a value; see --help"
            value=$2
            shift
        fi
        case $option in
        --data) DATA=$value ;;
        --output) OUTPUT=$(absolute "$value") ;;
        --images) IMAGES=$value ;;
        esac
        ;;
    -h | --help)
        usage
        exit 0
        ;;
    *) stop "unknown option $1; see --help" ;;
    esac
    shift
done
[[ $IMAGES =~ ^[1-9][0-9]*$ ]] || stop "--images needs a number above 0, not '$IMAGES'"

if [[ -n ${LDMSEG_VENV:-} ]]; then
    LDMSEG_VENV=$(absolute "$LDMSEG_VENV")
    export LDMSEG_VENV
fi
[[ -z $DATA ]] || DATA=$(absolute "$DATA")
cd "$(dirname "${BASH_SOURCE[0]}")/.."
export DETECTRON2_DATASETS=${DATA:-$PWD/datasets}
OUTPUT=${OUTPUT:-output/demo}
# Threads that spin while they wait are many times slower where other processes want the cores.
export OMP_WAIT_POLICY=${OMP_WAIT_POLICY:-PASSIVE}
PYTHON=${LDMSEG_VENV:-.venv}/bin/python
if [[ -z $TRAIN && ! -f $WEIGHTS ]]; then
    stop "$WEIGHTS is not in this checkout; --train makes a model"
fi

headline() { printf '\n== %s\n' "$1"; }

headline "1. Installation"
bash tools/install.sh

headline "2. Generated scenes in $DETECTRON2_DATASETS/scenes"
# The training pictures take a minute or two: only --train needs them.
splits=(val) counts=(--train 0)
[[ -z $TRAIN ]] || splits=(train val) counts=()
missing=""
for split in "${splits[@]}"; do
    [[ -f $DETECTRON2_DATASETS/scenes/panoptic_$split.json ]] || missing=1
done
if [[ -n $missing ]]; then
    "$PYTHON" tools/prepare_dataset.py scenes --root "$DETECTRON2_DATASETS" "${counts[@]}"
else
    echo "They are there."
fi

# Without Detectron2's results for spreadsheets; log.txt has them.
train_net() {
    "$PYTHON" tools/train_net.py "$@" |
        sed -u -e '/copypaste: /d' -e '/Evaluation results for .* in csv format:/d'
}

train() { # config, iterations, config keys and values
    local name=$1 iterations=$2 folder=$TRAINED$1
    shift 2
    if [[ -f $folder/model_final.pth ]]; then
        echo "$folder/model_final.pth is there; delete that folder to train again."
    else
        train_net --config-file "configs/scenes/$name.yaml" --resume OUTPUT_DIR "$folder" "$@" \
            SOLVER.MAX_ITER "$iterations" SOLVER.CHECKPOINT_PERIOD "$((iterations / 2))" \
            TEST.EVAL_PERIOD 0 VIS_PERIOD 500
    fi
}

MODEL=()
if [[ -n $TRAIN ]]; then
    headline "3a. Training of stage 1: the mask autoencoder"
    train autoencoder_scenes64 1000
    headline "3b. Training of stage 1: the depth autoencoder"
    train depth_autoencoder_scenes64 500
    headline "3c. Training of stage 2: the diffusion model of segments, classes and depth"
    MODEL=(
        MODEL.LDMSEG.AUTOENCODER.WEIGHTS "${TRAINED}autoencoder_scenes64/model_final.pth"
        MODEL.LDMSEG.DEPTH.AUTOENCODER.WEIGHTS "${TRAINED}depth_autoencoder_scenes64/model_final.pth"
    )
    train ldmseg_multitask_scenes64 1000 MODEL.WEIGHTS "" "${MODEL[@]}"
    WEIGHTS=${TRAINED}ldmseg_multitask_scenes64/model_final.pth
fi
MODEL+=(MODEL.WEIGHTS "$WEIGHTS")

headline "4. Evaluation of $WEIGHTS on scenes_val"
# Small batches, which change no result, show how far it is.
train_net --config-file "$CONFIG" --eval-only "${MODEL[@]}" \
    TEST.IMS_PER_BATCH 10 OUTPUT_DIR "$OUTPUT/evaluation"

headline "5. Pictures of $IMAGES results"
"$PYTHON" tools/demo.py --config-file "$CONFIG" --dataset scenes_val --num "$IMAGES" \
    --output "$OUTPUT" --steps --opts "${MODEL[@]}"

headline "Done"
echo "The numbers are in the table \"Results\" above, and in $OUTPUT/evaluation/log.txt."
echo "The pictures lie in $OUTPUT: photo, results and ground truth, and the steps from noise to"
echo "the result; all of them at a glance in overview.png."
