#!/usr/bin/env bash
exec "$(dirname "$0")/../benches/run" stages "$@"
