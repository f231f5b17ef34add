#!/bin/sh
# From training to a FID, an encoder and pictures, in seconds, on real Fashion-MNIST; leaves nothing behind.
set -eu

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
set -x
diffuse train debug=smoke
diffuse sample debug=smoke save=npz
diffuse eval debug=smoke -m sampler=ddim,unipc
diffuse train debug=smoke dataset=digits schedule=linear objective=eps model=course dataset.fit=pad
diffuse encoder debug=smoke dataset=digits
diffuse plot data
diffuse plot trajectory debug=smoke
