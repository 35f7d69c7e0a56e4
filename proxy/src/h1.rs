//! HTTP/1, both sides: a strict codec over `httparse`, and the connection that speaks it.
//!
//! The codec proper ([`request_head`], [`response_head`], [`chunked`], [`encode`]) takes bytes and
//! gives events; it knows no socket. [`transport`] is a stream with its unread bytes, the same for
//! clients and endpoints; [`reader`] yields a message body from it; [`server`] serves a client.
//! The other half of the upstream side, sending a request, is [`crate::forward`].

pub(crate) mod chunked;
pub(crate) mod encode;
pub(crate) mod facts;
pub(crate) mod reader;
pub(crate) mod request_head;
pub(crate) mod response_head;
pub(crate) mod server;
pub(crate) mod transport;
