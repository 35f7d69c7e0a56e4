//! The access log: one line for each finished request, off the workers' hot path.
//!
//! A worker formats lines into its own buffer and hands full buffers, or what gathered in a tenth of
//! a second, to one writer thread over a bounded queue. When the disk cannot keep up, buffers are
//! dropped and counted; requests never wait for the log. Cookies and credentials are never logged.

use std::cell::RefCell;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::Duration;

use serde::Serialize;
use switchback_config::defaults::{ACCESS_LOG_BUFFER_BYTES, ACCESS_LOG_QUEUE};
use switchback_config::model::{LogFormat, LogPath};

use crate::head::{Name, RequestHead};

/// What is known of a request when it is over: a line of the log, and the attributes of a span. Field names are
/// stable.
#[derive(Debug, Serialize)]
pub struct Record {
    /// When the request began, RFC 3339 with milliseconds.
    pub time: String,
    /// The client, as trusted proxies name it.
    pub client: IpAddr,
    /// Where it came in.
    pub listener: Arc<str>,
    /// As the client wrote it.
    pub method: String,
    /// As the client wrote it.
    pub host: String,
    /// As the client wrote it.
    pub path: String,
    /// What follows the question mark.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub query: String,
    /// `HTTP/1.1` and so on.
    pub protocol: &'static str,
    /// What the client was answered; 0: nothing.
    pub status: u16,
    /// Bytes of the response body sent.
    pub bytes: u64,
    /// Until the last byte was sent.
    pub duration_ms: f64,
    /// Where it was routed to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub service: Option<Arc<str>>,
    /// The backend that answered.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub backend: Option<Arc<str>>,
    /// What that backend runs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub version: Option<Arc<str>>,
    /// `preview`, `asset` or `diverted`; absent for split traffic.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pick: Option<&'static str>,
    /// The canary whose failed attempt was repeated on stable, and how it failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rescued_from: Option<Arc<str>>,
    /// A class of outcomes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rescued_outcome: Option<&'static str>,
    /// The stable code of a failure.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<&'static str>,
    /// `x-request-id` as the backend saw it.
    pub request_id: String,
    /// As the client wrote it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user_agent: Option<String>,
    /// As the client wrote it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub referer: Option<String>,
    /// Whether the client came over TLS; for spans.
    #[serde(skip)]
    pub secure: bool,
}

impl Record {
    /// What is known when a request begins.
    pub(crate) fn begin(
        head: &RequestHead,
        client: IpAddr,
        listener: Arc<str>,
        unix_time: Duration,
    ) -> Box<Self> {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let path = head.path();
        let query = head.target().get(path.len() + 1..).unwrap_or_default();
        Box::new(Self {
            time: rfc3339(unix_time),
            client,
            listener,
            method: text(head.method()),
            host: text(head.authority().unwrap_or_default()),
            path: text(path),
            query: text(query),
            protocol: head.version.as_str(),
            status: 0,
            bytes: 0,
            duration_ms: 0.0,
            service: None,
            backend: None,
            version: None,
            pick: None,
            rescued_from: None,
            rescued_outcome: None,
            error: None,
            request_id: String::new(),
            user_agent: head.fields.first(Name::UserAgent).map(text),
            referer: head.fields.first(Name::Referer).map(text),
            secure: false,
        })
    }

    /// Cuts texts that a client wrote to so many bytes.
    pub(crate) fn shorten(&mut self, bytes_max: usize) {
        let texts = [
            &mut self.method,
            &mut self.host,
            &mut self.path,
            &mut self.query,
            &mut self.request_id,
        ];
        let optional = [self.user_agent.as_mut(), self.referer.as_mut()];
        for text in texts.into_iter().chain(optional.into_iter().flatten()) {
            if text.len() > bytes_max {
                text.truncate(text.floor_char_boundary(bytes_max));
                text.shrink_to_fit();
            }
        }
    }

    fn write(&self, format: LogFormat, out: &mut Vec<u8>) {
        match format {
            LogFormat::Off => {}
            LogFormat::Json => {
                // Writing to memory cannot fail, and the record has no map with strange keys.
                let _ = serde_json::to_writer(&mut *out, self);
                out.push(b'\n');
            }
            LogFormat::Combined => self.write_combined(out),
        }
    }

    fn write_combined(&self, out: &mut Vec<u8>) {
        let question = if self.query.is_empty() { "" } else { "?" };
        let _ = writeln!(
            out,
            "{} - - [{}] \"{} {}{question}{} {}\" {} {} \"{}\" \"{}\"",
            self.client,
            common_log_time(&self.time),
            quoted(&self.method),
            quoted(&self.path),
            quoted(&self.query),
            self.protocol,
            self.status,
            self.bytes,
            quoted(self.referer.as_deref().unwrap_or("-")),
            quoted(self.user_agent.as_deref().unwrap_or("-")),
        );
    }
}

/// Escapes what would end a quoted field or a line.
fn quoted(text: &str) -> String {
    if !text.contains(['"', '\\']) && !text.chars().any(char::is_control) {
        return text.to_owned();
    }
    text.chars()
        .map(|c| {
            if c == '"' || c == '\\' || c.is_control() {
                format!("\\x{:02x}", u32::from(c))
            } else {
                c.into()
            }
        })
        .collect()
}

fn timestamp(unix_time: Duration) -> jiff::Timestamp {
    let millis = i64::try_from(unix_time.as_millis()).unwrap_or(0);
    jiff::Timestamp::from_millisecond(millis).unwrap_or_default()
}

/// `2026-11-24T08:33:07.123Z`
pub(crate) fn rfc3339(unix_time: Duration) -> String {
    format!("{:.3}", timestamp(unix_time))
}

/// `24/Nov/2026:08:33:07 +0000`
fn common_log_time(rfc3339: &str) -> String {
    let parsed: Result<jiff::Timestamp, _> = rfc3339.parse();
    parsed
        .map(|time| time.strftime("%d/%b/%Y:%H:%M:%S +0000").to_string())
        .unwrap_or_default()
}

/// One worker's end of the log.
#[derive(Debug)]
pub(crate) struct LogBuffer {
    lines: RefCell<Vec<u8>>,
    queue: SyncSender<Vec<u8>>,
    dropped: std::cell::Cell<u64>,
}

impl LogBuffer {
    /// Adds a line.
    pub(crate) fn write(&self, record: &Record, format: LogFormat) {
        let mut lines = self.lines.borrow_mut();
        record.write(format, &mut lines);
        let full = lines.len() >= ACCESS_LOG_BUFFER_BYTES;
        drop(lines);
        if full {
            self.flush();
        }
    }

    /// Hands over what has gathered, or drops it when the writer is behind.
    pub(crate) fn flush(&self) {
        let lines = std::mem::take(&mut *self.lines.borrow_mut());
        if lines.is_empty() {
            return;
        }
        if let Err(refused) = self.queue.try_send(lines) {
            let (std::sync::mpsc::TrySendError::Full(lines)
            | std::sync::mpsc::TrySendError::Disconnected(lines)) = refused;
            self.dropped
                .set(self.dropped.get() + memchr::memchr_iter(b'\n', &lines).count() as u64);
        }
    }

    /// Lines dropped since this was last asked.
    pub(crate) fn take_dropped(&self) -> u64 {
        self.dropped.take()
    }
}

/// The writer's controls.
#[derive(Clone, Debug)]
pub struct AccessLog {
    queue: SyncSender<Vec<u8>>,
    reopen: Arc<AtomicBool>,
}

impl AccessLog {
    /// Opens the log and starts its writer thread.
    ///
    /// # Errors
    /// When the file cannot be opened or the thread not be started.
    pub fn start(path: LogPath) -> io::Result<Self> {
        let output = Output::open(&path)?;
        let (queue, lines) = sync_channel(ACCESS_LOG_QUEUE);
        let reopen = Arc::new(AtomicBool::new(false));
        let writer = Writer {
            path,
            output,
            reopen: reopen.clone(),
        };
        std::thread::Builder::new()
            .name("access-log".into())
            .spawn(move || writer.run(&lines))?;
        Ok(Self { queue, reopen })
    }

    /// Reopens the file before the next write: it may have been rotated away.
    pub fn reopen(&self) {
        self.reopen.store(true, Relaxed);
    }

    pub(crate) fn buffer(&self) -> LogBuffer {
        LogBuffer {
            lines: RefCell::default(),
            queue: self.queue.clone(),
            dropped: std::cell::Cell::new(0),
        }
    }
}

#[derive(Debug)]
enum Output {
    Stdout,
    File(File),
}

impl Output {
    fn open(path: &LogPath) -> io::Result<Self> {
        match path {
            LogPath::Stdout => Ok(Self::Stdout),
            LogPath::File(path) => open_file(path).map(Self::File),
        }
    }

    fn write(&mut self, lines: &[u8]) -> io::Result<()> {
        match self {
            Self::Stdout => {
                let mut stdout = io::stdout().lock();
                stdout.write_all(lines).and_then(|()| stdout.flush())
            }
            Self::File(file) => file.write_all(lines),
        }
    }
}

fn open_file(path: &PathBuf) -> io::Result<File> {
    OpenOptions::new().create(true).append(true).open(path)
}

#[derive(Debug)]
struct Writer {
    path: LogPath,
    output: Output,
    reopen: Arc<AtomicBool>,
}

impl Writer {
    fn run(mut self, lines: &Receiver<Vec<u8>>) {
        let mut failing = false;
        while let Ok(lines) = lines.recv() {
            if self.reopen.swap(false, Relaxed) {
                match Output::open(&self.path) {
                    Ok(output) => self.output = output,
                    Err(error) => {
                        tracing::error!(%error, "reopen the access log; the old file stays in use")
                    }
                }
            }
            let written = self.output.write(&lines);
            if let Err(error) = &written
                && !failing
            {
                tracing::error!(%error, "write the access log; lines are lost until this ends");
            }
            failing = written.is_err();
        }
    }
}

#[cfg(test)]
impl Record {
    /// A request as strange as they come.
    pub(crate) fn sample() -> Box<Self> {
        let text = b"GET /a?b=\"c HTTP/1.1\r\nHost: h\r\nUser-Agent: \\x\r\nCookie: secret\r\nAuthorization: secret\r\n\r\n";
        let limits = crate::h1::facts::HeadLimits {
            bytes: 4096,
            line_bytes: 4096,
            count: 50,
            uri_bytes: 4096,
        };
        let mut head = RequestHead::default();
        crate::h1::request_head::parse(text, &mut 0, &limits, &mut head).expect("valid");
        let time = Duration::from_millis(1_795_509_187_123);
        let mut record = Self::begin(&head, [127, 0, 0, 1].into(), "web".into(), time);
        record.status = 200;
        record.bytes = 12;
        record
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_lines_have_stable_names_and_no_secrets() {
        let mut out = Vec::new();
        Record::sample().write(LogFormat::Json, &mut out);
        let line = String::from_utf8(out).expect("utf-8");
        let value: serde_json::Value = serde_json::from_str(&line).expect("json");
        assert_eq!(value["time"], "2026-11-24T08:33:07.123Z");
        assert_eq!(
            (&value["path"], &value["query"]),
            (&"/a".into(), &"b=\"c".into())
        );
        assert_eq!(
            (&value["status"], &value["bytes"]),
            (&200.into(), &12.into())
        );
        assert!(!line.contains("secret"));
        assert!(line.ends_with('\n') && !line.trim_end().contains('\n'));
    }

    #[test]
    fn combined_lines_escape_quotes() {
        let mut out = Vec::new();
        Record::sample().write(LogFormat::Combined, &mut out);
        let expected = "127.0.0.1 - - [24/Nov/2026:08:33:07 +0000] \"GET /a?b=\\x22c HTTP/1.1\" 200 12 \"-\" \"\\x5cx\"\n";
        assert_eq!(String::from_utf8(out).expect("utf-8"), expected);
    }

    #[test]
    fn full_queue_drops_and_counts() {
        let (queue, _lines) = sync_channel(1);
        let buffer = LogBuffer {
            lines: RefCell::default(),
            queue,
            dropped: std::cell::Cell::new(0),
        };
        for _ in 0..3 {
            buffer.write(&Record::sample(), LogFormat::Json);
            buffer.flush();
        }
        assert_eq!(buffer.take_dropped(), 2);
        assert_eq!(buffer.take_dropped(), 0);
    }
}
