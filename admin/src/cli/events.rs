//! `events`: what is kept, and with `--follow` what comes, also over connections that break.

use std::time::Duration;

use anstream::{eprintln, println};
use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::body::Incoming;
use owo_colors::OwoColorize;
use serde_json::Value;

use super::Failed;
use super::args::Output;
use super::client::{Client, ClientError};
use super::look::time;
use super::verbs::text;

/// How long to wait before the first new attempt; doubled with each, up to the last.
const PAUSES: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(10));

/// Prints events: those that are kept, and with `follow` those that come.
///
/// A stream that breaks goes on where it was: that is said, and what could not be made up for too.
pub(super) async fn events(client: &Client, follow: bool) -> Result<u8, Failed> {
    let mut reader = Reader {
        client,
        text: Vec::new(),
        last: None,
    };
    if !follow {
        let mut stream = client.stream("/v1/events?follow=false", None).await?;
        reader.read(&mut stream).await?;
        return Ok(0);
    }
    let mut stream = client.stream("/v1/events", None).await?;
    loop {
        let cause = match reader.read(&mut stream).await {
            Ok(()) => "it was closed".to_owned(),
            Err(broken) => broken.message,
        };
        eprintln!("switchback: lost the stream of events: {cause}; connecting again");
        stream = reader.resume().await?;
        eprintln!("switchback: connected again; events go on where they were");
    }
}

struct Reader<'a> {
    client: &'a Client,
    /// What has come of a message that is not complete.
    text: Vec<u8>,
    /// The last event that was printed.
    last: Option<String>,
}

impl Reader<'_> {
    /// Prints what comes until the stream ends.
    async fn read(&mut self, stream: &mut Incoming) -> Result<(), Failed> {
        self.text.clear();
        while let Some(piece) = next_piece(stream).await? {
            self.text.extend_from_slice(&piece);
            while let Some(end) = self.text.windows(2).position(|two| two == b"\n\n") {
                let message: Vec<u8> = self.text.drain(..end + 2).collect();
                self.print(&String::from_utf8_lossy(&message));
            }
        }
        Ok(())
    }

    /// A new stream after the last event, as soon as the server is there. Gives up if it says no.
    async fn resume(&self) -> Result<Incoming, ClientError> {
        let (mut pause, longest) = PAUSES;
        loop {
            tokio::time::sleep(pause).await;
            match self.client.stream("/v1/events", self.last.as_deref()).await {
                Err(ClientError::Unreachable { .. } | ClientError::Problem { status: 503, .. }) => {
                    pause = longest.min(pause * 2);
                }
                answer => return answer,
            }
        }
    }

    fn print(&mut self, message: &str) {
        for line in message.lines() {
            if let Some(id) = line.strip_prefix("id:") {
                self.last = Some(id.trim().to_owned());
            }
            let Some(event) = line.strip_prefix("data:") else {
                continue;
            };
            let event: Value = serde_json::from_str(event.trim()).unwrap_or_default();
            match self.client.output {
                Output::Json => println!("{event}"),
                Output::Table | Output::Markdown => print_event(&event),
            }
        }
    }
}

async fn next_piece(stream: &mut Incoming) -> Result<Option<Bytes>, Failed> {
    loop {
        match stream.frame().await {
            None => return Ok(None),
            Some(Ok(frame)) => {
                if let Ok(piece) = frame.into_data() {
                    return Ok(Some(piece));
                }
            }
            Some(Err(error)) => return Err(Failed::new(error.to_string())),
        }
    }
}

fn print_event(event: &Value) {
    let service = event["service"]
        .as_str()
        .map(|service| format!("{service}: "))
        .unwrap_or_default();
    println!(
        "{} {} {service}{}",
        time(&event["at"]).dimmed(),
        text(&event["kind"]).bold(),
        text(&event["message"])
    );
}
