#!/bin/sh
echo "coverage reports need a Bazel with network" >&2
exit 1
