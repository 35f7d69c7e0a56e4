//! One end of a hand-over, played by the test: says what it should, and goes no further than told.

use std::io::{IoSlice, IoSliceMut, Read, Write};
use std::mem::MaybeUninit;
use std::net::TcpListener;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;

use rustix::fs::{FlockOperation, flock};
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
};
use serde_json::{Value, json};

use crate::support::{DEADLINE, Proxy, eventually};

/// The conversation of either side.
pub(super) struct Talk(UnixStream);

impl Talk {
    fn new(stream: UnixStream) -> Self {
        stream.set_read_timeout(Some(DEADLINE)).unwrap();
        Self(stream)
    }

    pub(super) fn send(&mut self, message: &Value) {
        let text = message.to_string();
        let length = u32::try_from(text.len()).unwrap().to_be_bytes();
        self.0.write_all(&length).unwrap();
        self.0.write_all(text.as_bytes()).unwrap();
    }

    pub(super) fn receive(&mut self) -> Value {
        self.receive_any().expect("the other side goes on")
    }

    /// None once the other side has ended.
    pub(super) fn receive_any(&mut self) -> Option<Value> {
        let mut length = [0; 4];
        match self.0.read_exact(&mut length) {
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {
                panic!("the other side says nothing")
            }
            Err(_) => return None,
            Ok(()) => {}
        }
        let mut text = vec![0; u32::from_be_bytes(length) as usize];
        self.0.read_exact(&mut text).unwrap();
        Some(serde_json::from_slice(&text).unwrap())
    }

    fn receive_descriptors(&mut self, count: usize) -> Vec<OwnedFd> {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(16))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let mut byte = [0];
        let mut byte = [IoSliceMut::new(&mut byte)];
        let flags = RecvFlags::CMSG_CLOEXEC;
        recvmsg(self.0.as_fd(), &mut byte, &mut control, flags).unwrap();
        let rights = control.drain().filter_map(|message| match message {
            RecvAncillaryMessage::ScmRights(descriptors) => Some(descriptors),
            _ => None,
        });
        let descriptors: Vec<OwnedFd> = rights.flatten().collect();
        assert_eq!(descriptors.len(), count);
        descriptors
    }

    fn send_descriptors(&mut self, descriptors: &[BorrowedFd<'_>]) {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(16))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        assert!(control.push(SendAncillaryMessage::ScmRights(descriptors)));
        let byte = [IoSlice::new(b"+")];
        sendmsg(self.0.as_fd(), &byte, &mut control, SendFlags::NOSIGNAL).unwrap();
    }
}

/// A process that takes over, as the old one sees it.
pub(super) struct Taker {
    pub(super) talk: Talk,
    held: Vec<OwnedFd>,
}

impl Taker {
    pub(super) fn connect(proxy: &Proxy) -> Self {
        let mut taker = Self::silent(proxy);
        taker.hello();
        taker
    }

    /// One that has said nothing yet.
    pub(super) fn silent(proxy: &Proxy) -> Self {
        // A process that serves waits for the next one a moment later.
        let path = proxy.state_dir().join("takeover.sock");
        let mut stream = None;
        eventually("it waits for another process", || {
            stream = UnixStream::connect(&path).ok();
            stream.is_some()
        });
        let (talk, held) = (Talk::new(stream.unwrap()), Vec::new());
        Self { talk, held }
    }

    pub(super) fn hello(&mut self) {
        let hello = json!({"say": "hello", "protocol": 3, "pid": std::process::id()});
        self.talk.send(&hello);
        let sockets = self.talk.receive();
        assert_eq!(sockets["say"], "sockets", "{sockets}");
        let count = sockets["listeners"].as_array().unwrap().len() + 1;
        self.held.extend(self.talk.receive_descriptors(count));
    }

    /// From here on only this process may write the state.
    pub(super) fn take(&mut self) {
        self.talk.send(&json!({"say": "take"}));
        assert_eq!(self.talk.receive(), json!({"say": "lock"}));
        self.held.extend(self.talk.receive_descriptors(1));
    }
}

/// A process that is taken over from, as the new one sees it. It holds a state directory that another one
/// has left.
pub(super) struct Giver {
    socket: UnixListener,
    lock: std::fs::File,
    web: TcpListener,
    admin: TcpListener,
}

impl Giver {
    pub(super) fn hold(state_dir: &Path) -> Self {
        let lock = std::fs::File::options()
            .write(true)
            .open(state_dir.join("lock"))
            .unwrap();
        flock(&lock, FlockOperation::NonBlockingLockExclusive).unwrap();
        let path = state_dir.join("takeover.sock");
        let _ = std::fs::remove_file(&path);
        Self {
            socket: UnixListener::bind(path).unwrap(),
            lock,
            web: TcpListener::bind("127.0.0.1:0").unwrap(),
            admin: TcpListener::bind("127.0.0.1:0").unwrap(),
        }
    }

    /// Hands over sockets and lock to whoever comes first, which does not serve yet.
    pub(super) fn give(&self) -> Talk {
        let mut talk = Talk::new(self.socket.accept().unwrap().0);
        assert_eq!(talk.receive()["say"], "hello");
        let web = json!({"name": "web", "configured": "127.0.0.1:0"});
        talk.send(&json!({"say": "sockets", "listeners": [web]}));
        talk.send_descriptors(&[self.web.as_fd(), self.admin.as_fd()]);
        assert_eq!(talk.receive(), json!({"say": "take"}));
        talk.send(&json!({"say": "lock"}));
        talk.send_descriptors(&[self.lock.as_fd()]);
        talk
    }
}
