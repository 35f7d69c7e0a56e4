//! `status --watch`: the same table again and again, for plain terminals, for pipes and for programs.
//!
//! A terminal is written over, and what does not fit it is left out and counted; there is no full-screen
//! mode to come back from. Elsewhere each look is a paragraph with its time, or a line of JSON. While the
//! server does not answer that is said, instead of numbers that may not be so any more.

use std::io::{ErrorKind, IsTerminal, Write as _, stdout};
use std::time::Duration;

use anstream::adapter::strip_str;
use anstream::{AutoStream, ColorChoice, eprintln};
use jiff::Timestamp;
use ratatui::crossterm::terminal;
use serde_json::Value;
use tokio::time::MissedTickBehavior;

use super::Failed;
use super::args::Output;
use super::client::{Client, ClientError};
use super::look::time;
use super::show::services;

/// Between two looks.
const PAUSE: Duration = Duration::from_secs(1);

/// An answer that takes longer is none: what is on the screen would be old.
pub(super) const PATIENCE: Duration = Duration::from_secs(3);

/// Shows what is at `path` until somebody ends it. Ends by itself if the server says no, or nobody reads.
pub(super) async fn watch(client: &Client, path: &str) -> Result<u8, Failed> {
    let place = Place::of(client.output);
    let mut ticks = tokio::time::interval(PAUSE);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut seen: Option<Timestamp> = None;
    let mut is_lost = false;
    loop {
        ticks.tick().await;
        let now = Timestamp::now();
        let written = match (client.get(path).await, seen) {
            (Ok(answer), _) => {
                if std::mem::take(&mut is_lost) && place != Place::Terminal {
                    eprintln!("switchback: connected again");
                }
                seen = Some(now);
                place.show(&answer, now)
            }
            (Err(error), Some(seen)) if may_come_back(&error) => {
                let is_known = std::mem::replace(&mut is_lost, true);
                match is_known && place != Place::Terminal {
                    true => Ok(()),
                    false => place.show_lost(seen, &error),
                }
            }
            // Whoever was never there is not waited for.
            (Err(error), _) => return Err(error.into()),
        };
        match written {
            Err(error) if error.kind() == ErrorKind::BrokenPipe => return Ok(0),
            written => written?,
        }
    }
}

fn may_come_back(error: &ClientError) -> bool {
    let is_busy = |status| matches!(status, 500.. | 429);
    match error {
        ClientError::Unreachable { .. } => true,
        ClientError::Problem { status, .. } => is_busy(*status),
        _ => false,
    }
}

/// Where it is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    /// It is written over.
    Terminal,
    /// It goes on and on.
    Stream,
    /// A program reads it.
    Json,
}

impl Place {
    fn of(output: Output) -> Self {
        let is_dumb = std::env::var_os("TERM").is_none_or(|term| term == "dumb");
        match output {
            Output::Json => Self::Json,
            _ if stdout().is_terminal() && !is_dumb => Self::Terminal,
            _ => Self::Stream,
        }
    }

    fn show(self, answer: &Value, now: Timestamp) -> std::io::Result<()> {
        let at = time(&Value::String(now.to_string()));
        match self {
            Self::Json => writeln!(anstream::stdout(), "{answer}"),
            Self::Stream => writeln!(anstream::stdout(), "{at}\n{}", services(answer)),
            Self::Terminal => {
                let text = services(answer);
                overwrite(&format!("{at}, every second; Ctrl-C ends it\n{text}"))
            }
        }
    }

    fn show_lost(self, seen: Timestamp, error: &ClientError) -> std::io::Result<()> {
        let seen = time(&Value::String(seen.to_string()));
        let said = format!("disconnected since {seen}: {error}");
        match self {
            Self::Json | Self::Stream => {
                eprintln!("switchback: {said}; trying again");
                Ok(())
            }
            Self::Terminal => overwrite(&format!("{said}\ntrying again\n")),
        }
    }
}

/// Writes over what is on the terminal, from the top, without emptying it before.
fn overwrite(text: &str) -> std::io::Result<()> {
    let (width, height) = terminal::size().unwrap_or((80, 24));
    let has_colours = AutoStream::choice(&stdout()) != ColorChoice::Never;
    let mut screen = String::from("\u{1b}[H");
    for line in fitting(text, usize::from(width), usize::from(height)) {
        match has_colours {
            true => screen.push_str(&line),
            false => screen.push_str(&strip_str(&line).to_string()),
        }
        // What is left of the line before.
        screen.push_str("\u{1b}[K\r\n");
    }
    screen.push_str("\u{1b}[J");
    // Past what takes colours out: these are no colours.
    let mut stdout = stdout().lock();
    stdout.write_all(screen.as_bytes())?;
    stdout.flush()
}

/// The lines that a terminal has room for, and how many it has not. The last row is left empty: a line
/// there would move all others up.
fn fitting(text: &str, width: usize, height: usize) -> Vec<String> {
    let rows = |line: &str| {
        let seen = strip_str(line).to_string();
        seen.chars().count().div_ceil(width.max(1)).max(1)
    };
    let room = height.saturating_sub(1);
    let all: usize = text.lines().map(rows).sum();
    if all <= room {
        return text.lines().map(str::to_owned).collect();
    }
    let mut lines: Vec<String> = Vec::new();
    let mut used = 0;
    for line in text.lines() {
        used += rows(line);
        // One row for what follows.
        if used >= room {
            break;
        }
        lines.push(line.to_owned());
    }
    let left = text.lines().count() - lines.len();
    lines.push(format!(
        "{left} more lines do not fit; for all of them: switchback status, or top"
    ));
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_does_not_fit_is_left_out_and_counted() {
        let text = "one\ntwo\nthree\nfour\n";
        assert_eq!(fitting(text, 80, 5), ["one", "two", "three", "four"]);
        let cut = fitting(text, 80, 4);
        assert_eq!(cut[..2], ["one", "two"]);
        assert!(cut[2].starts_with("2 more lines"), "{cut:?}");
        assert_eq!(cut.len(), 3);
    }

    #[test]
    fn long_lines_take_more_rows_and_colours_none() {
        let text = format!("\u{1b}[31m{}\u{1b}[0m\ntwo\n", "x".repeat(80));
        assert_eq!(fitting(&text, 80, 3).len(), 2);
        let text = format!("{}\ntwo\n", "x".repeat(81));
        assert!(fitting(&text, 80, 3)[0].starts_with("2 more lines"));
        assert_eq!(fitting(&text, 80, 4).len(), 2);
    }
}
