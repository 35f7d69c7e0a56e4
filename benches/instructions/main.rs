//! Instructions of the steps of a request, of whole requests, and of the judges' look, by callgrind.
//!
//! `just instructions` runs them and compares the counts with `expected.json`; README.md beside this
//! file says more. Each function here is one count: what its setup does is not in it, and it gives
//! everything back, so that no memory is freed within.
#![allow(
    missing_docs,
    unreachable_pub,
    clippy::unwrap_used,
    clippy::panic,
    clippy::missing_panics_doc,
    clippy::must_use_candidate,
    reason = "a program for which the macros write public functions, and which stops at a surprise"
)]

mod messages;
mod world;

use std::hint::black_box;

use gungraun::{
    Callgrind, LibraryBenchmarkConfig, library_benchmark, library_benchmark_group, main,
};
use switchback_admin::observer::Observer;
use switchback_proxy::bench::{Parser, RoundTrip, Steps};
use switchback_proxy::split::{Sampler, Split};

use messages::{ANSWER, BROWSER, CHANGED, FEW, KEYED};
use world::{Judged, split_of, steps};

/// What depends on where memory happens to lie is measured in so many places: vectors of 32 bytes take a
/// few instructions more or less by how their first byte is aligned.
const PLACES: usize = 8;

/// Repetitions where a single step takes few instructions, or not the same each time.
const TIMES: usize = 1_000;

/// Requests of one connection, after [`WARM_UP`]: together enough for what varies from one to the next.
const REQUESTS: usize = 50;

/// Requests that fill the pools of a connection before.
const WARM_UP: usize = 20;

/// Looks of the judges before one at which readings for operators are written anew, as every half second.
const TICKS_TO_SHOW: u32 = 20;

/// The same before an ordinary one.
const TICKS: u32 = 25;

/// A parser that has read such a head before.
fn warm_parser(head: &'static [u8]) -> (Parser, &'static [u8]) {
    let mut parser = Parser::default();
    let read = if head.starts_with(b"HTTP/") {
        parser.response(head)
    } else {
        parser.request(head)
    };
    assert!(read.is_some(), "not a head");
    (parser, head)
}

#[library_benchmark(setup = warm_parser)]
#[bench::few_fields(FEW)]
#[bench::browser(BROWSER)]
fn parse_request((mut parser, head): (Parser, &'static [u8])) -> Parser {
    black_box(parser.request(black_box(head)));
    parser
}

#[library_benchmark(setup = warm_parser)]
#[bench::nine_fields(ANSWER)]
fn parse_response((mut parser, head): (Parser, &'static [u8])) -> Parser {
    black_box(parser.response(black_box(head)));
    parser
}

fn routed(routes: usize) -> Steps {
    let steps = world::routed(routes);
    assert!(steps.find_route().is_some());
    steps
}

#[library_benchmark(setup = routed)]
#[bench::of_10(10)]
#[bench::of_10_000(10_000)]
fn route(steps: Steps) -> Steps {
    black_box(black_box(&steps).find_route());
    steps
}

#[library_benchmark(setup = split_of)]
#[bench::two_backends(2)]
#[bench::thirty_two_backends(32)]
fn split((split, mut sampler, mut random): (Split, Sampler, fastrand::Rng)) -> Sampler {
    for _ in 0..TIMES {
        black_box(split.next(&mut sampler, &mut |bound| random.u64(0..bound)));
    }
    black_box(split);
    sampler
}

fn several_steps(request: &'static [u8], backends: usize) -> Vec<Steps> {
    (0..PLACES).map(|_| steps(request, backends)).collect()
}

// With the availability of what is chosen, as a request has it done.
#[library_benchmark(setup = several_steps)]
#[bench::by_share(args = (FEW, 2))]
#[bench::by_share_of_thirty_two(args = (FEW, 32))]
#[bench::by_key(args = (KEYED, 2))]
#[bench::by_key_of_three(args = (KEYED, 3))]
fn choose(places: Vec<Steps>) -> Vec<Steps> {
    for steps in &places {
        for _ in 0..TIMES / PLACES {
            black_box(black_box(steps).choose().unwrap());
        }
    }
    places
}

/// Writes once, so that the lines have their room.
fn warm_lines(request: &'static [u8]) -> Steps {
    let mut steps = steps(request, 2);
    assert!(steps.write_request() > 0 && steps.write_response() > 0);
    steps
}

#[library_benchmark(setup = warm_lines)]
#[bench::few_fields(FEW)]
#[bench::browser(BROWSER)]
#[bench::changed_by_route(CHANGED)]
fn request_headers(mut steps: Steps) -> Steps {
    black_box(steps.write_request());
    steps
}

#[library_benchmark(setup = warm_lines)]
#[bench::as_received(FEW)]
#[bench::changed_by_route(CHANGED)]
fn response_headers(mut steps: Steps) -> Steps {
    black_box(steps.write_response());
    steps
}

// Every version has traffic between two looks, and some of it fails.
#[library_benchmark(setup = Judged::new)]
#[bench::of_1_service(args = (1, TICKS))]
#[bench::of_1_000_services(args = (1_000, TICKS))]
#[bench::of_1_000_services_shown(args = (1_000, TICKS_TO_SHOW))]
fn judges_tick(judged: Judged) -> Observer {
    let (mut observer, clock) = judged.into_parts();
    black_box(observer.tick(clock, false));
    observer
}

fn warm(mut trip: RoundTrip) -> RoundTrip {
    trip.send(WARM_UP).unwrap();
    trip
}

fn through_the_proxy(request: &'static [u8], log: &'static str) -> Vec<RoundTrip> {
    let trips = (0..PLACES).map(|_| warm(world::round_trip(request, log)));
    trips.collect()
}

fn without_the_proxy(request: &'static [u8]) -> Vec<RoundTrip> {
    let trips = (0..PLACES).map(|_| warm(RoundTrip::direct(request, ANSWER).unwrap()));
    trips.collect()
}

fn send_all(mut trips: Vec<RoundTrip>) -> Vec<RoundTrip> {
    for trip in &mut trips {
        black_box(trip.send(REQUESTS).unwrap());
    }
    trips
}

// What whole_requests has of the client and the origin.
#[library_benchmark(setup = without_the_proxy)]
#[bench::browser(BROWSER)]
fn client_and_origin(trips: Vec<RoundTrip>) -> Vec<RoundTrip> {
    send_all(trips)
}

#[library_benchmark(setup = through_the_proxy)]
#[bench::few_fields(args = (FEW, "off"))]
#[bench::browser(args = (BROWSER, "off"))]
#[bench::browser_with_key(args = (KEYED, "off"))]
#[bench::browser_logged(args = (BROWSER, "json"))]
fn whole_requests(trips: Vec<RoundTrip>) -> Vec<RoundTrip> {
    send_all(trips)
}

library_benchmark_group!(name = parse, benchmarks = [parse_request, parse_response]);
library_benchmark_group!(name = routing, benchmarks = [route]);
library_benchmark_group!(name = splitting, benchmarks = [split, choose]);
library_benchmark_group!(
    name = headers,
    benchmarks = [request_headers, response_headers]
);
library_benchmark_group!(name = judging, benchmarks = [judges_tick]);
library_benchmark_group!(
    name = requests,
    benchmarks = [client_and_origin, whole_requests]
);

main!(
    config = LibraryBenchmarkConfig::default().tool(Callgrind::with_args(["--cache-sim=no"])),
    library_benchmark_groups = [parse, routing, splitting, headers, judging, requests]
);
