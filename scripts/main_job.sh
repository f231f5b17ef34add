#!/bin/sh
# The main job: train the quickstart, evaluate it. What is done already is not done again.
set -eu

name=quickstart dataset=
code=0
diffuse plot data dry_run=true >/dev/null || code=$?
if [ $code -eq 3 ]; then
    echo "
    *** Fashion-MNIST could not be had (the reasons are above).
    *** Going on with the small digits that come with scikit-learn INSTEAD:
    *** these results are about 8x8 digits, not about Fashion-MNIST.
    " >&2
    name=quickstart-digits dataset=dataset=digits
elif [ $code -ne 0 ]; then
    exit $code
fi
# shellcheck disable=SC2086  # $dataset is one word or none
train() { diffuse train experiment=quickstart name=$name $dataset "$@"; }
code=0
train resume=auto || code=$?
if [ $code -eq 2 ]; then
    if train resume=auto dry_run=true 2>&1 | grep -q "being trained by another process"; then
        exit $code  # as it has said: of two at once, one does it
    fi
    echo "
    *** What is there was begun by another version, with other settings: a new run begins.
    " >&2
    train
elif [ $code -ne 0 ]; then
    exit $code
fi
diffuse eval run=$name known=true
