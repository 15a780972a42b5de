"""Stand-in for @rules_cc//cc:find_cc_toolchain.bzl: loaded by Bazel's packages, used by none here."""
