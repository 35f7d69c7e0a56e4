//! RFC 9113 and RFC 7541, section by section: the cases of the h2spec suite, played by our own frame writer.
//!
//! h2spec itself is a Go program that no registry this project builds from has, so its cases are written
//! down here under its names and numbers, with its rule for passing: a connection error may also show as
//! a closed connection, a stream error also as a connection error with the same code.

mod frames;
mod hpack;
mod streams;

use futures_util::future::join_all;

use crate::support::frames::{Expect, H2, Step};
use crate::support::wire::{Edge, RawOrigin, none_wrong};

/// A case: its number and title, the client's settings, what is sent, what must come.
struct Case {
    name: &'static str,
    settings: Vec<(u16, u32)>,
    steps: Vec<Step>,
    expect: Expect,
}

fn case(name: &'static str, bytes: &[Vec<u8>], expect: Expect) -> Case {
    Case {
        name,
        settings: Vec::new(),
        steps: vec![Step::Send(bytes.concat())],
        expect,
    }
}

impl Case {
    /// Waits for the end of a response, then sends more.
    fn then(mut self, stream: u32, bytes: &[Vec<u8>]) -> Self {
        self.steps.push(Step::Ended(stream));
        self.steps.push(Step::Send(bytes.concat()));
        self
    }

    /// Waits for content, then sends more.
    fn after_content(mut self, bytes: &[Vec<u8>]) -> Self {
        self.steps.push(Step::Content);
        self.steps.push(Step::Send(bytes.concat()));
        self
    }

    fn with_settings(mut self, settings: &[(u16, u32)]) -> Self {
        self.settings = settings.to_vec();
        self
    }
}

/// Plays cases in plain text and over TLS.
async fn play(cases: Vec<Case>) {
    let origin = RawOrigin::start().await;
    let edge = Edge::start(&origin.url(), "", "", "");
    let mut wrong: Vec<String> = Vec::new();
    for some in cases.chunks(8) {
        for secure in [false, true] {
            let edge = &edge;
            let played = some.iter().map(|case| async move {
                let wire = if secure {
                    edge.secure(true).await
                } else {
                    edge.plain().await
                };
                let mut client = H2::start(wire, &case.settings).await;
                let played = client.play(&case.steps, case.expect).await;
                let what = |error| format!("{} (TLS {secure}): {error}", case.name);
                played.err().map(what)
            });
            wrong.extend(join_all(played).await.into_iter().flatten());
        }
    }
    none_wrong(cases.len(), &wrong);
    assert!(edge.serves().await);
}
