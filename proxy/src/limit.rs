//! The limits and timeouts by name, for counting how often each was hit.
//!
//! A name here is the key under `limits` in the configuration, so that a number that grows in the metrics
//! says by itself what to look at.

use crate::stats::Cell;

macro_rules! limits {
    ($($variant:ident $name:literal,)+) => {
        /// A limit of the configuration.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Limit {
            $(#[doc = $name] $variant,)+
        }

        impl Limit {
            /// Every limit.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)+];

            /// Its key.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$variant => $name,)+
                }
            }

            /// The limit with this key.
            pub(crate) fn named(name: &str) -> Option<Self> {
                Self::ALL.iter().copied().find(|limit| limit.name() == name)
            }
        }
    };
}

limits! {
    HeaderReadTimeout "header_read_timeout",
    TlsHandshakeTimeout "tls_handshake_timeout",
    RequestBodyIdleTimeout "request_body_idle_timeout",
    WriteStallTimeout "write_stall_timeout",
    KeepAliveTimeout "keep_alive_timeout",
    TunnelIdleTimeout "tunnel_idle_timeout",
    UpstreamConnectTimeout "upstream_connect_timeout",
    UpstreamResponseTimeout "upstream_response_timeout",
    UpstreamBodyIdleTimeout "upstream_body_idle_timeout",
    RequestHeaderBytes "request_header_bytes",
    RequestHeaderLineBytes "request_header_line_bytes",
    RequestHeaderCount "request_header_count",
    UriBytes "uri_bytes",
    RequestBodyBytes "request_body_bytes",
    ResponseHeaderBytes "response_header_bytes",
    ResponseHeaderCount "response_header_count",
    InformationalResponses "informational_responses",
    RequestsPerConnection "requests_per_connection",
    Connections "connections",
    ConnectionsPerClient "connections_per_client",
    UpstreamConnections "upstream_connections",
    UpstreamQueue "upstream_queue",
    UpstreamQueueTimeout "upstream_queue_timeout",
    H2Streams "h2_streams",
    H2StreamsPerConnection "h2_streams_per_connection",
    H2Resets "h2_resets",
    H2Continuations "h2_continuations",
    H2EmptyData "h2_empty_data",
    H2ControlFrames "h2_control_frames",
}

/// How often one worker has seen each limit hit.
#[derive(Debug)]
pub struct LimitHits([Cell; Limit::ALL.len()]);

impl Default for LimitHits {
    fn default() -> Self {
        Self([const { Cell::new() }; Limit::ALL.len()])
    }
}

impl LimitHits {
    /// Counts one. Only the owning worker may call this.
    pub(crate) fn hit(&self, limit: Limit) {
        self.0[limit as usize].add(1);
    }

    /// How often a limit was hit.
    #[must_use]
    pub fn get(&self, limit: Limit) -> u64 {
        self.0[limit as usize].get()
    }
}

#[cfg(test)]
mod tests {
    use switchback_config::defaults;

    use super::*;

    #[test]
    fn every_name_is_a_key_of_the_configuration() {
        let written = format!("{:?}", defaults::limits());
        for limit in Limit::ALL {
            assert!(
                written.contains(&format!("{}: ", limit.name())),
                "{}",
                limit.name()
            );
        }
    }

    #[test]
    fn hits_are_counted_apart() {
        let hits = LimitHits::default();
        hits.hit(Limit::UriBytes);
        hits.hit(Limit::UriBytes);
        hits.hit(Limit::H2ControlFrames);
        let counted = Limit::ALL.iter().map(|limit| hits.get(*limit)).sum::<u64>();
        assert_eq!((hits.get(Limit::UriBytes), counted), (2, 3));
    }
}
