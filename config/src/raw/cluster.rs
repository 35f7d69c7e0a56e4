//! Several instances that share one state, as written.

use super::TextItem;
use crate::decode::section;
use crate::units::TimeSpan;

section! {
    /// Several instances that share weights, roles, blocks, rollouts and flags.
    Cluster {
        /// Its name: instances with the same one belong together.
        name: String,
        /// Name of this instance, another one for each. Default: the machine's.
        instance: String,
        /// Where the shared state is kept.
        etcd: Etcd,
        /// An instance that is not heard of for so long is not waited for any more, 2s to 60s. After half of it,
        /// an instance that hears nothing takes canaries to weight 0. Default: 10s.
        lease: TimeSpan,
    }
}

section! {
    /// Where the shared state is kept.
    Etcd {
        /// URLs of its members: http://10.0.0.1:2379.
        endpoints: Vec<TextItem>,
        /// What all keys begin with. Default: /switchback.
        prefix: String,
        /// PEM file with the authorities that its members are trusted by, for https. Default: the system's.
        ca: String,
        /// PEM file with the chain of this instance's own certificate.
        certificate: String,
        /// PEM file with the key of that.
        key: String,
        /// Name of its user.
        user: String,
        /// File with the user's password.
        password_file: String,
    }
}
