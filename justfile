# What there is to do. `just check` is what CI runs.

default:
    @just --list

# Format, lints and the fast tier of the tests
check:
    tests/run

# Every tier of the tests
check-all:
    tests/run --all

# The story in the terminal
demo:
    cargo run --release -- demo

# How soon bad canaries are rolled back, and how seldom good ones
figures runs="200":
    SWITCHBACK_RUNS={{ runs }} cargo bench -p switchback-judge --bench figures

# How many flags one core evaluates in a second
flags:
    cargo bench -p switchback-proxy --bench flags

# switchback beside nginx, HAProxy and Envoy; options as of benches/compare/run
compare *options:
    cargo build --release
    benches/compare/run {{ options }}

# A release optimised by what it does under load, as target/pgo/switchback
release-pgo:
    deploy/release-pgo

# Instructions of each step of a request and of the judges, compared with those recorded
instructions:
    benches/instructions/run

# The same, recorded: for when a count has grown for a good reason, or shrunk
instructions-accept:
    benches/instructions/run --accept

# The dashboard in a real browser
dashboard:
    cargo build
    tests/dashboard/run

# Pictures of a rollback for the documentation, taken anew
pictures:
    cargo build
    tests/dashboard/run pictures

# Licences, duplicates and sources of dependencies
deny:
    cargo deny check bans licenses sources

# Expected diagnostics of broken config files, written anew
expect:
    UPDATE_EXPECT=1 cargo nextest run -p switchback --test config

# Reference pages of docs/, written anew from the schema and from tests/openapi.json
docs:
    UPDATE_EXPECT=1 cargo nextest run -p switchback --test tidy reference

# Build, install and remove what is shipped: image, Debian package, manifests, chart
packaging:
    tests/packaging/run

# Fuzz the HTTP/1 codec against hyper for so many seconds
fuzz seconds="1800":
    tests/fuzz/run {{ seconds }}
