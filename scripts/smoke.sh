#!/bin/sh
# From training to a FID, an encoder and pictures, in seconds, on real Fashion-MNIST; leaves nothing behind.
set -eu

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
set -x
diffuse train debug=smoke
diffuse sample debug=smoke save=npz
diffuse sample debug=smoke sampler=ddpm save=png
diffuse sample debug=smoke sampler=heun reuse=skip
diffuse eval debug=smoke -m sampler=ddim,unipc
diffuse train debug=smoke dataset=digits schedule=linear objective=eps model=course dataset.fit=pad
diffuse train debug=smoke -m schedule=linear,cosine
diffuse encoder debug=smoke dataset=digits
diffuse plot data
diffuse plot schedule schedule=linear,cosine
diffuse plot trajectory debug=smoke
diffuse train dry_run=true train.steps=10
