//! One attempt by a program: started without a shell, in a process group of its own, with little in
//! its environment, a deadline, and a bounded record of what it printed.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process_group};
use switchback_config::defaults::{HOOK_KILL_TIME, HOOK_OUTPUT_BYTES};
use switchback_config::units::TimeSpan;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::process::{Child, Command};

use super::delivery::CloudEvent;
use super::{Outcome, Verdict};

/// What a program inherits: where programs are, where its settings are, which language it speaks.
const INHERITED: [&str; 3] = ["PATH", "HOME", "LANG"];

/// After a program has ended, others may hold its output open for so long.
const LAST_WORDS: Duration = Duration::from_millis(200);

/// What is run for an event.
#[derive(Debug)]
pub(super) struct Program<'a> {
    /// The program and its arguments.
    pub(super) argv: &'a [String],
    /// Further variables.
    pub(super) env: &'a BTreeMap<String, String>,
    /// Where it starts.
    pub(super) directory: &'a Path,
}

impl<'a> Program<'a> {
    /// A program, with variables beside the event's, and where it starts.
    pub(super) const fn new(
        argv: &'a [String],
        env: &'a BTreeMap<String, String>,
        directory: &'a Path,
    ) -> Self {
        Self {
            argv,
            env,
            directory,
        }
    }

    /// Runs it once, and ends it if it takes longer than `patience`.
    ///
    /// # Cancel safety
    /// Dropping it kills the program and what it has started.
    pub(super) async fn run(&self, event: &CloudEvent, patience: Duration) -> Outcome {
        let mut child = match self.command(event).spawn() {
            Ok(child) => child,
            Err(error) => {
                let program = self.argv.first().map_or("", String::as_str);
                return Outcome::failed(format!("start {program:?}: {error}"));
            }
        };
        let mut group = Group::of(&child);
        let told = serde_json::to_vec(event).unwrap_or_default();
        let mut output = Tail::default();
        let ended = tokio::time::timeout(patience, attend(&mut child, &told, &mut output)).await;
        let (verdict, result) = match ended {
            Ok(Ok(status)) => {
                group.forget();
                judge(status)
            }
            Ok(Err(error)) => (again(), error.to_string()),
            Err(_) => {
                group.end(&mut child).await;
                let result = format!("did not end within {}, killed", TimeSpan(patience));
                (again(), result)
            }
        };
        Outcome {
            verdict,
            result,
            output: output.into_text(),
        }
    }

    fn command(&self, event: &CloudEvent) -> Command {
        let (program, arguments) = self
            .argv
            .split_first()
            .map_or(("", &[][..]), |(p, a)| (p, a));
        let data = &event.data;
        let revision = data.revision.map(|revision| revision.to_string());
        let mut command = Command::new(program);
        command
            .args(arguments)
            .current_dir(self.directory)
            .env_clear()
            .envs(
                INHERITED
                    .iter()
                    .filter_map(|name| Some((name, std::env::var_os(name)?))),
            )
            .envs(self.env)
            .env("SWITCHBACK_EVENT", data.event.word())
            .env("SWITCHBACK_SERVICE", &data.service)
            .env(
                "SWITCHBACK_BACKEND",
                data.backend.as_deref().unwrap_or_default(),
            )
            .env(
                "SWITCHBACK_VERSION",
                data.version.as_deref().unwrap_or_default(),
            )
            .env("SWITCHBACK_REVISION", revision.unwrap_or_default())
            .env(
                "SWITCHBACK_REASON",
                data.reason.as_deref().unwrap_or(&data.message),
            )
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0)
            .kill_on_drop(true);
        command
    }
}

const fn again() -> Verdict {
    Verdict::Failed { retry_after: None }
}

fn judge(status: ExitStatus) -> (Verdict, String) {
    let verdict = if status.success() {
        Verdict::Delivered
    } else {
        again()
    };
    // "exit status: 0", "signal: 9 (SIGKILL)".
    (verdict, status.to_string())
}

/// Tells the program what happened, and listens until it has ended.
async fn attend(child: &mut Child, told: &[u8], output: &mut Tail) -> std::io::Result<ExitStatus> {
    let (stdin, stdout, stderr) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
    let tell = async {
        if let Some(mut stdin) = stdin {
            // Most programs do not listen.
            let _ = stdin.write_all(told).await;
        }
    };
    let listen = listen(stdout, stderr, output);
    tokio::pin!(tell, listen);
    let mut is_told = false;
    let mut is_silent = false;
    let status = loop {
        tokio::select! {
            status = child.wait() => break status?,
            () = &mut tell, if !is_told => is_told = true,
            () = &mut listen, if !is_silent => is_silent = true,
        }
    };
    if !is_silent {
        let _ = tokio::time::timeout(LAST_WORDS, listen).await;
    }
    Ok(status)
}

async fn listen<O: AsyncRead + Unpin, E: AsyncRead + Unpin>(
    mut stdout: Option<O>,
    mut stderr: Option<E>,
    output: &mut Tail,
) {
    let (mut out, mut err) = ([0; 4096], [0; 4096]);
    while stdout.is_some() || stderr.is_some() {
        tokio::select! {
            read = read(&mut stdout, &mut out), if stdout.is_some() => match read {
                0 => stdout = None,
                count => output.push(&out[..count]),
            },
            read = read(&mut stderr, &mut err), if stderr.is_some() => match read {
                0 => stderr = None,
                count => output.push(&err[..count]),
            },
        }
    }
}

/// The next bytes; none at the end.
async fn read(stream: &mut Option<impl AsyncRead + Unpin>, buffer: &mut [u8]) -> usize {
    match stream {
        Some(stream) => stream.read(buffer).await.unwrap_or(0),
        None => 0,
    }
}

/// The last bytes of what was printed.
#[derive(Debug, Default)]
struct Tail {
    bytes: Vec<u8>,
    cut: bool,
}

impl Tail {
    fn push(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
        if let Some(excess) = self.bytes.len().checked_sub(HOOK_OUTPUT_BYTES)
            && excess > 0
        {
            self.bytes.drain(..excess);
            self.cut = true;
        }
    }

    fn into_text(self) -> String {
        let text = String::from_utf8_lossy(&self.bytes);
        if self.cut {
            format!("[…]{text}")
        } else {
            text.into_owned()
        }
    }
}

/// The program and everything it has started.
#[derive(Debug)]
struct Group(Option<Pid>);

impl Group {
    fn of(child: &Child) -> Self {
        let id = child.id().and_then(|id| i32::try_from(id).ok());
        Self(id.and_then(Pid::from_raw))
    }

    /// The program has ended by itself; what it left running may stay.
    const fn forget(&mut self) {
        self.0 = None;
    }

    /// Asks everybody to end, and makes sure of it.
    async fn end(&mut self, child: &mut Child) {
        self.signal(Signal::TERM);
        let _ = tokio::time::timeout(HOOK_KILL_TIME, child.wait()).await;
        // Also when the program itself has ended: what it started may not listen to TERM.
        self.signal(Signal::KILL);
        self.0 = None;
        let _ = child.wait().await;
    }

    fn signal(&self, signal: Signal) {
        if let Some(group) = self.0 {
            // It may be gone already.
            let _ = kill_process_group(group, signal);
        }
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        self.signal(Signal::KILL);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_end_of_what_is_printed_is_kept() {
        let mut tail = Tail::default();
        tail.push(b"short");
        assert_eq!(tail.bytes, b"short");
        tail.push(&vec![b'x'; HOOK_OUTPUT_BYTES]);
        tail.push(b"end");
        assert_eq!(tail.bytes.len(), HOOK_OUTPUT_BYTES);
        let text = tail.into_text();
        assert!(text.starts_with("[…]xxx") && text.ends_with("xend"));
    }
}
