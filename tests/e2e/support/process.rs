//! Processes of others: clients and receivers that are not ours.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver as Lines, sync_channel};

use super::{DEADLINE, python};

/// A program of `tests/clients`.
pub(crate) fn client(script: &str) -> Command {
    let mut command = Command::new(python());
    command.arg(format!(
        "{}/tests/clients/{script}",
        env!("CARGO_MANIFEST_DIR")
    ));
    command
}

/// A process that ends with the test, and what it prints.
pub(crate) struct Process {
    child: Child,
    lines: Lines<String>,
}

impl Process {
    /// `errors`: it talks on standard error.
    pub(crate) fn start(command: &mut Command, errors: bool) -> Self {
        command.stdin(Stdio::null());
        match errors {
            true => command.stdout(Stdio::null()).stderr(Stdio::piped()),
            false => command.stdout(Stdio::piped()),
        };
        let mut child = command
            .spawn()
            .unwrap_or_else(|error| panic!("{command:?}: {error}; tests/run installs it"));
        let (sender, lines) = sync_channel(1_000);
        let output: Box<dyn std::io::Read + Send> = match errors {
            true => Box::new(child.stderr.take().unwrap()),
            false => Box::new(child.stdout.take().unwrap()),
        };
        std::thread::spawn(move || {
            for line in BufReader::new(output).lines().map_while(Result::ok) {
                let _ = sender.try_send(line);
            }
        });
        Self { child, lines }
    }

    /// What it says next.
    pub(crate) fn line(&self) -> String {
        self.lines
            .recv_timeout(DEADLINE)
            .expect("it says something")
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
