//! The terminal: taken, written to, and given back as it was.
//!
//! It is given back when this is dropped, also on the way out of an error, and by a hook before a panic
//! says what it has to say. Signals that end the process are waited for instead (see `top`), so that they
//! come this way, too.

use std::io::IsTerminal;

use ratatui::DefaultTerminal;
use ratatui::crossterm::event::{self, Event};
use tokio::sync::mpsc;

use crate::cli::Failed;

/// Keys that are not yet looked at; who types faster waits.
const KEYS_MAX: usize = 64;

/// Exit code of a use that makes no sense.
const USAGE: u8 = 2;

/// A terminal that is ours for now.
#[derive(Debug)]
pub(super) struct Live(pub(super) DefaultTerminal);

impl Live {
    /// Takes the terminal.
    pub(super) fn enter() -> std::io::Result<Self> {
        ratatui::try_init().map(Self)
    }
}

impl Drop for Live {
    fn drop(&mut self) {
        // After a panic the hook was here before, and what it printed must stay.
        if !std::thread::panicking() {
            ratatui::restore();
        }
    }
}

/// Whether there is a terminal to draw on and to type at.
///
/// # Errors
/// What is lacking, and what to use instead.
pub(super) fn require() -> Result<(), Failed> {
    let instead = "for pipes, files and simple terminals there is: switchback status --watch";
    if !std::io::stdout().is_terminal() || !std::io::stdin().is_terminal() {
        let message = format!("top needs a terminal, and this is none; {instead}");
        return Err(Failed::with_code(message, USAGE));
    }
    if std::env::var_os("TERM").is_some_and(|term| term == "dumb") {
        let message = format!("top needs a terminal that can be drawn on, TERM is dumb; {instead}");
        return Err(Failed::with_code(message, USAGE));
    }
    Ok(())
}

/// What is typed, and changes of the size. Ends when the terminal has gone.
pub(super) fn events() -> mpsc::Receiver<Event> {
    let (sent, events) = mpsc::channel(KEYS_MAX);
    // Reading cannot be cancelled: the thread ends with the process.
    std::thread::spawn(move || {
        while let Ok(event) = event::read() {
            if sent.blocking_send(event).is_err() {
                return;
            }
        }
    });
    events
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Output};
    use std::time::{Duration, Instant};

    use super::*;

    /// A tmux server of its own.
    struct Tmux {
        directory: tempfile::TempDir,
    }

    impl Tmux {
        fn run(&self, arguments: &[&str]) -> Output {
            let socket = self.directory.path().join("socket");
            Command::new("tmux")
                .arg("-S")
                .arg(socket)
                .args(["-f", "/dev/null"])
                .args(arguments)
                .output()
                .unwrap_or_else(|error| panic!("tmux: {error}; tests/run installs it"))
        }

        fn says(&self, arguments: &[&str]) -> String {
            String::from_utf8_lossy(&self.run(arguments).stdout).into_owned()
        }
    }

    impl Drop for Tmux {
        fn drop(&mut self) {
            let _ = self.run(&["kill-server"]);
        }
    }

    #[test]
    #[ignore = "needs a terminal: the test below runs it in one"]
    fn panic_within() {
        let mut live = Live::enter().unwrap();
        live.0
            .draw(|frame| frame.render_widget("drawn", frame.area()))
            .unwrap();
        panic!("what has gone wrong");
    }

    #[test]
    fn panic_is_told_on_a_terminal_that_is_as_before() {
        let tmux = Tmux {
            directory: tempfile::tempdir().unwrap(),
        };
        let test = std::env::current_exe().unwrap();
        let script = format!(
            "'{}' --exact --ignored --nocapture cli::top::terminal::tests::panic_within; stty -a; cat",
            test.display()
        );
        let size = ["-x", "120", "-y", "40"];
        let started =
            tmux.run(&[&["new-session", "-d"], &size[..], &["sh", "-c", &script]].concat());
        assert!(started.status.success(), "{started:?}");
        let until = Instant::now() + Duration::from_secs(20);
        let mut screen = String::new();
        while !screen.contains("echoke") {
            assert!(Instant::now() < until, "not in time: {screen}");
            std::thread::park_timeout(Duration::from_millis(20));
            screen = tmux.says(&["capture-pane", "-p"]);
        }
        assert!(screen.contains("what has gone wrong"), "{screen}");
        assert!(!screen.contains("drawn"), "{screen}");
        assert!(
            screen.contains(" icanon") && screen.contains(" echo "),
            "{screen}"
        );
        let modes = tmux.says(&["display-message", "-p", "#{alternate_on} #{cursor_flag}"]);
        assert_eq!(modes.trim(), "0 1", "the main screen, with its cursor");
    }
}
